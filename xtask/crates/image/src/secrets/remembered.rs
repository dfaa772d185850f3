//! What earlier runs found, so that an unchanged file is looked through once.
//!
//! A layer is remembered as a whole, because it may have more files than the cache has entries;
//! large files are remembered one by one too, because one of many may have changed.

use oci::Hasher;

use super::rules::VERSION;
use super::{Candidate, Hit, LayerHits};
use crate::cache::{Cache, is_settled, stat_key};
use crate::files::Content;

/// Reading less than this is quicker than remembering it.
const WORTH: u64 = 256 * 1024;

pub(super) fn layer(candidates: &[Candidate<'_>], cache: &mut Cache) -> Option<LayerHits> {
    cache.scanned_layer(&layer_key(candidates))
}

pub(super) fn remember_layer(candidates: &[Candidate<'_>], hits: &LayerHits, cache: &mut Cache) {
    let settled = |candidate: &Candidate<'_>| match candidate.content {
        Content::Disk { stat, .. } => is_settled(stat),
        Content::Inline(_) => true,
        Content::Unbuilt { .. } => false,
    };
    if candidates.iter().all(settled) {
        cache.remember_scanned_layer(layer_key(candidates), hits.clone());
    }
}

pub(super) fn file(candidate: &Candidate<'_>, cache: &mut Cache) -> Option<Vec<Hit>> {
    cache.scanned_file(&file_key(candidate)?)
}

pub(super) fn remember_file(candidate: &Candidate<'_>, hits: &[Hit], cache: &mut Cache) {
    let Content::Disk { stat, .. } = candidate.content else {
        return;
    };
    if let Some(key) = file_key(candidate).filter(|_| is_settled(stat)) {
        cache.remember_scanned_file(key, hits.to_vec());
    }
}

fn file_key(candidate: &Candidate<'_>) -> Option<String> {
    match candidate.content {
        Content::Disk { stat, .. } if stat.size >= WORTH => Some(format!(
            "{VERSION}.{}.{}",
            candidate.class.letter(),
            stat_key(stat)
        )),
        _ => None,
    }
}

fn layer_key(candidates: &[Candidate<'_>]) -> String {
    let mut hasher = Hasher::new();
    let mut field = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    field(&VERSION.to_le_bytes());
    for candidate in candidates {
        field(candidate.path.as_os_str().as_encoded_bytes());
        match candidate.content {
            Content::Disk { stat, .. } => field(stat_key(stat).as_bytes()),
            Content::Inline(bytes) => field(bytes),
            Content::Unbuilt { package } => field(package.as_bytes()),
        }
    }
    hasher.finish().hex()
}

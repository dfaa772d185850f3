//! Keeping the local store small: the images made last keep their blobs, everything older goes.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use oci::{Digest, ImageManifest, Store};

/// How many images of each service are kept: enough to go back and forth between a few branches.
const KEPT: usize = 10;
/// No manifest of ours is longer.
const MANIFEST_LIMIT: u64 = 4 * 1024 * 1024;

/// Notes the images of a release as the newest and removes what the last ones do not use. A store that cannot be
/// swept only grows: no error is worth a deployment.
pub(crate) fn keep_recent(cache_folder: &Path, digests: &[String]) {
    let _ = sweep(cache_folder, digests);
}

fn sweep(cache_folder: &Path, digests: &[String]) -> io::Result<()> {
    let list = cache_folder.join("images");
    let text = fs::read_to_string(&list).unwrap_or_default();
    let known: Vec<&str> = text.lines().collect();
    let mut newest: Vec<&str> = Vec::new();
    for digest in digests {
        if !newest.contains(&digest.as_str()) {
            newest.push(digest);
        }
    }
    if known.starts_with(&newest) {
        return Ok(());
    }
    let others = known.iter().filter(|other| !newest.contains(other));
    let recent: Vec<&str> = newest
        .iter()
        .chain(others)
        .copied()
        .take(KEPT * newest.len())
        .collect();
    let coming = cache_folder.join("images.new");
    fs::write(&coming, recent.join("\n"))?;
    fs::rename(&coming, &list)?;
    let store = Store::open(cache_folder.join("oci")).map_err(io::Error::other)?;
    let used = used(&store, &recent);
    let contents = store.contents().map_err(io::Error::other)?;
    for blob in contents.iter().filter(|blob| !used.contains(blob)) {
        store.remove(blob).map_err(io::Error::other)?;
    }
    Ok(())
}

/// The blobs of the images named. An image that cannot be read uses nothing that could be saved.
fn used(store: &Store, images: &[&str]) -> BTreeSet<Digest> {
    let mut used = BTreeSet::new();
    for digest in images.iter().filter_map(|text| text.parse::<Digest>().ok()) {
        used.insert(digest);
        let manifest = store.read_small(&digest, MANIFEST_LIMIT).ok();
        if let Some(manifest) = manifest.and_then(|bytes| ImageManifest::from_slice(&bytes).ok()) {
            used.extend(manifest.blobs().map(|blob| blob.digest));
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::Descriptor;

    #[test]
    fn old_images_go_and_shared_blobs_stay() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("oci")).unwrap();
        let put = |text: &str| {
            let digest = store.put_bytes(text.as_bytes()).unwrap();
            (
                digest,
                Descriptor::of("application/octet-stream", text.as_bytes()),
            )
        };
        let (shared, shared_layer) = put("shared");
        let mut first = None;
        for number in 0..=KEPT {
            let (own, layer) = put(&format!("own {number}"));
            let (_, config) = put(&format!("config {number}"));
            let manifest = ImageManifest::new(config, vec![shared_layer.clone(), layer]).to_vec();
            let digest = store.put_bytes(&manifest).unwrap();
            keep_recent(folder.path(), &[digest.to_string()]);
            first.get_or_insert((own, digest));
        }
        let (own, manifest) = first.unwrap();
        assert!(!store.contains(&own) && !store.contains(&manifest));
        assert!(store.contains(&shared));
    }
}

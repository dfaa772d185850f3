//! What an image says of how it is run. It reads small files and blocks.

use oci::{Digest, ImageConfig, ImageIndex, ImageManifest, Platform, RunConfig, Store};

/// Manifests and configurations are documents, not content.
const MAX_DOCUMENT: u64 = 4 * 1024 * 1024;

/// Nothing of an image that cannot be read: the engine then says why.
pub(super) fn read(store: &Store, digest: Digest) -> Option<RunConfig> {
    let document = store.read_small(&digest, MAX_DOCUMENT).ok()?;
    let manifest = match ImageIndex::from_slice(&document) {
        Ok(index) => {
            let chosen = index.for_platform(&Platform::host())?;
            let document = store.read_small(&chosen.digest, MAX_DOCUMENT).ok()?;
            ImageManifest::from_slice(&document).ok()?
        }
        Err(_) => ImageManifest::from_slice(&document).ok()?,
    };
    let config = store.read_small(&manifest.config.digest, MAX_DOCUMENT);
    let config = ImageConfig::from_slice(&config.ok()?).ok()?;
    Some(config.config)
}

/// Whether the image has a value of its own for a variable.
pub(crate) fn sets(store: &Store, digest: Digest, variable: &str) -> bool {
    let config = read(store, digest).unwrap_or_default();
    let mut pairs = config.env.iter().filter_map(|pair| pair.split_once('='));
    pairs.any(|(name, _)| name == variable)
}

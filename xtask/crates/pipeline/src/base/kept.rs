//! What is kept of base images for ever, by digest: manifests, configurations and the facts found in
//! their layers. A few kilobytes each, apart from the layers, which are swept when no image of late
//! uses them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use deploy_image::BaseFacts;
use oci::{Digest, Store, StoreError};

/// What the specification asks registries to accept at least, and what they accept at most.
const LIMIT: u64 = 4 * 1024 * 1024;
/// A record of facts over this is none.
const FACTS_LIMIT: u64 = 64 * 1024 * 1024;

/// The folder, below the cache.
const FOLDER: &str = "bases";

/// What is kept.
#[derive(Debug)]
pub(crate) struct Kept {
    folder: PathBuf,
}

impl Kept {
    /// Nothing is made until something is kept.
    pub(crate) fn below(cache_folder: &Path) -> Self {
        Self {
            folder: cache_folder.join(FOLDER),
        }
    }

    /// The store of manifests and configurations, for keeping something.
    pub(crate) fn store(&self) -> Result<Store, StoreError> {
        Store::open(&self.folder)
    }

    /// A manifest or configuration; a damaged one is none.
    pub(crate) fn read(&self, digest: &Digest) -> Option<Vec<u8>> {
        let store = Store::existing(&self.folder)?;
        let bytes = store.read_small(digest, LIMIT).ok()?;
        (Digest::of(&bytes) == *digest).then_some(bytes)
    }

    /// What was found in the layers of the image with this manifest.
    pub(crate) fn facts(&self, manifest: &Digest) -> Option<BaseFacts> {
        let path = self.facts_file(manifest);
        if fs::metadata(&path).ok()?.len() > FACTS_LIMIT {
            return None;
        }
        BaseFacts::from_slice(&fs::read(path).ok()?)
    }

    /// Keeps what was found, by way of a file beside it.
    pub(crate) fn keep_facts(&self, manifest: &Digest, facts: &BaseFacts) -> io::Result<()> {
        let path = self.facts_file(manifest);
        fs::create_dir_all(path.parent().unwrap_or(&self.folder))?;
        let coming = path.with_extension(format!("new.{}", std::process::id()));
        fs::write(&coming, facts.to_vec())?;
        fs::rename(&coming, &path)
    }

    /// A folder for what passes through.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.folder.join("tmp")
    }

    fn facts_file(&self, manifest: &Digest) -> PathBuf {
        self.folder
            .join("facts")
            .join(format!("{}.json", manifest.hex()))
    }
}

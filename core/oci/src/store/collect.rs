//! Giving back the space of content that nothing needs any more.
//!
//! A manifest keeps what it names; a manifest is kept until it is unlinked. Everything else goes
//! after a grace period, because a push puts its blobs first and the manifest that needs them last.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Store, StoreError, files};
use crate::digest::Digest;
use crate::manifest::{ImageIndex, ImageManifest};
use crate::reference::Repository;

/// No registry takes longer manifests.
const MANIFEST_LIMIT: u64 = 4 * 1024 * 1024;

/// What a collection removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs that repositories no longer have.
    pub links: usize,
    /// Blobs that are gone from the disk.
    pub blobs: usize,
    /// The length of these in bytes.
    pub bytes: u64,
}

impl Store {
    /// Removes blobs that no manifest of their repository names, and content that no repository has,
    /// unless it came or was pushed again within `grace`. A manifest that cannot be read ends the
    /// collection before anything of its repository is removed. Safe beside readers and writers; a
    /// push that was told that a blob exists, and then waits longer than `grace`, has to send it again.
    pub fn collect(&self, grace: Duration) -> Result<Collected, StoreError> {
        let mut collected = Collected::default();
        let mut kept = BTreeSet::new();
        for repository in self.repositories()? {
            self.collect_links(&repository, grace, &mut kept, &mut collected)?;
        }
        for name in files::names(&self.blobs())? {
            let Ok(digest) = Digest::from_hex(&name) else {
                continue;
            };
            let path = self.path(&digest);
            if kept.contains(&digest) || !files::is_older_than(&path, grace) {
                continue;
            }
            let size = self.size(&digest).unwrap_or_default();
            if self.remove(&digest)? {
                collected.blobs += 1;
                collected.bytes += size;
            }
        }
        Ok(collected)
    }

    fn collect_links(
        &self,
        repository: &Repository,
        grace: Duration,
        kept: &mut BTreeSet<Digest>,
        collected: &mut Collected,
    ) -> Result<(), StoreError> {
        let needed = self.needed(repository)?;
        for digest in self.linked_blobs(repository)? {
            let link = self.blob_link(repository, &digest);
            if needed.contains(&digest) || !files::is_older_than(&link, grace) {
                kept.insert(digest);
            } else if self.unlink(repository, &digest)? {
                collected.links += 1;
            }
        }
        kept.extend(needed);
        Ok(())
    }

    /// The repository's manifests and all that they name.
    fn needed(&self, repository: &Repository) -> Result<BTreeSet<Digest>, StoreError> {
        let mut needed = BTreeSet::new();
        for digest in self.manifests(repository)? {
            needed.insert(digest);
            match self.read_small(&digest, MANIFEST_LIMIT) {
                Ok(bytes) => needed.extend(self.named_by(&digest, &bytes)?),
                // A link that leads nowhere needs nothing.
                Err(StoreError::Missing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(needed)
    }

    fn named_by(&self, digest: &Digest, bytes: &[u8]) -> Result<Vec<Digest>, StoreError> {
        if let Ok(manifest) = ImageManifest::from_slice(bytes) {
            return Ok(manifest.blobs().map(|blob| blob.digest).collect());
        }
        match ImageIndex::from_slice(bytes) {
            Ok(index) => Ok(index.manifests.iter().map(|entry| entry.digest).collect()),
            Err(_) => Err(StoreError::Corrupt {
                path: self.path(digest),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Descriptor;
    use crate::media_type;

    const AT_ONCE: Duration = Duration::ZERO;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        (folder, store)
    }

    fn repository(name: &str) -> Repository {
        name.parse().unwrap()
    }

    fn add(store: &Store, repository: &Repository, bytes: &[u8]) -> Descriptor {
        let digest = store.put_bytes(bytes).unwrap();
        store.link(repository, &digest).unwrap();
        Descriptor::new(media_type::OCI_LAYER, digest, bytes.len() as u64)
    }

    fn add_image(store: &Store, repository: &Repository, layers: &[&[u8]]) -> Digest {
        let config = add(store, repository, b"{}");
        let layers = layers
            .iter()
            .map(|bytes| add(store, repository, bytes))
            .collect();
        let digest = store
            .put_bytes(&ImageManifest::new(config, layers).to_vec())
            .unwrap();
        store
            .link_manifest(repository, &digest, media_type::OCI_MANIFEST)
            .unwrap();
        digest
    }

    #[test]
    fn what_a_manifest_names_stays_and_the_rest_goes() {
        let (_folder, store) = store();
        let name = repository("app");
        let old = add_image(&store, &name, &[b"shared", b"old"]);
        let new = add_image(&store, &name, &[b"shared", b"new"]);
        add(&store, &name, b"never named");
        store.put_bytes(b"nobody's").unwrap();
        store.unlink_manifest(&name, &old).unwrap();

        let collected = store.collect(AT_ONCE).unwrap();
        assert_eq!((collected.links, collected.blobs), (2, 4));
        for bytes in [&b"shared"[..], b"new", b"{}"] {
            assert!(store.linked(&name, &Digest::of(bytes)));
        }
        assert!(store.contains(&new) && !store.contains(&old));
        assert!(!store.contains(&Digest::of(b"old")));
        assert_eq!(store.collect(AT_ONCE).unwrap(), Collected::default());
    }

    #[test]
    fn what_came_lately_stays() {
        let (_folder, store) = store();
        let digest = add(&store, &repository("app"), b"in the middle of a push").digest;
        assert_eq!(
            store.collect(Duration::from_hours(1)).unwrap(),
            Collected::default()
        );
        assert!(store.linked(&repository("app"), &digest));
    }

    #[test]
    fn another_repositorys_need_keeps_content() {
        let (_folder, store) = store();
        add(&store, &repository("alice"), b"layer");
        add_image(&store, &repository("bob"), &[b"layer"]);
        let collected = store.collect(AT_ONCE).unwrap();
        assert_eq!((collected.links, collected.blobs), (1, 0));
        assert!(!store.linked(&repository("alice"), &Digest::of(b"layer")));
        assert!(store.linked(&repository("bob"), &Digest::of(b"layer")));
    }

    #[test]
    fn an_index_keeps_its_images() {
        let (_folder, store) = store();
        let name = repository("app");
        let image = add_image(&store, &name, &[b"layer"]);
        let entry = Descriptor::new(media_type::OCI_MANIFEST, image, 1);
        let index = store
            .put_bytes(&ImageIndex::new(vec![entry]).to_vec())
            .unwrap();
        store
            .link_manifest(&name, &index, media_type::OCI_INDEX)
            .unwrap();
        assert_eq!(store.collect(AT_ONCE).unwrap(), Collected::default());
    }

    #[test]
    fn an_unreadable_manifest_ends_it() {
        let (_folder, store) = store();
        let name = repository("app");
        let digest = store.put_bytes(b"no manifest").unwrap();
        store
            .link_manifest(&name, &digest, media_type::OCI_MANIFEST)
            .unwrap();
        let layer = add(&store, &name, b"layer").digest;
        assert!(matches!(
            store.collect(AT_ONCE),
            Err(StoreError::Corrupt { .. })
        ));
        assert!(store.linked(&name, &layer));
    }
}

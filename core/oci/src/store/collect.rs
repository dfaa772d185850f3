//! Giving back the space of content that nothing needs any more.
//!
//! A manifest keeps what it names; a manifest is kept until it is unlinked. Everything else goes
//! after a grace period, because a push puts its blobs first and the manifest that needs them last. Whoever relies on
//! something makes it look new (`renew`), so that what is old at the moment of its removal is needed by nobody.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::inventory::{Inventory, Manifests};
use super::{Collecting, STALE, Store, StoreError, files};
use crate::digest::Digest;
use crate::reference::{Repository, Tag};

/// What a collection removed, or would remove.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Manifests that repositories no longer have.
    pub manifests: usize,
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
    /// collection before anything is removed. Safe beside readers and writers; a
    /// push that was told that a blob exists, and then waits longer than `grace`, has to send it again.
    pub fn collect(&self, grace: Duration) -> Result<Collected, StoreError> {
        self.collect_without(&self.collecting()?, &Manifests::new(), grace)
    }

    /// The same, after taking these manifests from their repositories, each with its tags, unless it was pushed or
    /// asked about within `grace`.
    pub fn collect_without(
        &self,
        right: &Collecting,
        gone: &Manifests,
        grace: Duration,
    ) -> Result<Collected, StoreError> {
        let inventory = self.inventory()?;
        let unlinked = self.unlink_manifests(right, &inventory, gone, grace)?;
        self.remove_surplus(right, &inventory, &unlinked, grace)
    }

    /// Takes these manifests from their repositories, each with its tags, unless it was pushed or asked about within
    /// `grace`; says which are gone. The inventory may be older than what came meanwhile: that looks new.
    pub fn unlink_manifests(
        &self,
        _right: &Collecting,
        inventory: &Inventory,
        gone: &Manifests,
        grace: Duration,
    ) -> Result<Manifests, StoreError> {
        let mut unlinked = Manifests::new();
        for (repository, digests) in gone {
            let Some(holdings) = inventory.repositories.get(repository) else {
                continue;
            };
            let holders = holdings.holders();
            // Once: a tag that comes later makes what it means look new.
            let tags = self.tags_by_digest(repository)?;
            let here = unlinked.entry(repository.clone()).or_default();
            for digest in holdings.in_order(digests) {
                // A list that was asked about meanwhile stays with what it lists. One that came meanwhile has made that
                // look new.
                let held = holders.get(&digest);
                let is_free = held.is_none_or(|holders| holders.is_subset(here));
                let subject = holdings.manifests[&digest].subject;
                let called = tags.get(&digest).map_or(&[][..], Vec::as_slice);
                if is_free && self.unlink_if_old(repository, &digest, subject, called, grace)? {
                    here.insert(digest);
                }
            }
        }
        Ok(unlinked)
    }

    /// Removes what only these manifests needed, which are gone, and what nothing needed before.
    pub fn remove_surplus(
        &self,
        _right: &Collecting,
        inventory: &Inventory,
        unlinked: &Manifests,
        grace: Duration,
    ) -> Result<Collected, StoreError> {
        let surplus = inventory.without(unlinked, grace);
        let mut collected = Collected {
            manifests: unlinked.values().map(BTreeSet::len).sum(),
            ..Collected::default()
        };
        let mut changed = BTreeSet::new();
        for (repository, digest) in surplus.links {
            let link = self.blob_link(&repository, &digest);
            if self.remove_if_old(&link, grace)? {
                changed.insert(link.parent().map(Path::to_owned));
                collected.links += 1;
            }
        }
        for digest in surplus.contents {
            let path = self.path(&digest);
            let size = self.size(&digest).unwrap_or_default();
            if self.remove_if_old(&path, grace)? {
                changed.insert(path.parent().map(Path::to_owned));
                collected.blobs += 1;
                collected.bytes += size;
            }
        }
        for folder in changed.into_iter().flatten() {
            files::sync(&folder)?;
        }
        files::remove_older_than(&self.temporary(), STALE)?;
        Ok(collected)
    }

    fn unlink_if_old(
        &self,
        repository: &Repository,
        digest: &Digest,
        subject: Option<Digest>,
        tags: &[Tag],
        grace: Duration,
    ) -> Result<bool, StoreError> {
        let _removing = self.removing()?;
        if !files::is_older_than(&self.manifest_link(repository, digest), grace) {
            return Ok(false);
        }
        if let Some(subject) = subject {
            self.unlink_referrer(repository, &subject, digest)?;
        }
        self.unlink_tagged(repository, digest, tags)
    }

    /// Removes a file that nobody has relied on since it was looked at. The folder is not flushed.
    fn remove_if_old(&self, path: &Path, grace: Duration) -> Result<bool, StoreError> {
        let _removing = self.removing()?;
        if !files::is_older_than(path, grace) {
            return Ok(false);
        }
        match fs::remove_file(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StoreError::io("remove", path)(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Algorithm;
    use crate::manifest::{Descriptor, ImageIndex, ImageManifest};
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
    fn contents_of_every_algorithm_are_collected_and_kept() {
        let (_folder, store) = store();
        let name = repository("app");
        let put = |bytes: &[u8]| {
            let digest = store.put_bytes_by(Algorithm::Sha512, bytes).unwrap();
            store.link(&name, &digest).unwrap();
            Descriptor::new(media_type::OCI_LAYER, digest, bytes.len() as u64)
        };
        let (config, layer, other) = (put(b"{}"), put(b"layer"), put(b"other").digest);
        let manifest = ImageManifest::new(config, vec![layer.clone()]).to_vec();
        let digest = store.put_bytes_by(Algorithm::Sha512, &manifest).unwrap();
        let kind = media_type::OCI_MANIFEST;
        store.link_manifest(&name, &digest, kind).unwrap();
        let collected = store.collect(AT_ONCE).unwrap();
        assert_eq!((collected.links, collected.blobs), (1, 1));
        assert!(!store.contains(&other));
        assert!(store.is_whole(&name, &digest).unwrap());
        store.verify(&layer.digest).unwrap();
        assert!(store.unlink_manifest(&name, &digest).unwrap());
        assert_eq!(store.collect(AT_ONCE).unwrap().blobs, 3);
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

    fn one(repository: &Repository, digest: Digest) -> Manifests {
        Manifests::from([(repository.clone(), BTreeSet::from([digest]))])
    }

    #[test]
    fn a_manifest_that_goes_takes_its_tags_and_what_only_it_needed() {
        let (_folder, store) = store();
        let name = repository("app");
        let old = add_image(&store, &name, &[b"shared", b"old"]);
        let new = add_image(&store, &name, &[b"shared", b"new"]);
        store.set_tag(&name, &"v1".parse().unwrap(), &old).unwrap();
        let gone = one(&name, old);
        let planned = store.inventory().unwrap().without(&gone, AT_ONCE);
        let collected = without(&store, &gone, AT_ONCE).unwrap();
        assert_eq!(
            (collected.manifests, collected.links, collected.blobs),
            (1, 1, 2)
        );
        assert_eq!(planned.bytes, collected.bytes);
        assert_eq!((planned.links.len(), planned.contents.len()), (1, 2));
        assert!(store.tags(&name).unwrap().is_empty());
        assert_eq!(store.manifests(&name).unwrap(), [new]);
        assert!(store.linked(&name, &Digest::of(b"shared")));
    }

    #[test]
    fn what_somebody_relies_on_stays_with_all_that_it_names() {
        let (_folder, store) = store();
        let name = repository("app");
        let image = add_image(&store, &name, &[b"layer"]);
        let hour = Duration::from_hours(1);
        for digest in [image, Digest::of(b"layer"), Digest::of(b"{}")] {
            make_old(&store.path(&digest));
        }
        for digest in [Digest::of(b"layer"), Digest::of(b"{}")] {
            make_old(&store.blob_link(&name, &digest));
        }
        make_old(&store.manifest_link(&name, &image));
        assert!(store.renew_manifest(&name, &image).unwrap());
        let collected = without(&store, &one(&name, image), hour).unwrap();
        assert_eq!(collected, Collected::default());
        // Without the manifest a blob stays that a push was told is there.
        make_old(&store.manifest_link(&name, &image));
        assert!(store.renew(&name, &Digest::of(b"layer")).unwrap());
        let collected = without(&store, &one(&name, image), hour).unwrap();
        assert_eq!(
            (collected.manifests, collected.links, collected.blobs),
            (1, 1, 2)
        );
        assert!(store.linked(&name, &Digest::of(b"layer")));
        assert!(!store.renew(&name, &Digest::of(b"{}")).unwrap());
        assert!(!store.renew_manifest(&name, &image).unwrap());
    }

    #[test]
    fn a_list_that_was_asked_about_meanwhile_stays_with_what_it_lists() {
        let (_folder, store) = store();
        let name = repository("app");
        let hour = Duration::from_hours(1);
        // So many that digests are in either order.
        for layer in 0..8_u8 {
            let image = add_image(&store, &name, &[&[layer]]);
            let size = store.size(&image).unwrap();
            let listed = Descriptor::new(media_type::OCI_MANIFEST, image, size);
            let list = store
                .put_bytes(&ImageIndex::new(vec![listed]).to_vec())
                .unwrap();
            store
                .link_manifest(&name, &list, media_type::OCI_INDEX)
                .unwrap();
            make_old(&store.manifest_link(&name, &image));
            let gone = Manifests::from([(name.clone(), [list, image].into())]);
            // The plan is from before somebody asked for the list.
            assert_eq!(without(&store, &gone, hour).unwrap().manifests, 0);
            assert!(store.is_whole(&name, &list).unwrap());
            make_old(&store.manifest_link(&name, &list));
            assert_eq!(without(&store, &gone, hour).unwrap().manifests, 2);
            assert!(!store.is_whole(&name, &list).unwrap());
        }
    }

    #[test]
    fn an_upload_that_took_long_is_new_when_it_comes_in() {
        let (folder, store) = store();
        let file = folder.path().join("upload");
        fs::write(&file, b"slow").unwrap();
        make_old(&file);
        store.adopt(&file, &Digest::of(b"slow")).unwrap();
        store.collect(Duration::from_hours(1)).unwrap();
        store
            .link(&repository("app"), &Digest::of(b"slow"))
            .unwrap();
        assert!(store.linked(&repository("app"), &Digest::of(b"slow")));
    }

    #[test]
    fn nothing_is_collected_while_somebody_holds_the_store() {
        let (_folder, store) = store();
        add(&store, &repository("app"), b"never named");
        let hold = store.hold(AT_ONCE).unwrap();
        let also = store.hold(AT_ONCE).unwrap();
        assert!(matches!(store.collect(AT_ONCE), Err(StoreError::Held)));
        drop((hold, also));
        assert_eq!(store.collect(AT_ONCE).unwrap().blobs, 1);
    }

    fn without(store: &Store, gone: &Manifests, grace: Duration) -> Result<Collected, StoreError> {
        store.collect_without(&store.collecting()?, gone, grace)
    }

    fn make_old(path: &Path) {
        // What a collection has taken is old enough.
        if let Ok(file) = fs::File::open(path) {
            let long_ago = std::time::SystemTime::now() - Duration::from_hours(2);
            file.set_modified(long_ago).unwrap();
        }
    }

    /// Everything is old and needed by nobody when a push begins, so that each collection wants all of it.
    fn push_again_and_again(store: &Store, name: &Repository) {
        let layer = name.as_str().as_bytes();
        for _ in 0..25 {
            let image = add_image(store, name, &[layer]);
            for digest in [image, Digest::of(layer)] {
                store.verify(&digest).unwrap();
                assert!(store.renew(name, &Digest::of(layer)).unwrap());
            }
            store.unlink_manifest(name, &image).unwrap();
            make_old(&store.blob_link(name, &Digest::of(layer)));
            make_old(&store.path(&Digest::of(layer)));
            make_old(&store.path(&image));
        }
    }

    #[test]
    fn pushes_beside_collections_lose_nothing() {
        let (_folder, store) = store();
        std::thread::scope(|scope| {
            let store = &store;
            let push = |name| scope.spawn(move || push_again_and_again(store, &repository(name)));
            let pushing = ["one", "two", "three"].map(push);
            while pushing.iter().any(|push| !push.is_finished()) {
                store.collect(Duration::from_hours(1)).unwrap();
            }
        });
    }
}

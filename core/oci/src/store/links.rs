//! Repositories: which content each may read, and what its tags mean.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::{Store, StoreError, files};
use crate::digest::Digest;
use crate::reference::{Repository, Tag};

/// A tag file holds one digest, a manifest link one media type.
const ENTRY_LIMIT: u64 = 1024;
/// Names are at most 255 bytes, so they cannot nest deeper than this.
const DEPTH_LIMIT: usize = 128;

/// Since when a repository may read a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linked {
    /// It was linked now.
    Now,
    /// It was already.
    Before,
}

impl Store {
    /// Lets a repository read a blob.
    pub fn link(&self, repository: &Repository, digest: &Digest) -> Result<(), StoreError> {
        let path = self.blob_link(repository, digest);
        let adding = self.adding()?;
        files::touch(&self.path(digest));
        let made = files::create_empty(&path)?;
        drop(adding);
        if made {
            files::sync_folder(&path)?;
        }
        Ok(())
    }

    /// Whether a repository may read a blob, and it is here. Whoever asks relies on it: no collection takes it before a
    /// manifest names it.
    pub fn renew(&self, repository: &Repository, digest: &Digest) -> Result<bool, StoreError> {
        let _adding = self.adding()?;
        let link = self.blob_link(repository, digest);
        Ok(files::touch(&link) && files::touch(&self.path(digest)))
    }

    /// The same for a manifest, which keeps all that it names.
    pub fn renew_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<bool, StoreError> {
        let _adding = self.adding()?;
        Ok(files::touch(&self.manifest_link(repository, digest)) && self.contains(digest))
    }

    /// Lets a repository read those of the blobs that are here; says which. The links are flushed with the manifest
    /// that needs them and not before: without one they are worth nothing. Content that nothing needed so far counts as
    /// new, so that no collection takes it before a manifest names it.
    pub fn link_present(
        &self,
        repository: &Repository,
        digests: &[Digest],
    ) -> Result<Vec<(Digest, Linked)>, StoreError> {
        let _adding = self.adding()?;
        let mut linked = Vec::new();
        for digest in digests {
            if !files::touch(&self.path(digest)) {
                continue;
            }
            let path = self.blob_link(repository, digest);
            let since = if files::create_empty(&path)? {
                Linked::Now
            } else {
                Linked::Before
            };
            linked.push((*digest, since));
        }
        Ok(linked)
    }

    /// Whether a repository may read a blob, and it is here.
    #[must_use]
    pub fn linked(&self, repository: &Repository, digest: &Digest) -> bool {
        self.blob_link(repository, digest).is_file() && self.contains(digest)
    }

    /// Takes a blob from a repository; says whether it had it. The content stays.
    pub fn unlink(&self, repository: &Repository, digest: &Digest) -> Result<bool, StoreError> {
        files::remove_if_present(&self.blob_link(repository, digest))
    }

    /// The blobs a repository may read, sorted.
    pub fn linked_blobs(&self, repository: &Repository) -> Result<Vec<Digest>, StoreError> {
        digests(&self.folder(repository, "_blobs"))
    }

    /// Adds a manifest to a repository, and makes the links to its blobs durable before. The media type is kept,
    /// because OCI lets a manifest leave it out.
    pub fn link_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        media_type: &str,
    ) -> Result<(), StoreError> {
        let link = self.manifest_link(repository, digest);
        self.write_after_blobs(repository, &[(&link, media_type)])
    }

    /// Adds a manifest and lets a tag mean it, in this order: the tag never means a manifest that is not there.
    pub fn link_tagged_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        media_type: &str,
        tag: &Tag,
    ) -> Result<(), StoreError> {
        let link = self.manifest_link(repository, digest);
        let tag = self.tag_file(repository, tag);
        let meaning = digest.to_string();
        self.write_after_blobs(repository, &[(&link, media_type), (&tag, &meaning)])
    }

    fn write_after_blobs(
        &self,
        repository: &Repository,
        files: &[(&Path, &str)],
    ) -> Result<(), StoreError> {
        let blobs = self.folder(repository, "_blobs");
        files::write_in_order(&self.temporary(), Some(&blobs), files, || self.adding())
    }

    /// The media type of a repository's manifest; none when the repository has no such manifest.
    pub fn manifest_media_type(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<String>, StoreError> {
        if !self.contains(digest) {
            return Ok(None);
        }
        read_entry(&self.manifest_link(repository, digest))
    }

    /// Removes a manifest with every tag that means it; says whether it was there.
    pub fn unlink_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<bool, StoreError> {
        self.unlink_tagged(repository, digest, &self.tags(repository)?)
    }

    /// What each manifest is called: the tags of a repository, by what they mean.
    pub(super) fn tags_by_digest(
        &self,
        repository: &Repository,
    ) -> Result<BTreeMap<Digest, Vec<Tag>>, StoreError> {
        let mut tags: BTreeMap<Digest, Vec<Tag>> = BTreeMap::new();
        for tag in self.tags(repository)? {
            if let Some(digest) = self.tagged(repository, &tag)? {
                tags.entry(digest).or_default().push(tag);
            }
        }
        Ok(tags)
    }

    /// Removes a manifest, after those of these tags that mean it still.
    pub(super) fn unlink_tagged(
        &self,
        repository: &Repository,
        digest: &Digest,
        tags: &[Tag],
    ) -> Result<bool, StoreError> {
        // Tags first: a crash in between must not leave a tag without its manifest.
        for tag in tags {
            if self.tagged(repository, tag)? == Some(*digest) {
                self.remove_tag(repository, tag)?;
            }
        }
        files::remove_if_present(&self.manifest_link(repository, digest))
    }

    /// The digests of all manifests of a repository, sorted.
    pub fn manifests(&self, repository: &Repository) -> Result<Vec<Digest>, StoreError> {
        digests(&self.folder(repository, "_manifests"))
    }

    /// Makes a tag mean a digest, replacing what it meant.
    pub fn set_tag(
        &self,
        repository: &Repository,
        tag: &Tag,
        digest: &Digest,
    ) -> Result<(), StoreError> {
        let path = self.tag_file(repository, tag);
        files::write_atomically(&self.temporary(), &path, &digest.to_string())
    }

    pub(super) fn tag_file(&self, repository: &Repository, tag: &Tag) -> PathBuf {
        self.folder(repository, "_tags").join(tag.as_str())
    }

    /// What a tag means.
    pub fn tagged(&self, repository: &Repository, tag: &Tag) -> Result<Option<Digest>, StoreError> {
        let path = self.tag_file(repository, tag);
        let Some(text) = read_entry(&path)? else {
            return Ok(None);
        };
        text.parse()
            .map(Some)
            .map_err(|_| StoreError::Corrupt { path })
    }

    /// Removes a tag; says whether it was there. The manifest stays.
    pub fn remove_tag(&self, repository: &Repository, tag: &Tag) -> Result<bool, StoreError> {
        files::remove_if_present(&self.folder(repository, "_tags").join(tag.as_str()))
    }

    /// The tags of a repository in byte order.
    pub fn tags(&self, repository: &Repository) -> Result<Vec<Tag>, StoreError> {
        let names = files::names(&self.folder(repository, "_tags"))?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Notes that the manifest `referrer` is about the manifest `subject`.
    pub fn link_referrer(
        &self,
        repository: &Repository,
        subject: &Digest,
        referrer: &Digest,
    ) -> Result<(), StoreError> {
        let path = self
            .referrers_folder(repository, subject)
            .join(referrer.hex());
        files::write_atomically(&self.temporary(), &path, "")
    }

    /// Forgets that `referrer` is about `subject`; says whether it was known.
    pub fn unlink_referrer(
        &self,
        repository: &Repository,
        subject: &Digest,
        referrer: &Digest,
    ) -> Result<bool, StoreError> {
        files::remove_if_present(
            &self
                .referrers_folder(repository, subject)
                .join(referrer.hex()),
        )
    }

    /// The manifests about a manifest, which need not exist itself.
    pub fn referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
    ) -> Result<Vec<Digest>, StoreError> {
        digests(&self.referrers_folder(repository, subject))
    }

    /// Whether anything was ever put into the repository.
    #[must_use]
    pub fn has_repository(&self, repository: &Repository) -> bool {
        let exists = |part| self.folder(repository, part).is_dir();
        ["_manifests", "_blobs", "_tags"].into_iter().any(exists)
    }

    /// All repositories that hold anything, in byte order.
    pub fn repositories(&self) -> Result<Vec<Repository>, StoreError> {
        let mut found = Vec::new();
        self.collect_repositories("", 0, &mut found)?;
        found.sort_unstable();
        Ok(found)
    }

    fn collect_repositories(
        &self,
        prefix: &str,
        depth: usize,
        found: &mut Vec<Repository>,
    ) -> Result<(), StoreError> {
        if depth == DEPTH_LIMIT {
            return Ok(());
        }
        for name in files::names(&self.repositories_root().join(prefix))? {
            if name.starts_with('_') {
                continue;
            }
            let nested = if prefix.is_empty() {
                name
            } else {
                format!("{prefix}/{name}")
            };
            if let Ok(repository) = nested.parse::<Repository>() {
                if self.has_repository(&repository) {
                    found.push(repository);
                }
                self.collect_repositories(&nested, depth + 1, found)?;
            }
        }
        Ok(())
    }

    fn folder(&self, repository: &Repository, part: &str) -> PathBuf {
        self.repositories_root()
            .join(repository.as_str())
            .join(part)
    }

    pub(super) fn blob_link(&self, repository: &Repository, digest: &Digest) -> PathBuf {
        self.folder(repository, "_blobs").join(digest.hex())
    }

    pub(super) fn manifest_link(&self, repository: &Repository, digest: &Digest) -> PathBuf {
        self.folder(repository, "_manifests").join(digest.hex())
    }

    pub(super) fn referrers_folder(&self, repository: &Repository, subject: &Digest) -> PathBuf {
        self.folder(repository, "_referrers").join(subject.hex())
    }
}

/// Opened once: between two looks at its path it may go.
fn read_entry(path: &Path) -> Result<Option<String>, StoreError> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("read", path)(error)),
    };
    let mut text = String::new();
    file.take(ENTRY_LIMIT + 1)
        .read_to_string(&mut text)
        .map_err(StoreError::io("read", path))?;
    if text.len() as u64 > ENTRY_LIMIT {
        return Err(StoreError::Corrupt {
            path: path.to_owned(),
        });
    }
    Ok(Some(text))
}

fn digests(folder: &Path) -> Result<Vec<Digest>, StoreError> {
    let names = files::names(folder)?;
    let parsed = names.iter().filter_map(|name| Digest::from_hex(name).ok());
    let mut digests: Vec<Digest> = parsed.collect();
    // By algorithm first, as they are written: pages of a list go by that order.
    digests.sort_unstable();
    Ok(digests)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media_type;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        (folder, store)
    }

    fn repository(name: &str) -> Repository {
        name.parse().unwrap()
    }

    fn tag(name: &str) -> Tag {
        name.parse().unwrap()
    }

    #[test]
    fn a_repository_sees_only_its_own_blobs() {
        let (_folder, store) = store();
        let digest = store.put_bytes(b"secret").unwrap();
        store.link(&repository("alice/app"), &digest).unwrap();
        assert!(store.linked(&repository("alice/app"), &digest));
        assert!(!store.linked(&repository("mallory/app"), &digest));
        assert!(store.unlink(&repository("alice/app"), &digest).unwrap());
        assert!(!store.linked(&repository("alice/app"), &digest));
    }

    #[test]
    fn tags_move_and_list() {
        let (_folder, store) = store();
        let name = repository("app");
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        store.set_tag(&name, &tag("v1"), &one).unwrap();
        store.set_tag(&name, &tag("latest"), &one).unwrap();
        store.set_tag(&name, &tag("latest"), &two).unwrap();
        assert_eq!(store.tagged(&name, &tag("latest")).unwrap(), Some(two));
        assert_eq!(store.tags(&name).unwrap(), [tag("latest"), tag("v1")]);
        assert!(store.remove_tag(&name, &tag("v1")).unwrap());
        assert_eq!(store.tagged(&name, &tag("v1")).unwrap(), None);
    }

    #[test]
    fn a_nested_repository_does_not_meet_its_parents_tags() {
        let (_folder, store) = store();
        let digest = Digest::of(b"x");
        store.set_tag(&repository("a"), &tag("b"), &digest).unwrap();
        store
            .set_tag(&repository("a/b"), &tag("c"), &digest)
            .unwrap();
        assert_eq!(store.tags(&repository("a")).unwrap(), [tag("b")]);
        assert_eq!(store.tags(&repository("a/b")).unwrap(), [tag("c")]);
        assert_eq!(
            store.repositories().unwrap(),
            [repository("a"), repository("a/b")]
        );
    }

    #[test]
    fn removing_a_manifest_removes_its_tags() {
        let (_folder, store) = store();
        let name = repository("app");
        let digest = store.put_bytes(b"{}").unwrap();
        store
            .link_manifest(&name, &digest, media_type::OCI_MANIFEST)
            .unwrap();
        store.set_tag(&name, &tag("v1"), &digest).unwrap();
        let found = store.manifest_media_type(&name, &digest).unwrap();
        assert_eq!(found.as_deref(), Some(media_type::OCI_MANIFEST));
        assert_eq!(store.manifests(&name).unwrap(), [digest]);
        assert!(store.unlink_manifest(&name, &digest).unwrap());
        assert_eq!(store.manifest_media_type(&name, &digest).unwrap(), None);
        assert!(store.tags(&name).unwrap().is_empty());
    }

    #[test]
    fn what_is_not_here_is_not_linked() {
        let (_folder, store) = store();
        let (name, digest) = (repository("app"), Digest::of(b"layer"));
        assert_eq!(store.link_present(&name, &[digest]).unwrap(), []);
        assert!(store.linked_blobs(&name).unwrap().is_empty());
        store.put_bytes(b"layer").unwrap();
        for expected in [Linked::Now, Linked::Before] {
            let linked = store.link_present(&name, &[digest, Digest::of(b"gone")]);
            assert_eq!(linked.unwrap(), [(digest, expected)]);
        }
        assert!(store.linked(&name, &digest));
    }

    #[test]
    fn a_manifest_and_its_tag_come_together() {
        let (_folder, store) = store();
        let (name, digest) = (repository("app"), store.put_bytes(b"manifest").unwrap());
        store
            .link_tagged_manifest(&name, &digest, media_type::OCI_MANIFEST, &tag("v1"))
            .unwrap();
        let found = store.manifest_media_type(&name, &digest).unwrap();
        assert_eq!(found.as_deref(), Some(media_type::OCI_MANIFEST));
        assert_eq!(store.tagged(&name, &tag("v1")).unwrap(), Some(digest));
        // Where the tag cannot be written nothing is left half-way.
        std::fs::create_dir_all(store.folder(&name, "_tags").join("v2")).unwrap();
        let refused =
            store.link_tagged_manifest(&name, &digest, media_type::OCI_MANIFEST, &tag("v2"));
        assert!(matches!(refused, Err(StoreError::Io { .. })));
        assert_eq!(fs::read_dir(store.temporary()).unwrap().count(), 0);
    }

    #[test]
    fn referrers_are_kept_by_subject() {
        let (_folder, store) = store();
        let name = repository("app");
        let (subject, about) = (Digest::of(b"image"), Digest::of(b"signature"));
        store.link_referrer(&name, &subject, &about).unwrap();
        assert_eq!(store.referrers(&name, &subject).unwrap(), [about]);
        assert!(store.unlink_referrer(&name, &subject, &about).unwrap());
        assert!(store.referrers(&name, &subject).unwrap().is_empty());
    }

    #[test]
    fn a_damaged_tag_is_reported() {
        let (_folder, store) = store();
        let name = repository("app");
        store.set_tag(&name, &tag("v1"), &Digest::of(b"x")).unwrap();
        let path = store.folder(&name, "_tags").join("v1");
        fs::write(&path, "nonsense").unwrap();
        assert!(matches!(
            store.tagged(&name, &tag("v1")),
            Err(StoreError::Corrupt { .. })
        ));
    }
}

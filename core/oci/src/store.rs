//! A content-addressed store on disk, with repositories that name what is in it.
//!
//! ```text
//! blobs/<algorithm>/<hex>                       content, shared by all repositories
//! tmp/                                          content still being written
//! repositories/<name>/_blobs/<hex>              the repository may read the blob
//! repositories/<name>/_manifests/<hex>          the same for a manifest; holds its media type
//! repositories/<name>/_tags/<tag>               holds the digest the tag means
//! repositories/<name>/_referrers/<hex>/<hex>    manifests about a manifest
//! lock, held                                    locked while something is added, removed, needed
//! ```
//!
//! Elsewhere the digits stand alone: there are 64 of SHA-256 and 128 of SHA-512. Parts of repository names never begin with `_`, so a name nested in another cannot meet its
//! folders. Every file appears by a rename after its content is on the disk: a reader, of this
//! process or another, sees a whole file or none, also after a power cut. Content is stored once
//! but read through a repository, so that one tenant's repository does not open another's blobs.

mod blob;
mod collect;
mod files;
mod inventory;
mod links;
mod locks;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

pub use blob::BlobWriter;
pub use collect::Collected;
pub use inventory::{Content, Files, Holdings, Inventory, Manifest, Manifests, Parts, Surplus};
pub use links::Linked;
pub use locks::{Collecting, Hold};

use crate::digest::{Algorithm, Digest, DigestWriter};

/// Which layout the store above has. A program that finds a store of another one leaves it alone.
pub const STORE_LAYOUT: u32 = 2;
/// After this long without a write, a temporary file belongs to a process that is gone.
const STALE: Duration = Duration::from_hours(24);

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk or its permissions.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// No such content.
    #[error("the store holds no blob {digest}")]
    Missing {
        /// The content's address.
        digest: Digest,
    },
    /// The bytes are not those that were promised.
    #[error("content has digest {actual}, expected {expected}")]
    DigestMismatch {
        /// What was promised.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// Somebody needs everything as it is, or collects already.
    #[error("the store is held: a backup or another collection works on it")]
    Held,
    /// A file of the store does not hold what it must.
    #[error("{} does not hold a valid entry", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
    },
}

impl StoreError {
    pub(crate) fn io<'a>(
        action: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

/// A content-addressed store. Cheap to share; safe for concurrent threads and processes.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens the store at `root`, creates it when absent, and clears what dead writers left.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let store = Self { root: root.into() };
        let blobs = Algorithm::ALL.map(|algorithm| store.blobs(algorithm));
        let others = [store.temporary(), store.repositories_root()];
        for folder in blobs.into_iter().chain(others) {
            fs::create_dir_all(&folder).map_err(StoreError::io("create", &folder))?;
        }
        files::remove_older_than(&store.temporary(), STALE)?;
        Ok(store)
    }

    /// The store at `root` if there is one; creates and clears nothing.
    pub fn existing(root: impl Into<PathBuf>) -> Option<Self> {
        let store = Self { root: root.into() };
        store.blobs(Algorithm::Sha256).is_dir().then_some(store)
    }

    /// The folder that holds everything.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the content of this digest is or would be.
    #[must_use]
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs(digest.algorithm()).join(digest.hex())
    }

    /// Whether the content is here.
    #[must_use]
    pub fn contains(&self, digest: &Digest) -> bool {
        self.path(digest).is_file()
    }

    /// The content's length in bytes.
    pub fn size(&self, digest: &Digest) -> Result<u64, StoreError> {
        let path = self.path(digest);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) => Err(missing_or_io(error, "read", path, digest)),
        }
    }

    /// Opens the content for reading.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, StoreError> {
        let path = self.path(digest);
        File::open(&path).map_err(|error| missing_or_io(error, "open", path, digest))
    }

    /// Reads small content, a manifest for instance, whole; more than `limit` bytes are an error.
    pub fn read_small(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, StoreError> {
        let path = self.path(digest);
        files::read_small(&path, limit).map_err(|error| missing_or_io(error, "read", path, digest))
    }

    /// Starts writing content, which will be addressed by SHA-256.
    pub fn begin(&self) -> Result<BlobWriter<'_>, StoreError> {
        self.begin_by(Algorithm::Sha256)
    }

    /// Starts writing content that will be addressed by this algorithm.
    pub fn begin_by(&self, algorithm: Algorithm) -> Result<BlobWriter<'_>, StoreError> {
        BlobWriter::begin(self, algorithm)
    }

    /// Makes several contents durable and visible: flushed side by side, which the file system makes one
    /// flush of its journal of, and with one flush of each folder for all. Their digests, in order.
    pub fn commit_all(&self, writers: Vec<BlobWriter<'_>>) -> Result<Vec<Digest>, StoreError> {
        let settled: Vec<_> = thread::scope(|scope| {
            let settle = |writer: BlobWriter<'_>| writer.settle(None);
            let each: Vec<_> = writers
                .into_iter()
                .map(|writer| scope.spawn(move || settle(writer)))
                .collect();
            let joined = each.into_iter().map(thread::ScopedJoinHandle::join);
            joined
                .map(|end| end.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        let digests: Vec<Digest> = settled.into_iter().collect::<Result<_, _>>()?;
        let algorithms: BTreeSet<_> = digests.iter().map(Digest::algorithm).collect();
        for algorithm in algorithms {
            files::sync(&self.blobs(algorithm))?;
        }
        Ok(digests)
    }

    /// Stores bytes that are in memory anyway, addressed by SHA-256.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        self.put_bytes_by(Algorithm::Sha256, bytes)
    }

    /// Stores bytes that are in memory anyway.
    pub fn put_bytes_by(&self, algorithm: Algorithm, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::by(algorithm, bytes);
        let adding = self.adding()?;
        if files::touch(&self.path(&digest)) {
            return Ok(digest);
        }
        drop(adding);
        let mut writer = self.begin_by(algorithm)?;
        let path = self.path(&digest);
        writer
            .write_all(bytes)
            .map_err(StoreError::io("write", &path))?;
        writer.commit(Some(&digest))
    }

    /// Moves a finished file of the same file system into the store. The caller has hashed it.
    pub fn adopt(&self, file: &Path, digest: &Digest) -> Result<(), StoreError> {
        let opened = File::open(file).map_err(StoreError::io("open", file))?;
        // It may have been written long ago: no collection takes it before it is linked.
        opened
            .set_modified(SystemTime::now())
            .map_err(StoreError::io("touch", file))?;
        opened.sync_all().map_err(StoreError::io("flush", file))?;
        let (place, adding) = (self.path(digest), self.adding()?);
        files::rename(file, &place)?;
        drop(adding);
        files::sync_folder(&place)
    }

    /// Hashes stored content anew and compares.
    pub fn verify(&self, digest: &Digest) -> Result<(), StoreError> {
        let path = self.path(digest);
        let mut writer = DigestWriter::by(digest.algorithm(), io::sink());
        io::copy(&mut self.open_blob(digest)?, &mut writer)
            .map_err(StoreError::io("read", &path))?;
        match writer.finish().0 {
            actual if actual == *digest => Ok(()),
            actual => Err(StoreError::DigestMismatch {
                expected: *digest,
                actual,
            }),
        }
    }

    /// Removes content; says whether it was there. Links to it stay and then lead nowhere.
    pub fn remove(&self, digest: &Digest) -> Result<bool, StoreError> {
        files::remove_if_present(&self.path(digest))
    }

    fn blobs(&self, algorithm: Algorithm) -> PathBuf {
        self.root.join("blobs").join(algorithm.as_str())
    }

    fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }

    fn repositories_root(&self) -> PathBuf {
        self.root.join("repositories")
    }
}

fn missing_or_io(
    source: io::Error,
    action: &'static str,
    path: PathBuf,
    digest: &Digest,
) -> StoreError {
    match source.kind() {
        io::ErrorKind::NotFound => StoreError::Missing { digest: *digest },
        _ => StoreError::Io {
            action,
            path,
            source,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("store")).unwrap();
        (folder, store)
    }

    fn temporary_files(store: &Store) -> usize {
        fs::read_dir(store.temporary()).unwrap().count()
    }

    #[test]
    fn content_comes_back_by_its_digest() {
        let (_folder, store) = store();
        let digest = store.put_bytes(b"hello").unwrap();
        assert_eq!(digest, Digest::of(b"hello"));
        assert!(store.contains(&digest));
        assert_eq!(store.size(&digest).unwrap(), 5);
        let mut text = String::new();
        store
            .open_blob(&digest)
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "hello");
        assert_eq!(temporary_files(&store), 0);
        store.verify(&digest).unwrap();
        assert!(store.remove(&digest).unwrap());
        assert!(!store.remove(&digest).unwrap());
        assert!(matches!(
            store.open_blob(&digest),
            Err(StoreError::Missing { .. })
        ));
    }

    #[test]
    fn a_wrong_digest_stores_nothing() {
        let (_folder, store) = store();
        let mut writer = store.begin().unwrap();
        writer.write_all(b"one").unwrap();
        let error = writer.commit(Some(&Digest::of(b"two"))).unwrap_err();
        assert!(matches!(error, StoreError::DigestMismatch { .. }));
        assert!(!store.contains(&Digest::of(b"one")));
        assert_eq!(temporary_files(&store), 0);
    }

    #[test]
    fn a_dropped_writer_leaves_nothing() {
        let (_folder, store) = store();
        let mut writer = store.begin().unwrap();
        writer.write_all(b"half").unwrap();
        assert_eq!(temporary_files(&store), 1);
        drop(writer);
        assert_eq!(temporary_files(&store), 0);
    }

    #[test]
    fn several_contents_become_visible_together() {
        let (_folder, store) = store();
        let writers = ["one", "two"].map(|text| {
            let mut writer = store.begin().unwrap();
            writer.write_all(text.as_bytes()).unwrap();
            writer
        });
        assert!(!store.contains(&Digest::of(b"one")));
        let digests = store.commit_all(writers.into()).unwrap();
        assert_eq!(digests, [Digest::of(b"one"), Digest::of(b"two")]);
        for digest in &digests {
            store.verify(digest).unwrap();
        }
        assert_eq!(temporary_files(&store), 0);
        assert!(store.commit_all(Vec::new()).unwrap().is_empty());
    }

    #[test]
    fn opening_clears_only_what_is_stale() {
        let (_folder, store) = store();
        let fresh = store.temporary().join("fresh");
        let stale = store.temporary().join("stale");
        fs::write(&fresh, b"").unwrap();
        let long_ago = std::time::SystemTime::now() - 2 * STALE;
        File::create(&stale)
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
        Store::open(store.root()).unwrap();
        assert!(fresh.exists());
        assert!(!stale.exists());
    }

    #[test]
    fn damage_is_noticed() {
        let (_folder, store) = store();
        let digest = store.put_bytes(b"sound").unwrap();
        fs::write(store.path(&digest), b"rotten").unwrap();
        assert!(matches!(
            store.verify(&digest),
            Err(StoreError::DigestMismatch { .. })
        ));
    }

    #[test]
    fn many_writers_of_one_content_agree() {
        let (_folder, store) = store();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for round in 0..20_u8 {
                        store.put_bytes(&[round; 1000]).unwrap();
                    }
                });
            }
        });
        for round in 0..20_u8 {
            store.verify(&Digest::of(&[round; 1000])).unwrap();
        }
        assert_eq!(temporary_files(&store), 0);
    }
}

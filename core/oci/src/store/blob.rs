//! Writing content: hashed as it comes, visible only when whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::SystemTime;

use super::{Store, StoreError, files};
use crate::digest::{Algorithm, Digest, Hasher};

/// What is written before the disk is set to work, in bytes: less is many small writes for it.
const WRITE_BACK: u64 = 4 * 1024 * 1024;

/// Content on its way into the store. Dropping it uncommitted removes it.
#[derive(Debug)]
pub struct BlobWriter<'a> {
    store: &'a Store,
    path: PathBuf,
    file: File,
    hasher: Hasher,
    /// How much of the file is on its way to the disk.
    leaving: u64,
    committed: bool,
}

impl<'a> BlobWriter<'a> {
    pub(super) fn begin(store: &'a Store, algorithm: Algorithm) -> Result<Self, StoreError> {
        let (path, file) = files::create_unique(&store.temporary())?;
        Ok(Self {
            store,
            path,
            file,
            hasher: Hasher::by(algorithm),
            leaving: 0,
            committed: false,
        })
    }

    /// Bytes written so far.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.hasher.length()
    }

    /// Makes the content durable and visible, if it is what was expected.
    pub fn commit(self, expected: Option<&Digest>) -> Result<Digest, StoreError> {
        let (store, digest) = (self.store, self.settle(expected)?);
        files::sync_folder(&store.path(&digest))?;
        Ok(digest)
    }

    /// Everything of a commit but that the new name outlives a power cut.
    pub(super) fn settle(mut self, expected: Option<&Digest>) -> Result<Digest, StoreError> {
        let actual = std::mem::take(&mut self.hasher).finish();
        if let Some(expected) = expected
            && *expected != actual
        {
            return Err(StoreError::DigestMismatch {
                expected: *expected,
                actual,
            });
        }
        // What was written slowly is as new as what was not.
        self.file
            .set_modified(SystemTime::now())
            .map_err(StoreError::io("touch", &self.path))?;
        self.file
            .sync_all()
            .map_err(StoreError::io("flush", &self.path))?;
        let adding = self.store.adding()?;
        files::rename(&self.path, &self.store.path(&actual))?;
        drop(adding);
        self.committed = true;
        Ok(actual)
    }
}

impl Write for BlobWriter<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.file.write(buffer)?;
        self.hasher.update(&buffer[..count]);
        let length = self.hasher.length();
        if length - self.leaving >= WRITE_BACK {
            files::start_write_back(&self.file, self.leaving, length);
            self.leaving = length;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for BlobWriter<'_> {
    fn drop(&mut self) {
        if !self.committed {
            // Nothing to do about a failure here: opening the store clears stale files.
            let _ = fs::remove_file(&self.path);
        }
    }
}

//! Who must not be in whose way when content is removed.
//!
//! Two files of the store are locked, so that other processes are kept apart too. `lock`: whoever adds something, or
//! relies on what is there, takes it shared for the moment in which that begins to look new; whoever removes takes it
//! alone for the moment between the last look and the removal. `held`: whoever needs the store as it is for
//! longer (a backup) takes it shared, and nothing is collected meanwhile.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use super::{Store, StoreError};

const PAUSE: Duration = Duration::from_millis(50);

/// Nothing is collected while this lives.
#[derive(Debug)]
pub struct Hold(#[expect(dead_code, reason = "the lock goes with the file")] File);

/// The right to collect, which one has at a time.
#[derive(Debug)]
pub struct Collecting(#[expect(dead_code, reason = "the lock goes with the file")] File);

impl Store {
    /// Keeps everything from being collected; waits for a collection that is going on, but not longer than `limit`.
    pub fn hold(&self, limit: Duration) -> Result<Hold, StoreError> {
        let (path, file) = self.lock_file("held")?;
        let begun = Instant::now();
        loop {
            match file.try_lock_shared() {
                Ok(()) => return Ok(Hold(file)),
                Err(TryLockError::WouldBlock) if begun.elapsed() < limit => thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => return Err(StoreError::Held),
                Err(TryLockError::Error(error)) => {
                    return Err(StoreError::io("lock", &path)(error));
                }
            }
        }
    }

    /// The right to collect, unless somebody holds the store or collects already.
    pub fn collecting(&self) -> Result<Collecting, StoreError> {
        let (path, file) = self.lock_file("held")?;
        match file.try_lock() {
            Ok(()) => Ok(Collecting(file)),
            Err(TryLockError::WouldBlock) => Err(StoreError::Held),
            Err(TryLockError::Error(error)) => Err(StoreError::io("lock", &path)(error)),
        }
    }

    /// To be held while something begins to look new. Removals take moments.
    pub(super) fn adding(&self) -> Result<File, StoreError> {
        let (path, file) = self.lock_file("lock")?;
        file.lock_shared().map_err(StoreError::io("lock", &path))?;
        Ok(file)
    }

    /// To be held between the last look at something and its removal.
    pub(super) fn removing(&self) -> Result<File, StoreError> {
        let (path, file) = self.lock_file("lock")?;
        file.lock().map_err(StoreError::io("lock", &path))?;
        Ok(file)
    }

    fn lock_file(&self, name: &str) -> Result<(PathBuf, File), StoreError> {
        let path = self.root().join(name);
        let opened = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        Ok((path, opened))
    }
}

//! Who must not be in whose way when content is removed.
//!
//! Two files of the store are locked, so that other processes are kept apart too. `lock`: whoever adds something, or
//! relies on what is there, takes it shared for the moment in which that begins to look new; whoever removes takes it
//! alone for the moment between the last look and the removal. `held`: whoever needs the store as it is for
//! longer (a backup) takes it shared, and nothing is collected meanwhile.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::{Store, StoreError};

const PAUSE: Duration = Duration::from_millis(50);
/// How long a removal waits for those who add something, each of whom needs a moment.
const REMOVING_LIMIT: Duration = Duration::from_secs(10);
const REMOVING_PAUSE: Duration = Duration::from_millis(1);

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
        lock_within(limit, PAUSE, || file.try_lock_shared())
            .map_err(|error| not_locked(error, &path))?;
        Ok(Hold(file))
    }

    /// The right to collect, unless somebody holds the store or collects already.
    pub fn collecting(&self) -> Result<Collecting, StoreError> {
        let (path, file) = self.lock_file("held")?;
        file.try_lock().map_err(|error| not_locked(error, &path))?;
        Ok(Collecting(file))
    }

    /// To be held while something begins to look new, and not while anything is flushed: removals wait for it, and
    /// whoever waits for removals does.
    pub(super) fn adding(&self) -> Result<File, StoreError> {
        let (path, file) = self.lock_file("lock")?;
        file.lock_shared().map_err(StoreError::io("lock", &path))?;
        Ok(file)
    }

    /// To be held between the last look at something and its removal. Where so much is added all the time that there is
    /// no moment for it, there is none: what is not removed goes with the next collection.
    pub(super) fn removing(&self) -> Result<File, StoreError> {
        let (path, file) = self.lock_file("lock")?;
        lock_within(REMOVING_LIMIT, REMOVING_PAUSE, || file.try_lock())
            .map_err(|error| not_locked(error, &path))?;
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

/// Tries until it works, or `limit` has passed.
fn lock_within(
    limit: Duration,
    pause: Duration,
    lock: impl Fn() -> Result<(), TryLockError>,
) -> Result<(), TryLockError> {
    let begun = Instant::now();
    loop {
        match lock() {
            Err(TryLockError::WouldBlock) if begun.elapsed() < limit => thread::sleep(pause),
            ended => return ended,
        }
    }
}

fn not_locked(error: TryLockError, path: &Path) -> StoreError {
    match error {
        TryLockError::WouldBlock => StoreError::Held,
        TryLockError::Error(error) => StoreError::io("lock", path)(error),
    }
}

//! One start or removal of the platform at a time.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::folder::FolderId;

/// The file that is locked, in the platform's folder.
pub(super) const FILE: &str = "start.lock";
/// How long another may take: a stop and a start on a busy machine.
const PATIENCE: Duration = Duration::from_mins(3);
const LOOK: Duration = Duration::from_millis(20);

/// Waits for the lock of the platform in `folder`, which is there. It is held until the file is dropped.
pub(super) fn take(folder: &Path) -> io::Result<File> {
    let path = folder.join(FILE);
    let limit = Instant::now() + PATIENCE;
    loop {
        let file = File::options().create(true).append(true).open(&path)?;
        match file.try_lock() {
            // Whoever had it may have removed the folder.
            Ok(()) if FolderId::from(&file.metadata()?).is(&path) => return Ok(file),
            Ok(()) | Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
        if Instant::now() > limit {
            return Err(io::Error::other(
                "another command has been at work in it for minutes",
            ));
        }
        std::thread::sleep(LOOK);
    }
}

//! Which folder a record was written in: a copy of a folder brings the records of the original's
//! processes along, and they are none of its own.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A folder, whatever its path is: it keeps this when it is renamed, and a copy has another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderId {
    device: u64,
    inode: u64,
}

impl FolderId {
    /// Of the folder at `path` now.
    pub fn of(path: &Path) -> io::Result<Self> {
        let found = fs::metadata(path)?;
        Ok(Self {
            device: found.dev(),
            inode: found.ino(),
        })
    }

    /// Whether it is the folder at `path` now.
    pub(crate) fn is(self, path: &Path) -> bool {
        Self::of(path).is_ok_and(|found| found == self)
    }
}

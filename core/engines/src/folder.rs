//! The folder of an engine: who works in it, and which one it is. A copy of a folder brings the records of the original's
//! instances along, and they are none of its own.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::EngineError;

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

    /// Whether it may be `other`, of another start of the machine: a device may have another number in each.
    pub(crate) fn has_inode_of(self, other: Self) -> bool {
        self.inode == other.inode
    }

    /// Whether it is the folder at `path` now.
    pub(crate) fn is(self, path: &Path) -> bool {
        Self::of(path).is_ok_and(|found| found == self)
    }
}

/// Takes an engine's folder, which is made when it is absent, for as long as the file that this returns is open. Returns
/// its path, too, without links.
pub(crate) fn take(root: &Path) -> Result<(PathBuf, File), EngineError> {
    fs::create_dir_all(root).map_err(EngineError::files("create", root))?;
    let root = root
        .canonicalize()
        .map_err(EngineError::files("find", root))?;
    let lock = lock(&root)?;
    Ok((root, lock))
}

fn lock(root: &Path) -> Result<File, EngineError> {
    let path = root.join("lock");
    let file = File::options().create(true).append(true).open(&path);
    let file = file.map_err(EngineError::files("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(EngineError::RootInUse {
            path: root.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(EngineError::files("lock", path)(error)),
    }
}

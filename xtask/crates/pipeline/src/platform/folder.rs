//! A folder of the platform: told from its copies, and removed whatever the modes in it are.

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use serde::Deserialize;

/// A folder, whatever its path is: it keeps this when it is renamed, and a copy has another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) struct FolderId {
    device: u64,
    inode: u64,
}

impl FolderId {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|found| Self::from(&found))
    }

    /// Whether it is the folder at `path` now.
    pub(super) fn is(self, path: &Path) -> bool {
        Self::of(path).is_ok_and(|found| found == self)
    }
}

impl From<&Metadata> for FolderId {
    fn from(found: &Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
        }
    }
}

/// Removes `path` and all below it; absent is fine, and somebody else may be at it. Images and overlays have directories that
/// their owner may not write to, or read: they are opened up on the way down.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(path);
    absent_is_fine(found.and_then(|found| {
        if found.is_dir() {
            remove_folder(path, found.mode())
        } else {
            fs::remove_file(path)
        }
    }))
}

fn remove_folder(path: &Path, mode: u32) -> io::Result<()> {
    if mode & 0o700 != 0o700 {
        fs::set_permissions(path, Permissions::from_mode(0o700))?;
    }
    loop {
        for entry in fs::read_dir(path)? {
            remove(&entry?.path())?;
        }
        match fs::remove_dir(path) {
            // What somebody else wants removed has come to the same place.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            done => return done,
        }
    }
}

pub(super) fn absent_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

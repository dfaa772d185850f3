//! Single entries on the disk, with the owner, mode and time that the layer says.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use nix::sys::stat::{Mode, UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::mkfifo;

use super::entry::Facts;
use crate::process::owner;

/// Writes entries for one image.
pub(super) struct Writer {
    /// Else all that is unpacked is our own.
    pub(super) keep_owners: bool,
}

impl Writer {
    pub(super) fn symlink(&self, place: &Path, target: &Path, facts: &Facts) -> io::Result<()> {
        symlink(target, place)?;
        self.give(place, facts)?;
        set_time(place, facts.modified)
    }

    pub(super) fn fifo(&self, place: &Path, facts: &Facts) -> io::Result<()> {
        mkfifo(place, Mode::from_bits_truncate(0o600))?;
        self.give(place, facts)?;
        fs::set_permissions(place, Permissions::from_mode(self.file_mode(facts.mode)))?;
        set_time(place, facts.modified)
    }

    /// The owner first: giving a file away clears mode bits.
    pub(super) fn finish_file(&self, file: &File, place: &Path, facts: &Facts) -> io::Result<()> {
        self.give(place, facts)?;
        file.set_permissions(Permissions::from_mode(self.file_mode(facts.mode)))?;
        set_time(place, facts.modified)
    }

    pub(super) fn finish_directory(&self, place: &Path, facts: &Facts) -> io::Result<()> {
        self.give(place, facts)?;
        fs::set_permissions(
            place,
            Permissions::from_mode(self.directory_mode(facts.mode)),
        )?;
        set_time(place, facts.modified)
    }

    fn give(&self, place: &Path, facts: &Facts) -> io::Result<()> {
        if self.keep_owners {
            owner::give(place, facts.uid, facts.gid)
        } else {
            Ok(())
        }
    }

    /// No set-uid, and no set-gid: programs could not use them anyway.
    fn file_mode(&self, mode: u32) -> u32 {
        (mode & 0o1777) | if self.keep_owners { 0 } else { 0o400 }
    }

    /// Set-gid on a directory only hands down a group; images rely on it.
    ///
    /// Who is not root has to be able to read what it has unpacked, whatever the mode (a shadow
    /// file may have none at all), to copy and to remove it.
    fn directory_mode(&self, mode: u32) -> u32 {
        (mode & 0o3777) | if self.keep_owners { 0 } else { 0o500 }
    }
}

fn set_time(place: &Path, modified: i64) -> io::Result<()> {
    let time = TimeSpec::new(modified, 0);
    utimensat(
        nix::fcntl::AT_FDCWD,
        place,
        &time,
        &time,
        UtimensatFlags::NoFollowSymlink,
    )?;
    Ok(())
}

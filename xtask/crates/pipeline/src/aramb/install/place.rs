//! Where the command goes to, and how it gets there whole or not at all.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, Pid, access};

use crate::sweep::is_gone;

/// A file that is not finished: `.aramb-PROCESS.part`.
const PREFIX: &str = ".aramb-";
const SUFFIX: &str = ".part";

/// The first folder that can be written to. The last one is made where it is not there.
pub(super) fn folder(folders: &[PathBuf]) -> io::Result<PathBuf> {
    let may_write = |folder: &Path| access(folder, AccessFlags::W_OK | AccessFlags::X_OK);
    let is_usable = |folder: &&PathBuf| folder.is_dir() && may_write(folder).is_ok();
    if let Some(folder) = folders.iter().find(is_usable) {
        return Ok(folder.clone());
    }
    let last = folders.last().ok_or(io::ErrorKind::NotFound)?;
    fs::create_dir_all(last)?;
    may_write(last)?;
    Ok(last.clone())
}

/// What keeps a shell from running the command by its name.
pub(super) fn unseen(path: &Path, variable: Option<&OsStr>) -> Option<String> {
    let folder = path.parent()?;
    let folders: Vec<_> = std::env::split_paths(variable?).collect();
    let name = path.file_name()?;
    let first = folders.iter().find(|folder| folder.join(name).is_file());
    if !folders.iter().any(|other| other == folder) {
        let folder = folder.display();
        return Some(format!(
            "{folder} is not in PATH: export PATH=\"{folder}:$PATH\""
        ));
    }
    let first = first.filter(|first| *first != folder)?;
    Some(format!(
        "{} comes before it in PATH: remove that one",
        first.join(name).display()
    ))
}

/// A file beside the one that it is going to be. It goes when this is dropped before that.
pub(super) struct Unfinished {
    path: PathBuf,
    file: File,
    is_finished: bool,
}

impl Unfinished {
    /// Also removes those of runs that were killed.
    pub(super) fn begin(folder: &Path) -> io::Result<Self> {
        remove_abandoned(folder);
        let path = folder.join(format!("{PREFIX}{}{SUFFIX}", std::process::id()));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        Ok(Self {
            path,
            file,
            is_finished: false,
        })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// From now on it is there, under its name and for everybody.
    pub(super) fn finish(mut self, target: &Path) -> io::Result<()> {
        self.file.set_permissions(Permissions::from_mode(0o755))?;
        self.file.sync_all()?;
        fs::rename(&self.path, target)?;
        self.is_finished = true;
        if let Some(folder) = target.parent() {
            // It is there. Were its name lost in a power cut, it would be installed again.
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
        }
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_finished {
            // Nothing more can be done; the next run tries again.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn remove_abandoned(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let writer = name.to_str().and_then(writer_of);
        // An earlier process may have had the number of this one.
        if writer.is_some_and(|writer| writer == Pid::this() || is_gone(writer)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn writer_of(name: &str) -> Option<Pid> {
    let process = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    process.parse().ok().map(Pid::from_raw)
}

//! What is kept from one deployment of a file to the next: beside the repository's own data, where no work tree sees it.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, chown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use oci::Digest;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::git;

/// Below the folder that git keeps for a work tree.
const FOLDER: &str = "systemprompt/aramb";
/// Where there is no repository; nothing is replaced there, since builds need one.
const WITHOUT_GIT: &str = ".systemprompt/aramb";
const LOCK: &str = "lock";

/// The folder of one file's state, held by this process alone.
#[derive(Debug)]
pub(super) struct State {
    folder: PathBuf,
    /// Let go when this process ends, however it does.
    _lock: File,
    /// What somebody else does to a file right before it is replaced.
    #[cfg(test)]
    pub(super) meanwhile: std::cell::Cell<Option<fn(&Path)>>,
}

/// What has become of a file that was to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replacement {
    /// It is the new one.
    Done,
    /// It was not the one that it was taken for, and is as it was.
    Changed,
}

/// Why there is no state.
#[derive(Debug, thiserror::Error)]
pub(super) enum StateError {
    /// Another process deploys the file.
    #[error("another deployment of this file is running")]
    Locked,
    /// It cannot be kept.
    #[error("cannot keep state in {}: {source}", folder.display())]
    Unwritable {
        /// Where.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl State {
    /// Takes the state of the file.
    pub(super) fn of(file: &Path) -> Result<Self, StateError> {
        Self::at(folder_of(file))
    }

    /// What is kept for the file under a name, by whoever has the state now. Takes nothing and makes nothing.
    pub(super) fn seen<T: DeserializeOwned>(file: &Path, name: &str) -> Option<T> {
        let bytes = fs::read(folder_of(file).join(name)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    fn at(folder: PathBuf) -> Result<Self, StateError> {
        let unwritable = |source| StateError::Unwritable {
            folder: folder.clone(),
            source,
        };
        // What is kept here may have been written into a file with secrets.
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(unwritable)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(folder.join(LOCK))
            .map_err(unwritable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StateError::Locked),
            Err(TryLockError::Error(error)) => return Err(unwritable(error)),
        }
        // Where there is no repository yet, one that is made later is not to take it for the project's.
        write_new(&folder.join(".gitignore"), b"*\n", 0o600).map_err(unwritable)?;
        Ok(Self {
            folder,
            _lock: lock,
            #[cfg(test)]
            meanwhile: std::cell::Cell::default(),
        })
    }

    /// Where something is kept under a name.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What was kept under a name, if it can be read: it only saves work.
    pub(super) fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_slice(&self.bytes(name).ok()??).ok()
    }

    /// The bytes kept under a name.
    pub(super) fn bytes(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.folder.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps a value under a name.
    pub(super) fn write<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        self.write_bytes(name, &serde_json::to_vec(value)?)
    }

    /// Keeps bytes under a name: all of them, or what was there before.
    pub(super) fn write_bytes(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let new = self.fresh(bytes, 0o600)?;
        fs::rename(&new, self.folder.join(name))?;
        File::open(&self.folder)?.sync_all()
    }

    /// Forgets what was kept under a name.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.folder.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Replaces a file of these bytes by others in one step. One that somebody has changed stays, and that is told. Where the
    /// work tree is on the same file system as the repository, nothing else is ever seen beside the file.
    pub(super) fn replace(&self, file: &Path, old: &[u8], bytes: &[u8]) -> io::Result<Replacement> {
        let facts = fs::metadata(file)?;
        let new = self.fresh(bytes, 0o600)?;
        resemble(&new, &facts)?;
        #[cfg(test)]
        if let Some(edit) = self.meanwhile.take() {
            edit(file);
        }
        let replacement = match exchange(&new, file, old) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                fs::remove_file(&new)?;
                let mut name = file.file_name().unwrap_or_default().to_owned();
                name.push(".new");
                let beside = file.with_file_name(name);
                write_new(&beside, bytes, 0o600)?;
                resemble(&beside, &facts)?;
                exchange(&beside, file, old)?
            }
            other => other?,
        };
        File::open(file.parent().unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(replacement)
    }

    fn fresh(&self, bytes: &[u8], mode: u32) -> io::Result<PathBuf> {
        // The lock is ours: nobody else writes here, and what is there was left by one that was killed.
        let new = self.folder.join("new");
        write_new(&new, bytes, mode)?;
        Ok(new)
    }
}

/// Gives a new file the mode of another, and its owner as far as that is allowed: a deployment by root leaves the file its owner's.
fn resemble(new: &Path, facts: &Metadata) -> io::Result<()> {
    if chown(new, Some(facts.uid()), Some(facts.gid())).is_err() {
        let _ = chown(new, None, Some(facts.gid()));
    }
    fs::set_permissions(new, facts.permissions())
}

/// Puts a new file in the place of one of these bytes; the new one's name is free afterwards. What comes out is looked at, not
/// what is there before: a flush lies between, and somebody may save the file within it.
fn exchange(new: &Path, file: &Path, old: &[u8]) -> io::Result<Replacement> {
    let swap = || swap(new, file);
    let ours = fs::read(new)?;
    let replacement = match swap() {
        Ok(()) if fs::read(new)? == old => Replacement::Done,
        Ok(()) => {
            swap()?;
            if fs::read(new)? != ours {
                // It was saved once more meanwhile: the last one stays.
                swap()?;
            }
            Replacement::Changed
        }
        // Not every file system and kernel can do this.
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {
            if fs::read(file)? == old {
                fs::rename(new, file)?;
                return Ok(Replacement::Done);
            }
            Replacement::Changed
        }
        Err(error) => return Err(error.into()),
    };
    fs::remove_file(new)?;
    Ok(replacement)
}

/// Two files change places.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn swap(one: &Path, other: &Path) -> nix::Result<()> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE)
}

/// Not offered by every system's library.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn swap(_one: &Path, _other: &Path) -> nix::Result<()> {
    Err(Errno::ENOSYS)
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Where the state of a file is: with what git keeps for the work tree of its folder.
fn folder_of(file: &Path) -> PathBuf {
    let parent = file.parent().unwrap_or(Path::new("."));
    let name = Digest::of(file.as_os_str().as_encoded_bytes()).hex();
    let git = git::read(parent, &["rev-parse", "--absolute-git-dir"]).map(PathBuf::from);
    git.filter(|path| path.is_absolute())
        .map_or_else(|| parent.join(WITHOUT_GIT), |git| git.join(FOLDER))
        .join(&name[..16])
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use xshell::{Shell, cmd};

    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("aramb.toml");
        fs::write(&file, "old").unwrap();
        (folder, file)
    }

    #[test]
    fn one_process_has_it_at_a_time() {
        let (_folder, file) = folder();
        let state = State::of(&file).unwrap();
        assert!(matches!(State::of(&file), Err(StateError::Locked)));
        drop(state);
        State::of(&file).unwrap();
    }

    #[test]
    fn what_is_kept_is_for_its_owner_alone() {
        let (_folder, file) = folder();
        let state = State::of(&file).unwrap();
        assert_eq!(state.read::<u32>("n"), None);
        state.write("n", &7).unwrap();
        assert_eq!(state.read::<u32>("n"), Some(7));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&state.folder), 0o700);
        assert_eq!(mode(&state.folder.join("n")), 0o600);
        state.remove("n").unwrap();
        state.remove("n").unwrap();
        assert_eq!(state.read::<u32>("n"), None);
    }

    #[test]
    fn a_file_keeps_its_mode_and_nothing_stays_beside_it() {
        let (folder, file) = folder();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let state = State::of(&file).unwrap();
        let replacement = state.replace(&file, b"old", b"new").unwrap();
        assert_eq!(replacement, Replacement::Done);
        assert_eq!(fs::read(&file).unwrap(), b"new");
        // One that is another stays what it is.
        let replacement = state.replace(&file, b"old", b"newer").unwrap();
        assert_eq!(replacement, Replacement::Changed);
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o640
        );
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, [".systemprompt", "aramb.toml"]);
    }

    #[test]
    fn in_a_repository_it_is_where_no_work_tree_sees_it() {
        let (folder, file) = folder();
        let shell = Shell::new().unwrap();
        shell.change_dir(folder.path());
        cmd!(shell, "git init --quiet").run().unwrap();
        let state = State::of(&file).unwrap();
        state.write("n", &7).unwrap();
        let seen = cmd!(shell, "git status --porcelain").read().unwrap();
        assert_eq!(seen, "?? aramb.toml");
    }
}

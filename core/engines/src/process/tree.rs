//! Directory trees: removing them whatever their modes are, measuring them, copying them.

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use nix::sys::stat::{Mode, UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::mkfifo;

use super::owner;

/// What the system counts the size of files in.
const BLOCK: u64 = 512;
/// How far below what is removed a directory may be to be emptied there; one that is deeper is moved up first. So many names of
/// the longest kind are half of the longest path that Linux takes, and programs nest deeper than that.
const DEEPEST: usize = 8;

/// Removes `path` and all below it. Absent is fine. Directories that their owner may not write to
/// (images have them) are opened up first, which is why this is not `remove_dir_all`.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => Removal::of(path).run(&found),
        Ok(_) => absent_is_fine(fs::remove_file(path)),
        Err(error) => absent_is_fine(Err(error)),
    }
}

/// Creates directories that all users of the image may enter, whatever the server's umask is.
pub(crate) fn make_open(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_open(parent)?;
    }
    fs::create_dir(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
}

/// Bytes that a tree takes on disk, as far as it is to be seen; `None` where it has more than so many entries.
pub(crate) fn used(path: &Path, most: usize) -> Option<u64> {
    let mut entries = most.checked_sub(1)?;
    let mut total = 0;
    // not by calling itself: whoever nests deep would use up the stack
    let mut pending = vec![path.to_owned()];
    while let Some(path) = pending.pop() {
        // what goes meanwhile takes nothing
        let Ok(found) = fs::symlink_metadata(&path) else {
            continue;
        };
        total += found.blocks() * BLOCK;
        if found.is_dir() {
            for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
                entries = entries.checked_sub(1)?;
                pending.push(entry.path());
            }
        }
    }
    Some(total)
}

/// Bytes of the regular files below `path` that have no other name anywhere: what is free when they go.
pub(crate) fn unshared_size(path: &Path) -> io::Result<u64> {
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() {
        let alone = found.is_file() && found.nlink() == 1;
        return Ok(if alone { found.len() } else { 0 });
    }
    let mut total = 0;
    for entry in fs::read_dir(path)? {
        total += unshared_size(&entry?.path())?;
    }
    Ok(total)
}

/// Copies the tree `from` to `to`, which must not exist, with modes, times and, as root, owners.
///
/// Programs and libraries too, although they are the bulk of an image: whoever may write into a file
/// that is linked writes into that of all images. File systems that can share blocks until they are
/// written to do so here.
pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(from)?;
    if found.is_dir() {
        return copy_directory(from, to, &found);
    }
    if found.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
    } else if !found.is_file() {
        mkfifo(to, Mode::from_bits_truncate(found.mode()))?;
    } else {
        fs::copy(from, to)?;
    }
    keep_facts(to, &found)
}

fn copy_directory(from: &Path, to: &Path, found: &Metadata) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    keep_facts(to, found)
}

fn keep_facts(to: &Path, found: &Metadata) -> io::Result<()> {
    owner::give(to, found.uid(), found.gid())?;
    if !found.is_symlink() {
        fs::set_permissions(to, Permissions::from_mode(found.mode() & 0o7777))?;
    }
    let modified = TimeSpec::new(found.mtime(), found.mtime_nsec());
    utimensat(
        nix::fcntl::AT_FDCWD,
        to,
        &modified,
        &modified,
        UtimensatFlags::NoFollowSymlink,
    )?;
    Ok(())
}

/// Gives `to` the owner (as root), mode and time of `from`.
pub(crate) fn imitate(from: &Path, to: &Path) -> io::Result<()> {
    keep_facts(to, &fs::symlink_metadata(from)?)
}

/// The removal of a directory.
struct Removal<'a> {
    top: &'a Path,
    /// How many directories were moved up into it.
    moved: u64,
}

impl<'a> Removal<'a> {
    fn of(top: &'a Path) -> Self {
        Self { top, moved: 0 }
    }

    fn run(mut self, found: &Metadata) -> io::Result<()> {
        loop {
            let before = self.moved;
            self.empty(self.top, found, 0)?;
            // each round takes levels away
            if self.moved == before {
                return absent_is_fine(fs::remove_dir(self.top));
            }
        }
    }

    fn empty(&mut self, path: &Path, found: &Metadata, depth: usize) -> io::Result<()> {
        open_up(path, found)?;
        for entry in fs::read_dir(path)? {
            let path = entry?.path();
            match fs::symlink_metadata(&path) {
                Ok(found) if found.is_dir() && depth == DEEPEST => self.move_up(&path, &found)?,
                Ok(found) if found.is_dir() => {
                    self.empty(&path, &found, depth + 1)?;
                    absent_is_fine(fs::remove_dir(&path))?;
                }
                Ok(_) => absent_is_fine(fs::remove_file(&path))?,
                Err(error) => absent_is_fine(Err(error))?,
            }
        }
        Ok(())
    }

    fn move_up(&mut self, path: &Path, found: &Metadata) -> io::Result<()> {
        // a directory that may not be written to cannot be moved
        open_up(path, found)?;
        loop {
            self.moved += 1;
            let place = self.top.join(format!(".moved-{}", self.moved));
            match fs::symlink_metadata(&place) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return fs::rename(path, place);
                }
                // of a removal that was cut off
                other => other.map(drop)?,
            }
        }
    }
}

fn open_up(path: &Path, found: &Metadata) -> io::Result<()> {
    if found.mode() & 0o700 == 0o700 {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(0o700))
}

/// The outcome of a removal of what need not be there.
pub(crate) fn absent_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(root: &Path) {
        fs::create_dir_all(root.join("closed/inner")).unwrap();
        fs::write(root.join("closed/inner/data"), b"12345").unwrap();
        fs::write(root.join("program"), b"\x7fELF").unwrap();
        fs::set_permissions(root.join("program"), Permissions::from_mode(0o755)).unwrap();
        symlink("nowhere", root.join("link")).unwrap();
        fs::set_permissions(root.join("closed/inner"), Permissions::from_mode(0o555)).unwrap();
        fs::set_permissions(root.join("closed"), Permissions::from_mode(0o555)).unwrap();
    }

    #[test]
    fn a_copy_has_files_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir(&from).unwrap();
        sample(&from);
        copy(&from, &to).unwrap();
        let inode = |path: &str| {
            let of = |root: &Path| fs::symlink_metadata(root.join(path)).unwrap();
            (of(&from).ino() == of(&to).ino(), of(&to).mode() & 0o7777)
        };
        assert_eq!(inode("program"), (false, 0o755), "a program is shared");
        assert!(!inode("closed/inner/data").0, "data is shared");
        assert_eq!(inode("closed"), (false, 0o555));
        assert_eq!(
            fs::read_link(to.join("link")).unwrap(),
            Path::new("nowhere")
        );
        assert_eq!(unshared_size(&to).unwrap(), 9);
        assert!(used(&to, 6).is_some_and(|bytes| bytes >= 9));
        assert_eq!(used(&to, 5), None);
        remove(&from).unwrap();
        remove(&to).unwrap();
        assert!(!from.exists() && !to.exists());
    }

    #[test]
    fn what_is_nested_deeper_than_a_path_may_be_long_is_measured_and_removed() {
        const LEVELS: usize = 5000;
        let dir = tempfile::tempdir().unwrap();
        let mut inner = dir.path().join("0");
        fs::create_dir(&inner).unwrap();
        for level in 1..=LEVELS {
            let outer = dir.path().join(level.to_string());
            fs::create_dir(&outer).unwrap();
            fs::rename(&inner, outer.join("d")).unwrap();
            fs::write(outer.join(".moved-1"), b"").unwrap();
            inner = outer;
        }
        assert!(used(&inner, 2 * LEVELS + 1).is_some());
        remove(&inner).unwrap();
        assert!(!inner.exists());
    }

    #[test]
    fn removing_what_is_not_there_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        remove(&dir.path().join("absent")).unwrap();
    }
}

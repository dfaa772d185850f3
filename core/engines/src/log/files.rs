//! The files of a log, for who reads or removes them while they are written and put aside.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::file::{KEPT, LogFile, aside};
use crate::process::tree::absent_is_fine;

/// Of which log the file of this name is one: `1.log` and `1.log.2` are of `1.log`. There may be no `1.log`: for a moment
/// while it is put aside, and for as long as nobody writes if the writer dies at that moment.
#[must_use]
pub fn log_of(name: &str) -> Option<&str> {
    let log = match name.rsplit_once('.') {
        Some((log, number)) if (1..=KEPT).any(|kept| number == kept.to_string()) => log,
        _ => name,
    };
    log.strip_suffix(".log").and(Some(log))
}

/// The files of the log at `path`, the youngest first. The first one may still be written to, the others are complete.
///
/// They are all opened before any is read: whoever reads them one after the other misses those that are moved past him. Files
/// move from a younger name to an older one only, in which order they are opened here, so that none is missed.
pub fn open_log(path: &Path) -> io::Result<Vec<File>> {
    let mut files: Vec<(u64, File)> = Vec::new();
    for path in names(path) {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let inode = file.metadata()?.ino();
        // One that has moved on meanwhile is met again. What was found after it is younger, or is met again as well.
        match files.iter().position(|(seen, _)| *seen == inode) {
            Some(at) => files.truncate(at + 1),
            None => files.push((inode, file)),
        }
    }
    Ok(files.into_iter().map(|(_, file)| file).collect())
}

/// Removes the files of the log at `path` that were put aside and go beyond a size, the oldest ones; says how large the rest
/// is. The file being written is never touched. It blocks.
pub fn cut_log(path: &Path, bytes: u64) -> io::Result<u64> {
    // What is put aside between the look at a file and its removal has another file removed.
    let _turn = LogFile::turn(path)?;
    let (mut size, mut fits) = (length(path), true);
    for path in names(path).skip(1) {
        fits = fits && size + length(&path) <= bytes;
        if fits {
            size += length(&path);
        } else {
            absent_is_fine(fs::remove_file(path))?;
        }
    }
    Ok(size)
}

/// Removes the log at `path`, the oldest file first: what stays after a crash is its end. It blocks.
pub fn remove_log(path: &Path) -> io::Result<()> {
    let _turn = LogFile::turn(path)?;
    let names: Vec<PathBuf> = names(path).collect();
    for path in names.iter().rev() {
        absent_is_fine(fs::remove_file(path))?;
    }
    Ok(())
}

/// What the files of a log are called, the name of the youngest first.
fn names(path: &Path) -> impl Iterator<Item = PathBuf> {
    let older = (1..=KEPT).map(|number| aside(path, number));
    std::iter::once(path.to_owned()).chain(older)
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::log::{Line, Stream};

    #[test]
    fn files_are_told_by_their_names() {
        for name in ["1.log", "1.log.1", "1.log.23"] {
            assert_eq!(log_of(name), Some("1.log"), "{name}");
        }
        assert_eq!(log_of("1.log.log.2"), Some("1.log.log"));
        for name in [
            "1", "log", "1.log.0", "1.log.01", "1.log.24", "1.log.+1", "1.log.x",
        ] {
            assert_eq!(log_of(name), None, "{name}");
        }
    }

    #[test]
    fn whoever_removes_files_waits_for_whoever_writes() {
        type Removal = fn(&Path) -> io::Result<u64>;
        let removals: [Removal; 2] = [|path| cut_log(path, 0), |path| remove_log(path).map(|()| 0)];
        for removal in removals {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("1.log");
            for path in [&path, &aside(&path, 1)] {
                let line = Line::now(Stream::Stdout, "x".to_owned());
                LogFile::open(path).unwrap().write(&[line]).unwrap();
            }
            let turn = LogFile::turn(&path).unwrap().unwrap();
            let inode = fs::metadata(&path).unwrap().ino().to_string();
            std::thread::scope(|scope| {
                let removal = scope.spawn(|| removal(&path));
                let bound = Instant::now() + Duration::from_mins(1);
                while !is_waited_for(&inode) {
                    assert!(!removal.is_finished(), "it does not wait");
                    assert!(Instant::now() < bound);
                    std::thread::yield_now();
                }
                assert!(aside(&path, 1).exists());
                drop(turn);
                removal.join().unwrap().unwrap();
            });
            assert!(!aside(&path, 1).exists());
        }
    }

    /// Whether somebody waits for a lock on the file of that number.
    fn is_waited_for(inode: &str) -> bool {
        let locks = fs::read_to_string("/proc/locks").unwrap();
        let mut locks = locks.lines().filter(|lock| lock.contains("->"));
        locks.any(|lock| lock.contains(&format!(":{inode} ")))
    }
}

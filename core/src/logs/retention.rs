//! Which logs are kept: those of the newest deployments, each up to a size, and all up to an age and a size.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{Log, aside, logs};

/// What is kept of a tenant's logs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    /// Of how many deployments, the newest ones.
    pub(crate) deployments: usize,
    /// Of these, whatever their age and number: they are being written.
    pub(crate) in_use: Vec<u64>,
    /// How much of each.
    pub(crate) bytes_each: u64,
    /// How long after the last line, if there is a bound.
    pub(crate) age: Option<Duration>,
    /// How much of all, if there is a bound.
    pub(crate) bytes: Option<u64>,
}

/// Removes what is not kept: whole deployments, and of those that stay the files put aside that go beyond the size of
/// each, oldest first. The file being written is never touched. It blocks.
pub(crate) fn prune(folder: &Path, kept: &Kept) -> io::Result<()> {
    let mut by_deployment: BTreeMap<u64, Vec<Log>> = BTreeMap::new();
    for log in logs(folder)? {
        by_deployment.entry(log.deployment).or_default().push(log);
    }
    let (mut total, mut is_full) = (0, false);
    for (place, (number, logs)) in by_deployment.iter().rev().enumerate() {
        let newest: Vec<PathBuf> = logs.iter().map(|log| log.file(folder)).collect();
        let mut size = 0;
        for newest in &newest {
            size += cut(newest, kept.bytes_each)?;
        }
        total += size;
        is_full = is_full || kept.bytes.is_some_and(|bytes| total > bytes);
        let counts = place >= kept.deployments;
        let age = kept.age;
        let is_old = age.is_some_and(|age| newest.iter().all(|log| is_older_than(log, age)));
        if (counts || is_old || is_full) && !kept.in_use.contains(number) {
            for path in newest.iter().flat_map(|newest| all(newest)) {
                remove(&path)?;
            }
            total -= size;
        }
    }
    Ok(())
}

/// Removes the files put aside of a log that go beyond a size; says how large the rest is.
fn cut(newest: &Path, bytes: u64) -> io::Result<u64> {
    let mut size = length(newest);
    let mut fits = true;
    for path in aside(newest) {
        fits = fits && size + length(&path) <= bytes;
        if fits {
            size += length(&path);
        } else {
            remove(&path)?;
        }
    }
    Ok(size)
}

/// The files of one log, the oldest first: what stays after a crash is its end.
fn all(newest: &Path) -> Vec<PathBuf> {
    let mut files = aside(newest);
    files.reverse();
    files.push(newest.to_owned());
    files
}

fn is_older_than(path: &Path, age: Duration) -> bool {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    let past = modified.map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
    past.is_ok_and(|past| past > age)
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in ["1.log", "2.log", "2.log.1", "2.log.2", "3.log"] {
            fs::write(folder.path().join(name), [b'x'; 10]).unwrap();
        }
        folder
    }

    fn left(folder: &tempfile::TempDir, kept: &Kept) -> Vec<String> {
        prune(folder.path(), kept).unwrap();
        let mut left: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        left
    }

    fn all_of_it() -> Kept {
        Kept {
            deployments: 10,
            bytes_each: 1000,
            ..Kept::default()
        }
    }

    #[test]
    fn old_deployments_and_old_files_go_first() {
        let kept = Kept {
            deployments: 2,
            bytes_each: 25,
            ..Kept::default()
        };
        assert_eq!(left(&folder(), &kept), ["2.log", "2.log.1", "3.log"]);
    }

    #[test]
    fn of_a_long_log_almost_all_stays_that_may_be_kept() {
        let folder = tempfile::tempdir().unwrap();
        let log = |name: String, bytes| {
            let file = fs::File::create(folder.path().join(name)).unwrap();
            file.set_len(bytes).unwrap();
        };
        // The one that is being written is full up to one line.
        log("1.log".to_owned(), engines::LOG_FILE_BYTES - 1);
        for number in 1..=engines::LOG_FILES_KEPT {
            log(format!("1.log.{number}"), engines::LOG_FILE_BYTES);
        }
        let bound = crate::settings::Limits::default().log_bytes_kept;
        let kept = Kept {
            bytes_each: bound,
            ..all_of_it()
        };
        let left = left(&folder, &kept).into_iter();
        let left: u64 = left.map(|name| length(&folder.path().join(name))).sum();
        assert!((bound - bound / 10..=bound).contains(&left), "{left}");
    }

    #[test]
    fn what_is_being_written_stays() {
        let kept = Kept {
            deployments: 1,
            in_use: vec![1],
            bytes: Some(5),
            ..all_of_it()
        };
        assert_eq!(left(&folder(), &kept), ["1.log"]);
    }

    #[test]
    fn age_counts_from_the_last_line() {
        let folder = folder();
        let old = fs::File::open(folder.path().join("2.log")).unwrap();
        let hour = Duration::from_hours(1);
        old.set_modified(SystemTime::now() - 2 * hour).unwrap();
        let kept = Kept {
            age: Some(hour),
            ..all_of_it()
        };
        assert_eq!(left(&folder, &kept), ["1.log", "3.log"]);
    }

    #[test]
    fn beyond_the_size_of_all_the_oldest_go() {
        let kept = Kept {
            bytes: Some(40),
            ..all_of_it()
        };
        assert_eq!(
            left(&folder(), &kept),
            ["2.log", "2.log.1", "2.log.2", "3.log"]
        );
    }
}

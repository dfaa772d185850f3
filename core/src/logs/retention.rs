//! Which logs are kept: those of the newest deployments, each up to a size, and all up to an age and a size.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{Log, logs};

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
            size += engines::cut_log(newest, kept.bytes_each)?;
        }
        total += size;
        is_full = is_full || kept.bytes.is_some_and(|bytes| total > bytes);
        let counts = place >= kept.deployments;
        let age = kept.age;
        let is_old = age.is_some_and(|age| {
            newest
                .iter()
                .all(|log| is_older_than(log, age).is_ok_and(|old| old))
        });
        if (counts || is_old || is_full) && !kept.in_use.contains(number) {
            for newest in &newest {
                engines::remove_log(newest)?;
            }
            total -= size;
        }
    }
    Ok(())
}

/// Whether the last line of a log is older than that. Its newest file may have been put aside.
fn is_older_than(newest: &Path, age: Duration) -> io::Result<bool> {
    let files = engines::open_log(newest)?;
    let Some(youngest) = files.first() else {
        return Ok(false);
    };
    let past = SystemTime::now().duration_since(youngest.metadata()?.modified()?);
    Ok(past.unwrap_or_default() > age)
}

#[cfg(test)]
mod tests {
    use std::fs;

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
        let left: u64 = left
            .map(|name| fs::metadata(folder.path().join(name)).unwrap().len())
            .sum();
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
    fn a_log_whose_newest_file_was_put_aside_goes_like_any_other() {
        let put_aside = || {
            let folder = folder();
            let path = |name: &str| folder.path().join(name);
            fs::rename(path("1.log"), path("1.log.1")).unwrap();
            folder
        };
        let mut kept = all_of_it();
        kept.deployments = 2;
        let others = ["2.log", "2.log.1", "2.log.2", "3.log"];
        assert_eq!(left(&put_aside(), &kept), others);
        let folder = put_aside();
        let old = fs::File::open(folder.path().join("1.log.1")).unwrap();
        let hour = Duration::from_hours(1);
        old.set_modified(SystemTime::now() - 2 * hour).unwrap();
        let mut kept = all_of_it();
        assert_eq!(left(&folder, &kept).len(), 5);
        kept.age = Some(hour);
        assert_eq!(left(&folder, &kept), others);
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

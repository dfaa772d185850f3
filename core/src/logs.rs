//! Logs of a tenant's applications, as the engine writes them: a folder a tenant, a file a
//! deployment and service, a JSON record a line. The engine puts full files aside as `.1`, `.2`.

mod follow;
mod retention;

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use management_api::types::LogLine;
use serde::Deserialize;

use crate::deployments::APP;

pub(crate) use follow::Follower;
pub(crate) use retention::{Kept, prune};

/// The most lines of one answer.
pub(crate) const MAX_LINES: usize = 10_000;
/// Which lines are wanted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    /// Of this deployment only.
    pub(crate) deployment: Option<u64>,
    /// Of this service only.
    pub(crate) service: Option<String>,
    /// Of this instance only.
    pub(crate) instance: Option<String>,
    /// Not older than this.
    pub(crate) since: Option<DateTime<Utc>>,
    /// Holding this text.
    pub(crate) text: Option<String>,
    /// Only the last so many.
    pub(crate) tail: usize,
}

impl Filter {
    /// Those of the logs that are wanted.
    fn of(&self, mut logs: Vec<Log>) -> Vec<Log> {
        logs.retain(|log| {
            let service = self.service.as_deref();
            self.deployment
                .is_none_or(|wanted| wanted == log.deployment)
                && service.is_none_or(|wanted| wanted == log.service)
        });
        logs
    }

    fn wants(&self, line: &LogLine) -> bool {
        let instance = self.instance.as_deref();
        self.since.is_none_or(|since| line.at >= since)
            && instance.is_none_or(|wanted| line.instance.as_deref() == Some(wanted))
            && self
                .text
                .as_deref()
                .is_none_or(|text| line.line.contains(text))
    }
}

/// What wrote a log: a service of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Log {
    deployment: u64,
    service: String,
}

impl Log {
    fn file(&self, folder: &Path) -> PathBuf {
        file(folder, self.deployment, &self.service)
    }

    /// Of which log the file of this name is one.
    fn named(name: &str) -> Option<Self> {
        let name = engines::log_of(name)?.strip_suffix(".log")?;
        let (deployment, service) = name.split_once('.').unwrap_or((name, APP));
        Some(Self {
            deployment: deployment.parse().ok()?,
            service: service.to_owned(),
        })
    }
}

/// The file of the log of a deployment's service within its tenant's folder.
pub(crate) fn file(folder: &Path, deployment: u64, service: &str) -> PathBuf {
    if service == APP {
        return folder.join(format!("{deployment}.log"));
    }
    folder.join(format!("{deployment}.{service}.log"))
}

/// The wanted lines of a tenant, oldest first. It blocks.
pub(crate) fn read(folder: &Path, filter: &Filter) -> io::Result<Vec<LogLine>> {
    let (lines, _) = follow::begin(folder, filter)?;
    Ok(lines)
}

/// All logs, in order of their deployments.
fn logs(folder: &Path) -> io::Result<Vec<Log>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut logs = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        logs.extend(name.to_str().and_then(Log::named));
    }
    logs.sort_unstable();
    logs.dedup();
    Ok(logs)
}

/// The wanted lines of a log's files, the youngest of which is the first and is read as far as `end`.
fn read_log(files: &[File], log: &Log, filter: &Filter, end: u64) -> io::Result<Vec<LogLine>> {
    let mut lines = Vec::new();
    for (age, file) in files.iter().enumerate().rev() {
        let end = if age == 0 { end } else { u64::MAX };
        for text in BufReader::new(file.take(end)).split(b'\n') {
            let line = parse(&text?, log);
            lines.extend(line.filter(|line| filter.wants(line)));
        }
        // A file has at most some hundred thousand lines; what cannot be answered need not stay.
        lines.drain(..lines.len().saturating_sub(filter.tail));
    }
    Ok(lines)
}

/// One record of the engine; one that is cut off or of another format is passed over.
fn parse(text: &[u8], log: &Log) -> Option<LogLine> {
    #[derive(Deserialize)]
    struct Record {
        at: DateTime<Utc>,
        stream: String,
        line: String,
        #[serde(default)]
        instance: Option<String>,
    }
    let Record {
        at,
        stream,
        line,
        instance,
    } = serde_json::from_slice(text).ok()?;
    Some(LogLine {
        at,
        deployment: log.deployment,
        service: (log.service != APP).then(|| log.service.clone()),
        instance,
        stream,
        line,
    })
}

#[cfg(test)]
mod fixtures {
    use std::io::Write as _;

    use super::*;

    /// Adds a record to a log.
    pub(super) fn write(path: &Path, second: i64, line: &str) {
        let at = DateTime::from_timestamp(second, 0).unwrap();
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        let record = serde_json::json!({ "at": at, "stream": "stdout", "line": line });
        writeln!(file, "{record}").unwrap();
    }

    /// Puts a log aside as the engine does.
    pub(super) fn put_aside(path: &Path) {
        let name = |number: usize| PathBuf::from(format!("{}.{number}", path.display()));
        for number in (1..engines::LOG_FILES_KEPT).rev() {
            let _ = fs::rename(name(number), name(number + 1));
        }
        fs::rename(path, name(1)).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::fixtures::{put_aside, write};
    use super::*;

    fn texts(folder: &Path, filter: &Filter) -> Vec<String> {
        let lines = read(folder, filter).unwrap();
        lines.into_iter().map(|line| line.line).collect()
    }

    fn sample() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        write(&path("1.log.2"), 1, "a");
        write(&path("1.log.1"), 2, "b");
        write(&path("1.log"), 3, "c");
        write(&path("10.log"), 5, "e ten");
        write(&path("9.log"), 4, "d");
        write(&path("9.log"), 6, "f nine");
        write(&path("9.worker.log"), 7, "g");
        folder
    }

    fn all() -> Filter {
        Filter {
            tail: MAX_LINES,
            ..Filter::default()
        }
    }

    #[test]
    fn lines_of_all_files_come_in_order_of_time() {
        let folder = sample();
        let expected = ["a", "b", "c", "d", "e ten", "f nine", "g"];
        assert_eq!(texts(folder.path(), &all()), expected);
        assert!(texts(&folder.path().join("absent"), &all()).is_empty());
    }

    #[test]
    fn filters_apply_together() {
        let folder = sample();
        let mut filter = Filter {
            since: DateTime::from_timestamp(3, 0),
            text: Some("n".into()),
            tail: 1,
            ..Filter::default()
        };
        assert_eq!(texts(folder.path(), &filter), ["f nine"]);
        filter.deployment = Some(10);
        assert_eq!(texts(folder.path(), &filter), ["e ten"]);
        let of = |service: &str| Filter {
            service: Some(service.to_owned()),
            ..all()
        };
        let lines = read(folder.path(), &of("worker")).unwrap();
        assert_eq!(
            (lines.len(), lines[0].service.as_deref()),
            (1, Some("worker"))
        );
        assert_eq!(texts(folder.path(), &of("app")).len(), 6);
    }

    #[test]
    fn lines_of_one_instance_are_told_from_those_of_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let record = |instance: &str, line: &str| {
            let at = DateTime::from_timestamp(1, 0);
            serde_json::json!({ "at": at, "stream": "stdout", "line": line, "instance": instance })
        };
        let (one, two) = (record("shop-3-1", "one"), record("shop-3-2", "two"));
        fs::write(folder.path().join("3.log"), format!("{one}\n{two}\n")).unwrap();
        write(&folder.path().join("3.log"), 2, "of before they had names");
        let filter = Filter {
            instance: Some("shop-3-2".to_owned()),
            ..all()
        };
        assert_eq!(texts(folder.path(), &filter), ["two"]);
        assert_eq!(texts(folder.path(), &all()).len(), 3);
    }

    #[test]
    fn nothing_is_missed_and_nothing_comes_twice_while_a_log_is_put_aside() {
        for _ in 0..50 {
            let folder = tempfile::tempdir().unwrap();
            let log = file(folder.path(), 1, APP);
            let add = |numbers: std::ops::Range<i64>| {
                for number in numbers {
                    write(&log, number, &number.to_string());
                    put_aside(&log);
                }
            };
            add(0..10);
            // No more in all than are kept.
            let found = std::thread::scope(|scope| {
                let writer = scope.spawn(|| add(10..20));
                let mut found = Vec::new();
                while !writer.is_finished() {
                    found.push(texts(folder.path(), &all()));
                }
                found
            });
            for found in found {
                let numbers: Vec<String> = (0..found.len()).map(|n| n.to_string()).collect();
                assert!(found.len() >= 10 && found == numbers, "{found:?}");
            }
        }
    }

    #[test]
    fn a_log_whose_newest_file_was_put_aside_is_read() {
        let folder = sample();
        put_aside(&folder.path().join("1.log"));
        put_aside(&folder.path().join("9.worker.log"));
        // Nobody's files.
        for name in ["1.log.0", "1.log.01", "2.log.999", "3.log.x", "4.log."] {
            write(&folder.path().join(name), 8, "h");
        }
        let expected = ["a", "b", "c", "d", "e ten", "f nine", "g"];
        assert_eq!(texts(folder.path(), &all()), expected);
    }

    #[test]
    fn a_record_cut_off_by_a_crash_is_passed_over() {
        let folder = sample();
        fs::write(folder.path().join("11.log"), b"{\"at\":\"1970-01-01T0").unwrap();
        assert_eq!(texts(folder.path(), &all()).len(), 7);
    }
}

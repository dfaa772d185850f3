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

    /// Whose log has this name.
    fn named(name: &str) -> Option<Self> {
        let name = name.strip_suffix(".log")?;
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
    read_until(folder, filter, |_| u64::MAX)
}

/// Like [`read`], with as many bytes of each log's newest file as `end` says.
fn read_until(
    folder: &Path,
    filter: &Filter,
    end: impl Fn(&Log) -> u64,
) -> io::Result<Vec<LogLine>> {
    let mut lines: Vec<LogLine> = Vec::new();
    for log in filter.of(logs(folder)?).into_iter().rev() {
        // Two instances write at once during a rollout, so the number alone says nothing about
        // which line is younger; the time of the file's last line does.
        let oldest = lines.len().checked_sub(filter.tail);
        let oldest = oldest.and_then(|at| lines.get(at)).map(|line| line.at);
        let changed = changed(&log.file(folder));
        if oldest
            .zip(changed)
            .is_some_and(|(oldest, changed)| changed < oldest)
        {
            continue;
        }
        lines.extend(read_log(folder, &log, filter, end(&log))?);
        lines.sort_by_key(|line| line.at);
    }
    lines.drain(..lines.len().saturating_sub(filter.tail));
    Ok(lines)
}

/// When a file was written to last.
fn changed(path: &Path) -> Option<DateTime<Utc>> {
    let changed = fs::metadata(path).and_then(|metadata| metadata.modified());
    changed.ok().map(DateTime::from)
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
    Ok(logs)
}

fn read_log(folder: &Path, log: &Log, filter: &Filter, end: u64) -> io::Result<Vec<LogLine>> {
    let newest = log.file(folder);
    let older = aside(&newest)
        .into_iter()
        .rev()
        .map(|path| (path, u64::MAX));
    let mut lines = Vec::new();
    for (path, end) in older.chain([(newest, end)]) {
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for text in BufReader::new(file.take(end)).split(b'\n') {
            let line = parse(&text?, log);
            lines.extend(line.filter(|line| filter.wants(line)));
        }
        // A file has at most some hundred thousand lines; what cannot be answered need not stay.
        lines.drain(..lines.len().saturating_sub(filter.tail));
    }
    Ok(lines)
}

/// The files a log was put aside to, younger ones first.
fn aside(path: &Path) -> Vec<PathBuf> {
    let name = path.to_string_lossy();
    (1..=engines::LOG_FILES_KEPT)
        .map(|number| PathBuf::from(format!("{name}.{number}")))
        .collect()
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
}

#[cfg(test)]
mod tests {
    use super::fixtures::write;
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
    fn a_record_cut_off_by_a_crash_is_passed_over() {
        let folder = sample();
        fs::write(folder.path().join("11.log"), b"{\"at\":\"1970-01-01T0").unwrap();
        assert_eq!(texts(folder.path(), &all()).len(), 7);
    }
}

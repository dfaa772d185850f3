//! Logs of a tenant's applications, as the engine writes them: a folder a tenant, a file a
//! deployment, a JSON record a line. The engine puts full files aside as `.1`, `.2`.

mod follow;
mod retention;

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use management_api::types::LogLine;
use serde::Deserialize;

pub(crate) use follow::Follower;
pub(crate) use retention::{Kept, prune};

/// The most lines of one answer.
pub(crate) const MAX_LINES: usize = 10_000;
/// Files put aside, younger ones first.
const ASIDE: [&str; 2] = ["1", "2"];

/// Which lines are wanted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    /// Of this deployment only.
    pub(crate) deployment: Option<u64>,
    /// Not older than this.
    pub(crate) since: Option<DateTime<Utc>>,
    /// Holding this text.
    pub(crate) text: Option<String>,
    /// Only the last so many.
    pub(crate) tail: usize,
}

impl Filter {
    /// Those of the deployments that are wanted.
    fn of(&self, mut deployments: Vec<u64>) -> Vec<u64> {
        deployments.retain(|number| self.deployment.is_none_or(|wanted| wanted == *number));
        deployments
    }

    fn wants(&self, line: &LogLine) -> bool {
        self.since.is_none_or(|since| line.at >= since)
            && self
                .text
                .as_deref()
                .is_none_or(|text| line.line.contains(text))
    }
}

/// The file of a deployment's log within its tenant's folder.
pub(crate) fn file(folder: &Path, deployment: u64) -> PathBuf {
    folder.join(format!("{deployment}.log"))
}

/// The wanted lines of a tenant, oldest first. It blocks.
pub(crate) fn read(folder: &Path, filter: &Filter) -> io::Result<Vec<LogLine>> {
    read_until(folder, filter, |_| u64::MAX)
}

/// Like [`read`], with as many bytes of each deployment's newest file as `end` says.
fn read_until(
    folder: &Path,
    filter: &Filter,
    end: impl Fn(u64) -> u64,
) -> io::Result<Vec<LogLine>> {
    let mut lines: Vec<LogLine> = Vec::new();
    for deployment in filter.of(deployments(folder)?).into_iter().rev() {
        // Two instances write at once during a rollout, so the number alone says nothing about
        // which line is younger; the time of the file's last line does.
        let oldest = lines.len().checked_sub(filter.tail);
        let oldest = oldest.and_then(|at| lines.get(at)).map(|line| line.at);
        let changed = changed(&file(folder, deployment));
        if oldest
            .zip(changed)
            .is_some_and(|(oldest, changed)| changed < oldest)
        {
            continue;
        }
        lines.extend(read_deployment(
            folder,
            deployment,
            filter,
            end(deployment),
        )?);
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

/// Numbers of the deployments that have a log, in order.
fn deployments(folder: &Path) -> io::Result<Vec<u64>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".log"));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn read_deployment(
    folder: &Path,
    deployment: u64,
    filter: &Filter,
    end: u64,
) -> io::Result<Vec<LogLine>> {
    let newest = file(folder, deployment);
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
            let line = parse(&text?, deployment);
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
    ASIDE
        .iter()
        .map(|number| PathBuf::from(format!("{name}.{number}")))
        .collect()
}

/// One record of the engine; one that is cut off or of another format is passed over.
fn parse(text: &[u8], deployment: u64) -> Option<LogLine> {
    #[derive(Deserialize)]
    struct Record {
        at: DateTime<Utc>,
        stream: String,
        line: String,
    }
    let Record { at, stream, line } = serde_json::from_slice(text).ok()?;
    Some(LogLine {
        at,
        deployment,
        service: None,
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
        let expected = ["a", "b", "c", "d", "e ten", "f nine"];
        assert_eq!(texts(folder.path(), &all()), expected);
        assert!(texts(&folder.path().join("absent"), &all()).is_empty());
    }

    #[test]
    fn filters_apply_together() {
        let folder = sample();
        let mut filter = Filter {
            deployment: None,
            since: DateTime::from_timestamp(3, 0),
            text: Some("n".into()),
            tail: 1,
        };
        assert_eq!(texts(folder.path(), &filter), ["f nine"]);
        filter.deployment = Some(10);
        assert_eq!(texts(folder.path(), &filter), ["e ten"]);
    }

    #[test]
    fn a_record_cut_off_by_a_crash_is_passed_over() {
        let folder = sample();
        fs::write(folder.path().join("11.log"), b"{\"at\":\"1970-01-01T0").unwrap();
        assert_eq!(texts(folder.path(), &all()).len(), 6);
    }
}

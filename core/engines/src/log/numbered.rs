//! Lines with the numbers that an orchestrator gives them: who follows a log goes on behind the last one that was written,
//! without a gap and without writing anything twice.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use chrono::SecondsFormat;

use super::file::LogFile;
use super::files::{log_of, open_log};
use super::tail;
use super::{Line, Stream};
use crate::orchestrator::LoggedLine;

/// Adds lines to the log at `path`. It blocks.
pub fn add_to_log(path: &Path, lines: Vec<LoggedLine>) -> io::Result<()> {
    let line = |line: LoggedLine| Line {
        at: line.at.to_rfc3339_opts(SecondsFormat::Millis, true),
        stream: if line.is_error {
            Stream::Stderr
        } else {
            Stream::Stdout
        },
        text: line.text,
        number: Some(line.number),
        instance: line.instance,
    };
    let lines: Vec<Line> = lines.into_iter().map(line).collect();
    LogFile::open(path)?.write(&lines)
}

/// The greatest number of a line in the logs of a folder, 0 where there is none. It blocks.
pub fn last_number(folder: &Path) -> io::Result<u64> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut logs = BTreeSet::new();
    for entry in entries {
        let name = entry?.file_name();
        logs.extend(name.to_str().and_then(log_of).map(str::to_owned));
    }
    let mut last = 0;
    for log in logs {
        // A file that was put aside a moment ago may have left an empty one.
        let files = open_log(&folder.join(log))?;
        let found = files.iter().take(2).find_map(tail::last_number);
        last = last.max(found.unwrap_or_default());
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;
    use crate::log::file::aside;

    fn line(number: u64) -> LoggedLine {
        LoggedLine {
            number,
            at: Utc::now(),
            deployment: 1,
            service: "app".to_owned(),
            instance: None,
            is_error: false,
            text: "x".to_owned(),
        }
    }

    #[test]
    fn the_last_number_is_that_of_the_newest_line_of_any_file() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(last_number(&folder.path().join("absent")).unwrap(), 0);
        for (name, number) in [("1.log", 7), ("2.log", 9), ("2.db.log", 8)] {
            let path = folder.path().join(name);
            add_to_log(&path, vec![line(number - 1), line(number)]).unwrap();
        }
        fs::write(folder.path().join("3.log"), b"{\"at\":\"cut o").unwrap();
        assert_eq!(last_number(folder.path()).unwrap(), 9);
        // Put aside, and nothing written since.
        let path = folder.path().join("2.log");
        fs::rename(&path, aside(&path, 1)).unwrap();
        assert_eq!(last_number(folder.path()).unwrap(), 9);
        fs::write(&path, b"").unwrap();
        assert_eq!(last_number(folder.path()).unwrap(), 9);
    }
}

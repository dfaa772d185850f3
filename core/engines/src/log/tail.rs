//! The end of a log, for people: why did it not start?

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::Line;
use super::files::open_log;

/// The part of a file that is looked at.
const MAX_BYTES: u64 = 1 << 20;

/// The texts of the last `count` lines, oldest first; fewer when the log, or the last megabyte of
/// each of its files, has fewer. No log is an empty one.
pub(crate) fn tail(path: &Path, count: usize) -> Vec<String> {
    let mut found = Vec::new();
    for file in open_log(path).unwrap_or_default() {
        if found.len() >= count {
            break;
        }
        let mut older = last_lines(&file, count - found.len());
        older.append(&mut found);
        found = older;
    }
    found
}

fn last_lines(file: &File, count: usize) -> Vec<String> {
    let text = end_of(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines = text
        .lines()
        .rev()
        .filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let mut lines: Vec<String> = lines.take(count).map(|line| line.text).collect();
    lines.reverse();
    lines
}

/// The number of the last line that has one.
pub(super) fn last_number(file: &File) -> Option<u64> {
    let text = end_of(file).ok()?;
    let text = String::from_utf8_lossy(&text);
    let mut lines = text
        .lines()
        .rev()
        .filter_map(|line| serde_json::from_str::<Line>(line).ok());
    lines.find_map(|line| line.number)
}

fn end_of(mut file: &File) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MAX_BYTES)))?;
    let mut text = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Stream;
    use crate::log::file::{LogFile, aside};

    #[test]
    fn the_last_lines_come_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.log");
        assert!(tail(&path, 3).is_empty());
        let lines: Vec<Line> = (0..10)
            .map(|number| Line::now(Stream::Stdout, format!("line {number}")))
            .collect();
        LogFile::open(&path).unwrap().write(&lines).unwrap();
        assert_eq!(tail(&path, 2), ["line 8", "line 9"]);
        assert_eq!(tail(&path, 100).len(), 10);
        assert!(tail(&path, 0).is_empty());
    }

    #[test]
    fn lines_that_were_put_aside_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.log");
        let line = |text: &str| [Line::now(Stream::Stdout, text.to_owned())];
        LogFile::open(&aside(&path, 1))
            .unwrap()
            .write(&line("older"))
            .unwrap();
        LogFile::open(&path).unwrap().write(&line("newer")).unwrap();
        assert_eq!(tail(&path, 5), ["older", "newer"]);
    }
}

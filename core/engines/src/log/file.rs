//! The file of a log and those that it has been moved to.
//!
//! All instances of a release write to one log, each through its own guard: whoever writes holds a
//! lock on the file and makes sure that it is still the one of that name. So a file that was put
//! aside is complete, and whoever reads it to its end has missed nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::Line;
use crate::process::tree::absent_is_fine;

/// A file of a log that has reached this is put aside. Whoever bounds a log does so by whole files: small ones leave almost
/// all that may be kept.
pub const MAX_BYTES: u64 = 1 << 20;
/// Files of a log put aside that are kept: `.1` is the youngest one.
pub const KEPT: usize = 23;
/// How often the file may be put aside under our hands before a write is given up.
const TRIES: usize = 64;

/// A log that is being written.
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    /// Opens the log at `path` for adding to it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        Ok(Self {
            path: path.to_owned(),
            file: append(path)?,
        })
    }

    /// Adds lines, as many as fit in one write. A reader may still meet the first half of one at the end of the file: of what
    /// is being written at that moment, or of what a writer that was killed has left. The next line begins a new one.
    pub(crate) fn write(&mut self, lines: &[Line]) -> io::Result<()> {
        let mut rest = lines;
        while !rest.is_empty() {
            self.take_turn()?;
            let written = self.write_some(rest);
            // after a rotation this is the new file, which nobody has locked
            self.file.unlock()?;
            rest = &rest[written?..];
        }
        Ok(())
    }

    /// Locks the file that has the name of the log at that moment.
    fn take_turn(&mut self) -> io::Result<()> {
        for _ in 0..TRIES {
            self.file.lock()?;
            let ours = self.file.metadata()?;
            let named = fs::metadata(&self.path);
            if named.is_ok_and(|named| (named.dev(), named.ino()) == (ours.dev(), ours.ino())) {
                return Ok(());
            }
            // another guard has put it aside; closing the old one frees it
            self.file = append(&self.path)?;
        }
        Err(io::Error::other("the log is put aside again and again"))
    }

    /// Writes until the file is full, and puts it aside then; returns how many lines were written.
    fn write_some(&mut self, lines: &[Line]) -> io::Result<usize> {
        let before = self.file.metadata()?.len();
        let (mut batch, mut count) = (Vec::new(), 0);
        if !self.ends_with_a_line(before)? {
            // half a line would make the next one unreadable too
            batch.push(b'\n');
        }
        for line in lines {
            serde_json::to_writer(&mut batch, line)?;
            batch.push(b'\n');
            count += 1;
            if before + batch.len() as u64 >= MAX_BYTES {
                break;
            }
        }
        if let Err(error) = self.file.write_all(&batch) {
            // what is not whole need not stay
            let _ = self.file.set_len(before);
            return Err(error);
        }
        if before + batch.len() as u64 >= MAX_BYTES {
            self.rotate()?;
        }
        Ok(count)
    }

    /// Whether the last byte of a file of that length ends a line.
    fn ends_with_a_line(&self, length: u64) -> io::Result<bool> {
        let mut last = [b'\n'];
        if let Some(at) = length.checked_sub(1) {
            self.file.read_exact_at(&mut last, at)?;
        }
        Ok(last == [b'\n'])
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..KEPT).rev() {
            let older = aside(&self.path, number + 1);
            absent_is_fine(fs::rename(aside(&self.path, number), older))?;
        }
        absent_is_fine(fs::rename(&self.path, aside(&self.path, 1)))?;
        self.file = append(&self.path)?;
        Ok(())
    }
}

/// Where a log is put when it is full: `app.log.1`.
pub(super) fn aside(path: &Path, number: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// A program may print what nobody else should read.
fn append(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new()
        .create(true)
        .read(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Stream;

    #[test]
    fn a_full_file_is_put_aside_and_the_oldest_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/app.log");
        let mut log = LogFile::open(&path).unwrap();
        let lines = vec![Line::now(Stream::Stdout, "x".repeat(60_000)); 16];
        // 60 MB: more than all files together may hold
        for _ in 0..64 {
            log.write(&lines).unwrap();
        }
        let size = |path: &Path| fs::metadata(path).map_or(0, |found| found.len());
        assert!(size(&path) < MAX_BYTES);
        for number in 1..=KEPT {
            let full = size(&aside(&path, number));
            assert!(
                (MAX_BYTES..MAX_BYTES + 70_000).contains(&full),
                "{number}: {full}"
            );
        }
        assert!(!aside(&path, KEPT + 1).exists());
    }

    #[test]
    fn a_log_is_added_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.log");
        for text in ["one", "two"] {
            let mut log = LogFile::open(&path).unwrap();
            log.write(&[Line::now(Stream::Stderr, text.to_owned())])
                .unwrap();
        }
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<Line> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(
            lines
                .iter()
                .map(|line| line.text.as_str())
                .collect::<Vec<_>>(),
            ["one", "two"]
        );
        assert!(text.contains("\"stream\":\"stderr\""), "{text}");
    }

    #[test]
    fn what_a_killed_writer_has_left_spoils_no_other_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.log");
        fs::write(&path, b"{\"at\":\"2026-0").unwrap();
        for text in ["one", "two"] {
            let mut log = LogFile::open(&path).unwrap();
            log.write(&[Line::now(Stream::Stdout, text.to_owned())])
                .unwrap();
        }
        assert_eq!(crate::log::tail(&path, 5), ["one", "two"]);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 3, "{text}");
    }

    #[test]
    fn several_writers_lose_nothing_when_the_file_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.log");
        let (writers, lines) = (4, 200);
        std::thread::scope(|scope| {
            for writer in 0..writers {
                let path = &path;
                scope.spawn(move || {
                    let mut log = LogFile::open(path).unwrap();
                    for number in 0..lines {
                        // 16 MB in all: many rotations, and never the oldest dropped
                        let text = format!("{writer} {number} {}", "x".repeat(20_000));
                        log.write(&[Line::now(Stream::Stdout, text)]).unwrap();
                    }
                });
            }
        });
        let mut found = Vec::new();
        let older = (1..=KEPT).rev().map(|number| aside(&path, number));
        for path in older.chain([path.clone()]) {
            let text = fs::read_to_string(path).unwrap_or_default();
            found.extend(text.lines().map(|line| {
                let line: Line = serde_json::from_str(line).unwrap();
                let mut words = line.text.split(' ').map(|word| word.parse().unwrap_or(0));
                (words.next().unwrap(), words.next().unwrap())
            }));
        }
        for writer in 0..writers {
            let own = found.iter().filter(|(from, _)| *from == writer);
            let numbers: Vec<usize> = own.map(|(_, number)| *number).collect();
            assert_eq!(numbers, (0..lines).collect::<Vec<_>>(), "writer {writer}");
        }
    }
}

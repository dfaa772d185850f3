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

    /// The turn at the log at `path`, until it is dropped: nobody adds to it or puts it aside meanwhile. None where there is
    /// no such file, which means that nobody is writing.
    pub(super) fn turn(path: &Path) -> io::Result<Option<Self>> {
        let file = match OpenOptions::new().append(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let path = path.to_owned();
        let mut log = Self { path, file };
        log.take_turn()?;
        Ok(Some(log))
    }

    /// Adds lines. A reader may still meet the first half of one at the end of the file: of what is being written at that
    /// moment, or of what a writer that was killed has left. The next line begins a new one.
    pub(crate) fn write(&mut self, lines: &[Line]) -> io::Result<()> {
        let mut rest = lines;
        while !rest.is_empty() {
            rest = &rest[self.write_some(rest)?..];
        }
        Ok(())
    }

    /// Adds as many of the lines as fit in one write, and says how many these are: one at least.
    pub(super) fn write_some(&mut self, lines: &[Line]) -> io::Result<usize> {
        self.take_turn()?;
        let written = self.write_in_turn(lines);
        // after a rotation this is the new file, which nobody has locked
        self.file.unlock()?;
        written
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
            // Another guard has put it aside. Others may still wait for this one, also if there is no new one to be had.
            self.file.unlock()?;
            self.file = append(&self.path)?;
        }
        Err(io::Error::other("the log is put aside again and again"))
    }

    /// Writes until the file is full, and puts it aside then; returns how many lines were written.
    fn write_in_turn(&mut self, lines: &[Line]) -> io::Result<usize> {
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
            let written = self.file.metadata()?.len().saturating_sub(before);
            let (stays, count) = whole_lines(&batch, count, written);
            // What is not whole need not stay. What is may have been read already: a follower would look behind it for more.
            let _ = self.file.set_len(before + stays);
            return if count > 0 { Ok(count) } else { Err(error) };
        }
        if before + batch.len() as u64 >= MAX_BYTES {
            // The lines are there all the same. Whoever writes next makes the new file, or puts the old one aside.
            let _ = self.rotate();
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

/// Of a batch that ends with `count` lines and of which only so many bytes were written: how many bytes are whole lines, and
/// how many of the `count` these are.
fn whole_lines(batch: &[u8], count: usize, written: u64) -> (u64, usize) {
    let written = usize::try_from(written).unwrap_or(batch.len());
    let (written, rest) = batch.split_at(written.min(batch.len()));
    let stays = written.iter().rposition(|byte| *byte == b'\n');
    let missing = rest.split(|byte| *byte == b'\n').count() - 1;
    let stays = stays.map_or(0, |at| at + 1);
    (stays as u64, count.saturating_sub(missing))
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
    fn of_a_write_that_is_cut_off_whole_lines_stay() {
        for (batch, count, expected) in [
            (&b"ab\ncd\n"[..], 2, [0, 0, 0, 3, 3, 3, 6]),
            // The first one ends the half of a line that was there.
            (b"\nab\nc\n", 2, [0, 1, 1, 1, 4, 4, 6]),
        ] {
            for (written, stays) in expected.into_iter().enumerate() {
                let lines = match (batch[0], stays) {
                    (b'\n', 0 | 1) | (_, 0) => 0,
                    (_, 6) => 2,
                    _ => 1,
                };
                let found = whole_lines(batch, count, written as u64);
                assert_eq!(found, (stays, lines), "{batch:?} {written}");
            }
        }
    }

    #[test]
    fn a_writer_that_gets_no_file_holds_up_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/app.log");
        let [mut one, other] = [(); 2].map(|()| LogFile::open(&path).unwrap());
        fs::remove_dir_all(folder.path().join("logs")).unwrap();
        let line = Line::now(Stream::Stdout, "lost".to_owned());
        assert!(one.write(&[line]).is_err());
        other.file.try_lock().unwrap();
    }

    #[test]
    fn lines_that_are_there_are_not_refused_because_their_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.log");
        // The last but one cannot take the place of the last.
        fs::create_dir_all(aside(&path, KEPT).join("taken")).unwrap();
        fs::write(aside(&path, KEPT - 1), b"").unwrap();
        let mut log = LogFile::open(&path).unwrap();
        fs::write(&path, "x".repeat(1 << 20) + "\n").unwrap();
        for text in ["one", "two"] {
            let line = Line::now(Stream::Stdout, text.to_owned());
            log.write(&[line]).unwrap();
        }
        assert_eq!(crate::log::tail(&path, 5), ["one", "two"]);
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

//! The file of a log and those that it has been moved to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::Line;

/// A file that has reached this is put aside.
const MAX_BYTES: u64 = 8 << 20;
/// Files put aside that are kept: `.1` is the younger one.
pub(super) const KEPT: usize = 2;

/// A log that is being written.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl LogFile {
    /// Opens the log at `path` for adding to it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = append(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            bytes,
        })
    }

    /// Adds lines in one write, so that a reader never sees half of one.
    pub(super) fn write(&mut self, lines: &[Line]) -> io::Result<()> {
        let mut batch = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut batch, line)?;
            batch.push(b'\n');
            if self.bytes + batch.len() as u64 >= MAX_BYTES {
                self.flush(&mut batch)?;
                self.rotate()?;
            }
        }
        self.flush(&mut batch)
    }

    fn flush(&mut self, batch: &mut Vec<u8>) -> io::Result<()> {
        self.file.write_all(batch)?;
        self.bytes += batch.len() as u64;
        batch.clear();
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..KEPT).rev() {
            let older = aside(&self.path, number + 1);
            absent_is_fine(fs::rename(aside(&self.path, number), older))?;
        }
        absent_is_fine(fs::rename(&self.path, aside(&self.path, 1)))?;
        self.file = append(&self.path)?;
        self.bytes = 0;
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
        .append(true)
        .mode(0o600)
        .open(path)
}

fn absent_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::log::Stream;

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
}

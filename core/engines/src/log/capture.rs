//! From the program's pipes to the file.
//!
//! The guard does this, so that a server may come and go. A pipe holds 64 KiB; once it is full, the
//! program stands still in its next `write` until the disk keeps pace, as if it wrote to the disk
//! itself. A disk that refuses is no reason to stand still: lines are lost then, and counted.

use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::file::LogFile;
use super::lines::Splitter;
use super::{Line, Stream};

/// What is read at once: all that a pipe holds.
const CHUNK: usize = 64 << 10;

/// A log that is being filled.
pub(crate) struct Capture {
    file: LogFile,
    /// Whose lines they are: all instances of a service write to one log.
    instance: Option<String>,
    pipes: Vec<Pipe>,
    /// Lines that the disk has refused since the last that it took.
    lost: usize,
}

struct Pipe {
    reader: PipeReader,
    stream: Stream,
    splitter: Splitter,
}

impl Capture {
    /// Opens the log at `path`, and the ends for standard output and standard error.
    pub(crate) fn open(
        path: &Path,
        instance: Option<String>,
    ) -> io::Result<(Self, [PipeWriter; 2])> {
        let file = LogFile::open(path)?;
        let (stdout, out) = pipe(Stream::Stdout)?;
        let (stderr, err) = pipe(Stream::Stderr)?;
        let pipes = vec![stdout, stderr];
        let capture = Self {
            file,
            instance,
            pipes,
            lost: 0,
        };
        Ok((capture, [out, err]))
    }

    /// What to wait for before [`Capture::take`] finds something.
    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.pipes.iter().map(|pipe| pipe.reader.as_fd())
    }

    /// Writes what the pipes hold. Does not wait for more.
    pub(crate) fn take(&mut self) {
        let mut lines = Vec::new();
        self.pipes.retain_mut(|pipe| pipe.take(&mut lines));
        self.write(lines);
    }

    /// Adds a line of the engine's own.
    pub(crate) fn note(&mut self, text: &str) {
        self.write(vec![Line::of_engine(text)]);
    }

    /// Writes until nobody holds the other ends any more, for `patience` at most: a process that has got
    /// out of our reach may hold them for ever. `last` is the engine's own last word.
    pub(crate) fn finish(mut self, patience: Duration, last: Option<&str>) {
        let deadline = Instant::now() + patience;
        while !self.pipes.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            let limit = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let fds = self.fds().map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            let nothing = poll(&mut fds.collect::<Vec<_>>(), limit) == Ok(0);
            if nothing {
                break;
            }
            // What has been written by then is taken, however late that is looked at.
            self.take();
            if left.is_zero() {
                break;
            }
        }
        let pipes = std::mem::take(&mut self.pipes).into_iter();
        let mut lines: Vec<Line> = pipes.filter_map(Pipe::rest).collect();
        lines.extend(last.map(Line::of_engine));
        self.write(lines);
    }

    fn write(&mut self, mut lines: Vec<Line>) {
        if lines.is_empty() {
            return;
        }
        if self.lost > 0 {
            let text = format!("{} lines were lost: the disk refused them", self.lost);
            lines.insert(0, Line::of_engine(&text));
        }
        for line in &mut lines {
            line.instance.clone_from(&self.instance);
        }
        // a full disk: the program goes on, its lines are lost
        let mut rest = &lines[..];
        while !rest.is_empty() {
            if let Ok(written) = self.file.write_some(rest) {
                rest = &rest[written..];
                self.lost = 0;
            } else {
                self.lost += rest.len() - usize::from(self.lost > 0);
                return;
            }
        }
    }
}

impl Pipe {
    /// Reads once; `false` when the other end is closed.
    fn take(&mut self, lines: &mut Vec<Line>) -> bool {
        let mut buffer = vec![0; CHUNK];
        match self.reader.read(&mut buffer) {
            Ok(read) if read > 0 => {
                let found = self.splitter.push(&buffer[..read]).into_iter();
                lines.extend(found.map(|text| Line::now(self.stream, text)));
                true
            }
            Err(error) => {
                use io::ErrorKind::{Interrupted, WouldBlock};
                matches!(error.kind(), WouldBlock | Interrupted)
            }
            Ok(_) => {
                let last = self.splitter.finish();
                lines.extend(last.map(|text| Line::now(self.stream, text)));
                false
            }
        }
    }

    fn rest(mut self) -> Option<Line> {
        let last = self.splitter.finish()?;
        Some(Line::now(self.stream, last))
    }
}

fn pipe(stream: Stream) -> io::Result<(Pipe, PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    // the end we read from alone: the program's end blocks, as programs expect
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let splitter = Splitter::default();
    let pipe = Pipe {
        reader,
        stream,
        splitter,
    };
    Ok((pipe, writer))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::log::tail;

    #[test]
    fn lines_come_into_the_file_with_the_last_one_that_has_no_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.log");
        let (mut capture, [mut out, mut err]) = Capture::open(&path, None).unwrap();
        out.write_all(b"one\ntw").unwrap();
        capture.take();
        capture.note("something happened");
        out.write_all(b"o").unwrap();
        err.write_all(b"oh\n").unwrap();
        drop((out, err));
        capture.finish(Duration::from_mins(1), Some("the end"));
        let mut lines = tail(&path, 5);
        // the order of two streams is nobody's
        lines[2..4].sort();
        let note = "[engine] something happened";
        assert_eq!(lines, ["one", note, "oh", "two", "[engine] the end"]);
    }

    #[test]
    fn a_pipe_that_stays_open_does_not_hold_up_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.log");
        let (capture, [mut out, err]) = Capture::open(&path, None).unwrap();
        out.write_all(b"said\nhalf").unwrap();
        drop(err);
        capture.finish(Duration::from_millis(50), None);
        assert_eq!(tail(&path, 5), ["said", "half"]);
        drop(out);
    }

    #[test]
    fn what_was_written_is_taken_however_late() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.log");
        let (capture, [mut out, err]) = Capture::open(&path, None).unwrap();
        out.write_all(b"said\n").unwrap();
        drop(err);
        capture.finish(Duration::ZERO, None);
        assert_eq!(tail(&path, 5), ["said"]);
        drop(out);
    }

    #[test]
    fn lines_that_the_disk_refuses_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/app.log");
        let (mut capture, _ends) = Capture::open(&path, None).unwrap();
        // without its folder the file cannot be opened again
        std::fs::remove_dir_all(folder.path().join("logs")).unwrap();
        capture.note("first");
        capture.note("second");
        std::fs::create_dir(folder.path().join("logs")).unwrap();
        capture.note("third");
        capture.note("fourth");
        let lost = "[engine] 2 lines were lost: the disk refused them";
        let expected = [lost, "[engine] third", "[engine] fourth"];
        assert_eq!(tail(&path, 5), expected);
    }

    const FULL: &str = "ENGINES_TEST_FULL_LOG";

    /// The part of the next test that runs where no file gets larger than some blocks. Does nothing unless this process is
    /// that one.
    #[test]
    fn child_that_fills_a_log() {
        let Some(path) = std::env::var_os(FULL) else {
            return;
        };
        let path = Path::new(&path);
        let (mut capture, _ends) = Capture::open(path, None).unwrap();
        let lines = (0..100).map(|number| Line::of_engine(&format!("line {number}")));
        capture.write(lines.collect());
        let written = tail(path, 100).len();
        assert!((1..100).contains(&written), "{written}");
        assert_eq!(capture.lost, 100 - written);
        capture.note("one more");
        assert_eq!(capture.lost, 101 - written);
    }

    #[test]
    fn of_what_a_disk_that_gets_full_takes_whole_lines_stay_and_the_rest_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.log");
        let child = "log::capture::tests::child_that_fills_a_log";
        let done = std::process::Command::new("sh")
            .args([
                "-c",
                "trap '' XFSZ; ulimit -f 8; exec \"$0\" --exact \"$1\"",
            ])
            .arg(std::env::current_exe().unwrap())
            .arg(child)
            .env(FULL, &path)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success() && said.contains("1 passed"), "{said}");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with('\n'), "{text}");
    }
}

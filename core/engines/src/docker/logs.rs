//! What a container writes, from the Docker Engine into the log of the platform.
//!
//! Docker keeps it too, for as long as the container is there. What has come while no server was there is fetched from
//! there: the time of the last line that was written is noted. A server that dies between a line and its note leaves the
//! lines of that moment to be written once more; none is lost.

use std::io;
use std::path::{Path, PathBuf};

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::StreamExt as _;
use tokio::task::spawn_blocking;

use super::record::Records;
use crate::log::{Line, LogFile, Splitter, Stream};

/// So much is written at once, when so much is there.
const AT_ONCE: usize = 256;
/// `2026-01-31T12:00:00.123`: the part of a time that the log keeps.
const MILLIS: usize = 23;

/// The log of one instance, and how far it was read.
pub(super) struct Log {
    instance: String,
    path: PathBuf,
    records: Records,
    stdout: Splitter,
    stderr: Splitter,
    /// When Docker got the last piece that was read, and how many pieces it got at that moment: those of one long line have
    /// one time.
    seen: Option<(String, usize)>,
    /// What Docker says once more, for it is asked by the second.
    again: Option<(String, usize)>,
    /// The same, of the last line that was written.
    noted: Option<String>,
}

impl Log {
    /// Goes on behind what an earlier server has written.
    pub(super) fn open(instance: &str, path: &Path, records: Records) -> Self {
        let noted = records.position(instance);
        Self {
            instance: instance.to_owned(),
            path: path.to_owned(),
            records,
            stdout: Splitter::default(),
            stderr: Splitter::default(),
            // It is noted only where all that had come was written.
            seen: noted.clone().map(|at| (at, usize::MAX)),
            again: None,
            noted,
        }
    }

    /// Writes what comes until Docker says that there is no more, which it does when the container has ended.
    pub(super) async fn follow(&mut self, docker: &Docker, container: &str) -> Result<(), Error> {
        self.again.clone_from(&self.seen);
        let since = self.seen.as_ref().and_then(|(at, _)| seconds(at));
        let since = since.unwrap_or_default();
        let options = LogsOptionsBuilder::default()
            .follow(true)
            .stdout(true)
            .stderr(true)
            .timestamps(true)
            .since(since)
            .build();
        let pieces = docker.logs(container, Some(options)).ready_chunks(AT_ONCE);
        let mut pieces = std::pin::pin!(pieces);
        while let Some(pieces) = pieces.next().await {
            let mut lines = Vec::new();
            let mut broken = None;
            for piece in pieces {
                match piece {
                    Ok(piece) => self.take(&piece, &mut lines),
                    Err(error) => broken = Some(error),
                }
            }
            self.write(lines).await;
            if let Some(error) = broken {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Writes what has no line feed at its end, and one line of the engine's own if there is one to say.
    pub(super) async fn finish(&mut self, last_word: Option<&str>) {
        let mut lines = Vec::new();
        for (stream, splitter) in [
            (Stream::Stdout, &mut self.stdout),
            (Stream::Stderr, &mut self.stderr),
        ] {
            let rest = splitter.finish();
            lines.extend(rest.map(|text| Line::now(stream, text)));
        }
        lines.extend(last_word.map(Line::of_engine));
        self.write(lines).await;
    }

    /// One piece is one write of the program, or a part of a long line.
    fn take(&mut self, piece: &LogOutput, lines: &mut Vec<Line>) {
        let (stream, splitter, bytes) = match piece {
            LogOutput::StdErr { message } => (Stream::Stderr, &mut self.stderr, message),
            LogOutput::StdOut { message }
            | LogOutput::Console { message }
            | LogOutput::StdIn { message } => (Stream::Stdout, &mut self.stdout, message),
        };
        let Some((at, text)) = split_time(bytes) else {
            return;
        };
        match &mut self.again {
            Some((until, _)) if at < until.as_str() => return,
            Some((until, left)) if at == until.as_str() && *left > 0 => {
                *left -= 1;
                return;
            }
            Some((until, _)) if at == until.as_str() => {}
            _ => self.again = None,
        }
        match &mut self.seen {
            Some((seen, count)) if seen == at => *count = count.saturating_add(1),
            seen => *seen = Some((at.to_owned(), 1)),
        }
        let found = splitter.push(text).into_iter();
        lines.extend(found.map(|text| Line {
            at: millis(at),
            stream,
            text,
            number: None,
            instance: None,
        }));
        if self.stdout.is_empty() && self.stderr.is_empty() {
            self.noted = self.seen.as_ref().map(|(at, _)| at.clone());
        }
    }

    async fn write(&mut self, mut lines: Vec<Line>) {
        if lines.is_empty() {
            return;
        }
        for line in &mut lines {
            line.instance = Some(self.instance.clone());
        }
        let (path, records) = (self.path.clone(), self.records.clone());
        let (instance, noted) = (self.instance.clone(), self.noted.clone());
        let count = lines.len();
        let work = spawn_blocking(move || -> io::Result<()> {
            LogFile::open(&path)?.write(&lines)?;
            match noted {
                Some(at) => records.set_position(&instance, &at),
                None => Ok(()),
            }
        });
        // A full disk: the program goes on, its lines are lost here. Docker has them until the instance goes.
        if let Ok(Err(error)) = work.await {
            tracing::warn!(id = self.instance, count, %error, "lines of an instance are not in its log");
        }
    }
}

/// `TIME TEXT`, the time of one width always.
fn split_time(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b' ')?;
    let at = std::str::from_utf8(&bytes[..end]).ok()?;
    Some((at, &bytes[end + 1..]))
}

fn seconds(at: &str) -> Option<i32> {
    let at = chrono::DateTime::parse_from_rfc3339(at).ok()?;
    i32::try_from(at.timestamp()).ok()
}

fn millis(at: &str) -> String {
    at.get(..MILLIS)
        .map_or_else(|| at.to_owned(), |cut| format!("{cut}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out(text: &str) -> LogOutput {
        LogOutput::StdOut {
            message: text.to_owned().into(),
        }
    }

    fn at(number: u32) -> String {
        format!("2026-01-31T12:00:00.{number:09}Z")
    }

    fn texts(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[tokio::test]
    async fn what_was_read_before_the_end_of_a_server_is_not_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::open(folder.path()).unwrap();
        let path = folder.path().join("1.log");
        let mut log = Log::open("a", &path, records.clone());
        let mut lines = Vec::new();
        log.take(&out(&format!("{} one\n", at(1))), &mut lines);
        log.take(&out(&format!("{} tw", at(2))), &mut lines);
        assert_eq!(texts(&lines), ["one"]);
        assert_eq!(lines[0].at, "2026-01-31T12:00:00.000Z");
        log.write(lines).await;
        // The next server gets everything of this second once more.
        let mut log = Log::open("a", &path, records);
        log.again.clone_from(&log.seen);
        let mut lines = Vec::new();
        for (number, text) in [(1, "one\n"), (2, "tw"), (3, "o\n")] {
            log.take(&out(&format!("{} {text}", at(number))), &mut lines);
        }
        assert_eq!(texts(&lines), ["two"]);
        log.write(lines).await;
        log.finish(None).await;
        assert_eq!(crate::log::tail(&path, 10), ["one", "two"]);
    }

    #[tokio::test]
    async fn pieces_of_one_time_and_of_a_clock_that_was_set_back_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::open(folder.path()).unwrap();
        let mut log = Log::open("a", &folder.path().join("1.log"), records);
        let mut lines = Vec::new();
        // A long line comes in pieces, all with the time of the first; two streams are not in order.
        for (number, text) in [(5, "lo"), (5, "ng"), (5, "\n"), (4, "other\n")] {
            log.take(&out(&format!("{} {text}", at(number))), &mut lines);
        }
        assert_eq!(texts(&lines), ["long", "other"]);
        // The connection breaks in the middle of a line, and Docker begins with that second again.
        for text in ["a", "b"] {
            log.take(&out(&format!("{} {text}", at(6))), &mut lines);
        }
        log.again.clone_from(&log.seen);
        for (number, text) in [(5, "lo"), (6, "a"), (6, "b"), (6, "c\n"), (7, "next\n")] {
            log.take(&out(&format!("{} {text}", at(number))), &mut lines);
        }
        assert_eq!(texts(&lines), ["long", "other", "abc", "next"]);
    }
}

//! From the program's pipes to the file.
//!
//! A pipe holds 64 KiB; once it is full, the program stands still in its next `write`. So reading
//! never waits long for the disk: past a second, lines are dropped, and the log says how many.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use super::file::LogFile;
use super::lines::Splitter;
use super::{Line, Stream};

/// Lines between reading and writing.
const QUEUE: usize = 1024;
/// Lines in one write.
const BATCH: usize = 256;
/// How long the program may be held up by a disk that does not keep pace.
const PATIENCE: Duration = Duration::from_secs(1);

/// The tasks that fill a log.
pub(crate) struct Pump {
    lines: mpsc::Sender<Line>,
    readers: Vec<JoinHandle<()>>,
    writer: JoinHandle<()>,
}

/// Starts to write `stdout` and `stderr` to the log at `path`.
pub(crate) async fn start(
    path: &Path,
    stdout: impl AsyncRead + Unpin + Send + 'static,
    stderr: impl AsyncRead + Unpin + Send + 'static,
) -> io::Result<Pump> {
    let path = path.to_owned();
    let file = spawn_blocking(move || LogFile::open(&path))
        .await
        .map_err(io::Error::other)??;
    let (lines, queue) = mpsc::channel(QUEUE);
    let readers = vec![
        tokio::spawn(read(stdout, Stream::Stdout, lines.clone())),
        tokio::spawn(read(stderr, Stream::Stderr, lines.clone())),
    ];
    Ok(Pump {
        lines,
        readers,
        writer: tokio::spawn(write(file, queue)),
    })
}

impl Pump {
    /// Adds a line of the engine's own.
    pub(crate) async fn note(&self, text: String) {
        // a log that is stuck is no reason to hold up the instance
        let _ = timeout(PATIENCE, self.lines.send(engine_line(&text))).await;
    }

    /// Waits until all that the program has written is in the file, for `patience` at most: a
    /// process that has got out of our reach may hold the pipes open for ever.
    pub(crate) async fn finish(self, patience: Duration) {
        let Self {
            lines,
            mut readers,
            mut writer,
        } = self;
        drop(lines);
        let drained = timeout(patience, async {
            for reader in &mut readers {
                let _ = reader.await;
            }
            let _ = (&mut writer).await;
        });
        if drained.await.is_err() {
            readers.iter().for_each(JoinHandle::abort);
            // with its senders gone the writer ends by itself once the queue is empty
            let _ = timeout(patience, writer).await;
        }
    }
}

async fn read(mut pipe: impl AsyncRead + Unpin, stream: Stream, queue: mpsc::Sender<Line>) {
    let mut splitter = Splitter::default();
    let mut buffer = vec![0; 64 << 10];
    let mut dropped = 0;
    loop {
        let read = match pipe.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        for line in splitter.push(&buffer[..read]) {
            offer(&queue, Line::now(stream, line), &mut dropped).await;
        }
    }
    if let Some(line) = splitter.finish() {
        offer(&queue, Line::now(stream, line), &mut dropped).await;
    }
}

/// Queues a line, after word of those that were dropped before it. While lines are being dropped
/// it does not wait at all: the patience is for the queue, not for each line.
async fn offer(queue: &mpsc::Sender<Line>, line: Line, dropped: &mut u64) {
    let patience = if *dropped == 0 {
        PATIENCE
    } else {
        Duration::ZERO
    };
    let Ok(Ok(place)) = timeout(patience, queue.reserve()).await else {
        *dropped += 1;
        return;
    };
    if *dropped == 0 {
        place.send(line);
        return;
    }
    place.send(engine_line(&format!(
        "{dropped} lines dropped: the disk did not keep pace"
    )));
    *dropped = u64::from(queue.try_send(line).is_err());
}

/// There are two streams only, as readers of the log expect; this is what marks ours.
fn engine_line(text: &str) -> Line {
    Line::now(Stream::Stderr, format!("[engine] {text}"))
}

async fn write(mut file: LogFile, mut queue: mpsc::Receiver<Line>) {
    let mut batch = Vec::with_capacity(BATCH);
    while queue.recv_many(&mut batch, BATCH).await > 0 {
        let work = spawn_blocking(move || {
            let written = file.write(&batch);
            batch.clear();
            (file, batch, written)
        });
        let Ok((back, empty, written)) = work.await else {
            return;
        };
        (file, batch) = (back, empty);
        if let Err(error) = written {
            // a full disk: the program goes on, its lines are lost
            tracing::warn!(%error, "write an instance's log");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        Line::now(Stream::Stdout, text.to_owned())
    }

    #[tokio::test]
    async fn lines_are_dropped_and_counted_when_nobody_takes_them() {
        let (queue, mut taken) = mpsc::channel(3);
        let mut dropped = 0;
        for text in ["1", "2", "3", "4", "5"] {
            offer(&queue, line(text), &mut dropped).await;
        }
        assert_eq!(dropped, 2);
        let mut texts = Vec::new();
        while let Ok(line) = taken.try_recv() {
            texts.push(line.text);
        }
        offer(&queue, line("6"), &mut dropped).await;
        while let Ok(line) = taken.try_recv() {
            texts.push(line.text);
        }
        let note = "[engine] 2 lines dropped: the disk did not keep pace";
        assert_eq!(texts, ["1", "2", "3", note, "6"]);
        assert_eq!(dropped, 0);
    }

    #[tokio::test]
    async fn a_pipe_that_stays_open_does_not_hold_up_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.log");
        let (mut open, stdout) = tokio::io::duplex(64);
        tokio::io::AsyncWriteExt::write_all(&mut open, b"said\n")
            .await
            .unwrap();
        let pump = start(&path, stdout, tokio::io::empty()).await.unwrap();
        pump.finish(Duration::from_millis(200)).await;
        assert_eq!(crate::process::log::tail(&path, 5), ["said"]);
        drop(open);
    }
}

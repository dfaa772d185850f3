//! The task that stays with an instance from its start to its last file.

use std::io;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::process::ExitStatusExt;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::Child;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::adopt;
use super::launch::protocol::{Order, Report};
use super::place::Place;
use super::proc::Process;
use super::record::InstanceRecord;
use crate::instance::{Exit, Life};

/// How long a guard may take to end once its instance has: it kills whatever is left.
const GUARD_PATIENCE: Duration = Duration::from_secs(15);
/// Between two looks at a guard that is nobody's child of ours.
const LOOK: Duration = Duration::from_millis(5);
/// How often in a row a guard is returned to that somebody else has spoken to.
const RETURNS: u32 = 16;
/// After this time with a guard, the returns before are forgotten.
const CALM: Duration = Duration::from_mins(1);
/// How often a guard that lives is knocked at until it opens.
const KNOCKS: u32 = 3;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(50);

/// The server's end of the socket to a guard.
pub(super) struct Line {
    reports: BufReader<OwnedReadHalf>,
    orders: OwnedWriteHalf,
    partial: Vec<u8>,
}

impl Line {
    pub(super) fn new(socket: UnixStream) -> Self {
        let (read, write) = socket.into_split();
        Self {
            reports: BufReader::new(read),
            orders: write,
            partial: Vec::new(),
        }
    }

    pub(super) async fn send(&mut self, order: &Order) -> io::Result<()> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        self.orders.write_all(&line).await
    }

    /// The next report; `None` when the guard is gone. Nothing is lost when the caller stops
    /// waiting: what has come of a line stays in `partial`.
    pub(super) async fn next(&mut self) -> io::Result<Option<Report>> {
        match self.reports.read_until(b'\n', &mut self.partial).await {
            Ok(0) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            other => other?,
        };
        let line = std::mem::take(&mut self.partial);
        Ok(Some(serde_json::from_slice(&line)?))
    }
}

/// A guard: our child, or that of a server before us.
pub(super) struct Guard {
    pub(super) process: Process,
    pub(super) child: Option<Child>,
    pub(super) socket: Line,
}

impl Guard {
    /// Makes it end whatever runs, and waits until it has ended itself. Returns how, as far as that
    /// can be known.
    pub(super) async fn bury(self) -> Exit {
        let Self {
            process,
            child,
            mut socket,
        } = self;
        // one that has ended its instance is about to go, and hears nothing any more
        let _ = socket.send(&Order::Kill).await;
        drop(socket);
        let Some(mut child) = child else {
            if timeout(GUARD_PATIENCE, gone(process)).await.is_err() {
                let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
            }
            return Exit::Signal(Signal::SIGKILL as i32);
        };
        let status = match timeout(GUARD_PATIENCE, child.wait()).await {
            Ok(status) => status,
            Err(_) => match child.start_kill() {
                Ok(()) => child.wait().await,
                Err(error) => Err(error),
            },
        };
        match status {
            Ok(status) => status.signal().map_or_else(
                || Exit::Code(status.code().unwrap_or_default()),
                Exit::Signal,
            ),
            Err(_) => Exit::Signal(Signal::SIGKILL as i32),
        }
    }
}

async fn gone(process: Process) {
    while process.is_alive() {
        tokio::time::sleep(LOOK).await;
    }
}

pub(super) struct Monitor {
    pub(super) guard: Guard,
    pub(super) record: InstanceRecord,
    pub(super) orders: mpsc::Receiver<Order>,
    /// Given to the guard, which may not have heard it.
    pub(super) last_order: Option<Order>,
    pub(super) life: watch::Sender<Life>,
    pub(super) place: Place,
}

impl Monitor {
    /// Holds `kept` until nothing of the instance is left.
    pub(super) async fn watch<T>(mut self, kept: T) {
        let reported = self.attend().await;
        let Self {
            guard,
            record,
            life,
            place,
            ..
        } = self;
        let status = guard.bury().await;
        // a guard that was killed with its init has ended nothing; namespaces would have
        if !spawn_blocking(move || record.kill()).await.unwrap_or(true) {
            tracing::warn!(path = %place.directory.display(), "processes of an instance do not end");
        }
        let exit = reported.unwrap_or(status);
        life.send_replace(Life::Exited(exit));
        let shown = place.directory.clone();
        match spawn_blocking(move || place.remove()).await {
            Ok(Ok(())) | Err(_) => {}
            // the next sweep tries again
            Ok(Err(error)) => {
                tracing::warn!(%error, path = %shown.display(), "remove an instance's directory");
            }
        }
        drop(kept);
        life.send_replace(Life::Gone(exit));
    }

    /// Stays with the guard until it has told how the instance ended, or is gone.
    async fn attend(&mut self) -> Option<Exit> {
        let mut left = RETURNS;
        loop {
            let since = Instant::now();
            if let Some(exit) = self.listen().await {
                return Some(exit);
            }
            if since.elapsed() > CALM {
                left = RETURNS;
            }
            if left == 0 || !self.come_back().await {
                return None;
            }
            left -= 1;
        }
    }

    /// Connects once more to a guard that lives: it speaks to the last to come, whoever that was.
    async fn come_back(&mut self) -> bool {
        let directory = &self.place.directory;
        for _ in 0..KNOCKS {
            if !self.guard.process.is_alive() {
                return false;
            }
            if let Ok(greeted) = adopt::greet(directory, &self.record).await {
                tracing::warn!(
                    path = %directory.display(),
                    "somebody else has connected to the guard of an instance; it is taken back"
                );
                self.guard.socket = greeted.guard.socket;
                if let Some(order) = &self.last_order {
                    // as in `listen`
                    let _ = self.guard.socket.send(order).await;
                }
                return true;
            }
            tokio::time::sleep(PAUSE).await;
        }
        false
    }

    /// Passes orders on until the guard has told how it ended; `None` at the end of the socket.
    async fn listen(&mut self) -> Option<Exit> {
        let mut open = true;
        let socket = &mut self.guard.socket;
        loop {
            tokio::select! {
                report = socket.next() => match report {
                    Ok(Some(Report::Exited { code })) => return Some(Exit::Code(code)),
                    Ok(Some(Report::Killed { signal, out_of_memory })) => {
                        return Some(out_of_memory.map_or(Exit::Signal(signal), |limit| {
                            Exit::OutOfMemory { limit }
                        }));
                    }
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return None,
                },
                order = self.orders.recv(), if open => match order {
                    // a guard that does not listen any more is about to tell why
                    Some(order) => {
                        let _ = socket.send(&order).await;
                        self.last_order = Some(order);
                    }
                    None => open = false,
                },
            }
        }
    }
}

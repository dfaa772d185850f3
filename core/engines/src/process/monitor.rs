//! The task that stays with an instance from its start to its last file.

use std::io;
use std::time::Duration;

use nix::sys::signal::Signal;
use std::os::unix::process::ExitStatusExt;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::Child;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::instance::Exit;
use super::launch::protocol::{Order, Report};
use super::log::Pump;
use super::place::Place;

/// How long a guard may take to end once its instance has: it kills whatever is left.
const GUARD_PATIENCE: Duration = Duration::from_secs(15);
/// How long the log may take to be complete once nobody writes to it any more.
const LOG_PATIENCE: Duration = Duration::from_secs(2);

/// Where an instance is in its life.
#[derive(Debug, Clone, Copy)]
pub(super) enum State {
    Running,
    /// No process is left; the log is complete.
    Exited(Exit),
    /// The directory is gone too.
    Gone(Exit),
}

impl State {
    pub(super) fn exit(&self) -> Option<Exit> {
        match self {
            Self::Running => None,
            Self::Exited(exit) | Self::Gone(exit) => Some(*exit),
        }
    }

    pub(super) fn gone(&self) -> Option<Exit> {
        match self {
            Self::Gone(exit) => Some(*exit),
            Self::Running | Self::Exited(_) => None,
        }
    }
}

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

pub(super) struct Monitor {
    pub(super) child: Child,
    pub(super) socket: Line,
    pub(super) pump: Pump,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) state: watch::Sender<State>,
    pub(super) place: Place,
}

impl Monitor {
    /// Holds `kept` until nothing of the instance is left.
    pub(super) async fn watch<T>(mut self, kept: T) {
        let reported = self.attend().await;
        let Self {
            child,
            socket,
            pump,
            state,
            place,
            ..
        } = self;
        let status = bury(child, socket, pump).await;
        let exit = reported.unwrap_or(status);
        state.send_replace(State::Exited(exit));
        let shown = place.directory.clone();
        match spawn_blocking(move || place.remove()).await {
            Ok(Ok(())) | Err(_) => {}
            // the next sweep tries again
            Ok(Err(error)) => {
                tracing::warn!(%error, path = %shown.display(), "remove an instance's directory");
            }
        }
        drop(kept);
        state.send_replace(State::Gone(exit));
    }

    /// Passes orders on until the guard has told how it ended, or is gone.
    async fn attend(&mut self) -> Option<Exit> {
        let mut open = true;
        loop {
            tokio::select! {
                report = self.socket.next() => match report {
                    Ok(Some(Report::Exited { code })) => return Some(Exit::Code(code)),
                    Ok(Some(Report::Killed { signal })) => return Some(Exit::Signal(signal)),
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return None,
                },
                order = self.orders.recv(), if open => match order {
                    // a guard that does not listen any more is about to tell why
                    Some(order) => drop(self.socket.send(&order).await),
                    None => open = false,
                },
            }
        }
    }
}

/// Lets go of a guard, which makes it end whatever runs, and waits until it and the log are done.
/// Returns how the guard itself ended.
pub(super) async fn bury(mut child: Child, socket: Line, pump: Pump) -> Exit {
    drop(socket);
    let status = match timeout(GUARD_PATIENCE, child.wait()).await {
        Ok(status) => status,
        Err(_) => match child.start_kill() {
            Ok(()) => child.wait().await,
            Err(error) => Err(error),
        },
    };
    pump.finish(LOG_PATIENCE).await;
    match status {
        Ok(status) => status.signal().map_or_else(
            || Exit::Code(status.code().unwrap_or_default()),
            Exit::Signal,
        ),
        Err(_) => Exit::Signal(Signal::SIGKILL as i32),
    }
}

//! The task that stays with an instance from its start to its last file.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::process::ExitStatusExt;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::command::{self, Ran};
use super::launch::protocol::{MAX_LINE, Order, Report};
use super::place::Place;
use super::proc::Process;
use super::record::InstanceRecord;
use crate::command::{Command, number};
use crate::instance::{Exit, Life};
use crate::volumes::Hold;

/// How long a guard may take to end once its instance has: it kills whatever is left.
const GUARD_PATIENCE: Duration = Duration::from_secs(15);
/// Between two looks at a guard that is nobody's child of ours.
const LOOK: Duration = Duration::from_millis(5);

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
        let room = (MAX_LINE + 1).saturating_sub(self.partial.len());
        let mut bounded = (&mut self.reports).take(room as u64);
        match bounded.read_until(b'\n', &mut self.partial).await {
            Ok(0) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            other => other?,
        };
        if self.partial.len() > MAX_LINE {
            return Err(io::ErrorKind::InvalidData.into());
        }
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
    pub(super) async fn reap(self) -> Exit {
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

/// What the handles of an instance ask for.
pub(super) enum Request {
    Order(Order),
    /// Whoever has the other end may be gone by the time there is an answer.
    Run(Command, oneshot::Sender<Ran>),
}

/// Commands that run in an instance, and who waits for them.
#[derive(Default)]
pub(super) struct Commands {
    waiting: HashMap<u64, oneshot::Sender<Ran>>,
}

impl Commands {
    fn order(&mut self, command: &Command, answer: oneshot::Sender<Ran>) -> Order {
        self.waiting.retain(|_, answer| !answer.is_closed());
        let number = number();
        self.waiting.insert(number, answer);
        Order::Run(Box::new(command::order(command, number)))
    }

    fn answer(&mut self, id: u64, ran: Ran) {
        if let Some(answer) = self.waiting.remove(&id) {
            let _ = answer.send(ran);
        }
    }
}

pub(super) struct Monitor {
    pub(super) guard: Guard,
    pub(super) record: InstanceRecord,
    pub(super) orders: mpsc::Receiver<Request>,
    pub(super) commands: Commands,
    pub(super) life: watch::Sender<Life>,
    pub(super) place: Place,
    pub(super) volumes: Hold,
}

impl Monitor {
    /// Holds `kept` until nothing of the instance is left.
    pub(super) async fn watch<T>(mut self, kept: T) {
        let reported = self.listen().await;
        let Self {
            guard,
            record,
            life,
            place,
            volumes,
            ..
        } = self;
        let status = guard.reap().await;
        // a guard that was killed with its init has ended nothing; namespaces would have
        let ended = spawn_blocking(move || record.kill()).await.unwrap_or(false);
        let exit = reported.unwrap_or(status);
        let path = place.directory.clone();
        if ended {
            drop(volumes);
            life.send_replace(Life::Exited(exit));
            // the next sweep tries again
            if let Ok(Err(error)) = spawn_blocking(move || place.remove()).await {
                tracing::warn!(%error, path = %path.display(), "remove an instance's directory");
            }
        } else {
            // its directory says to the next server what is to be ended; and whoever runs in it could put a link where something is removed
            tracing::warn!(path = %path.display(), "processes of an instance do not end");
            volumes.never_free();
            life.send_replace(Life::Exited(exit));
        }
        drop(kept);
        life.send_replace(Life::Gone(exit));
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
                    Ok(Some(Report::Ran { id, end, output })) => {
                        self.commands.answer(id, Ran { end, output });
                    }
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return None,
                },
                order = self.orders.recv(), if open => match order {
                    // a guard that does not listen any more is about to tell why
                    Some(Request::Order(order)) => drop(socket.send(&order).await),
                    Some(Request::Run(command, answer)) => {
                        let order = self.commands.order(&command, answer);
                        drop(socket.send(&order).await);
                    }
                    None => open = false,
                },
            }
        }
    }
}

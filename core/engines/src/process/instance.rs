//! An instance: how it comes to life, and the handle to it.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::cgroup::Groups;
use super::engine::Launcher;
use super::image::ImageUse;
use super::launch::protocol::{Launch, Order, Report};
use super::monitor::{Commands, Guard, Line, Monitor, Request};
use super::place::Place;
use super::plan;
use super::proc::{self, Process};
use super::record::InstanceRecord;
use crate::command::{Command, CommandOutcome};
use crate::engine::{BoxFuture, InstanceSpec};
use crate::error::EngineError;
use crate::instance::{Instance, Life, Running};
use crate::seats::Seat;
use crate::volumes::Hold;

/// From the spawn to the program's first instruction. Mounting takes milliseconds; this is for
/// machines that swap.
const START_PATIENCE: Duration = Duration::from_mins(1);
/// How long a command's end may take to be told, once its time is over.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// Orders on their way; whoever has more waits.
const ORDERS: usize = 8;

/// What there is to one instance of this engine.
struct Tended {
    id: String,
    port: u16,
    pid: i32,
    guard: i32,
    log: PathBuf,
    stop_signal: Signal,
    orders: mpsc::Sender<Request>,
    life: watch::Receiver<Life>,
}

impl Running for Tended {
    fn id(&self) -> &str {
        &self.id
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    fn pid(&self) -> u32 {
        self.pid.unsigned_abs()
    }

    fn log(&self) -> &Path {
        &self.log
    }

    fn life(&self) -> watch::Receiver<Life> {
        self.life.clone()
    }

    fn run(&self, command: Command) -> BoxFuture<'_, Result<CommandOutcome, EngineError>> {
        Box::pin(self.run_to_its_end(command))
    }

    fn ask_to_end(&self) -> BoxFuture<'_, ()> {
        let number = self.stop_signal as i32;
        self.give(Order::Signal { number })
    }

    fn kill(&self) -> BoxFuture<'_, ()> {
        self.give(Order::Kill)
    }

    fn listening_ports(&self) -> Option<Vec<u16>> {
        let below = proc::descendants(self.guard);
        // The init comes first, and hides its files.
        proc::listening_ports(below.get(1..).unwrap_or_default())
    }

    fn listens_on(&self, port: u16) -> Option<bool> {
        // most programs do that themselves, and then nobody else of the machine has to be looked at
        if proc::listens_on(&[self.pid], port) == Some(true) {
            return Some(true);
        }
        let all = self.listening_ports();
        all.map(|ports| ports.contains(&port))
    }
}

impl Tended {
    async fn run_to_its_end(&self, command: Command) -> Result<CommandOutcome, EngineError> {
        let (words, limit) = (command.words.clone(), command.limit);
        let (answer, ran) = oneshot::channel();
        let talk = async {
            let request = Request::Run(command, answer);
            self.orders.send(request).await.ok()?;
            ran.await.ok()
        };
        match timeout(limit.saturating_add(ANSWER_PATIENCE), talk).await {
            Ok(Some(ran)) => ran.outcome(&self.id, &words),
            Ok(None) => Err(EngineError::NotRunning {
                id: self.id.clone(),
            }),
            Err(_) => {
                let why = "the instance's first process does not answer";
                Err(EngineError::launch(&self.id, "run a command", why))
            }
        }
    }

    fn give(&self, order: Order) -> BoxFuture<'_, ()> {
        Box::pin(async {
            // an instance that takes no orders any more has ended
            let _ = self.orders.send(Request::Order(order)).await;
        })
    }
}

/// An instance that is being started.
pub(crate) struct Birth {
    pub(crate) spec: InstanceSpec,
    pub(crate) place: Place,
    pub(crate) stop_signal: Signal,
    /// Those that were made for it.
    pub(crate) groups: Groups,
    pub(crate) seat: Seat,
    pub(crate) held: ImageUse,
    pub(crate) volumes: Hold,
}

/// An instance whose guard runs, and what is written down about it.
pub(crate) struct Found {
    pub(crate) id: String,
    pub(crate) place: Place,
    pub(crate) record: InstanceRecord,
    pub(crate) guard: Guard,
    pub(crate) seat: Seat,
    pub(crate) held: ImageUse,
    pub(crate) volumes: Hold,
}

impl Found {
    /// The handle to it, once its program was started; `pid` is the program's.
    pub(crate) fn attach(self, pid: i32) -> Instance {
        let Self {
            id,
            place,
            record,
            guard,
            seat,
            held,
            volumes,
        } = self;
        let (orders, queue) = mpsc::channel(ORDERS);
        let (changed, life) = watch::channel(Life::Running);
        let tended = Tended {
            id,
            port: record.port,
            pid,
            guard: record.guard.pid,
            log: place.engine.join(&record.log),
            stop_signal: Signal::try_from(record.stop_signal).unwrap_or(Signal::SIGTERM),
            orders,
            life,
        };
        let monitor = Monitor {
            guard,
            record,
            orders: queue,
            commands: Commands::default(),
            life: changed,
            place,
            volumes,
        };
        tokio::spawn(monitor.watch((seat, held)));
        Instance::of(tended)
    }
}

impl Birth {
    pub(crate) async fn launch(
        self,
        launcher: &Launcher,
        launch: Launch,
    ) -> Result<Instance, EngineError> {
        let (mut guard, record) = match self.spawn(launcher) {
            Ok(spawned) => spawned,
            Err(error) => {
                self.abandon().await;
                return Err(error);
            }
        };
        match self.converse(&mut guard.socket, launch).await {
            Ok(inner_pid) => self.live(guard, record, inner_pid).await,
            Err(error) => {
                self.give_up(guard, record).await;
                Err(error)
            }
        }
    }

    async fn live(
        self,
        guard: Guard,
        mut record: InstanceRecord,
        inner_pid: i32,
    ) -> Result<Instance, EngineError> {
        let pid = record.started(inner_pid);
        if let Err(error) = record.write(&self.place.directory) {
            let error = EngineError::files("record", &self.place.directory)(error);
            self.give_up(guard, record).await;
            return Err(error);
        }
        let found = Found {
            id: self.spec.id,
            place: self.place,
            record,
            guard,
            seat: self.seat,
            held: self.held,
            volumes: self.volumes,
        };
        Ok(found.attach(pid))
    }

    /// Ends what was started. What does not end keeps its volumes: a guard that did not hear has ended nothing.
    async fn give_up(self, guard: Guard, record: InstanceRecord) {
        guard.reap().await;
        if spawn_blocking(move || record.kill()).await.unwrap_or(false) {
            self.abandon().await;
        } else {
            self.volumes.never_free();
        }
    }

    /// Removes what was made for an instance that has not come to life.
    pub(crate) async fn abandon(self) {
        let (place, groups, id) = (self.place, self.groups, self.spec.id);
        let removed = spawn_blocking(move || {
            groups.remove();
            place.remove()
        });
        let removed = removed.await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(%error, id, "remove the directory of an instance");
        }
    }

    /// The guard waits for its orders, so that all of it is recorded before anything happens.
    fn spawn(&self, launcher: &Launcher) -> Result<(Guard, InstanceRecord), EngineError> {
        let failed = |step: &'static str| {
            move |error: std::io::Error| EngineError::launch(&self.spec.id, step, error)
        };
        let (ours, theirs) = StdStream::pair().map_err(failed("open a socket"))?;
        let child = tokio::process::Command::new(&launcher.program)
            .args(launcher.guard_arguments())
            .env_clear()
            .current_dir(&self.place.engine)
            // a terminal's Ctrl-C is for the server; the server then decides
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            // the server's own would keep its readers waiting for as long as the instance runs
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed("run the launcher"))?;
        ours.set_nonblocking(true)
            .map_err(failed("open a socket"))?;
        let socket = UnixStream::from_std(ours).map_err(failed("open a socket"))?;
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .unwrap_or_default();
        let process = Process::find(pid)
            .ok_or(std::io::ErrorKind::NotFound.into())
            .map_err(failed("find the launcher in /proc"))?;
        let record = InstanceRecord::new(
            &self.spec,
            &self.place,
            self.stop_signal,
            &self.groups,
            process,
        )
        .and_then(|record| record.write(&self.place.directory).map(|()| record))
        .map_err(EngineError::files("record", &self.place.directory))?;
        let guard = Guard {
            process,
            child: Some(child),
            socket: Line::new(socket),
        };
        Ok((guard, record))
    }

    /// Gives the order and waits for the program to run; returns its process id inside.
    async fn converse(&self, socket: &mut Line, launch: Launch) -> Result<i32, EngineError> {
        let id = &self.spec.id;
        let name = launch
            .program
            .as_ref()
            .and_then(|program| program.command.first().cloned());
        let order = Order::Launch(Box::new(launch));
        let talk = async {
            socket.send(&order).await?;
            loop {
                match socket.next().await? {
                    Some(Report::Note { text }) => tracing::warn!(id, "{text}"),
                    other => return Ok::<_, std::io::Error>(other),
                }
            }
        };
        match timeout(START_PATIENCE, talk).await {
            Ok(Ok(Some(Report::Started { pid }))) => Ok(pid),
            Ok(Ok(Some(Report::Failed(failure)))) => {
                Err(plan::explain(id, &name.unwrap_or_default(), &failure))
            }
            Ok(Ok(_)) => Err(EngineError::launch(
                id,
                "start",
                "the launcher ended unexpectedly",
            )),
            Ok(Err(error)) => Err(EngineError::launch(id, "talk to the launcher", error)),
            Err(_) => Err(EngineError::launch(
                id,
                "start",
                "it took longer than a minute",
            )),
        }
    }
}

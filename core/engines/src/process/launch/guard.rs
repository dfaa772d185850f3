//! The first stage: outside of the instance's namespaces. The server's child at first; it outlives
//! the server, and the next one comes in through the socket that it listens on then.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;

use super::channel::Channel;
use super::events::{self, Signals, Source};
use super::listener::Listener;
use super::protocol::{Failure, Launch, Order, PROTOCOL, Report, Supervision};
use super::{BROKEN, INIT, namespaces, sweep};
use crate::log::Capture;
use crate::process::record;
use crate::resources::Bytes;

/// Without a server: between two looks at whether the instance is still wanted.
const LOOK: Duration = Duration::from_secs(1);
/// How long a program may take to end when no server has come back.
const GRACE: Duration = Duration::from_secs(10);
/// How long the log may take to be complete once nobody writes to it any more.
const LOG_PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn run() -> ExitCode {
    close_inherited();
    let Ok(mut server) = Channel::stdin() else {
        return ExitCode::from(BROKEN);
    };
    let Ok(Some(Order::Launch(launch))) = server.next::<Order>() else {
        // the server has thought better of it, or is gone
        return ExitCode::SUCCESS;
    };
    match start(*launch) {
        Ok(held) => Guard::new(held, server).hold(),
        Err(failure) => {
            let _ = server.send(&Report::Failed(failure));
            ExitCode::from(BROKEN)
        }
    }
}

/// A server opens everything close-on-exec, yet one forgotten descriptor would hand an instance
/// its database or a listening socket.
fn close_inherited() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else {
        return;
    };
    let open = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let open: Vec<i32> = open.filter(|fd| *fd > 2).collect();
    for fd in open {
        // the descriptor of the listing itself is among them and closed already
        let _ = nix::unistd::close(fd);
    }
}

fn start(mut launch: Launch) -> Result<Held, Failure> {
    let supervision = launch.supervision.take();
    let mut supervised = supervision.map(Supervised::open).transpose()?;
    namespaces::enter_outer(&launch.confinement)?;
    set_child_subreaper(true).map_err(Failure::at("become the reaper of the instance"))?;
    let signals = Signals::new().map_err(Failure::at("listen to signals"))?;
    let (ours, theirs) = UnixStream::pair().map_err(Failure::at("open a socket"))?;
    let [stdout, stderr] = supervised
        .as_mut()
        .and_then(|all| all.ends.take())
        .unwrap_or_else(|| [Stdio::null(), Stdio::null()]);
    let child = Command::new("/proc/self/exe")
        .args(init_arguments())
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .map_err(Failure::at("start the instance's first process"))?;
    let init_pid = i32::try_from(child.id()).map_err(Failure::at("start the instance"))?;
    if let Some(all) = &supervised {
        // it waits for its orders: nothing of the instance is ever outside
        let entered = all.supervision.groups.enter(init_pid);
        entered.map_err(Failure::at("enter the control groups"))?;
    }
    let mut init = Channel::new(ours);
    init.send(&Order::Launch(Box::new(launch)))
        .map_err(Failure::at("describe the instance"))?;
    Ok(Held {
        init: Some(init),
        init_pid,
        signals,
        supervised,
    })
}

/// Our own arguments, with the stage replaced.
fn init_arguments() -> Vec<OsString> {
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    arguments.pop();
    arguments.push(INIT.into());
    arguments
}

/// What a guard has to do with beside its server.
struct Held {
    /// `None` once the init has closed its end.
    init: Option<Channel>,
    init_pid: i32,
    signals: Signals,
    /// `None` in a rehearsal.
    supervised: Option<Supervised>,
}

/// What makes an instance independent of its server.
struct Supervised {
    supervision: Supervision,
    /// `None` once the log is complete.
    capture: Option<Capture>,
    /// The program's ends of the log, until it has them.
    ends: Option<[Stdio; 2]>,
}

impl Supervised {
    fn open(supervision: Supervision) -> Result<Self, Failure> {
        let step = format!("open the log {}", supervision.log.display());
        // Its directory has its name.
        let instance = supervision.directory.file_name();
        let instance = instance.map(|name| name.to_string_lossy().into_owned());
        let opened = Capture::open(&supervision.log, instance);
        let (capture, ends) = opened.map_err(Failure::at(&step))?;
        Ok(Self {
            supervision,
            capture: Some(capture),
            ends: Some(ends.map(Stdio::from)),
        })
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.supervision.orphan_ms)
    }

    /// Whoever has removed the directory, with the whole server perhaps, wants nothing of it to run.
    fn is_wanted(&self) -> bool {
        record::file(&self.supervision.directory).exists()
    }
}

/// What there is to read.
#[expect(
    clippy::struct_excessive_bools,
    reason = "any of them may be, and each is asked by its name"
)]
struct Ready {
    server: bool,
    init: bool,
    listener: bool,
    output: bool,
}

struct Guard {
    held: Held,
    /// `None` while there is none.
    server: Option<Channel>,
    /// Where the next one comes in, while there is none.
    listener: Option<Listener>,
    /// Since when there is none.
    left: Option<Instant>,
    /// Whether a server has said that it wants nothing more of the instance.
    released: bool,
    /// Whether the program was asked to end because no server has come back.
    asked: bool,
    /// Its process id inside, once it runs.
    program: Option<i32>,
    /// How it ended, by the init.
    reported: Option<Report>,
    /// The same with its reason, once nothing of the instance is left.
    outcome: Option<Report>,
}

impl Guard {
    fn new(held: Held, server: Channel) -> Self {
        Self {
            held,
            server: Some(server),
            listener: None,
            left: None,
            released: false,
            asked: false,
            program: None,
            reported: None,
            outcome: None,
        }
    }

    fn hold(mut self) -> ExitCode {
        loop {
            let ready = self.wait();
            for signal in self.held.signals.take() {
                self.pass_order(&Order::Signal {
                    number: signal as i32,
                });
            }
            if ready.output
                && let Some(capture) = self.capture()
            {
                capture.take();
            }
            if ready.init {
                self.pass_reports();
            }
            if ready.server {
                self.obey();
            }
            if ready.listener {
                self.admit();
            }
            let (ended, _) = events::reap();
            let init = ended.into_iter().find(|status| self.is_init(status));
            if init.is_some() || self.released || !self.goes_on() {
                return self.end(init);
            }
        }
    }

    fn wait(&mut self) -> Ready {
        self.listen();
        let Held {
            init, supervised, ..
        } = &self.held;
        let capture = supervised.as_ref().and_then(|all| all.capture.as_ref());
        let server = self.server.as_ref().map(Source::from);
        let init = init.as_ref().map(Source::from);
        let listener = self.listener.as_ref().map(|open| Source::from(open.fd()));
        let there = [server.is_some(), init.is_some(), listener.is_some()];
        let mut sources: Vec<Source<'_>> = [server, init, listener].into_iter().flatten().collect();
        sources.extend(capture.iter().flat_map(|c| c.fds()).map(Source::from));
        let limit = self.left.map(|_| LOOK);
        let mut ready = self.held.signals.wait(&sources, limit).into_iter();
        let [server, init, listener] = there.map(|there| there && ready.next().unwrap_or(false));
        Ready {
            server,
            init,
            listener,
            output: ready.any(|ready| ready),
        }
    }

    /// Opens the listener while there is no server; one that cannot be opened, on a full disk for
    /// instance, is tried again at the next look.
    fn listen(&mut self) {
        if self.left.is_some()
            && self.listener.is_none()
            && let Some(all) = &self.held.supervised
        {
            self.listener = Listener::open(&all.supervision.directory).ok();
        }
    }

    fn is_init(&self, status: &WaitStatus) -> bool {
        status
            .pid()
            .is_some_and(|pid| pid.as_raw() == self.held.init_pid)
    }

    /// The log, until it is complete.
    fn capture(&mut self) -> Option<&mut Capture> {
        self.held.supervised.as_mut()?.capture.as_mut()
    }

    /// Takes the server's orders. Without a server the instance goes on for a time.
    fn obey(&mut self) {
        let received = self.server.as_mut().map(Channel::receive::<Order>);
        let Some(Ok(Some(orders))) = received else {
            self.server = None;
            self.left = Some(Instant::now());
            return;
        };
        for order in orders {
            match order {
                Order::Kill => self.released = true,
                Order::Signal { .. } | Order::Run(_) => self.pass_order(&order),
                Order::Launch(_) | Order::Unknown => {}
            }
        }
    }

    /// Lets the next server in, and nobody else for as long as it is there.
    fn admit(&mut self) {
        let socket = self.listener.as_ref().map(Listener::accept);
        let (Some(Ok(socket)), Some(pid)) = (socket, self.program) else {
            // it has gone again, or has come before there is something to take over
            return;
        };
        let mut server = Channel::new(socket);
        let told = server.send(&Report::Guarding {
            protocol: PROTOCOL,
            pid,
            ended: self.outcome.is_some(),
        });
        let told = told.and_then(|()| match &self.outcome {
            Some(outcome) => server.send(outcome),
            None => Ok(()),
        });
        if told.is_ok() {
            self.server = Some(server);
            self.listener = None;
            self.left = None;
        }
    }

    /// Whether the instance may go on, which it always may while there is a server. Without one it
    /// may for a time; then it is asked to end, and ended.
    fn goes_on(&mut self) -> bool {
        let Some(left) = self.left else { return true };
        if self.may_wait_since(left) {
            return true;
        }
        let all = self.held.supervised.as_ref();
        let Some(all) = all.filter(|all| all.is_wanted()) else {
            return false;
        };
        let (patience, number) = (all.patience(), all.supervision.stop_signal);
        if patience.is_zero() || self.program.is_none() {
            return false;
        }
        if !self.asked {
            self.asked = true;
            let seconds = patience.as_secs();
            if let Some(capture) = self.capture() {
                capture.note(&format!(
                    "no server came back within {seconds} s: the instance is ended"
                ));
            }
            self.pass_order(&Order::Signal { number });
        }
        left.elapsed() < patience + GRACE
    }

    /// Whether another server is waited for still. A program that was not started is nobody's.
    fn may_wait_since(&self, left: Instant) -> bool {
        let all = self.held.supervised.as_ref();
        self.program.is_some()
            && all.is_some_and(|all| left.elapsed() < all.patience() && all.is_wanted())
    }

    fn pass_order(&mut self, order: &Order) {
        if let Some(init) = &mut self.held.init {
            // an init that no longer listens is about to be reaped
            let _ = init.send(order);
        }
    }

    fn pass_reports(&mut self) {
        let received = self.held.init.as_mut().map(Channel::receive::<Report>);
        let Some(Ok(Some(reports))) = received else {
            self.held.init = None;
            return;
        };
        for report in reports {
            match &report {
                Report::Started { pid } => self.program = Some(*pid),
                Report::Note { text } => {
                    if let Some(capture) = self.capture() {
                        capture.note(text);
                    }
                }
                Report::Ran { .. } => {}
                // told when nothing of the instance is left
                _ => {
                    self.reported = Some(report);
                    continue;
                }
            }
            self.tell(&report);
        }
    }

    fn tell(&mut self, report: &Report) {
        if let Some(server) = &mut self.server {
            // one that is gone shows when it is read from
            let _ = server.send(report);
        }
    }

    /// Leaves nothing behind and says how it ended.
    fn end(mut self, init: Option<WaitStatus>) -> ExitCode {
        let by_us = init.is_none() && self.reported.is_none();
        sweep::kill_descendants();
        while self.held.init.is_some() {
            self.pass_reports();
        }
        let reported = self.reported.take();
        let reported = reported.unwrap_or_else(|| without_report(init));
        let used_up = self.used_up();
        if let Some(all) = &mut self.held.supervised {
            if let Some(capture) = all.capture.take() {
                let note =
                    used_up.map(|bytes| format!("it ran out of memory: limit {}", Bytes(bytes)));
                capture.finish(LOG_PATIENCE, note.as_deref());
            }
            all.supervision.groups.remove();
        }
        let outcome = with_reason(reported, used_up.filter(|_| !by_us));
        let code = exit_code(&outcome);
        self.tell(&outcome);
        self.outcome = Some(outcome);
        self.hand_over();
        code
    }

    /// The bound of the memory, where any process was ended for it.
    fn used_up(&self) -> Option<u64> {
        let supervision = &self.held.supervised.as_ref()?.supervision;
        supervision
            .memory
            .filter(|_| supervision.groups.out_of_memory() > 0)
    }

    /// Stays until a server has taken note of how it ended, which it says by its last order, or until none is
    /// waited for any more.
    fn hand_over(&mut self) {
        while !self.released
            && (self.server.is_some() || self.left.is_some_and(|left| self.may_wait_since(left)))
        {
            let ready = self.wait();
            self.held.signals.take();
            if ready.server {
                self.obey();
            }
            if ready.listener {
                self.admit();
            }
        }
    }
}

fn exit_code(outcome: &Report) -> ExitCode {
    match outcome {
        Report::Exited { code } => ExitCode::from(u8::try_from(*code).unwrap_or(BROKEN)),
        Report::Killed { signal, .. } => {
            ExitCode::from(u8::try_from(128 + signal).unwrap_or(BROKEN))
        }
        Report::Rehearsed => ExitCode::SUCCESS,
        _ => ExitCode::from(BROKEN),
    }
}

/// The init was killed, by us or by someone else, and its program with it.
fn without_report(init: Option<WaitStatus>) -> Report {
    match init {
        Some(WaitStatus::Exited(_, code)) => {
            Report::Failed(Failure::new("start the program", io_broken(code)))
        }
        Some(WaitStatus::Signaled(_, signal, _)) => killed(signal),
        _ => killed(Signal::SIGKILL),
    }
}

/// A program that ends otherwise has borne the end of one of its processes; the log tells of it.
fn with_reason(outcome: Report, used_up: Option<u64>) -> Report {
    match outcome {
        Report::Killed { signal, .. } if signal == Signal::SIGKILL as i32 => Report::Killed {
            signal,
            out_of_memory: used_up,
        },
        other => other,
    }
}

fn killed(signal: Signal) -> Report {
    Report::Killed {
        signal: signal as i32,
        out_of_memory: None,
    }
}

fn io_broken(code: i32) -> io::Error {
    io::Error::other(format!(
        "the instance's first process ended with code {code}"
    ))
}

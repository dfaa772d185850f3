//! The first stage: outside of the instance's namespaces. The server's child at first; it outlives
//! the server, and the next one comes in through its door.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;

use super::channel::Channel;
use super::door::Door;
use super::events::{self, Signals, Source};
use super::protocol::{Failure, Keeping, Launch, Order, PROTOCOL, Report};
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
        Ok(held) => Guard {
            held,
            server: Some(server),
            left: None,
            asked: false,
            program: None,
            outcome: None,
        }
        .hold(),
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
    let mut kept = launch.keeping.take().map(Kept::open).transpose()?;
    namespaces::enter_outer(&launch.confinement)?;
    set_child_subreaper(true).map_err(Failure::at("become the reaper of the instance"))?;
    let signals = Signals::new().map_err(Failure::at("listen to signals"))?;
    let (ours, theirs) = UnixStream::pair().map_err(Failure::at("open a socket"))?;
    let [stdout, stderr] = kept
        .as_mut()
        .and_then(|kept| kept.ends.take())
        .unwrap_or_else(|| [Stdio::null(), Stdio::null()]);
    let child = Command::new("/proc/self/exe")
        .args(init_arguments())
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .map_err(Failure::at("start the instance's first process"))?;
    let init_pid = i32::try_from(child.id()).map_err(Failure::at("start the instance"))?;
    if let Some(kept) = &kept {
        // it waits for its orders: nothing of the instance is ever outside
        let entered = kept.keeping.groups.enter(init_pid);
        entered.map_err(Failure::at("enter the control groups"))?;
    }
    let mut init = Channel::new(ours);
    init.send(&Order::Launch(Box::new(launch)))
        .map_err(Failure::at("describe the instance"))?;
    Ok(Held {
        init: Some(init),
        init_pid,
        signals,
        kept,
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
    kept: Option<Kept>,
}

/// What makes an instance independent of its server.
struct Kept {
    keeping: Keeping,
    door: Door,
    /// `None` once the log is complete.
    capture: Option<Capture>,
    /// The program's ends of the log, until it has them.
    ends: Option<[Stdio; 2]>,
}

impl Kept {
    fn open(keeping: Keeping) -> Result<Self, Failure> {
        let step = format!("open the log {}", keeping.log.display());
        let (capture, ends) = Capture::open(&keeping.log).map_err(Failure::at(&step))?;
        let door = Door::open(&keeping.directory).map_err(Failure::at("open the guard's door"))?;
        Ok(Self {
            keeping,
            door,
            capture: Some(capture),
            ends: Some(ends.map(Stdio::from)),
        })
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.keeping.orphan_ms)
    }

    /// Whoever has removed the directory, with the whole server perhaps, wants nothing of it to run.
    fn is_wanted(&self) -> bool {
        record::file(&self.keeping.directory).exists()
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
    door: bool,
    output: bool,
}

struct Guard {
    held: Held,
    /// `None` while there is none.
    server: Option<Channel>,
    /// Since when.
    left: Option<Instant>,
    /// Whether the program was asked to end because no server has come back.
    asked: bool,
    /// Its process id inside, once it runs.
    program: Option<i32>,
    /// How it ended, as told to the server.
    outcome: Option<Report>,
}

impl Guard {
    fn hold(mut self) -> ExitCode {
        loop {
            let ready = self.wait();
            for signal in self.held.signals.take() {
                self.pass_order(&Order::Signal {
                    number: signal as i32,
                });
            }
            if ready.output {
                self.take_output();
            }
            if ready.init {
                self.pass_reports();
            }
            if ready.server && !self.obey() {
                return self.end(None);
            }
            if ready.door {
                self.admit();
            }
            let (ended, _) = events::reap();
            let init = ended.into_iter().find(|status| self.is_init(status));
            if init.is_some() || !self.goes_on() {
                return self.end(init);
            }
        }
    }

    fn wait(&self) -> Ready {
        let Held { init, kept, .. } = &self.held;
        let capture = kept.as_ref().and_then(|kept| kept.capture.as_ref());
        let server = self.server.as_ref().map(Source::from);
        let init = init.as_ref().map(Source::from);
        let door = kept.as_ref().map(|kept| Source::from(kept.door.fd()));
        let there = [server.is_some(), init.is_some(), door.is_some()];
        let mut sources: Vec<Source<'_>> = [server, init, door].into_iter().flatten().collect();
        sources.extend(capture.iter().flat_map(|c| c.fds()).map(Source::from));
        let limit = self.left.map(|_| LOOK);
        let mut ready = self.held.signals.wait(&sources, limit).into_iter();
        let [server, init, door] = there.map(|there| there && ready.next().unwrap_or(false));
        Ready {
            server,
            init,
            door,
            output: ready.any(|ready| ready),
        }
    }

    fn is_init(&self, status: &WaitStatus) -> bool {
        status
            .pid()
            .is_some_and(|pid| pid.as_raw() == self.held.init_pid)
    }

    fn take_output(&mut self) {
        let capture = self.held.kept.as_mut().and_then(|k| k.capture.as_mut());
        if let Some(capture) = capture {
            capture.take();
        }
    }

    fn move_log(&mut self, path: &Path) {
        let capture = self.held.kept.as_mut().and_then(|k| k.capture.as_mut());
        if let Some(capture) = capture {
            capture.move_to(path);
        }
    }

    fn note(&mut self, text: &str) {
        let capture = self.held.kept.as_mut().and_then(|k| k.capture.as_mut());
        if let Some(capture) = capture {
            capture.note(text);
        }
    }

    /// Takes the server's orders; `false` when the instance has to end now. Without a server it goes
    /// on for a time.
    fn obey(&mut self) -> bool {
        let received = self.server.as_mut().map(Channel::receive::<Order>);
        let Some(Ok(Some(orders))) = received else {
            self.server = None;
            self.left = Some(Instant::now());
            return true;
        };
        for order in orders {
            match order {
                Order::Kill => return false,
                Order::Signal { .. } => self.pass_order(&order),
                Order::Log { path } => self.move_log(&path),
                Order::Launch(_) | Order::Unknown => {}
            }
        }
        true
    }

    /// Lets the next server in: the last to come is the one that there is.
    fn admit(&mut self) {
        let door = self.held.kept.as_ref().map(|kept| &kept.door);
        let (Some(Ok(socket)), Some(pid)) = (door.map(Door::admit), self.program) else {
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
        let Some(kept) = self.held.kept.as_ref().filter(|kept| kept.is_wanted()) else {
            return false;
        };
        let (patience, number) = (kept.patience(), kept.keeping.stop_signal);
        if patience.is_zero() || self.program.is_none() {
            return false;
        }
        if !self.asked {
            self.asked = true;
            let seconds = patience.as_secs();
            self.note(&format!(
                "no server came back within {seconds} s: the instance is ended"
            ));
            self.pass_order(&Order::Signal { number });
        }
        left.elapsed() < patience + GRACE
    }

    /// Whether another server is waited for still. A program that was not started is nobody's.
    fn may_wait_since(&self, left: Instant) -> bool {
        let kept = self.held.kept.as_ref();
        self.program.is_some()
            && kept.is_some_and(|kept| left.elapsed() < kept.patience() && kept.is_wanted())
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
                Report::Note { text } => self.note(text),
                // told when nothing of the instance is left
                _ => {
                    self.outcome = Some(report);
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
        sweep::kill_descendants();
        while self.held.init.is_some() {
            self.pass_reports();
        }
        let outcome = self.outcome.take().unwrap_or_else(|| without_report(init));
        let bound = self.used_up();
        let outcome = with_reason(outcome, bound);
        if let Some(kept) = &mut self.held.kept {
            if let Some(capture) = kept.capture.take() {
                let note =
                    bound.map(|bytes| format!("it ran out of memory: limit {}", Bytes(bytes)));
                capture.finish(LOG_PATIENCE, note.as_deref());
            }
            kept.keeping.groups.remove();
        }
        self.tell(&outcome);
        let code = exit_code(&outcome);
        self.outcome = Some(outcome);
        self.wait_for_heir();
        code
    }

    /// The bound of the memory, where any process was ended for it.
    fn used_up(&self) -> Option<u64> {
        let keeping = &self.held.kept.as_ref()?.keeping;
        keeping
            .memory
            .filter(|_| keeping.groups.out_of_memory() > 0)
    }

    /// Keeps how it ended for the next server, where there is none.
    fn wait_for_heir(&mut self) {
        while self.left.is_some_and(|left| self.may_wait_since(left)) {
            let ready = self.wait();
            self.held.signals.take();
            if ready.door {
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

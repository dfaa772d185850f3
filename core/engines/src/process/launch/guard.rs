//! The first stage: the server's child, outside of the instance's namespaces.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};

use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;

use super::channel::Channel;
use super::events::{self, Signals};
use super::protocol::{Failure, Launch, Order, Report};
use super::{BROKEN, INIT, namespaces, sweep};

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
        Ok((init, pid, signals)) => Guard {
            server,
            init: Some(init),
            init_pid: pid,
            signals,
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

fn start(launch: Launch) -> Result<(Channel, i32, Signals), Failure> {
    namespaces::enter_outer(&launch.confinement)?;
    set_child_subreaper(true).map_err(Failure::at("become the reaper of the instance"))?;
    let signals = Signals::new().map_err(Failure::at("listen to signals"))?;
    let (ours, theirs) = UnixStream::pair().map_err(Failure::at("open a socket"))?;
    let child = Command::new("/proc/self/exe")
        .args(init_arguments())
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .map_err(Failure::at("start the instance's first process"))?;
    let pid = i32::try_from(child.id()).map_err(Failure::at("start the instance"))?;
    let mut init = Channel::new(ours);
    init.send(&Order::Launch(Box::new(launch)))
        .map_err(Failure::at("describe the instance"))?;
    Ok((init, pid, signals))
}

/// Our own arguments, with the stage replaced.
fn init_arguments() -> Vec<OsString> {
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    arguments.pop();
    arguments.push(INIT.into());
    arguments
}

struct Guard {
    server: Channel,
    /// `None` once the init has closed its end.
    init: Option<Channel>,
    init_pid: i32,
    signals: Signals,
    /// How it ended, as told to the server.
    outcome: Option<Report>,
}

impl Guard {
    fn hold(mut self) -> ExitCode {
        loop {
            let (from_server, from_init) = self.wait();
            for signal in self.signals.take() {
                self.pass_order(&Order::Signal {
                    number: signal as i32,
                });
            }
            if from_init {
                self.pass_reports();
            }
            if from_server && !self.obey() {
                return self.end(None);
            }
            let (ended, _) = events::reap();
            let init = ended.into_iter().find(|status| self.is_init(status));
            if init.is_some() {
                return self.end(init);
            }
        }
    }

    fn wait(&self) -> (bool, bool) {
        let mut channels = vec![&self.server];
        channels.extend(&self.init);
        let ready = self.signals.wait(&channels);
        (ready[0], ready.get(1).copied().unwrap_or(false))
    }

    fn is_init(&self, status: &WaitStatus) -> bool {
        status
            .pid()
            .is_some_and(|pid| pid.as_raw() == self.init_pid)
    }

    /// Takes the server's orders; `false` when the instance has to end now, also because the
    /// server is gone.
    fn obey(&mut self) -> bool {
        let Ok(Some(orders)) = self.server.receive::<Order>() else {
            return false;
        };
        for order in orders {
            match order {
                Order::Kill => return false,
                Order::Signal { .. } => self.pass_order(&order),
                Order::Launch(_) => {}
            }
        }
        true
    }

    fn pass_order(&mut self, order: &Order) {
        if let Some(init) = &mut self.init {
            // an init that no longer listens is about to be reaped
            let _ = init.send(order);
        }
    }

    fn pass_reports(&mut self) {
        let received = self.init.as_mut().map(Channel::receive::<Report>);
        let Some(Ok(Some(reports))) = received else {
            self.init = None;
            return;
        };
        for report in reports {
            self.tell(report);
        }
    }

    fn tell(&mut self, report: Report) {
        // a server that is gone shows on the lifeline
        let _ = self.server.send(&report);
        if !matches!(report, Report::Started { .. } | Report::Note { .. }) {
            self.outcome = Some(report);
        }
    }

    /// Leaves nothing behind and says how it ended.
    fn end(mut self, init: Option<WaitStatus>) -> ExitCode {
        sweep::kill_descendants();
        while self.init.is_some() {
            self.pass_reports();
        }
        if self.outcome.is_none() {
            self.tell(without_report(init));
        }
        match self.outcome {
            Some(Report::Exited { code }) => ExitCode::from(u8::try_from(code).unwrap_or(BROKEN)),
            Some(Report::Killed { signal }) => {
                ExitCode::from(u8::try_from(128 + signal).unwrap_or(BROKEN))
            }
            Some(Report::Rehearsed) => ExitCode::SUCCESS,
            _ => ExitCode::from(BROKEN),
        }
    }
}

/// The init was killed, by us or by someone else, and its program with it.
fn without_report(init: Option<WaitStatus>) -> Report {
    match init {
        Some(WaitStatus::Exited(_, code)) => {
            Report::Failed(Failure::new("start the program", io_broken(code)))
        }
        Some(WaitStatus::Signaled(_, signal, _)) => Report::Killed {
            signal: signal as i32,
        },
        _ => Report::Killed {
            signal: Signal::SIGKILL as i32,
        },
    }
}

fn io_broken(code: i32) -> io::Error {
    io::Error::other(format!(
        "the instance's first process ended with code {code}"
    ))
}

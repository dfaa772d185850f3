//! The second stage: the first process of the instance.

use std::path::Path;
use std::process::ExitCode;

use nix::sys::prctl::{set_child_subreaper, set_dumpable, set_no_new_privs};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::WaitStatus;
use nix::unistd::{Pid, chdir, getppid, setsid};

use super::channel::Channel;
use super::commands::Commands;
use super::events::{self, Signals, Source};
use super::protocol::{Confinement, Failure, Launch, Order, Report};
use super::{BROKEN, capabilities, identity, mounts, namespaces, spawn, sweep};
use crate::process::proc::Process;
use crate::process::record::MARK;

pub(super) fn run() -> ExitCode {
    let Ok(mut guard) = Channel::stdin() else {
        return ExitCode::from(BROKEN);
    };
    let Ok(Some(Order::Launch(launch))) = guard.next::<Order>() else {
        return ExitCode::from(BROKEN);
    };
    match start(*launch, &mut guard) {
        Ok(Some(Started {
            program,
            signals,
            commands,
        })) => Init {
            guard,
            program,
            signals,
            commands,
        }
        .hold(),
        Ok(None) => last_word(&mut guard, &Report::Rehearsed),
        Err(failure) => last_word(&mut guard, &Report::Failed(failure)),
    }
}

fn last_word(guard: &mut Channel, report: &Report) -> ExitCode {
    // nobody to tell means that nobody is left to care
    let _ = guard.send(report);
    ExitCode::SUCCESS
}

struct Started {
    program: Pid,
    signals: Signals,
    commands: Commands,
}

fn start(launch: Launch, guard: &mut Channel) -> Result<Option<Started>, Failure> {
    setsid().map_err(Failure::at("open a session"))?;
    confine(&launch.confinement)?;
    let Some(mut program) = launch.program else {
        return Ok(None);
    };
    if matches!(launch.confinement, Confinement::Group { .. })
        && let Some(guard) = Process::find(getppid().as_raw())
    {
        let mark = (MARK.to_owned(), guard.mark());
        program.environment.extend([mark]);
    }
    let user = identity::find(&launch.confinement, &program)?;
    enter_directory(&program.directory)?;
    give_up_powers()?;
    if let Some(text) = identity::assume(&user, &launch.confinement, &program)? {
        guard
            .send(&Report::Note { text })
            .map_err(Failure::at("tell the guard"))?;
    }
    let signals = Signals::new().map_err(Failure::at("listen to signals"))?;
    let pid = spawn::prepare(&program, &user)?.spawn()?;
    guard
        .send(&Report::Started { pid: pid.as_raw() })
        .map_err(Failure::at("tell the guard"))?;
    Ok(Some(Started {
        program: pid,
        signals,
        commands: Commands::new(launch.confinement, program, user),
    }))
}

fn confine(confinement: &Confinement) -> Result<(), Failure> {
    match confinement {
        Confinement::Namespaces(inside) => {
            namespaces::enter_inner()?;
            mounts::enter_root(inside)
        }
        // what a pid namespace does by itself: orphans come to us, not to the machine's init
        Confinement::Group { .. } => {
            set_child_subreaper(true).map_err(Failure::at("become the reaper of the instance"))
        }
    }
}

fn enter_directory(directory: &Path) -> Result<(), Failure> {
    let step = format!("enter the working directory {}", directory.display());
    chdir(directory).map_err(Failure::at(&step))
}

/// For us and for all that comes from us: no core files (they hold secrets and fill disks), no
/// gain of rights by executing something, no capability that an instance has no use for.
fn give_up_powers() -> Result<(), Failure> {
    umask(Mode::from_bits_truncate(0o022));
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(Failure::at("forbid core files"))?;
    // process 1 runs a file of the machine: the program must not reach it through /proc/1/exe
    set_dumpable(false).map_err(Failure::at("hide the first process"))?;
    set_no_new_privs().map_err(Failure::at("forbid new privileges"))?;
    capabilities::limit()
}

struct Init {
    guard: Channel,
    program: Pid,
    signals: Signals,
    commands: Commands,
}

impl Init {
    fn hold(mut self) -> ExitCode {
        loop {
            let mut sources = vec![Source::from(&self.guard)];
            sources.extend(self.commands.fds().map(Source::from));
            let ready = self.signals.wait(&sources, self.commands.until_deadline());
            for signal in self.signals.take() {
                self.pass(signal);
            }
            if ready[0] && !self.obey() {
                // in a pid namespace our own end is theirs too; elsewhere this is what ends them
                sweep::kill_descendants();
                return ExitCode::from(BROKEN);
            }
            self.commands.take_output();
            let (ended, _) = events::reap();
            if let Some(report) = ended.iter().find_map(|status| self.outcome(status)) {
                sweep::kill_descendants();
                return last_word(&mut self.guard, &report);
            }
            let ended = ended
                .iter()
                .filter_map(|status| self.commands.ended(status));
            let mut over: Vec<Report> = ended.collect();
            over.extend(self.commands.end_late());
            for report in &over {
                self.tell(report);
            }
        }
    }

    fn tell(&mut self, report: &Report) {
        // a guard that is gone shows when it is read from
        let _ = self.guard.send(report);
    }

    /// `false` when the guard is gone.
    fn obey(&mut self) -> bool {
        let Ok(Some(orders)) = self.guard.receive::<Order>() else {
            return false;
        };
        for order in orders {
            match order {
                Order::Kill => return false,
                Order::Signal { number } => {
                    if let Ok(signal) = Signal::try_from(number) {
                        self.pass(signal);
                    }
                }
                Order::Run(command) => {
                    if let Some(report) = self.commands.start(*command) {
                        self.tell(&report);
                    }
                }
                Order::Launch(_) | Order::Unknown => {}
            }
        }
        true
    }

    fn pass(&self, signal: Signal) {
        // one that has just ended is reaped in this very round
        let _ = kill(self.program, signal);
    }

    fn outcome(&self, status: &WaitStatus) -> Option<Report> {
        match *status {
            WaitStatus::Exited(pid, code) if pid == self.program => Some(Report::Exited { code }),
            WaitStatus::Signaled(pid, signal, _) if pid == self.program => Some(Report::Killed {
                signal: signal as i32,
                out_of_memory: None,
            }),
            _ => None,
        }
    }
}

//! Commands that run beside the program for a while: checks of its health, for instance.
//!
//! The init runs them, so that they are where the program is, as who the program is. What a command
//! has started ends with it: its process group, what descends from it, and what has left both but has
//! the command's mark in its environment.

use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::{Pid, getpid};

use super::protocol::{Command, CommandEnd, Confinement, Failure, Program, Report, Search};
use super::spawn;
use crate::command::MARK;
use crate::process::outside::Outside;
use crate::process::proc;
use crate::process::user::User;

/// How many may run at once: whoever asks for more than that waits for none of them.
const MOST: usize = 16;
/// What is read at once: all that a pipe holds.
const CHUNK: usize = 64 << 10;
/// How much of what one writes is told.
const OUTPUT: usize = 4 << 10;
/// How long the kernel may take to end what is killed.
const PATIENCE: Duration = Duration::from_secs(2);

/// The commands of an instance.
pub(super) struct Commands {
    /// The instance's program, whose environment and directory they have.
    program: Program,
    user: User,
    /// Where they are found when there is no root directory of our own.
    outside: Option<(PathBuf, Search)>,
    running: Vec<Running>,
}

struct Running {
    id: u64,
    pid: Pid,
    deadline: Instant,
    output: Output,
}

impl Commands {
    /// Of an instance that runs `program`.
    pub(super) fn new(confinement: Confinement, program: Program, user: User) -> Self {
        let outside = match confinement {
            Confinement::Namespaces(_) => None,
            Confinement::Group { root, search } => Some((root, search)),
        };
        Self {
            program,
            user,
            outside,
            running: Vec::new(),
        }
    }

    /// What to wait for before [`Commands::take_output`] finds something.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let readers = self.running.iter().filter_map(|one| one.output.fd());
        readers.collect::<Vec<_>>().into_iter()
    }

    /// How long until the time of the next one is over.
    pub(super) fn until_deadline(&self) -> Option<Duration> {
        let next = self.running.iter().map(|one| one.deadline).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// Starts a command; what it comes to is told now when that fails.
    pub(super) fn start(&mut self, command: Command) -> Option<Report> {
        let id = command.id;
        match self.try_start(command) {
            Ok(running) => {
                self.running.push(running);
                None
            }
            Err(failure) => Some(Report::Ran {
                id,
                end: CommandEnd::Failed(failure),
                output: String::new(),
            }),
        }
    }

    fn try_start(&self, command: Command) -> Result<Running, Failure> {
        if self.running.len() >= MOST {
            let reason = format!("{MOST} commands run in it already");
            return Err(Failure::new("run a command", reason));
        }
        let Command {
            id,
            words,
            environment,
            limit_ms,
        } = command;
        let executable = self.outside.as_ref();
        let executable =
            executable.map(|(root, search)| Outside { root }.executable(&words, search));
        let mut all = self.program.environment.clone();
        all.extend(environment);
        all.insert(MARK.to_owned(), id.to_string());
        let program = Program {
            command: words,
            executable: executable.transpose()?,
            environment: all,
            directory: self.program.directory.clone(),
            user: self.program.user.clone(),
        };
        let mut prepared = spawn::prepare(&program, &self.user)?;
        let (output, writer) = Output::open().map_err(Failure::at("open a pipe"))?;
        let errors = writer.try_clone().map_err(Failure::at("open a pipe"))?;
        prepared.command.process_group(0);
        prepared.command.stdout(writer).stderr(errors);
        Ok(Running {
            id,
            pid: prepared.spawn()?,
            deadline: Instant::now() + Duration::from_millis(limit_ms),
            output,
        })
    }

    /// Takes what the commands have written. Does not wait for more.
    pub(super) fn take_output(&mut self) {
        for one in &mut self.running {
            one.output.take();
        }
    }

    /// Tells of a command whose process has ended, if it is one, once nothing is left of it.
    pub(super) fn ended(&mut self, status: &WaitStatus) -> Option<Report> {
        let position = self
            .running
            .iter()
            .position(|one| status.pid() == Some(one.pid))?;
        let end = match *status {
            WaitStatus::Exited(_, code) => CommandEnd::Exited { code },
            WaitStatus::Signaled(_, signal, _) => CommandEnd::Killed {
                signal: signal as i32,
            },
            _ => return None,
        };
        Some(self.running.swap_remove(position).finish(end))
    }

    /// Ends those whose time is over, and tells of them.
    pub(super) fn end_late(&mut self) -> Vec<Report> {
        let now = Instant::now();
        let (late, rest) = std::mem::take(&mut self.running)
            .into_iter()
            .partition(|one| one.deadline <= now);
        self.running = rest;
        let late: Vec<Running> = late;
        late.into_iter()
            .map(|one| one.finish(CommandEnd::TimedOut))
            .collect()
    }
}

impl Running {
    fn finish(mut self, end: CommandEnd) -> Report {
        self.kill();
        self.output.take();
        Report::Ran {
            id: self.id,
            end,
            output: self.output.text(),
        }
    }

    /// Kills until none is left: new ones may be born meanwhile, hence the rounds. What has ended is reaped
    /// with everything else.
    fn kill(&self) {
        let deadline = Instant::now() + PATIENCE;
        let mark = format!("{MARK}={}", self.id);
        loop {
            let left = proc::marked(getpid().as_raw(), self.pid.as_raw(), &mark);
            if left.is_empty() || Instant::now() > deadline {
                return;
            }
            for pid in left {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The end of what a command writes.
struct Output {
    /// `None` once nobody can write any more.
    reader: Option<PipeReader>,
    end: Vec<u8>,
}

impl Output {
    fn open() -> io::Result<(Self, io::PipeWriter)> {
        let (reader, writer) = io::pipe()?;
        // the end we read from alone
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let output = Self {
            reader: Some(reader),
            end: Vec::new(),
        };
        Ok((output, writer))
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.reader.as_ref().map(AsFd::as_fd)
    }

    /// Reads what is there, and no more than a pipe holds: a command that writes without end is not
    /// waited for.
    fn take(&mut self) {
        let mut buffer = vec![0; CHUNK];
        let Some(reader) = &mut self.reader else {
            return;
        };
        match reader.read(&mut buffer) {
            Ok(read) if read > 0 => {
                self.end.extend_from_slice(&buffer[..read]);
                let surplus = self.end.len().saturating_sub(OUTPUT);
                self.end.drain(..surplus);
            }
            Err(error) if is_for_now(&error) => {}
            Ok(_) | Err(_) => self.reader = None,
        }
    }

    /// Begins with a whole character where it was cut.
    fn text(&self) -> String {
        let start = self.end.iter().take(4);
        let start = start.take_while(|byte| **byte & 0b1100_0000 == 0b1000_0000);
        let start = start.count();
        String::from_utf8_lossy(&self.end[start..]).into_owned()
    }
}

fn is_for_now(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

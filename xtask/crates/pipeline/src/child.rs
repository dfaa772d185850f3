//! Running other programs: their output line by line as it comes, their end awaited, their death
//! arranged when the user wants out.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use deploy_config::credentials::TOKEN_VARIABLE;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::interrupt::Interrupts;

/// Variables that no other program gets.
pub(crate) const PRIVATE: [&str; 4] = [
    TOKEN_VARIABLE,
    crate::attest::key::VARIABLE,
    crate::docker_config::VARIABLE,
    crate::aramb::TOKEN_VARIABLE,
];
/// How long a group has to end by itself after it was asked to.
const GRACE: Duration = Duration::from_secs(3);
/// How long what a program has left behind may hold its outputs open.
const LINGER: Duration = Duration::from_millis(500);

/// A longer line is cut into several: some programs write without an end.
const LONGEST: u64 = 4 * 1024 * 1024;

/// A command that inherits none of them.
pub(crate) fn without_secrets(command: xshell::Cmd<'_>) -> xshell::Cmd<'_> {
    let names = PRIVATE.into_iter();
    names.fold(command, xshell::Cmd::env_remove)
}

/// A program, its arguments and where it runs. The arguments are public by nature: no secret may
/// be among them.
pub(crate) struct Program<'a> {
    pub(crate) name: &'a str,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) folder: &'a Path,
    pub(crate) environment: Vec<(&'static str, OsString)>,
    /// Written to standard input, which is closed afterwards. The place for a secret.
    pub(crate) input: Option<Vec<u8>>,
    /// It is ended when it takes longer.
    pub(crate) limit: Option<Duration>,
    /// It gets a process group of its own, and whatever it has started ends with it.
    pub(crate) is_group: bool,
}

impl<'a> Program<'a> {
    pub(crate) fn new(name: &'a str, folder: &'a Path) -> Self {
        Self {
            name,
            arguments: Vec::new(),
            folder,
            environment: Vec::new(),
            input: None,
            limit: None,
            is_group: false,
        }
    }

    /// It and all that it starts is asked to end when it has to, and made to a little later; what it leaves behind is ended.
    pub(crate) fn grouped(mut self) -> Self {
        self.is_group = true;
        self
    }

    pub(crate) fn arguments<I: IntoIterator<Item: Into<OsString>>>(mut self, more: I) -> Self {
        self.arguments.extend(more.into_iter().map(Into::into));
        self
    }

    pub(crate) fn variable(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    pub(crate) fn input(mut self, bytes: Vec<u8>) -> Self {
        self.input = Some(bytes);
        self
    }

    pub(crate) fn within(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// The command as a person would type it.
    pub(crate) fn shown(&self) -> String {
        let mut shown = self.name.to_owned();
        for argument in &self.arguments {
            shown.push(' ');
            shown.push_str(&argument.to_string_lossy());
        }
        shown
    }

    /// Runs the program to its end and hands over every line of both outputs.
    pub(crate) fn stream(
        self,
        interrupts: &Interrupts,
        on_output: impl FnMut(&str),
        on_error: impl FnMut(&str) + Send,
    ) -> io::Result<ExitStatus> {
        let take = |output| lines(output, on_output);
        let (status, ()) = self.read(interrupts, take, on_error)?;
        Ok(status)
    }

    /// Runs the program to its end while `take` reads what it puts out. What that leaves unread is
    /// lost, and the program ends when it writes more.
    pub(crate) fn read<T>(
        self,
        interrupts: &Interrupts,
        take: impl FnOnce(io::PipeReader) -> T,
        on_error: impl FnMut(&str) + Send,
    ) -> io::Result<(ExitStatus, T)> {
        let (output, output_end) = io::pipe()?;
        let (errors, errors_end) = io::pipe()?;
        let mut command = duct::cmd(self.name, self.arguments)
            .dir(self.folder)
            .stdout_file(output_end)
            .stderr_file(errors_end)
            .unchecked();
        command = match self.input {
            Some(bytes) => command.stdin_bytes(bytes),
            None => command.stdin_null(),
        };
        for (name, value) in self.environment {
            command = command.env(name, value);
        }
        for name in inherited_from_cargo() {
            command = command.env_remove(name);
        }
        // They are ours alone: a build script of any dependency could read them. What was set for
        // this very program above stays.
        for name in PRIVATE {
            command = command.env_remove(name);
        }
        if self.is_group {
            command = command.before_spawn(|command| {
                command.process_group(0);
                Ok(())
            });
        }
        let limit = self.limit.map(|limit| (limit, Instant::now() + limit));
        let handle = command.start()?;
        // The expression holds the writing ends of both pipes: while it lives they have no end.
        drop(command);
        let (ended, late) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let errors = scope.spawn(|| lines(errors, on_error));
            let watcher = scope.spawn(|| {
                let end = || {
                    let over = limit.is_some_and(|(_, end)| Instant::now() >= end);
                    late.store(over, Ordering::Release);
                    over || interrupts.any()
                };
                if self.is_group {
                    end_group(&handle, &ended, end);
                } else {
                    end_one(&handle, &ended, end);
                }
            });
            let taken = take(output);
            let status = handle.wait().map(|output| output.status);
            // What it has left behind may hold either output open.
            let _ = errors.join();
            ended.store(true, Ordering::Release);
            watcher.thread().unpark();
            match limit.filter(|_| late.load(Ordering::Acquire)) {
                Some((limit, _)) => Err(overdue(limit)),
                None => Ok((status?, taken)),
            }
        })
    }
}

/// Ends a program when it has to.
fn end_one(handle: &duct::Handle, ended: &AtomicBool, has_to_end: impl Fn() -> bool) {
    while !ended.load(Ordering::Acquire) {
        if has_to_end() {
            // Killing what has just ended is no error worth telling.
            let _ = handle.kill();
            return;
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

/// Ends a group when it has to, and what is left of it when its first process has ended.
fn end_group(handle: &duct::Handle, ended: &AtomicBool, has_to_end: impl Fn() -> bool) {
    let group = handle.pids().first().copied().unwrap_or_default();
    let Some(group) = i32::try_from(group).ok().filter(|group| *group > 1) else {
        return;
    };
    // A group without processes is no error worth telling.
    let signal = |signal| _ = killpg(Pid::from_raw(group), signal);
    let (mut asked, mut gone) = (None::<Instant>, None::<Instant>);
    while !ended.load(Ordering::Acquire) {
        if asked.is_none() && has_to_end() {
            signal(Signal::SIGTERM);
            asked = Some(Instant::now());
        }
        if gone.is_none() && matches!(handle.try_wait(), Ok(Some(_))) {
            gone = Some(Instant::now());
        }
        // The outputs are still open, so that somebody of the group is left and its number is nobody else's.
        let overdue = asked.is_some_and(|at| at.elapsed() >= GRACE);
        if overdue || gone.is_some_and(|at| at.elapsed() >= LINGER) {
            signal(Signal::SIGKILL);
            return;
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

fn overdue(limit: Duration) -> io::Error {
    let text = format!("it did not end within {} s", limit.as_secs());
    io::Error::new(io::ErrorKind::TimedOut, text)
}

fn lines(source: io::PipeReader, mut take: impl FnMut(&str)) {
    let mut source = BufReader::new(source);
    let mut line = Vec::new();
    loop {
        line.clear();
        match source.by_ref().take(LONGEST).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let text = String::from_utf8_lossy(&line);
                take(text.trim_end_matches(['\n', '\r']));
            }
        }
    }
}

/// `cargo xtask` runs us with the variables of *our* package. A nested cargo, and the build scripts
/// below it, would take them for their own; the rustup proxy would keep our toolchain in a project
/// that names another.
fn inherited_from_cargo() -> Vec<OsString> {
    if std::env::var_os("CARGO_MANIFEST_DIR").is_none() {
        return Vec::new();
    }
    let ours = |name: &str| {
        matches!(
            name,
            "CARGO"
                | "CARGO_CRATE_NAME"
                | "CARGO_PRIMARY_PACKAGE"
                | "RUSTUP_TOOLCHAIN"
                | "LD_LIBRARY_PATH"
                | "OUT_DIR"
                | "CARGO_MAKEFLAGS"
        ) || name.starts_with("CARGO_MANIFEST_")
            || name.starts_with("CARGO_PKG_")
            || name.starts_with("CARGO_BIN_")
    };
    std::env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| name.to_str().is_some_and(ours))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program<'_> {
        Program::new("sh", Path::new("/")).arguments(["-c", script])
    }

    #[test]
    fn both_outputs_arrive_whole_and_the_status_is_the_programs() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let status = shell("echo a; echo b >&2; cat; exit 3")
            .input(b"from input".to_vec())
            .stream(
                &Interrupts::default(),
                |line| out.push(line.to_owned()),
                |line| err.push(line.to_owned()),
            )
            .unwrap();
        assert_eq!(status.code(), Some(3));
        assert_eq!(
            (out, err),
            (vec!["a".into(), "from input".into()], vec!["b".to_owned()])
        );
    }

    #[test]
    fn a_line_without_an_end_is_cut() {
        let mut lengths = Vec::new();
        shell("head -c 9000000 /dev/zero; echo; echo end")
            .stream(
                &Interrupts::default(),
                |line| lengths.push(line.len()),
                |_| {},
            )
            .unwrap();
        let longest = usize::try_from(LONGEST).unwrap();
        assert_eq!(lengths, [longest, longest, 9_000_000 - 2 * longest, 3]);
    }

    #[test]
    fn what_is_set_for_a_program_reaches_it() {
        let mut said = Vec::new();
        shell("echo \"$DOCKER_AUTH_CONFIG\"")
            .variable(crate::docker_config::VARIABLE, "{}")
            .stream(
                &Interrupts::default(),
                |line| said.push(line.to_owned()),
                |_| {},
            )
            .unwrap();
        assert_eq!(said, ["{}"]);
    }

    #[test]
    fn a_program_that_takes_too_long_is_ended() {
        let error = shell("echo a; exec sleep 600")
            .within(Duration::from_millis(200))
            .stream(&Interrupts::default(), |_| {}, |_| {})
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn what_a_group_leaves_behind_holds_nothing_up() {
        let begun = Instant::now();
        let status = shell("sleep 600 & sleep 600 >&2 & exit 0")
            .grouped()
            .stream(&Interrupts::default(), |_| {}, |_| {})
            .unwrap();
        assert!(status.success());
        assert!(begun.elapsed() < Duration::from_mins(1));
    }

    #[test]
    fn a_group_is_asked_before_it_is_made_to_end() {
        let mut said = Vec::new();
        let error = shell("trap 'echo asked; exit 1' TERM; sleep 600 & wait")
            .grouped()
            .within(Duration::from_secs(3))
            .stream(
                &Interrupts::default(),
                |line| said.push(line.to_owned()),
                |_| {},
            )
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(said, ["asked"]);
    }

    #[test]
    fn output_that_nobody_reads_holds_nothing_up() {
        let first = |output: io::PipeReader| {
            let mut bytes = [0; 2];
            io::Read::read_exact(&mut { output }, &mut bytes).map(|()| bytes)
        };
        let (status, read) = shell("exec yes")
            .read(&Interrupts::default(), first, |_| {})
            .unwrap();
        assert_eq!(&read.unwrap(), b"y\n");
        assert!(!status.success());
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let error = Program::new("no-such-program-here", Path::new("/"))
            .stream(&Interrupts::default(), |_| {}, |_| {})
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}

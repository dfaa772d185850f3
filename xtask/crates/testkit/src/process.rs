//! Child processes of a test: bounded in time, captured, ended and reaped.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

/// How often a child's end is looked for.
const POLL: Duration = Duration::from_millis(5);
/// What a child may take to end after a polite request.
const GRACE: Duration = Duration::from_secs(10);

/// A child process that has ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The command line, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

#[expect(
    clippy::must_use_candidate,
    reason = "an assertion is complete by itself; it returns the child only for the next one"
)]
impl Finished {
    /// Its exit code; 128 plus the number when a signal ended it, as a shell reports it.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .or_else(|| self.status.signal().map(|signal| 128 + signal))
            .unwrap_or(-1)
    }

    /// Panics with everything the child said unless it ended with `code`.
    #[track_caller]
    pub fn expect_code(&self, code: i32) -> &Self {
        assert_eq!(self.code(), code, "unexpected exit code of {self}");
        self
    }

    /// Panics with everything the child said unless it succeeded.
    #[track_caller]
    pub fn expect_success(&self) -> &Self {
        self.expect_code(0)
    }

    /// Panics unless standard error holds the text.
    #[track_caller]
    pub fn expect_stderr(&self, text: &str) -> &Self {
        assert!(
            self.stderr.contains(text),
            "no {text:?} in standard error of {self}"
        );
        self
    }

    /// Standard output as one JSON document.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("standard output is not one document ({error}): {self}"))
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` ({}, {:.1?})\n--- stdout ---\n{}\n--- stderr ---\n{}",
            self.command, self.status, self.took, self.stdout, self.stderr
        )
    }
}

/// A child process that still runs, in a process group of its own; the group is killed when this
/// is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    command: String,
    stdout: File,
    stderr: File,
    started: Instant,
}

impl Running {
    /// Starts a command. Its output goes to files: a pipe would stay open, and a reader blocked, as
    /// long as any grandchild lives.
    pub fn start(command: &mut Command) -> Self {
        let stdout = tempfile::tempfile().expect("a temporary file");
        let stderr = tempfile::tempfile().expect("a temporary file");
        command
            .stdin(Stdio::null())
            .stdout(stdout.try_clone().expect("clone a file handle"))
            .stderr(stderr.try_clone().expect("clone a file handle"))
            .process_group(0);
        let text = describe(command);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start `{text}`: {error}"));
        Self {
            child,
            command: text,
            stdout,
            stderr,
            started: Instant::now(),
        }
    }

    /// Its process id, which is also that of its group.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the process alone.
    pub fn signal(&self, signal: Signal) {
        signal::kill(pid(&self.child), signal).expect("signal a child");
    }

    /// Sends a signal to the whole group, as a terminal does with Ctrl-C.
    pub fn signal_group(&self, signal: Signal) {
        signal::killpg(pid(&self.child), signal).expect("signal a group");
    }

    /// What it has written to standard error so far.
    #[must_use]
    pub fn stderr_so_far(&self) -> String {
        contents(&self.stderr)
    }

    /// Waits for its end, at most for `limit`; then the group is killed and the test fails.
    #[must_use]
    pub fn wait(mut self, limit: Duration) -> Finished {
        let status = self.poll(limit);
        let finished = |status| Finished {
            command: self.command.clone(),
            status,
            stdout: contents(&self.stdout),
            stderr: contents(&self.stderr),
            took: self.started.elapsed(),
        };
        let Some(status) = status else {
            kill_group(&self.child);
            let status = self.child.wait().expect("reap a child");
            panic!("not over after {limit:?}: {}", finished(status));
        };
        finished(status)
    }

    fn poll(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("wait for a child") {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            kill_group(&self.child);
            let _ = self.child.wait();
        }
    }
}

/// Runs a command to its end, at most for `limit`.
pub fn run(command: &mut Command, limit: Duration) -> Finished {
    Running::start(command).wait(limit)
}

/// A server of a test: ended politely, then firmly, and reaped when dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
}

impl Daemon {
    /// Starts it with its output in a file, bound to the life of the calling thread, so that a
    /// test that is killed leaves nothing behind.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Self {
        let log = File::create(log).expect("create a log file");
        let mut command = die_with_this_thread(command);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("clone a file handle"))
            .stderr(log)
            .process_group(0);
        let text = describe(&command);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start `{text}`: {error}"));
        Self { child }
    }

    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("wait for a child")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = signal::kill(pid(&self.child), Signal::SIGTERM);
        let ended = eventually(GRACE, || !matches!(self.child.try_wait(), Ok(None)));
        if !ended {
            kill_group(&self.child);
        }
        let _ = self.child.wait();
    }
}

/// Polls a condition until it holds or the time is over; whether it held.
pub fn eventually(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(POLL);
    }
}

/// A port that is free, of a range that nobody else chooses from: neither the system for connections, nor a platform for instances.
#[must_use]
pub fn free_port() -> u16 {
    // Tests that run side by side begin at different ones.
    let own = std::process::id() % 1000;
    (0..1000)
        .filter_map(|turn| u16::try_from(2000 + (own + turn) % 1000).ok())
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("a port is free")
}

/// Finds a program in the folders of `PATH` and those that hold system administration.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Finds a program or fails the test with what to do.
#[must_use]
pub fn need_program(name: &str) -> PathBuf {
    find_program(name)
        .unwrap_or_else(|| panic!("{name} is missing: run `cargo xtask test --setup`"))
}

/// `setpriv` (util-linux) asks the kernel to kill the child with its parent; where it is missing
/// the child is still ended by `Drop`.
fn die_with_this_thread(command: &mut Command) -> Command {
    let Some(setpriv) = find_program("setpriv") else {
        return std::mem::replace(command, Command::new("true"));
    };
    let mut wrapped = Command::new(setpriv);
    wrapped
        .args(["--pdeathsig", "KILL"])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        wrapped.current_dir(folder);
    }
    wrapped
}

pub(crate) fn kill_group(child: &Child) {
    let _ = signal::killpg(pid(child), Signal::SIGKILL);
}

pub(crate) fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("process ids are small"))
}

fn contents(file: &File) -> String {
    let mut file = file.try_clone().expect("clone a file handle");
    let mut bytes = Vec::new();
    // The child writes at the shared offset, which reading moves: it is put back to the end.
    file.rewind().expect("rewind a file");
    file.read_to_end(&mut bytes).expect("read captured output");
    String::from_utf8_lossy(&bytes).into_owned()
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_and_code_are_kept() {
        let finished = run(&mut shell("echo out; echo err >&2; exit 3"), GRACE);
        assert_eq!(finished.code(), 3);
        assert_eq!(
            (finished.stdout.as_str(), finished.stderr.as_str()),
            ("out\n", "err\n")
        );
    }

    #[test]
    fn a_grandchild_that_keeps_the_output_open_does_not_hold_the_test() {
        let finished = run(&mut shell("sleep 300 & echo $!"), GRACE);
        let grandchild: i32 = finished.stdout.trim().parse().unwrap();
        signal::kill(Pid::from_raw(grandchild), Signal::SIGKILL).unwrap();
        assert!(finished.took < GRACE);
    }

    #[test]
    #[should_panic(expected = "not over after")]
    fn what_takes_too_long_is_killed() {
        let _ = run(&mut shell("sleep 300"), Duration::from_millis(50));
    }

    #[test]
    fn a_signal_has_the_code_of_a_shell() {
        let running = Running::start(&mut shell("kill -KILL $$"));
        assert_eq!(running.wait(GRACE).code(), 137);
    }

    #[test]
    fn a_daemon_ends_with_its_handle() {
        let folder = tempfile::tempdir().unwrap();
        let daemon = Daemon::start(&mut shell("exec sleep 300"), &folder.path().join("log"));
        let id = pid(&daemon.child);
        drop(daemon);
        assert!(signal::kill(id, None).is_err());
    }
}

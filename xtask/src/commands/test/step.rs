//! The steps of a test run: one command each, bounded in time, ended on Ctrl-C.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use deploy_pipeline::interrupt::Interrupts;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

/// How often a command's end is looked for.
const POLL: Duration = Duration::from_millis(20);
/// What a command may take to end after Ctrl-C.
const GRACE: Duration = Duration::from_secs(30);

/// What all steps have in common.
pub(super) struct Run<'a> {
    pub(super) root: &'a Path,
    pub(super) interrupts: &'a Interrupts,
    pub(super) variables: Vec<(String, OsString)>,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    Passed,
    Failed(String),
    /// Ctrl-C came before or during it.
    Interrupted,
}

impl Run<'_> {
    /// Runs cargo with what it says on the terminal.
    pub(super) fn cargo(&self, arguments: &[&str], limit: Duration) -> Ending {
        // The cargo that runs this program, with its tool chain.
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = self.command(&cargo);
        command.args(arguments);
        forget_cargo(&mut command);
        self.finish(command, limit)
    }

    /// A command in the project with the variables of this run.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.root)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end, at most for `limit`.
    pub(super) fn finish(&self, mut command: Command, limit: Duration) -> Ending {
        if self.interrupts.any() {
            return Ending::Interrupted;
        }
        let name = command.get_program().to_string_lossy().into_owned();
        // A group of its own, so that Ctrl-C reaches it once, from here, whoever was told.
        let mut child = match command.process_group(0).spawn() {
            Ok(child) => child,
            Err(error) => return Ending::Failed(format!("cannot start {name}: {error}")),
        };
        let deadline = Instant::now() + limit;
        loop {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => return Ending::Passed,
                Ok(Some(_)) if self.interrupts.any() => return Ending::Interrupted,
                Ok(Some(status)) => return Ending::Failed(status.to_string()),
                Err(error) => return Ending::Failed(format!("cannot wait for {name}: {error}")),
                Ok(None) => {}
            }
            if self.interrupts.any() {
                end(&mut child);
                return Ending::Interrupted;
            }
            if Instant::now() >= deadline {
                end(&mut child);
                return Ending::Failed(format!("not over after {limit:?}"));
            }
            thread::sleep(POLL);
        }
    }
}

/// `cargo run` tells this program about itself; builds of other packages must not hear of it, or
/// they would be compiled again.
fn forget_cargo(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_")
            || text == "CARGO_MANIFEST_DIR"
            || text == "CARGO_MANIFEST_PATH"
        {
            command.env_remove(&name);
        }
    }
    command.env_remove("LD_LIBRARY_PATH");
}

/// Asks a command to end and makes it, after a while.
fn end(child: &mut Child) {
    let Ok(id) = i32::try_from(child.id()) else {
        return;
    };
    let group = Pid::from_raw(id);
    let _ = signal::killpg(group, Signal::SIGINT);
    let deadline = Instant::now() + GRACE;
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
        thread::sleep(POLL);
    }
    let _ = signal::killpg(group, Signal::SIGKILL);
    let _ = child.wait();
}

/// How all steps ended.
#[derive(Debug, Default)]
pub(super) struct Summary {
    endings: Vec<(String, Ending)>,
}

impl Summary {
    pub(super) fn add(&mut self, name: &str, ending: Ending) {
        self.endings.push((name.to_owned(), ending));
    }

    pub(super) fn failed(&mut self, name: &str, why: String) {
        self.add(name, Ending::Failed(why));
    }

    pub(super) fn is_good(&self) -> bool {
        self.endings
            .iter()
            .all(|(_, ending)| *ending == Ending::Passed)
    }

    /// A line a step.
    pub(super) fn text(&self) -> String {
        let mut text = String::from("\n");
        for (name, ending) in &self.endings {
            let _ = match ending {
                Ending::Passed => writeln!(text, "passed       {name}"),
                Ending::Interrupted => writeln!(text, "interrupted  {name}"),
                Ending::Failed(why) => writeln!(text, "failed       {name}: {why}"),
            };
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(script: &str, limit: Duration, expected: &Ending) {
        let interrupts = Interrupts::default();
        let run = Run {
            root: Path::new("/"),
            interrupts: &interrupts,
            variables: vec![("WORD".to_owned(), "yes".into())],
        };
        let mut command = run.command("sh");
        command.args(["-c", script]);
        assert_eq!(run.finish(command, limit), *expected, "{script}");
    }

    #[test]
    fn endings() {
        check("test $WORD = yes", GRACE, &Ending::Passed);
        check(
            "exit 3",
            GRACE,
            &Ending::Failed("exit status: 3".to_owned()),
        );
        check(
            "exec sleep 300",
            Duration::from_millis(1),
            &Ending::Failed("not over after 1ms".to_owned()),
        );
    }

    #[test]
    fn an_interrupt_ends_a_command_and_all_that_follow() {
        let interrupts = Interrupts::catch().unwrap();
        let run = Run {
            root: Path::new("/"),
            interrupts: &interrupts,
            variables: Vec::new(),
        };
        let mut command = run.command("sh");
        command.args(["-c", "trap 'exit 1' INT; kill -INT $PPID; sleep 300 & wait"]);
        assert_eq!(run.finish(command, GRACE), Ending::Interrupted);
        assert_eq!(run.finish(run.command("true"), GRACE), Ending::Interrupted);
    }

    #[test]
    fn a_summary_has_a_line_for_each_step() {
        let mut summary = Summary::default();
        summary.add("tests", Ending::Passed);
        assert!(summary.is_good());
        summary.failed("workflows", "exit status: 1".to_owned());
        assert!(!summary.is_good());
        assert_eq!(
            summary.text(),
            "\npassed       tests\nfailed       workflows: exit status: 1\n"
        );
    }
}

//! Commands beside the program of a container, by `exec`.

use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use futures_util::StreamExt as _;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::errors::{failed, reason};
use super::instance::exit_by_code;
use crate::command::{Command, CommandOutcome, MARK, number};
use crate::error::EngineError;
use crate::process::proc;

/// The end of what a command wrote that is kept.
const OUTPUT: usize = 4 << 10;
/// How long what was killed may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at that.
const LOOK: Duration = Duration::from_millis(50);
const KILL_PAUSE: Duration = Duration::from_millis(2);

/// Runs a command in a container, whose first process the machine knows as `init`, and waits until nothing of it is left.
pub(super) async fn run(
    docker: &Docker,
    (container, init): (&str, u32),
    command: Command,
) -> Result<CommandOutcome, EngineError> {
    let Command {
        words,
        mut env,
        limit,
    } = command;
    let program = words.first().cloned().unwrap_or_default();
    let number = number().to_string();
    let mark = format!("{MARK}={number}");
    env.insert(MARK.to_owned(), number);
    let env = env
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"));
    let options = CreateExecOptions {
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        env: Some(env.collect()),
        cmd: Some(words),
        ..CreateExecOptions::default()
    };
    let made = docker.create_exec(container, options).await;
    let id = made.map_err(failed("make a command"))?.id;
    let mut output = Vec::new();
    let ended = timeout(limit, attend(docker, &id, &mut output)).await;
    if let Ok(Err(error)) = ended {
        let said = reason(&error);
        return Err(explain(program, said));
    }
    let seen = docker.inspect_exec(&id).await;
    let seen = seen.map_err(failed("look at a command"))?;
    let begun = Begun {
        container: container.to_owned(),
        init: i32::try_from(init).unwrap_or_default(),
        pid: seen
            .pid
            .and_then(|pid| i32::try_from(pid).ok())
            .unwrap_or_default(),
        mark,
    };
    // What it has left may hold on to its output after its end.
    let exit = if seen.running == Some(true) {
        begun.end().await;
        is_over(docker, &id).await?;
        None
    } else {
        let code = seen.exit_code.unwrap_or_default();
        let said = String::from_utf8_lossy(&output);
        if code >= 126 && said.starts_with("OCI runtime exec failed") {
            return Err(explain(program, said.into_owned()));
        }
        begun.end().await;
        Some(exit_by_code(code))
    };
    Ok(CommandOutcome {
        exit,
        output: String::from_utf8_lossy(&output).into_owned(),
    })
}

/// Takes what it writes, until it has ended.
async fn attend(
    docker: &Docker,
    id: &str,
    output: &mut Vec<u8>,
) -> Result<(), bollard::errors::Error> {
    let options = None::<StartExecOptions>;
    let StartExecResults::Attached {
        output: mut pieces, ..
    } = docker.start_exec(id, options).await?
    else {
        return Ok(());
    };
    while let Some(piece) = pieces.next().await {
        output.extend_from_slice(piece?.as_ref());
        let surplus = output.len().saturating_sub(OUTPUT);
        output.drain(..surplus);
    }
    Ok(())
}

/// A command that was begun, and how its processes are known again.
struct Begun {
    container: String,
    /// The first process of the container, to which those come whose parents have ended.
    init: i32,
    /// The command's own process, which has a session and a group of its own; 0 if it was never there.
    pid: i32,
    /// What it and all that it starts have in the environment.
    mark: String,
}

impl Begun {
    /// Docker cannot end what it runs so: that is done past it, by the numbers that the machine has for the processes. One that
    /// may not be ended, because this server is not root, stays until its container ends.
    async fn end(self) {
        let container = self.container.clone();
        let all = spawn_blocking(move || self.kill()).await;
        if !all.unwrap_or(true) {
            tracing::warn!(
                container,
                "what a command has left runs on: a server that is not root cannot end it"
            );
        }
    }

    /// Kills until none is left: new ones may be born meanwhile, hence the rounds. `false` when one stays.
    fn kill(&self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = self.left();
            if left.is_empty() {
                return true;
            }
            for pid in left {
                if kill(Pid::from_raw(pid), Signal::SIGKILL) == Err(Errno::EPERM) {
                    return false;
                }
            }
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(KILL_PAUSE);
        }
    }

    /// Numbers are used again, and a server that is not on the machine of the containers sees other processes under them.
    fn left(&self) -> Vec<i32> {
        let mut all = proc::marked(self.init, self.pid, &self.mark);
        if self.pid > 0 && proc::Process::find(self.pid).is_some_and(|own| own.is_alive()) {
            all.push(self.pid);
            all.extend(proc::descendants(self.pid));
        }
        all.retain(|pid| proc::is_in_group(*pid, &self.container));
        all
    }
}

/// Waits until Docker knows of the end of a command that was ended.
async fn is_over(docker: &Docker, id: &str) -> Result<(), EngineError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match docker.inspect_exec(id).await {
            Ok(seen) if seen.running == Some(true) && Instant::now() < deadline => {
                tokio::time::sleep(LOOK).await;
            }
            Ok(seen) if seen.running == Some(true) => {
                return Err(EngineError::Docker {
                    action: "end a command that takes too long",
                    reason: "it runs on; a server that is not root cannot end it".to_owned(),
                });
            }
            // The container may be gone, and the command with it.
            Ok(_) | Err(_) => return Ok(()),
        }
    }
}

/// Docker tells in words why a command cannot be run.
fn explain(program: String, said: String) -> EngineError {
    if said.contains("not found") || said.contains("no such file") {
        return EngineError::ProgramNotFound { program };
    }
    if said.contains("exec format error") {
        return EngineError::ExecFormat { program };
    }
    EngineError::Docker {
        action: "run a command",
        reason: said,
    }
}

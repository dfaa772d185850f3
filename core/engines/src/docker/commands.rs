//! Commands beside the program of a container, by `exec`.

use std::time::Duration;

use bollard::Docker;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::models::ExecInspectResponse;
use futures_util::StreamExt as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, timeout};

use super::errors::{failed, reason};
use super::instance::exit_by_code;
use crate::command::{Command, CommandOutcome};
use crate::error::EngineError;
use crate::process::proc;

/// The end of what a command wrote that is kept.
const OUTPUT: usize = 4 << 10;
/// How long what was killed may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at that.
const LOOK: Duration = Duration::from_millis(50);

/// Runs a command in a container and waits until nothing of it is left.
pub(super) async fn run(
    docker: &Docker,
    container: &str,
    command: Command,
) -> Result<CommandOutcome, EngineError> {
    let Command { words, env, limit } = command;
    let program = words.first().cloned().unwrap_or_default();
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
    let exit = if ended.is_ok() && seen.running != Some(true) {
        let code = seen.exit_code.unwrap_or_default();
        let said = String::from_utf8_lossy(&output);
        if code >= 126 && said.starts_with("OCI runtime exec failed") {
            return Err(explain(program, said.into_owned()));
        }
        Some(exit_by_code(code))
    } else {
        end(docker, container, &id, &seen).await?;
        None
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

/// Docker cannot end what it runs so: that is done past it, by the numbers that the machine has for the processes.
async fn end(
    docker: &Docker,
    container: &str,
    id: &str,
    seen: &ExecInspectResponse,
) -> Result<(), EngineError> {
    let pid = seen.pid.and_then(|pid| i32::try_from(pid).ok());
    let pid = pid.filter(|pid| *pid > 0 && proc::is_in_group(*pid, container));
    if let Some(pid) = pid {
        for process in [pid].into_iter().chain(proc::descendants(pid)) {
            // One that has ended meanwhile is as wanted; one that may not be ended shows below.
            let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
        }
    }
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

//! What guards are told of commands, and what they tell.

use super::launch::protocol::{self, CommandEnd};
use super::plan;
use crate::command::{Command, CommandOutcome};
use crate::error::EngineError;
use crate::instance::Exit;

/// The order to run a command.
pub(crate) fn order(command: &Command, id: u64) -> protocol::Command {
    protocol::Command {
        id,
        words: command.words.clone(),
        environment: command.env.clone(),
        limit_ms: u64::try_from(command.limit.as_millis()).unwrap_or(u64::MAX),
    }
}

/// As the guard tells it.
pub(crate) struct Ran {
    pub(crate) end: CommandEnd,
    pub(crate) output: String,
}

impl Ran {
    /// In the instance `id`, of the command `words`.
    pub(crate) fn outcome(self, id: &str, words: &[String]) -> Result<CommandOutcome, EngineError> {
        let exit = match self.end {
            CommandEnd::Exited { code } => Some(Exit::Code(code)),
            CommandEnd::Killed { signal } => Some(Exit::Signal(signal)),
            CommandEnd::TimedOut => None,
            CommandEnd::Failed(failure) => {
                let program = words.first().map_or("", String::as_str);
                return Err(plan::explain(id, program, &failure));
            }
        };
        let output = self.output;
        Ok(CommandOutcome { exit, output })
    }
}

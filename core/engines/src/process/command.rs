//! Commands that are run beside the program of an instance.

use std::collections::BTreeMap;
use std::time::Duration;

use super::error::EngineError;
use super::instance::Exit;
use super::launch::protocol::{self, CommandEnd};
use super::plan;

/// A command to run inside an instance: as the same user, with the same files, in the same environment, within
/// the same bounds.
#[derive(Clone)]
pub struct Command {
    /// The program and its arguments; neither the image's entrypoint nor a shell.
    pub words: Vec<String>,
    /// Added to the environment of the instance's program; values are secrets as far as the engine knows.
    pub env: BTreeMap<String, String>,
    /// When it is ended, with all that it has started.
    pub limit: Duration,
}

impl Command {
    /// Without an environment of its own.
    #[must_use]
    pub fn new(words: Vec<String>, limit: Duration) -> Self {
        Self {
            words,
            env: BTreeMap::new(),
            limit,
        }
    }

    pub(crate) fn order(&self, id: u64) -> protocol::Command {
        protocol::Command {
            id,
            words: self.words.clone(),
            environment: self.env.clone(),
            limit_ms: u64::try_from(self.limit.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// What came of a command. Nothing of it runs any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandOutcome {
    /// How it ended; `None` when it took longer than it may and was ended.
    pub exit: Option<Exit>,
    /// The end of what it wrote to standard output and standard error, at most 4 KiB.
    pub output: String,
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

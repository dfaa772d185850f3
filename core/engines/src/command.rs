//! Commands that are run beside the program of an instance.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::instance::Exit;

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
}

/// What came of a command. Nothing of it runs any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandOutcome {
    /// How it ended; `None` when it took longer than it may and was ended.
    pub exit: Option<Exit>,
    /// The end of what it wrote to standard output and standard error, at most 4 KiB.
    pub output: String,
}

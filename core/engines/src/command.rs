//! Commands that are run beside the program of an instance.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::instance::Exit;

/// What all that a command starts has in its environment, with the command's number.
pub(crate) const MARK: &str = "SYSTEMPROMPT_COMMAND";

/// The number of a new command. They begin with the time: those of an earlier server are other ones.
pub(crate) fn number() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let now = u64::try_from(now.as_nanos()).unwrap_or_default();
    let next = |last: u64| Some(now.max(last + 1));
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    last.map_or(now, |last| now.max(last + 1))
}

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

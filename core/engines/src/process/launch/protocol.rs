//! What server and launcher say to each other: lines of JSON over a socket that is the launcher's
//! standard input, later over one that the guard listens on while it has no server.
//!
//! The socket is three things at once. It carries the description of the instance, so that no
//! secret is ever in an argument or in a file. It carries back what happened. And its end tells
//! that the other side is gone: an init without a guard ends the instance at once, a guard without
//! a server waits for the next one for the time it was given. (The kernel's own notice,
//! `PR_SET_PDEATHSIG`, is tied to the thread that spawned, and an async server's threads come and
//! go.)
//!
//! A guard outlives its server's binary, so the next server may be newer than it. Orders, reports
//! and fields may be added; whoever changes what one means raises [`PROTOCOL`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::process::cgroup::Groups;

/// Which language a guard speaks; a server that speaks another one does not take it over.
pub(crate) const PROTOCOL: u32 = 1;

/// The name of a guard's socket in the directory of its instance.
pub(crate) const SOCKET: &str = "guard.sock";

/// Both ends refuse longer lines.
pub(crate) const MAX_LINE: usize = 8 << 20;

/// From the server to the guard, and from the guard to the init.
#[derive(Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case")]
pub(crate) enum Order {
    /// The first order, once.
    Launch(Box<Launch>),
    /// Send the program this signal.
    Signal {
        /// By the machine's number.
        number: i32,
    },
    /// Run a command beside the program.
    Run(Box<Command>),
    /// End all processes of the instance now.
    Kill,
    /// Of a later server than this guard's.
    #[serde(other)]
    Unknown,
}

/// All that the launcher needs to know. Holds secrets: not `Debug`.
#[derive(Serialize, Deserialize)]
pub(crate) struct Launch {
    pub(crate) confinement: Confinement,
    /// The program; `None` rehearses all steps before it, to find out what the machine allows.
    pub(crate) program: Option<Program>,
    /// For the guard alone; a rehearsal has none.
    pub(crate) supervision: Option<Supervision>,
}

/// What the guard does beside starting the init.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Supervision {
    /// The file that takes what the program writes, from the engine's directory.
    pub(crate) log: PathBuf,
    /// The instance's directory, from the engine's.
    pub(crate) directory: PathBuf,
    /// How long the instance goes on without a server.
    pub(crate) orphan_ms: u64,
    /// What asks the program to end, by the machine's number.
    pub(crate) stop_signal: i32,
    /// The control groups to put the init into, and with it the instance.
    #[serde(default)]
    pub(crate) groups: Groups,
    /// The bound of their memory, where there is one.
    #[serde(default)]
    pub(crate) memory: Option<u64>,
}

/// What is run beside the program, in the same environment and as the same user. Holds secrets: not `Debug`.
#[derive(Serialize, Deserialize)]
pub(crate) struct Command {
    /// Which one [`Report::Ran`] is about.
    pub(crate) id: u64,
    /// The program and its arguments.
    pub(crate) words: Vec<String>,
    /// Added to the environment of the instance's program.
    pub(crate) environment: BTreeMap<String, String>,
    /// How long it may take until it is ended with all that it has started.
    pub(crate) limit_ms: u64,
}

/// How the processes of an instance are held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Confinement {
    /// In namespaces, with a root of their own.
    Namespaces(Namespaces),
    /// As a group of processes on the machine itself. The paths in [`Program`] are real ones.
    Group {
        /// The instance's copy of the image, with its accounts.
        root: PathBuf,
        /// Where commands are found in it.
        search: Search,
    },
}

/// How the image itself names the places where programs are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Search {
    /// `PATH`.
    pub(crate) path: String,
    /// The working directory.
    pub(crate) directory: PathBuf,
    /// `LD_LIBRARY_PATH`.
    pub(crate) libraries: String,
}

/// The namespaces and the tree inside them. Paths are relative to the launcher's directory, which
/// is the engine's: mount options have no way to hold any path there is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Namespaces {
    /// With a user namespace, for a server that is not root.
    pub(crate) user: bool,
    pub(crate) root: RootMount,
    /// An empty directory for the new root.
    pub(crate) target: PathBuf,
    /// Directories to put over paths of the image.
    pub(crate) volumes: Vec<Volume>,
}

/// How the image becomes a root directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum RootMount {
    /// The image below, the instance's own changes above.
    Overlay {
        image: PathBuf,
        upper: PathBuf,
        work: PathBuf,
        /// Closed once everything is mounted in it, with a fresh `/tmp`.
        #[serde(default)]
        read_only: bool,
    },
    /// The image, read-only, with a fresh `/tmp`.
    ReadOnly { image: PathBuf },
}

/// A directory of the machine at a path of the image; made there where the image has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Volume {
    pub(crate) source: PathBuf,
    pub(crate) path: PathBuf,
}

/// What to run.
#[derive(Serialize, Deserialize)]
pub(crate) struct Program {
    /// The program's name as people know it, and its arguments.
    pub(crate) command: Vec<String>,
    /// What to execute when it is not found by the name: the image's loader, for instance.
    pub(crate) executable: Option<Executable>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) directory: PathBuf,
    /// As the image says; empty for root.
    pub(crate) user: String,
}

/// A program file and all of its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Executable {
    pub(crate) path: PathBuf,
    /// What the program is told its name is.
    pub(crate) name: String,
    pub(crate) arguments: Vec<String>,
}

/// From the init to the guard, and from the guard to the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "kebab-case")]
pub(crate) enum Report {
    /// The first word to a server that has connected to a guard whose program was started.
    Guarding {
        /// See [`PROTOCOL`].
        protocol: u32,
        /// The program's process id as the init sees it.
        pid: i32,
        /// Whether it has ended; how follows.
        ended: bool,
    },
    /// The program runs.
    Started {
        /// Its process id as the init sees it.
        pid: i32,
    },
    /// A rehearsal has come to its end.
    Rehearsed,
    /// Something to tell the operator; the launch goes on.
    Note {
        /// In words.
        text: String,
    },
    /// A step before the program failed; nothing runs.
    Failed(Failure),
    /// The program ended with this code.
    Exited {
        /// 0 to 255.
        code: i32,
    },
    /// The program was ended by this signal.
    Killed {
        /// By the machine's number.
        signal: i32,
        /// The bound of the instance's memory, where that was the reason.
        #[serde(default)]
        out_of_memory: Option<u64>,
    },
    /// A command that was run beside the program is over, and nothing of it is left.
    Ran {
        /// As in the order.
        id: u64,
        /// In what way.
        end: CommandEnd,
        /// The last of what it wrote. Not UTF-8 is replaced.
        output: String,
    },
    /// Of a later guard than this server.
    #[serde(other)]
    Unknown,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "kebab-case")]
pub(crate) enum CommandEnd {
    /// By itself.
    Exited { code: i32 },
    /// By a signal of somebody else.
    Killed { signal: i32 },
    /// By us, when its time was over.
    TimedOut,
    /// It could not be run.
    Failed(Failure),
}

/// Why a launch failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{step}: {reason}")]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    /// The step in words: `mount the image`.
    pub(crate) step: String,
    /// What the system said.
    pub(crate) reason: String,
}

/// The failures that the engine has words of its own for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FailureKind {
    ProgramNotFound,
    ExecFormat,
    UserNotFound,
    Other,
}

impl Failure {
    pub(crate) fn new(step: &str, reason: impl std::fmt::Display) -> Self {
        Self {
            kind: FailureKind::Other,
            step: step.to_owned(),
            reason: reason.to_string(),
        }
    }

    /// For `map_err`: an error of the system at this step.
    pub(crate) fn at<E: std::fmt::Display>(step: &str) -> impl FnOnce(E) -> Self {
        move |error| Self::new(step, error)
    }
}

//! The handle to an instance, whichever engine runs it.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::watch;

use crate::command::{Command, CommandOutcome};
use crate::engine::BoxFuture;
use crate::error::EngineError;
use crate::log;
use crate::resources::Bytes;

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// By the kernel, because its memory was used up.
    OutOfMemory {
        /// The bound, in bytes.
        limit: u64,
    },
}

impl Exit {
    /// Its code, if it ended by itself.
    #[must_use]
    pub fn code(self) -> Option<i32> {
        match self {
            Self::Code(code) => Some(code),
            Self::Signal(_) | Self::OutOfMemory { .. } => None,
        }
    }

    /// The signal that ended it, if one did.
    #[must_use]
    pub fn signal(self) -> Option<i32> {
        match self {
            Self::Code(_) => None,
            Self::Signal(signal) => Some(signal),
            Self::OutOfMemory { .. } => Some(Signal::SIGKILL as i32),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::OutOfMemory { limit } => {
                write!(f, "it ran out of memory: limit {}", Bytes(*limit))
            }
            Self::Signal(number) => match Signal::try_from(*number) {
                Ok(signal) => write!(f, "signal {number} ({})", signal.as_str()),
                Err(_) => write!(f, "signal {number}"),
            },
        }
    }
}

/// What an engine has to know and do about one of its instances.
pub trait Running: Send + Sync + 'static {
    /// As given in the specification.
    fn id(&self) -> &str;

    /// Where the program is expected to listen, for programs of this machine.
    fn address(&self) -> SocketAddr;

    /// The program's process, as the machine numbers it.
    fn pid(&self) -> u32;

    /// The file that takes what the program writes.
    fn log(&self) -> &Path;

    /// Where the instance is in its life.
    fn life(&self) -> watch::Receiver<Life>;

    /// Asks the program to end with the signal its image names.
    fn ask_to_end(&self) -> BoxFuture<'_, ()>;

    /// Ends it by force.
    fn kill(&self) -> BoxFuture<'_, ()>;

    /// Runs a command inside it, and leaves nothing of that.
    fn run(&self, command: Command) -> BoxFuture<'_, Result<CommandOutcome, EngineError>>;

    /// The TCP ports that its processes listen on, if they can be seen.
    fn listening_ports(&self) -> Option<Vec<u16>>;

    /// Whether any of its processes listens on a port, if that can be seen.
    fn listens_on(&self, port: u16) -> Option<bool> {
        self.listening_ports().map(|ports| ports.contains(&port))
    }
}

/// Where an instance is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// The program runs.
    Running,
    /// No process is left; the log is complete.
    Exited(Exit),
    /// Nothing is left of it but its log.
    Gone(Exit),
}

impl Life {
    fn exit(self) -> Option<Exit> {
        match self {
            Self::Running => None,
            Self::Exited(exit) | Self::Gone(exit) => Some(exit),
        }
    }

    fn gone(self) -> Option<Exit> {
        match self {
            Self::Gone(exit) => Some(exit),
            Self::Running | Self::Exited(_) => None,
        }
    }
}

/// A running or ended instance. A handle: clones are the same instance, and dropping all of them
/// leaves it running.
#[derive(Clone)]
pub struct Instance(Arc<dyn Running>);

impl Instance {
    /// The handle to what an engine runs.
    pub fn of(running: impl Running) -> Self {
        Self(Arc::new(running))
    }

    /// As given in the specification.
    #[must_use]
    pub fn id(&self) -> &str {
        self.0.id()
    }

    /// Where the program is expected to listen.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address()
    }

    /// The program's process, as the machine numbers it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn exited(&self) -> Option<Exit> {
        self.0.life().borrow().exit()
    }

    /// Waits until it has ended and its log is complete.
    pub async fn wait(&self) -> Exit {
        self.reach(Life::exit).await
    }

    /// Asks the program to end with the signal its image names, ends it by force after `grace`,
    /// and waits until nothing is left of it but its log. Calling it again, or late, is fine.
    pub async fn stop(&self, grace: Duration) -> Exit {
        let end = async {
            self.0.ask_to_end().await;
            self.wait().await
        };
        if tokio::time::timeout(grace, end).await.is_err() {
            self.0.kill().await;
        }
        self.reach(Life::gone).await
    }

    /// Runs a command inside it and waits until nothing of that is left. An end that is not good is no error; a
    /// caller who gives up waiting leaves it to end by itself, or by its limit.
    pub async fn run(&self, command: Command) -> Result<CommandOutcome, EngineError> {
        self.0.run(command).await
    }

    /// The TCP ports that its processes listen on, if they can be seen: for "listens on 9000, expected 8081".
    #[must_use]
    pub fn listening_ports(&self) -> Option<Vec<u16>> {
        self.0.listening_ports()
    }

    /// Whether any of its processes listens on a TCP port, if that can be seen. Cheaper than [`Instance::listening_ports`].
    #[must_use]
    pub fn listens_on(&self, port: u16) -> Option<bool> {
        self.0.listens_on(port)
    }

    /// The last lines of its log, standard output and standard error as they came.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> Vec<String> {
        log::tail(self.0.log(), lines)
    }

    async fn reach(&self, reached: impl Fn(Life) -> Option<Exit>) -> Exit {
        let mut life = self.0.life();
        let found = life.wait_for(|life| reached(*life).is_some()).await;
        let found = found.ok().and_then(|life| reached(*life));
        // only a runtime that is shutting down drops whoever tells
        found.unwrap_or(Exit::Signal(Signal::SIGKILL as i32))
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance")
            .field("id", &self.id())
            .field("address", &self.address())
            .field("pid", &self.pid())
            .finish()
    }
}

//! Taking over the instances that an earlier server has left running.
//!
//! Their guards listen while they have no server; the record beside each says which process the guard is. What cannot be
//! taken over is left to the sweep, which ends it.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::launch::listener;
use super::launch::protocol::{PROTOCOL, Report};
use super::monitor::{Guard, Line};
use super::proc::Process;
use super::record::InstanceRecord;

/// For a guard to answer: it has nothing else to do but to write its log.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two attempts: a guard may not have noticed yet that its server is gone.
const PAUSE: Duration = Duration::from_millis(20);

/// Why an instance is not taken over; it is ended then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("talk to its guard")]
    Talk(#[from] io::Error),
    #[error("its guard does not answer")]
    Silent,
    #[error("another process than its guard answers")]
    Stranger,
    #[error("its guard speaks protocol {0}")]
    Protocol(u32),
    #[error("its guard does not speak")]
    Ended,
}

impl Refused {
    /// Whether a guard may answer otherwise a moment later: one that does not listen yet, or that somebody
    /// else has come to first.
    fn may_pass(&self) -> bool {
        match self {
            Self::Talk(error) => error.kind() != io::ErrorKind::InvalidData,
            Self::Ended => true,
            Self::Silent | Self::Stranger | Self::Protocol(_) => false,
        }
    }
}

/// A guard that has answered.
pub(crate) struct Greeted {
    pub(crate) guard: Guard,
    /// The program's process id inside.
    pub(crate) pid: i32,
    /// Whether the program has ended; the guard is about to say how.
    pub(crate) ended: bool,
}

/// Connects to the guard of `record` in the instance's directory.
pub(crate) async fn greet(directory: &Path, record: &InstanceRecord) -> Result<Greeted, Refused> {
    let mut refused = Refused::Silent;
    let greeting = async {
        loop {
            match connect(directory, record.guard).await {
                Err(error) if error.may_pass() && record.guard.is_alive() => refused = error,
                other => return other,
            }
            sleep(PAUSE).await;
        }
    };
    let greeted = timeout(PATIENCE, greeting).await;
    greeted.unwrap_or(Err(refused))
}

async fn connect(directory: &Path, process: Process) -> Result<Greeted, Refused> {
    let folder = File::open(directory)?;
    let socket = UnixStream::connect(listener::address(&folder)).await?;
    if socket.peer_cred()?.pid() != Some(process.pid) {
        return Err(Refused::Stranger);
    }
    let mut socket = Line::new(socket);
    match socket.next().await? {
        Some(Report::Guarding {
            protocol: PROTOCOL,
            pid,
            ended,
        }) => {
            let guard = Guard {
                process,
                child: None,
                socket,
            };
            Ok(Greeted { guard, pid, ended })
        }
        Some(Report::Guarding { protocol, .. }) => Err(Refused::Protocol(protocol)),
        _ => Err(Refused::Ended),
    }
}

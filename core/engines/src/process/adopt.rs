//! Taking over the instances that an earlier server has left running.
//!
//! Their guards listen; the record beside each says which process the guard is. What cannot be
//! taken over is left to the sweep, which ends it.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::timeout;

use super::launch::door;
use super::launch::protocol::{PROTOCOL, Report};
use super::monitor::{Guard, Line};
use super::proc::Process;
use super::record::InstanceRecord;

/// For a guard to answer: it has nothing else to do but to write its log.
const PATIENCE: Duration = Duration::from_secs(5);

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
    #[error("its guard ended it")]
    Ended,
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
    match timeout(PATIENCE, connect(directory, record.guard)).await {
        Ok(greeted) => greeted,
        Err(_) => Err(Refused::Silent),
    }
}

async fn connect(directory: &Path, process: Process) -> Result<Greeted, Refused> {
    let folder = File::open(directory)?;
    let socket = UnixStream::connect(door::address(&folder)).await?;
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

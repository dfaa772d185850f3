//! What is written about an instance for the server that comes after this one.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oci::Digest;
use serde::{Deserialize, Serialize};

use super::boot;
use super::proc::{self, Process};

const FILE: &str = "instance.json";
const VERSION: u32 = 1;
/// How long killed processes may take to be gone.
const PATIENCE: Duration = Duration::from_secs(15);

/// The processes of an instance, enough to find them again and to take no others for them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct InstanceRecord {
    version: u32,
    boot: String,
    pub(crate) image: Digest,
    pub(crate) port: u16,
    pub(crate) guard: Process,
    /// The init and the program, once they are known.
    pub(crate) others: Vec<Process>,
}

impl InstanceRecord {
    pub(crate) fn new(image: Digest, port: u16, guard: Process) -> Self {
        Self {
            version: VERSION,
            boot: boot::id(),
            image,
            port,
            guard,
            others: Vec::new(),
        }
    }

    /// Writes it into the instance's directory, whole or not at all.
    pub(crate) fn write(&self, directory: &Path) -> io::Result<()> {
        let path = directory.join(FILE);
        let new = path.with_extension("new");
        fs::write(&new, serde_json::to_vec(self)?)?;
        fs::rename(new, path)
    }

    /// The record of a directory; `None` when there is none, or none that says anything about
    /// processes of today.
    pub(crate) fn read(directory: &Path) -> Option<Self> {
        let record: Self = serde_json::from_slice(&fs::read(directory.join(FILE)).ok()?).ok()?;
        (record.version == VERSION && record.boot == boot::id()).then_some(record)
    }

    /// Ends what is left of the instance and waits for it. `false` when something is still there.
    pub(crate) fn kill(&self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = self.alive();
            if left.is_empty() {
                return true;
            }
            for process in &left {
                let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
            }
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What was recorded, what descends from it, and whoever is in a session that it opened.
    fn alive(&self) -> Vec<Process> {
        let recorded = [self.guard].into_iter().chain(self.others.iter().copied());
        let roots: Vec<Process> = recorded.filter(Process::is_alive).collect();
        let mut all = roots.clone();
        for root in &roots {
            let below = proc::descendants(root.pid)
                .into_iter()
                .chain(proc::session(root.pid));
            all.extend(below.filter_map(Process::find).filter(Process::is_alive));
        }
        all
    }
}

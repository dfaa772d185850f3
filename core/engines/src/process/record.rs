//! What is written about an instance for the server that comes after this one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oci::Digest;
use serde::{Deserialize, Serialize};

use super::boot;
use super::cgroup::Groups;
use super::place::Place;
use super::proc::{self, Process};
use crate::engine::InstanceSpec;
use crate::folder::FolderId;
use crate::volumes::VolumeId;

const FILE: &str = "instance.json";
/// What all that an instance without a pid namespace starts has in its environment, with the mark of its guard.
pub(crate) const MARK: &str = "SYSTEMPROMPT_INSTANCE";
/// Records of other versions name processes to end; those of this one, instances to take over.
const VERSION: u32 = 2;
/// How long killed processes may take to be gone.
const PATIENCE: Duration = Duration::from_secs(15);

/// The processes of an instance, enough to find them again and to take no others for them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct InstanceRecord {
    version: u32,
    boot: String,
    /// The engine's directory.
    #[serde(default)]
    engine: Option<FolderId>,
    pub(crate) image: Digest,
    pub(crate) port: u16,
    pub(crate) guard: Process,
    /// The init and the program, once they are known.
    pub(crate) others: Vec<Process>,
    /// The program alone, once it runs.
    #[serde(default)]
    pub(crate) program: Option<Process>,
    /// From the engine's directory.
    #[serde(default)]
    pub(crate) log: PathBuf,
    /// What asks the program to end, by the machine's number.
    #[serde(default)]
    pub(crate) stop_signal: i32,
    #[serde(default)]
    pub(crate) groups: Groups,
    /// Those that it has.
    #[serde(default)]
    pub(crate) volumes: Vec<VolumeId>,
    /// Whether no namespace holds its processes.
    #[serde(default)]
    is_grouped: bool,
}

/// Where the record of an instance's directory is.
pub(crate) fn file(directory: &Path) -> PathBuf {
    directory.join(FILE)
}

impl InstanceRecord {
    /// Of an instance whose guard was started.
    pub(crate) fn new(
        spec: &InstanceSpec,
        place: &Place,
        stop_signal: Signal,
        groups: &Groups,
        guard: Process,
    ) -> io::Result<Self> {
        Ok(Self {
            version: VERSION,
            boot: boot::id(),
            engine: Some(FolderId::of(&place.engine)?),
            image: spec.image,
            port: spec.port,
            guard,
            others: Vec::new(),
            program: None,
            log: place.log(&spec.log),
            stop_signal: stop_signal as i32,
            groups: groups.clone(),
            volumes: spec.volume_ids().collect(),
            is_grouped: place.copy().exists(),
        })
    }

    /// Takes down the processes of a program that runs, which has this id inside, and returns the
    /// program's own. One that has ended already leaves the guard as the best one to show.
    pub(crate) fn started(&mut self, inner_pid: i32) -> i32 {
        let below = proc::descendants(self.guard.pid);
        let found = proc::by_inner_pid(&below, inner_pid);
        self.program = found.and_then(Process::find);
        self.others = below.into_iter().filter_map(Process::find).collect();
        self.program.unwrap_or(self.guard).pid
    }

    /// Writes it into the instance's directory, whole or not at all.
    pub(crate) fn write(&self, directory: &Path) -> io::Result<()> {
        let path = directory.join(FILE);
        let new = path.with_extension("new");
        fs::write(&new, serde_json::to_vec(self)?)?;
        fs::rename(new, path)
    }

    /// The record of a directory; `None` when there is none, or none that says anything about
    /// processes of today and of this engine's directory.
    pub(crate) fn read(directory: &Path) -> Option<Self> {
        let record: Self = serde_json::from_slice(&fs::read(directory.join(FILE)).ok()?).ok()?;
        let engine = directory.ancestors().nth(2)?;
        (record.boot == boot::id() && record.is_of(engine)).then_some(record)
    }

    /// Whether it was written in this engine's directory, and not in one that this is a copy of. A guard
    /// works in the directory that it was started for.
    fn is_of(&self, engine: &Path) -> bool {
        let works_in = || FolderId::of(Path::new(&format!("/proc/{}/cwd", self.guard.pid)));
        self.engine.is_none_or(|written| written.is(engine))
            // whether it is not to be seen, or is gone by now
            && (!self.guard.is_alive() || works_in().map_or(true, |folder| folder.is(engine)))
    }

    /// Whether the instance may be taken over: its guard lives, and was started by a server that
    /// wrote down what that takes.
    pub(crate) fn is_adoptable(&self) -> bool {
        self.version == VERSION && self.guard.is_alive()
    }

    /// Tells everything of the instance to end at once, and waits for nothing.
    pub(crate) fn tell(&self) {
        self.groups.tell();
        for process in self.alive() {
            let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
        }
    }

    /// Ends what is left of the instance, waits for it and removes its control groups. `false` when
    /// something is still there.
    pub(crate) fn kill(&self) -> bool {
        self.groups.kill();
        let gone = self.kill_all();
        self.groups.remove();
        gone
    }

    fn kill_all(&self) -> bool {
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

    /// What was recorded, what descends from it, whoever is in a session that it opened, and, where no namespace holds
    /// them, whoever has its mark. Of those whose guard and init are gone nothing else is known.
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
        if self.is_grouped {
            let marked = proc::marked_anywhere(&format!("{MARK}={}", self.guard.mark()));
            all.extend(marked.into_iter().filter_map(Process::find));
        }
        all
    }
}

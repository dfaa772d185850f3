//! Control groups: what bounds the memory, the processors and the processes of an instance.
//!
//! Version 1 has a hierarchy of groups for each controller, version 2 one for all; a machine may
//! have both. Groups are made below the one that the server itself is in, so that whatever bounds
//! the server bounds its instances too, and only for instances that ask for bounds or that no
//! namespace holds: what runs in a group is found there, wherever it has gone. A group that is
//! there after its instance is removed by whoever finds it: the guard, the server, the next server.

mod find;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oci::Digest;
use serde::{Deserialize, Serialize};

use crate::resources::Resources;

/// How long ended processes may take to leave their group.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(2);
/// How often the engine's group may go while an instance's is made in it.
const TRIES: u32 = 8;
/// The time by which shares of a processor are dealt out, in microseconds: the kernel's own.
const PERIOD: u64 = 100_000;

/// What can be bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Controller {
    Memory,
    Cpu,
    Pids,
}

impl Controller {
    const ALL: [Self; 3] = [Self::Memory, Self::Cpu, Self::Pids];

    fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Pids => "pids",
        }
    }

    fn is_asked(self, resources: &Resources) -> bool {
        match self {
            Self::Memory => resources.memory.is_some(),
            Self::Cpu => resources.cpu_millis.is_some(),
            Self::Pids => resources.pids.is_some(),
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// Where groups with a controller can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hierarchy {
    version: Version,
    /// The group that the server is in.
    own: PathBuf,
}

/// What this machine offers to one engine.
#[derive(Debug)]
pub(crate) struct Cgroups {
    /// For each controller where its groups are, or why there are none.
    hierarchies: BTreeMap<Controller, Result<Hierarchy, String>>,
    /// Where groups that bound nothing are, if there can be any.
    holding: Option<Hierarchy>,
    /// The group of this engine, below the server's.
    name: String,
}

impl Cgroups {
    /// Finds out by making the engine's group once. `root` is the engine's directory.
    pub(crate) fn find(root: &Path) -> Self {
        let hash = Digest::of(root.as_os_str().as_encoded_bytes()).hex();
        let mut cgroups = Self {
            hierarchies: find::hierarchies(),
            holding: None,
            name: format!("systemprompt-{}", &hash[..8]),
        };
        for controller in Controller::ALL {
            cgroups.rehearse(controller);
        }
        let bounding = cgroups.hierarchies.values().flatten().cloned();
        let unified = find::unified_group();
        let mut all = unified.into_iter().chain(bounding);
        cgroups.holding = all.find(|hierarchy| cgroups.can_hold(hierarchy));
        cgroups
    }

    /// Whether processes can be moved out of our own group into one that is made there.
    fn can_hold(&self, hierarchy: &Hierarchy) -> bool {
        let group = hierarchy.own.join(&self.name);
        let own = fs::OpenOptions::new()
            .write(true)
            .open(hierarchy.own.join("cgroup.procs"));
        let can = own.is_ok() && make(hierarchy, &group).is_ok();
        let _ = fs::remove_dir(&group);
        can
    }

    fn rehearse(&mut self, controller: Controller) {
        let Some(Ok(hierarchy)) = self.hierarchies.get(&controller) else {
            return;
        };
        let group = hierarchy.own.join(&self.name);
        let made = make(hierarchy, &group).and_then(|()| {
            let file = group.join(main_file(hierarchy.version, controller));
            let found = fs::metadata(file).map(drop);
            // it stays where another one of the same name is busy, or where instances have run on
            let _ = fs::remove_dir(&group);
            found
        });
        if let Err(error) = made {
            let why = format!("control group {}: {error}", group.display());
            self.hierarchies.insert(controller, Err(why));
        }
    }

    /// What of `resources` cannot be enforced here, and why.
    pub(crate) fn lacks(&self, resources: &Resources) -> Vec<String> {
        let asked = Controller::ALL.into_iter();
        let asked = asked.filter(|controller| controller.is_asked(resources));
        let lacking = asked.filter_map(|controller| {
            let why = match self.hierarchies.get(&controller) {
                Some(Ok(_)) => return None,
                Some(Err(why)) => why.as_str(),
                None => "this machine has no such control groups",
            };
            Some(format!("{controller}: {why}"))
        });
        lacking.collect()
    }

    /// Makes the groups of instance `id` with those of the bounds that can be enforced, and one in any case where
    /// `Hold::Always` is said and there can be one. Returns them; none is left when that fails.
    pub(crate) fn create(&self, id: &str, resources: &Resources, hold: Hold) -> io::Result<Groups> {
        let mut made = Groups(Vec::new());
        let mut created = self.create_into(&mut made, id, resources);
        let holding = self.holding.as_ref();
        let holding = holding.filter(|_| hold == Hold::Always && made.0.is_empty());
        if let (Ok(()), Some(hierarchy)) = (&created, holding) {
            let group = hierarchy.own.join(&self.name).join(id);
            created = make_instances(hierarchy, &group);
            made.0.push(group);
        }
        if created.is_err() {
            made.remove();
        }
        created.map(|()| made)
    }

    fn create_into(&self, made: &mut Groups, id: &str, resources: &Resources) -> io::Result<()> {
        for controller in Controller::ALL {
            let Some(Ok(hierarchy)) = self.hierarchies.get(&controller) else {
                continue;
            };
            let bounds = bounds(hierarchy.version, controller, resources);
            if bounds.is_empty() {
                continue;
            }
            let group = hierarchy.own.join(&self.name).join(id);
            if !made.0.contains(&group) {
                make_instances(hierarchy, &group)?;
                made.0.push(group.clone());
            }
            for (file, value) in bounds {
                let path = group.join(file);
                if !OPTIONAL.contains(&file) || path.exists() {
                    fs::write(path, value)?;
                }
            }
        }
        Ok(())
    }

    /// Ends and removes the groups of instances that are not among `known`.
    pub(crate) fn sweep(&self, known: impl Fn(&str) -> bool) {
        let bounding = self.hierarchies.values().flatten();
        for hierarchy in bounding.chain(&self.holding) {
            let base = hierarchy.own.join(&self.name);
            for entry in fs::read_dir(&base).into_iter().flatten().flatten() {
                let is_group = entry.file_type().is_ok_and(|kind| kind.is_dir());
                if is_group && !known(&entry.file_name().to_string_lossy()) {
                    let group = Groups(vec![entry.path()]);
                    group.kill();
                    group.remove();
                }
            }
            let _ = fs::remove_dir(&base);
        }
    }
}

/// Which instances have a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Those with bounds: a namespace holds the processes of the others.
    Bounded,
    /// All.
    Always,
}

/// The groups of one instance: one, or one a controller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Groups(pub(crate) Vec<PathBuf>);

impl Groups {
    /// Puts a process, and with it all that come from it later, into the groups.
    pub(crate) fn enter(&self, pid: i32) -> io::Result<()> {
        let mut groups = self.0.iter();
        groups.try_for_each(|group| fs::write(group.join("cgroup.procs"), pid.to_string()))
    }

    /// How many processes the kernel has ended because the memory was used up.
    pub(crate) fn out_of_memory(&self) -> u64 {
        let files = self.0.iter().flat_map(|group| {
            // version 2, version 1
            ["memory.events", "memory.oom_control"].map(|file| group.join(file))
        });
        let counts = files.filter_map(|file| {
            let text = fs::read_to_string(file).ok()?;
            let count = text
                .lines()
                .find_map(|line| line.strip_prefix("oom_kill "))?;
            count.trim().parse::<u64>().ok()
        });
        counts.sum()
    }

    /// Removes them once the last process has left, and the engine's with the last instance of it. Absent is
    /// fine; one that stays is found by the next sweep.
    pub(crate) fn remove(&self) {
        let deadline = Instant::now() + PATIENCE;
        for group in &self.0 {
            while let Err(error) = fs::remove_dir(group) {
                let busy = error.kind() == io::ErrorKind::ResourceBusy;
                if !busy || Instant::now() > deadline {
                    break;
                }
                std::thread::sleep(LOOK);
            }
            if let Some(base) = group.parent() {
                let _ = fs::remove_dir(base);
            }
        }
    }

    /// Ends all that is in them, also what is born meanwhile, and waits for that.
    pub(crate) fn kill(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.tell() && Instant::now() <= deadline {
            std::thread::sleep(LOOK);
        }
    }

    /// Tells all that is in them now to end. Whether there was anything.
    pub(crate) fn tell(&self) -> bool {
        for group in &self.0 {
            // all at one moment, where the kernel can (version 2, Linux 5.14)
            let file = fs::OpenOptions::new()
                .write(true)
                .open(group.join("cgroup.kill"));
            if let Ok(mut file) = file {
                let _ = file.write_all(b"1");
            }
        }
        let pids = self.0.iter().flat_map(|group| {
            let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            let pids = text.lines().filter_map(|line| line.parse::<i32>().ok());
            pids.collect::<Vec<_>>()
        });
        let pids: Vec<i32> = pids.filter(|pid| *pid > 0).collect();
        for pid in &pids {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        !pids.is_empty()
    }
}

/// Makes an instance's group, in the engine's. That one goes with the last instance in it, which may be
/// at any moment.
fn make_instances(hierarchy: &Hierarchy, group: &Path) -> io::Result<()> {
    let base = group.parent().unwrap_or(&hierarchy.own);
    for _ in 0..TRIES {
        make(hierarchy, base)?;
        match fs::create_dir(group) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            made => return made,
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// Makes the engine's group. In version 2 a controller counts in a group only where those above hand
/// it down.
fn make(hierarchy: &Hierarchy, base: &Path) -> io::Result<()> {
    match fs::create_dir(base) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if hierarchy.version == Version::V2 {
        find::hand_down(base)?;
    }
    Ok(())
}

/// The file that a group with this controller is known by.
fn main_file(version: Version, controller: Controller) -> &'static str {
    match (version, controller) {
        (Version::V1, Controller::Memory) => "memory.limit_in_bytes",
        (Version::V1, Controller::Cpu) => "cpu.cfs_quota_us",
        (Version::V2, Controller::Memory) => "memory.max",
        (Version::V2, Controller::Cpu) => "cpu.max",
        (_, Controller::Pids) => "pids.max",
    }
}

/// Files that a kernel may be built without.
const OPTIONAL: [&str; 2] = ["memory.memsw.limit_in_bytes", "memory.swap.max"];

/// The files of a group and what has to be written into them, in that order; nothing where `resources` does not
/// bound what the controller counts.
fn bounds(
    version: Version,
    controller: Controller,
    resources: &Resources,
) -> Vec<(&'static str, String)> {
    let main = main_file(version, controller);
    let files = match controller {
        Controller::Memory => resources.memory.map(|bytes| {
            // without swap, or the bound would only slow it down
            let swap = match version {
                Version::V1 => ("memory.memsw.limit_in_bytes", bytes.to_string()),
                Version::V2 => ("memory.swap.max", "0".to_owned()),
            };
            vec![(main, bytes.to_string()), swap]
        }),
        Controller::Cpu => resources.cpu_millis.map(|millis| {
            let quota = u64::from(millis) * PERIOD / 1000;
            match version {
                Version::V1 => vec![
                    ("cpu.cfs_period_us", PERIOD.to_string()),
                    (main, quota.to_string()),
                ],
                Version::V2 => vec![(main, format!("{quota} {PERIOD}"))],
            }
        }),
        // our own first process is one of them
        Controller::Pids => resources
            .pids
            .map(|pids| vec![(main, (u64::from(pids) + 1).to_string())]),
    };
    files.unwrap_or_default()
}

#[cfg(test)]
mod tests;

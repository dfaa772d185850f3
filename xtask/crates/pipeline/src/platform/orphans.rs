//! Instances whose server is gone. Each has a guard, which waits for another server; the record beside it
//! says which process that is.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use deploy_plan::failure::Failure;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;

use super::folder::FolderId;
use super::{is_alive, stop_failure};

/// How long an application may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(10);
/// How long killed processes may take to be gone.
const PATIENCE: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(20);

/// The part of `instance.json` that this needs.
#[derive(Deserialize)]
struct Record {
    /// Where it was found.
    #[serde(skip)]
    directory: PathBuf,
    boot: String,
    /// The engine's directory. Servers of before they said it have none.
    engine: Option<FolderId>,
    guard: Process,
    program: Option<Process>,
}

#[derive(Deserialize)]
struct Process {
    pid: i32,
    started: u64,
}

impl Process {
    fn runs(&self) -> bool {
        is_alive(self.pid, Some(self.started))
    }
}

impl Record {
    /// Whether it tells of this start of the machine and of this engine's directory, not of one that this is
    /// a copy of. A guard works in the directory that it was started for.
    fn is_of(&self, engine: &Path) -> bool {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let works_in = FolderId::of(Path::new(&format!("/proc/{}/cwd", self.guard.pid)));
        self.boot == boot.trim()
            && self.engine.is_none_or(|written| written.is(engine))
            && works_in.map_or(true, |folder| folder.is(engine))
    }
}

/// Ends those in a folder of instances; whether there were any.
pub(super) fn end(instances: &Path) -> Result<bool, Failure> {
    let entries = fs::read_dir(instances).into_iter().flatten().flatten();
    let records = entries.filter_map(|entry| {
        let text = fs::read(entry.path().join("instance.json")).ok()?;
        let record = serde_json::from_slice::<Record>(&text).ok()?;
        Some(Record {
            directory: entry.path(),
            ..record
        })
    });
    let engine = instances.parent().unwrap_or(instances);
    let running: Vec<Record> = records
        .filter(|record| record.guard.runs() && record.is_of(engine))
        .collect();
    for record in &running {
        // The guard hands it on to the application.
        signal(record, Signal::SIGTERM);
    }
    let programs = || running.iter().filter_map(|record| record.program.as_ref());
    until(GRACE, || !programs().any(Process::runs));
    for record in &running {
        order_to_end(&record.directory);
    }
    until(GRACE, || !running.iter().any(|record| record.guard.runs()));
    for record in &running {
        // What is below it goes with it.
        signal(record, Signal::SIGKILL);
    }
    let gone = || !running.iter().any(|r| r.guard.runs()) && !programs().any(Process::runs);
    if !until(PATIENCE, gone) {
        return Err(stop_failure(format!(
            "instances in {} did not end within {} s",
            instances.display(),
            PATIENCE.as_secs()
        )));
    }
    Ok(!running.is_empty())
}

/// What a server would say: the guard ends whatever is left of the instance, and removes its control groups.
fn order_to_end(instance: &Path) {
    let Ok(folder) = File::open(instance) else {
        return;
    };
    // The address of a socket holds less than a path may have.
    let address = format!("/proc/self/fd/{}/guard.sock", folder.as_raw_fd());
    if let Ok(mut socket) = UnixStream::connect(address) {
        // A guard that does not read it is killed later.
        let _ = socket.set_write_timeout(Some(Duration::from_secs(1)));
        let _ = socket.write_all(b"{\"order\":\"kill\"}\n");
        // Its first word has to be taken before the end of the connection, or the order is lost with it.
        let _ = socket.set_read_timeout(Some(GRACE));
        let _ = socket.take(1 << 20).read_to_end(&mut Vec::new());
    }
}

fn signal(record: &Record, signal: Signal) {
    if record.guard.runs() {
        // One that ends at this very moment is gone anyway.
        let _ = kill(Pid::from_raw(record.guard.pid), signal);
    }
}

fn until(limit: Duration, reached: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !reached() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(LOOK);
    }
    true
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn started(pid: u32) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields = stat.rsplit_once(')').unwrap().1;
        fields.split_whitespace().nth(19).unwrap().parse().unwrap()
    }

    /// A record as it is in the engine directory `written`, found in `engine`.
    fn record(engine: &Path, written: &Path, name: &str, [pid, started]: [u64; 2]) {
        let folder = engine.join("instances").join(name);
        fs::create_dir_all(&folder).unwrap();
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let written = fs::metadata(written).unwrap();
        let text = serde_json::json!({
            "version": 2,
            "boot": boot.trim(),
            "engine": { "device": written.dev(), "inode": written.ino() },
            "guard": { "pid": pid, "started": started },
            "program": null,
            "more": 1,
        });
        fs::write(folder.join("instance.json"), text.to_string()).unwrap();
    }

    #[test]
    fn recorded_processes_are_ended_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!end(&folder.path().join("absent")).unwrap());
        let engines = ["ours", "copied"].map(|name| folder.path().join(name));
        let [ours, copied] = &engines;
        for path in &engines {
            fs::create_dir(path).unwrap();
        }
        let sleep = |works_in: &Path| {
            let mut sleep = Command::new("sleep");
            let sleep = sleep.arg("600").current_dir(works_in).stdin(Stdio::null());
            sleep.spawn().unwrap()
        };
        let id = |child: &Child| [u64::from(child.id()), started(child.id())];
        let mut waits = sleep(ours);
        record(ours, ours, "one", id(&waits));
        // A number that is another process's by now.
        let mut others = vec![sleep(ours)];
        let [pid, started] = id(&others[0]);
        record(ours, ours, "two", [pid, started + 1]);
        // What came along with a copy, whichever way it is known.
        others.push(sleep(ours));
        record(ours, copied, "three", id(&others[1]));
        others.push(sleep(copied));
        record(ours, ours, "four", id(&others[2]));
        fs::create_dir(ours.join("instances/half")).unwrap();
        assert!(end(&ours.join("instances")).unwrap());
        assert!(!waits.wait().unwrap().success());
        for mut other in others {
            assert!(other.try_wait().unwrap().is_none());
            other.kill().unwrap();
            other.wait().unwrap();
        }
    }
}

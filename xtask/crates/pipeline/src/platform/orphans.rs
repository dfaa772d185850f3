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
use serde_json::json;

use super::folder::FolderId;
use super::process::Process;
use super::stop_failure;

/// How long an application may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(10);
/// How long killed processes may take to be gone.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a guard may take to notice that its server is gone.
const KNOCK: Duration = Duration::from_secs(2);
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
    /// What asks the program to end, by the machine's number. Servers of before they said it have none.
    #[serde(default = "Record::terminate")]
    stop_signal: i32,
}

impl Record {
    fn terminate() -> i32 {
        Signal::SIGTERM as i32
    }

    /// Whether it tells of this start of the machine and of this engine's directory, not of one that this is
    /// a copy of. A guard works in the directory that it was started for.
    fn is_of(&self, engine: &Path) -> bool {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let works_in = FolderId::of(Path::new(&format!("/proc/{}/cwd", self.guard.pid)));
        // Without its start it may be anybody.
        self.guard.started.is_some()
            && self.boot == boot.trim()
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
        .filter(|record| record.guard.is_alive() && record.is_of(engine))
        .collect();
    let mut lines: Vec<Option<Line>> = running.iter().map(Line::to).collect();
    for (record, line) in running.iter().zip(&mut lines) {
        match line {
            Some(line) => line.order(&json!({ "order": "signal", "number": record.stop_signal })),
            // The guard hands it on to the application.
            None => signal(record, Signal::SIGTERM),
        }
    }
    let programs = || running.iter().filter_map(|record| record.program.as_ref());
    until(GRACE, || !programs().any(Process::is_alive));
    for line in lines.into_iter().flatten() {
        line.order_to_end();
    }
    until(GRACE, || {
        !running.iter().any(|record| record.guard.is_alive())
    });
    for record in &running {
        // What is below it goes with it.
        signal(record, Signal::SIGKILL);
    }
    let gone = || !running.iter().any(|r| r.guard.is_alive()) && !programs().any(Process::is_alive);
    if !until(PATIENCE, gone) {
        return Err(stop_failure(format!(
            "instances in {} did not end within {} s",
            instances.display(),
            PATIENCE.as_secs()
        )));
    }
    Ok(!running.is_empty())
}

/// A connection to a guard, which takes whoever has it for its server.
struct Line(UnixStream);

impl Line {
    /// Waits until the guard listens, which it does once it has noticed that its server is gone.
    fn to(record: &Record) -> Option<Self> {
        let folder = File::open(&record.directory).ok()?;
        // The address of a socket holds less than a path may have.
        let address = format!("/proc/self/fd/{}/guard.sock", folder.as_raw_fd());
        let mut line = None;
        until(KNOCK, || {
            line = UnixStream::connect(&address).ok();
            line.is_some() || !record.guard.is_alive()
        });
        let socket = line?;
        // A guard that does not read its orders is killed later.
        socket
            .set_write_timeout(Some(Duration::from_secs(1)))
            .ok()?;
        socket.set_read_timeout(Some(GRACE)).ok()?;
        Some(Self(socket))
    }

    fn order(&mut self, order: &serde_json::Value) {
        let _ = self.0.write_all(format!("{order}\n").as_bytes());
    }

    /// The guard ends whatever is left of the instance, and removes its control groups.
    fn order_to_end(mut self) {
        self.order(&json!({ "order": "kill" }));
        // Its words have to be taken before the end of the connection, or the order is lost with them.
        let _ = self.0.take(1 << 20).read_to_end(&mut Vec::new());
    }
}

fn signal(record: &Record, signal: Signal) {
    if record.guard.is_alive() {
        // One that ends at this very moment is gone anyway.
        let _ = kill(Pid::from_raw(record.guard.pid), signal);
    }
}

fn until(limit: Duration, mut reached: impl FnMut() -> bool) -> bool {
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
    use std::io::{BufRead, BufReader};
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
            "stop_signal": 3,
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

    #[test]
    fn a_guard_is_told_which_signal_the_application_wants() {
        let folder = tempfile::tempdir().unwrap();
        let engine = folder.path();
        let mut sleep = Command::new("sleep");
        let sleep = sleep.arg("600").current_dir(engine).stdin(Stdio::null());
        let mut guard = sleep.spawn().unwrap();
        let id = guard.id();
        record(engine, engine, "one", [u64::from(id), started(id)]);
        let socket = engine.join("instances/one/guard.sock");
        let socket = std::os::unix::net::UnixListener::bind(socket).unwrap();
        let heard = std::thread::spawn(move || {
            let (server, _) = socket.accept().unwrap();
            let mut lines = BufReader::new(server).lines();
            let heard = [(); 2].map(|()| lines.next().unwrap().unwrap());
            guard.kill().unwrap();
            guard.wait().unwrap();
            heard
        });
        assert!(end(&engine.join("instances")).unwrap());
        let [first, last] = heard.join().unwrap();
        assert_eq!(first, r#"{"order":"signal","number":3}"#);
        assert_eq!(last, r#"{"order":"kill"}"#);
    }
}

//! Whose guards and records an engine takes for its own, and what it does about a guard that is gone
//! or spoken to by others.

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use engines::Exit;
use engines::process::{IsolationMode, ProcessEngine, Settings};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::images::command;
use crate::setup::{Bench, MODES, PATIENCE, launcher, until};

/// Ends with 7 when it is asked to.
const ASKED: &str = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done";

fn engine(bench: &Bench, root: &Path, mode: IsolationMode) -> ProcessEngine {
    let settings = Settings {
        store: Arc::clone(&bench.store),
        root: root.to_owned(),
        launcher: launcher(),
        isolation: mode,
        orphan: Duration::ZERO,
    };
    ProcessEngine::new(settings).unwrap()
}

fn record(root: &Path) -> Value {
    let text = fs::read(root.join("instances/one/instance.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn pid(process: &Value) -> Pid {
    Pid::from_raw(i32::try_from(process["pid"].as_i64().unwrap()).unwrap())
}

fn runs(process: &Value) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid(process))).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_directory_ends_nothing_of_the_original() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let image = bench.app(command(&["/bin/sleep", "600"]));
        let instance = bench.engine.start(bench.spec("one", image)).await.unwrap();
        let other = bench.folder.path().join("other");
        // as it was copied, and as one would be that does not say whose it is
        for says in [true, false] {
            let mut record = record(&bench.root());
            if !says {
                record.as_object_mut().unwrap().remove("engine").unwrap();
            }
            let directory = other.join("instances/one");
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("instance.json"), record.to_string()).unwrap();
            let engine = engine(&bench, &other, mode);
            assert!(engine.adopt().await.unwrap().is_empty());
            engine.sweep().await.unwrap();
            assert!(!directory.exists(), "the copy of its directory is removed");
            let record = self::record(&bench.root());
            assert!(runs(&record["guard"]) && runs(&record["program"]));
            assert_eq!(instance.exited(), None);
        }
        instance.stop(Duration::ZERO).await;
        bench.check_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_whose_guard_and_init_are_killed_does_not_run_on() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let image = bench.app(command(&["/bin/sleep", "600"]));
        let instance = bench.engine.start(bench.spec("one", image)).await.unwrap();
        let record = record(&bench.root());
        let program = &record["program"];
        let mut above = vec![record["guard"].clone()];
        let others = record["others"].as_array().unwrap().iter();
        above.extend(others.filter(|other| *other != program).take(1).cloned());
        assert_eq!(above.len(), 2, "guard and init: {record}");
        // neither may see the end of the other
        for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
            for process in &above {
                let _ = kill(pid(process), signal);
            }
        }
        let ended = tokio::time::timeout(PATIENCE, instance.wait()).await;
        assert_eq!(ended.unwrap(), Exit::Signal(9));
        assert!(!runs(program), "{mode:?}");
        instance.stop(Duration::ZERO).await;
        bench.check_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_else_connects_to_a_guard_ends_nothing() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let image = bench.app(command(&["/bin/sh", "-c", ASKED]));
        let instance = bench.engine.start(bench.spec("one", image)).await.unwrap();
        until("it is ready", || instance.log_tail(1) == ["ready"]).await;
        let door = bench.root().join("instances/one/guard.sock");
        let connect = || {
            let stranger = UnixStream::connect(&door).unwrap();
            stranger.set_read_timeout(Some(PATIENCE)).unwrap();
            stranger
        };
        for _ in 0..3 {
            let mut words = String::new();
            let read = tokio::task::block_in_place(|| connect().read_to_string(&mut words));
            // greeted, and left for the server, which has come back
            read.unwrap();
            assert!(words.contains("guarding"), "{words}");
        }
        assert_eq!(instance.exited(), None);
        // nor is an order lost that is given at that moment
        let stranger = connect();
        assert_eq!(instance.stop(PATIENCE).await, Exit::Code(7));
        drop(stranger);
        bench.check_nothing_left();
    }
}

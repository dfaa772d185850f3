//! Whose guards and records an engine takes for its own, and what it does about a guard that is gone
//! or spoken to by others.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use engines::Exit;
use engines::process::{IsolationMode, ProcessEngine};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oci::RunConfig;
use serde_json::Value;

use crate::images::command;
use crate::server::Server;
use crate::setup::{Bench, MODES, PATIENCE, running, until};

/// Ends with 7 when it is asked to.
const ASKED: &str = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done";

fn engine(bench: &Bench, root: &Path, mode: IsolationMode) -> ProcessEngine {
    ProcessEngine::new(bench.settings(mode, root)).unwrap()
}

fn record(root: &Path) -> Value {
    let text = fs::read(root.join("instances/one/instance.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn pid(process: &Value) -> Pid {
    Pid::from_raw(i32::try_from(process["pid"].as_i64().unwrap()).unwrap())
}

fn runs(process: &Value) -> bool {
    running(pid(process).as_raw())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_directory_ends_nothing_of_the_original() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let image = bench.app(command(&["/bin/sleep", "600"]));
        let instance = bench.engine.start(bench.spec("one", image)).await.unwrap();
        // as it was copied, and as one would be that does not say whose it is
        for says in [true, false] {
            let other = bench.folder.path().join(format!("other-{says}"));
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

/// Kills guard and init so that neither sees the end of the other.
fn kill_above(record: &Value) {
    let program = &record["program"];
    let mut above = vec![record["guard"].clone()];
    let others = record["others"].as_array().unwrap().iter();
    above.extend(others.filter(|other| *other != program).take(1).cloned());
    assert_eq!(above.len(), 2, "guard and init: {record}");
    for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
        for process in &above {
            let _ = kill(pid(process), signal);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_whose_guard_and_init_are_killed_does_not_run_on() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let image = bench.app(command(&["/bin/sleep", "600"]));
        let instance = bench.engine.start(bench.spec("one", image)).await.unwrap();
        let record = record(&bench.root());
        kill_above(&record);
        let ended = tokio::time::timeout(PATIENCE, instance.wait()).await;
        assert_eq!(ended.unwrap(), Exit::Signal(9));
        assert!(!runs(&record["program"]), "{mode:?}");
        instance.stop(Duration::ZERO).await;
        bench.check_nothing_left();
    }
}

/// The processes that sleep for so many seconds.
fn sleepers(seconds: &str) -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let sleeps = |pid: &i32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.ends_with(format!("sleep\0{seconds}\0").as_bytes())
    };
    pids.filter(sleeps).collect()
}

/// Orphans with sessions of their own, one of which keeps nothing of what it was given. Where there are neither namespaces nor
/// control groups, nothing is known of that one.
#[tokio::test(flavor = "multi_thread")]
async fn orphans_whose_guard_and_init_are_killed_do_not_run_on() {
    for mode in MODES {
        let bench = Bench::new(mode);
        // a number that no other test has
        let seconds = format!("9{:07}", std::process::id());
        let script = format!(
            "./fixture leave {seconds}0; ./fixture leave {seconds}1 hidden; echo ready; \
             while :; do sleep 0.05; done"
        );
        let image = bench.app(RunConfig {
            working_dir: Some("/app".to_owned()),
            ..command(&["/bin/sh", "-c", &script])
        });
        let instance = bench.engine.start(bench.spec("one", image)).await.unwrap();
        let [known, hidden] = ["0", "1"].map(|last| format!("{seconds}{last}"));
        until("both orphans run", || {
            [&known, &hidden].iter().all(|one| sleepers(one).len() == 1)
        })
        .await;
        let record = record(&bench.root());
        let in_group = !record["groups"].as_array().unwrap().is_empty();
        if let Ok(expected) = std::env::var("ENGINES_HELD")
            && !bench.engine.isolation().has_namespaces()
        {
            assert_eq!(in_group.to_string(), expected, "{record}");
        }
        kill_above(&record);
        let ended = tokio::time::timeout(PATIENCE, instance.wait()).await;
        assert_eq!(ended.unwrap(), Exit::Signal(9));
        instance.stop(Duration::ZERO).await;
        assert_eq!(sleepers(&known), Vec::<i32>::new(), "{mode:?}");
        let left = sleepers(&hidden);
        let is_held = in_group || bench.engine.isolation().has_namespaces();
        assert!(left.is_empty() || !is_held, "{mode:?}");
        for pid in left {
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        }
        bench.check_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_at_a_guard_that_has_a_server() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let image = bench.app(command(&["/bin/sh", "-c", ASKED]));
        let mut server = Server::start(&bench, mode, image, PATIENCE);
        until("it is ready", || server.log() == ["ready"]).await;
        let socket = server.root.join("instances/held/guard.sock");
        assert!(UnixStream::connect(&socket).is_err());
        server.kill();
        until("it listens", || socket.exists()).await;
        let engine = engine(&bench, &server.root, mode);
        let [instance] = &engine.adopt().await.unwrap()[..] else {
            panic!("one instance")
        };
        // It says what it guards before it stops to listen.
        until("nobody else gets at it", || {
            UnixStream::connect(&socket).is_err()
        })
        .await;
        assert_eq!(instance.stop(PATIENCE).await, Exit::Code(7));
        drop(engine);
        bench.check_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_no_server_took_note_of_is_told_to_the_next() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let image = bench.app(command(&["/bin/sh", "-c", ASKED]));
        let mut server = Server::start(&bench, mode, image, PATIENCE);
        until("it is ready", || server.log() == ["ready"]).await;
        server.kill();
        let socket = server.root.join("instances/held/guard.sock");
        // a server that dies when it has heard, before it has done anything about it
        let mut connected = None;
        until("it listens", || {
            connected = UnixStream::connect(&socket).ok();
            connected.is_some()
        })
        .await;
        let mut dying = BufReader::new(connected.unwrap());
        let mut line = String::new();
        dying.read_line(&mut line).unwrap();
        assert!(line.contains("\"ended\":false"), "{line}");
        let order = "{\"order\":\"signal\",\"number\":15}\n";
        dying.get_mut().write_all(order.as_bytes()).unwrap();
        line.clear();
        dying.read_line(&mut line).unwrap();
        assert!(line.contains("\"exited\""), "{line}");
        drop(dying);
        let engine = engine(&bench, &server.root, mode);
        let [instance] = &engine.adopt().await.unwrap()[..] else {
            panic!("one instance")
        };
        assert_eq!(instance.wait().await, Exit::Code(7));
        instance.stop(Duration::ZERO).await;
        drop(engine);
        bench.check_nothing_left();
    }
}

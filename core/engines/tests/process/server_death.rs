//! What becomes of the instances of a server that is killed: the next one takes them over, or cleans up,
//! or nobody comes and they end.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use engines::process::{IsolationMode, ProcessEngine};
use engines::{EngineError, Exit};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::images::command;
use crate::server::Server;
use crate::setup::{Bench, MODES, processes, program, running, until};

/// Longer than a test takes.
const LONG: Duration = Duration::from_mins(5);

#[tokio::test(flavor = "multi_thread")]
async fn nothing_outlives_a_killed_server_where_nothing_may() {
    for mode in MODES {
        let bench = Bench::new(mode);
        // one that ignores what it can, with an orphan that left its session
        let script = "trap '' TERM INT HUP; (sleep 600 &); while :; do sleep 0.01; done";
        let image = bench.app(command(&["/bin/sh", "-c", script]));
        let mut server = Server::start(&bench, mode, image, Duration::ZERO);
        let folder = server.root.clone();
        until("it runs", || processes(&folder).len() >= 3).await;
        server.kill();
        until("it is ended", || processes(&folder).is_empty()).await;
        next_server_cleans_up(&bench, mode, &server);
        bench.check_nothing_left();
    }
}

fn next_server_cleans_up(bench: &Bench, mode: IsolationMode, server: &Server) {
    let instance = server.root.join("instances/held");
    assert!(
        instance.join("instance.json").exists(),
        "the record is what the next one goes by"
    );
    fs::create_dir(server.root.join("tmp/image-half")).unwrap();
    let engine = ProcessEngine::new(bench.settings(mode, &server.root)).unwrap();
    let sweep =
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(engine.sweep()));
    sweep.unwrap();
    assert!(!instance.exists());
    assert!(!server.root.join("tmp/image-half").exists());
}

/// Counts, and ends with 7 when it is asked to.
const COUNTING: &str = "trap 'echo asked; exit 7' TERM; \
                        i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done";

#[tokio::test(flavor = "multi_thread")]
async fn the_next_server_takes_over_what_has_never_stopped() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let image = bench.app(command(&["/bin/sh", "-c", COUNTING]));
        let mut first = Server::start(&bench, mode, image, LONG);
        until("it counts", || first.log().len() > 3).await;
        let before = first.processes();
        first.kill();
        let so_far = first.log().len();
        until("it counts on", || first.log().len() > so_far + 3).await;
        let mut second = Server::start(&bench, mode, image, LONG);
        assert_eq!(second.pid, first.pid);
        assert_eq!(second.processes(), before, "the same processes");
        let so_far = second.log().len();
        until("it still counts", || second.log().len() > so_far + 3).await;
        // and it is the second one's to lose, and the third one's to stop
        second.kill();
        let engine = ProcessEngine::new(bench.settings(mode, &second.root)).unwrap();
        let [instance] = &engine.adopt().await.unwrap()[..] else {
            panic!("one instance")
        };
        engine.sweep().await.unwrap();
        assert_eq!(instance.exited(), None);
        assert_eq!(instance.stop(LONG).await, Exit::Code(7));
        let mut log = second.log();
        assert_eq!(log.pop().as_deref(), Some("asked"));
        let expected: Vec<String> = (0..log.len()).map(|number| number.to_string()).collect();
        assert_eq!(log, expected, "nothing is missing");
        assert!(!second.root.join("instances/held").exists());
        drop(engine);
        bench.check_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_follows_the_directory_that_is_moved() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let image = bench.app(command(&["/bin/sh", "-c", COUNTING]));
        let mut server = Server::start(&bench, mode, image, LONG);
        until("it counts", || server.log().len() > 3).await;
        server.kill();
        let moved = bench.folder.path().join("moved");
        let before = std::mem::replace(&mut server.root, moved);
        fs::rename(&before, &server.root).unwrap();
        // the guard finds the file by its name, whoever puts it aside
        let log = server.root.join("held.log");
        fs::rename(&log, server.root.join("held.log.1")).unwrap();
        until("it is found where it is now", || server.log().len() > 3).await;
        let engine = ProcessEngine::new(bench.settings(mode, &server.root)).unwrap();
        let [instance] = &engine.adopt().await.unwrap()[..] else {
            panic!("one instance")
        };
        assert!(!instance.log_tail(1).is_empty());
        assert_eq!(instance.stop(LONG).await, Exit::Code(7));
        assert!(!before.exists(), "nothing is written where it was");
        drop(engine);
        bench.check_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn how_it_ended_without_a_server_is_told_to_the_next() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let script =
            "trap 'echo last words; exit 9' TERM; echo ready; while :; do sleep 0.01; done";
        let image = bench.app(command(&["/bin/sh", "-c", script]));
        let mut first = Server::start(&bench, mode, image, LONG);
        until("it is ready", || first.log() == ["ready"]).await;
        first.kill();
        let program = first.pid;
        kill(program, Signal::SIGTERM);
        until("it has ended", || !running(program)).await;
        let mut second = Server::start(&bench, mode, image, LONG);
        assert_eq!(second.line(), "ended with exit code 9");
        assert_eq!(second.log(), ["ready", "last words"]);
        until("nothing of it is left", || {
            processes(&second.root).is_empty()
        })
        .await;
        second.kill();
        bench.check_nothing_left();
    }
}

fn kill(pid: i32, signal: Signal) {
    nix::sys::signal::kill(Pid::from_raw(pid), signal).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn when_no_server_comes_it_is_asked_to_end() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let image = bench.app(command(&["/bin/sh", "-c", COUNTING]));
        let mut server = Server::start(&bench, mode, image, Duration::from_millis(300));
        until("it counts", || server.log().len() > 3).await;
        server.kill();
        until("it is ended", || processes(&server.root).is_empty()).await;
        let log = server.log();
        let note = "[engine] no server came back within 0 s: the instance is ended";
        assert!(log.iter().any(|line| line == note), "{log:#?}");
        assert_eq!(log.last().unwrap(), "asked");
        next_server_cleans_up(&bench, mode, &server);
        bench.check_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_gone_ends_what_nobody_can_find_again() {
    let bench = Bench::new(IsolationMode::Auto);
    let image = bench.app(command(&["/bin/sleep", "600"]));
    let mut server = Server::start(&bench, IsolationMode::Auto, image, LONG);
    let pid = server.pid;
    server.kill();
    assert!(running(pid));
    fs::remove_file(server.root.join("instances/held/instance.json")).unwrap();
    until("it is ended", || !running(pid)).await;
    until("its guard too", || processes(&server.root).is_empty()).await;
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_whose_guard_does_not_answer_is_ended_and_not_taken_over() {
    let bench = Bench::new(IsolationMode::Auto);
    let image = bench.app(command(&["/bin/sleep", "600"]));
    let mut server = Server::start(&bench, IsolationMode::Auto, image, LONG);
    server.kill();
    let guard = server.record()["guard"]["pid"].as_i64().unwrap();
    kill(i32::try_from(guard).unwrap(), Signal::SIGSTOP);
    let engine = ProcessEngine::new(bench.settings(IsolationMode::Auto, &server.root)).unwrap();
    assert!(engine.adopt().await.unwrap().is_empty());
    engine.sweep().await.unwrap();
    assert!(processes(&server.root).is_empty());
    assert!(!server.root.join("instances/held").exists());
    drop(engine);
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_of_a_later_server_is_ended_and_not_taken_over() {
    let bench = Bench::new(IsolationMode::Auto);
    let image = bench.app(command(&["/bin/sleep", "600"]));
    let mut server = Server::start(&bench, IsolationMode::Auto, image, LONG);
    server.kill();
    let path = server.root.join("instances/held/instance.json");
    let mut record = server.record();
    record["version"] = 1000.into();
    fs::write(path, record.to_string()).unwrap();
    let engine = ProcessEngine::new(bench.settings(IsolationMode::Auto, &server.root)).unwrap();
    assert!(engine.adopt().await.unwrap().is_empty());
    assert!(running(server.pid));
    engine.sweep().await.unwrap();
    assert!(processes(&server.root).is_empty());
    drop(engine);
    bench.check_nothing_left();
}

/// A process at the socket of the instance `id`, which answers with `line`.
fn impostor(root: &Path, id: &str, line: &str) -> Child {
    let directory = root.join("instances").join(id);
    fs::create_dir_all(&directory).unwrap();
    let mut child = Command::new(program("engine-fixture"))
        .arg("answer")
        .arg(directory.join("guard.sock"))
        .arg(line)
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let output = child.stdout.take().unwrap();
    BufReader::new(output).read_line(&mut said).unwrap();
    assert_eq!(said, "listening\n");
    child
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_not_the_recorded_guard_or_speaks_otherwise_is_not_believed() {
    let bench = Bench::new(IsolationMode::Auto);
    let image = bench.app(command(&["/bin/sleep", "600"]));
    let instance = bench.engine.start(bench.spec("one", image)).await.unwrap();
    let record = fs::read(bench.root().join("instances/one/instance.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let root = bench.folder.path().join("other");
    let says = |protocol: u32| {
        format!(r#"{{"report":"guarding","protocol":{protocol},"pid":2,"ended":false}}"#)
    };
    fs::create_dir(&root).unwrap();
    // as a guard, in the engine's directory
    let mut bystander = Command::new("sleep");
    let mut bystander = bystander.arg("600").current_dir(&root).spawn().unwrap();
    let mut ended = Vec::new();
    for (id, protocol) in [("later", 1000), ("stranger", 1), ("garbage", 1)] {
        let line = match id {
            "garbage" => "this is no report".to_owned(),
            _ => says(protocol),
        };
        let child = impostor(&root, id, &line);
        let guard = match id {
            "stranger" => bystander.id(),
            _ => child.id(),
        };
        let mut record = record.clone();
        record["guard"]["pid"] = guard.into();
        record["guard"]["started"] = started(guard).into();
        record["others"] = serde_json::Value::Array(Vec::new());
        record["engine"]["inode"] = fs::metadata(&root).unwrap().ino().into();
        let path = root.join("instances").join(id).join("instance.json");
        fs::write(path, record.to_string()).unwrap();
        ended.push((id, child));
    }
    let engine = ProcessEngine::new(bench.settings(IsolationMode::Auto, &root)).unwrap();
    assert!(engine.adopt().await.unwrap().is_empty());
    engine.sweep().await.unwrap();
    assert_eq!(fs::read_dir(root.join("instances")).unwrap().count(), 0);
    // what was recorded is ended, whoever it is; the stranger at the socket was not
    assert!(!bystander.wait().unwrap().success());
    for (id, mut child) in ended {
        assert_eq!(
            child.try_wait().unwrap().is_some(),
            id != "stranger",
            "{id}"
        );
        let _ = child.kill();
        child.wait().unwrap();
    }
    assert_eq!(instance.exited(), None);
    instance.stop(Duration::ZERO).await;
    drop(engine);
    bench.check_nothing_left();
}

/// When a process was started, as the kernel counts.
fn started(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit_once(')').unwrap().1;
    fields.split_whitespace().nth(19).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_recorded_is_swept() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let image = bench.app(command(&["/bin/sh", "-c", "(sleep 600 &); sleep 600"]));
        let mut server = Server::start(&bench, mode, image, LONG);
        until("it runs", || processes(&server.root).len() >= 3).await;
        server.kill();
        let engine = ProcessEngine::new(bench.settings(mode, &server.root)).unwrap();
        engine.sweep().await.unwrap();
        assert!(processes(&server.root).is_empty());
        assert!(!server.root.join("instances/held").exists());
        drop(engine);
        bench.check_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_processes_that_are_gone_ends_nobody() {
    let bench = Bench::new(IsolationMode::Auto);
    let image = bench.app(command(&["/bin/sleep", "600"]));
    let instance = bench.engine.start(bench.spec("one", image)).await.unwrap();
    let other = bench.folder.path().join("other");
    for (number, change) in ["started", "boot"].into_iter().enumerate() {
        let directory = other.join(format!("instances/{number}"));
        fs::create_dir_all(&directory).unwrap();
        let text = fs::read_to_string(bench.root().join("instances/one/instance.json")).unwrap();
        // the same ids at another time, or under another start of the machine
        let text = match change {
            "started" => text.replace("\"started\":", "\"started\":1"),
            _ => text.replace("\"boot\":\"", "\"boot\":\"other-"),
        };
        fs::write(directory.join("instance.json"), text).unwrap();
    }
    let engine = ProcessEngine::new(bench.settings(IsolationMode::Auto, &other)).unwrap();
    engine.sweep().await.unwrap();
    assert_eq!(fs::read_dir(other.join("instances")).unwrap().count(), 0);
    assert_eq!(instance.exited(), None);
    instance.stop(Duration::ZERO).await;
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_has_one_engine_at_a_time() {
    let bench = Bench::new(IsolationMode::Auto);
    let settings = bench.settings(IsolationMode::Off, &bench.root());
    let Err(error) = ProcessEngine::new(settings) else {
        panic!("two engines in one directory")
    };
    assert!(matches!(error, EngineError::RootInUse { .. }), "{error}");
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_leaves_own_instances_alone() {
    let bench = Bench::new(IsolationMode::Auto);
    let image = bench.app(command(&["/bin/sleep", "600"]));
    let instance = bench.engine.start(bench.spec("one", image)).await.unwrap();
    bench.engine.sweep().await.unwrap();
    assert_eq!(instance.exited(), None);
    instance.stop(Duration::ZERO).await;
    bench.check_nothing_left();
}

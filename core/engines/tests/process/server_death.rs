//! A server that is killed leaves nothing running, and the next one cleans up.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use engines::process::{EngineError, Exit, IsolationMode, ProcessEngine, Settings};

use crate::images::command;
use crate::setup::{Bench, MODES, free_port, launcher, processes, program, until};

struct Server {
    child: Child,
    _output: BufReader<ChildStdout>,
    root: std::path::PathBuf,
}

/// Starts a server of its own that runs one instance in another directory than the bench's.
fn serve(bench: &Bench, mode: IsolationMode, image: oci::Digest) -> Server {
    let root = bench.folder.path().join("other");
    let mut child = Command::new(program("engine-server"))
        .arg(if mode == IsolationMode::Off {
            "off"
        } else {
            "auto"
        })
        .arg(program("engine-launcher"))
        .arg(bench.store.root())
        .arg(&root)
        .args([image.to_string(), free_port().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert!(line.starts_with("started "), "{line}");
    Server {
        child,
        _output: output,
        root,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_outlives_a_killed_server() {
    for mode in MODES {
        let bench = Bench::new(mode);
        // one that ignores what it can, with an orphan that left its session
        let script = "trap '' TERM INT HUP; (sleep 600 &); while :; do sleep 0.01; done";
        let image = bench.app(command(&["/bin/sh", "-c", script]));
        let mut server = serve(&bench, mode, image);
        let folder = server.root.clone();
        until("it runs", || processes(&folder).len() >= 3).await;
        server.child.kill().unwrap();
        server.child.wait().unwrap();
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
    let engine = ProcessEngine::new(settings(bench, mode, &server.root)).unwrap();
    let sweep =
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(engine.sweep()));
    sweep.unwrap();
    assert!(!instance.exists());
    assert!(!server.root.join("tmp/image-half").exists());
}

fn settings(bench: &Bench, mode: IsolationMode, root: &Path) -> Settings {
    Settings {
        store: Arc::clone(&bench.store),
        root: root.to_owned(),
        launcher: launcher(),
        isolation: mode,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_recorded_is_swept() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let image = bench.app(command(&["/bin/sh", "-c", "(sleep 600 &); sleep 600"]));
        let instance = bench.engine.start(bench.spec("one", image)).await.unwrap();
        // the record as an earlier server of another directory would have left it
        let other = bench.folder.path().join("other");
        let directory = other.join("instances/one");
        fs::create_dir_all(&directory).unwrap();
        let record = "instances/one/instance.json";
        fs::copy(bench.root().join(record), other.join(record)).unwrap();
        let engine = ProcessEngine::new(settings(&bench, mode, &other)).unwrap();
        engine.sweep().await.unwrap();
        assert!(!directory.exists());
        assert_eq!(instance.wait().await, Exit::Signal(9));
        instance.stop(Duration::ZERO).await;
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
    let engine = ProcessEngine::new(settings(&bench, IsolationMode::Auto, &other)).unwrap();
    engine.sweep().await.unwrap();
    assert_eq!(fs::read_dir(other.join("instances")).unwrap().count(), 0);
    assert_eq!(instance.exited(), None);
    instance.stop(Duration::ZERO).await;
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_has_one_engine_at_a_time() {
    let bench = Bench::new(IsolationMode::Auto);
    let settings = Settings {
        store: Arc::clone(&bench.store),
        root: bench.root(),
        launcher: launcher(),
        isolation: IsolationMode::Off,
    };
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

//! A server that is killed leaves nothing running, and the next one cleans up.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use engines::process::{EngineError, IsolationMode, ProcessEngine, Settings};

use crate::images::{PROGRAM, command};
use crate::setup::{Bench, MODES, free_port, launcher, processes, program, until};

struct Server {
    child: Child,
    _output: BufReader<ChildStdout>,
    root: std::path::PathBuf,
}

/// Starts a server of its own that runs one instance in another directory than the bench's.
fn serve(bench: &Bench, mode: IsolationMode, image: oci::Digest) -> Server {
    let root = bench.folder.path().join("other");
    let mut child = Command::new(program("engine-fixture"))
        .args([
            "hold",
            if mode == IsolationMode::Off {
                "off"
            } else {
                "auto"
            },
        ])
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
    std::fs::create_dir(server.root.join("tmp/image-half")).unwrap();
    let engine = ProcessEngine::new(settings(bench, mode, server)).unwrap();
    let sweep =
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(engine.sweep()));
    sweep.unwrap();
    assert!(!instance.exists());
    assert!(!server.root.join("tmp/image-half").exists());
}

fn settings(bench: &Bench, mode: IsolationMode, server: &Server) -> Settings {
    Settings {
        store: Arc::clone(&bench.store),
        root: server.root.clone(),
        launcher: launcher(),
        isolation: mode,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_server_could_not_end_is_swept() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let image = bench.app(command(&[PROGRAM, "listen"]));
        let mut server = serve(&bench, mode, image);
        let folder = server.root.clone();
        until("it runs", || processes(&folder).len() >= 2).await;
        // stopped processes do not notice that the lifeline has been cut
        let stopped: Vec<i32> = processes(&folder)
            .into_iter()
            .filter(|pid| *pid != child_id(&server))
            .collect();
        for pid in &stopped {
            signal(*pid, nix::sys::signal::Signal::SIGSTOP);
        }
        server.child.kill().unwrap();
        server.child.wait().unwrap();
        assert!(!processes(&folder).is_empty());
        next_server_cleans_up(&bench, mode, &server);
        until("all is ended", || processes(&folder).is_empty()).await;
        bench.check_nothing_left();
    }
}

fn child_id(server: &Server) -> i32 {
    i32::try_from(server.child.id()).unwrap()
}

fn signal(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
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
    instance.stop(std::time::Duration::ZERO).await;
    bench.check_nothing_left();
}

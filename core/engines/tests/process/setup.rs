//! An engine with a store and a directory of its own, and the proof that nothing is left of it.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use engines::process::{IsolationMode, Launcher, ProcessEngine, Settings};
use engines::{InstanceSpec, Resources};
use oci::{Digest, RunConfig, Store};
use tempfile::TempDir;

use crate::images;

pub(crate) const MODES: [IsolationMode; 2] = [IsolationMode::Auto, IsolationMode::Off];

/// Longer than anything takes that is going to succeed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// An engine and what it works with.
pub(crate) struct Bench {
    pub(crate) folder: TempDir,
    pub(crate) store: Arc<Store>,
    pub(crate) engine: ProcessEngine,
    runs: AtomicU32,
}

/// The programs of this package; elsewhere when the tests run as a user who cannot read them here.
pub(crate) fn program(name: &str) -> PathBuf {
    let built = match name {
        "engine-launcher" => env!("CARGO_BIN_EXE_engine-launcher"),
        "engine-server" => env!("CARGO_BIN_EXE_engine-server"),
        _ => env!("CARGO_BIN_EXE_engine-fixture"),
    };
    match std::env::var_os("ENGINES_PROGRAMS") {
        Some(folder) => PathBuf::from(folder).join(name),
        None => PathBuf::from(built),
    }
}

pub(crate) fn launcher() -> Launcher {
    Launcher {
        program: program("engine-launcher"),
        arguments: Vec::new(),
    }
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

impl Bench {
    pub(crate) fn new(mode: IsolationMode) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // what a user of an image has to get through where there are no namespaces
        open_up(folder.path());
        let store = Arc::new(Store::open(folder.path().join("store")).unwrap());
        let settings = settings(&store, mode, &folder.path().join("engine"));
        let engine = ProcessEngine::new(settings).unwrap();
        Self {
            folder,
            store,
            engine,
            runs: AtomicU32::new(0),
        }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("engine")
    }

    /// Of another engine, with the same store.
    pub(crate) fn settings(&self, mode: IsolationMode, root: &Path) -> Settings {
        settings(&self.store, mode, root)
    }

    /// The image with shell and fixture.
    pub(crate) fn app(&self, run: RunConfig) -> Digest {
        images::app(&self.store, &images_fixture(), run)
    }

    pub(crate) fn spec(&self, id: &str, image: Digest) -> InstanceSpec {
        InstanceSpec {
            id: id.to_owned(),
            repository: "test".parse().unwrap(),
            image,
            env: BTreeMap::from([("MARK".to_owned(), self.mark())]),
            port: free_port(),
            log: self.folder.path().join(format!("{id}.log")),
            command: None,
            resources: Resources::default(),
            volumes: Vec::new(),
        }
    }

    /// Runs a command in an image to its end and returns how it ended and what it printed.
    pub(crate) async fn run(&self, run: RunConfig) -> (engines::Exit, Vec<String>) {
        let image = self.app(run);
        let id = format!("run-{}", self.runs.fetch_add(1, Ordering::Relaxed));
        let instance = self.engine.start(self.spec(&id, image)).await.unwrap();
        let exit = tokio::time::timeout(PATIENCE, instance.wait())
            .await
            .expect("it ends");
        let log = instance.log_tail(1000);
        instance.stop(Duration::ZERO).await;
        (exit, log)
    }

    /// In the environment of all programs of this bench, to find them by.
    pub(crate) fn mark(&self) -> String {
        self.folder.path().display().to_string()
    }

    /// Nothing runs, no directory of an instance is left, no mount.
    pub(crate) fn check_nothing_left(self) {
        let root = self.root();
        assert_eq!(
            processes(self.folder.path()),
            Vec::<i32>::new(),
            "processes are left"
        );
        let left: Vec<_> = fs::read_dir(root.join("instances")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        let scratch: Vec<_> = fs::read_dir(root.join("tmp")).unwrap().collect();
        assert!(scratch.is_empty(), "{scratch:?}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&self.mark()), "{mounts}");
        drop(self.engine);
        remove_closed(self.folder);
    }
}

/// Of an engine whose instances end with their server.
pub(crate) fn settings(store: &Arc<Store>, mode: IsolationMode, root: &Path) -> Settings {
    Settings {
        store: Arc::clone(store),
        root: root.to_owned(),
        volumes: root.with_extension("volumes"),
        launcher: launcher(),
        isolation: mode,
        orphan: Duration::ZERO,
    }
}

/// Image trees may have directories that their owner cannot delete from.
fn remove_closed(folder: TempDir) {
    let done = std::process::Command::new("chmod")
        .args(["-R", "u+rwX"])
        .arg(folder.path())
        .status();
    assert!(done.unwrap().success());
    folder.close().unwrap();
}

pub(crate) fn images_fixture() -> PathBuf {
    program("engine-fixture")
}

/// The processes that carry the mark of a bench or work in its directory, ended ones left out.
pub(crate) fn processes(folder: &Path) -> Vec<i32> {
    let mark = format!("MARK={}", folder.display());
    let pids = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<i32>().ok());
    let belongs = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let marked = environment
            .split(|byte| *byte == 0)
            .any(|part| part.starts_with(mark.as_bytes()));
        let inside =
            fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
        marked || inside
    };
    pids.filter(belongs).collect()
}

pub(crate) fn open_up(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Whether a process is there that has not ended.
pub(crate) fn running(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// A port that nobody listens on at the moment.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Waits until `condition` holds.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

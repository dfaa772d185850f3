//! Which engine the servers of a test use.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread;

use serde_json::{Value, json};

use crate::docker::Docker;
use crate::orchestrator::Orchestrator;

/// The network of instances, shared by all tests of one Docker Engine.
const NETWORK: &str = "systemprompt-tests";

thread_local! {
    static CURRENT: RefCell<Engine> = const { RefCell::new(Engine::Process) };
}

/// What runs the instances of a server.
#[derive(Clone)]
pub(crate) enum Engine {
    Process,
    Docker {
        docker: Arc<Docker>,
        network: &'static str,
    },
    External(Arc<Orchestrator>),
}

impl Engine {
    pub(crate) fn docker() -> Self {
        Self::docker_in(Docker::start(), NETWORK)
    }

    /// One with a rollout of its own.
    pub(crate) fn external() -> Self {
        Self::External(Arc::new(Orchestrator::start()))
    }

    /// With instances in another network.
    pub(crate) fn docker_in(docker: Docker, network: &'static str) -> Self {
        let docker = Arc::new(docker);
        Self::Docker { docker, network }
    }

    /// What a server that is started now gets.
    pub(crate) fn current() -> Self {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Runs a test all of whose servers use this engine.
    pub(crate) fn run(self, test: impl FnOnce()) {
        struct Until;
        impl Drop for Until {
            fn drop(&mut self) {
                // Whatever ends with it ends here, also where the test fails.
                drop(CURRENT.replace(Engine::Process));
            }
        }
        CURRENT.set(self);
        let _until = Until;
        test();
    }

    /// The state of a deployment whose instances are being started.
    pub(crate) fn starting(&self) -> &'static str {
        match self {
            Self::Process | Self::Docker { .. } => "provisioned",
            // It gives traffic to what is ready, one by one.
            Self::External(_) => "shifting",
        }
    }

    /// Of those that change nothing before a release command has ended.
    pub(crate) fn strategies(&self) -> &'static [&'static str] {
        match self {
            Self::Process | Self::Docker { .. } => &["rolling", "recreate"],
            Self::External(_) => &["rolling"],
        }
    }

    /// For the settings of a server, behind those that a test has for the section `[engine]` if it has any.
    pub(crate) fn settings(&self, engine: &str) -> String {
        let ports = if engine.contains("instance_ports") {
            String::new()
        } else {
            format!("instance_ports = {:?}", own_ports())
        };
        match self {
            Self::Process => format!("\n[engine]\n{ports}\n{engine}\n"),
            Self::Docker { docker, network } => format!(
                "\n[engine]\nkind = \"docker\"\n{ports}\n{engine}\n[engine.docker]\nsocket = {:?}\nnetwork = {network:?}\n",
                docker.socket()
            ),
            Self::External(orchestrator) => format!(
                "\n[engine]\nkind = \"external\"\n{engine}\n[engine.external]\nsocket = \"{}\"\n",
                orchestrator.socket().display()
            ),
        }
    }

    /// What there is of instances of the server with this data folder, each with what tells its program from others.
    pub(crate) fn instances(&self, data: &Path) -> BTreeMap<String, Value> {
        match self {
            Self::Process => recorded(data),
            Self::Docker { docker, .. } => containers(docker, data),
            Self::External(orchestrator) => recorded(orchestrator.data()),
        }
    }

    /// Ends what is left in Docker, and removes the volumes. Nothing says which data folder is gone but the test that had it.
    pub(crate) fn remove_containers(&self, data: &Path) {
        let (Self::Docker { docker, .. }, Some(filter)) = (self, filter(data)) else {
            return;
        };
        let instances = containers(docker, data);
        thread::scope(|scope| {
            for instance in instances.values() {
                let id = instance["program"]["container"].as_str().unwrap();
                // The server may just be removing it.
                let removal = format!("/containers/{id}?force=1&v=1");
                scope.spawn(move || docker.request("DELETE", &removal));
            }
        });
        let (_, listed) = docker.request("GET", &format!("/volumes?{filter}"));
        for volume in listed["Volumes"].as_array().into_iter().flatten() {
            let name = volume["Name"].as_str().unwrap();
            docker.request("DELETE", &format!("/volumes/{name}"));
        }
    }
}

/// The first and the last port for instances of this test's servers: while one is dead, no other test takes those of its services.
fn own_ports() -> [u16; 2] {
    /// More than ever run side by side.
    const TESTS: u16 = 64;
    const EACH: u16 = 150;
    static OWN: OnceLock<(File, u16)> = OnceLock::new();
    let (_, own) = OWN.get_or_init(|| {
        // Locked until this process ends.
        let lock = |number| {
            let name = format!("instance-ports-{number}");
            let file = File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)).unwrap();
            file.try_lock().is_ok().then_some((file, number))
        };
        (0..TESTS).find_map(lock).expect("ports for this test")
    });
    let first = 10_000 + own * EACH;
    [first, first + EACH - 1]
}

/// From the records in the data folder.
fn recorded(data: &Path) -> BTreeMap<String, Value> {
    let entries = fs::read_dir(data.join("engine/instances"));
    let entries = entries.into_iter().flatten().flatten();
    let record = |entry: fs::DirEntry| {
        let text = fs::read(entry.path().join("instance.json")).ok()?;
        let name = entry.file_name().into_string().ok()?;
        Some((name, serde_json::from_slice(&text).ok()?))
    };
    entries.filter_map(record).collect()
}

/// What is of the server with this data folder, as a parameter for Docker.
fn filter(data: &Path) -> Option<String> {
    let text = fs::read(data.join("engine/docker/server.json")).ok()?;
    let server: Value = serde_json::from_slice(&text).unwrap();
    let id = server["id"].as_str().unwrap();
    // `{"label": ["io.systemprompt.server=ID"]}`
    Some(format!(
        "filters=%7B%22label%22:%5B%22io.systemprompt.server={id}%22%5D%7D"
    ))
}

fn containers(docker: &Docker, data: &Path) -> BTreeMap<String, Value> {
    let Some(filter) = filter(data) else {
        return BTreeMap::new();
    };
    let (status, listed) = docker.request("GET", &format!("/containers/json?all=1&{filter}"));
    assert_eq!(status, 200, "{listed}");
    let container = |found: &Value| {
        let id = found["Id"].as_str().unwrap();
        let instance = found["Labels"]["io.systemprompt.instance"].as_str()?;
        let (status, seen) = docker.request("GET", &format!("/containers/{id}/json"));
        // One that is gone by now is none.
        let pid = (status == 200).then(|| seen["State"]["Pid"].as_u64().unwrap())?;
        let program = json!({ "container": id, "pid": pid });
        Some((instance.to_owned(), json!({ "program": program })))
    };
    let listed = listed.as_array().unwrap().iter();
    listed.filter_map(container).collect()
}

//! A Docker Engine of the tests' own: private socket, private data, no bridge, no firewall rules.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use crate::process::{Daemon, Finished, eventually, need_program, run};

/// Where `cargo xtask test` says that an engine already runs for all tests.
pub const SHARED_HOST: &str = "SYSTEMPROMPT_TEST_DOCKER_HOST";
/// Where it says that an engine with a `BuildKit` of 2023 or later runs, and with which client and
/// client's configuration it is spoken to.
const NEWER: [&str; 3] = [
    "SYSTEMPROMPT_TEST_BUILDKIT_HOST",
    "SYSTEMPROMPT_TEST_BUILDKIT_CLIENT",
    "SYSTEMPROMPT_TEST_BUILDKIT_CONFIG",
];
/// It starts in two seconds; a loaded machine takes longer.
const READY: Duration = Duration::from_secs(90);
const LIMIT: Duration = Duration::from_mins(4);

/// An engine to run images in. One that was started here is ended, with all of its containers and
/// files, when this is dropped.
#[derive(Debug)]
pub struct DockerEngine {
    host: String,
    own: Option<Own>,
    /// Client configuration, so that the user's own is neither read nor written.
    client: TempDir,
}

#[derive(Debug)]
struct Own {
    daemon: Option<Daemon>,
    folder: TempDir,
}

impl DockerEngine {
    /// The engine that all tests share, or else one of this test alone.
    #[must_use]
    pub fn get() -> Self {
        let client = tempfile::tempdir().expect("a temporary folder");
        if let Ok(host) = std::env::var(SHARED_HOST) {
            let engine = Self {
                host,
                own: None,
                client,
            };
            engine.docker(["version"]).expect_success();
            return engine;
        }
        Self::start(client)
    }

    /// An engine whose `BuildKit` builds, and the variables with which whatever runs `docker` does
    /// so through it.
    #[must_use]
    pub fn newer() -> (Self, [(&'static str, String); 3]) {
        let [host, client, config] = NEWER.map(|name| {
            std::env::var(name).unwrap_or_else(|_| {
                panic!("a newer BuildKit is missing ({name}): run `cargo xtask test --setup`")
            })
        });
        let folder = Path::new(&client).parent().expect("a client in a folder");
        let others = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{others}", folder.display());
        let engine = Self {
            host: host.clone(),
            own: None,
            client: tempfile::tempdir().expect("a temporary folder"),
        };
        let variables = [
            ("DOCKER_HOST", host),
            ("DOCKER_CONFIG", config),
            ("PATH", path),
        ];
        (engine, variables)
    }

    fn start(client: TempDir) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "a Docker Engine needs root: run `cargo xtask test`, which uses sudo, or set {SHARED_HOST}"
        );
        let program = need_program("dockerd");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = folder.path().join("log");
        let host = format!("unix://{}", folder.path().join("docker.sock").display());
        let mut command = Command::new(program);
        command.args(arguments(folder.path(), &host));
        let daemon = Daemon::start(&mut command, &log);
        let own = Own {
            daemon: Some(daemon),
            folder,
        };
        let mut engine = Self {
            host,
            own: Some(own),
            client,
        };
        engine.wait_until_ready(&log);
        engine
    }

    /// For `DOCKER_HOST`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Runs the client.
    pub fn docker<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Finished {
        let mut command = Command::new(need_program("docker"));
        command
            .env("DOCKER_HOST", &self.host)
            .env("DOCKER_CONFIG", self.client.path())
            .args(arguments);
        run(&mut command, LIMIT)
    }

    /// Lets this client pull from a registry. Written as `docker login` writes it, which takes the
    /// password on its command line or on a terminal.
    pub fn log_in(&self, registry: &str, username: &str, password: &str) {
        let auth = STANDARD.encode(format!("{username}:{password}"));
        let text = serde_json::json!({"auths": {registry: {"auth": auth}}}).to_string();
        fs::write(self.client.path().join("config.json"), text)
            .expect("write the client's configuration");
    }

    fn wait_until_ready(&mut self, log: &Path) {
        let mut ended = None;
        let mut ready = false;
        eventually(READY, || {
            ready = self.docker(["info"]).status.success();
            let daemon = self.own.as_mut().and_then(|own| own.daemon.as_mut());
            ended = daemon.and_then(Daemon::has_ended);
            ready || ended.is_some()
        });
        let text = fs::read_to_string(log).unwrap_or_default();
        assert!(ready, "dockerd did not start ({ended:?}): {text}");
    }

    fn remove_containers(&self) {
        let listed = self.docker(["ps", "--all", "--quiet"]);
        let containers: Vec<_> = listed.stdout.split_whitespace().collect();
        if !containers.is_empty() {
            self.docker(["rm", "--force"].into_iter().chain(containers));
        }
    }
}

impl Drop for DockerEngine {
    fn drop(&mut self) {
        if self.own.is_some() && !std::thread::panicking() {
            self.remove_containers();
        }
        let Some(own) = &mut self.own else {
            return;
        };
        // Ends containerd and what it supervises, too.
        own.daemon.take();
        unmount_below(own.folder.path());
        // The engine makes these for plugins; they stay when anybody else uses them.
        let _ = fs::remove_dir("/run/docker/plugins");
        let _ = fs::remove_dir("/run/docker");
    }
}

/// Without a bridge and firewall rules nothing of the machine's network changes; tests run their
/// containers in the host's network.
fn arguments(folder: &Path, host: &str) -> Vec<String> {
    let below = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let words = [
        ("--host", host.to_owned()),
        ("--data-root", below("data")),
        ("--exec-root", below("exec")),
        ("--pidfile", below("pid")),
        ("--bridge", "none".to_owned()),
        ("--iptables", "false".to_owned()),
        ("--ip6tables", "false".to_owned()),
    ];
    let mut arguments: Vec<_> = words.map(|(name, value)| format!("{name}={value}")).into();
    arguments.push("--config-file".to_owned());
    let configuration = below("daemon.json");
    fs::write(&configuration, "{}").expect("write the engine's configuration");
    arguments.push(configuration);
    arguments
}

/// A container that was killed leaves its mounts; a folder with mounts cannot be removed.
fn unmount_below(folder: &Path) {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let prefix = format!("{}/", folder.display());
    let mounts = table.lines().filter_map(|line| line.split(' ').nth(1));
    for mount in mounts.filter(|mount| mount.starts_with(&prefix)) {
        run(Command::new("umount").args(["--lazy", mount]), LIMIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_answers_and_leaves_nothing() {
        let engine = DockerEngine::get();
        let version = engine.docker(["version", "--format", "{{.Server.Version}}"]);
        assert!(!version.expect_success().stdout.trim().is_empty());
        let folder = engine.own.as_ref().map(|own| own.folder.path().to_owned());
        drop(engine);
        if let Some(folder) = folder {
            assert!(!folder.exists());
            let table = fs::read_to_string("/proc/self/mounts").unwrap();
            assert!(!table.contains(&*folder.to_string_lossy()));
        }
    }
}

//! A Docker Engine that all tests of a run share: private socket and data, no bridge, no firewall
//! rules, nothing left afterwards.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::unistd::getgid;
use xshell::{Shell, cmd};

use crate::components;

/// The network of instances that tests have Docker run: `core/tests/server/engine.rs`.
const NETWORK: &str = "systemprompt-tests";
/// For the engine and all that it starts, several programs in Go a container, whose start is mostly the collection of a few
/// megabytes of garbage: a container takes a seventh less of the processors with it.
const COLLECT_LATE: [&str; 2] = ["env", "GOGC=400"];
/// Tells the tests where it listens.
pub(super) const HOST: &str = "SYSTEMPROMPT_TEST_DOCKER_HOST";
/// It starts in two seconds; a loaded machine takes longer.
const READY: Duration = Duration::from_secs(90);
/// It stops its containers first.
const STOPPED: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(50);

/// A running engine.
pub(super) struct Engine {
    child: Child,
    folder: PathBuf,
    prefix: Vec<&'static str>,
}

impl Engine {
    /// Starts it below `temporary` when it is needed; `None` when it is not.
    pub(super) fn start_if(needed: bool, root: &Path, temporary: &Path) -> Option<Result<Self>> {
        let program = || components::find_program(root, "dockerd").context("dockerd is missing");
        let start = || {
            let engine = Self::start(&program()?, temporary.join("docker"))?;
            engine.make_network()?;
            Ok(engine)
        };
        needed.then(start)
    }

    /// Once: many servers that start at the same time would all make it.
    fn make_network(&self) -> Result<()> {
        let shell = Shell::new().context("cannot start commands")?;
        let host = self.host();
        let made = cmd!(shell, "docker --host {host} network create {NETWORK}");
        let made = made.quiet().ignore_stdout().run();
        made.context("cannot make the network of test instances")
    }

    /// Starts `program` with all its files in `folder`, which is made.
    pub(super) fn start(program: &Path, folder: PathBuf) -> Result<Self> {
        let shell = Shell::new().context("cannot start commands")?;
        let prefix = components::as_root(&shell).context("cannot start dockerd")?;
        fs::create_dir(&folder).context("cannot make the engine's folder")?;
        fs::write(folder.join("daemon.json"), "{}").context("cannot write its configuration")?;
        let child = spawn(&prefix, program, &folder)?;
        let mut engine = Self {
            child,
            folder,
            prefix,
        };
        match engine.wait_until_ready() {
            Ok(()) => Ok(engine),
            Err(error) => {
                let log = fs::read_to_string(engine.folder.join("log")).unwrap_or_default();
                let _ = engine.stop();
                Err(error.context(format!("dockerd did not start:\n{}", last_lines(&log))))
            }
        }
    }

    /// For `DOCKER_HOST`.
    pub(super) fn host(&self) -> String {
        format!("unix://{}", self.folder.join("docker.sock").display())
    }

    /// Stops it with all of its containers and removes its files.
    pub(super) fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        if self.is_running() {
            self.remove_networks();
            self.terminate();
        }
        let deadline = Instant::now() + STOPPED;
        while self.is_running() && Instant::now() < deadline {
            thread::sleep(POLL);
        }
        if self.is_running() {
            self.as_root(&["kill", "-KILL", &self.child.id().to_string()]);
        }
        self.child.wait().context("cannot reap dockerd")?;
        self.remove_files()
    }

    /// Their bridges would outlive the engine.
    fn remove_networks(&self) {
        let host = self.host();
        self.as_root(&["docker", "--host", &host, "network", "prune", "--force"]);
    }

    /// Through `kill`, because a process that sudo has started is not ours to signal. sudo passes
    /// the signal on.
    fn terminate(&self) {
        self.as_root(&["kill", "-TERM", &self.child.id().to_string()]);
    }

    fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let shell = Shell::new().context("cannot start commands")?;
        let host = self.host();
        let deadline = Instant::now() + READY;
        while Instant::now() < deadline {
            let info = cmd!(shell, "docker --host {host} info");
            if info.quiet().ignore_stdout().ignore_stderr().run().is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait().context("cannot wait for dockerd")? {
                bail!("it ended: {status}");
            }
            thread::sleep(POLL);
        }
        bail!("no answer in {READY:?}")
    }

    fn remove_files(&self) -> Result<()> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let prefix = format!("{}/", self.folder.display());
        for mount in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
            if mount.starts_with(&prefix) {
                self.as_root(&["umount", "--lazy", mount]);
            }
        }
        // The engine makes these for plugins; they stay when anybody else uses them.
        self.as_root(&["rmdir", "/run/docker/plugins", "/run/docker"]);
        self.as_root(&[
            "rm",
            "-rf",
            "--one-file-system",
            &self.folder.to_string_lossy(),
        ]);
        if self.folder.exists() {
            bail!("cannot remove {}", self.folder.display());
        }
        Ok(())
    }

    /// What goes wrong here shows in what is left behind, which is checked.
    fn as_root(&self, words: &[&str]) {
        let words: Vec<_> = self.prefix.iter().chain(words).collect();
        let _ = Command::new(words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

impl Drop for Engine {
    /// Also when a panic comes between; after `stop` there is nothing left to do.
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// In a process group of its own, so that Ctrl-C on the terminal does not end it under the tests.
fn spawn(prefix: &[&str], program: &Path, folder: &Path) -> Result<Child> {
    let log = File::create(folder.join("log")).context("cannot create the engine's log")?;
    let arguments = arguments(folder);
    let program = program.to_string_lossy();
    let words: Vec<&str> = prefix
        .iter()
        .copied()
        .chain(COLLECT_LATE)
        .chain([&*program])
        .chain(arguments.iter().map(String::as_str))
        .collect();
    Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot share the engine's log")?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .context("cannot start dockerd")
}

/// Containers run in the host's network, so that the machine's own network stays as it is.
fn arguments(folder: &Path) -> Vec<String> {
    let below = |name: &str| folder.join(name).to_string_lossy().into_owned();
    vec![
        format!("--host=unix://{}", below("docker.sock")),
        format!("--data-root={}", below("data")),
        format!("--exec-root={}", below("exec")),
        format!("--pidfile={}", below("pid")),
        format!("--config-file={}", below("daemon.json")),
        format!("--group={}", getgid()),
        "--bridge=none".to_owned(),
        "--iptables=false".to_owned(),
        "--ip6tables=false".to_owned(),
    ]
}

fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

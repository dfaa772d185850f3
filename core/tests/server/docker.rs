//! A Docker Engine for tests: the shared one, or one of a test's own.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::harness::{BOUND, until};

/// Where `cargo xtask test` says that an engine already runs for all tests.
const SHARED_HOST: &str = "SYSTEMPROMPT_TEST_DOCKER_HOST";

/// Runs a program with this on its standard input.
pub(crate) fn run(command: &mut Command, input: &[u8]) -> Output {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|_| panic!("{name} is missing: run `cargo xtask test --setup`"));
    // A program that reads no input may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

pub(crate) fn succeed(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a program says when it is refused.
pub(crate) fn refused(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The docker client, and an engine: the shared one, or one of this test's own without bridge and firewall rules.
pub(crate) struct Docker {
    host: String,
    daemon: Option<Child>,
    folder: tempfile::TempDir,
}

impl Docker {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        if let Ok(host) = std::env::var(SHARED_HOST) {
            return Self {
                host,
                daemon: None,
                folder,
            };
        }
        let below = |name: &str| folder.path().join(name).display().to_string();
        let host = format!("unix://{}", below("docker.sock"));
        std::fs::write(below("daemon.json"), "{}").unwrap();
        let daemon = Command::new("dockerd")
            .arg(format!("--host={host}"))
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
            .arg(format!("--pidfile={}", below("pid")))
            .arg(format!("--data-root={}", below("data")))
            .arg(format!("--exec-root={}", below("exec")))
            .arg(format!("--config-file={}", below("daemon.json")))
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(below("log")).unwrap())
            .spawn()
            .unwrap_or_else(|_| panic!("dockerd is missing: run `cargo xtask test --setup`"));
        let mut docker = Self {
            host,
            daemon: Some(daemon),
            folder,
        };
        let log = docker.folder.path().join("log");
        until("dockerd answers", || {
            let ended = docker.daemon.as_mut().unwrap().try_wait().unwrap();
            let log = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(
                ended.is_none(),
                "dockerd has ended (it needs root): {}",
                log()
            );
            docker.docker(&["version"]).status.success().then_some(())
        });
        docker
    }

    pub(crate) fn docker(&self, arguments: &[&str]) -> Output {
        self.docker_with(arguments, b"")
    }

    /// The path of its socket.
    pub(crate) fn socket(&self) -> &str {
        self.host.trim_start_matches("unix://")
    }

    /// What the engine answers to a request without a body: its status, and what it says if that is JSON. Tests look at their
    /// containers many times a second, for which a client of its own each time is far too much.
    pub(crate) fn request(&self, method: &str, path: &str) -> (u16, Value) {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(BOUND)).unwrap();
        // Of this version an answer ends with its connection.
        write!(stream, "{method} {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or_default())
    }

    /// What the client prints.
    pub(crate) fn ask(&self, arguments: &[&str]) -> String {
        succeed(&self.docker(arguments))
    }

    pub(crate) fn docker_with(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = Command::new("docker");
        command
            .args(arguments)
            .env("DOCKER_HOST", &self.host)
            .env("DOCKER_CONFIG", self.folder.path().join("client"));
        run(&mut command, input)
    }

    pub(crate) fn log_in(&self, host: &str, token: &str) -> Output {
        let words = ["login", host, "-u", "anybody", "--password-stdin"];
        self.docker_with(&words, token.as_bytes())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let Some(mut daemon) = self.daemon.take() else {
            return;
        };
        // The network's bridge would outlive the engine.
        let _ = Command::new("docker")
            .args(["network", "prune", "--force"])
            .env("DOCKER_HOST", &self.host)
            .output();
        // Asked politely it ends its containerd, too.
        let _ = Command::new("kill").arg(daemon.id().to_string()).status();
        let started = std::time::Instant::now();
        while matches!(daemon.try_wait(), Ok(None)) && started.elapsed().as_secs() < 30 {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let _ = daemon.kill();
        let _ = daemon.wait();
        // The engine makes these for plugins; they stay when anybody else uses them.
        let _ = std::fs::remove_dir("/run/docker/plugins");
        let _ = std::fs::remove_dir("/run/docker");
    }
}

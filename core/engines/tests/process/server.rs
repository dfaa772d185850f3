//! A server in a process of its own, for tests to kill.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use engines::process::IsolationMode;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::setup::{Bench, free_port, processes, program};

pub(crate) struct Server {
    child: Child,
    output: BufReader<ChildStdout>,
    pub(crate) root: PathBuf,
    /// Of the program that it keeps running.
    pub(crate) pid: i32,
}

impl Server {
    /// Runs one instance in another directory than the bench's, or takes over the one that is there.
    pub(crate) fn start(
        bench: &Bench,
        mode: IsolationMode,
        image: oci::Digest,
        orphan: Duration,
    ) -> Self {
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
            .arg(orphan.as_millis().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut server = Self {
            child,
            output,
            root,
            pid: 0,
        };
        let line = server.line();
        let pid = line.strip_prefix("runs ").and_then(|pid| pid.parse().ok());
        server.pid = pid.unwrap_or_else(|| panic!("{line}"));
        server
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The texts of the instance's log.
    pub(crate) fn log(&self) -> Vec<String> {
        let text = fs::read_to_string(self.root.join("held.log")).unwrap_or_default();
        // Of what is being written right now, half may be there.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines = whole.lines().map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["line"].as_str().unwrap().to_owned()
        });
        lines.collect()
    }

    /// Guard and program, each with the time of its start.
    pub(crate) fn processes(&self) -> [serde_json::Value; 2] {
        let record = self.record();
        [record["guard"].clone(), record["program"].clone()]
    }

    pub(crate) fn record(&self) -> serde_json::Value {
        let text = fs::read(self.root.join("instances/held/instance.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }
}

/// A test that fails leaves nothing either.
impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            for pid in processes(&self.root) {
                let _ = nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

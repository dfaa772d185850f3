//! The deploy tool is killed at everything that it says. Whatever it had done by then: no process of it goes on, the platform ends by
//! itself what was asked of it, and the next run succeeds and says what it has found.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe2};
use serde_json::Value;
use testkit::process::{eventually, run};
use testkit::workspace::Behaviour;

use crate::machine::{Machine, server, summary, version};

/// For what goes on by itself.
const LIMIT: Duration = Duration::from_secs(30);

/// A run of the tool that can say nothing more than has been read of it: each line waits until there is room for it.
struct Held {
    child: Child,
    lines: std::fs::File,
}

impl Held {
    fn start(mut command: Command) -> Self {
        let (reading, writing) = pipe2(OFlag::O_CLOEXEC | OFlag::O_DIRECT).unwrap();
        // Room for one packet, which is what one write is.
        fcntl(&writing, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(writing)
            .process_group(0);
        let child = command.spawn().unwrap();
        Self {
            child,
            lines: reading.into(),
        }
    }

    /// The next line; none when it has ended.
    fn line(&mut self) -> Option<String> {
        let mut packet = [0; 4096];
        let read = self.lines.read(&mut packet).unwrap();
        (read > 0).then(|| String::from_utf8_lossy(&packet[..read]).into_owned())
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let group = self.child.id();
        assert!(
            eventually(LIMIT, || !is_alive(group)),
            "processes of the tool go on"
        );
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = nix::sys::signal::killpg(pid(&self.child), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

/// Whether a process is left of a group.
fn is_alive(group: u32) -> bool {
    let group = Pid::from_raw(-i32::try_from(group).unwrap());
    kill(group, None::<Signal>).is_ok()
}

/// Runs until a line is said that is wanted, and kills; that line, if there was one.
fn killed_at(command: Command, mut is_wanted: impl FnMut(&str) -> bool) -> Option<String> {
    let mut held = Held::start(command);
    while let Some(line) = held.line() {
        if is_wanted(&line) {
            held.kill();
            return Some(line);
        }
    }
    None
}

/// The newest ones, the youngest first.
fn history(machine: &Machine) -> Vec<Value> {
    let listed = machine.xtask(&["history", "--output", "json"]);
    listed.expect_success();
    listed.json().as_array().unwrap().clone()
}

fn newest(machine: &Machine) -> u64 {
    history(machine)[0]["number"].as_u64().unwrap()
}

/// Another release, without anything to compile.
fn change(machine: &Machine, text: &str) {
    machine.workspace.write("core/web/dist/release.txt", text);
}

/// What a run says that is not killed.
fn everything_said(machine: &Machine) -> Vec<String> {
    change(machine, "first");
    let mut said = Vec::new();
    let killed = killed_at(machine.command(&["deploy"]), |line| {
        said.push(line.to_owned());
        false
    });
    assert_eq!(killed, None);
    said
}

/// Kills at every line that a deployment says, from a certain one on; each time with another release.
fn check(machine: &Machine, from: &str) {
    let url = machine.deploy_well()["url"].as_str().unwrap().to_owned();
    let said = everything_said(machine);
    let first = said.iter().position(|line| line.starts_with(from));
    let first = first.unwrap_or_else(|| panic!("no {from}: {said:#?}"));
    for step in ["image", "push", "deploy", "wait"] {
        let group = format!("::group::{step}\n");
        assert!(said[first..].contains(&group), "no {step}: {said:#?}");
    }
    for line in first..said.len() {
        change(machine, &line.to_string());
        let before = newest(machine);
        let mut left = line;
        let killed = killed_at(machine.command(&["deploy"]), |_| {
            let is_it = left == 0;
            left = left.saturating_sub(1);
            is_it
        });
        // A line more or less is no matter: layers are told of as they come.
        let Some(text) = killed else { continue };
        comes_to_rest(
            machine,
            before,
            line % 2 == 0,
            &format!("killed at {text:?}"),
        );
        assert_eq!(version(&url), "one", "killed at {text:?}");
    }
    let status = machine.xtask(&["status", "--output", "json"]);
    assert_eq!(status.expect_success().json()["app_url"], url);
}

/// The next run, at once or when the platform has ended what was begun; what had been begun before the one that was killed is known.
fn comes_to_rest(machine: &Machine, before: u64, at_once: bool, what: &str) -> Value {
    let is_begun = newest(machine) > before;
    if !at_once {
        let is_over = || history(machine)[0]["finished_at"].is_string();
        assert!(
            eventually(LIMIT, is_over),
            "{what}: the platform does not end it"
        );
    }
    let finished = machine.xtask(&["deploy", "--output", "json"]);
    assert_eq!(finished.code(), 0, "{what}: {finished}");
    let report = finished.json();
    // Found on its way, found live, or new.
    let is_found = report["status"] == "unchanged"
        || summary(&report, "deploy").contains("on its way already");
    // One that was asked for may begin after its client has gone.
    assert!(is_found || !is_begun, "{what}: {report:#}");
    let rows = history(machine);
    assert_eq!(rows[0]["number"], before + 1, "{what}: {report:#}");
    assert_eq!(
        (&rows[0]["digest"], &rows[0]["live"]),
        (&report["digest"], &true.into()),
        "{what}"
    );
    assert!(
        rows.iter().all(|row| row["state"] == "succeeded"),
        "{what}: {rows:#?}"
    );
    let left = machine.workspace.left_behind();
    assert!(left.is_empty(), "{what}: {left:?}");
    report
}

#[test]
fn at_every_line_of_a_deployment_to_the_embedded_platform() {
    check(&Machine::new(), "::group::build");
}

#[test]
fn at_every_line_of_a_deployment_to_a_platform_elsewhere() {
    let platform = Platform::start();
    let machine = Machine::of(&platform.url, &platform.token, "local");
    check(&machine, "::group::token");
}

#[test]
fn while_it_compiles_and_while_it_starts_the_platform() {
    let machine = Machine::new();
    let url = machine.deploy_well()["url"].as_str().unwrap().to_owned();
    machine.edit_version("one", "two");
    let killed = killed_at(machine.command(&["deploy"]), |line| {
        line.contains("Compiling")
    });
    assert!(killed.is_some(), "nothing is compiled");
    comes_to_rest(&machine, 1, true, "killed while it compiled");
    assert_eq!(version(&url), "two");
    machine.xtask(&["local", "down"]).expect_success();
    change(&machine, "more");
    let killed = killed_at(machine.command(&["deploy"]), |line| {
        line.starts_with("::group::platform")
    });
    assert!(killed.is_some(), "no platform is started");
    machine.deploy_well();
    assert_eq!(version(&url), "two");
}

#[test]
fn before_the_platform_that_it_has_started_says_where_it_listens() {
    let machine = Machine::new();
    let up = machine.xtask(&["local", "up"]);
    let url = up.expect_success().stdout.clone();
    let server = up_and_killed(&machine);
    let mut next = machine.command(&["local", "up"]);
    let said = std::thread::scope(|scope| {
        let next = scope.spawn(|| run(&mut next, LIMIT));
        // It is slow to start.
        std::thread::sleep(Duration::from_secs(1));
        kill(server, Signal::SIGCONT).unwrap();
        next.join().unwrap()
    });
    assert_eq!(said.expect_success().stdout, url);
    assert_eq!(machine.server_file()["pid"], server.as_raw());
    // And so it is gone before its folder is.
    let server = up_and_killed(&machine);
    kill(server, Signal::SIGCONT).unwrap();
    machine.xtask(&["local", "reset", "--yes"]).expect_success();
    assert!(!machine.workspace.exists(".systemprompt/local"));
    // Whether or not somebody has waited for it.
    assert!(std::fs::read_link(format!("/proc/{server}/exe")).is_err());
}

/// Kills `local up` while the platform that it has started holds its folder and has not said where it listens. That one is stopped.
fn up_and_killed(machine: &Machine) -> Pid {
    let folder = machine.workspace.root().join(".systemprompt/local");
    // One that is too fast is tried again.
    for _ in 0..50 {
        machine.xtask(&["local", "down"]).expect_success();
        let before = machine.workspace.read(".systemprompt/local/lock");
        let mut tool = Held::start(machine.command(&["local", "up"]));
        let mut server = None;
        let is_held = || {
            let holder = std::fs::read_to_string(folder.join("lock")).unwrap_or_default();
            server = holder.trim().parse().ok().filter(|_| holder != before);
            server.is_some_and(|server| kill(Pid::from_raw(server), Signal::SIGSTOP).is_ok())
        };
        assert!(eventually(LIMIT, is_held), "no platform is started");
        tool.kill();
        if !folder.join("server.json").exists() {
            return Pid::from_raw(server.unwrap());
        }
        kill(Pid::from_raw(server.unwrap()), Signal::SIGCONT).unwrap();
    }
    panic!("the platform is always too fast");
}

#[test]
fn while_it_waits_the_next_one_waits_on() {
    let machine = Machine::new();
    machine.deploy_well();
    machine.behave(Behaviour::StartsSlowly(15_000));
    let killed = killed_at(machine.command(&["deploy"]), |line| {
        line.starts_with("::group::wait")
    });
    assert!(killed.is_some(), "nothing is waited for");
    let report = comes_to_rest(&machine, 1, true, "killed while it waited");
    let told = summary(&report, "deploy");
    assert!(
        told.starts_with("deployment 2: ") && told.contains("on its way already"),
        "{told}"
    );
}

/// A server that the tool has not started.
struct Platform {
    child: Child,
    url: String,
    token: String,
    _folder: tempfile::TempDir,
}

impl Platform {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let child = Command::new(server())
            .args(["serve", "--data"])
            .arg(&data)
            .env("HOST", "127.0.0.1")
            .env("PORT", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut announced = None;
        let is_announced = || {
            let text = std::fs::read(data.join("server.json")).unwrap_or_default();
            announced = serde_json::from_slice::<Value>(&text).ok();
            announced.is_some()
        };
        assert!(
            eventually(LIMIT, is_announced),
            "the server does not announce itself"
        );
        let token = std::fs::read_to_string(data.join("token")).unwrap();
        Self {
            child,
            url: announced.unwrap()["url"].as_str().unwrap().to_owned(),
            token: token.trim().to_owned(),
            _folder: folder,
        }
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        // Instances go with it.
        let _ = kill(pid(&self.child), Signal::SIGINT);
        if !eventually(LIMIT, || !matches!(self.child.try_wait(), Ok(None))) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

//! The platform's own life: stopped, started, killed.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::process::eventually;

use crate::machine::{Machine, get, version};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn stopped_and_started_it_serves_at_the_same_address() {
    let machine = Machine::new();
    let url = machine.deploy_well()["url"].as_str().unwrap().to_owned();
    machine.xtask(&["local", "down"]).expect_success();
    assert!(
        get(&format!("{url}/api/v1/health")).is_err(),
        "nothing serves"
    );
    machine.xtask(&["local", "status"]).expect_code(1);
    machine.xtask(&["local", "up"]).expect_success();
    assert!(eventually(LIMIT, || get(&format!("{url}/api/v1/health"))
        .is_ok_and(|(status, _)| status == 200)));
    machine.xtask(&["local", "status"]).expect_success();
}

#[test]
fn killed_it_serves_the_last_good_release_again() {
    let machine = Machine::new();
    let url = machine.deploy_well()["url"].as_str().unwrap().to_owned();
    let before = program(&machine);
    kill_server(&machine);
    machine.xtask(&["local", "up"]).expect_success();
    assert_eq!(program(&machine), before, "it has never stopped");
    assert!(eventually(LIMIT, || get(&format!("{url}/api/v1/health"))
        .is_ok_and(|(status, _)| status == 200)));
    assert_eq!(version(&url), "one");
    // And the next deployment goes on from there.
    machine.edit_version("one", "two");
    machine.deploy_well();
    assert_eq!(version(&url), "two");
}

#[test]
fn down_ends_what_waits_for_another_server() {
    let machine = Machine::new();
    machine.deploy_well();
    let (pid, _) = program(&machine);
    kill_server(&machine);
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
    machine.xtask(&["local", "down"]).expect_success();
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

fn kill_server(machine: &Machine) {
    let pid = machine.server_file()["pid"].as_i64().unwrap();
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
}

/// Process id and time of the start of the one application.
fn program(machine: &Machine) -> (i64, i64) {
    let record = machine.instance_record();
    let number = |name: &str| record["program"][name].as_i64().unwrap();
    (number("pid"), number("started"))
}

#[test]
fn started_by_several_at_once_it_is_started_once() {
    let machine = Machine::new();
    std::thread::scope(|scope| {
        let up = || machine.xtask(&["local", "up"]);
        let started: Vec<_> = (0..3).map(|_| scope.spawn(up)).collect();
        for up in started {
            up.join().unwrap().expect_success();
        }
    });
    machine.xtask(&["local", "status"]).expect_success();
    let log = machine.workspace.read(".systemprompt/local/server.log");
    assert_eq!(log.matches(" listens on ").count(), 1, "{log}");
    assert!(!log.contains("another server"), "{log}");
}

#[test]
fn reset_forgets_everything() {
    let machine = Machine::new();
    machine.deploy_well();
    let reset = machine.xtask(&["local", "reset"]);
    reset.expect_code(2).expect_stderr("reset unconfirmed");
    reset.expect_stderr("cargo xtask local reset --yes");
    machine.xtask(&["local", "status"]).expect_success();
    let reset = machine.xtask(&["local", "reset", "--yes"]);
    reset.expect_success().expect_stderr("what it serves ends");
    assert!(!machine.workspace.exists(".systemprompt/local"));
    assert_eq!(machine.deploy_well()["deployment"], 1);
}

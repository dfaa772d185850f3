//! Releases that do not become healthy: what served before serves on, and the reason is told.

use testkit::workspace::{Behaviour, Layout};

use crate::machine::{Machine, get, version};

/// Deploys a bad release after a good one and returns the error.
fn after_a_good_one(behaviour: Behaviour, more: &[&str]) -> serde_json::Value {
    let machine = Machine::new();
    let good = machine.deploy_well();
    machine.behave(behaviour);
    let (code, report) = machine.deploy(more);
    assert_eq!(code, 8, "{report:#}");
    assert_eq!(report["status"], "rolled_back");
    assert_eq!(report["previous"]["digest"], good["digest"]);
    assert_eq!(version(good["url"].as_str().unwrap()), "one");
    report["error"].clone()
}

#[test]
fn a_release_that_exits() {
    let error = after_a_good_one(Behaviour::Exits(3), &[]);
    let details = error["details"].as_str().unwrap();
    assert!(
        details.contains("exited with code 3") || details.contains("exit code 3"),
        "{details}"
    );
    assert_eq!(error["code"], "release_rolled_back");
    let tail = error["log_tail"].to_string();
    assert!(
        tail.contains("cannot go on: the configuration is wrong"),
        "{error:#}"
    );
}

#[test]
fn a_release_that_is_killed_by_a_signal() {
    let error = after_a_good_one(Behaviour::Aborts, &[]);
    let details = error["details"].as_str().unwrap();
    assert!(
        details.contains("signal 6") || details.contains("SIGABRT"),
        "{details}"
    );
}

#[test]
fn a_release_that_listens_elsewhere() {
    let error = after_a_good_one(Behaviour::ListensElsewhere, &[]);
    let details = error["details"].as_str().unwrap();
    assert!(details.contains("port"), "{details}");
}

#[test]
fn a_release_that_is_never_healthy() {
    let error = after_a_good_one(Behaviour::NeverHealthy, &["--timeout", "15s"]);
    let details = error["details"].as_str().unwrap();
    assert!(
        details.contains("503") || details.contains("healthy"),
        "{details}"
    );
}

#[test]
fn a_first_release_that_fails_has_nothing_to_return_to() {
    let machine = Machine::laid_out(&Layout::behaving(Behaviour::Exits(3)));
    let finished = machine.xtask(&["deploy"]);
    finished.expect_code(10);
    for part in [
        "Step:       wait",
        "Details:",
        "Resolution:",
        "cannot go on",
    ] {
        finished.expect_stderr(part);
    }
    assert_eq!(finished.stdout, "");
    // After the cause is corrected the same command works.
    machine.behave(Behaviour::Serves);
    let url = machine.deploy_well()["url"].as_str().unwrap().to_owned();
    assert_eq!(get(&format!("{url}/api/v1/health")).unwrap().0, 200);
}

#[test]
fn a_slow_start_is_waited_for() {
    let machine = Machine::laid_out(&Layout::behaving(Behaviour::StartsSlowly(3000)));
    assert_eq!(machine.deploy_well()["status"], "succeeded");
}

#[test]
fn code_that_does_not_compile_changes_nothing() {
    let machine = Machine::new();
    let url = machine.deploy_well()["url"].as_str().unwrap().to_owned();
    machine.workspace.edit(
        "core/src/main.rs",
        "fn main() {",
        "fn main() {\n    let x: u8 = \"\";",
    );
    let finished = machine.xtask(&["deploy"]);
    finished.expect_code(5);
    finished.expect_stderr("mismatched types");
    finished.expect_stderr("fix the code");
    assert_eq!(version(&url), "one");
}

//! History, status, logs, rollback.

use crate::machine::{Machine, version};

#[test]
fn back_to_the_release_before_and_on_to_any_other() {
    let machine = Machine::new();
    let first = machine.deploy_well();
    machine.edit_version("one", "two");
    machine.deploy_well();
    machine.edit_version("two", "three");
    let third = machine.deploy_well();
    let url = third["url"].as_str().unwrap();

    let finished = machine.xtask(&["rollback", "--output", "json"]);
    finished.expect_success();
    let report = finished.json();
    assert_eq!(report["status"], "succeeded");
    assert_eq!(report["previous"]["digest"], third["digest"]);
    assert_eq!(version(url), "two");

    let tag = first["tag"].as_str().unwrap();
    machine.xtask(&["rollback", "--to", tag]).expect_success();
    assert_eq!(version(url), "one");

    machine.xtask(&["rollback", "--to", "3"]).expect_success();
    assert_eq!(version(url), "three");

    let listed = machine.xtask(&["history", "--output", "json"]).json();
    let rows: Vec<(u64, &str, bool)> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let number = row["number"].as_u64().unwrap();
            (
                number,
                row["kind"].as_str().unwrap(),
                row["live"].as_bool().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        rows,
        [
            (6, "rollback", true),
            (5, "rollback", false),
            (4, "rollback", false),
            (3, "deploy", false),
            (2, "deploy", false),
            (1, "deploy", false),
        ]
    );
    let table = machine.xtask(&["history"]);
    table.expect_success();
    assert!(table.stdout.contains("rollback to 3"), "{}", table.stdout);
}

#[test]
fn a_rollback_needs_neither_source_nor_build() {
    let machine = Machine::new();
    let first = machine.deploy_well();
    machine.edit_version("one", "two");
    machine.deploy_well();
    std::fs::remove_dir_all(machine.workspace.root().join("core/src")).unwrap();
    std::fs::remove_dir_all(machine.workspace.root().join("target")).unwrap();
    machine.xtask(&["rollback"]).expect_success();
    assert_eq!(version(first["url"].as_str().unwrap()), "one");
}

#[test]
fn there_is_nothing_to_roll_back_after_the_first_release() {
    let machine = Machine::new();
    machine.deploy_well();
    let finished = machine.xtask(&["rollback", "--output", "json"]);
    finished.expect_code(1);
    assert_eq!(finished.json()["error"]["code"], "nothing_to_roll_back");
}

#[test]
fn status_and_logs_tell_of_the_live_release() {
    let machine = Machine::new();
    let report = machine.deploy_well();
    let status = machine.xtask(&["status", "--output", "json"]).json();
    assert_eq!(status["live"]["digest"], report["digest"]);
    let human = machine.xtask(&["status"]);
    assert!(human.stdout.contains("deployment 1"), "{}", human.stdout);
    let logs = machine.xtask(&["logs", "--filter", "starting release"]);
    logs.expect_success();
    assert!(
        logs.stdout.contains("starting release one on port"),
        "{}",
        logs.stdout
    );
    let none = machine.xtask(&["logs", "--filter", "no such words"]);
    assert_eq!(none.stdout, "");
    none.expect_stderr("no lines");

    // A proxy that is there for the world outside does not know this machine.
    let mut proxied = machine.command(&["status"]);
    proxied.env("ALL_PROXY", "http://127.0.0.1:9");
    let proxied = proxied.output().unwrap();
    assert!(proxied.status.success(), "{proxied:?}");
}

#[test]
fn what_is_not_there_is_named_and_not_taken_for_done() {
    let machine = Machine::new();
    machine.deploy_well();
    for (command, code, words) in [
        (&["rollback", "--to", "9"][..], "release_unknown", "history"),
        (
            &["abort", "--deployment", "9"],
            "deployment_unknown",
            "history",
        ),
        (
            &["abort", "--deployment", "1"],
            "nothing_in_progress",
            "rollback",
        ),
        (&["promote", "--deployment", "1"], "not_watched", "status"),
        (&["secrets", "remove", "NONE"], "secret_unknown", "list"),
    ] {
        let finished = machine.xtask(&[command, &["--output", "json"]].concat());
        finished.expect_code(1);
        let error = &finished.json()["error"];
        assert_eq!(error["code"], code, "{error:#}");
        let resolution = error["resolution"].as_str().unwrap();
        assert!(resolution.contains(words), "{error:#}");
    }
    machine.xtask(&["history", "-n", "0"]).expect_code(2);
    let none = machine.xtask(&["secrets", "list"]);
    none.expect_success().expect_stderr("there are none");
}

#[test]
fn without_a_platform_the_next_command_is_named() {
    let machine = Machine::new();
    for command in ["status", "history", "rollback", "logs"] {
        let finished = machine.xtask(&[command]);
        finished.expect_code(1);
        finished.expect_stderr("cargo xtask local up");
    }
}

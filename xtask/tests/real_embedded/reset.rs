//! Nothing is removed that nobody has confirmed, and no volume that nobody has named.

use std::process::ExitStatus;

use nix::sys::signal::Signal;
use serde_json::Value;
use testkit::AtTerminal;

use crate::machine::{Machine, get_with};

const ROWS: &str = ".systemprompt/local/volumes/local/data/rows";

fn with_a_volume() -> Machine {
    let machine = Machine::new();
    machine.workspace.write(ROWS, "rows");
    machine
        .workspace
        .write(".systemprompt/local/registry/blob", "layer");
    machine
}

/// The tool on a terminal of its own, up to its question.
fn asked(machine: &Machine) -> AtTerminal {
    let mut command = machine.command(&["local", "reset"]);
    command.env_remove("GITHUB_ACTIONS");
    AtTerminal::asked(&command, "to go on: ")
}

fn answered(machine: &Machine, text: &str) -> (ExitStatus, String) {
    let mut asked = asked(machine);
    asked.types(text);
    let (status, _, said) = asked.ended();
    (status, said)
}

#[test]
fn nothing_goes_that_nobody_has_confirmed() {
    let machine = with_a_volume();
    let refused = machine.xtask(&["local", "reset", "--volumes"]);
    refused.expect_code(2).expect_stderr("reset unconfirmed");
    refused.expect_stderr("removed: volumes, with all that is in them: local/data");
    refused.expect_stderr("cargo xtask local reset --yes --volumes");

    let (status, said) = answered(&machine, "yes\n");
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("nothing was removed"), "{said}");
    // Ctrl-C by its key and as a signal.
    let (status, said) = answered(&machine, "res\u{3}");
    assert_eq!(status.code(), Some(130), "{said}");
    let asked = asked(&machine);
    asked.signal(Signal::SIGINT);
    let (status, _, said) = asked.ended();
    assert_eq!(status.code(), Some(130), "{said}");
    assert!(
        machine
            .workspace
            .exists(".systemprompt/local/registry/blob")
    );

    let (status, said) = answered(&machine, "reset\n");
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("volumes stay: local/data"), "{said}");
    assert!(!machine.workspace.exists(".systemprompt/local/registry"));
    assert_eq!(machine.workspace.read(ROWS), "rows");

    // Nothing is asked where nothing would go.
    let again = machine.xtask(&["local", "reset"]);
    again
        .expect_success()
        .expect_stderr("nothing to remove but volumes");
    assert_eq!(machine.workspace.read(ROWS), "rows");
}

#[test]
fn the_next_platform_has_the_volumes_that_stayed() {
    let machine = with_a_volume();
    machine.xtask(&["local", "up"]).expect_success();
    machine.xtask(&["local", "reset", "--yes"]).expect_success();
    let up = machine.xtask(&["local", "up"]);
    up.expect_success();
    let volumes = volumes(&machine, up.stdout.trim());
    assert_eq!(volumes["data"][0]["name"], "data", "{volumes:#}");
    assert_eq!(machine.workspace.read(ROWS), "rows");

    let reset = machine.xtask(&["local", "reset", "--yes", "--volumes"]);
    reset
        .expect_success()
        .expect_stderr("with all that is in them: local/data");
    assert!(!machine.workspace.exists(".systemprompt/local"));
    machine.xtask(&["local", "reset"]).expect_success();
}

fn volumes(machine: &Machine, url: &str) -> Value {
    let token = machine.workspace.read(".systemprompt/local/token");
    let url = format!("{url}/api/v1/tenants/local/volumes");
    let token = format!("Authorization: Bearer {}\r\n", token.trim());
    let (status, body) = get_with(&url, &token).unwrap();
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

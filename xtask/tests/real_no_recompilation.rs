//! `cargo build --workspace` and `cargo xtask` never make each other compile anything.
//!
//! Real builds in the target folder that this test was built in, where most of it lies already; a
//! folder of its own would cost a full build each time.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use testkit::process::run;

/// From nothing, on a loaded machine.
const LIMIT: Duration = Duration::from_mins(20);

/// Builds, and names what had to be compiled.
fn compiled_by(selection: &[&str]) -> Vec<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--locked", "--message-format=json"])
        .args(selection)
        .arg("--target-dir")
        .arg(target())
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    forget_this_package(&mut command);
    let finished = run(&mut command, LIMIT);
    finished.expect_success();
    let messages: Vec<Value> = finished
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("cargo prints a message a line"))
        .collect();
    let artifacts: Vec<_> = messages
        .iter()
        .filter(|message| message["reason"] == "compiler-artifact")
        .collect();
    assert!(artifacts.len() > 100, "cargo reported too little");
    artifacts
        .iter()
        .filter(|artifact| artifact["fresh"] == false)
        .map(|artifact| artifact["package_id"].to_string())
        .collect()
}

/// Cargo describes the package under test to its tests. A build must not hear of it.
fn forget_this_package(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command.env_remove("LD_LIBRARY_PATH");
}

/// `target`, from `target/debug/xtask`.
fn target() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_xtask"));
    let folder = program.ancestors().nth(2);
    folder.expect("programs lie below the target folder").into()
}

#[test]
fn building_all_and_building_xtask_share_everything() {
    compiled_by(&["--workspace"]);
    assert_eq!(compiled_by(&["--package", "xtask"]), Vec::<String>::new());
    assert_eq!(compiled_by(&["--workspace"]), Vec::<String>::new());
}

//! The justfile with the real `just`: arguments reach cargo as they were given.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use testkit::process::{Finished, need_program, run};

const LIMIT: Duration = Duration::from_mins(1);

/// Takes cargo's place and writes down what it was given, an argument a line. None of the arguments
/// here holds a line feed.
const CARGO: &str = "#!/bin/sh\nprintf '%s\\n' \"$@\" >\"$RECORD\"\n";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace is around this package")
}

fn just(arguments: &[&str], record: &Path, path: &str) -> Finished {
    run(
        Command::new(need_program("just"))
            .args(arguments)
            .current_dir(root().join("docs"))
            .env("PATH", path)
            .env("RECORD", record),
        LIMIT,
    )
}

/// What cargo is given when `just` is.
fn handed_over(arguments: &[&str]) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let record: PathBuf = folder.path().join("record");
    let cargo = folder.path().join("cargo");
    std::fs::write(&cargo, CARGO).expect("write a script");
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&cargo, executable).expect("make it executable");
    let path = format!(
        "{}:{}",
        folder.path().display(),
        std::env::var("PATH").unwrap_or_default()
    );
    just(arguments, &record, &path).expect_success();
    let text = std::fs::read_to_string(&record).expect("cargo was called");
    text.lines().map(str::to_owned).collect()
}

#[track_caller]
fn check(given: &[&str], expected: &[&str]) {
    assert_eq!(handed_over(given), expected, "just {given:?}");
}

#[test]
fn deploy_hands_over_its_arguments_unharmed() {
    let awkward = [
        "--tag",
        "two words",
        "single ' quote",
        "double \" quote",
        "$HOME and $(id) and `id`",
        "back\\slash",
        "{{braces}}",
        "*",
        "",
        "; false",
        "--skip-push",
    ];
    check(
        &[&["deploy"], &awkward[..]].concat(),
        &[&["xtask", "deploy"], &awkward[..]].concat(),
    );
}

#[test]
fn recipes_are_what_the_tool_calls_its_commands() {
    for recipe in [
        "deploy",
        "build-all",
        "rollback",
        "history",
        "status",
        "logs",
        "local",
        "doctor",
        "config",
        "login",
        "test",
    ] {
        check(&[recipe, "a b"], &["xtask", recipe, "a b"]);
    }
}

#[test]
fn without_arguments_there_are_none() {
    check(&["deploy"], &["xtask", "deploy"]);
}

//! All of these tests once more, as a user who is not root.

use std::fs;
use std::os::unix::fs::chown;
use std::process::Command;

use crate::setup::{is_root, open_up, program};

/// `nobody`, everywhere.
const USER: u32 = 65534;

#[test]
fn everything_holds_without_root() {
    if !is_root() {
        // the other tests of this run are that already
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    open_up(folder.path());
    let test = folder.path().join("tests");
    fs::copy(std::env::current_exe().unwrap(), &test).unwrap();
    for name in ["engine-launcher", "engine-fixture"] {
        fs::copy(program(name), folder.path().join(name)).unwrap();
    }
    let work = folder.path().join("work");
    fs::create_dir(&work).unwrap();
    chown(&work, Some(USER), Some(USER)).unwrap();
    let ids = [format!("--reuid={USER}"), format!("--regid={USER}")];
    let done = Command::new("setpriv")
        .args(ids)
        .args(["--clear-groups", "--"])
        .arg(&test)
        .arg("--test-threads=2")
        .current_dir(&work)
        .env("TMPDIR", &work)
        .env("ENGINES_PROGRAMS", folder.path())
        .output()
        .expect("setpriv, of package util-linux");
    let printed = String::from_utf8_lossy(&done.stdout).into_owned();
    let errors = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{printed}\n{errors}");
    let ran = printed
        .lines()
        .filter(|line| line.ends_with("... ok"))
        .count();
    assert!(ran >= 30, "{printed}");
    assert_eq!(fs::read_dir(&work).unwrap().count(), 0, "files are left");
}

//! This workspace, deployed by itself: its own image, its own platform.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use testkit::process::{Finished, run};

use crate::machine::{get, server};

const LIMIT: Duration = Duration::from_mins(2);
const BINARIES: [&str; 4] = [
    "systemprompt",
    "system-tools",
    "systemprompt-infrastructure",
    "systemprompt-admin",
];

/// A copy of the committed files, so that the platform of whoever runs the tests is left alone;
/// the binaries are those that the test run has built.
struct Copy {
    folder: tempfile::TempDir,
}

impl Copy {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for part in ["core", "extensions", "services", ".systemprompt/Dockerfile"] {
            copy(&project.join(part), &folder.path().join(part));
        }
        for file in [
            ".systemprompt/deploy.toml",
            "Cargo.toml",
            "Cargo.lock",
            "xtask",
        ] {
            copy(&project.join(file), &folder.path().join(file));
        }
        Self { folder }
    }

    fn xtask(&self, arguments: &[&str]) -> Finished {
        let target = server().parent().and_then(Path::parent).map(PathBuf::from);
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command
            .current_dir(self.folder.path())
            .args(arguments)
            .env("CARGO_TARGET_DIR", target.expect("a target folder"))
            .env_remove("GITHUB_ACTIONS");
        run(&mut command, LIMIT)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let finished = self.xtask(&["local", "reset", "--yes", "--volumes"]);
        if !std::thread::panicking() {
            finished.expect_success();
        }
    }
}

#[test]
fn this_workspace_deploys_itself() {
    for binary in BINARIES {
        let path = server().with_file_name(binary);
        assert!(
            path.is_file(),
            "{binary} is missing: run `cargo build --workspace`"
        );
    }
    let copy = Copy::new();
    let arguments = [
        "deploy",
        "--skip-build",
        "--profile",
        "dev",
        "--output",
        "json",
    ];
    let finished = copy.xtask(&arguments);
    finished.expect_success();
    let report = finished.json();
    let url = report["url"].as_str().expect("a URL");

    let (status, body) = get(&format!("{url}/api/v1/health")).expect("an answer");
    assert_eq!(status, 200);
    let health: Value = serde_json::from_str(&body).expect("health is JSON");
    assert_eq!(health["status"], "healthy");
    // The release serves the dashboard that the image ships.
    let (status, page) = get(&format!("{url}/")).expect("an answer");
    assert_eq!((status, page.contains("<title>")), (200, true));

    let second = copy.xtask(&arguments).json();
    assert_eq!(second["status"], "unchanged");
    assert_eq!(second["digest"], report["digest"]);
}

/// Copies a file or a folder, without what git does not keep.
fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        std::fs::create_dir_all(to).expect("create a folder");
        for entry in std::fs::read_dir(from).expect("list a folder").flatten() {
            if entry.file_name() != "target" {
                copy(&entry.path(), &to.join(entry.file_name()));
            }
        }
        return;
    }
    std::fs::create_dir_all(to.parent().expect("a file is in a folder")).expect("create a folder");
    std::fs::copy(from, to).expect("copy a file");
}

//! The test application, compiled once and shared by all tests.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The compiled application. Tests run in processes of their own, so a lock file keeps them from
/// compiling it side by side; the name holds the source's length and time, so an edit is noticed.
pub(crate) fn binary() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps/behaves.rs");
    let metadata = fs::metadata(&source).unwrap();
    let changed = metadata.modified().unwrap();
    let since = changed.duration_since(std::time::UNIX_EPOCH).unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(folder).unwrap();
    let binary = folder.join(format!("behaves-{}", since.as_nanos()));
    let lock = File::create(folder.join("behaves.lock")).unwrap();
    lock.lock().unwrap();
    if !binary.exists() {
        compile(&source, &binary);
    }
    binary
}

/// Statically linked: the image holds nothing else.
fn compile(source: &Path, binary: &Path) {
    let unfinished = binary.with_extension("part");
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(rustc)
        .args([
            "--edition",
            "2024",
            "-O",
            "-C",
            "target-feature=+crt-static",
        ])
        .args(["--target", &target, "-o"])
        .arg(&unfinished)
        .arg(source)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    fs::rename(unfinished, binary).unwrap();
}

//! Compiles the double when it is first needed, and puts it where a test wants it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

use super::hexadecimal;

/// Its source, also to notice changes: what was compiled is named by it.
const SOURCE: [&str; 6] = [
    include_str!("../../apps/aramb/main.rs"),
    include_str!("../../apps/aramb/arguments.rs"),
    include_str!("../../apps/aramb/commands.rs"),
    include_str!("../../apps/aramb/mishaps.rs"),
    include_str!("../../apps/aramb/services.rs"),
    include_str!("../../apps/aramb/state.rs"),
];
const READER: &str = include_str!("../../apps/aramb/toml.rs");

/// Puts the compiled double there. It learns from its path where its state is, so a link to it would
/// not do, but a second name does.
pub(super) fn place(file: &Path) {
    let binary = binary();
    fs::create_dir_all(file.parent().expect("it is in a folder")).expect("a folder is made");
    if fs::hard_link(&binary, file).is_ok() {
        return;
    }
    // Another file system. Not copied by this process: as long as it had the copy open for writing,
    // in any thread, a child that another thread starts would inherit that, and the copy could not
    // be run.
    let copied = Command::new("cp").arg(&binary).arg(file).status();
    assert!(copied.expect("cp starts").success(), "the double is copied");
}

/// Tests run in processes of their own, so a lock keeps them from compiling it side by side.
fn binary() -> PathBuf {
    let mut digest = Sha256::new();
    for text in SOURCE.iter().chain([&READER]) {
        digest.update(text);
    }
    let digest = digest.finalize();
    let name = hexadecimal(&digest[..8]);
    let folder = folder();
    fs::create_dir_all(&folder).expect("the folder of compiled programs is made");
    let binary = folder.join(format!("aramb-{name}"));
    let lock = File::create(folder.join("aramb.lock")).expect("a lock file");
    lock.lock().expect("a lock");
    if !binary.exists() {
        compile(&binary);
    }
    binary
}

/// `target/tmp`, where cargo has tests put such things: tests run from `target/PROFILE/deps`.
fn folder() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let target = test
        .ancestors()
        .nth(3)
        .expect("a test is in a target folder");
    target.join("tmp")
}

fn compile(binary: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("apps/aramb/main.rs");
    let unfinished = binary.with_extension("part");
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let output = Command::new(rustc)
        .args(["--edition", "2024", "-D", "warnings", "-C", "strip=symbols"])
        .arg("-o")
        .arg(&unfinished)
        .arg(source)
        .output()
        .expect("rustc starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    fs::rename(unfinished, binary).expect("the compiled double is named");
}

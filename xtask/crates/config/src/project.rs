//! Where a project begins and where its files are.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::private_file::replace_file;

/// The folder that makes a folder a project.
pub const FOLDER: &str = ".systemprompt";
/// The configuration, relative to the project.
pub const DEPLOY_TOML: &str = ".systemprompt/deploy.toml";
/// The credentials, relative to the project.
pub const CREDENTIALS: &str = ".systemprompt/credentials.json";
/// The tenants, relative to the project.
pub const TENANTS: &str = ".systemprompt/tenants.json";
/// The state of the embedded platform, relative to the project.
pub const LOCAL: &str = ".systemprompt/local";

/// What git reads.
pub const IGNORE: &str = ".gitignore";

/// Tells git that nothing in this folder belongs to the project's sources: it is state, with secrets in it perhaps. A
/// work tree is not dirty because of it, and `git add` passes over it.
///
/// # Errors
///
/// When the folder cannot be written to.
pub fn ignore_all(folder: &Path) -> io::Result<()> {
    ignore(folder, "*\n")
}

/// Gives a folder rules for git, unless it has some. An empty file is none: a full disk or a loss of power leaves it.
///
/// # Errors
///
/// When the folder cannot be written to.
pub fn ignore(folder: &Path, rules: &str) -> io::Result<()> {
    let file = folder.join(IGNORE);
    match fs::metadata(&file) {
        Ok(found) if found.len() > 0 => return Ok(()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    replace_file(&file, rules.as_bytes(), 0o644)
}

/// Beside [`FOLDER`], one of these says that it is a project and not a stray folder in the home
/// folder of somebody who once logged in there.
const COMPANIONS: [&str; 3] = ["Cargo.toml", "services", crate::aramb::ARAMB_TOML];

/// There is no project.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no project here: neither {} nor a folder above it holds `{FOLDER}/` together with \
     `Cargo.toml`, `services/` or `aramb.toml`",
    start.display()
)]
pub struct NoProject {
    /// Where the search began.
    pub start: PathBuf,
}

/// The root of the project that `start` is in: the nearest folder, `start` or one above it, with
/// `.systemprompt/` and one of `Cargo.toml`, `services/`, `aramb.toml`.
///
/// # Errors
///
/// When there is no such folder.
pub fn find_root(start: &Path) -> Result<PathBuf, NoProject> {
    start
        .ancestors()
        .find(|folder| is_root(folder))
        .map(Path::to_owned)
        .ok_or_else(|| NoProject {
            start: start.to_owned(),
        })
}

fn is_root(folder: &Path) -> bool {
    folder.join(FOLDER).is_dir() && COMPANIONS.iter().any(|name| folder.join(name).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes the folders (`a/b/`) and files (`a/c`) and looks for a root from `start`; both are
    /// relative to a new folder.
    fn check(paths: &[&str], start: &str) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        for path in paths {
            let full = folder.path().join(path);
            if path.ends_with('/') {
                std::fs::create_dir_all(full).unwrap();
            } else {
                std::fs::create_dir_all(full.parent().unwrap()).unwrap();
                std::fs::write(full, "").unwrap();
            }
        }
        let root = find_root(&folder.path().join(start)).ok()?;
        let root = root.strip_prefix(folder.path()).ok()?;
        Some(root.display().to_string())
    }

    #[test]
    fn roots() {
        let cargo = ["p/.systemprompt/", "p/Cargo.toml", "p/core/src/"];
        assert_eq!(check(&cargo, "p"), Some("p".to_owned()));
        assert_eq!(check(&cargo, "p/core/src"), Some("p".to_owned()));
        let services = ["p/.systemprompt/", "p/services/"];
        assert_eq!(check(&services, "p"), Some("p".to_owned()));
        let deployed = ["p/.systemprompt/local/", "p/aramb.toml"];
        assert_eq!(check(&deployed, "p"), Some("p".to_owned()));
    }

    #[test]
    fn the_nearest_root_wins_and_a_stray_folder_is_none() {
        let nested = [
            "p/.systemprompt/",
            "p/Cargo.toml",
            "p/q/.systemprompt/",
            "p/q/services/",
            "p/r/.systemprompt/",
        ];
        assert_eq!(check(&nested, "p/q"), Some("p/q".to_owned()));
        assert_eq!(check(&nested, "p/r"), Some("p".to_owned()));
    }

    #[test]
    fn git_passes_over_a_folder_of_state() {
        let folder = tempfile::tempdir().unwrap();
        let git = |arguments: &[&str]| {
            let done = std::process::Command::new("git")
                .args(arguments)
                .current_dir(folder.path())
                .output()
                .expect("git is needed by the tests: install it");
            assert!(done.status.success(), "{done:?}");
            String::from_utf8(done.stdout).unwrap()
        };
        git(&["init", "--quiet"]);
        let state = folder.path().join("local");
        std::fs::create_dir(&state).unwrap();
        std::fs::write(state.join("token"), "secret").unwrap();
        assert_eq!(git(&["status", "--porcelain"]), "?? local/\n");
        ignore_all(&state).unwrap();
        assert_eq!(git(&["status", "--porcelain"]), "");
        // What somebody wants otherwise stays so.
        std::fs::write(state.join(IGNORE), "# nothing\n").unwrap();
        ignore_all(&state).unwrap();
        assert_eq!(git(&["status", "--porcelain"]), "?? local/\n");
        // One that is empty is what a full disk or a killed run has left of ours.
        std::fs::write(state.join(IGNORE), "").unwrap();
        ignore_all(&state).unwrap();
        assert_eq!(git(&["status", "--porcelain"]), "");
    }

    #[test]
    fn no_root() {
        assert_eq!(check(&["p/.systemprompt/"], "p"), None);
        assert_eq!(check(&["p/Cargo.toml"], "p"), None);
        assert_eq!(check(&["p/.systemprompt", "p/Cargo.toml"], "p"), None);
        insta::assert_snapshot!(
            NoProject { start: PathBuf::from("/a/b") },
            @"no project here: neither /a/b nor a folder above it holds `.systemprompt/` together with `Cargo.toml`, `services/` or `aramb.toml`"
        );
    }
}

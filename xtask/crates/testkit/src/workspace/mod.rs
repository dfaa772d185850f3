//! A small, real project to deploy: it compiles in seconds, runs, and can be broken on purpose.

mod layout;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

pub use layout::{Behaviour, Defect, Layout};

use crate::management::{ManagementApi, TENANT};
use crate::process::{Finished, Running, run};

/// A cold release build of four programs on a busy machine, several times over.
const LIMIT: Duration = Duration::from_mins(4);

/// A project in a folder of its own, removed when dropped.
#[derive(Debug)]
pub struct Workspace {
    folder: TempDir,
    root: PathBuf,
}

impl Workspace {
    /// A sound project.
    #[must_use]
    pub fn new() -> Self {
        Self::laid_out(&Layout::default())
    }

    /// A project as described, in git with one commit unless the description says otherwise.
    #[must_use]
    pub fn laid_out(layout: &Layout) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path().join("project");
        fs::create_dir_all(folder.path().join("home")).expect("create the home folder");
        layout.write(&root);
        let workspace = Self { folder, root };
        workspace.lock_dependencies(layout);
        if !layout.has(Defect::NoGit) {
            workspace.commit_everything("begin");
        }
        if layout.has(Defect::Dirty) {
            workspace.write("README.md", "# Changed\n");
        }
        workspace
    }

    /// The project's folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The home folder that its programs see.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// All of it: the project, its target folder, the home folder.
    #[must_use]
    pub fn everything(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file of the project.
    pub fn write(&self, path: &str, text: &str) {
        let file = self.root.join(path);
        fs::create_dir_all(file.parent().expect("a file is in a folder")).expect("create a folder");
        fs::write(&file, text).unwrap_or_else(|error| panic!("write {path}: {error}"));
    }

    /// Reads a file of the project.
    #[must_use]
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(path))
            .unwrap_or_else(|error| panic!("read {path}: {error}"))
    }

    /// Replaces a text that must be there.
    pub fn edit(&self, path: &str, from: &str, to: &str) {
        let text = self.read(path);
        assert!(text.contains(from), "{path} does not hold {from:?}");
        self.write(path, &text.replace(from, to));
    }

    /// Whether a file or folder of the project exists.
    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// The short id of the last commit.
    #[must_use]
    pub fn commit_id(&self) -> String {
        let shown = self.git(&["rev-parse", "--short=7", "HEAD"]);
        shown.expect_success().stdout.trim().to_owned()
    }

    /// Commits all changes.
    pub fn commit_everything(&self, message: &str) {
        if !self.exists(".git") {
            self.git(&["init", "-q", "-b", "main"]).expect_success();
        }
        self.git(&["add", "-A"]).expect_success();
        self.git(&["commit", "-q", "-m", message]).expect_success();
    }

    /// Runs git in the project, as an author of its own.
    #[must_use]
    pub fn git(&self, arguments: &[&str]) -> Finished {
        let mut command = self.command("git");
        command
            .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.com"])
            .args(arguments);
        run(&mut command, LIMIT)
    }

    /// Runs the deploy tool in the project to its end. `program` is `env!("CARGO_BIN_EXE_xtask")`
    /// of the calling test.
    #[must_use]
    pub fn xtask(&self, program: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Finished {
        self.start_xtask(program, arguments, variables).wait(LIMIT)
    }

    /// Starts the deploy tool in the project.
    #[must_use]
    pub fn start_xtask(
        &self,
        program: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Running {
        let mut command = self.command(program);
        command.args(arguments).envs(variables.iter().copied());
        Running::start(&mut command)
    }

    /// Runs the deploy tool against a Management API, with the three variables that a CI job sets.
    #[must_use]
    pub fn deploy_to(&self, program: &str, api: &ManagementApi, arguments: &[&str]) -> Finished {
        self.xtask(program, arguments, &api_variables(&api.url(), api.token()))
    }

    /// A command in the project with a clean environment.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.root)
            .env_clear()
            .env("HOME", self.home())
            .env("TMPDIR", self.temporary())
            .env("CARGO_TARGET_DIR", self.root.join("target"))
            .env("CARGO_NET_OFFLINE", "true")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .env("LANG", "C.UTF-8")
            .env("NO_COLOR", "1");
        // The tool chain lives in the real home folder.
        keep(&mut command, "CARGO_HOME", ".cargo");
        keep(&mut command, "RUSTUP_HOME", ".rustup");
        // The last one marks the processes of a test run, so that those left behind are found.
        for name in ["PATH", "RUSTUP_TOOLCHAIN", "SYSTEMPROMPT_TEST_RUN"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
    }

    /// Temporary files go below the project's own folder, so that those left behind are seen.
    fn temporary(&self) -> PathBuf {
        let folder = self.folder.path().join("tmp");
        fs::create_dir_all(&folder).expect("create the folder of temporary files");
        folder
    }

    /// Files that were left in the folder of temporary files.
    #[must_use]
    pub fn left_behind(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.temporary()).expect("read the folder of temporary files");
        entries.flatten().map(|entry| entry.path()).collect()
    }

    /// Without a lock file the first build would write one and make the tree dirty.
    fn lock_dependencies(&self, layout: &Layout) {
        let mut manifests = vec!["Cargo.toml"];
        if layout.has(Defect::CoreOutside) {
            manifests.push("core/Cargo.toml");
        }
        for manifest in manifests {
            let mut command = self.command("cargo");
            command.args([
                "generate-lockfile",
                "--offline",
                "-q",
                "--manifest-path",
                manifest,
            ]);
            run(&mut command, LIMIT).expect_success();
        }
    }
}

impl Default for Workspace {
    fn default() -> Self {
        Self::new()
    }
}

/// The three variables that are enough in CI.
#[must_use]
pub fn api_variables<'a>(url: &'a str, token: &'a str) -> [(&'a str, &'a str); 3] {
    [
        ("SYSTEMPROMPT_API_URL", url),
        ("SYSTEMPROMPT_API_TOKEN", token),
        ("SYSTEMPROMPT_TENANT_ID", TENANT),
    ]
}

fn keep(command: &mut Command, name: &str, folder: &str) {
    let value = std::env::var_os(name).map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("HOME")?;
        Some(Path::new(&home).join(folder))
    });
    if let Some(value) = value.filter(|folder| folder.is_dir()) {
        command.env(name, value);
    }
}

#[cfg(test)]
mod tests;

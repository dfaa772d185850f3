//! A project with an `aramb.toml`, the double of the command, and what every failure must be like.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use testkit::aramb::{APPLICATION, Double, Generation};
use testkit::process::{Running, run};
use testkit::{Finished, Watch};

/// The program under test.
const XTASK: &str = env!("CARGO_BIN_EXE_xtask");
/// A command here takes a second.
pub(crate) const LIMIT: Duration = Duration::from_mins(2);

/// The shape that is published: a database, a build, and the backend that runs its image.
pub(crate) const FILE: &str = include_str!("../../crates/config/tests/aramb/seed.toml");
/// The secret in it.
const PASSWORD: &str = "change-me";

/// A project in git, and the control plane that it is deployed to. A token in an output or a file fails the test; where processes
/// are watched, so does one on a command line or in the environment of anything but `aramb`.
pub(crate) struct Shop {
    folder: TempDir,
    pub(crate) double: Double,
    token: String,
    path: RefCell<OsString>,
    without: RefCell<Vec<&'static str>>,
    outputs: RefCell<Vec<String>>,
    watch: Option<Watch>,
}

impl Shop {
    /// One with the published file.
    pub(crate) fn new(generation: Generation) -> Self {
        Self::with(generation, FILE)
    }

    /// A project as described, with a second folder to build: `web`.
    pub(crate) fn with_front_end(generation: Generation, file: &str) -> Self {
        let shop = Self::with(generation, file);
        shop.write("web/Dockerfile", "FROM scratch\n");
        shop.commit("web");
        shop
    }

    /// One with a file, and with each folder that its builds are in.
    pub(crate) fn with(generation: Generation, file: &str) -> Self {
        let shop = Self::without_git(generation, file);
        shop.git(&["init", "-q", "-b", "main"]);
        shop.commit("begin");
        shop
    }

    pub(crate) fn without_git(generation: Generation, file: &str) -> Self {
        let double = Double::new(generation);
        double.is_quick();
        let token = testkit::management::token_that_ends(std::time::SystemTime::now());
        let shop = Self {
            folder: tempfile::tempdir().unwrap(),
            path: RefCell::new(double.path_variable()),
            double,
            token,
            without: RefCell::default(),
            outputs: RefCell::default(),
            watch: None,
        };
        for folder in ["home", "tmp", "project/backend"] {
            fs::create_dir_all(shop.folder.path().join(folder)).unwrap();
        }
        shop.write("backend/Dockerfile", "FROM scratch\nCOPY . /\n");
        shop.write("aramb.toml", file);
        shop
    }

    /// With an eye on all processes of the machine, which costs a processor.
    pub(crate) fn watched(mut self) -> Self {
        self.watch = Some(self.watch());
        self
    }

    fn watch(&self) -> Watch {
        Watch::over([self.token.clone()]).given_to("aramb")
    }

    /// The project's folder, without symbolic links on the way.
    pub(crate) fn root(&self) -> PathBuf {
        let folder = self.folder.path().canonicalize().unwrap();
        folder.join("project")
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    pub(crate) fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let file = self.folder.path().join("project").join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    /// The `aramb.toml` as it is now.
    pub(crate) fn file(&self) -> String {
        fs::read_to_string(self.root().join("aramb.toml")).unwrap()
    }

    pub(crate) fn git(&self, arguments: &[&str]) -> Finished {
        let mut command = self.command("git");
        command
            .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.com"])
            .args(arguments);
        let finished = run(&mut command, LIMIT);
        finished.expect_success();
        finished
    }

    pub(crate) fn commit(&self, message: &str) {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
    }

    /// The commit, shortened.
    pub(crate) fn sha(&self) -> String {
        let shown = self.git(&["rev-parse", "--short", "HEAD"]);
        shown.stdout.trim().to_owned()
    }

    /// What a build of this name makes, as the services name it.
    pub(crate) fn image(&self, build: &str) -> String {
        let registry = match self.double.generation() {
            Generation::Old => "",
            Generation::New => "registry.aramb.dev/",
        };
        format!("{registry}my-app/{build}:{}", self.sha())
    }

    /// The variable is not set from now on.
    pub(crate) fn lacks(&self, variable: &'static str) {
        self.without.borrow_mut().push(variable);
    }

    /// `PATH` from now on.
    pub(crate) fn finds_programs_in(&self, folders: &[&Path]) {
        *self.path.borrow_mut() = std::env::join_paths(folders).unwrap();
    }

    /// `cargo xtask deploy` in the project, to its end.
    pub(crate) fn deploy(&self, arguments: &[&str]) -> Finished {
        self.deploy_with(arguments, &[])
    }

    /// Another command, in another folder.
    pub(crate) fn deploy_from(&self, folder: &Path, before: &[&str], words: &[&str]) -> Finished {
        let mut command = self.with_variables(&[before, words].concat());
        self.keep(run(command.current_dir(folder), LIMIT))
    }

    /// The same with more variables.
    pub(crate) fn deploy_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Finished {
        let mut command = self.deploying(arguments);
        command.envs(variables.iter().copied());
        self.keep(run(&mut command, LIMIT))
    }

    /// The same, as one document.
    pub(crate) fn deploy_as_json(&self, arguments: &[&str]) -> (Finished, Value) {
        let finished = self.deploy(&[&["--output", "json"], arguments].concat());
        let document = finished.json();
        assert_by_schema(&document);
        (finished, document)
    }

    /// The same, while it still runs.
    pub(crate) fn start(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Running {
        let mut command = self.deploying(arguments);
        Running::start(command.envs(variables.iter().copied()))
    }

    /// Looks through what a command said when the test ends.
    pub(crate) fn keep(&self, finished: Finished) -> Finished {
        let said = [finished.stdout.clone(), finished.stderr.clone()];
        self.outputs.borrow_mut().extend(said);
        finished
    }

    fn deploying(&self, arguments: &[&str]) -> Command {
        self.with_variables(&[&["deploy"], arguments].concat())
    }

    fn with_variables(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(XTASK);
        command.args(arguments);
        let set = [
            ("APPLICATION_ID", APPLICATION),
            ("ARAMB_API_TOKEN", &self.token),
            ("BUILDKIT_HOST", "tcp://127.0.0.1:1234"),
        ];
        let without = self.without.borrow();
        for (name, value) in set {
            let is_old = self.double.generation() == Generation::Old;
            if !without.contains(&name) && (is_old || name != "BUILDKIT_HOST") {
                command.env(name, value);
            }
        }
        command
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.root())
            .env_clear()
            .env("PATH", &*self.path.borrow())
            .env("HOME", self.home())
            .env("TMPDIR", self.folder.path().join("tmp"))
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .env("LANG", "C.UTF-8")
            .env("NO_COLOR", "1");
        // Marks the processes of a test run, so that those left behind are found.
        if let Some(run) = std::env::var_os("SYSTEMPROMPT_TEST_RUN") {
            command.env("SYSTEMPROMPT_TEST_RUN", run);
        }
        command
    }
}

/// Programs read it by what is published of it: every key that has to be there is, and none that is not named.
#[track_caller]
fn assert_by_schema(document: &Value) {
    let schema = include_str!("../../../docs/aramb-report.schema.json");
    let schema: Value = serde_json::from_str(schema).unwrap();
    assert_fits(document, &schema, &schema);
}

#[track_caller]
fn assert_fits(value: &Value, part: &Value, schema: &Value) {
    if let Some(name) = part["$ref"].as_str() {
        let name = name.strip_prefix('#').unwrap();
        return assert_fits(value, schema.pointer(name).unwrap(), schema);
    }
    if let Some(parts) = part["anyOf"].as_array() {
        // Something, or nothing.
        let something = parts.iter().find(|part| part["type"] != "null").unwrap();
        if !value.is_null() {
            assert_fits(value, something, schema);
        }
        return;
    }
    for key in part["required"].as_array().into_iter().flatten() {
        let key = key.as_str().unwrap();
        assert!(value.get(key).is_some(), "no `{key}` in {value:#}");
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        let part = &part["properties"][key];
        assert!(part.is_object(), "`{key}` is not published: {value:#}");
        assert_fits(value, part, schema);
    }
    for value in value.as_array().into_iter().flatten() {
        assert_fits(value, &part["items"], schema);
    }
}

/// Whatever a test was about: nothing leaked, and nothing is left behind.
impl Drop for Shop {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        // Fails where the token was on a command line.
        let _ = self.double.calls();
        let outputs = self.outputs.take();
        let password = outputs.iter().find(|output| output.contains(PASSWORD));
        assert_eq!(password, None, "a secret of the file is in an output");
        let left = fs::read_dir(self.folder.path().join("tmp")).unwrap();
        assert_eq!(left.count(), 0, "temporary files are left");
        let watch = self.watch.take().unwrap_or_else(|| self.watch());
        let folders = [self.folder.path(), self.double.everything()];
        watch.assert_none(outputs.iter().map(String::as_str), &folders);
    }
}

/// It failed with 1 and these first two lines, and there are details; those.
#[track_caller]
pub(crate) fn assert_failed(finished: &Finished, error: &str, step: &str) -> String {
    finished.expect_code(1);
    assert!(!finished.stderr.contains("panicked"), "{finished}");
    let wanted = format!("ERROR: {error}\nStep: {step}\nDetails: ");
    let at = finished.stderr.find(&wanted);
    let at = at.unwrap_or_else(|| panic!("no {wanted:?}: {finished}"));
    assert_eq!(finished.stderr.matches("ERROR: ").count(), 1, "{finished}");
    let details = finished.stderr[at + wanted.len()..].trim_end();
    assert!(!details.is_empty() && details != "none", "{finished}");
    details.to_owned()
}

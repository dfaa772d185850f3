//! A project with a platform of its own, gone without a trace when dropped.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use testkit::process::Finished;
use testkit::workspace::{Layout, Workspace};

const XTASK: &str = env!("CARGO_BIN_EXE_xtask");

pub(crate) struct Machine {
    pub(crate) workspace: Workspace,
    /// For each run of the tool.
    variables: Vec<(&'static str, String)>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self::laid_out(&Layout::default())
    }

    pub(crate) fn laid_out(layout: &Layout) -> Self {
        let server = server().to_str().expect("a path that is text").to_owned();
        Self {
            workspace: Workspace::laid_out(layout),
            variables: vec![("SYSTEMPROMPT_LOCAL_SERVER", server)],
        }
    }

    /// A project that is deployed to a platform elsewhere.
    pub(crate) fn of(url: &str, token: &str, tenant: &str) -> Self {
        let mut machine = Self::new();
        machine.variables.extend([
            ("SYSTEMPROMPT_API_URL", url.to_owned()),
            ("SYSTEMPROMPT_API_TOKEN", token.to_owned()),
            ("SYSTEMPROMPT_TENANT_ID", tenant.to_owned()),
        ]);
        machine
    }

    /// Runs the tool in the project. The project's own `systemprompt` is an application: the
    /// platform is the real one.
    pub(crate) fn xtask(&self, arguments: &[&str]) -> Finished {
        let variables = self.variables.iter();
        let variables: Vec<_> = variables
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        self.workspace.xtask(XTASK, arguments, &variables)
    }

    /// The tool in the project, with every step in a group of lines.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.workspace.command(XTASK);
        command
            .args(arguments)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .env("GITHUB_ACTIONS", "true");
        command
    }

    /// Deploys and returns the result document.
    pub(crate) fn deploy(&self, more: &[&str]) -> (i32, Value) {
        let arguments = [&["deploy", "--output", "json"], more].concat();
        let finished = self.xtask(&arguments);
        (finished.code(), finished.json())
    }

    /// Deploys what must succeed.
    pub(crate) fn deploy_well(&self) -> Value {
        let finished = self.xtask(&["deploy", "--output", "json"]);
        finished.expect_success();
        finished.json()
    }

    /// Makes another release out of the project.
    pub(crate) fn edit_version(&self, from: &str, to: &str) {
        let line = |version: &str| format!("const VERSION: &str = \"{version}\";");
        self.workspace
            .edit("core/src/main.rs", &line(from), &line(to));
        self.workspace.commit_everything(to);
    }

    /// Makes the application behave in another way.
    pub(crate) fn behave(&self, behaviour: testkit::workspace::Behaviour) {
        self.workspace
            .write("core/behaviour.txt", &behaviour.text());
        self.workspace.commit_everything("behave");
    }

    /// What the platform wrote down about the one instance of the application.
    pub(crate) fn instance_record(&self) -> Value {
        let instances = self.workspace.root();
        let instances = instances.join(".systemprompt/local/engine/instances");
        let mut entries = std::fs::read_dir(instances).expect("the engine's folder");
        let instance = entries.next().expect("an instance").expect("an entry");
        let record = std::fs::read(instance.path().join("instance.json")).expect("a record");
        serde_json::from_slice(&record).expect("a record is JSON")
    }

    /// What the platform wrote down about itself.
    pub(crate) fn server_file(&self) -> Value {
        let text = self.workspace.read(".systemprompt/local/server.json");
        serde_json::from_str(&text).expect("server.json is JSON")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let finished = self.xtask(&["local", "reset", "--yes", "--volumes"]);
        if !std::thread::panicking() {
            finished.expect_success();
        }
    }
}

/// The platform's binary, built into the same target folder as the tool.
pub(crate) fn server() -> PathBuf {
    let path = Path::new(XTASK).with_file_name("systemprompt");
    assert!(
        path.is_file(),
        "the platform's binary is missing: run `cargo build -p systemprompt`"
    );
    path
}

/// `GET` of a URL with plain sockets: status and body.
pub(crate) fn get(url: &str) -> std::io::Result<(u16, String)> {
    get_with(url, "")
}

/// The same with further header fields, each with its line end.
pub(crate) fn get_with(url: &str, headers: &str) -> std::io::Result<(u16, String)> {
    let rest = url.strip_prefix("http://").expect("a plain URL");
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "GET /{path} HTTP/1.1\r\nHost: {host}\r\n{headers}Connection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| std::io::Error::other(format!("not an answer: {head:?}")))?;
    Ok((status, body.to_owned()))
}

/// The version that a URL serves.
pub(crate) fn version(url: &str) -> String {
    let (status, body) = get(&format!("{url}/api/v1/health")).expect("the release answers");
    assert_eq!(status, 200, "{body}");
    let body: Value = serde_json::from_str(&body).expect("health is JSON");
    body["version"].as_str().expect("a version").to_owned()
}

/// The words with which a step of a result document says what it did.
pub(crate) fn summary<'a>(report: &'a Value, step: &str) -> &'a str {
    report["steps"]
        .as_array()
        .expect("steps")
        .iter()
        .find(|record| record["name"] == step)
        .and_then(|record| record["summary"].as_str())
        .unwrap_or_default()
}

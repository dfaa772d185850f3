//! The `systemprompt` server itself, as a process of its own with its folder in a temporary one.

mod image;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use management_api::client::{Client, Options};
use serde_json::Value;
use tempfile::TempDir;

use crate::scenario::Images;
use crate::{PATIENCE, temporary_folder};

/// The tenant that every platform has from its first start.
pub const TENANT: &str = "local";
/// Between two looks at something that a test waits for.
const INTERVAL: Duration = Duration::from_millis(20);

/// A running platform; it and its applications end when dropped.
pub struct RealPlatform {
    /// Its address.
    pub url: String,
    /// The operator's token.
    pub token: String,
    process: Child,
    project: TempDir,
}

impl RealPlatform {
    /// Starts the `systemprompt` that stands beside `binary`, as the local platform of a project.
    #[must_use]
    pub fn start(binary: &str) -> Self {
        let program = program(binary);
        let project = temporary_folder();
        let folder = project.path().join(".systemprompt/local");
        fs::create_dir_all(&folder).expect("make the platform's folder");
        let log = fs::File::create(project.path().join("platform.log")).expect("make a log");
        let process = command(&program, &folder)
            .stdout(log.try_clone().expect("share the log"))
            .stderr(log)
            .spawn()
            .expect("start systemprompt");
        let mut platform = Self {
            url: String::new(),
            token: String::new(),
            process,
            project,
        };
        platform.wait_until_ready(&folder);
        platform
    }

    /// The folder of the project whose local platform this is.
    #[must_use]
    pub fn project(&self) -> &Path {
        self.project.path()
    }

    /// Environment variables that lead a server here, as the operator.
    #[must_use]
    pub fn variables(&self) -> [(&str, &str); 2] {
        self.variables_with(&self.token)
    }

    /// Environment variables that lead a server here, with another token.
    #[must_use]
    pub fn variables_with<'a>(&'a self, token: &'a str) -> [(&'a str, &'a str); 2] {
        [
            ("SYSTEMPROMPT_API_URL", &self.url),
            ("SYSTEMPROMPT_API_TOKEN", token),
        ]
    }

    /// A client of the Management API, as the operator. It blocks.
    #[must_use]
    pub fn client(&self) -> Client {
        let options = Options::new(&self.url, self.token.clone().into());
        Client::new(options).expect("a client of the platform")
    }

    /// Pushes images to the platform's registry, whose application is `systemprompt` once more:
    /// it answers the health check and needs nothing but this machine's libraries.
    #[must_use]
    pub fn push_images(&self, binary: &str) -> Images {
        let layer = image::layer(&program(binary), self.project.path());
        let push = |tag: &str, arguments: &[&str]| {
            image::push(&self.client(), TENANT, tag, &layer, arguments)
        };
        let serve = ["serve", "--data", "/tmp/data"];
        Images {
            one: push("one", &serve),
            two: push("two", &serve),
            broken: push("broken", &["no-such-command"]),
            missing: image::reference(&self.client(), TENANT, "missing"),
        }
    }

    fn wait_until_ready(&mut self, folder: &Path) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some((url, token)) = announced(folder) {
                (self.url, self.token) = (url, token);
                if self.client().health().is_ok() {
                    return;
                }
            }
            let ended = self.process.try_wait().expect("look at systemprompt");
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "systemprompt does not start ({ended:?}):\n{}",
                fs::read_to_string(self.project.path().join("platform.log")).unwrap_or_default()
            );
            std::thread::sleep(INTERVAL);
        }
    }
}

impl Drop for RealPlatform {
    /// SIGINT first: the platform stops its applications. After a bounded wait, SIGKILL.
    fn drop(&mut self) {
        let pid = self.process.id().to_string();
        let _ = Command::new("kill").args(["-INT", &pid]).status();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.process.try_wait() {
                Ok(None) => std::thread::sleep(INTERVAL),
                _ => return,
            }
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The `systemprompt` in the folder of the tested binary.
fn program(binary: &str) -> PathBuf {
    let program = Path::new(binary).with_file_name("systemprompt");
    assert!(
        program.is_file(),
        "{} is missing: run `cargo build -p systemprompt`",
        program.display()
    );
    program
}

fn command(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name == "DATABASE_URL" || name.to_string_lossy().starts_with("SYSTEMPROMPT_") {
            command.env_remove(name);
        }
    }
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(folder)
        .stdin(Stdio::null());
    command
}

/// Address and token, once the platform has written both down.
fn announced(folder: &Path) -> Option<(String, String)> {
    let record = fs::read_to_string(folder.join("server.json")).ok()?;
    let record: Value = serde_json::from_str(&record).ok()?;
    let token = fs::read_to_string(folder.join("token")).ok()?;
    Some((record["url"].as_str()?.to_owned(), token.trim().to_owned()))
}

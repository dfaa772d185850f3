//! Test support of the MCP servers.
//!
//! - [`stdio`] drives a server's binary with the SDK's client over a real pipe.
//! - [`http`] drives it over streamable HTTP with requests written by hand, so that headers can
//!   be wrong on purpose.
//! - [`inspector`] drives it with the npm MCP inspector, a client nobody here wrote.
//! - [`fake`] is a Management API in the test's own process.
//! - [`real`] is the `systemprompt` server itself.
//! - [`scenario`] is what the servers must do with either.
//!
//! Only ever a dev-dependency. Everything panics instead of returning errors: a missing component
//! must fail a test, never skip it.

#![expect(
    clippy::missing_panics_doc,
    reason = "every item of a test kit panics when the world is not as the test needs it"
)]

pub mod fake;
pub mod http;
pub mod inspector;
pub mod real;
pub mod scenario;
pub mod stdio;

use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::{Child, Command};

/// Limit of everything that a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Environment variables of a server under test.
pub type Variables<'a> = &'a [(&'a str, &'a str)];

/// A command for a server's binary that finds no settings but those it is given: no variables of
/// the developer's, and an empty folder of its own to look for a local platform in.
fn command(binary: &str, arguments: &[&str], variables: Variables<'_>, home: &TempDir) -> Command {
    let mut command = Command::new(binary);
    command
        .args(arguments)
        .current_dir(home.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SYSTEMPROMPT_") {
            command.env_remove(name);
        }
    }
    command.env("SYSTEMPROMPT_LOG", "info");
    command.envs(variables.iter().copied());
    command
}

fn temporary_folder() -> TempDir {
    tempfile::tempdir().expect("make a temporary folder")
}

/// Sends SIGTERM through `kill`, which every system has and which needs no unsafe code.
async fn terminate(child: &Child) {
    let pid = child.id().expect("the server still runs");
    let status = Command::new("kill")
        .args(["-TERM", &pid.to_string()])
        .status()
        .await
        .expect("run kill");
    assert!(status.success(), "kill: {status}");
}

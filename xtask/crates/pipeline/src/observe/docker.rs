//! Whether a Docker Engine answers.

use std::path::Path;
use std::time::{Duration, Instant};

use xshell::{Shell, cmd};

use crate::child::without_secrets;

/// A client that hangs (a socket nobody serves) must not hold up a deploy.
const LIMIT: Duration = Duration::from_secs(5);

/// Asks the engine through the official client.
pub(super) fn observe(root: &Path) -> bool {
    let Ok(shell) = Shell::new() else {
        return false;
    };
    shell.change_dir(root);
    let format = "{{.Server.Version}}";
    let version = without_secrets(cmd!(shell, "docker version --format {format}"));
    let mut command: std::process::Command = version.into();
    command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let Ok(mut child) = command.spawn() else {
        return false;
    };
    let limit = Instant::now() + LIMIT;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) if Instant::now() < limit => std::thread::sleep(Duration::from_millis(10)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return false;
            }
        }
    }
}

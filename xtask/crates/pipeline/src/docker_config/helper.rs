//! Credential helpers: programs named `docker-credential-…` that are asked for one registry's name
//! and password.
//!
//! Source: the README of `docker/docker-credential-helpers`. The registry goes to standard input,
//! the answer comes on standard output; neither is ever shown. A helper that waits for somebody who
//! is not there is ended, with all that it has started.

use std::ffi::OsString;
use std::io::{self, Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use oci::Credentials;
use secrecy::SecretString;
use serde::Deserialize;

use crate::child::PRIVATE;
use crate::interrupt::Interrupts;

/// How long a helper may take. Those that ask a keychain answer within a second.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at whether it has ended.
const PAUSE: Duration = Duration::from_millis(10);
/// No answer is longer.
const ANSWER_LIMIT: u64 = 64 * 1024;
/// As many characters of a complaint as a person wants to read.
const COMPLAINT_LIMIT: usize = 200;
/// What helpers say when they know nothing of the registry.
const NOT_FOUND: &str = "credentials not found";

/// Why a helper gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HelperError {
    #[error("cannot run docker-credential-{name}")]
    Start {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("docker-credential-{name} did not answer within {} s", patience.as_secs())]
    TooSlow { name: String, patience: Duration },
    #[error("docker-credential-{name} was interrupted")]
    Interrupted { name: String },
    #[error("docker-credential-{name} ended with {status}: {complaint}")]
    Failed {
        name: String,
        status: ExitStatus,
        complaint: String,
    },
    #[error("docker-credential-{name} did not answer with a name and a secret")]
    Answer { name: String },
    #[error("`{name}` is not the name of a credential helper")]
    Name { name: String },
}

pub(super) struct Helper {
    /// What follows `docker-credential-`.
    pub(super) name: String,
    pub(super) patience: Duration,
    /// Where programs are looked for; as everywhere when absent.
    pub(super) path: Option<OsString>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: SecretString,
}

impl Helper {
    /// Asks for a registry; none when the helper knows nothing of it.
    pub(super) fn get(
        self,
        registry: &str,
        interrupts: &Interrupts,
    ) -> Result<Option<Credentials>, HelperError> {
        let name = self.name.clone();
        // A path would run a program from anywhere.
        if name.is_empty() || name.contains('/') {
            return Err(HelperError::Name { name });
        }
        let (status, said, complained) = self.run(registry, interrupts)?;
        if !status.success() {
            let complaint = complaint(&said).or_else(|| complaint(&complained));
            let complaint = complaint.unwrap_or_else(|| "without a word".to_owned());
            if complaint.to_lowercase().contains(NOT_FOUND) {
                return Ok(None);
            }
            return Err(HelperError::Failed {
                name,
                status,
                complaint,
            });
        }
        // The cause would quote the answer.
        let Answer { username, secret } =
            serde_json::from_slice(&said).map_err(|_| HelperError::Answer { name })?;
        Ok(Some(Credentials {
            username,
            password: secret,
        }))
    }

    fn run(
        &self,
        registry: &str,
        interrupts: &Interrupts,
    ) -> Result<(ExitStatus, Vec<u8>, Vec<u8>), HelperError> {
        let name = || self.name.clone();
        let start = |source| HelperError::Start {
            name: name(),
            source,
        };
        let mut command = Command::new(format!("docker-credential-{}", self.name));
        if let Some(path) = &self.path {
            command.env("PATH", path);
        }
        for name in PRIVATE {
            // None of its business.
            command.env_remove(name);
        }
        let mut child = command
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own, so that what it starts can be ended with it.
            .process_group(0)
            .spawn()
            .map_err(start)?;
        let said = collect(child.stdout.take());
        let complained = collect(child.stderr.take());
        if let Some(mut input) = child.stdin.take() {
            // One that ends without reading says so by its status.
            let _ = input.write_all(registry.as_bytes());
        }
        let status = self.wait(&mut child, interrupts)?;
        // What a helper leaves running may hold its outputs open: what has come by then is all.
        let left = Duration::from_secs(5);
        let said = said.recv_timeout(left).unwrap_or_default();
        let complained = complained.recv_timeout(left).unwrap_or_default();
        Ok((status, said, complained))
    }

    fn wait(&self, child: &mut Child, interrupts: &Interrupts) -> Result<ExitStatus, HelperError> {
        let begun = Instant::now();
        let name = self.name.clone();
        loop {
            let error = match child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if interrupts.any() => HelperError::Interrupted { name },
                Ok(None) if begun.elapsed() >= self.patience => HelperError::TooSlow {
                    name,
                    patience: self.patience,
                },
                Ok(None) => {
                    std::thread::sleep(PAUSE);
                    continue;
                }
                Err(source) => HelperError::Start { name, source },
            };
            end_group(child);
            // It has been killed: this only takes it off the table of processes.
            let _ = child.wait();
            return Err(error);
        }
    }
}

/// Ends the helper and everything that it has started. It has not been waited for yet, so nothing
/// else can have its number.
fn end_group(child: &Child) {
    if let Ok(group) = i32::try_from(child.id()) {
        // Nothing is left of it: that is what is wanted.
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
}

/// Reads to the end in a thread of its own, which ends when the pipe does.
fn collect(source: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(source) = source {
            // What cannot be read was not said.
            let _ = source.take(ANSWER_LIMIT).read_to_end(&mut bytes);
        }
        // Nobody listens any more: then nobody needs it.
        let _ = sender.send(bytes);
    });
    receiver
}

/// The first line of what a failed helper said, shortened.
fn complaint(output: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(output);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    let printable = line.chars().filter(|c| !c.is_control());
    Some(printable.take(COMPLAINT_LIMIT).collect())
}

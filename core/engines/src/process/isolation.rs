//! What the machine allows, found out by doing it once.
//!
//! Asking the kernel piece by piece would not tell: a container runtime's filters, `AppArmor`, a
//! masked `/proc` or an odd file system each forbid another step. So the launcher rehearses.

use std::fmt;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::engine::Launcher;
use super::launch::channel::Channel;
use super::launch::protocol::{Confinement, Launch, Namespaces, Order, Report, RootMount};
use super::tree;
use crate::error::EngineError;
use crate::resources::Resources;

/// One rehearsal takes a hundredth of a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IsolationMode {
    /// As much as the machine allows.
    #[default]
    Auto,
    /// None: instances are groups of processes on the machine.
    Off,
}

/// What instances get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Isolation {
    /// What holds an instance's processes.
    pub level: Level,
    /// What an instance's files are.
    pub root: RootDirectory,
    /// What people should know: what is missing, why, and what that means.
    pub notes: Vec<String>,
}

/// What holds an instance's processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Namespaces made by root; the image's `USER` is honoured.
    Namespaces,
    /// Namespaces made by an ordinary user, in which there is one user only.
    UserNamespaces,
    /// No namespaces.
    Group,
}

/// What an instance's files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootDirectory {
    /// The image, with the instance's changes in a layer above.
    Overlay,
    /// The image, read-only; `/tmp` and volumes can be written to.
    ReadOnly,
    /// The same, by an overlay: what is mounted may be at paths that the image does not have.
    ReadOnlyOverlay,
    /// A copy of the image, and all other files of the machine.
    Copy,
}

impl Isolation {
    /// What an instance with these bounds gets, with volumes or without.
    pub(crate) fn of(&self, resources: &Resources, has_volumes: bool) -> Self {
        let mut own = self.clone();
        if resources.read_only && own.has_namespaces() {
            own.root = match own.root {
                RootDirectory::Overlay if has_volumes => RootDirectory::ReadOnlyOverlay,
                _ => RootDirectory::ReadOnly,
            };
        }
        own
    }

    /// Whether instances have mount and process namespaces of their own.
    #[must_use]
    pub fn has_namespaces(&self) -> bool {
        self.level != Level::Group
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.level {
            Level::Namespaces => "own mount, process and ipc namespaces",
            Level::UserNamespaces => "own user, mount, process and ipc namespaces",
            Level::Group => "none, processes are only grouped",
        })
    }
}

/// Tries what `mode` asks for, the best first, in the empty directory `scratch` below `root`.
pub(crate) fn find(
    mode: IsolationMode,
    launcher: &Launcher,
    root: &Path,
    scratch: &Path,
) -> Result<Isolation, EngineError> {
    let is_root = nix::unistd::geteuid().is_root();
    if mode == IsolationMode::Off {
        return Ok(grouped("isolation is switched off", is_root));
    }
    let mut refusals = Vec::new();
    for (level, kind) in candidates(is_root) {
        let refusal = rehearse(level, kind, launcher, root, scratch)?;
        let Some(refusal) = refusal else {
            return Ok(found(level, kind, &refusals, is_root));
        };
        refusals.push((level, refusal));
    }
    let reasons: Vec<&str> = refusals.iter().map(|(_, reason)| reason.as_str()).collect();
    let mut reasons: Vec<&str> = reasons;
    reasons.dedup();
    Ok(grouped(
        &format!("namespaces: not allowed here ({})", reasons.join("; ")),
        is_root,
    ))
}

fn candidates(is_root: bool) -> Vec<(Level, RootDirectory)> {
    let levels: &[Level] = if is_root {
        // root without the capabilities, in a container, may still have user namespaces
        &[Level::Namespaces, Level::UserNamespaces]
    } else {
        &[Level::UserNamespaces]
    };
    let kinds = [RootDirectory::Overlay, RootDirectory::ReadOnly];
    levels
        .iter()
        .flat_map(|level| kinds.map(|kind| (*level, kind)))
        .collect()
}

fn found(
    level: Level,
    root: RootDirectory,
    refusals: &[(Level, String)],
    is_root: bool,
) -> Isolation {
    let reason = |wanted: Level| {
        let mut matching = refusals.iter().filter(|(level, _)| *level == wanted);
        matching.next().map_or("", |(_, reason)| reason.as_str())
    };
    let mut notes = Vec::new();
    if level == Level::UserNamespaces {
        let why = if is_root {
            format!(
                "namespaces of root: not allowed here ({})",
                reason(Level::Namespaces)
            )
        } else {
            "the server is not root".to_owned()
        };
        notes.push(format!(
            "{why}: instances run as the server's own user, whatever USER their image names"
        ));
    }
    if root == RootDirectory::ReadOnly {
        notes.push(format!(
            "overlay file system: not allowed here ({}): images are read-only, only /tmp and \
             volumes can be written to",
            reason(level)
        ));
    }
    Isolation { level, root, notes }
}

fn grouped(why: &str, is_root: bool) -> Isolation {
    let mut notes = vec![format!(
        "{why}: processes are only grouped, and see the files and processes of the machine"
    )];
    if !is_root {
        notes.push(
            "the server is not root: instances run as its own user, whatever USER their image names"
                .to_owned(),
        );
    }
    Isolation {
        level: Level::Group,
        root: RootDirectory::Copy,
        notes,
    }
}

/// Goes through all steps but the program. `None` when they succeed, else which one did not.
fn rehearse(
    level: Level,
    kind: RootDirectory,
    launcher: &Launcher,
    root: &Path,
    scratch: &Path,
) -> Result<Option<String>, EngineError> {
    let failed = || EngineError::files("prepare", scratch);
    tree::remove(scratch).map_err(failed())?;
    for name in [
        "image/proc",
        "image/dev",
        "image/etc",
        "image/tmp",
        "upper",
        "work",
        "root",
    ] {
        fs::create_dir_all(scratch.join(name)).map_err(failed())?;
    }
    for name in ["image/etc/hosts", "image/etc/resolv.conf"] {
        fs::write(scratch.join(name), b"").map_err(failed())?;
    }
    let relative = scratch.strip_prefix(root).unwrap_or(scratch);
    let launch = Launch {
        confinement: confinement(level, kind, relative),
        program: None,
        supervision: None,
    };
    let outcome = act(launch, launcher, root);
    tree::remove(scratch).map_err(EngineError::files("remove", scratch))?;
    outcome.map_err(EngineError::files("run the launcher", &launcher.program))
}

fn confinement(level: Level, kind: RootDirectory, scratch: &Path) -> Confinement {
    let place = |name: &str| scratch.join(name);
    let root = match kind {
        RootDirectory::Overlay => RootMount::Overlay {
            image: place("image"),
            upper: place("upper"),
            work: place("work"),
            read_only: false,
        },
        _ => RootMount::ReadOnly {
            image: place("image"),
        },
    };
    let user = level == Level::UserNamespaces;
    Confinement::Namespaces(Namespaces {
        user,
        root,
        target: place("root"),
        volumes: Vec::new(),
    })
}

fn act(launch: Launch, launcher: &Launcher, root: &Path) -> std::io::Result<Option<String>> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut child = Command::new(&launcher.program)
        .args(launcher.guard_arguments())
        .env_clear()
        .current_dir(root)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let outcome = converse(ours, launch);
    reap(&mut child)?;
    outcome
}

fn converse(socket: UnixStream, launch: Launch) -> std::io::Result<Option<String>> {
    let mut guard = Channel::new(socket);
    guard.set_read_timeout(PATIENCE)?;
    guard.send(&Order::Launch(Box::new(launch)))?;
    match guard.next::<Report>()? {
        Some(Report::Rehearsed) => Ok(None),
        Some(Report::Failed(failure)) => Ok(Some(failure.to_string())),
        _ => Ok(Some("the launcher ended without a word".to_owned())),
    }
}

/// The lifeline is closed by now, so the launcher ends by itself; one that does not is killed.
fn reap(child: &mut Child) -> std::io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Where rehearsals are held.
pub(crate) fn scratch(root: &Path) -> PathBuf {
    root.join("tmp/rehearsal")
}

//! What a test run leaves behind: processes, the ports that they hold, temporary files.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::step::{Ending, Summary};

/// Every process of a run carries this variable.
pub(super) const MARK: &str = "SYSTEMPROMPT_TEST_RUN";

/// The traces of one run.
pub(super) struct Remains {
    mark: String,
    folder: PathBuf,
}

impl Remains {
    /// Makes the folder that the run's temporary files go to. Its path is short: those of unix
    /// sockets below it may have 108 bytes.
    pub(super) fn begin() -> std::io::Result<Self> {
        let mark = format!("sp-test-{}", std::process::id());
        let folder = std::env::temp_dir().join(&mark);
        fs::create_dir(&folder)?;
        Ok(Self { mark, folder })
    }

    /// Where temporary files go.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The value of [`MARK`].
    pub(super) fn mark(&self) -> &str {
        &self.mark
    }

    /// Says what is left, and then removes it all the same. Tests that were interrupted could not
    /// tidy up: there it is no fault of theirs.
    pub(super) fn report(self, summary: &mut Summary, interrupted: bool) {
        let mut left = Vec::new();
        for (id, name) in marked_processes(&self.mark) {
            left.push(describe(id, &name));
            let _ = signal::kill(Pid::from_raw(id), Signal::SIGKILL);
        }
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            left.push(entry.path().display().to_string());
        }
        remove(&self.folder);
        let ending = match left.is_empty() || interrupted {
            _ if self.folder.exists() => {
                Ending::Failed(format!("{} cannot be removed", self.folder.display()))
            }
            true => Ending::Passed,
            false => Ending::Failed(left.join(", ")),
        };
        summary.add("nothing left behind", ending);
    }
}

/// Removes a folder with directories that not even their owner may look into: overlays have them.
fn remove(folder: &Path) {
    // Whether it is gone is looked at afterwards.
    let _ = Command::new("chmod")
        .args(["-R", "u+rwX"])
        .arg(folder)
        .output();
    let _ = fs::remove_dir_all(folder);
}

fn describe(id: i32, name: &str) -> String {
    let ports = listening_ports(id);
    if ports.is_empty() {
        format!("process {id} ({name})")
    } else {
        format!("process {id} ({name}), listening on {}", ports.join(" "))
    }
}

/// Every other process whose environment carries the mark.
fn marked_processes(mark: &str) -> BTreeMap<i32, String> {
    let needle = format!("{MARK}={mark}");
    let own = std::process::id().to_string();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let id = entry.file_name().into_string().ok()?;
            let environment = fs::read(entry.path().join("environ")).ok()?;
            let carries = environment
                .split(|byte| *byte == 0)
                .any(|pair| pair == needle.as_bytes());
            let name = fs::read_to_string(entry.path().join("comm")).ok()?;
            (carries && id != own).then_some((id.parse().ok()?, name.trim().to_owned()))
        })
        .collect()
}

/// The TCP ports on which a process listens.
fn listening_ports(id: i32) -> Vec<String> {
    let sockets: Vec<u64> = fs::read_dir(format!("/proc/{id}/fd"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| socket_number(&fs::read_link(entry.path()).ok()?))
        .collect();
    ["tcp", "tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(format!("/proc/{id}/net/{table}")).ok())
        .flat_map(|table| listening_in(&table, &sockets))
        .map(|port| port.to_string())
        .collect()
}

/// `socket:[123]`.
fn socket_number(link: &Path) -> Option<u64> {
    let text = std::str::from_utf8(link.as_os_str().as_bytes()).ok()?;
    text.strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

/// Rows of `/proc/net/tcp` in state 0A (listening) that belong to these sockets.
fn listening_in(table: &str, sockets: &[u64]) -> Vec<u16> {
    let rows = table.lines().skip(1);
    rows.filter_map(|row| {
        let fields: Vec<_> = row.split_whitespace().collect();
        let (_, port) = fields.get(1)?.rsplit_once(':')?;
        let socket = fields.get(9)?.parse().ok()?;
        let listens = *fields.get(3)? == "0A" && sockets.contains(&socket);
        listens.then(|| u16::from_str_radix(port, 16).ok())?
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::process::Command;

    #[test]
    fn a_process_that_carries_the_mark_is_found() {
        let mark = format!("unique-{}", std::process::id());
        let mut child = Command::new("sleep")
            .arg("300")
            .env(MARK, &mark)
            .spawn()
            .unwrap();
        let id = i32::try_from(child.id()).unwrap();
        // Between fork and exec the child still has its parent's environment.
        let mut found = BTreeMap::new();
        while found.is_empty() && child.try_wait().unwrap().is_none() {
            found = marked_processes(&mark);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found, BTreeMap::from([(id, "sleep".to_owned())]));
        assert!(marked_processes(&mark).is_empty());
    }

    #[test]
    fn the_ports_of_a_process_are_found() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(listening_ports(own).contains(&port));
    }
}

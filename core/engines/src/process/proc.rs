//! What `/proc` tells about processes and their sockets.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};

/// A line of a table of sockets, in bytes: the kernel makes as many as are asked for at a time.
const LINE: usize = 150;
const MANY_LINES: usize = 8 << 10;

/// A process at one time in its life. Ids are used again; the time of the start tells two
/// processes of one id apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// Clock ticks since the machine started.
    pub(crate) started: u64,
}

impl Process {
    /// The process of this id now, if there is one.
    pub(crate) fn find(pid: i32) -> Option<Self> {
        stat(pid).map(|stat| Self {
            pid,
            started: stat.started,
        })
    }

    /// What all that an instance starts has in its environment, if this is its guard.
    pub(crate) fn mark(&self) -> String {
        format!("{}-{}", self.pid, self.started)
    }

    /// Whether it still runs. One that has ended and waits to be reaped does not.
    pub(crate) fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.started == self.started && !stat.ended)
    }
}

struct Stat {
    parent: i32,
    group: i32,
    session: i32,
    started: u64,
    ended: bool,
}

/// All processes below `pid`, children before grandchildren. Those that have ended are left out. It reads what all processes of
/// the machine say of themselves: where there are thousands of instances that takes longer than a start.
pub(crate) fn descendants(pid: i32) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    // the children of one that has ended are someone else's already
    for (child, stat) in all().into_iter().filter(|(_, stat)| !stat.ended) {
        children.entry(stat.parent).or_default().push(child);
    }
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(parent) = found.get(next) {
        found.extend(children.remove(parent).unwrap_or_default());
        next += 1;
    }
    found.split_off(1)
}

/// The processes below `ancestor` that are in the process group `group` or have `mark` in their environment,
/// and all below those.
pub(crate) fn marked(ancestor: i32, group: i32, mark: &str) -> Vec<i32> {
    let mut found: Vec<i32> = Vec::new();
    // parents come before their children
    for pid in descendants(ancestor) {
        let Some(stat) = stat(pid) else { continue };
        if stat.group == group || found.contains(&stat.parent) || has_mark(pid, mark) {
            found.push(pid);
        }
    }
    found
}

/// All running processes of this machine that have `mark` in their environment.
pub(crate) fn marked_anywhere(mark: &str) -> Vec<i32> {
    let running = all().into_iter().filter(|(_, stat)| !stat.ended);
    let marked = running.filter(|(pid, _)| has_mark(*pid, mark));
    marked.map(|(pid, _)| pid).collect()
}

fn has_mark(pid: i32, mark: &str) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let mut pairs = environment.split(|byte| *byte == 0);
    pairs.any(|pair| pair == mark.as_bytes())
}

/// All running processes of a session.
pub(crate) fn session(id: i32) -> Vec<i32> {
    let members = all()
        .into_iter()
        .filter(|(_, stat)| stat.session == id && !stat.ended);
    members.map(|(pid, _)| pid).collect()
}

/// The one of some processes whose id in its innermost namespace is `inner`.
pub(crate) fn by_inner_pid(pids: &[i32], inner: i32) -> Option<i32> {
    pids.iter().copied().find(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        ids.and_then(|ids| ids.split_whitespace().last()?.parse().ok()) == Some(inner)
    })
}

/// Whether a process is in a control group of this name. A server that runs in a container itself sees other processes
/// under the numbers that the machine has for them.
pub(crate) fn is_in_group(pid: i32, name: &str) -> bool {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"));
    groups.is_ok_and(|groups| groups.contains(name))
}

/// The TCP ports that are listened on in the network of a process, wherever it is to be found on this machine, in order.
/// Without those that only it can reach itself.
pub(crate) fn ports_of_network(pid: u32) -> Vec<u16> {
    let mut ports: Vec<u16> = listeners(&format!("/proc/{pid}/net"))
        .filter(|listener| !listener.loopback)
        .map(|listener| listener.port)
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// The TCP ports that any of `pids` listens on, in order. `None` when one of them does not show its files.
pub(crate) fn listening_ports(pids: &[i32]) -> Option<Vec<u16>> {
    let sockets: Option<Vec<Vec<u64>>> = pids.iter().map(|pid| sockets(*pid)).collect();
    let sockets: HashSet<u64> = sockets?.into_iter().flatten().collect();
    let mut ports: Vec<u16> = listeners("/proc/net")
        .filter(|listener| sockets.contains(&listener.inode))
        .map(|listener| listener.port)
        .collect();
    ports.sort_unstable();
    ports.dedup();
    Some(ports)
}

/// Whether any of `pids` listens on a TCP port. `None` when one of them does not show its files.
pub(crate) fn listens_on(pids: &[i32], port: u16) -> Option<bool> {
    let sockets: Option<Vec<Vec<u64>>> = pids.iter().map(|pid| sockets(*pid)).collect();
    let sockets: HashSet<u64> = sockets?.into_iter().flatten().collect();
    let is_theirs = |found: Listener| found.port == port && sockets.contains(&found.inode);
    // None behind the one that is looked for is asked for: to look for the next one after the last is to look through all
    // connections of the machine.
    Some(listeners_by("/proc/net", LINE).any(is_theirs))
}

fn all() -> Vec<(i32, Stat)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, stat(pid)?))).collect()
}

/// Fields as numbered in proc(5); the second, the name, may hold anything, `)` included.
fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text);
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Stat {
        ended: matches!(*fields.first()?, "Z" | "X"),
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

/// One that has ended has none.
fn sockets(pid: i32) -> Option<Vec<u64>> {
    let entries = match fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return None,
        Err(_) => return Some(Vec::new()),
    };
    let targets = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let inode = |target: std::path::PathBuf| {
        target
            .to_str()?
            .strip_prefix("socket:[")?
            .strip_suffix(']')?
            .parse()
            .ok()
    };
    Some(targets.filter_map(inode).collect())
}

/// A socket that takes connections.
struct Listener {
    port: u16,
    inode: u64,
    /// Whether only programs of the same network can connect to it.
    loopback: bool,
}

/// The sockets in state `0A`, listening, in a folder of tables. They are the first of each table (`tcp_get_idx` of Linux): the
/// others, of which a busy machine has very many, are not read.
fn listeners(folder: &str) -> impl Iterator<Item = Listener> {
    listeners_by(folder, MANY_LINES)
}

/// The same, so many bytes at a time.
fn listeners_by(folder: &str, bytes: usize) -> impl Iterator<Item = Listener> {
    let tables = ["tcp", "tcp6"].map(|table| File::open(format!("{folder}/{table}")));
    tables.into_iter().flatten().flat_map(move |table| {
        let table = BufReader::with_capacity(bytes, table);
        let lines = table.lines().map_while(Result::ok);
        lines.skip(1).map_while(|line| listener(&line))
    })
}

fn listener(line: &str) -> Option<Listener> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (address, port) = fields.get(1)?.rsplit_once(':')?;
    let listening = *fields.get(3)? == "0A";
    listening.then_some(Listener {
        port: u16::from_str_radix(port, 16).ok()?,
        inode: fields.get(9)?.parse().ok()?,
        loopback: is_loopback(address)?,
    })
}

/// Addresses are words of four bytes, each as the processor writes it.
fn is_loopback(address: &str) -> Option<bool> {
    let (rest, last) = address.split_at_checked(address.len().checked_sub(8)?)?;
    let last = u32::from_str_radix(last, 16).ok()?.to_ne_bytes();
    let is_ipv6_loopback = last == [0, 0, 0, 1] && rest.bytes().all(|digit| digit == b'0');
    Some(last[0] == 127 || (!rest.is_empty() && is_ipv6_loopback))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_child_is_found_and_known_by_its_start() {
        let mut child = Command::new("sleep")
            .arg("60")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let found = Process::find(pid).unwrap();
        assert!(found.is_alive());
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(descendants(own).contains(&pid));
        let other = Process {
            pid,
            started: found.started + 1,
        };
        assert!(!other.is_alive(), "the id alone is not the process");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!found.is_alive());
    }

    #[test]
    fn what_nobody_else_can_reach_is_not_shown() {
        let word = |bytes: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(bytes));
        let loopback = |words: &[[u8; 4]]| {
            is_loopback(&words.iter().map(|bytes| word(*bytes)).collect::<String>())
        };
        let zero = [0; 4];
        assert_eq!(loopback(&[[127, 0, 0, 11]]), Some(true));
        assert_eq!(loopback(&[[0, 0, 0, 1]]), Some(false));
        assert_eq!(loopback(&[[172, 17, 0, 2]]), Some(false));
        assert_eq!(loopback(&[zero, zero, zero, [0, 0, 0, 1]]), Some(true));
        assert_eq!(loopback(&[zero; 4]), Some(false));
        let local = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let open = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let port = |listener: &std::net::TcpListener| listener.local_addr().unwrap().port();
        let seen = ports_of_network(std::process::id());
        assert!(seen.contains(&port(&open)) && !seen.contains(&port(&local)));
    }

    #[test]
    fn own_listeners_are_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(listening_ports(&[own]).unwrap().contains(&port));
        assert_eq!(listens_on(&[own], port), Some(true));
        assert_eq!(listens_on(&[], port), Some(false), "it is another one's");
        drop(listener);
        assert_eq!(listens_on(&[own], port), Some(false));
        assert_eq!(listening_ports(&[]), Some(Vec::new()));
    }
}

//! `ports`: listening TCP sockets of this network namespace, and who owns them.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mcp_common::{Reply, ToolError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::procfs::{self, Stat};
use crate::text;

const MAX_LIMIT: usize = 500;
/// A busy server has many connections in the same table as its few listeners.
const MAX_ROWS: usize = 500_000;
/// Descriptors that are looked at in all, over all processes.
const MAX_DESCRIPTORS: usize = 500_000;
/// A socket that was inherited has many owners; the first few say enough.
const MAX_OWNERS: usize = 8;

/// Arguments of `ports`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PortArguments {
    /// Only this port.
    #[schemars(range(min = 1, max = 65535))]
    port: Option<u16>,
    /// How many at most.
    #[serde(default = "hundred")]
    #[schemars(range(min = 1, max = 500))]
    limit: usize,
}

fn hundred() -> usize {
    100
}

/// Listening sockets.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PortList {
    /// How many there are.
    pub matched: usize,
    /// The first of them, by port.
    pub ports: Vec<ListeningSocket>,
    /// Whether sockets of other users may lack their owners, because this server's user may not
    /// look at their processes.
    pub owners_incomplete: bool,
}

/// One listening socket.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ListeningSocket {
    /// Its port.
    pub port: u16,
    /// Its address; `0.0.0.0` and `::` are all of the machine's.
    pub address: String,
    /// Whether other machines can reach it, as far as the address tells.
    pub loopback_only: bool,
    /// User id of who opened it.
    pub user_id: u32,
    /// Processes that hold it open, where they may be read.
    pub owners: Vec<Owner>,
}

/// A process that holds a socket open.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Owner {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub name: String,
}

pub(crate) fn list(arguments: &PortArguments) -> Result<Reply<PortList>, ToolError> {
    if !(1..=MAX_LIMIT).contains(&arguments.limit) {
        return Err(ToolError::argument(
            "limit",
            format!("is not within 1 to {MAX_LIMIT}"),
        ));
    }
    if arguments.port == Some(0) {
        return Err(ToolError::argument("port", "is 0").next("pass a port from 1 to 65535"));
    }
    let mut sockets = listening()?;
    sockets.retain(|socket| arguments.port.is_none_or(|port| socket.port == port));
    let matched = sockets.len();
    sockets.sort_by_key(|socket| (socket.port, socket.address));
    sockets.truncate(arguments.limit);
    let list = with_owners(&sockets, matched);
    Ok(Reply::new(describe(&list), list))
}

/// A row of the kernel's table.
#[derive(Debug, PartialEq)]
struct Socket {
    address: IpAddr,
    port: u16,
    user_id: u32,
    inode: u64,
}

fn listening() -> Result<Vec<Socket>, ToolError> {
    let mut sockets = read_table("/proc/net/tcp")?;
    // Absent where IPv6 is switched off.
    sockets.extend(read_table("/proc/net/tcp6").unwrap_or_default());
    Ok(sockets)
}

fn read_table(path: &str) -> Result<Vec<Socket>, ToolError> {
    let file =
        File::open(path).map_err(|error| ToolError::new(format!("cannot read {path}: {error}")))?;
    let rows = BufReader::new(file).lines().take(MAX_ROWS);
    Ok(rows
        .map_while(Result::ok)
        .filter_map(|row| parse(&row))
        .collect())
}

/// `sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode …`
fn parse(row: &str) -> Option<Socket> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = row.split_whitespace().collect();
    if *fields.get(3)? != LISTEN {
        return None;
    }
    let (address, port) = fields.get(1)?.split_once(':')?;
    Some(Socket {
        address: parse_address(address)?,
        port: u16::from_str_radix(port, 16).ok()?,
        user_id: fields.get(7)?.parse().ok()?,
        inode: fields.get(9)?.parse().ok()?,
    })
}

/// The kernel prints each group of 32 bits of the address in network order as a number of its
/// own byte order.
fn parse_address(text: &str) -> Option<IpAddr> {
    let group = |at: usize| -> Option<[u8; 4]> {
        let digits = text.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match text.len() {
        8 => Some(Ipv4Addr::from(group(0)?).into()),
        32 => {
            let groups = [group(0)?, group(1)?, group(2)?, group(3)?];
            let bytes: [u8; 16] = groups.concat().try_into().ok()?;
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

fn with_owners(sockets: &[Socket], matched: usize) -> PortList {
    let wanted = sockets.iter().map(|socket| socket.inode).collect();
    let found = owners(&wanted);
    let ports = sockets
        .iter()
        .map(|socket| with_owner(socket, &found))
        .collect();
    PortList {
        matched,
        ports,
        owners_incomplete: found.incomplete,
    }
}

fn with_owner(socket: &Socket, found: &Owners) -> ListeningSocket {
    let loopback = match socket.address {
        IpAddr::V4(address) => address.is_loopback(),
        IpAddr::V6(address) => {
            address.is_loopback() || address.to_ipv4_mapped().is_some_and(|a| a.is_loopback())
        }
    };
    ListeningSocket {
        port: socket.port,
        address: socket.address.to_string(),
        loopback_only: loopback,
        user_id: socket.user_id,
        owners: found
            .by_inode
            .get(&socket.inode)
            .cloned()
            .unwrap_or_default(),
    }
}

#[derive(Default)]
struct Owners {
    by_inode: HashMap<u64, Vec<Owner>>,
    incomplete: bool,
}

fn owners(wanted: &HashSet<u64>) -> Owners {
    let mut found = Owners::default();
    let mut budget = MAX_DESCRIPTORS;
    if wanted.is_empty() {
        return found;
    }
    for pid in procfs::pids().unwrap_or_default() {
        match sockets_of(pid, wanted, &mut budget) {
            Ok(inodes) => found.add(pid, inodes),
            // A process that has ended is no loss; one that may not be read is.
            Err(error) => {
                found.incomplete |= error.kind() == std::io::ErrorKind::PermissionDenied;
            }
        }
    }
    found.incomplete |= budget == 0;
    found
}

impl Owners {
    fn add(&mut self, pid: u32, inodes: HashSet<u64>) {
        if inodes.is_empty() {
            return;
        }
        let name = Stat::read(pid).map(|stat| stat.name).unwrap_or_default();
        for inode in inodes {
            let owners = self.by_inode.entry(inode).or_default();
            if owners.len() < MAX_OWNERS {
                let name = name.clone();
                owners.push(Owner { pid, name });
            }
        }
    }
}

fn sockets_of(
    pid: u32,
    wanted: &HashSet<u64>,
    budget: &mut usize,
) -> std::io::Result<HashSet<u64>> {
    let mut inodes = HashSet::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        if *budget == 0 {
            break;
        }
        *budget -= 1;
        // A descriptor that was closed meanwhile.
        let Ok(target) = std::fs::read_link(entry?.path()) else {
            continue;
        };
        inodes.extend(target.to_str().and_then(socket_inode));
    }
    inodes.retain(|inode| wanted.contains(inode));
    Ok(inodes)
}

fn socket_inode(target: &str) -> Option<u64> {
    let inode = target.strip_prefix("socket:[")?.strip_suffix(']')?;
    inode.parse().ok()
}

fn describe(list: &PortList) -> String {
    let mut lines = vec![format!(
        "{} of {} listening TCP sockets",
        list.ports.len(),
        list.matched
    )];
    lines.extend(list.ports.iter().map(|port| {
        let owners: Vec<String> = port
            .owners
            .iter()
            .map(|owner| format!("{} ({})", owner.name, owner.pid))
            .collect();
        let shown = (!owners.is_empty()).then(|| owners.join(", "));
        format!(
            "{:>5}  {:<39} uid {:<6} {}",
            port.port,
            port.address,
            port.user_id,
            text::or_dash(shown.as_ref())
        )
    }));
    if list.owners_incomplete {
        lines.push("owners of other users' sockets may be missing".to_owned());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_and_other_states_passed_over() {
        let row = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0";
        assert_eq!(
            parse(row),
            Some(Socket {
                address: IpAddr::V4(Ipv4Addr::LOCALHOST),
                port: 8080,
                user_id: 1000,
                inode: 4711,
            })
        );
        assert_eq!(parse(&row.replace(" 0A ", " 01 ")), None);
        assert_eq!(parse("  sl  local_address rem_address   st"), None);
    }

    #[test]
    fn addresses_of_both_families_are_read() {
        let v6 = "00000000000000000000000001000000";
        assert_eq!(parse_address(v6), Some(IpAddr::V6(Ipv6Addr::LOCALHOST)));
        assert_eq!(
            parse_address("00000000"),
            Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
        );
        assert_eq!(parse_address("0000"), None);
        assert_eq!(parse_address("zzzzzzzz"), None);
    }

    #[test]
    fn a_listener_of_this_process_is_found_with_its_owner() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let arguments = PortArguments {
            port: Some(port),
            limit: 10,
        };
        let list = list(&arguments).unwrap().value;
        assert_eq!(list.matched, 1);
        assert!(list.ports[0].loopback_only);
        assert!(
            list.ports[0]
                .owners
                .iter()
                .any(|o| o.pid == std::process::id())
        );
    }

    #[test]
    fn arguments_are_checked() {
        let list = |port, limit| list(&PortArguments { port, limit });
        assert!(list(Some(0), 1).is_err());
        assert!(list(None, 0).is_err());
        assert!(list(None, MAX_LIMIT + 1).is_err());
    }
}

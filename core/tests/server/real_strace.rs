//! What a request costs the proxy, in system calls as strace counts them: seconds depend on the machine, these do not.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use crate::harness::{Server, agent, get, until};
use crate::image::push;
use crate::services::succeeds;

const REQUESTS: u64 = 300;
/// What the rest of the server may do meanwhile, on the same threads.
const BESIDE: u64 = REQUESTS / 2;
/// From the client and from the instance, to the instance and to the client.
const TRANSFERS: [[&str; 3]; 2] = [
    ["recvfrom", "recvmsg", "readv"],
    ["sendto", "sendmsg", "writev"],
];
const WAITS: [&str; 3] = ["epoll_wait", "epoll_pwait", "epoll_pwait2"];

#[test]
fn a_plain_request_takes_four_transfers_and_two_waits() {
    let server = serving();
    let (agent, url) = (agent(), format!("{}/version", server.app_url()));
    let ask = |times: u64| {
        for _ in 0..times {
            let answer = agent.get(&url).call().unwrap().body_mut().read_to_string();
            assert_eq!(answer.unwrap(), "one");
        }
    };
    // The connections are there from then on.
    ask(5);
    let calls = counted(server.pid(), || ask(REQUESTS));
    let count = |names: &[&str]| -> u64 { names.iter().filter_map(|name| calls.get(*name)).sum() };
    let transfers = TRANSFERS.map(|names| count(&names));
    for count in transfers {
        let expected = 2 * REQUESTS..=2 * REQUESTS + BESIDE;
        assert!(expected.contains(&count), "{calls:?}");
    }
    // Waiting for the instance, and for the client's next request.
    let waits = count(&WAITS);
    assert!(waits <= 2 * REQUESTS + BESIDE, "{calls:?}");
    let others = calls.values().sum::<u64>() - transfers.iter().sum::<u64>() - waits;
    assert!(others <= BESIDE, "{calls:?}");
}

#[test]
fn a_new_connection_takes_five_calls_of_its_own() {
    let server = serving();
    let address = server.app_url().trim_start_matches("http://").to_owned();
    let ask = |times: u64| {
        for _ in 0..times {
            let mut client = TcpStream::connect(&address).unwrap();
            let request =
                format!("GET /version HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
            client.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert!(answer.ends_with("\r\n\r\none"), "{answer:?}");
        }
    };
    ask(5);
    let port: u16 = address.rsplit_once(':').unwrap().1.parse().unwrap();
    let calls = counted(server.pid(), || {
        ask(REQUESTS);
        // A client knows of its end first.
        until("all are closed", || (connections(port) == 0).then_some(()));
    });
    let count = |names: &[&str]| -> u64 { names.iter().filter_map(|name| calls.get(*name)).sum() };
    // Said to be heard of and not to be any more, its end, and its descriptor's.
    for (call, times) in [("epoll_ctl", 2), ("shutdown", 1), ("close", 1)] {
        let expected = times * REQUESTS..=times * REQUESTS + BESIDE;
        assert!(expected.contains(&count(&[call])), "{call}: {calls:?}");
    }
    // One that finds nobody after each that lets somebody in.
    assert!(
        (REQUESTS..=2 * REQUESTS + BESIDE).contains(&count(&["accept4"])),
        "{calls:?}"
    );
    // What a socket is to be like it has from its listener.
    assert!(count(&["setsockopt"]) <= BESIDE, "{calls:?}");
    // The answer waits for the end, which goes out with it.
    let sent = traced(server.pid(), &["-e", "trace=sendto,shutdown"], || ask(10));
    assert_eq!(sent.matches("MSG_MORE").count(), 10, "{sent}");
}

/// How many connections to a port somebody has open on its side: those that are closed and not yet forgotten have no inode.
fn connections(port: u16) -> usize {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().skip(1).map(|row| row.split_whitespace());
    let is_open = |mut row: std::str::SplitWhitespace<'_>| {
        let is_local = row.nth(1)?.ends_with(&format!(":{port:04X}"));
        let listens = row.nth(1)? == "0A";
        Some(is_local && !listens && row.nth(5)? != "0")
    };
    rows.filter_map(is_open).filter(|open| *open).count()
}

/// With an application that has a release.
fn serving() -> Server {
    let server = Server::start();
    push(&server, "local", "one", &[("VERSION", "one")]);
    let mut request = server.request("one");
    if let Some(health) = &mut request.health {
        // What is counted is not what checks cost.
        health.interval_ms = 600_000;
    }
    succeeds(&server, &request);
    server
}

/// How large the registry is, and whose unpacked images go, is a look at what all tenants have: not each deployment takes one.
#[test]
fn deployments_in_a_row_look_once_at_what_all_tenants_have() {
    const OTHERS: u64 = 2000;
    const DEPLOYMENTS: u64 = 6;
    let server = Server::start();
    for version in 0..DEPLOYMENTS {
        let version = version.to_string();
        push(
            &server,
            "local",
            &format!("v{version}"),
            &[("VERSION", &version)],
        );
    }
    let blobs = server.data().join("registry/blobs/sha256");
    for other in 0..OTHERS {
        fs::write(blobs.join(format!("{other:064x}")), [0; 7]).unwrap();
    }
    let measured = || {
        let metrics = get(&format!("{}/metrics", server.url)).unwrap();
        let mut lines = metrics.lines();
        lines.find_map(|line| {
            line.strip_prefix("systemprompt_registry_bytes ")?
                .parse::<u64>()
                .ok()
        })
    };
    let calls = counted(server.pid(), || {
        for version in 0..DEPLOYMENTS {
            server.deploy_and_wait(&format!("v{version}"));
        }
        until("the registry is measured", || {
            measured().filter(|bytes| *bytes >= 7 * OTHERS)
        });
    });
    let names = ["stat", "lstat", "newfstatat", "statx"];
    let looks: u64 = names.iter().filter_map(|name| calls.get(*name)).sum();
    // The deployments themselves look at about 300 each. A machine may be so slow that there is a second time.
    assert!((OTHERS..3 * OTHERS).contains(&looks), "{looks}: {calls:?}");
}

/// The system calls of a process, with all its threads, while `work` is done.
fn counted(pid: u32, work: impl FnOnce()) -> BTreeMap<String, u64> {
    let table = traced(pid, &["-c", "-U", "calls,name"], work);
    let lines = table.lines().map(str::split_whitespace);
    let rows = lines.filter_map(|mut words| Some((words.next()?.parse().ok()?, words.next()?)));
    rows.filter(|(_, name)| *name != "total")
        .map(|(calls, name)| (name.to_owned(), calls))
        .collect()
}

/// What strace writes of a process, with all its threads, while `work` is done.
fn traced(pid: u32, options: &[&str], work: impl FnOnce()) -> String {
    let folder = tempfile::tempdir().unwrap();
    let written = folder.path().join("written");
    let mut strace = Command::new("strace")
        .args(["-f", "-o"])
        .arg(&written)
        .args(options)
        .args(["-p", &pid.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("strace is missing: run `cargo xtask test --setup`");
    let mut said = BufReader::new(strace.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.contains("attached"), "strace says {line:?}");
    work();
    // It lets go of the process, and writes.
    let interrupted = Command::new("kill")
        .args(["-INT", &strace.id().to_string()])
        .status();
    assert!(interrupted.unwrap().success());
    strace.wait().unwrap();
    fs::read_to_string(written).unwrap()
}

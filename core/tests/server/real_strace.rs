//! What a request costs the proxy, in system calls as strace counts them: seconds depend on the machine, these do not.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use crate::harness::{Server, agent};
use crate::image::push;

const REQUESTS: u64 = 300;
/// What the rest of the server may do meanwhile, on the same threads.
const BESIDE: u64 = REQUESTS / 2;

#[test]
fn a_plain_request_takes_four_transfers_and_two_waits() {
    let server = Server::start();
    push(&server, "local", "one", &[("VERSION", "one")]);
    server.deploy_and_wait("one");
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
    // From the client, to the instance, from the instance, to the client.
    let received = count(&["recvfrom", "recvmsg", "readv"]);
    let sent = count(&["sendto", "sendmsg", "writev"]);
    for transfers in [received, sent] {
        let expected = 2 * REQUESTS..=2 * REQUESTS + BESIDE;
        assert!(expected.contains(&transfers), "{calls:?}");
    }
    // Waiting for the instance, and for the client's next request.
    let waits = count(&["epoll_wait", "epoll_pwait", "epoll_pwait2"]);
    assert!(waits <= 2 * REQUESTS + BESIDE, "{calls:?}");
    let others: u64 = calls.values().sum::<u64>() - received - sent - waits;
    assert!(others <= BESIDE, "{calls:?}");
}

/// The system calls of a process, with all its threads, while `work` is done.
fn counted(pid: u32, work: impl FnOnce()) -> BTreeMap<String, u64> {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("table");
    let mut strace = Command::new("strace")
        .args(["-f", "-c", "-U", "calls,name", "-o"])
        .arg(&table)
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
    let table = fs::read_to_string(table).unwrap();
    let lines = table.lines().map(str::split_whitespace);
    let rows = lines.filter_map(|mut words| Some((words.next()?.parse().ok()?, words.next()?)));
    rows.filter(|(_, name)| *name != "total")
        .map(|(calls, name)| (name.to_owned(), calls))
        .collect()
}

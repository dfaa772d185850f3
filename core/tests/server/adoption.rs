//! The live release goes on while one server follows another.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use management_api::types::{Liveness, Probe};
use serde_json::Value;

use crate::harness::{Server, agent, get, until};
use crate::image::push;
use crate::services::{env, succeeds};

/// The numbers that a chatty application has printed, in the order of the log.
fn ticks(server: &Server, deployment: u64) -> Vec<u64> {
    let path = server.data().join(format!("logs/local/{deployment}.log"));
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let tick = |line: &str| {
        // Half of one may be there: of what is being written right now, or was when the writer was killed.
        let line: Value = serde_json::from_str(line).ok()?;
        let number = line["line"].as_str()?.strip_prefix("tick ")?;
        Some(number.parse().unwrap())
    };
    text.lines().filter_map(tick).collect()
}

/// A server with a release of two instances, of which the first counts aloud.
fn with_release() -> Server {
    let server = Server::start();
    push(&server, "local", "v1", &[("VERSION", "one")]);
    let mut request = server.request("v1");
    request.replicas = Some(2);
    let number = server.deploy(&request).deployment.unwrap();
    assert_eq!(server.wait(number).state, "succeeded");
    server
}

/// The program of each instance that was started: number and time of the start of its process.
fn programs(server: &Server) -> BTreeMap<String, Value> {
    let instances = server.instances().into_iter();
    let programs = instances.map(|(id, record)| (id, record["program"].clone()));
    programs
        .filter(|(_, program)| program.is_object())
        .collect()
}

#[test]
pub(crate) fn after_a_kill_the_same_processes_serve_on() {
    let server = with_release();
    let before = programs(&server);
    assert_eq!(before.len(), 2);
    let url = server.app_url();
    let server = server.kill_and_restart();
    // Whoever finds the server finds the release behind it: nothing was started.
    let version = get(&format!("{url}/version"));
    assert_eq!(version.as_deref(), Some("one"), "{}", server.log());
    assert_eq!(programs(&server), before);
    assert_eq!(server.client().status("local").unwrap().status, "deployed");
    // They are kept running as others are.
    get(&format!("{url}/exit/5"));
    until("another one takes its place", || {
        let now = programs(&server);
        (now.len() == 2 && now != before).then_some(())
    });
}

#[test]
pub(crate) fn sigterm_leaves_the_release_to_the_next_server() {
    let mut server = with_release();
    let before = programs(&server);
    assert!(server.terminate().success());
    assert_eq!(programs(&server), before);
    let server = server.kill_and_restart();
    assert_eq!(server.version().as_deref(), Some("one"));
    assert_eq!(programs(&server), before);
    // The next release takes the place of instances that this server has not started.
    push(&server, "local", "v2", &[("VERSION", "two")]);
    assert_eq!(server.deploy_and_wait("v2").state, "succeeded");
    assert_eq!(server.version().as_deref(), Some("two"));
    let now = programs(&server);
    assert!(now.keys().all(|id| !before.contains_key(id)), "{now:?}");
}

#[test]
fn a_log_has_no_gap_where_no_server_was() {
    let server = Server::start();
    push(&server, "local", "v1", &[("MODE", "chatty")]);
    let number = server.deploy_and_wait("v1").number;
    let mut server = server;
    server.kill();
    let so_far = ticks(&server, number).len();
    until("it is written without a server", || {
        (ticks(&server, number).len() > so_far + 20).then_some(())
    });
    let server = server.kill_and_restart();
    let so_far = ticks(&server, number).len();
    until("it is still written", || {
        (ticks(&server, number).len() > so_far + 20).then_some(())
    });
    let found = ticks(&server, number);
    let expected: Vec<u64> = (0..found.len() as u64).collect();
    assert_eq!(found, expected);
}

#[test]
pub(crate) fn a_log_has_no_gap_between_two_servers() {
    let server = Server::start();
    push(&server, "local", "v1", &[("MODE", "chatty")]);
    let number = server.deploy_and_wait("v1").number;
    let server = server.kill_and_restart();
    let so_far = ticks(&server, number).last().copied();
    until("it is still written", || {
        (ticks(&server, number).last().copied() > so_far.map(|tick| tick + 20)).then_some(())
    });
    has_no_gap(ticks(&server, number));
}

/// Whoever writes it: what a server was writing when it was killed may be there twice.
fn has_no_gap(mut found: Vec<u64>) {
    let all = found.len();
    found.sort_unstable();
    found.dedup();
    let expected: Vec<u64> = (0..found.len() as u64).collect();
    assert_eq!(found, expected);
    let twice = all - found.len();
    assert!(twice < 100, "{twice} lines are there twice");
}

#[test]
pub(crate) fn a_log_goes_on_in_a_data_folder_that_was_renamed() {
    let folder = tempfile::tempdir().unwrap();
    let [before, after] = ["before", "after"].map(|name| folder.path().join(name));
    let mut first = Server::start_in(&before);
    push(&first, "local", "v1", &[("MODE", "chatty")]);
    let number = first.deploy_and_wait("v1").number;
    first.kill();
    std::fs::rename(&before, &after).unwrap();
    let mut second = Server::start_in(&after);
    let so_far = ticks(&second, number).len();
    until("it is still written", || {
        (ticks(&second, number).len() > so_far + 20).then_some(())
    });
    has_no_gap(ticks(&second, number));
    assert!(!before.exists(), "nothing is written where it was");
    assert!(second.interrupt().success());
}

#[test]
pub(crate) fn a_copied_data_folder_ends_nothing_of_the_original() {
    let server = with_release();
    let before = programs(&server);
    let copies = tempfile::tempdir().unwrap();
    let copy = copies.path().join("data");
    let mut command = Command::new("cp");
    let copied = command.arg("-a").arg(server.data()).arg(&copy).status();
    assert!(copied.unwrap().success());
    let mut second = Server::start_in(&copy);
    // It has instances of its own, and the original its.
    until("the copy serves", || second.version());
    assert!(
        programs(&second)
            .values()
            .all(|own| before.values().all(|its| its != own))
    );
    assert!(second.interrupt().success());
    assert_eq!(programs(&server), before);
    for program in before.values() {
        assert!(Path::new("/proc").join(program["pid"].to_string()).exists());
    }
    assert_eq!(server.version().as_deref(), Some("one"));
    // Of the overlays, which were copied too.
    let open = Command::new("chmod")
        .args(["-R", "u+rwX"])
        .arg(&copy)
        .status();
    assert!(open.unwrap().success());
}

#[test]
fn no_request_fails_but_while_nobody_listens() {
    let server = with_release();
    let url = format!("{}/version", server.app_url());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let agent = agent();
            let (mut good, mut refused) = (0, 0);
            while !done.load(Ordering::Relaxed) {
                match agent.get(&url).call() {
                    // Refused, or cut off with the server that was killed.
                    Err(_) => refused += 1,
                    Ok(answer) => {
                        assert_eq!(answer.status(), 200);
                        good += 1;
                    }
                }
            }
            (good, refused)
        });
        let server = server.kill_and_restart();
        until("it serves", || server.version());
        done.store(true, Ordering::Relaxed);
        let (good, refused) = asking.join().unwrap();
        assert!(good > 0, "{refused} were refused");
    });
}

#[test]
pub(crate) fn what_a_half_done_deployment_has_started_is_ended_and_what_was_live_is_kept() {
    let mut server = with_release();
    push(&server, "local", "v2", &[("VERSION", "two")]);
    let before = programs(&server);
    assert!(server.terminate().success());
    let mut server = server.restart_with(&[("SYSTEMPROMPT_DIE_AT", "shifting")]);
    let number = server.deploy(&server.request("v2")).deployment.unwrap();
    server.wait_for_death();
    assert!(programs(&server).len() > 2, "the new ones run");
    let server = server.kill_and_restart();
    assert_eq!(server.version().as_deref(), Some("one"));
    let done = server.client().deployment("local", number).unwrap();
    assert_eq!(done.state, "rolled_back");
    until("the new ones are ended", || {
        (programs(&server) == before).then_some(())
    });
    assert_eq!(server.version().as_deref(), Some("one"));
}

fn kill(program: &Value) {
    let pid = program["pid"].to_string();
    let killed = Command::new("kill").args(["-KILL", &pid]).status();
    assert!(killed.unwrap().success());
}

/// The end of the server and of all that it has started, as that of the machine is.
fn restart_all(mut server: Server) -> Server {
    server.kill();
    for program in programs(&server).values() {
        kill(program);
    }
    server.kill_and_restart()
}

#[test]
pub(crate) fn whoever_asks_while_the_release_is_started_again_waits_for_it() {
    let server = Server::start();
    let env = [("VERSION", "one"), ("MODE", "slow"), ("START_MS", "4000")];
    push(&server, "local", "v1", &env);
    assert_eq!(server.deploy_and_wait("v1").state, "succeeded");
    let server = restart_all(server);
    let url = server.app_url();
    let asked = Instant::now();
    let posted = agent().post(format!("{url}/version")).send("a body");
    assert_eq!(posted.unwrap().status(), 200, "{}", server.log());
    let waited = asked.elapsed();
    assert!(waited > Duration::from_millis(500), "{waited:?}");
    assert_eq!(server.version().as_deref(), Some("one"));
}

fn is_refused_at_once(url: &str) {
    let asked = Instant::now();
    let answer = agent().get(format!("{url}/version")).call().unwrap();
    assert_eq!(answer.status(), 503);
    // One that waits does so for a minute.
    let waited = asked.elapsed();
    assert!(waited < Duration::from_secs(30), "{waited:?}");
}

#[test]
pub(crate) fn nobody_waits_for_a_release_that_does_not_start_again() {
    let server = Server::start();
    push(&server, "local", "v1", &[("VERSION", "one")]);
    let mut request = server.request("v1");
    request.volumes = env(&[("data", "/data")]);
    request.env = env(&[("DATA", "/data"), ("STOPS_AT", "later")]);
    succeeds(&server, &request);
    let url = server.app_url();
    assert_eq!(get(&format!("{url}/write/later")).unwrap(), "written");
    let server = restart_all(server);
    is_refused_at_once(&url);
    drop(server);
}

#[test]
pub(crate) fn an_instance_that_ended_meanwhile_is_started_again() {
    let mut server = with_release();
    server.kill();
    let before = programs(&server);
    let (id, program) = before.first_key_value().unwrap();
    kill(program);
    let server = server.kill_and_restart();
    assert_eq!(server.version().as_deref(), Some("one"));
    until("there are two again", || {
        let now = programs(&server);
        (now.len() == 2 && !now.contains_key(id)).then_some(())
    });
    let log = server.log();
    assert!(log.contains("it was ended by signal 9 (SIGKILL)"), "{log}");
}

/// A release whose instances are left alone as long as they live, well or not.
fn with_liveness(replicas: u32) -> Server {
    let server = Server::start();
    push(&server, "local", "v1", &[("VERSION", "one")]);
    let mut request = server.request("v1");
    request.replicas = Some(replicas);
    let alive = Probe {
        path: "/alive".to_owned(),
        ..Probe::default()
    };
    if let Some(health) = &mut request.health {
        health.liveness = Some(Liveness {
            probe: alive,
            interval_ms: 1000,
            timeout_ms: 1000,
            retries: 3,
        });
        // Before it is told well, it may be asked for long.
        health.start_period_ms = 60_000;
    }
    succeeds(&server, &request);
    server
}

#[test]
fn nobody_waits_for_what_has_run_on_and_is_not_well() {
    let server = with_liveness(1);
    let url = server.app_url();
    assert!(get(&format!("{url}/sick")).is_some());
    until("it has no traffic", || {
        server.version().is_none().then_some(())
    });
    let server = server.kill_and_restart();
    is_refused_at_once(&url);
    drop(server);
}

#[test]
fn what_is_not_ready_gets_no_requests_from_the_next_server_either() {
    let server = with_liveness(2);
    let before = programs(&server);
    let port = |server: &Server| get(&format!("{}/env/PORT", server.app_url())).unwrap();
    let sick = port(&server);
    assert!(get(&format!("http://127.0.0.1:{sick}/sick")).is_some());
    let never = |server: &Server| (0..12).all(|_| port(server) != sick).then_some(());
    until("it has no traffic", || never(&server));
    let server = server.kill_and_restart();
    assert!(never(&server).is_some(), "{}", server.log());
    assert_eq!(programs(&server), before);
    assert!(get(&format!("http://127.0.0.1:{sick}/well")).is_some());
    until("it has traffic again", || {
        (0..12).any(|_| port(&server) == sick).then_some(())
    });
    assert_eq!(programs(&server), before);
}

#[test]
pub(crate) fn no_more_instances_are_taken_over_than_the_release_has() {
    let mut server = with_release();
    server.kill();
    // As after an undo that had begun to start a second one while the first still finished its requests.
    let database = rusqlite::Connection::open(server.data().join("state.db")).unwrap();
    database
        .execute("UPDATE releases SET replicas = 1", [])
        .unwrap();
    drop(database);
    let before = programs(&server);
    let server = server.kill_and_restart();
    assert_eq!(server.version().as_deref(), Some("one"));
    until("the surplus has ended", || {
        (server.instances().len() == 1).then_some(())
    });
    let now = programs(&server);
    assert!(
        now.iter()
            .all(|(id, program)| before.get(id) == Some(program)),
        "{now:?}"
    );
}

#[test]
fn where_two_must_not_run_at_once_they_do_not_after_a_restart_either() {
    let server = Server::start();
    push(&server, "local", "v1", &[("VERSION", "one")]);
    push(&server, "local", "v2", &[("VERSION", "two")]);
    assert_eq!(server.deploy_and_wait("v1").state, "succeeded");
    let mut server = server.restart_with(&[("SYSTEMPROMPT_DIE_AT", "provisioned")]);
    let mut request = server.request("v2");
    request.strategy = Some("recreate".to_owned());
    server.deploy(&request);
    server.wait_for_death();
    // It takes its time to end: a stopped process does not hear SIGTERM.
    let stopped = server.instances();
    let (id, record) = stopped.first_key_value().unwrap();
    assert!(
        stopped.len() == 1 && id.starts_with("local-2-"),
        "{stopped:?}"
    );
    let program = record["program"]["pid"].to_string();
    let sent = std::process::Command::new("kill")
        .args(["-STOP", &program])
        .status();
    assert!(sent.unwrap().success());
    let server = server.kill_and_restart();
    until("the old one serves again", || {
        let ids: Vec<String> = server.instances().into_keys().collect();
        let both = ids.iter().any(|id| id.starts_with("local-1-")) && ids.contains(id);
        assert!(!both, "{ids:?}");
        server.version().filter(|version| version == "one")
    });
}

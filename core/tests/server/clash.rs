//! Two programs that want one port: an instance, and one that the server knows nothing of.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::thread;

use management_api::types::{DeployRequest, Deployment, Restart, is_final};
use serde_json::Value;

use crate::engine::Engine;
use crate::harness::{Server, get, until};
use crate::image::push;
use crate::services::succeeds;

/// Ports that are free and beside each other, below those that others choose from.
fn ports<const N: usize>() -> [u16; N] {
    let own = u16::try_from(std::process::id() % 1000).unwrap();
    let mut bases = (0..1000).map(|turn| 4000 + (own + turn) % 1000 * 4);
    let beside = |base| std::array::from_fn(|n| base + u16::try_from(n).unwrap());
    let free = bases.find_map(|base| {
        let all: [u16; N] = beside(base);
        all.iter().all(|port| hold(*port).is_some()).then_some(all)
    });
    free.unwrap()
}

/// The port that an instance has by its record.
fn port(record: &Value) -> Option<u16> {
    u16::try_from(record["port"].as_u64()?).ok()
}

fn hold(port: u16) -> Option<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
}

fn start_with(ports: &[u16]) -> Server {
    let ports = [ports[0], ports[ports.len() - 1]];
    Server::start_with(&format!("[engine]\ninstance_ports = {ports:?}\n"))
}

/// Answers that all is well, whatever it is asked.
fn answer(listener: TcpListener) {
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // One that hangs up is asked no more.
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
    });
}

/// Has a release serve; the port that it has.
fn deploy_good(server: &Server) -> u16 {
    push(server, "local", "good", &[("VERSION", "good")]);
    assert_eq!(server.deploy_and_wait("good").state, "succeeded");
    let own = get(&format!("{}/env/PORT", server.app_url())).unwrap();
    own.parse().unwrap()
}

/// Deploys a release that listens late at the one of two ports that is free, and lets `other` have that before it does.
fn deploy_late(server: &Server, free: u16, other: impl FnOnce(TcpListener)) -> Deployment {
    let env = [("VERSION", "late"), ("MODE", "slow"), ("START_MS", "4000")];
    push(server, "local", "late", &env);
    let request = server.patient_request("late");
    let number = server.deploy(&request).deployment.unwrap();
    server.wait_for(number, |deployment| deployment.state == "provisioned");
    other(hold(free).unwrap());
    server.wait(number)
}

fn other_of(ports: [u16; 2], own: u16) -> u16 {
    ports.into_iter().find(|port| *port != own).unwrap()
}

#[test]
pub(crate) fn a_port_that_another_program_has_is_not_given_out() {
    let ports: [u16; 2] = ports();
    let _other = hold(ports[0]).unwrap();
    let server = start_with(&ports);
    push(&server, "local", "one", &[("VERSION", "one")]);
    push(&server, "local", "two", &[("VERSION", "two")]);
    assert_eq!(server.deploy_and_wait("one").state, "succeeded");
    let given = get(&format!("{}/env/PORT", server.app_url()));
    assert_eq!(given, Some(ports[1].to_string()));
    // Where it is not the instance that has it already, which is enough.
    let _rest = hold(ports[1]);
    let done = server.deploy_and_wait("two");
    let failure = done.failure.unwrap();
    assert_eq!(
        (done.state.as_str(), failure.code.as_str()),
        ("rolled_back", "no_port")
    );
    let [first, last] = ports;
    let why = format!("no port from {first} to {last} is free");
    assert!(failure.message.starts_with(&why), "{failure:?}");
    assert_eq!(server.version().as_deref(), Some("one"));
}

/// In a network of Docker's each instance has all ports.
#[test]
pub(crate) fn the_answer_of_another_program_is_not_taken_for_that_of_an_instance() {
    let ports = ports();
    let server = start_with(&ports);
    let free = other_of(ports, deploy_good(&server));
    let done = deploy_late(&server, free, answer);
    if matches!(Engine::current(), Engine::Docker { .. }) {
        assert_eq!(done.state, "succeeded", "{done:?}");
        assert_eq!(server.version().as_deref(), Some("late"));
        return;
    }
    let failure = done.failure.unwrap();
    assert_eq!(
        (done.state.as_str(), failure.code.as_str()),
        ("rolled_back", "port_taken")
    );
    assert!(failure.message.contains("another program"), "{failure:?}");
    assert_eq!(server.version().as_deref(), Some("good"));
}

#[test]
fn an_application_that_ends_because_its_port_is_taken_is_told_as_such() {
    let ports = ports();
    let server = start_with(&ports);
    let mut held = None;
    let free = other_of(ports, deploy_good(&server));
    let done = deploy_late(&server, free, |listener| held = Some(listener));
    let failure = done.failure.unwrap();
    assert_eq!(
        (failure.code.as_str(), failure.exit_code),
        ("port_taken", Some(101)),
        "{failure:?}"
    );
    let log = failure.log_tail.join("\n");
    assert!(log.contains("the port can be had"), "{log}");
    assert_eq!(server.version().as_deref(), Some("good"));
}

/// Whoever was quicker has a port for good; there are others.
#[test]
fn an_instance_whose_port_is_taken_is_started_again_on_another_one() {
    let ports: [u16; 3] = ports();
    let server = start_with(&ports);
    let own = deploy_good(&server);
    let mut rest = ports.into_iter().filter(|port| *port != own);
    let (first, second) = (rest.next().unwrap(), rest.next().unwrap());
    let mut kept = hold(second);
    let mut held = None;
    let done = deploy_late(&server, first, |listener| {
        held = Some(listener);
        kept = None;
    });
    assert_eq!(done.state, "succeeded", "{done:?}");
    let given = get(&format!("{}/env/PORT", server.app_url()));
    assert_eq!(given, Some(second.to_string()));
    assert!(server.log().contains("is started again on another port"));
    let instances = server.instances();
    assert_eq!(instances.len(), 1, "{instances:?}");
}

/// Where an application is never to be started again, that would be the end of its release.
#[test]
fn a_port_that_is_taken_when_the_old_release_returns_ends_nothing_for_good() {
    let ports: [u16; 2] = ports();
    let server = start_with(&ports);
    let env = [("VERSION", "late"), ("MODE", "slow"), ("START_MS", "4000")];
    push(&server, "local", "late", &env);
    push(&server, "local", "bad", &[("MODE", "exit")]);
    let of = |tag: &str| DeployRequest {
        restart: Restart::Never,
        strategy: Some("recreate".to_owned()),
        ..server.patient_request(tag)
    };
    succeeds(&server, &of("late"));
    let first: Vec<String> = server.instances().into_keys().collect();
    let number = server.deploy(&of("bad")).deployment.unwrap();
    // The old one is stopped, the new one has failed, and the old one is being started.
    let port = until("the old release returns", || {
        let instances = server.instances();
        let mut returned = instances
            .iter()
            .filter(|(id, _)| id.starts_with("local-1-") && !first.contains(*id));
        port(returned.next()?.1)
    });
    let _other = hold(port).unwrap();
    assert_eq!(server.wait(number).state, "rolled_back");
    until("it serves at the other port", || server.version());
    let given = get(&format!("{}/env/PORT", server.app_url()));
    assert_eq!(given, Some(other_of(ports, port).to_string()));
    assert!(server.log().contains("the next start gets another port"));
}

/// A program that takes whatever port an instance is given.
#[test]
fn who_takes_three_ports_has_a_deployment_ended_and_not_tried_without_end() {
    let ports: [u16; 4] = ports();
    let server = start_with(&ports);
    let env = [("VERSION", "late"), ("MODE", "slow"), ("START_MS", "2500")];
    push(&server, "local", "late", &env);
    let request = server.patient_request("late");
    let number = server.deploy(&request).deployment.unwrap();
    let mut taken = BTreeMap::new();
    let done = server.wait_for(number, |deployment| {
        for (id, record) in server.instances() {
            let take = || hold(port(&record).unwrap()).unwrap();
            taken.entry(id).or_insert_with(take);
        }
        is_final(&deployment.state)
    });
    let failure = done.failure.unwrap();
    assert_eq!(
        (failure.code.as_str(), failure.exit_code, taken.len()),
        ("port_taken", Some(101), 3),
        "{failure:?}"
    );
    let log = failure.log_tail.join("\n");
    assert!(log.contains("the port can be had"), "{log}");
    assert!(server.instances().is_empty());
}

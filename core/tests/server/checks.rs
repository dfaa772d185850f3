//! What an instance is asked before it has traffic, and while it runs.

use management_api::types::{DeployRequest, HealthCheck, Liveness, Probe, ProbeKind};

use serde_json::json;

use crate::harness::{Server, get, key, strict_health, until};
use crate::image::{push, registry};

fn with(server: &Server, tag: &str, change: impl FnOnce(&mut HealthCheck)) -> DeployRequest {
    let mut request = server.request(tag);
    change(request.health.as_mut().unwrap());
    request
}

fn holding(text: &str) -> impl FnOnce(&mut HealthCheck) {
    move |check| check.probe.body = Some(text.to_owned())
}

fn of_kind(kind: ProbeKind) -> impl FnOnce(&mut HealthCheck) {
    move |check| check.probe.kind = kind
}

/// The same for an image that is not healthy in time.
fn sick(server: &Server, tag: &str, change: impl FnOnce(&mut HealthCheck)) -> DeployRequest {
    let mut health = strict_health();
    change(&mut health);
    DeployRequest {
        health: Some(health),
        ..server.request(tag)
    }
}

/// A check whose failure means that the instance cannot be helped.
fn alive() -> Liveness {
    Liveness {
        probe: Probe {
            path: "/alive".to_owned(),
            ..Probe::default()
        },
        interval_ms: 100,
        timeout_ms: 1000,
        retries: 2,
    }
}

#[test]
fn an_answer_has_to_hold_the_text_that_is_asked_for() {
    let server = Server::start();
    push(&server, "local", "one", &[("VERSION", "one")]);
    let number = server
        .deploy(&sick(&server, "one", holding("\"up\"")))
        .deployment;
    let done = server.wait(number.unwrap());
    let failure = done.failure.unwrap();
    assert_eq!(
        (done.state.as_str(), failure.code.as_str()),
        ("failed", "unhealthy")
    );
    assert!(
        failure
            .message
            .starts_with("the answer to GET /health does not hold \"\\\"up\\\"\""),
        "{failure:?}"
    );
    let number = server
        .deploy(&with(&server, "one", holding("fine")))
        .deployment;
    assert_eq!(server.wait(number.unwrap()).state, "succeeded");
}

#[test]
fn a_connection_is_enough_for_what_does_not_answer_http() {
    let server = Server::start();
    push(&server, "local", "mute", &[("MODE", "silent")]);
    let number = server
        .deploy(&with(&server, "mute", of_kind(ProbeKind::Tcp)))
        .deployment;
    assert_eq!(server.wait(number.unwrap()).state, "succeeded");
    push(
        &server,
        "local",
        "deaf",
        &[("MODE", "slow"), ("START_MS", "600000")],
    );
    let number = server
        .deploy(&sick(&server, "deaf", of_kind(ProbeKind::Tcp)))
        .deployment;
    let done = server.wait(number.unwrap());
    let failure = done.failure.unwrap();
    assert_eq!(
        (done.state.as_str(), failure.code.as_str()),
        ("rolled_back", "health_timeout")
    );
    assert!(
        failure.message.contains("nothing listens on port"),
        "{failure:?}"
    );
}

#[test]
fn what_is_not_ready_gets_no_requests_and_runs_on() {
    let server = Server::start();
    push(&server, "local", "one", &[("VERSION", "one")]);
    let change = |check: &mut HealthCheck| check.liveness = Some(alive());
    let number = server
        .deploy(&with(&server, "one", change))
        .deployment
        .unwrap();
    assert_eq!(server.wait(number).state, "succeeded");
    let port = get(&format!("{}/env/PORT", server.app_url())).unwrap();
    let own = |path: &str| get(&format!("http://127.0.0.1:{port}/{path}"));
    assert!(own("sick").is_some());
    until("it has no traffic", || {
        server.version().is_none().then_some(())
    });
    // The instance itself is the same, and answers.
    assert_eq!(own("version").as_deref(), Some("one"));
    assert!(own("well").is_some());
    until("it has traffic again", || server.version());
    assert_eq!(
        get(&format!("{}/env/PORT", server.app_url())),
        Some(port.clone())
    );

    assert!(own("dead").is_some());
    let another = until("another instance has taken its place", || {
        get(&format!("{}/env/PORT", server.app_url())).filter(|now| *now != port)
    });
    assert_eq!(server.instances().len(), 1, "the first one has ended");
    assert_eq!(
        get(&format!("http://127.0.0.1:{another}/alive")).as_deref(),
        Some("alive")
    );
    let log = server.log();
    assert!(
        log.contains("it no longer answers GET /alive as it should"),
        "{log}"
    );
    assert_eq!(
        log.matches("an instance of the live release is down")
            .count(),
        1,
        "{log}"
    );
}

fn command(words: &[&str]) -> Probe {
    Probe {
        kind: ProbeKind::Command,
        command: words.iter().map(|word| (*word).to_owned()).collect(),
        ..Probe::default()
    }
}

fn checked_by(words: &[&str]) -> impl FnOnce(&mut HealthCheck) {
    move |check| check.probe = command(words)
}

const CHECK: [&str; 3] = ["/app", "check", "/health"];

/// How many processes of this machine have the name of a test as an argument.
fn orphans(name: &str) -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let words = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let is_one = |words: &Vec<u8>| words.ends_with(format!("orphan\0{name}\0").as_bytes());
    words.filter(is_one).count()
}

#[test]
pub(crate) fn nothing_that_a_check_starts_outlives_it() {
    let server = Server::start();
    push(&server, "local", "one", &[("VERSION", "one")]);
    let name = format!("of-{}", std::process::id());
    let none_left = |what: &str| until(what, || (orphans(&name) == 0).then_some(()));
    let done = server.deploy(&with(&server, "one", checked_by(&["/app", "leave", &name])));
    assert_eq!(server.wait(done.deployment.unwrap()).state, "succeeded");
    none_left("what a check has left goes with it");
    // One that takes too long leaves one each time it is asked.
    let number = server
        .deploy(&with(&server, "one", |check| {
            check.probe = command(&["/app", "leave", &name, "hang"]);
            check.timeout_ms = 500;
            check.start_period_ms = 600_000;
        }))
        .deployment
        .unwrap();
    server.wait_for(number, |deployment| deployment.state == "provisioned");
    until("a check has begun", || (orphans(&name) > 0).then_some(()));
    none_left("what a late check has left goes with it");
    assert_eq!(
        server.client().deployment("local", number).unwrap().state,
        "provisioned"
    );
    server.client().abort("local", number).unwrap();
    assert_eq!(server.wait(number).state, "rolled_back");
}

fn check_commands(server: Server) {
    push(&server, "local", "one", &[("VERSION", "one")]);
    push(&server, "local", "sick", &[("MODE", "unhealthy")]);
    let deploy = |tag: &str, words: &[&str]| {
        let answer = server.deploy(&sick(&server, tag, checked_by(words)));
        server.wait(answer.deployment.unwrap())
    };
    let answer = server.deploy(&with(&server, "one", checked_by(&CHECK)));
    let done = server.wait(answer.deployment.unwrap());
    assert_eq!(done.state, "succeeded", "{done:?}");
    // One that runs beside it is not healthy: nothing is lost.
    let failure = deploy("sick", &CHECK).failure.unwrap();
    assert_eq!(failure.code, "unhealthy");
    let why = "the check `/app` ends with exit code 1 (sick)";
    assert!(failure.message.starts_with(why), "{failure:?}");
    // Nobody waits for what the image does not have.
    let answer = server.deploy(&sick(&server, "one", |check| {
        check.probe = command(&["absent"]);
        check.start_period_ms = 600_000;
    }));
    let failure = server.wait(answer.deployment.unwrap()).failure.unwrap();
    assert_eq!(failure.code, "unhealthy");
    let why = "the check `absent` cannot be run: program `absent` not found in the image after ";
    assert!(failure.message.starts_with(why), "{failure:?}");
    let failure = deploy("one", &["/app", "hang"]).failure.unwrap();
    assert_eq!(failure.code, "health_timeout");
    let why = "the check `/app` does not end within 1000 ms";
    assert!(failure.message.starts_with(why), "{failure:?}");
    assert_eq!(server.version().as_deref(), Some("one"));
    // The next server asks those that it takes over in the same way.
    let url = server.app_url();
    let server = server.kill_and_restart();
    let port = || get(&format!("{url}/env/PORT"));
    let before = until("it serves", port);
    get(&format!("{url}/sick"));
    let after = until("another takes its place", || {
        port().filter(|port| *port != before)
    });
    assert_ne!(before, after);
    let log = server.log();
    assert!(
        log.contains("it no longer passes the check `/app`"),
        "{log}"
    );
}

#[test]
pub(crate) fn a_command_inside_the_instance_decides() {
    check_commands(Server::start());
}

#[test]
fn a_command_decides_where_nothing_is_isolated() {
    check_commands(Server::start_without_isolation());
}

#[test]
pub(crate) fn a_command_may_say_that_an_instance_cannot_be_helped() {
    let server = Server::start();
    push(&server, "local", "one", &[("VERSION", "one")]);
    let change = |check: &mut HealthCheck| {
        check.liveness = Some(Liveness {
            probe: command(&["/app", "check", "/alive"]),
            ..alive()
        });
    };
    let answer = server.deploy(&with(&server, "one", change));
    assert_eq!(server.wait(answer.deployment.unwrap()).state, "succeeded");
    let port = || get(&format!("{}/env/PORT", server.app_url()));
    let before = until("it serves", port);
    get(&format!("{}/dead", server.app_url()));
    until("another takes its place", || {
        port().filter(|port| *port != before)
    });
}

#[test]
pub(crate) fn the_check_of_the_image_is_used_where_it_is_asked_for() {
    let server = Server::start();
    let registry = registry(&server, "local");
    let says = |path: &str| json!({ "Test": ["CMD", "/app", "check", path], "Retries": 3 });
    registry.push_checked("good", &[("VERSION", "good")], &says("/health"));
    registry.push_checked("bad", &[], &says("/absent"));
    registry.push("none", &[("VERSION", "none")]);
    let ask = |tag: &str| with(&server, tag, of_kind(ProbeKind::Image));
    let number = server.deploy(&ask("good")).deployment.unwrap();
    assert_eq!(server.wait(number).state, "succeeded");
    let bad = sick(&server, "bad", of_kind(ProbeKind::Image));
    let number = server.deploy(&bad).deployment.unwrap();
    let failure = server.wait(number).failure.unwrap();
    assert!(
        failure.message.starts_with("the check `/app` ends with"),
        "{failure:?}"
    );
    let refused = server.client().deploy("local", &ask("none"), &key(), false);
    let refused = format!("{:?}", refused.unwrap_err());
    assert!(
        refused.contains("the image has no HEALTHCHECK"),
        "{refused}"
    );
    assert_eq!(server.version().as_deref(), Some("good"));
}

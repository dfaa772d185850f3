//! What an instance is asked before it has traffic, and while it runs.

use management_api::types::{DeployRequest, HealthCheck, Liveness, Probe, ProbeKind};

use crate::harness::{Server, get, until};
use crate::image::push;

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
        .deploy(&with(&server, "one", holding("\"up\"")))
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
        .deploy(&with(&server, "deaf", of_kind(ProbeKind::Tcp)))
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
    assert!(own("version").is_none());
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

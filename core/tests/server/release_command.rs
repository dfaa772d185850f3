//! What runs once before a release.

use management_api::client::LogQuery;
use management_api::types::{DeployRequest, RollbackRequest};

use crate::engine::Engine;
use crate::harness::{BOUND, Server, key};
use crate::image::push;

fn serving() -> Server {
    let server = Server::start();
    push(&server, "local", "one", &[("VERSION", "one")]);
    push(&server, "local", "two", &[("VERSION", "two")]);
    assert_eq!(server.deploy_and_wait("one").state, "succeeded");
    server
}

fn with(server: &Server, command: &[&str]) -> DeployRequest {
    DeployRequest {
        release_command: command.iter().map(|word| (*word).to_owned()).collect(),
        ..server.request("two")
    }
}

fn states(server: &Server, number: u64) -> Vec<String> {
    let events = server
        .client()
        .deployment_events("local", number, 0, BOUND)
        .unwrap();
    events.map(|event| event.unwrap().state).collect()
}

#[test]
pub(crate) fn it_runs_in_the_new_image_before_anything_is_started() {
    let server = serving();
    let number = server
        .deploy(&with(&server, &["print"]))
        .deployment
        .unwrap();
    assert_eq!(server.wait(number).state, "succeeded");
    let states = states(&server, number);
    let starting = Engine::current().starting();
    assert_eq!(states[..3], ["requested", "migrated", starting]);
    let query = LogQuery::default();
    let lines = server.client().logs("local", &query).unwrap();
    let own = lines.iter().filter(|line| line.deployment == number);
    let texts: Vec<&str> = own.map(|line| line.line.as_str()).collect();
    assert_eq!(texts[0], "running print for version two");
    assert_eq!(texts[1], "starting in mode ok, version two");
    // A way back runs it no second time.
    let back = server
        .client()
        .rollback("local", &RollbackRequest::default(), &key())
        .unwrap();
    let back = server.wait(back.deployment.unwrap());
    assert_eq!(back.state, "succeeded");
    assert!(!self::states(&server, back.number).contains(&"migrated".to_owned()));
}

#[test]
pub(crate) fn its_failure_is_told_with_its_last_lines_and_changes_nothing() {
    for strategy in Engine::current().strategies() {
        let server = serving();
        let mut request = with(&server, &["fail", "--password=hunter2"]);
        request.strategy = Some((*strategy).to_owned());
        let done = server.wait(server.deploy(&request).deployment.unwrap());
        assert_eq!(done.state, "rolled_back");
        let failure = done.failure.unwrap();
        assert_eq!(
            (failure.code.as_str(), failure.exit_code),
            ("release_command_failed", Some(9))
        );
        assert!(!failure.message.contains("hunter2"));
        assert_eq!(failure.log_tail, ["running fail for version two"]);
        assert_eq!(
            states(&server, done.number),
            ["requested", "rolling_back", "rolled_back"]
        );
        assert_eq!(server.version().as_deref(), Some("one"));
    }
}

#[test]
pub(crate) fn one_that_never_ends_is_ended_by_the_deadline_or_an_abort() {
    let server = serving();
    let mut request = with(&server, &["hang"]);
    request.timeout_seconds = Some(15);
    let done = server.wait(server.deploy(&request).deployment.unwrap());
    let failure = done.failure.unwrap();
    assert_eq!(failure.code, "release_command_failed", "{failure:?}");
    request.timeout_seconds = None;
    let number = server.deploy(&request).deployment.unwrap();
    server.client().abort("local", number).unwrap();
    assert_eq!(server.wait(number).failure.unwrap().code, "aborted");
    assert_eq!(server.version().as_deref(), Some("one"));
}

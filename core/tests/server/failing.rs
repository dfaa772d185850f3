//! Releases that do not work: why is told, and the old one keeps serving.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

use management_api::types::{Deployment, Failure};

use crate::engine::Engine;
use crate::harness::{Server, get, until};
use crate::image::{layer, push, registry};
use crate::load::Load;

/// Deploys a good release, then one in `mode`; returns what became of it.
fn deploy_bad(server: &Server, env: &[(&str, &str)]) -> (Deployment, Failure) {
    push(server, "local", "good", &[("VERSION", "good")]);
    push(server, "local", "bad", env);
    assert_eq!(server.deploy_and_wait("good").state, "succeeded");
    let done = server.deploy_sick_and_wait("bad");
    assert_eq!(done.state, "rolled_back", "{done:?}");
    assert!(!done.live);
    assert_eq!(server.version().as_deref(), Some("good"));
    let status = server.client().status("local").unwrap();
    assert_eq!(status.status, "failed");
    assert_eq!(status.live.unwrap().number, 1);
    let failure = done.failure.clone().unwrap();
    (done, failure)
}

#[test]
pub(crate) fn an_application_that_ends_is_told_with_its_last_lines() {
    let server = Server::start();
    let (_, failure) = deploy_bad(&server, &[("MODE", "exit"), ("EXIT_CODE", "3")]);
    assert_eq!(
        (failure.code.as_str(), failure.exit_code),
        ("exited", Some(3))
    );
    assert_eq!(failure.log_tail.len(), 20);
    assert!(
        failure.log_tail.contains(&"line 30".to_owned()),
        "{failure:?}"
    );
    assert!(
        failure.log_tail.contains(&"fatal: told to end".to_owned()),
        "{failure:?}"
    );
}

#[test]
pub(crate) fn an_application_ended_by_a_signal_is_told_with_its_number() {
    let server = Server::start();
    let (_, failure) = deploy_bad(&server, &[("MODE", "abort")]);
    assert_eq!((failure.code.as_str(), failure.signal), ("killed", Some(6)));
}

#[test]
pub(crate) fn a_wrong_port_is_recognised_before_the_time_is_over() {
    let server = Server::start();
    push(&server, "local", "bad", &[("MODE", "wrong-port")]);
    let request = server.patient_request("bad");
    let number = server.deploy(&request).deployment.unwrap();
    let failure = server.wait(number).failure.unwrap();
    assert_eq!(failure.code, "wrong_port", "{failure:?}");
    assert!(failure.message.contains("PORT"), "{failure:?}");
}

#[test]
pub(crate) fn an_unhealthy_answer_is_told_with_its_status() {
    let server = Server::start();
    let (_, failure) = deploy_bad(&server, &[("MODE", "unhealthy")]);
    assert_eq!(failure.code, "unhealthy");
    assert!(failure.message.contains("500"), "{failure:?}");
}

#[test]
pub(crate) fn no_answer_at_all_is_a_time_out() {
    let server = Server::start();
    let (_, failure) = deploy_bad(&server, &[("MODE", "silent")]);
    assert_eq!(failure.code, "health_timeout");
}

#[test]
pub(crate) fn an_image_that_is_not_whole_any_more_is_told_and_changes_nothing() {
    let server = Server::start();
    push(&server, "local", "good", &[("VERSION", "good")]);
    assert_eq!(server.deploy_and_wait("good").state, "succeeded");
    let digest = push(&server, "local", "bad", &[("VERSION", "bad")]);
    let blob = |digest: &str| {
        let hash = digest.strip_prefix("sha256:").unwrap();
        server.data().join("registry/blobs/sha256").join(hash)
    };
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(blob(&digest)).unwrap()).unwrap();
    let config = manifest["config"]["digest"].as_str().unwrap();
    std::fs::remove_file(blob(config)).unwrap();
    let done = server.deploy_and_wait("bad");
    assert_eq!(done.state, "rolled_back");
    let failure = done.failure.unwrap();
    assert_eq!(failure.code, "image_not_found", "{failure:?}");
    assert!(failure.message.contains("push"), "{failure:?}");
    assert_eq!(server.version().as_deref(), Some("good"));
}

#[test]
pub(crate) fn a_working_directory_that_is_a_file_is_told_by_its_path_in_the_image() {
    let server = Server::start();
    push(&server, "local", "good", &[("VERSION", "good")]);
    assert_eq!(server.deploy_and_wait("good").state, "succeeded");
    let about = serde_json::json!({ "WorkingDir": "/app" });
    registry(&server, "local").push_made("bad", &layer(), &[], &about);
    let done = server.deploy_and_wait("bad");
    assert_eq!(done.state, "rolled_back");
    let failure = done.failure.unwrap();
    assert_eq!(failure.code, "not_a_directory", "{failure:?}");
    assert!(
        failure
            .message
            .starts_with("WORKDIR `/app` of the image is a file"),
        "{failure:?}"
    );
    let here = server.data().display().to_string();
    assert!(!failure.message.contains(&here), "{failure:?}");
    assert_eq!(server.version().as_deref(), Some("good"));
}

#[test]
pub(crate) fn the_server_holds_the_deadline() {
    let server = Server::start();
    push(
        &server,
        "local",
        "slow",
        &[("MODE", "slow"), ("START_MS", "600000")],
    );
    let mut request = server.request("slow");
    request.timeout_seconds = Some(1);
    let number = server.deploy(&request).deployment.unwrap();
    let done = server.wait(number);
    assert_eq!(
        (done.state.as_str(), done.failure.unwrap().code.as_str()),
        ("failed", "deadline")
    );
}

#[test]
fn without_an_older_release_the_deployment_has_failed() {
    let server = Server::start();
    push(&server, "local", "bad", &[("MODE", "exit")]);
    let done = server.deploy_and_wait("bad");
    assert_eq!(done.state, "failed");
    let status = server.client().status("local").unwrap();
    assert_eq!(status.status, "failed");
    assert!(status.message.unwrap().contains("exit code 3"));
    assert!(server.version().is_none());
}

#[test]
pub(crate) fn a_failed_recreate_brings_the_old_release_back() {
    let server = Server::start();
    push(&server, "local", "good", &[("VERSION", "good")]);
    push(&server, "local", "bad", &[("MODE", "exit")]);
    server.deploy_and_wait("good");
    // Whoever asks meanwhile waits, and is answered by the old one.
    let load = Load::start(&server);
    let mut request = server.request("bad");
    request.strategy = Some("recreate".into());
    let number = server.deploy(&request).deployment.unwrap();
    assert_eq!(server.wait(number).state, "rolled_back");
    assert_eq!(server.version().as_deref(), Some("good"));
    assert!(load.stop() > 0);
}

/// As long as the old instances finish their requests nothing is stopped yet, and nothing has to be started again.
#[test]
fn an_abort_while_the_old_instances_finish_their_requests_leaves_them_as_they_are() {
    let server = Server::start();
    for version in ["one", "two"] {
        push(&server, "local", version, &[("VERSION", version)]);
    }
    server.deploy_and_wait("one");
    let url = server.app_url();
    let address = url.trim_start_matches("http://");
    let mut open = TcpStream::connect(address).unwrap();
    write!(
        open,
        "GET /echo HTTP/1.1\r\nhost: {address}\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n"
    )
    .unwrap();
    let mut open = BufReader::new(open);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        open.read_line(&mut line).unwrap();
    }
    let instances = || {
        let status = server.client().status("local").unwrap();
        status.services[0].instances.clone()
    };
    let before = instances();
    let load = Load::start(&server);
    let mut request = server.request("two");
    request.strategy = Some("recreate".into());
    let number = server.deploy(&request).deployment.unwrap();
    until("requests wait", || {
        let text = get(&format!("{}/metrics", server.url))?;
        let waiting = "systemprompt_proxy_requests_waiting{tenant=\"local\"} ";
        let count = text.lines().find_map(|line| line.strip_prefix(waiting))?;
        (count != "0").then_some(())
    });
    server.client().abort("local", number).unwrap();
    assert_eq!(server.wait(number).state, "rolled_back");
    assert_eq!(server.version().as_deref(), Some("one"));
    assert!(load.stop() > 0);
    assert_eq!(instances(), before);
    open.get_mut().write_all(b"still here\n").unwrap();
    line.clear();
    open.read_line(&mut line).unwrap();
    assert_eq!(line, "still here\n");
}

#[test]
pub(crate) fn an_aborted_deployment_leaves_the_old_release() {
    let server = Server::start();
    push(&server, "local", "good", &[("VERSION", "good")]);
    push(
        &server,
        "local",
        "slow",
        &[("MODE", "slow"), ("START_MS", "600000")],
    );
    server.deploy_and_wait("good");
    let request = server.patient_request("slow");
    let number = server.deploy(&request).deployment.unwrap();
    let starting = Engine::current().starting();
    server.wait_for(number, |deployment| deployment.state == starting);
    server.client().abort("local", number).unwrap();
    let done = server.wait(number);
    assert_eq!(
        (done.state.as_str(), done.failure.unwrap().code.as_str()),
        ("rolled_back", "aborted")
    );
    assert_eq!(server.version().as_deref(), Some("good"));
    let events = server
        .client()
        .deployment_events("local", number, 0, crate::harness::BOUND)
        .unwrap();
    let states: Vec<_> = events.map(|event| event.unwrap().state).collect();
    let expected = [
        "requested",
        starting,
        "aborting",
        "rolling_back",
        "rolled_back",
    ];
    assert_eq!(states, expected);
    // What is over, or serves, cannot be aborted.
    for over in [1, number] {
        assert!(server.client().abort("local", over).is_err());
    }
}

//! A live release is kept running.

use management_api::types::{Deployment, Restart};

use crate::harness::{Server, get, until};
use crate::image::push;

#[test]
pub(crate) fn an_instance_that_ends_is_started_again_at_the_same_url() {
    let server = Server::start();
    push(&server, "local", "v1", &[("VERSION", "one")]);
    server.deploy_and_wait("v1");
    let url = server.app_url();
    for times in 1..=2 {
        // The application ends before it has answered.
        get(&format!("{url}/exit/5"));
        let line = format!("systemprompt_instance_restarts_total{{tenant=\"local\"}} {times}\n");
        until("the server notices", || {
            let metrics = get(&format!("{}/metrics", server.url)).unwrap();
            metrics.contains(&line).then_some(())
        });
        until("it serves again", || server.version());
    }
}

#[test]
pub(crate) fn an_instance_that_gets_sick_is_replaced() {
    let server = Server::start();
    push(&server, "local", "v1", &[]);
    server.deploy_and_wait("v1");
    let health = format!("{}/health", server.app_url());
    get(&format!("{}/sick", server.app_url()));
    assert!(get(&health).is_none());
    until("it is healthy again", || get(&health));
}

#[test]
pub(crate) fn a_crash_loop_hurts_neither_the_server_nor_the_next_release() {
    let server = Server::start();
    push(
        &server,
        "local",
        "crash",
        &[("MODE", "crash"), ("CRASH_MS", "8000")],
    );
    push(&server, "local", "good", &[("VERSION", "good")]);
    let first = server.deploy_and_wait("crash");
    assert_eq!(first.state, "succeeded");
    until("it has crashed", || {
        let status = server.client().status("local").unwrap();
        let message = status.message.unwrap_or_default();
        message.contains("exit code 4").then_some(())
    });
    let second = server.deploy_and_wait("good");
    assert_eq!(second.state, "succeeded", "{second:?}");
    assert_eq!(server.version().as_deref(), Some("good"));
}

fn deploy(server: &Server, tag: &str, restart: Restart) -> Deployment {
    let mut request = server.request(tag);
    request.restart = restart;
    server.wait(server.deploy(&request).deployment.unwrap())
}

/// Waits until the live release has ended for good; returns its status.
fn over(server: &Server) -> (String, String) {
    until("it has ended", || {
        let status = server.client().status("local").unwrap();
        let message = status.message.unwrap_or_default();
        let over = message.ends_with("it is not started again");
        over.then_some((status.status, message))
    })
}

/// How often an application of a deployment was started.
fn starts(server: &Server, deployment: u64) -> usize {
    let path = server.data().join(format!("logs/local/{deployment}.log"));
    let log = std::fs::read_to_string(path).unwrap();
    log.matches("starting in mode").count()
}

#[test]
fn what_has_done_its_work_is_not_started_again() {
    let server = Server::start();
    push(&server, "local", "v1", &[("VERSION", "one")]);
    let first = deploy(&server, "v1", Restart::OnFailure);
    assert_eq!(first.state, "succeeded", "{first:?}");
    let url = server.app_url();
    get(&format!("{url}/exit/5"));
    until("a failure is started again", || {
        (starts(&server, first.number) == 2).then(|| server.version())?
    });
    get(&format!("{url}/exit/0"));
    let (status, message) = over(&server);
    assert_eq!(status, "deployed");
    assert!(message.contains("exit code 0"), "{message}");
    // Nor by the next server.
    let server = server.kill_and_restart();
    assert_eq!(over(&server).0, "deployed");
    assert_eq!(starts(&server, first.number), 2);
    assert!(server.version().is_none());
    let again = server.deploy_and_wait("v1");
    assert_eq!(again.state, "succeeded", "{again:?}");
    assert_eq!(server.version().as_deref(), Some("one"));
}

#[test]
fn a_job_that_ends_well_has_been_deployed() {
    let server = Server::start();
    let job = |code| [("MODE", "exit"), ("EXIT_CODE", code)];
    push(&server, "local", "good", &job("0"));
    push(&server, "local", "bad", &job("3"));
    let good = deploy(&server, "good", Restart::Never);
    assert_eq!(good.state, "succeeded", "{good:?}");
    assert_eq!(over(&server).0, "deployed");
    // What comes after it and fails does not start it again.
    for restart in [Restart::Never, Restart::OnFailure] {
        let bad = deploy(&server, "bad", restart);
        assert_eq!(bad.state, "rolled_back", "{bad:?}");
        assert_eq!(bad.failure.unwrap().code, "exited");
        assert_eq!(starts(&server, bad.number), 1);
    }
    let always = deploy(&server, "good", Restart::Always);
    assert_eq!(always.failure.unwrap().code, "exited");
    assert_eq!(starts(&server, good.number), 1);
    let server = server.kill_and_restart();
    // By the end of another one, the live release would have been started.
    let bad = deploy(&server, "bad", Restart::Never);
    assert_eq!(bad.state, "rolled_back", "{bad:?}");
    assert_eq!(starts(&server, good.number), 1);
}

#[test]
fn what_is_never_started_again_gets_no_requests_while_it_is_not_well() {
    let server = Server::start();
    push(&server, "local", "v1", &[("VERSION", "one")]);
    let done = deploy(&server, "v1", Restart::Never);
    assert_eq!(done.state, "succeeded", "{done:?}");
    let port = get(&format!("{}/env/PORT", server.app_url())).unwrap();
    let own = |path: &str| get(&format!("http://127.0.0.1:{port}/{path}"));
    own("sick");
    until("it has no traffic", || {
        server.version().is_none().then_some(())
    });
    own("well");
    until("it has traffic again", || server.version());
    assert_eq!(starts(&server, done.number), 1);
    own("exit/5");
    let (status, message) = over(&server);
    assert_eq!(status, "failed");
    assert!(message.contains("exit code 5"), "{message}");
    assert_eq!(starts(&server, done.number), 1);
}

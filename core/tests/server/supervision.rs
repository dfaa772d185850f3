//! A live release is kept running.

use crate::harness::{Server, get, until};
use crate::image::push;

#[test]
pub(crate) fn an_instance_that_ends_is_started_again_at_the_same_url() {
    let server = Server::start();
    push(&server, "local", "v1", &[("VERSION", "one")]);
    server.deploy_and_wait("v1");
    let url = server.app_url();
    for _ in 0..2 {
        // The application ends before it has answered.
        get(&format!("{url}/exit/5"));
        until("the server notices", || {
            let status = server.client().status("local").unwrap();
            (status.status == "failed").then_some(())
        });
        until("it serves again", || server.version());
    }
    let metrics = get(&format!("{}/metrics", server.url)).unwrap();
    let line = "systemprompt_instance_restarts_total{tenant=\"local\"} 2";
    assert!(metrics.contains(line), "{metrics}");
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
        &[("MODE", "crash"), ("CRASH_MS", "700")],
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

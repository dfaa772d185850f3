//! A rollback that fails: what runs keeps the traffic, the tenant stays locked, an operator settles it.

use std::net::TcpListener;
use std::time::Duration;

use management_api::client::ApiError;
use management_api::types::{CanaryStep, DeployRequest, RolloutSettings};

use crate::harness::{Server, agent, get, until};
use crate::image::push;

/// What the release before cannot start without.
struct Database(TcpListener);

impl Database {
    fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    fn address(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }

    /// The same one again.
    fn start_again(address: &str) -> Self {
        // Its last connections may still be closing.
        Self(until("the port can be had again", || {
            TcpListener::bind(address).ok()
        }))
    }
}

/// A server whose release, version `one`, is lost while the next one is tried out: it has ended, and what it
/// needs to start is gone. The deployment's number comes with it.
fn lost() -> (Server, u64, String) {
    let (server, number, address) = tried_out();
    let url = server.app_url();
    // Half of the requests reach the old instance, until one has ended it.
    until("the old instance has ended", || {
        for _ in 0..2 {
            // The one that ends it gets no answer of it.
            let _ = agent().get(format!("{url}/exit-of/one")).call();
        }
        serves(&server, "two")
    });
    (server, number, address)
}

/// Whether this version answers everything.
fn serves(server: &Server, version: &str) -> Option<()> {
    let all = (0..8).all(|_| server.version().as_deref() == Some(version));
    all.then_some(())
}

/// Version `two` has half of the traffic of `one`, which could not be started again.
fn tried_out() -> (Server, u64, String) {
    let server = Server::start_with("restore_seconds = 1\n");
    let database = Database::start();
    let address = database.address();
    push(
        &server,
        "local",
        "one",
        &[("VERSION", "one"), ("NEEDS", &address)],
    );
    push(&server, "local", "two", &[("VERSION", "two")]);
    assert_eq!(server.deploy_and_wait("one").state, "succeeded");
    let request = DeployRequest {
        strategy: Some("canary".to_owned()),
        rollout: half(),
        ..server.request("two")
    };
    let number = server.deploy(&request).deployment.unwrap();
    server.wait_for(number, |deployment| deployment.state == "paused");
    drop(database);
    (server, number, address)
}

fn half() -> RolloutSettings {
    RolloutSettings {
        steps: Some(vec![CanaryStep {
            weight: 50,
            pause_ms: None,
        }]),
        ..RolloutSettings::default()
    }
}

fn refusal(result: Result<impl std::fmt::Debug, ApiError>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.code(), Some("operator_needed"), "{error:?}");
    error.to_string()
}

#[test]
fn where_the_old_release_is_lost_the_new_one_keeps_the_traffic_and_nobody_deploys() {
    let (server, number, address) = lost();
    let client = server.client();
    client.abort("local", number).unwrap();
    let done = server.wait(number);
    assert_eq!(done.state, "needs_operator", "{done:?}");
    assert_eq!(done.failure.unwrap().code, "aborted");
    // Rather the release that was called back than nobody.
    assert!(serves(&server, "two").is_some());
    let status = client.status("local").unwrap();
    assert_eq!(status.status, "needs_operator");
    assert_eq!(status.live.unwrap().number, 1);
    assert_eq!(status.running.unwrap().number, number);
    let told = refusal(client.deploy("local", &server.request("two"), "another", true));
    assert!(told.contains("abort it"), "{told}");

    // As soon as it can serve again, it does.
    let database = Database::start_again(&address);
    until("the release before serves again", || serves(&server, "one"));
    refusal(client.deploy("local", &server.request("two"), "yet another", true));

    client.abort("local", number).unwrap();
    let settled = client.deployment("local", number).unwrap();
    assert_eq!(settled.state, "rolled_back");
    let events = client.deployment_events("local", number, 0, Duration::from_secs(30));
    let last = events.unwrap().last().unwrap().unwrap();
    assert!(
        last.message.starts_with("settled by ") && last.message.ends_with("deployment 1 serves"),
        "{last:?}"
    );
    assert_eq!(server.deploy_and_wait("two").state, "succeeded");
    assert_eq!(server.version().as_deref(), Some("two"));
    drop(database);
}

#[test]
fn what_stands_in_has_the_traffic_until_the_next_release_does() {
    let (server, number, _) = lost();
    let client = server.client();
    client.abort("local", number).unwrap();
    assert_eq!(server.wait(number).state, "needs_operator");
    client.abort("local", number).unwrap();
    // One that is bad changes nothing: what stands in is what there was before.
    push(&server, "local", "bad", &[("MODE", "exit")]);
    let bad = server.deploy_and_wait("bad");
    assert_eq!(bad.state, "rolled_back", "{bad:?}");
    assert_eq!(server.version().as_deref(), Some("two"));
    push(&server, "local", "three", &[("VERSION", "three")]);
    assert_eq!(server.deploy_and_wait("three").state, "succeeded");
    assert!(serves(&server, "three").is_some());
    // Nothing is left of the others.
    assert_eq!(server.instances().len(), 1);
}

#[test]
fn the_lock_outlives_the_server_and_a_recreate_that_cannot_return_has_one_too() {
    let server = Server::start_with("restore_seconds = 1\n");
    let database = Database::start();
    push(
        &server,
        "local",
        "one",
        &[("VERSION", "one"), ("NEEDS", &database.address())],
    );
    push(&server, "local", "bad", &[("MODE", "exit")]);
    assert_eq!(server.deploy_and_wait("one").state, "succeeded");
    drop(database);
    let request = DeployRequest {
        strategy: Some("recreate".to_owned()),
        ..server.request("bad")
    };
    let number = server.deploy(&request).deployment.unwrap();
    let done = server.wait(number);
    assert_eq!(done.state, "needs_operator", "{done:?}");
    assert_eq!(done.failure.unwrap().code, "exited");
    assert!(get(&format!("{}/version", server.app_url())).is_none());

    let server = server.kill_and_restart();
    let client = server.client();
    assert_eq!(client.status("local").unwrap().status, "needs_operator");
    refusal(client.deploy("local", &server.request("one"), "again", true));
    client.abort("local", number).unwrap();
    assert_eq!(
        client.deployment("local", number).unwrap().state,
        "rolled_back"
    );
}

#[test]
pub(crate) fn what_stands_in_outlives_the_server_and_the_release_before_still_comes_back() {
    let (server, number, address) = lost();
    server.client().abort("local", number).unwrap();
    assert_eq!(server.wait(number).state, "needs_operator");
    let mut server = server.kill_and_restart();
    assert!(serves(&server, "two").is_some(), "{}", server.log());
    assert!(server.terminate().success());
    let server = server.kill_and_restart();
    assert!(serves(&server, "two").is_some(), "{}", server.log());
    // Also after it is settled, and after another deployment that fails.
    server.client().abort("local", number).unwrap();
    push(&server, "local", "bad", &[("MODE", "exit")]);
    assert_eq!(server.deploy_and_wait("bad").state, "rolled_back");
    assert!(serves(&server, "two").is_some());
    let database = Database::start_again(&address);
    until("the release before serves again", || serves(&server, "one"));
    let server = server.kill_and_restart();
    assert!(serves(&server, "one").is_some());
    drop(database);
}

#[test]
fn a_release_that_hangs_is_not_returned_to() {
    let (server, number, _) = tried_out();
    let url = server.app_url();
    until("the old instance hangs", || {
        let told = |_| get(&format!("{url}/hang-of/one"));
        let mut said = (0..2).filter_map(told);
        said.any(|said| said.starts_with("hangs")).then_some(())
    });
    // Its next checks are still to come.
    server.client().abort("local", number).unwrap();
    let done = server.wait(number);
    assert_eq!(done.state, "needs_operator", "{done:?}");
    assert!(serves(&server, "two").is_some());
}

//! Several servers with one database, each at an address of its own as on a machine of its own: one leads, the others
//! stand by, whatever becomes of it.

use std::path::Path;

use management_api::types::{CanaryStep, DeployRequest, Deployment, RolloutSettings};
use serde_json::Value;

use crate::audit::{outcome, program};
use crate::cluster::Cluster;
use crate::database;
use crate::harness::{Server, agent, get, key, log_file, until};
use crate::image::push;

/// Short, so that the tests are.
const SETTINGS: &str = "[database]\nlease_seconds = 5\n";
const FIRST: &str = "127.0.0.1";
const SECOND: &str = "127.0.0.2";

/// A database, and a folder that the servers share.
struct Common {
    cluster: Cluster,
    folder: tempfile::TempDir,
}

impl Common {
    fn new() -> Self {
        let common = Self {
            cluster: Cluster::start(),
            folder: tempfile::tempdir().unwrap(),
        };
        database::use_database(Some(common.cluster.url()));
        database::use_shared(Some(common.folder.path()));
        common
    }
}

/// One that leads, with version `one`, and one that stands by.
fn pair() -> (Server, Server) {
    let first = Server::start_at(FIRST, SETTINGS);
    push(&first, "local", "one", &[("VERSION", "one")]);
    push(&first, "local", "two", &[("VERSION", "two")]);
    assert_eq!(first.deploy_and_wait("one").state, "succeeded");
    (first, Server::start_at(SECOND, SETTINGS))
}

/// Status, `Retry-After` and body.
fn ask(server: &Server, path: &str) -> (u16, Option<String>, String) {
    let url = format!("{}{path}", server.url);
    let bearer = format!("Bearer {}", server.token());
    let mut answer = agent()
        .get(&url)
        .header("authorization", bearer)
        .call()
        .unwrap();
    let after = answer.headers().get("retry-after");
    let after = after.map(|value| value.to_str().unwrap().to_owned());
    let body = answer.body_mut().read_to_string().unwrap();
    (answer.status().as_u16(), after, body)
}

fn leads(server: &Server) -> bool {
    get(&format!("{}/readyz", server.url)).is_some()
}

/// A deployment of version `two` that is in the middle of its traffic and stays there.
fn half_done(server: &Server) -> u64 {
    let request = DeployRequest {
        strategy: Some("canary".to_owned()),
        rollout: RolloutSettings {
            steps: Some(vec![CanaryStep {
                weight: 50,
                pause_ms: Some(600_000),
            }]),
            ..RolloutSettings::default()
        },
        ..server.request("two")
    };
    let number = server.client().deploy("local", &request, &key(), false);
    let number = number.unwrap().deployment.unwrap();
    server.wait_for(number, |deployment| deployment.state == "shifting");
    number
}

/// The other one leads, has ended the deployment, and serves what served before.
fn has_taken_over(server: &Server, number: u64) -> Deployment {
    until("the other server leads", || leads(server).then_some(()));
    let ended = server.client().deployment("local", number).unwrap();
    assert_eq!(ended.state, "rolled_back", "{ended:?}");
    let code = ended.failure.as_ref().map(|failure| failure.code.as_str());
    assert_eq!(code, Some("interrupted"));
    until("one release serves", || {
        let all = (0..6).all(|_| server.version().as_deref() == Some("one"));
        all.then_some(())
    });
    let status = server.client().status("local").unwrap();
    assert!(status.running.is_none());
    ended
}

fn has_no_instances(server: &Server) {
    until("no instance is left", || {
        server.instances().is_empty().then_some(())
    });
}

fn rows(server: &Server) -> usize {
    server
        .client()
        .audit(None, None, 1000)
        .unwrap()
        .unwrap()
        .len()
}

fn verify(data: &Path) {
    outcome(&program(&["verify"], data)).unwrap();
}

#[test]
fn whoever_stands_by_lives_and_says_who_leads() {
    let _common = Common::new();
    let (mut first, second) = pair();
    assert_eq!(ask(&second, "/healthz").0, 200);
    assert_eq!(ask(&second, "/api/v1/health").0, 200);
    for path in ["/readyz", "/api/v1/tenants", "/v2/", "/no/such/page"] {
        let (status, after, body) = ask(&second, path);
        assert_eq!(
            (status, after.as_deref()),
            (503, Some("5")),
            "{path}: {body}"
        );
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["error"]["code"], "standby", "{path}");
        let message = body["error"]["message"].as_str().unwrap();
        assert!(message.contains(&first.url), "{message}");
    }
    // An end in order gives the lease back: the next one has all there is.
    assert!(first.terminate().success());
    until("the other server leads", || leads(&second).then_some(()));
    until("the release serves", || {
        second.version().filter(|version| version == "one")
    });
    assert_eq!(second.deploy_and_wait("two").state, "succeeded");
    // The one before stands by, and ends what was left for it.
    assert!(!first.instances().is_empty());
    first.start_again(FIRST);
    assert!(!leads(&first));
    has_no_instances(&first);
    verify(second.data());
}

#[test]
fn when_the_leader_is_killed_in_the_middle_of_a_deployment_another_ends_it() {
    let _common = Common::new();
    let (mut first, second) = pair();
    let number = half_done(&first);
    first.kill();
    has_taken_over(&second, number);
    first.start_again(FIRST);
    assert!(!leads(&first));
    has_no_instances(&first);
    assert_eq!(second.deploy_and_wait("two").state, "succeeded");
    verify(second.data());
}

/// More records than any deployment writes.
const RECORDS: u32 = 20;

#[test]
fn at_whatever_record_the_leader_dies_another_ends_the_deployment() {
    let _common = Common::new();
    let (first, second) = pair();
    // Those that lead and stand by, each with its address, in turn.
    let (mut leader, mut other) = ((first, FIRST), (second, SECOND));
    let (mut live, mut next) = ("one", "two");
    for record in 1..RECORDS {
        // Whoever stands by is told where to die once it leads.
        let told = record.to_string();
        other
            .0
            .start_again_with(other.1, &[("SYSTEMPROMPT_DIE_AT", &told)]);
        // In order, so that nobody waits for its lease: what matters here is the death to come.
        assert!(leader.0.terminate().success());
        std::mem::swap(&mut leader, &mut other);
        let server = &mut leader.0;
        until("the other server leads", || leads(server).then_some(()));
        until("one release serves", || {
            server.version().filter(|version| version == live)
        });
        other.0.start_again(other.1);
        let request = server.request(next);
        let died = server.dies_deploying(&request);
        if !died {
            assert!(record > 5, "only {record} records");
            verify(server.data());
            return;
        }
        let server = &other.0;
        until("the other server leads", || leads(server).then_some(()));
        let last = server.last_deployment();
        assert!(last.finished_at.is_some(), "died at {record}: {last:?}");
        if last.state == "succeeded" {
            std::mem::swap(&mut live, &mut next);
        } else {
            assert_eq!(last.state, "rolled_back", "died at {record}");
        }
        assert_eq!(last.live, last.state == "succeeded");
        until("one release serves", || {
            let all = (0..6).all(|_| server.version().as_deref() == Some(live));
            all.then_some(())
        });
        leader.0.start_again(leader.1);
        has_no_instances(&leader.0);
        std::mem::swap(&mut leader, &mut other);
    }
    panic!("more than {RECORDS} records");
}

#[test]
fn a_leader_that_was_paused_changes_nothing_when_it_goes_on() {
    let _common = Common::new();
    let (mut first, second) = pair();
    let number = half_done(&first);
    first.send("STOP");
    has_taken_over(&second, number);
    assert_eq!(second.deploy_and_wait("two").state, "succeeded");
    let before = rows(&second);
    first.send("CONT");
    first.wait_for_death();
    assert!(
        first.log().contains("another server has taken over"),
        "{}",
        first.log()
    );
    has_no_instances(&first);
    assert_eq!(rows(&second), before);
    let live = second
        .client()
        .deployments("local")
        .unwrap()
        .unwrap()
        .remove(0);
    assert!(live.live && live.number == number + 1, "{live:?}");
    assert_eq!(second.version().as_deref(), Some("two"));
    verify(second.data());
}

#[test]
fn without_its_database_a_leader_ends_and_its_instances_wait() {
    let mut common = Common::new();
    let mut server = Server::start_at(FIRST, SETTINGS);
    push(&server, "local", "one", &[("VERSION", "one")]);
    assert_eq!(server.deploy_and_wait("one").state, "succeeded");
    let before = server.instances();
    common.cluster.stop();
    server.wait_for_death();
    assert!(
        server.log().contains("the database does not answer"),
        "{}",
        server.log()
    );
    assert_eq!(server.instances(), before);
    // The next one waits for it.
    std::thread::scope(|scope| {
        let log = log_file(server.data());
        scope.spawn(|| {
            until("the server waits", move || {
                let told = std::fs::read_to_string(&log).unwrap();
                told.contains("waiting for the database").then_some(())
            });
            common.cluster.run();
        });
        server.start_again(FIRST);
    });
    until("the release serves", || {
        server.version().filter(|version| version == "one")
    });
    assert_eq!(
        server.instances().into_keys().collect::<Vec<_>>(),
        before.into_keys().collect::<Vec<_>>()
    );
    verify(server.data());
}

#[test]
fn a_leader_that_was_killed_and_comes_back_first_leads_on() {
    let _common = Common::new();
    let mut server = Server::start_at(FIRST, "[database]\nlease_seconds = 600\n");
    push(&server, "local", "one", &[("VERSION", "one")]);
    assert_eq!(server.deploy_and_wait("one").state, "succeeded");
    server.kill();
    server.start_again(FIRST);
    until("the release serves", || {
        server.version().filter(|version| version == "one")
    });
}

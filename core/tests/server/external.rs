//! An engine with a rollout of its own, as far as the server has to do with it.

use std::sync::Arc;

use management_api::types::{AnalysisSettings, DeployRequest, RolloutSettings};

use crate::engine::Engine;
use crate::harness::{Server, get, key, until};
use crate::image::push;
use crate::orchestrator::Orchestrator;

/// Runs a test with a server that has such an engine.
fn with_server(test: impl FnOnce(Server, &Orchestrator)) {
    let orchestrator = Arc::new(Orchestrator::start());
    Engine::External(Arc::clone(&orchestrator)).run(|| {
        let server = Server::start();
        push(&server, "local", "one", &[("VERSION", "one")]);
        push(&server, "local", "two", &[("VERSION", "two")]);
        test(server, &orchestrator);
    });
}

fn serves(server: &Server, version: &str) {
    until("the version serves", || {
        server.version().filter(|found| found == version)
    });
}

#[test]
fn what_it_does_not_offer_is_refused_before_anything_is_begun() {
    with_server(|server, _| {
        let with = |change: &dyn Fn(&mut DeployRequest)| {
            let mut request = server.request("one");
            change(&mut request);
            request
        };
        let rollout = |rollout: RolloutSettings| with(&|r| r.rollout = rollout.clone());
        for (request, told) in [
            (with(&|r| r.strategy = Some("canary".into())), "strategy"),
            (with(&|r| r.strategy = Some("recreate".into())), "strategy"),
            (
                rollout(RolloutSettings {
                    batch_pause_ms: Some(100),
                    ..RolloutSettings::default()
                }),
                "batch_pause_ms",
            ),
            (
                rollout(RolloutSettings {
                    analysis: Some(AnalysisSettings::default()),
                    ..RolloutSettings::default()
                }),
                "analysis",
            ),
        ] {
            let refused = server.client().deploy("local", &request, &key(), false);
            let text = format!("{:?}", refused.unwrap_err());
            assert!(
                text.contains("not_offered") && text.contains(told),
                "{text}"
            );
        }
        let capabilities = server.client().capabilities().unwrap().unwrap();
        assert_eq!(capabilities.engine.name, "external");
        assert_eq!(capabilities.strategies, ["rolling"]);
        let lacks = |feature: &str| !capabilities.features.iter().any(|known| known == feature);
        assert!(lacks("promote") && lacks("volumes"));
        let notes = capabilities.engine.notes.concat();
        assert!(notes.contains("orchestrator of the tests"), "{notes}");
        assert_eq!(
            server.client().deployments("local").unwrap(),
            Some(Vec::new())
        );
    });
}

#[test]
fn what_it_has_forgotten_it_is_told_again_and_its_silence_is_told() {
    with_server(|server, orchestrator| {
        assert_eq!(server.deploy_and_wait("one").state, "succeeded");
        let url = server.app_url();
        let before = orchestrator.turn("local").unwrap();
        orchestrator.forget("local");
        serves(&server, "one");
        assert!(orchestrator.turn("local").unwrap() > before);
        // It serves on while it answers no questions, and nobody claims to know.
        orchestrator.hang_up();
        until("the silence is told", || {
            let message = server.client().status("local").unwrap().message?;
            message.contains("nobody answers").then_some(())
        });
        assert_eq!(get(&format!("{url}/version")).as_deref(), Some("one"));
        // What is deployed meanwhile fails, and nothing has changed.
        let mut request = server.request("two");
        request.timeout_seconds = Some(2);
        let number = server.deploy(&request).deployment.unwrap();
        until("it is not carried out", || {
            let deployment = server.client().deployment("local", number).unwrap();
            (deployment.state == "rolling_back").then_some(())
        });
        orchestrator.listen();
        let done = server.wait(number);
        assert_eq!(done.state, "rolled_back", "{done:?}");
        serves(&server, "one");
        assert_eq!(server.app_url(), url);
        assert_eq!(server.deploy_and_wait("two").state, "succeeded");
    });
}

#[test]
fn a_server_that_ends_tells_it_to_return() {
    with_server(|mut server, orchestrator| {
        assert_eq!(server.deploy_and_wait("one").state, "succeeded");
        let slow = [("MODE", "slow"), ("START_MS", "600000")];
        push(&server, "local", "slow", &slow);
        let request = server.patient_request("slow");
        let url = server.app_url();
        let number = server.deploy(&request).deployment.unwrap();
        until("it is on its way", || {
            (orchestrator.deployment("local") == Some(number)).then_some(())
        });
        assert!(server.terminate().success());
        assert_eq!(orchestrator.deployment("local"), Some(1));
        assert_eq!(get(&format!("{url}/version")).as_deref(), Some("one"));
        let server = server.kill_and_restart();
        let done = server.wait(number);
        assert_eq!(done.state, "rolled_back");
        assert_eq!(done.failure.unwrap().code, "interrupted");
        serves(&server, "one");
    });
}

#[test]
fn a_database_from_a_backup_gets_behind_the_turns_that_were_given_since() {
    with_server(|mut server, orchestrator| {
        assert_eq!(server.deploy_and_wait("one").state, "succeeded");
        assert_eq!(server.deploy_and_wait("two").state, "succeeded");
        let before = orchestrator.turn("local").unwrap();
        server.kill();
        let database = rusqlite::Connection::open(server.data().join("state.db")).unwrap();
        let back = "UPDATE tenants SET turn = 1, live = 1";
        database.execute(back, []).unwrap();
        drop(database);
        let server = server.kill_and_restart();
        serves(&server, "one");
        assert!(orchestrator.turn("local").unwrap() > before);
    });
}

#[test]
fn a_deleted_tenant_is_removed_also_by_the_next_server() {
    with_server(|mut server, orchestrator| {
        server.create_tenants(&["shop", "stall"]);
        let client = server.client();
        client.delete_tenant("shop").unwrap();
        until("the shop is gone", || {
            (!orchestrator.has("shop")).then_some(())
        });
        assert!(orchestrator.has("stall"));
        orchestrator.hang_up();
        client.delete_tenant("stall").unwrap();
        server.kill();
        orchestrator.listen();
        assert!(orchestrator.has("stall"));
        let _server = server.kill_and_restart();
        until("the stall is gone", || {
            (!orchestrator.has("stall")).then_some(())
        });
        assert!(orchestrator.has("local"));
    });
}

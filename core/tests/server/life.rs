//! The server's own life: first start, second server, orderly end, and death at every moment.

use std::os::unix::fs::PermissionsExt;

use management_api::types::is_final;

use crate::harness::{Server, command, get, health, log_file, until};
use crate::image::push;

#[test]
fn the_first_start_makes_a_private_token_and_the_tenant_local() {
    let server = Server::start();
    let mode = |name: &str| {
        let metadata = std::fs::metadata(server.data().join(name)).unwrap();
        metadata.permissions().mode() & 0o777
    };
    assert_eq!(
        (mode("."), mode("token"), mode("state.db")),
        (0o700, 0o600, 0o600)
    );
    let me = server.client().me().unwrap();
    assert_eq!(me.tenants.len(), 1);
    assert_eq!(me.tenants[0].id, "local");
    assert!(!server.log().contains(server.token()));
}

#[test]
fn a_second_server_on_the_folder_is_refused_with_the_first_ones_number() {
    let server = Server::start();
    let announced = std::fs::read_to_string(server.data().join("server.json")).unwrap();
    let announced: serde_json::Value = serde_json::from_str(&announced).unwrap();
    let mut second = command(server.data());
    let output = second
        .stderr(std::process::Stdio::piped())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(error.contains(&announced["pid"].to_string()), "{error}");
    assert!(server.client().health().is_ok());
}

#[test]
fn sigterm_ends_it_in_order_and_leaves_no_instance() {
    let mut server = Server::start();
    push(&server, "local", "v1", &[]);
    server.deploy_and_wait("v1");
    let url = server.app_url();
    let status = server.terminate();
    assert!(status.success(), "{status}: {}", server.log());
    assert!(!server.data().join("server.json").exists());
    assert!(get(&format!("{url}/version")).is_none());
    let left = std::fs::read_dir(server.data().join("engine/instances")).unwrap();
    assert_eq!(left.count(), 0);
}

#[test]
fn an_orderly_end_undoes_a_running_rollout() {
    let mut server = Server::start();
    push(
        &server,
        "local",
        "slow",
        &[("MODE", "slow"), ("START_MS", "600000")],
    );
    let mut request = server.request("slow");
    if let Some(health) = &mut request.health {
        health.start_period_ms = 600_000;
    }
    let number = server.deploy(&request).deployment.unwrap();
    server.wait_for(number, |deployment| deployment.state == "provisioned");
    assert!(server.terminate().success());
    let server = server.kill_and_restart();
    let done = server.wait(number);
    assert_eq!(
        (done.state.as_str(), done.failure.unwrap().code.as_str()),
        ("failed", "interrupted")
    );
}

#[test]
fn after_a_kill_the_last_good_release_serves_again_at_the_same_url() {
    let server = Server::start();
    push(&server, "local", "v1", &[("VERSION", "one")]);
    server.deploy_and_wait("v1");
    let url = server.app_url();
    let server = server.kill_and_restart();
    assert_eq!(server.app_url(), url);
    until("the release serves again", || {
        server.version().filter(|version| version == "one")
    });
    assert_eq!(server.deploy(&server.request("v1")).deployment, Some(1));
}

/// Kills the server once its second deployment has reached `state`, or as soon as it was accepted.
fn kill_at(state: &str) {
    let server = Server::start();
    push(&server, "local", "v1", &[("VERSION", "one")]);
    // Slow enough to be caught in every state.
    push(
        &server,
        "local",
        "v2",
        &[("VERSION", "two"), ("MODE", "slow"), ("START_MS", "300")],
    );
    server.deploy_and_wait("v1");
    let number = server.deploy(&server.request("v2")).deployment.unwrap();
    server.wait_for(number, |deployment| {
        deployment.state == state || is_final(&deployment.state)
    });
    let server = server.kill_and_restart();
    let done = server.client().deployment("local", number).unwrap();
    let expected = match done.state.as_str() {
        "succeeded" => "two",
        "rolled_back" => {
            assert_eq!(done.failure.unwrap().code, "interrupted");
            "one"
        }
        other => panic!("killed at {state}, ended {other}"),
    };
    until("a release serves again", || {
        server.version().filter(|version| version == expected)
    });
    assert!(server.client().status("local").unwrap().running.is_none());
    // And it is not stuck.
    let mut request = server.request("v1");
    request.force = true;
    request.health = Some(health());
    let number = server.deploy(&request).deployment.unwrap();
    assert_eq!(server.wait(number).state, "succeeded");
}

#[test]
fn killed_when_a_deployment_was_accepted() {
    kill_at("requested");
}

#[test]
fn killed_while_the_new_instance_starts() {
    kill_at("provisioned");
}

#[test]
fn killed_when_the_new_instance_is_healthy() {
    kill_at("healthy");
}

#[test]
fn killed_while_the_traffic_moves() {
    kill_at("shifting");
}

#[test]
fn killed_after_the_commit() {
    kill_at("verified");
}

#[test]
fn killed_while_the_old_instance_drains() {
    kill_at("draining");
}

#[test]
fn a_lost_token_file_is_made_anew_and_the_old_token_ends() {
    let mut server = Server::start();
    let old = server.token().to_owned();
    assert!(server.terminate().success());
    std::fs::remove_file(server.data().join("token")).unwrap();
    let server = server.kill_and_restart();
    assert_ne!(server.token(), old);
    assert!(server.client().me().is_ok());
    assert!(server.client_with(&old).me().is_err());
}

#[test]
fn a_configuration_with_a_typing_error_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut command = command(&data);
    let settings = data.with_extension("services").join("platform.toml");
    std::fs::write(settings, "[rollout]\ndrain_secs = 1\n").unwrap();
    let status = command.status().unwrap();
    let log = std::fs::read_to_string(log_file(&data)).unwrap();
    assert!(!status.success());
    assert!(
        log.contains("drain_secs") && log.contains("platform.toml"),
        "{log}"
    );
}

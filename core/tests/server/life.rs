//! The server's own life: first start, second server, orderly end, and death at every moment.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::database;
use crate::harness::{Server, command, full_disk, get, log_file, until};
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
pub(crate) fn sigint_ends_it_in_order_and_leaves_no_instance() {
    let mut server = Server::start();
    push(&server, "local", "v1", &[]);
    server.deploy_and_wait("v1");
    let url = server.app_url();
    let status = server.interrupt();
    assert!(status.success(), "{status}: {}", server.log());
    assert!(!server.data().join("server.json").exists());
    assert!(get(&format!("{url}/version")).is_none());
    let left = server.instances();
    assert!(left.is_empty(), "{left:?}");
    // Whoever copies `state.db` now has all of it.
    let log = std::fs::metadata(server.data().join("state.db-wal"));
    assert_eq!(log.map_or(0, |log| log.len()), 0);
}

#[test]
fn a_second_interrupt_ends_everything_at_once() {
    let mut server = Server::start();
    push(&server, "local", "v1", &[]);
    server.deploy_and_wait("v1");
    let url = server.app_url();
    let records = server.instances();
    let slow = std::thread::spawn(move || get(&format!("{url}/slow/60000")));
    until("the slow request is on its way", || {
        let metrics = get(&format!("{}/metrics", server.url)).unwrap();
        let line = metrics
            .lines()
            .find(|line| line.contains("requests_in_flight") && line.contains("local"));
        line.filter(|line| line.ends_with(" 1")).map(|_| ())
    });
    server.send("INT");
    until("it waits for that request", || {
        server.log().contains("the server ends").then_some(())
    });
    // Nobody wants to wait for it.
    assert!(server.interrupt().success());
    assert!(slow.join().unwrap().is_none());
    for record in records.values() {
        let program = format!("/proc/{}", record["program"]["pid"]);
        assert!(!std::path::Path::new(&program).exists(), "{record}");
    }
    let left = server.instances();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
pub(crate) fn an_orderly_end_undoes_a_running_rollout() {
    let mut server = Server::start();
    push(
        &server,
        "local",
        "slow",
        &[("MODE", "slow"), ("START_MS", "600000")],
    );
    let request = server.patient_request("slow");
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

#[test]
fn killed_as_soon_as_a_deployment_was_accepted() {
    let server = Server::start();
    push(&server, "local", "v1", &[("VERSION", "one")]);
    push(&server, "local", "v2", &[("VERSION", "two")]);
    server.deploy_and_wait("v1");
    let number = server.deploy(&server.request("v2")).deployment.unwrap();
    let server = server.kill_and_restart();
    let done = server.client().deployment("local", number).unwrap();
    let version = match done.state.as_str() {
        "succeeded" => "two",
        "rolled_back" => "one",
        other => panic!("a deployment that was accepted ended {other}"),
    };
    until("a release serves again", || {
        server.version().filter(|found| found == version)
    });
}

#[test]
fn a_state_that_cannot_be_written_stops_the_rollout_before_it_matters() {
    let server = Server::start();
    push(&server, "local", "v1", &[("VERSION", "one")]);
    push(&server, "local", "v2", &[("VERSION", "two")]);
    server.deploy_and_wait("v1");
    let database = rusqlite::Connection::open(server.data().join("state.db")).unwrap();
    database.busy_timeout(crate::harness::BOUND).unwrap();
    let refuse = |state: &str| {
        format!(
            "CREATE TRIGGER refuse_{state} BEFORE UPDATE ON deployments WHEN NEW.state = '{state}'
             BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
        )
    };
    database.execute_batch(&refuse("verified")).unwrap();
    let done = server.deploy_and_wait("v2");
    assert_eq!(done.state, "rolled_back");
    assert_eq!(done.failure.unwrap().code, "internal");
    assert_eq!(server.version().as_deref(), Some("one"));
    // The end of a deployment is written as soon as the disk takes it again.
    database
        .execute_batch(&format!(
            "DROP TRIGGER refuse_verified; {}",
            refuse("succeeded")
        ))
        .unwrap();
    let number = server.deploy(&server.request("v2")).deployment.unwrap();
    server.wait_for(number, |deployment| deployment.state == "draining");
    until("the end was tried", || {
        server
            .log()
            .contains("a state could not be written")
            .then_some(())
    });
    assert_eq!(server.version().as_deref(), Some("two"));
    database
        .execute_batch("DROP TRIGGER refuse_succeeded")
        .unwrap();
    assert_eq!(server.wait(number).state, "succeeded");
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

#[test]
fn what_cannot_be_said_ends_neither_a_server_nor_a_command() {
    let server = Server::start_on_a_full_disk();
    push(&server, "local", "one", &[("VERSION", "one")]);
    assert_eq!(server.deploy_and_wait("one").state, "succeeded");
    assert_eq!(server.version().as_deref(), Some("one"));

    let mut verify = Command::new(env!("CARGO_BIN_EXE_systemprompt"));
    database::tell(&mut verify);
    verify.args(["verify", "--data"]).arg(server.data());
    let told = verify.stdout(full_disk()).output().unwrap();
    let text = String::from_utf8(told.stderr).unwrap();
    assert!(
        told.status.success() && text.contains("its end: "),
        "{text}"
    );
}

//! Secrets of a tenant: set, found by the application, restored by a rollback, and nowhere else.

use std::path::Path;

use management_api::types::{RollbackRequest, SecretsRequest};
use secrecy::SecretString;

use crate::harness::{Server, agent, command, get, key, log_file, until};
use crate::image::push;

const VALUE: &str = "correct horse battery staple";

fn serving() -> Server {
    let server = Server::start();
    push(&server, "local", "one", &[("VERSION", "one")]);
    push(&server, "local", "two", &[("VERSION", "two")]);
    server
}

pub(crate) fn request(values: &[(&str, &str)]) -> SecretsRequest {
    let secrets = values.iter();
    SecretsRequest {
        secrets: secrets
            .map(|(name, value)| ((*name).to_owned(), SecretString::from(*value)))
            .collect(),
        externally_rotated: Vec::new(),
        remove: Vec::new(),
    }
}

pub(crate) fn set(server: &Server, values: &[(&str, &str)]) {
    let request = request(values);
    server.client().change_secrets("local", &request).unwrap();
}

/// What the application finds in a variable.
fn seen(server: &Server, name: &str) -> String {
    get(&format!("{}/env/{name}", server.app_url())).unwrap()
}

fn versions(server: &Server) -> Vec<(String, u64)> {
    let known = server.client().secrets("local").unwrap().unwrap();
    known
        .into_iter()
        .map(|secret| (secret.name, secret.version))
        .collect()
}

fn roll_back(server: &Server) {
    let back = server
        .client()
        .rollback("local", &RollbackRequest::default(), &key())
        .unwrap();
    assert_eq!(server.wait(back.deployment.unwrap()).state, "succeeded");
}

#[test]
pub(crate) fn the_application_finds_them_from_the_next_deployment_on() {
    let server = serving();
    server.deploy_and_wait("one");
    set(&server, &[("TOKEN", VALUE)]);
    assert_eq!(
        seen(&server, "TOKEN"),
        "",
        "a running release stays as it is"
    );
    // The same image with another secret is another release.
    let answer = server.deploy(&server.request("one"));
    assert!(!answer.unchanged);
    server.wait(answer.deployment.unwrap());
    assert_eq!(seen(&server, "TOKEN"), VALUE);
    assert!(server.deploy(&server.request("one")).unchanged);
}

#[test]
pub(crate) fn a_version_comes_with_each_new_value_and_with_no_other() {
    let server = serving();
    set(&server, &[("A", "1"), ("B", "1")]);
    set(&server, &[("A", "1"), ("B", "2")]);
    assert_eq!(versions(&server), [("A".into(), 1), ("B".into(), 2)]);
    let remove = SecretsRequest {
        remove: vec!["A".into()],
        ..request(&[])
    };
    server.client().change_secrets("local", &remove).unwrap();
    server.client().change_secrets("local", &remove).unwrap();
    assert_eq!(versions(&server), [("B".into(), 2)]);
    set(&server, &[("A", "1")]);
    assert_eq!(versions(&server), [("A".into(), 3), ("B".into(), 2)]);
}

#[test]
pub(crate) fn a_rollback_restores_old_values_but_those_that_others_rotate() {
    let server = serving();
    let rotated = |value| SecretsRequest {
        externally_rotated: vec!["ROTATED".into()],
        ..request(&[("ROTATED", value), ("OWN", value)])
    };
    server
        .client()
        .change_secrets("local", &rotated("first"))
        .unwrap();
    server.deploy_and_wait("one");
    server
        .client()
        .change_secrets("local", &rotated("second"))
        .unwrap();
    set(&server, &[("LATER", "x")]);
    server.deploy_and_wait("two");
    assert_eq!(seen(&server, "OWN"), "second");
    roll_back(&server);
    assert_eq!(server.version().as_deref(), Some("one"));
    assert_eq!(seen(&server, "OWN"), "first");
    assert_eq!(seen(&server, "ROTATED"), "second");
    assert_eq!(seen(&server, "LATER"), "");
}

#[test]
fn a_value_is_in_no_file_and_no_answer() {
    let server = serving();
    set(&server, &[("TOKEN", VALUE)]);
    server.deploy_and_wait("one");
    assert_eq!(seen(&server, "TOKEN"), VALUE);
    holds_nowhere(server.data(), VALUE);
    assert!(!server.log().contains(VALUE));
    let client = agent();
    for path in ["status", "deployments", "deployments/1", "secrets", "logs"] {
        let url = format!("{}/api/v1/tenants/local/{path}", server.url);
        let bearer = format!("Bearer {}", server.token());
        let mut answer = client
            .get(&url)
            .header("authorization", bearer)
            .call()
            .unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        assert!(
            answer.status() == 200 && !text.contains(VALUE),
            "{path}: {text}"
        );
    }
}

/// Looks through every file of a folder.
fn holds_nowhere(folder: &Path, text: &str) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            holds_nowhere(&path, text);
        } else if metadata.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            let found = bytes
                .windows(text.len())
                .any(|part| part == text.as_bytes());
            assert!(!found, "{}", path.display());
        }
    }
}

#[test]
pub(crate) fn they_outlive_the_server() {
    let server = serving();
    set(&server, &[("TOKEN", VALUE)]);
    server.deploy_and_wait("one");
    let server = server.kill_and_restart();
    until("the release serves again", || {
        server.version().filter(|version| version == "one")
    });
    assert_eq!(seen(&server, "TOKEN"), VALUE);
}

#[test]
fn with_another_key_no_server_starts() {
    let mut server = serving();
    set(&server, &[("TOKEN", VALUE)]);
    server.kill();
    let other = "5".repeat(64);
    let mut wrong = command(server.data());
    wrong.env("SYSTEMPROMPT_SECRETS_KEY_COMMAND", format!("echo {other}"));
    assert!(!wrong.status().unwrap().success());
    let log = std::fs::read_to_string(log_file(server.data())).unwrap();
    assert!(
        log.contains("--secrets-key") && !log.contains(&other),
        "{log}"
    );
    // Where the key is missing, none is made that would stand in its place.
    let key = server.data().join("secrets.key");
    let elsewhere = server.data().join("elsewhere");
    std::fs::rename(&key, &elsewhere).unwrap();
    assert!(!command(server.data()).status().unwrap().success());
    assert!(!key.exists());
    std::fs::rename(&elsewhere, &key).unwrap();
    let server = server.kill_and_restart();
    assert_eq!(versions(&server), [("TOKEN".into(), 1)]);
}

#[test]
fn what_cannot_be_is_refused_without_telling_the_value() {
    let server = serving();
    set(&server, &[("TOKEN", VALUE)]);
    let client = server.client();
    let unset = SecretsRequest {
        externally_rotated: vec!["OTHER".into()],
        ..request(&[("A", VALUE)])
    };
    for (request, told) in [
        (request(&[("1A", VALUE)]), "not a name"),
        (request(&[("PORT", VALUE)]), "set by the platform"),
        (request(&[("A", &"x".repeat(64 * 1024 + 1))]), "longer than"),
        (unset, "does not set"),
    ] {
        let refused = format!(
            "{:?}",
            client.change_secrets("local", &request).unwrap_err()
        );
        assert!(
            refused.contains(told) && !refused.contains(VALUE),
            "{refused}"
        );
    }
    // One name with two values.
    let mut both = server.request("one");
    both.env.insert("TOKEN".into(), "other".into());
    let refused = client.deploy("local", &both, &key(), false).unwrap_err();
    assert!(
        format!("{refused:?}").contains("TOKEN is a secret"),
        "{refused:?}"
    );
    assert_eq!(versions(&server), [("TOKEN".into(), 1)]);
}

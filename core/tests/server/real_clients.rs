//! Registry clients that are not ours, with a platform token as their password: docker, skopeo and podman.

use std::path::Path;
use std::process::{Command, Output};

use management_api::types::Role;
use secrecy::ExposeSecret;

use crate::docker::{Docker, refused, run, succeed};
use crate::harness::{Server, until};
use crate::image::{layer, push};

#[test]
fn docker_logs_in_pulls_and_pushes_with_a_platform_token() {
    let docker = Docker::start();
    let server = Server::start();
    server.create_tenants(&["own", "other"]);
    push(&server, "own", "v1", &[]);
    push(&server, "other", "v1", &[]);
    let host = server.host();
    let image = |tenant: &str, tag: &str| server.image(tenant, tag);
    let text = refused(&docker.log_in(host, "sp_0011223344556677_00"));
    assert!(text.contains("unauthorized"), "{text}");

    let deployer = server.issue(Role::Deployer, Some("own"));
    succeed(&docker.log_in(host, deployer.token.expose_secret()));
    succeed(&docker.docker(&["pull", &image("own", "v1")]));
    succeed(&docker.docker(&["tag", &image("own", "v1"), &image("own", "v2")]));
    succeed(&docker.docker(&["push", &image("own", "v2")]));
    // Another tenant's repository, and one that nobody has.
    refused(&docker.docker(&["pull", &image("other", "v1")]));
    for tenant in ["other", "nobody"] {
        succeed(&docker.docker(&["tag", &image("own", "v1"), &image(tenant, "v3")]));
        let text = refused(&docker.docker(&["push", &image(tenant, "v3")]));
        assert!(text.contains("denied"), "{text}");
    }

    let reader = server.issue(Role::Reader, Some("own"));
    succeed(&docker.log_in(host, reader.token.expose_secret()));
    succeed(&docker.docker(&["pull", &image("own", "v2")]));
    succeed(&docker.docker(&["tag", &image("own", "v1"), &image("own", "v4")]));
    let text = refused(&docker.docker(&["push", &image("own", "v4")]));
    assert!(text.contains("denied"), "{text}");
    server.client().revoke_token(&reader.info.id).unwrap();
    refused(&docker.docker(&["pull", &image("own", "v2")]));

    // What the control plane hands out for a push is a password as well.
    let contract = server.client().registry_token("other").unwrap();
    succeed(&docker.log_in(host, contract.token.expose_secret()));
    succeed(&docker.docker(&["push", &image("other", "v3")]));
    refused(&docker.docker(&["pull", &image("own", "v2")]));

    // An image that docker has made is deployed like any other.
    let made = image("own", "v5");
    let import = ["import", "--change", "ENTRYPOINT [\"/app\"]", "-", &made];
    succeed(&docker.log_in(host, deployer.token.expose_secret()));
    succeed(&docker.docker_with(&import, &layer()));
    succeed(&docker.docker(&["push", &made]));
    let mut request = server.request("v5");
    request.image = made;
    let answer = server
        .client()
        .deploy("own", &request, &crate::harness::key(), false)
        .unwrap();
    let number = answer.deployment.unwrap();
    until("the deployment ends", || {
        let deployment = server.client().deployment("own", number).unwrap();
        let ended = management_api::types::is_final(&deployment.state);
        ended.then(|| assert_eq!(deployment.state, "succeeded", "{deployment:?}"))
    });
    for tag in [
        "own:v1",
        "own:v2",
        "own:v4",
        "own:v5",
        "other:v3",
        "nobody:v3",
    ] {
        let (tenant, tag) = tag.split_once(':').unwrap();
        docker.docker(&["rmi", &image(tenant, tag)]);
    }
    succeed(&docker.docker(&["logout", host]));
}

/// skopeo or podman, which keep their logins in a file.
fn with_login(program: &str, folder: &Path, words: &[&str], input: &str) -> Output {
    let mut command = Command::new(program);
    let (first, rest) = words.split_first().unwrap();
    command
        .arg(first)
        .arg("--authfile")
        .arg(folder.join("auth.json"))
        .args(rest);
    run(&mut command, input.as_bytes())
}

#[test]
fn podman_logs_in_pulls_and_pushes() {
    let server = Server::start();
    server.create_tenants(&["own", "other"]);
    push(&server, "own", "v1", &[]);
    let folder = tempfile::tempdir().unwrap();
    let store = |name: &str| folder.path().join(name).display().to_string();
    let podman = |words: &[&str], input: &str| {
        let mut command = Command::new("podman");
        // A store of its own, which asks nothing of the machine.
        command
            .args(["--root", &store("root"), "--runroot", &store("run")])
            .args(["--tmpdir", &store("tmp"), "--events-backend", "none"])
            .args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"])
            .args(words)
            .env("REGISTRY_AUTH_FILE", folder.path().join("auth.json"));
        run(&mut command, input.as_bytes())
    };
    let deployer = server.issue(Role::Deployer, Some("own"));
    let login = [
        "login",
        "--tls-verify=false",
        "-u",
        "anybody",
        "--password-stdin",
        server.host(),
    ];
    refused(&podman(&login, "sp_0011223344556677_00"));
    succeed(&podman(&login, deployer.token.expose_secret()));
    let (first, second) = (server.image("own", "v1"), server.image("own", "v2"));
    succeed(&podman(&["pull", "--tls-verify=false", &first], ""));
    succeed(&podman(&["tag", &first, &second], ""));
    succeed(&podman(&["push", "--tls-verify=false", &second], ""));
    let other = server.image("other", "v1");
    refused(&podman(&["push", "--tls-verify=false", &first, &other], ""));
    succeed(&podman(&["rmi", "--all", "--force"], ""));
    succeed(&podman(&["pull", "--tls-verify=false", &second], ""));
}

#[test]
fn skopeo_logs_in_and_copies_between_tenants() {
    let server = Server::start();
    server.create_tenants(&["own", "other"]);
    push(&server, "own", "v1", &[]);
    let folder = tempfile::tempdir().unwrap();
    let host = server.host();
    let skopeo = |words: &[&str], input: &str| with_login("skopeo", folder.path(), words, input);
    let login = [
        "login",
        "--tls-verify=false",
        "-u",
        "anybody",
        "--password-stdin",
        host,
    ];
    refused(&skopeo(&login, "sp_0011223344556677_00"));
    let image = |tenant: &str, tag: &str| format!("docker://{}", server.image(tenant, tag));
    let copy = |from: &str, to: &str| {
        let words = [
            "copy",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            from,
            to,
        ];
        skopeo(&words, "")
    };
    let deployer = server.issue(Role::Deployer, Some("own"));
    succeed(&skopeo(&login, deployer.token.expose_secret()));
    succeed(&copy(&image("own", "v1"), &image("own", "v2")));
    refused(&copy(&image("own", "v1"), &image("other", "v1")));
    let tags = skopeo(
        &[
            "list-tags",
            "--tls-verify=false",
            &format!("docker://{host}/own"),
        ],
        "",
    );
    let tags = succeed(&tags);
    assert!(tags.contains("\"v1\"") && tags.contains("\"v2\""), "{tags}");

    // Several scopes in one request: from one tenant's repository to another's.
    succeed(&skopeo(&login, server.token()));
    succeed(&copy(&image("own", "v2"), &image("other", "v1")));
    succeed(&skopeo(
        &["delete", "--tls-verify=false", &image("other", "v1")],
        "",
    ));
    refused(&skopeo(
        &["inspect", "--tls-verify=false", &image("other", "v1")],
        "",
    ));
    succeed(&skopeo(
        &["inspect", "--tls-verify=false", &image("own", "v2")],
        "",
    ));
}

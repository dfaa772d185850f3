//! The image in a real Docker Engine.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use testkit::image::{Tree, configuration_of, run_configuration};
use testkit::management::Variant;
use testkit::process::{eventually, free_port};
use testkit::workspace::Layout;
use testkit::{DockerEngine, Finished};

use crate::world::World;

/// Names of images and containers are unique in the engine that all tests share.
fn unique(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

fn inspect_image(engine: &DockerEngine, name: &str) -> Value {
    let shown = engine.docker(["image", "inspect", "--format", "{{json .Config}}", name]);
    run_configuration(&shown.expect_success().json())
}

/// The bytes of `docker save`, which are no text: through a file.
fn saved(engine: &DockerEngine, name: &str) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    engine
        .docker(["save", "--output", path, name])
        .expect_success();
    std::fs::read(path).unwrap()
}

/// Has Docker build and push an image with the tag `built`.
pub(crate) const DEPLOY: [&str; 9] = [
    "deploy",
    "-e",
    "production",
    "--output",
    "json",
    "--builder",
    "docker",
    "--tag",
    "built",
];

#[test]
fn docker_build_yields_the_same_files_and_configuration() {
    // Docker's image has a file's mode as it is in the checkout, ours does not: under an umask of
    // its own the two would differ.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let world = World::new(Variant::Current);
    world
        .deploy(&["--tag", "native", "--builder", "native"])
        .expect_success();
    let repository = world.variant.repository();
    let native = Tree::of_registry(&world.registry, repository, "native");

    let engine = DockerEngine::get();
    let name = unique("compare");
    let root = world.workspace.root();
    let dockerfile = root.join(".systemprompt/Dockerfile");
    engine
        .docker([
            "build",
            "--tag",
            &name,
            "--file",
            dockerfile.to_str().unwrap(),
            root.to_str().unwrap(),
        ])
        .expect_success();
    let built = Tree::of_saved(&saved(&engine, &name));
    assert_eq!(native.listing(), built.listing());
    assert_eq!(
        configuration_of(&world.registry, repository, "native"),
        inspect_image(&engine, &name)
    );
    engine
        .docker(["image", "rm", "--force", &name])
        .expect_success();
}

#[test]
fn docker_runs_the_pushed_image_and_its_health_answers() {
    let world = World::laid_out(Variant::Current, &Layout::linked_dynamically());
    let deployed = world.deploy(&["--tag", "run", "--builder", "native", "--base", "host"]);
    deployed.expect_success();
    let engine = DockerEngine::get();
    let image = pull(&engine, &world, "run");

    let (port, name) = (free_port(), unique("run"));
    let variable = format!("PORT={port}");
    engine
        .docker([
            "run",
            "--detach",
            "--network",
            "host",
            "--env",
            &variable,
            "--name",
            &name,
            &image,
        ])
        .expect_success();
    let healthy = eventually(Duration::from_mins(1), || is_healthy(port) == Some(true));
    let logs = engine.docker(["logs", &name]);
    let checked = eventually(Duration::from_mins(1), || {
        health_of(&engine, &name) == "healthy"
    });
    engine.docker(["rm", "--force", &name]).expect_success();
    engine
        .docker(["image", "rm", "--force", &image])
        .expect_success();
    assert!(healthy, "no answer: {logs}");
    assert!(checked, "the image's own health check fails: {logs}");
}

/// The registry is on loopback, which the engine trusts without TLS.
fn pull(engine: &DockerEngine, world: &World, tag: &str) -> String {
    let host = world.registry.host();
    let image = format!("{host}/{}:{tag}", world.variant.repository());
    let access = world.registry.access_through(&host);
    engine.log_in(&host, &access.username, &access.password);
    engine.docker(["pull", &image]).expect_success();
    image
}

#[test]
fn the_docker_builder_pushes_and_forgets_its_password() {
    let engine = DockerEngine::get();
    let world = World::new(Variant::SeedEra);
    let finished = world.run_with(&DEPLOY, &[("DOCKER_HOST", engine.host())]);
    finished.expect_success();
    assert!(world.has_tag("built"), "{finished}");
    let built = Tree::of_registry(&world.registry, world.variant.repository(), "built");
    assert!(
        built.get("/app/bin/systemprompt").is_some(),
        "{}",
        built.listing()
    );
    let image = format!(
        "{}/{}:built",
        world.proxy.host(),
        world.variant.repository()
    );
    engine
        .docker(["image", "rm", "--force", &image])
        .expect_success();
    assert!(!world.workspace.home().join(".docker/config.json").exists());
    world.assert_nothing_leaked();
}

#[test]
fn the_docker_builder_reports_a_wrong_password_as_one() {
    let engine = DockerEngine::get();
    let world = World::with_wrong_password(Variant::SeedEra);
    let finished: Finished = world.run_with(&DEPLOY, &[("DOCKER_HOST", engine.host())]);
    crate::world::assert_failed(&finished, 4, "push", "registry_unauthorized");
    let image = format!(
        "{}/{}:built",
        world.proxy.host(),
        world.variant.repository()
    );
    engine.docker(["image", "rm", "--force", &image]);
    world.assert_nothing_leaked();
}

fn is_healthy(port: u16) -> Option<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET /api/v1/health HTTP/1.1\r\nHost: l\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer.starts_with("HTTP/1.1 200 "))
}

fn health_of(engine: &DockerEngine, name: &str) -> String {
    let format = "{{.State.Health.Status}}";
    engine
        .docker(["inspect", "--format", format, name])
        .stdout
        .trim()
        .to_owned()
}

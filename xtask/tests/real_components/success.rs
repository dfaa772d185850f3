//! Deployments that succeed, to every variant of the Management API.

use testkit::management::{FIRST_SERVER_TAG, Variant};
use testkit::workspace::{Defect, Layout};

use crate::world::{World, assert_failed};

/// Deploys once and checks what every deployment leaves: an image, and a request for it.
fn deploys(variant: Variant, arguments: &[&str]) -> (World, String) {
    let world = World::new(variant);
    let finished = world.deploy(arguments);
    finished.expect_success();
    let report = finished.json();
    assert_eq!(report["status"], "succeeded", "{finished}");
    assert_eq!(report["url"], world.api.app_url(), "{finished}");
    let tag = report["tag"].as_str().expect("a tag").to_owned();
    let repository = variant.repository();
    let (_, digest) = world.registry.manifest(repository, &tag);
    assert_eq!(report["digest"], digest.as_str(), "{finished}");
    let image = format!("{}/{repository}:{tag}", world.proxy.host());
    assert_eq!(world.api.deployed(), [image.as_str()]);
    assert_eq!(report["image"], image.as_str());
    (world, tag)
}

#[test]
fn to_a_server_of_the_seeds_time() {
    let (world, tag) = deploys(Variant::SeedEra, &[]);
    let id = world.workspace.commit_id();
    assert!(
        tag.starts_with("deploy-") && tag.ends_with(&id),
        "{tag} of {id}"
    );
    world.assert_nothing_leaked();
}

#[test]
fn to_a_server_that_issues_tags_and_exchanges_tokens() {
    let (world, tag) = deploys(Variant::ServerTag, &[]);
    assert_eq!(tag, FIRST_SERVER_TAG);
    assert_eq!(
        world.api.granted_exchanges(),
        1,
        "one exchange serves all calls"
    );
    world.assert_nothing_leaked();
}

#[test]
fn to_a_server_of_today() {
    let (world, _) = deploys(Variant::Current, &[]);
    let exchanges = world.api.exchanges();
    let asked = |path: &str| exchanges.iter().any(|e| e.request.path() == path);
    assert!(
        !asked("/api/v1/core/oauth/token"),
        "the operator's token is good as it is"
    );
    world.assert_nothing_leaked();
}

#[test]
fn a_pinned_tag_wins_over_the_servers() {
    let (world, tag) = deploys(Variant::ServerTag, &["--tag", "v1.0.0"]);
    assert_eq!(tag, "v1.0.0");
    assert!(!world.has_tag(FIRST_SERVER_TAG));
}

#[test]
fn binaries_of_the_profile_are_shipped_and_not_older_ones_of_the_profile_that_the_dockerfile_names()
{
    let world = World::new(Variant::Current);
    let built = world.deploy(&["--profile", "dev"]);
    built.expect_success();
    // What an earlier build has left where the Dockerfile looks.
    let release = world.workspace.root().join("target/release");
    std::fs::create_dir_all(&release).unwrap();
    let binary = world.workspace.root().join("target/debug/systemprompt");
    let mut stale = std::fs::read(binary).unwrap();
    stale.extend_from_slice(b"of last week");
    std::fs::write(release.join("systemprompt"), stale).unwrap();
    let again = world.deploy(&["--profile", "dev", "--skip-build", "--force"]);
    again.expect_success();
    assert_eq!(again.json()["digest"], built.json()["digest"], "{again}");
}

#[test]
fn the_url_alone_is_on_standard_output() {
    let world = World::new(Variant::Current);
    let finished = world.deploy_for_people(&[]);
    finished.expect_success();
    assert_eq!(finished.stdout, format!("{}\n", world.api.app_url()));
    world.assert_nothing_leaked();
}

#[test]
fn another_repository_of_the_registry_gets_the_layers_without_sending() {
    let world = World::new(Variant::Current);
    world.deploy(&[]).expect_success();
    world.proxy.forget();
    let again = world.run_with(
        &[
            "deploy",
            "-e",
            "production",
            "--output",
            "json",
            "--skip-build",
            "--tag",
            "x",
        ],
        &[
            ("SYSTEMPROMPT_IMAGE_REPOSITORY", "another/tenant"),
            ("SYSTEMPROMPT_IMAGE_SBOM", "false"),
            ("SYSTEMPROMPT_IMAGE_PROVENANCE", "false"),
        ],
    );
    again.expect_success();
    let (manifest, _) = world.registry.manifest("another/tenant", "x");
    let layers = manifest["layers"].as_array().unwrap();
    let sent = world.blobs_put();
    for blob in layers.iter().chain([&manifest["config"]]) {
        let digest = blob["digest"].as_str().unwrap();
        assert!(!sent.iter().any(|put| put == digest), "{again}");
    }
    // One request for each, and no look before it.
    let exchanges = world.proxy.exchanges();
    let mounts = exchanges.iter().filter(|e| {
        e.request.target.contains("from=") && e.request.method == "POST" && e.status == Some(201)
    });
    assert_eq!(mounts.count(), layers.len() + 1, "{again}");
    world.assert_nothing_leaked();
}

#[test]
fn the_second_deployment_sends_no_layer() {
    let world = World::new(Variant::Current);
    world.deploy(&[]).expect_success();
    world.proxy.forget();
    let again = world.deploy(&[]);
    again.expect_success();
    assert_eq!(world.proxy.uploaded(), 0, "{again}");
    assert!(!again.stderr.contains("Compiling"), "{again}");
}

/// Registries elsewhere get compressed layers; here the setting asks for them.
#[test]
fn layers_are_sent_compressed_when_asked_for() {
    let world = World::new(Variant::Current);
    world.deploy(&["--tag", "plain"]).expect_success();
    let listing = |tag: &str| {
        let repository = world.variant.repository();
        let (manifest, _) = world.registry.manifest(repository, tag);
        let layers = manifest["layers"].as_array().unwrap().clone();
        let types: std::collections::BTreeSet<String> = layers
            .iter()
            .map(|layer| layer["mediaType"].as_str().unwrap().to_owned())
            .collect();
        (types, layers.len())
    };
    let deploy = |format: &str| {
        let arguments = ["deploy", "-e", "production", "--tag", format];
        let setting = [("SYSTEMPROMPT_IMAGE_COMPRESSION", format)];
        world.run_with(&arguments, &setting).expect_success();
    };
    let (_, plain) = listing("plain");
    for format in ["gzip", "zstd"] {
        deploy(format);
        let (types, count) = listing(format);
        let expected = format!("application/vnd.oci.image.layer.v1.tar+{format}");
        assert_eq!(
            (types.len(), types.first(), count),
            (1, Some(&expected), plain)
        );
        world.proxy.forget();
        deploy(format);
        assert_eq!(world.proxy.uploaded(), 0, "{format}");
    }
    let files = |tag: &str| {
        let repository = world.variant.repository();
        testkit::image::Tree::of_registry(&world.registry, repository, tag).listing()
    };
    assert_eq!(files("gzip"), files("plain"));
}

#[test]
fn one_changed_line_sends_one_layer() {
    let world = World::new(Variant::Current);
    world.deploy(&[]).expect_success();
    let uploads = |world: &World| {
        let exchanges = world.proxy.exchanges();
        let puts = exchanges
            .iter()
            .filter(|e| e.request.method == "PUT" && e.request.path().contains("/blobs/uploads/"));
        puts.count()
    };
    world.proxy.forget();
    world
        .workspace
        .edit("core/src/main.rs", "\"one\"", "\"two\"");
    world.deploy(&[]).expect_success();
    // The layer, the configuration that names it, the list of parts and the provenance.
    assert_eq!(uploads(&world), 4);
}

#[test]
fn an_older_image_is_deployed_by_its_tag_without_build_or_push() {
    let world = World::new(Variant::SeedEra);
    world.deploy(&["--tag", "v1"]).expect_success();
    world.workspace.edit(
        "core/src/main.rs",
        "fn main() {",
        "fn main() { compile_error!(); ",
    );
    world.proxy.forget();
    world.api.forget();
    let again = world.deploy(&["--skip-push", "--tag", "v1"]);
    again.expect_success();
    assert_eq!(world.proxy.uploaded(), 0);
    assert!(world.api.deployed()[0].ends_with(":v1"), "{again}");
}

#[test]
fn a_tag_that_is_not_there_is_refused_with_those_that_are() {
    let world = World::new(Variant::Current);
    world.deploy(&["--tag", "v1"]).expect_success();
    world.api.forget();
    let refused = world.deploy(&["--skip-push", "--tag", "v2"]);
    let failed = assert_failed(&refused, 6, "push", "tag_not_found");
    assert!(failed.details.contains("v1"), "{}", failed.details);
    assert!(world.api.deployed().is_empty());
}

#[test]
fn without_waiting_the_status_is_never_asked_for() {
    let world = World::new(Variant::Current);
    world.api.statuses(&["deploying"]);
    let finished = world.deploy(&["--no-wait"]);
    finished.expect_success();
    assert_eq!(finished.json()["status"], "started");
}

#[test]
fn unknown_statuses_are_shown_and_waited_on() {
    let world = World::new(Variant::Current);
    world.api.statuses(&["queued", "warming-up", "ready"]);
    let finished = world.deploy(&[]);
    finished.expect_success().expect_stderr("warming-up");
}

#[test]
fn a_deployment_that_never_ends_is_given_up_in_time() {
    let world = World::new(Variant::Current);
    world.api.statuses(&["deploying"]);
    let finished = world.deploy(&["--timeout", "2s"]);
    let failed = assert_failed(&finished, 10, "wait", "wait_timeout");
    assert!(
        failed.resolution.contains("--timeout"),
        "{}",
        failed.resolution
    );
}

#[test]
fn core_outside_the_workspace_is_built_too() {
    let layout = Layout {
        configuration: "[build]\nmanifests = [\"core/Cargo.toml\"]\n".to_owned(),
        ..Layout::with(Defect::CoreOutside)
    };
    let world = World::laid_out(Variant::Current, &layout);
    let finished = world.deploy(&[]);
    finished.expect_success();
    assert_eq!(finished.json()["status"], "succeeded");
}

#[test]
fn a_rollback_needs_no_source_no_build_and_no_push() {
    let world = World::new(Variant::Current);
    world.deploy(&["--tag", "v1"]).expect_success();
    world.change_a_file("two");
    world.deploy(&["--tag", "v2"]).expect_success();
    std::fs::remove_dir_all(world.workspace.root().join("core")).unwrap();
    world.proxy.forget();
    world.api.forget();
    let back = world.run(&["rollback", "-e", "production", "--output", "json"]);
    back.expect_success();
    assert!(world.api.deployed()[0].ends_with(":v1"), "{back}");
    assert_eq!(world.proxy.uploaded(), 0);
    let history = world.run(&["history", "-e", "production", "--output", "json"]);
    history.expect_success();
    assert!(
        history.stdout.contains("v2") && history.stdout.contains("v1"),
        "{history}"
    );
    world.assert_nothing_leaked();
}

#[test]
fn a_dry_run_touches_nothing_here_or_elsewhere() {
    let world = World::new(Variant::Current);
    let before = world
        .workspace
        .git(&["status", "--porcelain", "--ignored"])
        .stdout;
    let finished = world.deploy(&["--dry-run"]);
    finished.expect_success();
    assert_eq!(finished.json()["status"], "planned", "{finished}");
    assert!(world.api.deployed().is_empty());
    let changed = |e: &testkit::server::Exchange| !["GET", "HEAD"].contains(&&*e.request.method);
    assert!(!world.api.exchanges().iter().any(changed), "{finished}");
    assert!(!world.proxy.exchanges().iter().any(changed), "{finished}");
    let after = world
        .workspace
        .git(&["status", "--porcelain", "--ignored"])
        .stdout;
    assert_eq!(before, after);
    assert!(!world.workspace.exists("target/release"));
}

/// Ctrl-C between the request and its answer: the deployment exists, and is spoken of.
#[test]
fn an_interrupt_while_the_deployment_is_asked_for_is_not_taken_for_nothing_done() {
    let world = World::new(Variant::Current);
    world.api.statuses(&["deploying"]);
    let gate = testkit::Gate::closed(std::time::Duration::from_mins(1));
    let path = World::tenant_path("deploy");
    let held = testkit::Rule::on("POST", &path, testkit::Fault::Slow(gate.clone()));
    world.api.inject(held);
    let running = world.start(&["deploy", "-e", "production", "--output", "json"]);
    let asked = testkit::process::eventually(std::time::Duration::from_mins(2), || {
        !world.api.deployed().is_empty()
    });
    assert!(asked, "{}", running.stderr_so_far());
    running.signal_group(nix::sys::signal::Signal::SIGINT);
    gate.open();
    let finished = running.wait(std::time::Duration::from_mins(1));
    let failed = assert_failed(&finished, 130, "wait", "detached");
    assert!(failed.details.contains("goes on"), "{}", failed.details);
    assert_eq!(world.api.deployed().len(), 1);
}

#[test]
fn an_interrupted_wait_leaves_the_deployment_to_the_platform() {
    let world = World::new(Variant::Current);
    world.api.statuses(&["deploying"]);
    let running = world.start(&["deploy", "-e", "production", "--output", "json"]);
    let status = World::tenant_path("status");
    let waiting = testkit::process::eventually(std::time::Duration::from_mins(2), || {
        !world.api.deployed().is_empty() && world.api.count("GET", &status) > 0
    });
    assert!(waiting, "{}", running.stderr_so_far());
    let finished = world.interrupt(running);
    let failed = assert_failed(&finished, 130, "wait", "detached");
    assert!(
        failed.resolution.contains("status"),
        "{}",
        failed.resolution
    );
    world.assert_nothing_leaked();
}

//! Every row of the seed document's table of errors, with its resolution.

use testkit::management::Variant;
use testkit::workspace::{Defect, Layout};

use crate::world::{World, assert_failed};

/// A failure for people: its three parts are on standard error, nothing on standard output.
fn for_people(world: &World, arguments: &[&str], resolution: &str) {
    let finished = world.deploy_for_people(arguments);
    assert_ne!(finished.code(), 0);
    for part in ["Step:", "Details:", "Resolution:", resolution] {
        finished.expect_stderr(part);
    }
    assert_eq!(finished.stdout, "", "{finished}");
}

#[test]
fn build_compilation_error() {
    let world = World::laid_out(Variant::SeedEra, &Layout::with(Defect::CompileError));
    let finished = world.deploy(&[]);
    let failed = assert_failed(&finished, 5, "build", "build_failed");
    assert!(
        failed.resolution.contains("fix") || failed.resolution.contains("correct"),
        "{finished}"
    );
    // Cargo's own words, as they are.
    finished
        .expect_stderr("error[E0308]: mismatched types")
        .expect_stderr("core/src/main.rs");
    for_people(&world, &[], &failed.resolution);
    assert!(world.api.deployed().is_empty() && world.proxy.exchanges().is_empty());
    world.assert_nothing_leaked();
}

#[test]
fn build_missing_database_url() {
    let world = World::laid_out(Variant::SeedEra, &Layout::with(Defect::NeedsDatabase));
    let finished = world.deploy(&[]);
    let failed = assert_failed(&finished, 3, "preflight", "variable_missing");
    assert!(failed.details.contains("DATABASE_URL"), "{finished}");
    assert!(failed.resolution.contains("local tenant"), "{finished}");
    assert!(
        !world.workspace.exists("target/release"),
        "it is found before anything is built"
    );
    for_people(&world, &[], &failed.resolution);
    let arguments = ["deploy", "-e", "production", "--output", "json"];
    let url = "postgres://app:database-password-of-the-test@localhost/app";
    let with = world.run_with(&arguments, &[("DATABASE_URL", url)]);
    with.expect_success();
    assert!(
        !format!("{with}").contains("database-password-of-the-test"),
        "{with}"
    );
    world.assert_nothing_leaked();
}

#[test]
fn docker_binary_not_found() {
    let world = World::new(Variant::SeedEra);
    let finished = world.deploy(&["--skip-build"]);
    let failed = assert_failed(&finished, 3, "preflight", "binary_not_found");
    assert!(
        failed.details.contains("target/release/systemprompt"),
        "{finished}"
    );
    assert!(failed.resolution.contains("build"), "{finished}");
    assert_eq!(
        failed.others.len(),
        3,
        "all four binaries are named at once: {finished}"
    );
    for_people(&world, &["--skip-build"], &failed.resolution);
    world.assert_nothing_leaked();
}

#[test]
fn docker_web_dist_not_found() {
    let world = World::laid_out(Variant::SeedEra, &Layout::with(Defect::NoWebDist));
    let finished = world.deploy(&[]);
    let failed = assert_failed(&finished, 3, "preflight", "web_dist_missing");
    assert!(failed.details.contains("core/web/dist"), "{finished}");
    assert!(failed.resolution.contains("npm run build"), "{finished}");
    for_people(&world, &[], "npm run build");
    world.assert_nothing_leaked();
}

#[test]
fn push_authentication_failure() {
    let world = World::with_wrong_password(Variant::SeedEra);
    let finished = world.deploy(&[]);
    let failed = assert_failed(&finished, 4, "push", "registry_unauthorized");
    assert!(failed.resolution.contains("credentials"), "{finished}");
    assert!(failed.resolution.contains("log in"), "{finished}");
    assert!(world.api.deployed().is_empty());
    for_people(&world, &[], &failed.resolution);
    world.assert_nothing_leaked();
}

#[test]
fn deploy_image_not_found() {
    let world = World::that_loses_images(Variant::SeedEra);
    let finished = world.deploy(&[]);
    let failed = assert_failed(&finished, 1, "deploy", "image_not_found");
    assert!(failed.resolution.contains("push completed"), "{finished}");
    for_people(&world, &[], "push completed");
    world.assert_nothing_leaked();
}

#[test]
fn deploy_machine_update_failed() {
    let world = World::new(Variant::SeedEra);
    world
        .api
        .ends_in("failed", "machine update failed: no capacity in ams");
    let finished = world.deploy(&[]);
    let failed = assert_failed(&finished, 10, "wait", "release_failed");
    assert!(failed.details.contains("no capacity in ams"), "{finished}");
    assert!(failed.resolution.contains("status"), "{finished}");
    assert_eq!(finished.json()["url"], world.api.app_url(), "{finished}");
    for_people(&world, &[], &failed.resolution);
    world.assert_nothing_leaked();
}

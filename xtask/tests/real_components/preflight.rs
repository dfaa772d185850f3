//! What is found before anything is built, all of it at once.

use std::time::{Duration, SystemTime};

use testkit::management::{Variant, token_that_ends};
use testkit::workspace::{Defect, Layout, api_variables};

use crate::world::{World, XTASK, assert_failed, failed};

fn refused(layout: &Layout, code: &str) -> World {
    let world = World::laid_out(Variant::Current, layout);
    let finished = world.deploy(&[]);
    assert_failed(&finished, 3, "preflight", code);
    assert!(
        !world.workspace.exists("target/release"),
        "nothing is built: {finished}"
    );
    assert!(world.proxy.exchanges().is_empty(), "{finished}");
    world
}

#[test]
fn a_missing_dockerfile() {
    refused(&Layout::with(Defect::NoDockerfile), "dockerfile_missing");
}

#[test]
fn an_enabled_extension_that_no_copy_ships() {
    let world = refused(
        &Layout::with(Defect::ExtensionWithoutCopy),
        "extension_not_shipped",
    );
    // Two ways out: the other one.
    world.workspace.edit(
        "extensions/mcp/admin/manifest.yaml",
        "enabled: true",
        "enabled: false",
    );
    world.deploy(&[]).expect_success();
}

#[test]
fn a_copy_of_what_no_package_builds() {
    refused(&Layout::with(Defect::StaleCopy), "copy_stale");
}

#[test]
fn services_on_a_platform_that_runs_one() {
    let layout = Layout::configured("[services.worker]\ncommand = [\"work\"]\n");
    let world = World::laid_out(Variant::Current, &layout);
    let finished = world.deploy(&[]);
    let failed = assert_failed(&finished, 3, "preflight", "not_offered");
    assert!(
        failed.details.contains("does not offer [services]"),
        "{finished}"
    );
    assert!(
        !world.workspace.exists("target/release"),
        "nothing is built"
    );
}

#[test]
fn services_that_cannot_be_meant() {
    let layout = Layout::configured(
        "[services.api]\nbinary = \"zebra\"\ndepends_on = [\"worker\"]\nroutes = [\"/\"]\n\
         [services.worker]\ndepends_on = [\"api\"]\n",
    );
    let world = World::laid_out(Variant::Services, &layout);
    let failed = failed(&world.deploy(&[]));
    assert_eq!(failed.code, "services_circular");
    assert_eq!(failed.others, ["route_taken", "binary_unknown"]);
    assert!(
        !world.workspace.exists("target/release"),
        "nothing is built"
    );
}

#[test]
fn every_problem_is_found_at_once() {
    let layout = Layout {
        defects: vec![
            Defect::ExtensionWithoutCopy,
            Defect::StaleCopy,
            Defect::NoWebDist,
            Defect::NeedsDatabase,
        ],
        ..Layout::default()
    };
    let world = World::laid_out(Variant::Current, &layout);
    let finished = world.deploy(&[]);
    let failed = failed(&finished);
    let mut codes = failed.others.clone();
    codes.push(failed.code.clone());
    codes.sort();
    let expected = [
        "copy_stale",
        "extension_not_shipped",
        "variable_missing",
        "web_dist_missing",
    ];
    assert_eq!(codes, expected, "{finished}");
}

#[test]
fn outside_git_the_tag_says_unknown() {
    let world = World::laid_out(Variant::Current, &Layout::with(Defect::NoGit));
    let finished = world.deploy(&[]);
    finished.expect_success();
    let tag = finished.json()["tag"].as_str().unwrap().to_owned();
    assert!(
        tag.starts_with("deploy-") && tag.ends_with("-unknown"),
        "{tag}"
    );
}

#[test]
fn a_dirty_tree_is_marked_or_refused() {
    let world = World::laid_out(Variant::Current, &Layout::with(Defect::Dirty));
    let refused = world.deploy(&["--require-clean"]);
    assert_failed(&refused, 3, "preflight", "tree_not_clean");
    let finished = world.deploy(&[]);
    finished.expect_success();
    let tag = finished.json()["tag"].as_str().unwrap().to_owned();
    assert!(tag.ends_with("-dirty"), "{tag}");
}

#[test]
fn an_expired_token_is_found_before_anything_is_built() {
    let world = World::new(Variant::Current);
    let expired = token_that_ends(SystemTime::now() - Duration::from_mins(1));
    let url = world.api.url();
    let arguments = ["deploy", "-e", "production", "--output", "json"];
    let finished = world
        .workspace
        .xtask(XTASK, &arguments, &api_variables(&url, &expired));
    assert_failed(&finished, 4, "preflight", "credentials_expired");
    assert!(!world.workspace.exists("target/release"), "{finished}");
}

#[test]
fn missing_credentials_are_found_before_anything_is_built() {
    let world = World::new(Variant::Current);
    let arguments = ["deploy", "-e", "production", "--output", "json"];
    let url = world.api.url();
    let finished = world
        .workspace
        .xtask(XTASK, &arguments, &api_variables(&url, "")[..1]);
    assert_failed(&finished, 4, "preflight", "credentials_missing");
    assert!(!world.workspace.exists("target/release"), "{finished}");
}

#[test]
fn a_web_build_runs_where_a_package_json_asks_for_it() {
    let layout = Layout::with(Defect::NoWebDistButPackageJson);
    let world = World::laid_out(Variant::Current, &layout);
    let finished = world.deploy(&[]);
    finished.expect_success();
    assert_eq!(
        world.workspace.read("core/web/dist/index.html"),
        "<title>built</title>"
    );
}

//! The other commands against servers that know the contract only, and the outputs for programs.

use std::fs;

use testkit::management::Variant;

use crate::world::{World, failed};

#[test]
fn the_status_is_what_the_contract_says() {
    for variant in Variant::ALL {
        let world = World::new(variant);
        let status = world.run(&["status", "-e", "production", "--output", "json"]);
        status.expect_success();
        assert!(status.stdout.contains("pending"), "{status}");
        world.assert_nothing_leaked();
    }
}

#[test]
fn logs_that_the_server_does_not_offer_are_a_named_failure() {
    let world = World::new(Variant::SeedEra);
    let logs = world.run(&["logs", "-e", "production", "--output", "json"]);
    let failed = failed(&logs);
    assert!(failed.details.contains("log"), "{logs}");
    world.assert_nothing_leaked();
}

#[test]
fn a_rollback_with_nothing_before_is_a_named_failure() {
    let world = World::new(Variant::Current);
    world.deploy(&["--tag", "v1"]).expect_success();
    world.api.forget();
    let back = world.run(&["rollback", "-e", "production", "--output", "json"]);
    let failed = failed(&back);
    assert_eq!(failed.code, "nothing_to_roll_back", "{back}");
    // Copied as it is, the command must not reach another environment.
    let command = "cargo xtask deploy -e production --skip-push --tag TAG";
    assert!(failed.resolution.contains(command), "{back}");
    assert!(world.api.deployed().is_empty(), "{back}");
}

#[test]
fn the_result_is_one_yaml_document_too() {
    let world = World::new(Variant::Current);
    world.api.statuses(&["failed"]);
    let finished = world.run(&["deploy", "-e", "production", "--output", "yaml"]);
    finished.expect_code(10);
    let first = finished.stdout.lines().next().unwrap_or_default();
    assert!(first.starts_with("schema:"), "{finished}");
    assert!(finished.stdout.contains("\nerror:"), "{finished}");
}

/// In GitHub Actions the masks are the only lines that may hold a secret: the runner takes them
/// out of the log before anybody sees it.
#[test]
fn in_github_actions_outputs_are_published_and_secrets_are_masked() {
    let world = World::new(Variant::Current);
    let output = world.workspace.home().join("output");
    let summary = world.workspace.home().join("summary");
    for file in [&output, &summary] {
        fs::write(file, "").unwrap();
    }
    let url = world.api.url();
    let variables = [
        &testkit::workspace::api_variables(&url, world.api.token())[..],
        &[
            ("GITHUB_ACTIONS", "true"),
            ("GITHUB_OUTPUT", output.to_str().unwrap()),
            ("GITHUB_STEP_SUMMARY", summary.to_str().unwrap()),
        ],
    ]
    .concat();
    let arguments = ["deploy", "-e", "production", "--output", "json"];
    let finished = world
        .workspace
        .xtask(crate::world::XTASK, &arguments, &variables);
    finished.expect_success();

    let published = fs::read_to_string(&output).unwrap();
    assert!(
        published.contains(&format!("url={}\n", world.api.app_url())),
        "{published}"
    );
    assert!(
        fs::read_to_string(&summary)
            .unwrap()
            .contains(world.api.app_url())
    );
    assert_eq!(finished.json()["status"], "succeeded");
    assert!(finished.stderr.contains("::group::"), "{finished}");
    for secret in world.api.secret_values() {
        let text = format!("{}{}{published}", finished.stdout, finished.stderr);
        let lines: Vec<_> = text.lines().filter(|line| line.contains(&secret)).collect();
        assert!(!lines.is_empty(), "not masked: {finished}");
        for line in lines {
            assert!(line.starts_with("::add-mask::"), "{line}");
        }
    }
    world.assert_nothing_leaked();
}

//! Every call of the registry fails in every way.

use testkit::management::Variant;
use testkit::{Fault, Rule};

use crate::world::{World, failed};

/// The calls of a push, as the registry sees them.
const CALLS: [(&str, &str); 5] = [
    ("HEAD", "/v2/*/blobs/*"),
    ("POST", "/v2/*/blobs/uploads/"),
    ("PATCH", "/v2/*/blobs/uploads/*"),
    ("PUT", "/v2/*/blobs/uploads/*"),
    ("PUT", "/v2/*/manifests/*"),
];

/// Faults that stay, with the exit code that they lead to.
fn lasting() -> Vec<(Fault, i32)> {
    vec![
        (Fault::Status(401), 4),
        (Fault::Status(403), 4),
        (Fault::Status(404), 6),
        (Fault::RateLimited(0), 6),
        (Fault::Status(500), 6),
        (Fault::HtmlPage(502), 6),
        (Fault::ResetBeforeAnswer, 6),
    ]
}

/// Which calls a push really makes is seen first: a fault at a call that is never made proves
/// nothing.
fn calls_made(world: &World) -> Vec<(&'static str, &'static str)> {
    let made = |(method, pattern): &(&str, &str)| {
        let wanted: Vec<_> = pattern.split('/').collect();
        world.proxy.exchanges().iter().any(|e| {
            let path: Vec<_> = e.request.path().split('/').collect();
            e.request.method == *method
                && path.len() == wanted.len()
                && path.iter().zip(&wanted).all(|(a, b)| *b == "*" || a == b)
        })
    };
    CALLS.into_iter().filter(made).collect()
}

#[test]
fn faults_that_stay_end_in_a_named_failure_and_leave_nothing_deployed() {
    let world = World::new(Variant::Current);
    world.deploy(&[]).expect_success();
    let calls = calls_made(&world);
    assert!(calls.len() >= 4, "only {calls:?} are made");
    for (method, path) in calls {
        for (fault, exit) in lasting() {
            // A blob that is not there is no fault: 404 is the expected answer.
            if method == "HEAD" && matches!(fault, Fault::Status(404)) {
                continue;
            }
            fails(&world, method, path, &fault, exit);
        }
    }
    world.deploy(&["--skip-build"]).expect_success();
    world.assert_nothing_leaked();
}

fn fails(world: &World, method: &str, path: &str, fault: &Fault, exit: i32) {
    world.api.forget();
    world.change_a_file(&format!("{method} {path} {fault:?}"));
    world
        .proxy
        .inject(Rule::on(method, path, fault.clone()).always());
    let finished = world.deploy(&["--skip-build", "--tag", "broken"]);
    world.proxy.heal();
    let failed = failed(&finished);
    let found = (failed.exit, failed.step.as_str());
    assert_eq!(
        found,
        (exit, "push"),
        "{fault:?} at {method} {path}: {finished}"
    );
    assert!(
        world.api.deployed().is_empty(),
        "{fault:?} at {method} {path}: {finished}"
    );
    assert!(
        !world.has_tag("broken"),
        "{fault:?} at {method} {path}: {finished}"
    );
}

#[test]
fn faults_that_pass_are_waited_out_and_no_blob_is_lost() {
    let world = World::new(Variant::Current);
    world.deploy(&[]).expect_success();
    let calls = calls_made(&world);
    for (method, path) in calls {
        for fault in passing(method) {
            world.api.forget();
            world.change_a_file(&format!("{method} {path} {fault:?}"));
            world.proxy.inject(Rule::on(method, path, fault.clone()));
            let finished = world.deploy(&["--skip-build", "--tag", "passing"]);
            world.proxy.heal();
            assert_eq!(
                finished.code(),
                0,
                "{fault:?} at {method} {path}: {finished}"
            );
            is_whole(&world, "passing");
        }
    }
    world.assert_nothing_leaked();
}

fn passing(method: &str) -> Vec<Fault> {
    let mut faults = vec![
        Fault::RateLimited(1),
        Fault::Status(503),
        Fault::Status(500),
        Fault::ResetBeforeAnswer,
        Fault::ResetAfterEffect,
    ];
    if method != "HEAD" {
        faults.push(Fault::ResetDuringUpload);
    }
    faults
}

/// Every blob that the manifest names is there.
fn is_whole(world: &World, tag: &str) {
    let repository = world.variant.repository();
    let (manifest, _) = world.registry.manifest(repository, tag);
    let layers = manifest["layers"].as_array().unwrap();
    for blob in layers.iter().chain([&manifest["config"]]) {
        let content = world
            .registry
            .blob(repository, blob["digest"].as_str().unwrap());
        assert_eq!(content.len() as u64, blob["size"].as_u64().unwrap());
    }
}

#[test]
fn a_registry_that_is_gone_is_a_failure_of_the_push() {
    let mut world = World::new(Variant::Current);
    world.deploy(&[]).expect_success();
    world.api.forget();
    world.proxy = testkit::FaultProxy::before(world.registry.address());
    world.change_a_file("two");
    let finished = world.deploy(&["--skip-build"]);
    let failed = failed(&finished);
    assert_eq!(
        (failed.exit, failed.code.as_str()),
        (6, "registry_unreachable"),
        "{finished}"
    );
    assert!(world.api.deployed().is_empty());
}

#[test]
fn an_interrupted_push_deploys_nothing() {
    let world = World::new(Variant::Current);
    let gate = testkit::Gate::closed(std::time::Duration::from_mins(5));
    world
        .proxy
        .inject(Rule::on("PUT", "/v2/*/manifests/*", Fault::Slow(gate)).always());
    let running = world.start(&[
        "deploy",
        "-e",
        "production",
        "--output",
        "json",
        "--tag",
        "x",
    ]);
    let pushing = testkit::process::eventually(std::time::Duration::from_mins(2), || {
        world
            .proxy
            .exchanges()
            .iter()
            .any(|e| e.request.method == "POST")
    });
    assert!(pushing, "{}", running.stderr_so_far());
    running.signal(nix::sys::signal::Signal::SIGINT);
    world.proxy.heal();
    let finished = running.wait(std::time::Duration::from_mins(1));
    assert_eq!(failed(&finished).exit, 130, "{finished}");
    assert!(world.api.deployed().is_empty(), "{finished}");
    assert!(world.workspace.left_behind().is_empty());
}

/// What was put before the end is not put again, but for the configuration, which nobody asks for.
#[test]
fn a_killed_push_leaves_nothing_in_the_way() {
    let world = World::new(Variant::Current);
    let gate = testkit::Gate::closed(std::time::Duration::from_mins(5));
    let second_blob = Rule::on("PUT", "/v2/*/blobs/uploads/*", Fault::Slow(gate)).nth(2);
    world.proxy.inject(second_blob);
    let running = world.start(&["deploy", "-e", "production", "--tag", "x"]);
    let pushing = testkit::process::eventually(std::time::Duration::from_mins(2), || {
        !world.blobs_put().is_empty()
    });
    assert!(pushing, "{}", running.stderr_so_far());
    running.signal_group(nix::sys::signal::Signal::SIGKILL);
    let killed = running.wait(std::time::Duration::from_mins(1));
    assert_ne!(killed.code(), 0, "{killed}");
    let before = world.blobs_put();
    assert!(!world.has_tag("x"));
    world.proxy.heal();
    world.proxy.forget();

    world
        .deploy(&["--skip-build", "--tag", "x"])
        .expect_success();
    is_whole(&world, "x");
    let (manifest, _) = world.registry.manifest(world.variant.repository(), "x");
    let config = manifest["config"]["digest"].as_str().unwrap();
    let twice: Vec<String> = world
        .blobs_put()
        .into_iter()
        .filter(|digest| before.contains(digest) && digest != config)
        .collect();
    assert!(twice.is_empty(), "sent again: {twice:?}");
    assert_eq!(world.api.deployed().len(), 1);
}

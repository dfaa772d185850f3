//! Results that standard output does not take: exit code 12, and the result on standard error.

use testkit::DockerRegistry;
use testkit::base::{BaseImage, Files};
use testkit::management::Variant;
use testkit::workspace::{Layout, api_variables};

use crate::world::{World, XTASK};

/// Runs the tool with its standard output where a shell puts it.
fn deploy(world: &World, into: &str, arguments: &[&str]) -> testkit::Finished {
    let script = format!("set -o pipefail; \"$0\" \"$@\" {into}");
    let arguments = [&["-c", &script, XTASK], arguments].concat();
    let (url, token) = (world.api.url(), world.api.token());
    let variables = api_variables(&url, token);
    world.workspace.xtask("bash", &arguments, &variables)
}

#[test]
fn a_deployment_whose_result_nobody_gets_is_told_from_others() {
    let source = DockerRegistry::open();
    let image = BaseImage::default().layer(&Files::default().file("motd", "hello"));
    image.push(&source, "app", "1");
    let finished_image = format!("[services.app]\nimage = \"{}/app:1\"\n", source.host());
    let world = World::laid_out(Variant::Services, &Layout::configured(&finished_image));
    for (into, arguments, why) in [
        ("> /dev/full", &["--output", "json"][..], "No space left"),
        ("| true", &["--output", "yaml"], "its reader has closed it"),
        ("> /dev/full", &[], "No space left"),
        ("| true", &[], "its reader has closed it"),
    ] {
        let arguments = [&["deploy", "-e", "production"], arguments].concat();
        let finished = deploy(&world, into, &arguments);
        finished.expect_code(12).expect_stderr("result unwritten");
        finished.expect_stderr(why);
        finished.expect_stderr("the command did what it was asked for");
        finished.expect_stderr(", http://");
    }
    // Whoever gets it, gets it as ever.
    let finished = deploy(&world, "| head -1", &["deploy", "-e", "production"]);
    finished.expect_success();
    assert!(finished.stdout.starts_with("http"), "{finished}");
}

#[test]
fn what_has_failed_is_told_on_standard_error_then_and_ends_as_ever() {
    let world = World::new(Variant::Current);
    let nothing = ["deploy", "-e", "nowhere", "--output", "json"];
    let finished = deploy(&world, "> /dev/full", &nothing);
    finished.expect_code(3).expect_stderr("settings invalid");
    finished.expect_stderr("result unwritten");
}

#[test]
fn whoever_closes_a_list_has_seen_enough_and_a_full_disk_has_not() {
    let world = World::new(Variant::Current);
    for arguments in [
        &["config", "show"][..],
        &["deploy", "-e", "production", "--dry-run"],
        &["completions", "bash"],
        &["help", "exit-codes"],
        &["--help"],
    ] {
        let closed = deploy(&world, "| true", arguments);
        closed.expect_success();
        assert!(!closed.stderr.contains("unwritten"), "{closed}");
        let full = deploy(&world, "> /dev/full", arguments);
        full.expect_code(12).expect_stderr("No space left");
    }
}

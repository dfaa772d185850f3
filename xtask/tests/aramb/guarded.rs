//! `--policy guarded`: side by side, not twice, and with a way back.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;
use testkit::Finished;
use testkit::aramb::{Generation, Mishap};
use testkit::process::eventually;

use crate::shop::{FILE, LIMIT, Shop};

const GUARDED: [&str; 2] = ["--policy", "guarded"];

const TWO: &str = r#"[[services]]
uniqueIdentifier = 100
name = "db"
type = "postgres"
[services.configuration.settings]
image = "postgres:16"

[[services]]
uniqueIdentifier = 101
name = "api-build"
type = "build"
[services.configuration.settings]
buildPath = "backend"

[[services]]
uniqueIdentifier = 102
name = "web-build"
type = "build"
[services.configuration.settings]
buildPath = "web"

[[services]]
uniqueIdentifier = 103
name = "api"
type = "backend"
[services.configuration.settings]
image = "${101.outputs.IMAGE_URL}"
commandPort = 80
publicNet = true

[[services]]
uniqueIdentifier = 104
name = "web"
type = "frontend"
[services.configuration.settings]
image = "${102.outputs.IMAGE_URL}"
"#;

fn shop() -> Shop {
    Shop::with_front_end(Generation::New, TWO)
}

fn deploy(shop: &Shop) -> (Finished, Value) {
    shop.deploy_as_json(&GUARDED)
}

/// One a processor. The first one is that of `api`.
fn at_a_time() -> usize {
    let processors = std::thread::available_parallelism().unwrap().get();
    processors.min(2)
}

#[test]
fn builds_run_side_by_side_and_stages_one_after_the_other() {
    let shop = shop().watched();
    let gate = shop.double.gate("builds");
    shop.double
        .inject(&Mishap::at("build").always().waits_at(&gate));
    let running = shop.start(&GUARDED, &[]);
    let at_a_time = at_a_time();
    assert!(eventually(LIMIT, || shop.double.calls_of("build").len() == at_a_time));
    shop.double.open(&gate);
    shop.keep(running.wait(LIMIT)).expect_success();
    let builds = shop.double.calls_of("build");
    assert_eq!(builds.len(), 2);
    assert_eq!(builds[0].overlaps(&builds[1]), at_a_time > 1);
    let stages = shop.double.calls_of("deploy").into_iter();
    let stages: Vec<_> = stages
        .map(|call| call.flag("--services").unwrap().to_owned())
        .collect();
    assert_eq!(stages, ["db", "api", "web"]);
}

#[test]
fn one_build_that_fails_ends_the_others() {
    let shop = shop();
    let gate = shop.double.gate("failing");
    shop.double
        .inject(&Mishap::at("build").with("my-app/web-build").hangs());
    let failing = Mishap::at("build").with("my-app/api-build").waits_at(&gate);
    shop.double.inject(&failing.exits(1));
    let running = shop.start(&GUARDED, &[]);
    assert!(eventually(LIMIT, || shop.double.calls_of("build").len() == at_a_time()));
    shop.double.open(&gate);
    let finished = shop.keep(running.wait(LIMIT));
    finished
        .expect_code(5)
        .expect_stderr("ERROR: Build failed for api-build");
    for build in shop.double.calls_of("build") {
        let name = format!("/proc/{}/cmdline", build.pid);
        let is_gone = || fs::read(&name).map_or(true, |line| line.is_empty());
        assert!(eventually(LIMIT, is_gone), "{build:?}");
    }
    assert_eq!(shop.file(), TWO);
}

#[test]
fn what_has_not_changed_is_not_built_again() {
    let shop = shop();
    deploy(&shop).0.expect_success();
    shop.double.forget();
    let (told, document) = deploy(&shop);
    told.expect_success();
    assert_eq!(shop.double.calls_of("build"), []);
    assert_eq!(
        document["builds"]["backend"][0]["status"], "unchanged",
        "{told}"
    );
    shop.write("web/index.html", "changed");
    shop.commit("changed");
    let (told, _) = deploy(&shop);
    told.expect_success();
    let builds = shop.double.calls_of("build");
    assert!(
        builds.len() == 1 && builds[0].has("my-app/web-build"),
        "{builds:?}"
    );
    shop.double.forget();
    shop.deploy(&[&GUARDED[..], &["--force"]].concat())
        .expect_success();
    assert_eq!(shop.double.calls_of("build").len(), 2);
    assert_eq!(shop.file(), TWO);
}

#[test]
fn a_failure_returns_to_what_was_well() {
    let shop = shop();
    deploy(&shop).0.expect_success();
    let good = shop.double.given();
    shop.write("backend/main.c", "broken");
    shop.commit("broken");
    // It fails, and what comes back is well again.
    let failed = "{\"service\": \"api\", \"status\": \"failed\"}\n";
    let status = Mishap::at("deploy status").with("api");
    shop.double.inject(&status.answers(failed));
    shop.double.forget();
    let (told, document) = deploy(&shop);
    told.expect_code(8);
    assert_eq!(document["status"], "rolled_back", "{told}");
    told.expect_stderr("ERROR: Backend deployment failed with status: failed");
    let given = shop.double.given();
    assert!(
        given.last().is_some_and(|last| good.contains(last)),
        "{told}"
    );
    assert_eq!(shop.file(), TWO);
}

#[test]
fn there_may_be_nothing_to_return_to() {
    let shop = shop();
    shop.double.fails("api", "no capacity");
    let (told, document) = deploy(&shop);
    told.expect_code(10).expect_stderr("nothing to return to");
    assert_eq!(document["status"], "failed", "{told}");
    assert_eq!(shop.file(), TWO);
}

#[test]
fn a_return_that_fails_needs_somebody() {
    let shop = shop();
    deploy(&shop).0.expect_success();
    shop.double.goes_through("api", &["failed"]);
    deploy(&shop)
        .0
        .expect_code(10)
        .expect_stderr("the file says what it said when all was well");
    shop.write("backend/main.c", "broken");
    shop.commit("broken");
    let (told, document) = deploy(&shop);
    told.expect_code(9).expect_stderr("failed as well");
    assert_eq!(document["status"], "failed", "{told}");
    assert_eq!(shop.file(), TWO);
}

#[test]
fn a_kill_on_the_way_back_is_made_good_by_the_next_run() {
    for signal in [Signal::SIGKILL, Signal::SIGINT] {
        let shop = shop();
        deploy(&shop).0.expect_success();
        shop.write("backend/main.c", "broken");
        shop.commit("broken");
        shop.double.forget();
        let failed = "{\"service\": \"api\", \"status\": \"failed\"}\n";
        let status = Mishap::at("deploy status").with("api");
        shop.double.inject(&status.answers(failed));
        // The database, the backend that fails, and then what was before.
        shop.double.inject(&Mishap::at("deploy").nth(3).hangs());
        let running = shop.start(&GUARDED, &[]);
        assert!(eventually(LIMIT, || shop.double.calls_of("deploy").len() == 3));
        running.signal_group(signal);
        let killed = shop.keep(running.wait(LIMIT));
        if signal == Signal::SIGINT {
            killed.expect_code(9).expect_stderr("Interrupted");
            assert_eq!(shop.file(), TWO, "{killed}");
        } else {
            killed.expect_code(137);
            assert_ne!(shop.file(), TWO, "what was before is deployed from it");
        }
        shop.double.heal();
        deploy(&shop).0.expect_success();
        assert_eq!(shop.file(), TWO);
        let last = shop.double.given().pop().unwrap();
        assert!(String::from_utf8_lossy(&last).contains(&shop.image("api-build")));
    }
}

#[test]
fn a_status_that_cannot_be_had_is_asked_again() {
    let shop = Shop::new(Generation::Old);
    let status = Mishap::at("deploy status").with("backend-api");
    shop.double.inject(&status.clone().nth(1).exits(1));
    shop.double
        .inject(&status.nth(2).answers("gateway time-out\n"));
    let (told, document) = deploy(&shop);
    told.expect_success();
    assert_eq!(document["status"], "success", "{told}");
    assert_eq!(shop.file(), FILE);
}

#[test]
fn what_somebody_changes_before_the_way_back_stays() {
    let shop = shop();
    deploy(&shop).0.expect_success();
    shop.write("backend/main.c", "broken");
    shop.commit("broken");
    shop.double.forget();
    let gate = shop.double.gate("status");
    let failed = "{\"service\": \"api\", \"status\": \"failed\"}\n";
    let status = Mishap::at("deploy status").with("api");
    shop.double.inject(&status.waits_at(&gate).answers(failed));
    let running = shop.start(&GUARDED, &[]);
    let asks = || {
        let asked = shop.double.calls_of("deploy status").into_iter();
        asked.filter(|call| call.has("api")).count() == 1
    };
    assert!(eventually(LIMIT, asks));
    let edited = shop.file().replace("postgres:16", "postgres:17");
    shop.write("aramb.toml", edited);
    shop.double.open(&gate);
    let told = shop.keep(running.wait(LIMIT));
    told.expect_code(8)
        .expect_stderr("aramb.toml was changed meanwhile");
    assert_eq!(shop.file(), TWO.replace("postgres:16", "postgres:17"));
    let last = shop.double.given().pop().unwrap();
    assert!(!String::from_utf8_lossy(&last).contains("postgres:17"));
}

#[test]
fn a_service_that_nobody_could_tell_of_is_nothing_to_return_to() {
    let shop = shop();
    let unknown = Mishap::at("deploy status").with("api").always();
    shop.double.inject(&unknown.exits(1));
    let short = [&GUARDED[..], &["--timeout", "1s"]].concat();
    let (told, document) = shop.deploy_as_json(&short);
    told.expect_success();
    assert_eq!(document["status"], "deployed", "{told}");
    shop.double.heal();
    shop.double.fails("api", "no capacity");
    shop.write("backend/main.c", "broken");
    shop.commit("broken");
    shop.double.forget();
    deploy(&shop)
        .0
        .expect_code(10)
        .expect_stderr("never well from here: there is nothing to return to");
    assert_eq!(shop.double.calls_of("deploy").len(), 2);
    assert_eq!(shop.file(), TWO);
}

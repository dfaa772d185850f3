//! Whatever the command does instead of what it should: the deployment ends in time and with the step that it was, the file is as
//! before, and the next deployment goes through.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use testkit::aramb::{Generation, Mishap};
use testkit::process::eventually;

use crate::shop::{FILE, LIMIT, Shop, assert_failed};

const APPLICATION: (&str, &str) = (
    "Failed to retrieve application slug",
    "3 - Get Application Slug",
);
const BUILD: (&str, &str) = ("Build failed for backend-build", "5 - Run Build Commands");
const DEPLOY: (&str, &str) = ("aramb deploy --from-toml failed", "8 - Run TOML Deploy");

/// Ends that mean a failure wherever they happen.
fn bad_ends(command: &str) -> Vec<Mishap> {
    let at = || Mishap::at(command);
    vec![
        at().exits(1),
        at().exits(255),
        at().complains("panic: runtime error\n").exits(2),
        at().dies_by(Signal::SIGKILL),
        at().dies_by(Signal::SIGSEGV),
        // It says what should be, and fails all the same.
        at().prints("{\"slug\":\"my-app\",\"IMAGE_URL\":\"a/b:c\",\"status\":\"completed\"}\n")
            .exits(1),
        at().behind_the_effect().exits(7),
        at().leaves_a_child().exits(1),
        at().floods(3 << 20).exits(1),
        at().tells_its_token().exits(1),
        at().complains([0xff, 0xfe, b'\n', 0x1b, b'[', b'2', b'J', b'\r', b'\n'])
            .exits(1),
    ]
}

fn every_bad_end(command: &str, (error, step): (&str, &str)) {
    let shop = Shop::new(Generation::New);
    for mishap in bad_ends(command) {
        shop.double.heal();
        shop.double.forget();
        shop.double.inject(&mishap);
        let finished = shop.deploy(&[]);
        assert_failed(&finished, error, step);
        assert_eq!(shop.file(), FILE, "{mishap:?}");
        let is_in_time = finished.took < Duration::from_secs(20);
        assert!(is_in_time, "{mishap:?}: {finished}");
        for call in shop.double.calls() {
            for child in call.children {
                let is_gone = eventually(LIMIT, || !runs(child));
                assert!(is_gone, "a child is left: {mishap:?}");
            }
        }
    }
    shop.double.heal();
    shop.deploy(&[]).expect_success();
}

#[test]
fn every_bad_end_of_the_question_for_the_application() {
    every_bad_end("applications get", APPLICATION);
}

#[test]
fn every_bad_end_of_a_build() {
    every_bad_end("build", BUILD);
}

#[test]
fn every_bad_end_of_a_deployment() {
    every_bad_end("deploy", DEPLOY);
}

fn runs(process: u32) -> bool {
    fs::read(format!("/proc/{process}/cmdline")).is_ok_and(|line| !line.is_empty())
}

#[test]
fn a_command_that_does_not_run_is_none() {
    let shop = Shop::new(Generation::Old);
    for command in ["--version", "build --help", "deploy --help"] {
        for mishap in [
            Mishap::at(command).dies_by(Signal::SIGKILL),
            Mishap::at(command).complains("cannot execute\n").exits(126),
        ] {
            shop.double.heal();
            shop.double.inject(&mishap);
            let finished = shop.deploy(&[]);
            // Which version it is is nothing that a deployment needs.
            if command == "deploy --help" {
                finished.expect_code(1);
                finished.expect_stderr("Step: 0 - Install aramb-cli");
            } else {
                finished.expect_success();
            }
        }
    }
}

#[test]
fn its_token_is_in_no_output() {
    // The shop looks for it in all that was said.
    for generation in Generation::ALL {
        let shop = Shop::new(generation).watched();
        for command in [
            "--version",
            "applications get",
            "build",
            "deploy",
            "deploy status",
        ] {
            shop.double.inject(&Mishap::at(command).tells_its_token());
        }
        let told = shop.deploy(&[]);
        told.expect_stderr("[redacted]");
        shop.double.heal();
        shop.double
            .inject(&Mishap::at("build").tells_its_token().exits(1));
        let (failed, document) = shop.deploy_as_json(&[]);
        failed.expect_code(1);
        let details = document["error"]["details"].to_string();
        assert!(details.contains("[redacted]"), "{details}");
    }
}

#[test]
fn passwords_in_addresses_are_not_shown() {
    let shop = Shop::new(Generation::Old);
    let address = [("INTERNAL_URL", "postgres://ada:hunter2@db:5432/shop")];
    shop.double.tells("postgres-db", &address);
    shop.double.tells("backend-api", &address);
    let told = shop.deploy(&[]);
    told.expect_stderr("postgres://[redacted]@db:5432/shop");
    let (json, _) = shop.deploy_as_json(&[]);
    for told in [told, json] {
        told.expect_success();
        assert!(!told.to_string().contains("hunter2"), "{told}");
    }
}

#[test]
fn secrets_of_the_file_are_in_no_output() {
    let file = include_str!("corpus/secrets-everywhere.toml");
    let shop = Shop::with(Generation::New, file);
    // As a command does that was left in a verbose mode.
    for command in ["build", "deploy", "deploy status"] {
        shop.double
            .inject(&Mishap::at(command).complains(file).prints(file));
    }
    let told = shop.deploy(&[]);
    assert!(!told.to_string().contains("hunter"), "{told}");
    let failing = Mishap::at("build").always().complains(file).exits(1);
    shop.double.heal();
    shop.double.inject(&failing);
    for arguments in [&[][..], &["--output", "json"]] {
        let told = shop.deploy(arguments);
        told.expect_code(1);
        assert!(!told.to_string().contains("hunter"), "{told}");
    }
}

#[test]
fn answers_with_something_before_and_behind_are_read() {
    let shop = Shop::new(Generation::New);
    let noise = |command| {
        Mishap::at(command)
            .always()
            .prints("a newer version is there: 1.2.0\n{}\n")
    };
    for command in ["applications get", "build", "deploy status"] {
        shop.double
            .inject(&noise(command).complains("deprecated\n"));
    }
    let told = shop.deploy(&[]);
    told.expect_success();
    let expected = FILE.replace("${101.outputs.IMAGE_URL}", &shop.image("backend-build"));
    assert_eq!(shop.double.given(), [expected.into_bytes()]);
    assert_eq!(told.stdout, "https://backend-api.aramb.dev\n");
}

#[test]
fn a_status_in_other_clothes_is_one_all_the_same() {
    let shop = Shop::new(Generation::New);
    for answer in [
        "{\"status\":\"COMPLETED\",\"outputs\":null}\n",
        "{\"status\":\"healthy\"}",
        "Checking...\n\n{\r\n  \"status\": \"completed\", \"outputs\": {\"PORT\": 80}\r\n}\r\nDone.\n",
        "Service: backend-api\nStatus: Healthy\n",
    ] {
        shop.double.heal();
        let status = Mishap::at("deploy status").with("backend-api").always();
        shop.double.inject(&status.answers(answer));
        let (told, document) = shop.deploy_as_json(&[]);
        told.expect_success();
        assert_eq!(document["status"], "success", "{answer}: {told}");
        let url = &document["deployments"]["backend_outputs"]["PUBLIC_URL"];
        assert_eq!(*url, serde_json::Value::Null, "{answer}: {told}");
    }
}

#[test]
fn much_output_is_neither_a_failure_nor_kept_up() {
    let shop = Shop::new(Generation::New);
    // More than is kept of an answer, and what counts comes behind it.
    shop.double.inject(&Mishap::at("build").floods(10 << 20));
    shop.double.inject(&Mishap::at("deploy").floods(1 << 20));
    let told = shop.deploy(&[]);
    told.expect_success();
    assert_eq!(told.stdout, "https://backend-api.aramb.dev\n");
}

#[test]
fn children_that_are_left_hold_nothing_up() {
    let shop = Shop::new(Generation::Old);
    shop.double
        .inject(&Mishap::at("*").always().leaves_a_child());
    let told = shop.deploy(&[]);
    told.expect_success();
    assert!(told.took < Duration::from_secs(30), "{told}");
    for call in shop.double.calls() {
        for child in call.children {
            assert!(
                eventually(LIMIT, || !runs(child)),
                "{} has left one",
                call.command
            );
        }
    }
}

#[test]
fn a_status_that_cannot_be_read_is_a_warning() {
    let shop = Shop::new(Generation::New);
    let status = || Mishap::at("deploy status").with("backend-api").always();
    for mishap in [
        status().answers("no deployment is known\n"),
        status().answers("{\"service\":\"backend-api\"}\n"),
        status().answers("{\"status\":null}\n"),
        status().answers("null\n"),
        status().answers(""),
        status().cuts_its_answer(),
        status().exits(1),
        status().dies_by(Signal::SIGKILL),
    ] {
        shop.double.heal();
        shop.double.inject(&mishap);
        let (told, document) = shop.deploy_as_json(&[]);
        told.expect_success();
        told.expect_stderr("WARNING: Could not get deployment status for backend-api");
        assert_eq!(document["status"], "deployed", "{mishap:?}: {told}");
        assert_eq!(shop.file(), FILE);
    }
}

#[test]
fn what_it_writes_to_the_file_stays_without_the_images() {
    let shop = Shop::new(Generation::Old);
    let note = "# noted by the control plane\n";
    shop.double
        .inject(&Mishap::at("deploy").writes_to_the_file(note));
    shop.deploy(&[])
        .expect_success()
        .expect_stderr("aramb.toml");
    assert_eq!(shop.file(), format!("{FILE}{note}"));

    let shop = Shop::new(Generation::Old);
    let broken = Mishap::at("deploy").behind_the_effect();
    shop.double
        .inject(&broken.writes_to_the_file("[[[broken\n"));
    let told = shop.deploy(&[]);
    assert_failed(
        &told,
        "aramb.toml could not be put back",
        "7 - Update aramb.toml",
    );
    assert!(
        shop.file().ends_with("[[[broken\n"),
        "nobody's words are thrown away"
    );

    // Whatever else has failed, the file is not forgotten.
    let shop = Shop::new(Generation::Old);
    let broken = Mishap::at("deploy").writes_to_the_file("[[[broken\n");
    shop.double.inject(&broken.exits(1));
    let failed = (
        "aramb deploy --deploy-from-toml failed",
        "8 - Run TOML Deploy",
    );
    let details = assert_failed(&shop.deploy(&[]), failed.0, failed.1);
    assert!(
        details.contains("also: aramb.toml could not be put back"),
        "{details}"
    );
}

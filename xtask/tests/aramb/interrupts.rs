//! Ctrl-C, SIGTERM and SIGKILL at every call of the command: the file is the old one or the new one, and the next run puts back
//! what a killed one has left.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use testkit::Finished;
use testkit::aramb::{Call, Generation, Mishap};
use testkit::process::eventually;

use crate::shop::{FILE, LIMIT, Shop};

/// Every call of a deployment: the command, and an argument that tells it from others.
const CALLS: [(&str, &str); 8] = [
    ("--version", "--version"),
    ("build --help", "--help"),
    ("deploy --help", "--help"),
    ("applications get", "-o"),
    ("build", "--tag"),
    ("deploy", "--yes"),
    ("deploy status", "postgres-db"),
    ("deploy status", "backend-api"),
];

fn runs(process: u32) -> bool {
    // A process that nobody has reaped yet has no command line any more.
    fs::read(format!("/proc/{process}/cmdline")).is_ok_and(|line| !line.is_empty())
}

/// Starts a deployment, lets it hang in a call, and sends a signal to it: how it ended, and the call.
fn end_at(shop: &Shop, (command, argument): (&str, &str), signal: Signal) -> (Finished, Call) {
    shop.double.heal();
    shop.double.forget();
    let hanging = Mishap::at(command).with(argument).hangs();
    shop.double.inject(&hanging);
    let running = shop.start(&[], &[]);
    let mut call = None;
    let has_begun = || {
        let mut calls = shop.double.calls_of(command).into_iter();
        call = calls.find(|call| call.has(argument));
        call.is_some()
    };
    assert!(
        eventually(LIMIT, has_begun),
        "{command}: {}",
        running.stderr_so_far()
    );
    if signal == Signal::SIGINT {
        // As a terminal does: to all of its group.
        running.signal_group(signal);
    } else {
        running.signal(signal);
    }
    (shop.keep(running.wait(LIMIT)), call.unwrap())
}

fn ends_well_by(signal: Signal) {
    let shop = Shop::new(Generation::Old);
    for at in CALLS {
        let (finished, call) = end_at(&shop, at, signal);
        finished.expect_code(130);
        finished.expect_stderr("ERROR: Interrupted");
        assert_eq!(shop.file(), FILE, "{at:?}: {finished}");
        assert!(
            eventually(LIMIT, || !runs(call.pid)),
            "{at:?}: aramb is left"
        );
        assert!(
            finished.took < Duration::from_secs(30),
            "{at:?}: {finished}"
        );
    }
    shop.double.heal();
    shop.deploy(&[]).expect_success();
}

#[test]
fn ctrl_c_at_every_call_leaves_the_file_as_it_was() {
    ends_well_by(Signal::SIGINT);
}

#[test]
fn sigterm_at_every_call_leaves_the_file_as_it_was() {
    ends_well_by(Signal::SIGTERM);
}

/// A terminal that is closed, a connection that is lost.
#[test]
fn the_end_of_a_terminal_leaves_the_file_as_it_was() {
    let shop = Shop::new(Generation::New);
    for at in [("build", "--tag"), ("deploy status", "backend-api")] {
        let (finished, call) = end_at(&shop, at, Signal::SIGHUP);
        finished.expect_code(130);
        assert_eq!(shop.file(), FILE, "{at:?}: {finished}");
        assert!(
            eventually(LIMIT, || !runs(call.pid)),
            "{at:?}: aramb is left"
        );
    }
}

#[test]
fn a_kill_at_every_call_is_made_good_by_the_next_run() {
    let shop = Shop::new(Generation::Old);
    let new = FILE.replace("${101.outputs.IMAGE_URL}", &shop.image("backend-build"));
    for at in CALLS {
        let (finished, _) = end_at(&shop, at, Signal::SIGKILL);
        finished.expect_code(137);
        let left = shop.file();
        let is_replaced = at.0.starts_with("deploy") && at.1 != "--help";
        assert_eq!(left, if is_replaced { &*new } else { FILE }, "{at:?}");
        assert_private(&shop.root().join(".git/systemprompt"));
        // Whatever of the command still hangs, the next deployment does not wait for it.
        shop.double.heal();
        shop.double.forget();
        let next = shop.deploy(&[]);
        next.expect_success();
        if is_replaced {
            next.expect_stderr("an earlier deployment was killed");
        }
        assert_eq!(shop.file(), FILE, "{at:?}: {next}");
        assert_eq!(shop.double.given(), [new.as_bytes()], "{at:?}: {next}");
    }
}

/// What is kept may hold the secrets of the file: nobody else reads it.
fn assert_private(path: &Path) {
    let mode = fs::symlink_metadata(path).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            assert_private(&entry.unwrap().path());
        }
    }
}

#[test]
fn what_somebody_has_changed_in_a_killed_deployment_stays() {
    let shop = Shop::new(Generation::New);
    end_at(&shop, ("deploy", "--yes"), Signal::SIGKILL);
    let changed = shop.file().replace("npm start", "npm run serve");
    shop.write("aramb.toml", &changed);
    shop.double.heal();
    shop.deploy(&[]).expect_success();
    assert_eq!(shop.file(), FILE.replace("npm start", "npm run serve"));
}

#[test]
fn what_ignores_signals_is_killed_with_all_that_it_has_started() {
    let shop = Shop::new(Generation::Old).watched();
    let stubborn = Mishap::at("build").leaves_a_child().hangs_stubbornly();
    shop.double.inject(&stubborn);
    let running = shop.start(&[], &[]);
    let hangs = || {
        let builds = shop.double.calls_of("build");
        builds
            .first()
            .is_some_and(|build| !build.children.is_empty())
    };
    assert!(eventually(LIMIT, hangs));
    running.signal(Signal::SIGTERM);
    let finished = shop.keep(running.wait(LIMIT));
    finished.expect_code(130);
    let build = shop.double.calls_of("build").remove(0);
    for process in [build.pid, build.children[0]] {
        assert!(eventually(LIMIT, || !runs(process)), "{process} is left");
    }
}

#[test]
fn two_deployments_of_a_file_at_a_time_are_refused() {
    let shop = Shop::new(Generation::Old);
    let gate = shop.double.gate("build");
    shop.double.inject(&Mishap::at("build").waits_at(&gate));
    let first = shop.start(&[], &[]);
    assert!(eventually(LIMIT, || shop.double.calls_of("build").len() == 1));
    let second = shop.deploy(&[]);
    crate::shop::assert_failed(
        &second,
        "Another deployment of this file is running",
        "1 - Read aramb.toml",
    );
    shop.double.open(&gate);
    shop.keep(first.wait(LIMIT)).expect_success();
    assert_eq!(shop.double.calls_of("deploy").len(), 1);
    assert_eq!(shop.file(), FILE);
}

/// A terminal sends Ctrl-C to git as well, which then knows of no commit.
#[test]
fn what_ctrl_c_has_ended_is_no_answer() {
    let shop = Shop::new(Generation::Old);
    let bin = shop.home().join("bin");
    fs::create_dir(&bin).unwrap();
    let git = testkit::process::need_program("git");
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *--short*) kill -INT $PPID; exit 1;; *) exec {} \"$@\";; esac\n",
        git.display()
    );
    fs::write(bin.join("git"), script).unwrap();
    fs::set_permissions(bin.join("git"), fs::Permissions::from_mode(0o755)).unwrap();
    let others = std::env::var_os("PATH").unwrap();
    let mut folders = vec![bin, shop.double.bin()];
    folders.extend(std::env::split_paths(&others));
    let folders: Vec<_> = folders.iter().map(std::path::PathBuf::as_path).collect();
    shop.finds_programs_in(&folders);
    let told = shop.deploy(&[]);
    told.expect_code(130).expect_stderr("ERROR: Interrupted");
    assert_eq!(shop.file(), FILE);
}

/// Whoever only looks holds nobody up, is held up by nobody, and puts nothing back: a deployment does that.
#[test]
fn a_dry_run_beside_a_deployment_sees_the_file_without_its_images() {
    let shop = Shop::new(Generation::Old);
    let deploying = Mishap::at("deploy").with("--yes").hangs();
    shop.double.inject(&deploying);
    let running = shop.start(&[], &[]);
    let has_begun = || {
        shop.double
            .calls_of("deploy")
            .iter()
            .any(|call| call.has("--yes"))
    };
    assert!(eventually(LIMIT, has_begun), "{}", running.stderr_so_far());
    let written = shop.file();
    assert_ne!(written, FILE);
    let looks = || {
        let told = shop.deploy(&["--dry-run"]);
        told.expect_success();
        told.expect_stderr("would build backend-build in ./backend");
        assert_eq!(shop.file(), written, "{told}");
    };
    looks();
    running.signal_group(Signal::SIGKILL);
    shop.keep(running.wait(LIMIT));
    looks();
    shop.double.heal();
    shop.deploy(&[]).expect_success();
    assert_eq!(shop.file(), FILE);
}

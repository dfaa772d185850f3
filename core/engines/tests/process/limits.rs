//! What an instance may use of the machine, held by the real kernel where it can be.
//!
//! `elsewhere` runs these tests where it cannot: there the engine has to say so.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use engines::process::IsolationMode;
use engines::{EngineError, Exit, Instance, Resources};
use oci::Digest;

use crate::images::{self, PROGRAM, command};
use crate::setup::{Bench, MODES, PATIENCE, until};

const MIB: u64 = 1 << 20;

/// The control groups of a bench's engine, wherever they are.
fn groups(bench: &Bench) -> BTreeSet<PathBuf> {
    let root = bench.root().canonicalize().unwrap();
    let hash = Digest::of(root.as_os_str().as_encoded_bytes()).hex();
    let mut found = BTreeSet::new();
    look(
        Path::new("/sys/fs/cgroup"),
        &format!("systemprompt-{}", &hash[..8]),
        &mut found,
    );
    found
}

fn look(folder: &Path, name: &str, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name() == name {
            found.insert(entry.path());
        } else {
            look(&entry.path(), name, found);
        }
    }
}

/// Starts a command with bounds. `None` on a machine that cannot enforce them, when the engine has refused with
/// the reasons. Where it is known what such a machine lacks, `ENGINES_LACKS` says so; where it lacks nothing, that is empty.
async fn start(bench: &Bench, words: &[&str], resources: Resources) -> Option<Instance> {
    let image = bench.app(command(words));
    let mut spec = bench.spec("one", image);
    spec.resources = resources.clone();
    let started = bench.engine.start(spec).await;
    match bench.engine.lacks(&resources) {
        None => Some(started.unwrap()),
        Some(lacking) => {
            let Err(EngineError::Resources { lacking: told }) = started else {
                panic!("limits are not enforced and nobody says so: {lacking}")
            };
            assert_eq!(told, lacking);
            if let Ok(known) = std::env::var("ENGINES_LACKS") {
                let expected = !known.is_empty() && lacking.contains(&known);
                assert!(expected || resources.read_only, "{lacking}");
            }
            None
        }
    }
}

async fn ended(instance: &Instance) -> Exit {
    tokio::time::timeout(PATIENCE, instance.wait())
        .await
        .expect("it ends")
}

#[tokio::test(flavor = "multi_thread")]
async fn more_memory_than_allowed_is_the_told_reason_of_the_end() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let resources = Resources {
            memory: Some(32 * MIB),
            ..Resources::default()
        };
        let Some(instance) = start(&bench, &[PROGRAM, "eat", "64"], resources).await else {
            return bench.check_nothing_left();
        };
        let exit = ended(&instance).await;
        assert_eq!(exit, Exit::OutOfMemory { limit: 32 * MIB });
        assert_eq!(exit.to_string(), "it ran out of memory: limit 32M");
        let note = "[engine] it ran out of memory: limit 32M";
        assert_eq!(instance.log_tail(1), [note]);
        instance.stop(Duration::ZERO).await;
        assert!(groups(&bench).is_empty(), "{:?}", groups(&bench));
        bench.check_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_bears_the_end_of_its_child_ends_as_it_likes() {
    let bench = Bench::new(IsolationMode::Auto);
    let resources = Resources {
        memory: Some(32 * MIB),
        ..Resources::default()
    };
    let script = "/app/fixture eat 64; echo it ended with $?; exit 3";
    let Some(instance) = start(&bench, &["/bin/sh", "-c", script], resources).await else {
        return bench.check_nothing_left();
    };
    assert_eq!(ended(&instance).await, Exit::Code(3));
    let log = instance.log_tail(3);
    assert!(
        log.iter().any(|line| line == "it ended with 137"),
        "{log:#?}"
    );
    assert_eq!(log[2], "[engine] it ran out of memory: limit 32M");
    instance.stop(Duration::ZERO).await;
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stopped_by_force_did_not_end_by_its_memory() {
    let bench = Bench::new(IsolationMode::Auto);
    let resources = Resources {
        memory: Some(32 * MIB),
        ..Resources::default()
    };
    let script = "trap '' TERM; /app/fixture eat 64; echo it ended with $?; \
                  while :; do sleep 0.05; done";
    let Some(instance) = start(&bench, &["/bin/sh", "-c", script], resources).await else {
        return bench.check_nothing_left();
    };
    until("it has borne it", || {
        let log = instance.log_tail(3);
        log.iter().any(|line| line == "it ended with 137")
    })
    .await;
    assert_eq!(instance.stop(Duration::ZERO).await, Exit::Signal(9));
    let note = "[engine] it ran out of memory: limit 32M";
    assert_eq!(instance.log_tail(1), [note]);
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn less_memory_than_allowed_is_had() {
    let bench = Bench::new(IsolationMode::Auto);
    let resources = Resources {
        memory: Some(128 * MIB),
        ..Resources::default()
    };
    let Some(instance) = start(&bench, &[PROGRAM, "eat", "64"], resources).await else {
        return bench.check_nothing_left();
    };
    assert_eq!(ended(&instance).await, Exit::Code(0));
    assert_eq!(instance.log_tail(5), ["had 64"]);
    instance.stop(Duration::ZERO).await;
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_processes_than_allowed_can_be_started() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let resources = Resources {
            pids: Some(5),
            ..Resources::default()
        };
        let Some(instance) = start(&bench, &[PROGRAM, "spawn", "20"], resources).await else {
            return bench.check_nothing_left();
        };
        assert_eq!(ended(&instance).await, Exit::Code(0));
        // itself is the fifth
        assert_eq!(instance.log_tail(1), ["spawned 4"]);
        instance.stop(Duration::ZERO).await;
        assert!(groups(&bench).is_empty());
        bench.check_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_of_a_processor_than_allowed_is_had() {
    let bench = Bench::new(IsolationMode::Auto);
    let resources = Resources {
        cpu_millis: Some(200),
        ..Resources::default()
    };
    let Some(instance) = start(&bench, &[PROGRAM, "burn", "2000"], resources).await else {
        return bench.check_nothing_left();
    };
    assert_eq!(ended(&instance).await, Exit::Code(0));
    let log = instance.log_tail(1);
    let used: u64 = log[0].strip_prefix("used ").unwrap().parse().unwrap();
    // a fifth of two seconds, and what may come on top at begin and end
    assert!(used <= 800, "{used} ms of 2000");
    instance.stop(Duration::ZERO).await;
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_that_an_earlier_server_has_left_are_swept_with_what_is_in_them() {
    let bench = Bench::new(IsolationMode::Auto);
    let resources = Resources {
        memory: Some(64 * MIB),
        pids: Some(9),
        ..Resources::default()
    };
    let Some(instance) = start(&bench, &["/bin/sleep", "600"], resources).await else {
        return bench.check_nothing_left();
    };
    let bases = groups(&bench);
    assert!(!bases.is_empty());
    let mut left = Command::new("sleep").arg("600").spawn().unwrap();
    for base in &bases {
        let group = base.join("left");
        fs::create_dir(&group).unwrap();
        fs::write(group.join("cgroup.procs"), left.id().to_string()).unwrap();
    }
    // one that is gone leaves a zombie, which only we can reap
    let reaped = std::thread::spawn(move || left.wait().unwrap());
    bench.engine.sweep().await.unwrap();
    let status = reaped.join().unwrap();
    assert_eq!(status.to_string(), "signal: 9 (SIGKILL)");
    for base in &bases {
        assert!(!base.join("left").exists());
        assert!(base.join("one").exists(), "a living one stays");
    }
    assert_eq!(instance.exited(), None);
    instance.stop(Duration::ZERO).await;
    assert!(groups(&bench).is_empty());
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_groups_of_a_killed_guard_are_removed() {
    let bench = Bench::new(IsolationMode::Auto);
    let resources = Resources {
        pids: Some(9),
        ..Resources::default()
    };
    let Some(instance) = start(&bench, &["/bin/sleep", "600"], resources).await else {
        return bench.check_nothing_left();
    };
    let record = fs::read(bench.root().join("instances/one/instance.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let guard = record["guard"]["pid"].as_i64().unwrap();
    let guard = nix::unistd::Pid::from_raw(i32::try_from(guard).unwrap());
    nix::sys::signal::kill(guard, nix::sys::signal::Signal::SIGKILL).unwrap();
    instance.stop(Duration::ZERO).await;
    until("they are gone", || groups(&bench).is_empty()).await;
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_root_takes_nothing_but_in_tmp() {
    let bench = Bench::new(IsolationMode::Auto);
    let resources = Resources {
        read_only: true,
        ..Resources::default()
    };
    let script = "echo x > /new && echo wrote it; echo x > /app/config.toml && echo changed it; \
                  echo kept > /tmp/new && cat /tmp/new";
    let Some(instance) = start(&bench, &["/bin/sh", "-c", script], resources).await else {
        return bench.check_nothing_left();
    };
    assert_eq!(ended(&instance).await, Exit::Code(0));
    let log = instance.log_tail(10);
    assert!(log.iter().any(|line| line == "kept"), "{log:#?}");
    let refused = log
        .iter()
        .filter(|line| line.contains("Read-only file system"));
    assert_eq!((refused.count(), log.len()), (2, 3), "{log:#?}");
    instance.stop(Duration::ZERO).await;
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_enforced_is_refused_unless_best_effort_is_said() {
    let bench = Bench::new(IsolationMode::Off);
    let mut resources = Resources {
        read_only: true,
        ..Resources::default()
    };
    let words = ["/bin/sh", "-c", "echo ran"];
    assert!(start(&bench, &words, resources.clone()).await.is_none());
    resources.best_effort = true;
    let mut spec = bench.spec("one", bench.app(command(&words)));
    spec.resources = resources;
    let instance = bench.engine.start(spec).await.unwrap();
    assert_eq!(ended(&instance).await, Exit::Code(0));
    instance.stop(Duration::ZERO).await;
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_uid_program_gives_no_power() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let run = oci::RunConfig {
            user: Some("app".to_owned()),
            ..command(&["/app/elevated", "look"])
        };
        let image =
            images::with_set_uid_program(&bench.store, &crate::setup::images_fixture(), run);
        let instance = bench.engine.start(bench.spec("one", image)).await.unwrap();
        assert_eq!(ended(&instance).await, Exit::Code(0));
        let log = instance.log_tail(1000);
        let ids = log
            .iter()
            .find_map(|line| line.strip_prefix("status Uid: "));
        let ids: BTreeSet<&str> = ids.unwrap().split(' ').collect();
        assert_eq!(ids.len(), 1, "all four are the same: {log:#?}");
        let capabilities = log.iter().find(|line| line.starts_with("status CapEff: "));
        if crate::setup::is_root() && ids.contains("1001") {
            assert_eq!(capabilities.unwrap(), "status CapEff: 0000000000000000");
        }
        instance.stop(Duration::ZERO).await;
        bench.check_nothing_left();
    }
}

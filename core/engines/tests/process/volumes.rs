//! Volumes: whose they are, what they begin with, who may have them, and that they stay.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use engines::process::{IsolationMode, Level, ProcessEngine, RootDirectory};
use engines::{Engine, EngineError, Exit, InstanceSpec, Mounted, Resources, VolumeId};
use oci::{Digest, RunConfig};

use crate::images::command;
use crate::setup::{Bench, MODES};

const WRITE: &str = "echo more >> $DATA/file; cat $DATA/file; while read -r line; do case $line in *\" $DATA \"*) echo \"$line\";; esac; done < /proc/self/mountinfo";

fn volume(name: &str) -> VolumeId {
    VolumeId {
        owner: "test".to_owned(),
        name: name.to_owned(),
    }
}

/// An instance with a volume at `path`.
fn spec(bench: &Bench, id: &str, image: Digest, path: &str) -> InstanceSpec {
    let mut spec = bench.spec(id, image);
    spec.env.insert("DATA".to_owned(), path.to_owned());
    spec.volumes = vec![Mounted {
        volume: volume("data"),
        path: PathBuf::from(path),
    }];
    spec
}

fn as_app(script: &str) -> RunConfig {
    RunConfig {
        user: Some("app".to_owned()),
        ..command(&["/bin/sh", "-c", script])
    }
}

async fn run(bench: &Bench, spec: InstanceSpec) -> (Exit, Vec<String>) {
    let instance = bench.engine.start(spec).await.unwrap();
    let exit = tokio::time::timeout(crate::setup::PATIENCE, instance.wait()).await;
    let mut log = instance.log_tail(100);
    // where the machine has no such user it is said so
    log.retain(|line| !line.starts_with("[engine]"));
    instance.stop(Duration::ZERO).await;
    (exit.expect("it ends"), log)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_one_is_the_images_users_and_outlives_instances() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let isolation = bench.engine.isolation().clone();
        let image = bench.app(as_app(WRITE));
        if !isolation.has_namespaces() {
            let refused = bench
                .engine
                .start(spec(&bench, "a", image, "/srv/data"))
                .await;
            let told = refused.unwrap_err();
            assert!(matches!(told, EngineError::NoVolumes { .. }), "{told}");
            assert!(bench.engine.lacks_volumes().is_some());
            bench.check_nothing_left();
            continue;
        }
        if isolation.root == RootDirectory::ReadOnly {
            // nothing can be made in the image
            let refused = bench
                .engine
                .start(spec(&bench, "a", image, "/srv/data"))
                .await;
            let told = refused.unwrap_err().to_string();
            assert!(told.contains("the image has no such directory"), "{told}");
            bench.check_nothing_left();
            continue;
        }
        for (times, read_only) in [(1, false), (2, true), (3, false)] {
            let mut spec = spec(&bench, &format!("a{times}"), image, "/srv/data");
            spec.resources = Resources {
                read_only,
                ..Resources::default()
            };
            let (exit, log) = run(&bench, spec).await;
            assert_eq!(exit, Exit::Code(0), "{log:#?}");
            assert_eq!(log[..times], vec!["more"; times], "{log:#?}");
            let flags = log.last().unwrap();
            assert!(
                flags.contains("nosuid") && flags.contains("nodev"),
                "{flags}"
            );
        }
        let folder = bench.root().with_extension("volumes").join("test/data");
        if isolation.level == Level::Namespaces && crate::setup::is_root() && owners_exist() {
            let found = fs::metadata(&folder).unwrap();
            assert_eq!((found.uid(), found.gid()), (1001, 1002));
        }
        // nobody else of the machine comes by
        let outside = fs::metadata(bench.root().with_extension("volumes")).unwrap();
        assert_eq!(outside.mode() & 0o777, 0o700);
        bench.check_nothing_left();
    }
}

/// In a user namespace of one user there are no others.
fn owners_exist() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap();
    map.split_whitespace()
        .nth(2)
        .is_some_and(|count| count.len() > 4)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_two_instances_have_one() {
    let bench = Bench::new(IsolationMode::Auto);
    if !bench.engine.isolation().has_namespaces() {
        return;
    }
    // a directory that the image has, so that it can be had on any machine
    let path = "/app";
    let image = bench.app(command(&["/bin/sleep", "600"]));
    let first = bench
        .engine
        .start(spec(&bench, "first", image, path))
        .await
        .unwrap();
    let refused = bench
        .engine
        .start(spec(&bench, "second", image, path))
        .await;
    let told = refused.unwrap_err().to_string();
    assert_eq!(
        told,
        "volume `data` is in use by `first`: no two have it at once"
    );
    let listed = bench.engine.volumes("test".to_owned()).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].in_use_by.as_deref(), Some("first"));
    let refused = bench.engine.remove_volume(volume("data")).await;
    assert!(
        matches!(refused, Err(EngineError::VolumeInUse { .. })),
        "{refused:?}"
    );
    first.stop(Duration::ZERO).await;
    let second = bench
        .engine
        .start(spec(&bench, "second", image, path))
        .await
        .unwrap();
    second.stop(Duration::ZERO).await;
    // one that could not be started holds nothing
    let bad = bench.app(command(&["/absent"]));
    assert!(
        bench
            .engine
            .start(spec(&bench, "bad", bad, path))
            .await
            .is_err()
    );
    let clearing = bench.engine.remove_volume(volume("data")).await.unwrap();
    clearing.expect("it is there").done().await.unwrap();
    let again = bench.engine.remove_volume(volume("data")).await.unwrap();
    assert!(again.is_none(), "{again:?}");
    let listed = bench.engine.volumes("test".to_owned()).await.unwrap();
    assert!(listed.is_empty(), "{listed:?}");
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_server_knows_who_has_one() {
    let bench = Bench::new(IsolationMode::Auto);
    if !bench.engine.isolation().has_namespaces() {
        return;
    }
    let root = bench.folder.path().join("next");
    let with_orphans = || {
        let settings = bench.settings(IsolationMode::Auto, &root);
        ProcessEngine::new(engines::process::Settings {
            orphan: Duration::from_mins(5),
            ..settings
        })
        .unwrap()
    };
    let image = bench.app(command(&["/bin/sleep", "600"]));
    // the end of its runtime is the end of a server that is killed
    let (engine_root, first) = (root.clone(), spec(&bench, "first", image, "/app"));
    let engine = with_orphans();
    let server = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(engine.start(first)).unwrap();
        assert!(engine_root.join("instances/first").exists());
    });
    server.join().unwrap();
    let engine = with_orphans();
    let adopted = engine.adopt().await.unwrap();
    assert_eq!(adopted.len(), 1);
    let refused = engine.start(spec(&bench, "second", image, "/app")).await;
    assert!(
        matches!(refused, Err(EngineError::VolumeInUse { .. })),
        "{refused:?}"
    );
    adopted[0].stop(Duration::ZERO).await;
    let second = engine
        .start(spec(&bench, "second", image, "/app"))
        .await
        .unwrap();
    second.stop(Duration::ZERO).await;
    drop(engine);
    bench.check_nothing_left();
}

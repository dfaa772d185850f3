//! What an instance sees of the machine and of other instances.

use std::fs;
use std::time::Duration;

use engines::Exit;
use engines::process::{IsolationMode, Level, RootDirectory};
use oci::RunConfig;

use crate::images::{PROGRAM, command};
use crate::setup::{Bench, is_root};

fn value<'a>(log: &'a [String], start: &str) -> &'a str {
    let found = log.iter().find_map(|line| line.strip_prefix(start));
    found.unwrap_or_else(|| panic!("no `{start}` in {log:#?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_sees_its_image_and_its_own_processes_only() {
    let bench = Bench::new(IsolationMode::Auto);
    if !bench.engine.isolation().has_namespaces() {
        // `it_is_told_what_is_missing` holds that this is so only where it is expected
        return;
    }
    let (exit, log) = bench.run(command(&[PROGRAM, "look"])).await;
    assert_eq!(exit, Exit::Code(0), "{log:#?}");
    assert_eq!(value(&log, "pid "), "2");
    let processes: Vec<_> = value(&log, "proc ")
        .split(' ')
        .filter(|name| name.parse::<u32>().is_ok())
        .collect();
    assert_eq!(processes, ["1", "2"]);
    assert_eq!(
        value(&log, "dev "),
        "fd full null random shm stderr stdin stdout tty urandom zero"
    );
    for name in value(&log, "root ").split(' ') {
        let expected = [
            "app", "bin", "dev", "etc", "lib", "lib64", "new", "proc", "sys", "tmp", "usr",
        ];
        assert!(expected.contains(&name), "{name}");
    }
    assert_eq!(value(&log, "write /dev/null "), "ok");
    assert_eq!(value(&log, "write /tmp/new "), "ok");
    assert!(value(&log, "write /proc/sys/kernel/core_pattern ") != "ok");
    assert!(value(&log, "write /proc/1/exe ") != "ok");
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_the_instances_own_and_go_with_it() {
    for mode in crate::setup::MODES {
        let bench = Bench::new(mode);
        if bench.engine.isolation().root == RootDirectory::ReadOnly {
            continue;
        }
        let script = "cat config.toml; echo changed > config.toml; echo x > new; cat config.toml";
        let run = RunConfig {
            working_dir: Some("/app".to_owned()),
            ..command(&["/bin/sh", "-c", script])
        };
        for _ in 0..2 {
            let (_, log) = bench.run(run.clone()).await;
            assert_eq!(log, ["configured = true", "changed"]);
        }
        let image = bench.app(run);
        bench.engine.prepare(&image).await.unwrap();
        let unpacked = bench
            .root()
            .join(format!("images/sha256-{}/rootfs/app", image.hex()));
        assert_eq!(
            fs::read_to_string(unpacked.join("config.toml")).unwrap(),
            "configured = true\n"
        );
        assert!(!unpacked.join("new").exists());
        bench.check_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_can_be_written_to_by_the_images_user() {
    for mode in crate::setup::MODES {
        let bench = Bench::new(mode);
        let mut run = command(&["/bin/sh", "-c", "echo kept > $DATA/file && cat $DATA/file"]);
        run.user = Some("app".to_owned());
        run.env.push("DATA=/var/lib/data".to_owned());
        run.volumes.insert("/var/lib/data".to_owned());
        let (exit, log) = bench.run(run).await;
        assert_eq!(exit, Exit::Code(0), "{log:#?}");
        assert!(log.iter().any(|line| line == "kept"), "{log:#?}");
        bench.check_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_cannot_have_anything_mounted_outside_of_it() {
    let bench = Bench::new(IsolationMode::Auto);
    let mut layer = crate::images::Layer::new();
    let out = bench.folder.path().join("outside");
    fs::create_dir(&out).unwrap();
    let link = out.to_str().unwrap().to_owned();
    layer.link(tar::EntryType::Symlink, "proc", &link);
    layer.link(
        tar::EntryType::Symlink,
        "dev",
        "../../../../../../../../tmp",
    );
    let image = crate::images::push(
        &bench.store,
        &[(crate::images::Packing::Tar, layer.tar())],
        command(&["/x"]),
    );
    let error = bench.engine.prepare(&image).await.unwrap_err();
    assert!(error.to_string().contains("complete image"), "{error}");
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_told_what_is_missing() {
    let bench = Bench::new(IsolationMode::Off);
    let isolation = bench.engine.isolation();
    assert_eq!(
        (isolation.level, isolation.root),
        (Level::Group, RootDirectory::Copy)
    );
    assert!(
        isolation.notes[0].contains("isolation is switched off"),
        "{isolation:?}"
    );
    bench.check_nothing_left();
    let bench = Bench::new(IsolationMode::Auto);
    let isolation = bench.engine.isolation();
    let notes = isolation.notes.join("\n");
    let found = format!("{:?}/{:?}", isolation.level, isolation.root);
    let usual = if is_root() {
        "Namespaces/Overlay"
    } else {
        "UserNamespaces/Overlay"
    };
    let expected = std::env::var("ENGINES_EXPECTED").unwrap_or(usual.to_owned());
    assert_eq!(found, expected, "{notes}");
    let wanted = match (isolation.level, isolation.root) {
        (Level::Namespaces, RootDirectory::Overlay) => "",
        (Level::Namespaces, _) => "overlay file system: not allowed here (overlay the image: E",
        (Level::UserNamespaces, _) => "whatever USER their image names",
        (Level::Group, _) if is_root() => "namespaces: not allowed here (pid namespace: E",
        (Level::Group, _) => "namespaces: not allowed here (user namespace: E",
    };
    assert!(
        notes.contains(wanted) && notes.is_empty() == wanted.is_empty(),
        "{notes}"
    );
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_do_not_see_each_other() {
    let bench = Bench::new(IsolationMode::Auto);
    if !bench.engine.isolation().has_namespaces() {
        // `it_is_told_what_is_missing` holds that this is so only where it is expected
        return;
    }
    let image = bench.app(command(&[
        "/bin/sh",
        "-c",
        "echo mine > /tmp/mine; exec sleep 600",
    ]));
    let first = bench
        .engine
        .start(bench.spec("first", image))
        .await
        .unwrap();
    let mut spec = bench.spec("second", image);
    spec.command = Some(
        ["/bin/sh", "-c", "cat /tmp/mine /proc/3/comm"]
            .map(String::from)
            .to_vec(),
    );
    let second = bench.engine.start(spec).await.unwrap();
    assert_eq!(second.wait().await, Exit::Code(1));
    second.stop(Duration::ZERO).await;
    assert_eq!(first.exited(), None);
    first.stop(Duration::ZERO).await;
    bench.check_nothing_left();
}

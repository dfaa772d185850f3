//! Layers that several images stand on are unpacked once.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use engines::process::{IsolationMode, PreparedImage};
use oci::Digest;
use tar::EntryType;

use crate::images::{Layer, Packing, command, push};
use crate::setup::{Bench, MODES, images_fixture};

const BASE_FILES: usize = 64;
const FILE_BYTES: usize = 32 << 10;

/// A base of 2 MiB with what layers may hold.
fn base() -> Vec<u8> {
    let mut layer = Layer::new();
    layer.directory("lib/", 0o755).directory("closed/", 0o555);
    for number in 0..BASE_FILES {
        let content = vec![u8::try_from(number).unwrap(); FILE_BYTES];
        layer.file(&format!("lib/{number}"), 0o644, &content);
    }
    layer.link(EntryType::Link, "lib/again", "lib/1");
    layer.link(EntryType::Symlink, "lib/link", "1");
    layer.file("closed/secret", 0o400, b"base");
    layer.file("gone", 0o644, b"base");
    layer.file("kept/old", 0o644, b"base");
    layer.tar()
}

/// What a release changes.
fn change(release: usize) -> Vec<u8> {
    let mut layer = Layer::new();
    layer.file("release", 0o644, release.to_string().as_bytes());
    layer.file("lib/2", 0o600, b"changed");
    layer.file(".wh.gone", 0o644, b"");
    layer.file("kept/.wh..wh..opq", 0o644, b"");
    layer.file("kept/new", 0o644, b"new");
    layer.tar()
}

fn release(bench: &Bench, number: usize) -> Digest {
    let layers = [(Packing::Gzip, base()), (Packing::Tar, change(number))];
    push(&bench.store, &layers, command(&["/release"]))
}

fn rootfs(bench: &Bench, image: &PreparedImage) -> PathBuf {
    let name = format!("images/sha256-{}/rootfs", image.digest.hex());
    bench.root().join(name)
}

/// All that can be seen of a tree but the numbers of its inodes.
fn seen(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let found = path.symlink_metadata().unwrap();
            let content = if found.is_dir() {
                folders.push(path.clone());
                String::new()
            } else if found.is_symlink() {
                fs::read_link(&path).unwrap().display().to_string()
            } else {
                Digest::of(&fs::read(&path).unwrap()).to_string()
            };
            let facts = (found.mode(), found.uid(), found.gid(), found.mtime());
            let name = path.strip_prefix(root).unwrap().to_owned();
            // what is made for every image has the time of now
            let skeleton = ["etc", "proc", "dev", "sys", "tmp"];
            if !skeleton.iter().any(|made| name.starts_with(made)) {
                all.insert(name, format!("{facts:?} {content}"));
            }
        }
    }
    all
}

/// Bytes on disk of what is below a directory, each inode once.
fn on_disk(root: &Path) -> u64 {
    let mut inodes = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let found = path.symlink_metadata().unwrap();
            if found.is_dir() {
                folders.push(path);
            } else {
                inodes.insert(found.ino(), found.blocks() * 512);
            }
        }
    }
    inodes.values().sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_releases_that_differ_in_one_layer_take_the_room_of_one() {
    let bench = Bench::new(IsolationMode::Auto);
    bench.engine.prepare(&release(&bench, 0)).await.unwrap();
    let one = on_disk(&bench.root());
    for number in 1..10 {
        bench
            .engine
            .prepare(&release(&bench, number))
            .await
            .unwrap();
    }
    let ten = on_disk(&bench.root());
    let base = (BASE_FILES * FILE_BYTES) as u64;
    assert!(one > base);
    assert!(ten < one + base / 4, "{one} bytes for one, {ten} for ten");
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_was_kept_unpacks_to_the_same() {
    for mode in MODES {
        let (first, second) = (Bench::new(mode), Bench::new(mode));
        // one engine unpacks the archives, the other one has them already
        let fresh = first.engine.prepare(&release(&first, 1)).await.unwrap();
        second.engine.prepare(&release(&second, 0)).await.unwrap();
        let again = second.engine.prepare(&release(&second, 1)).await.unwrap();
        let (fresh_tree, again_tree) = (rootfs(&first, &fresh), rootfs(&second, &again));
        let shared = fs::metadata(again_tree.join("lib/3")).unwrap().nlink();
        assert!(shared >= 3, "two images and the layer: {shared}");
        assert_eq!(seen(&fresh_tree), seen(&again_tree));
        assert_eq!(fresh.bytes, again.bytes);
        assert!(!again_tree.join("gone").exists() && !again_tree.join("kept/old").exists());
        for bench in [first, second] {
            bench.check_nothing_left();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_are_unpacked_at_once_do_not_take_a_layer_from_each_other() {
    let bench = Bench::new(IsolationMode::Auto);
    let images: Vec<Digest> = (0..6).map(|number| release(&bench, number)).collect();
    for _ in 0..5 {
        let mut all = tokio::task::JoinSet::new();
        for image in images.clone() {
            let engine = bench.engine.clone();
            all.spawn(async move { engine.prepare(&image).await.map(|_| ()) });
        }
        for done in all.join_all().await {
            done.unwrap();
        }
        assert_eq!(fs::read_dir(bench.root().join("tmp")).unwrap().count(), 0);
        bench.engine.retain(&[]).await.unwrap();
    }
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_goes_with_the_last_image_that_has_it() {
    let bench = Bench::new(IsolationMode::Auto);
    let (one, two) = (release(&bench, 1), release(&bench, 2));
    for image in [one, two] {
        bench.engine.prepare(&image).await.unwrap();
    }
    let layers = || fs::read_dir(bench.root().join("layers")).unwrap().count();
    assert_eq!(layers(), 3);
    let freed = bench.engine.retain(&[two]).await.unwrap();
    assert_eq!(layers(), 2, "the base stays");
    assert!(freed < FILE_BYTES as u64, "{freed}");
    let freed = bench.engine.retain(&[]).await.unwrap();
    assert_eq!(layers(), 0);
    assert!(freed > ((BASE_FILES - 1) * FILE_BYTES) as u64, "{freed}");
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_layer_that_is_broken_is_made_anew() {
    let bench = Bench::new(IsolationMode::Auto);
    bench.engine.prepare(&release(&bench, 0)).await.unwrap();
    let kept = bench.root().join("layers");
    let kept = kept.join(format!("sha256-{}", Digest::of(&base()).hex()));
    fs::remove_file(kept.join("files/5")).unwrap();
    let image = release(&bench, 1);
    let image = bench.engine.prepare(&image).await.unwrap();
    assert_eq!(seen(&rootfs(&bench, &image)).len(), BASE_FILES + 8);
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_instance_writes_no_other_release_sees() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let image = |number: &str| {
            let run = command(&[
                "/bin/sh",
                "-c",
                "cat config.toml; echo changed > config.toml; echo changed > fixture",
            ]);
            let run = oci::RunConfig {
                working_dir: Some("/app".to_owned()),
                env: vec![format!("RELEASE={number}"), "PATH=/bin".to_owned()],
                ..run
            };
            bench.app(run)
        };
        let images = [image("1"), image("2")];
        assert_ne!(images[0], images[1]);
        let program = fs::read(images_fixture()).unwrap();
        for image in images {
            let instance = bench.engine.start(bench.spec("one", image)).await.unwrap();
            instance.wait().await;
            assert_eq!(instance.log_tail(1), ["configured = true"]);
            let prepared = bench.engine.prepare(&image).await.unwrap();
            let kept = fs::read(rootfs(&bench, &prepared).join("app/fixture")).unwrap();
            assert!(kept == program, "{mode:?}: a program was written into");
            instance.stop(std::time::Duration::ZERO).await;
            fs::remove_file(bench.folder.path().join("one.log")).unwrap();
        }
        bench.check_nothing_left();
    }
}

//! From layers to a tree: what is kept, what is refused.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use engines::EngineError;
use engines::process::{IsolationMode, Limits, ProcessEngine};
use oci::{Digest, RunConfig};
use tar::EntryType;

use crate::images::{self, Layer, Packing, command};
use crate::setup::{Bench, is_root, settings};

fn tree(bench: &Bench, image: Digest) -> PathBuf {
    bench
        .root()
        .join(format!("images/sha256-{}/rootfs", image.hex()))
}

fn mode(path: PathBuf) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// Unpacks layers and gives the tree.
async fn unpack(bench: &Bench, layers: Vec<Layer>) -> Result<PathBuf, EngineError> {
    let packings = [Packing::Tar, Packing::Gzip, Packing::TarCalledGzip]
        .into_iter()
        .cycle();
    let layers: Vec<_> = packings
        .zip(layers)
        .map(|(packing, layer)| (packing, layer.tar()))
        .collect();
    let image = images::push(&bench.store, &layers, RunConfig::default());
    bench
        .engine
        .prepare(&image)
        .await
        .map(|_| tree(bench, image))
}

#[tokio::test(flavor = "multi_thread")]
async fn later_layers_change_and_hide_what_earlier_ones_have() {
    let bench = Bench::new(IsolationMode::Off);
    let mut base = Layer::new();
    base.directory("etc", 0o755).directory("opaque", 0o755);
    base.file("etc/changed", 0o644, b"old")
        .file("etc/hidden", 0o644, b"old");
    base.file("opaque/old", 0o644, b"old")
        .file("opaque/deep/old", 0o644, b"old");
    base.file("gone/below", 0o644, b"old")
        .directory("becomes-file", 0o755);
    base.file("becomes-file/x", 0o644, b"")
        .file("becomes-directory", 0o644, b"");
    base.directory("usr/lib", 0o755)
        .link(EntryType::Symlink, "lib", "usr/lib");
    let mut next = Layer::new();
    next.file("etc/changed", 0o600, b"new")
        .file("etc/.wh.hidden", 0o644, b"");
    // the marker hides what lower layers have, wherever in its own layer it stands
    next.file("opaque/new", 0o644, b"new")
        .file("opaque/.wh..wh..opq", 0o644, b"");
    next.file(".wh.gone", 0o644, b"")
        .file("becomes-file", 0o644, b"");
    next.directory("becomes-directory", 0o700);
    next.file("lib/through-a-link", 0o644, b"new");
    next.link(EntryType::Link, "hard", "etc/changed");
    let tree = unpack(&bench, vec![base, next]).await.unwrap();
    let read = |path: &str| fs::read_to_string(tree.join(path)).ok();
    assert_eq!(read("etc/changed").as_deref(), Some("new"));
    assert_eq!(read("hard").as_deref(), Some("new"));
    assert_eq!(read("usr/lib/through-a-link").as_deref(), Some("new"));
    assert_eq!(read("opaque/new").as_deref(), Some("new"));
    for path in [
        "etc/hidden",
        "opaque/old",
        "opaque/deep",
        "gone",
        "becomes-file/x",
    ] {
        assert!(!tree.join(path).exists(), "{path}");
    }
    assert!(tree.join("becomes-file").is_file() && tree.join("becomes-directory").is_dir());
    assert_eq!(mode(tree.join("etc/changed")), 0o600);
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn modes_owners_and_times_are_kept_but_no_set_uid() {
    let bench = Bench::new(IsolationMode::Off);
    let mut layer = Layer::new();
    layer.owner = (1001, 1002);
    layer
        .directory("closed", 0o555)
        .file("closed/set-uid", 0o6755, b"x");
    layer.directory("sticky", 0o1777).directory("group", 0o2775);
    layer
        .file("secret", 0o400, b"x")
        .link(EntryType::Symlink, "link", "/anywhere/../at all");
    let mut later = Layer::new();
    later.file("closed/late", 0o644, b"x");
    let tree = unpack(&bench, vec![layer, later]).await.unwrap();
    for (path, expected) in [
        ("closed", 0o555),
        ("closed/set-uid", 0o755),
        ("closed/late", 0o644),
        ("sticky", 0o1777),
        ("group", 0o2775),
        ("secret", 0o400),
    ] {
        assert_eq!(mode(tree.join(path)), expected, "{path}");
    }
    let secret = fs::symlink_metadata(tree.join("secret")).unwrap();
    assert_eq!(secret.mtime(), 1_000_000_000);
    let own = (
        nix::unistd::geteuid().as_raw(),
        nix::unistd::getegid().as_raw(),
    );
    assert_eq!(
        (secret.uid(), secret.gid()),
        if is_root() { (1001, 1002) } else { own }
    );
    assert_eq!(
        fs::read_link(tree.join("link")).unwrap(),
        PathBuf::from("/anywhere/../at all")
    );
    bench.check_nothing_left();
}

/// Kind, path and target of each entry of a layer.
type Entries<'a> = &'a [(EntryType, &'a str, Option<&'a str>)];

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_outside_of_the_image() {
    let file = EntryType::Regular;
    let link = EntryType::Symlink;

    let cases: [(Entries<'_>, &str); 11] = [
        (&[(file, "../escaped", None)], "not allowed"),
        (&[(file, "a/../../escaped", None)], "not allowed"),
        (&[(file, "/escaped", None)], "not allowed"),
        (&[(file, "a/.wh...", None)], "not allowed"),
        (&[(file, ".wh.", None)], "not allowed"),
        (&[(file, "./", None)], "not allowed"),
        (
            &[(link, "out", Some("../../..")), (file, "out/escaped", None)],
            "leads out of the image",
        ),
        (
            &[(link, "loop", Some("loop")), (file, "loop/x", None)],
            "too many symbolic links",
        ),
        (
            &[(EntryType::Link, "hard", Some("../../escaped"))],
            "not allowed",
        ),
        (
            &[
                (link, "up", Some("../..")),
                (EntryType::Link, "hard", Some("up/x")),
            ],
            "leads out",
        ),
        (
            &[(EntryType::Link, "hard", Some("absent"))],
            "not a file of the image",
        ),
    ];
    let bench = Bench::new(IsolationMode::Off);
    for (entries, expected) in cases {
        let mut layer = Layer::new();
        for (kind, path, target) in entries {
            layer.entry(*kind, path, 0o644, *target, b"");
        }
        let error = unpack(&bench, vec![layer]).await.unwrap_err();
        let text = chain(&error);
        assert!(text.contains(expected), "{entries:?}: {text}");
    }
    assert!(!bench.folder.path().join("escaped").exists());
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn absolute_links_lead_into_the_image() {
    let bench = Bench::new(IsolationMode::Off);
    let target = bench.folder.path().join("machine");
    fs::create_dir(&target).unwrap();
    let mut layer = Layer::new();
    layer
        .link(EntryType::Symlink, "var/run", "/run")
        .file("var/run/pid", 0o644, b"1");
    layer
        .link(EntryType::Symlink, "out", target.to_str().unwrap())
        .file("out/x", 0o644, b"1");
    // a file over a link replaces the link, it is not written through it
    layer
        .link(EntryType::Symlink, "over", "/run/pid")
        .file("over", 0o644, b"2");
    let tree = unpack(&bench, vec![layer]).await.unwrap();
    assert_eq!(fs::read_to_string(tree.join("run/pid")).unwrap(), "1");
    assert_eq!(fs::read_to_string(tree.join("over")).unwrap(), "2");
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_refused() {
    for (kind, expected) in [
        (EntryType::Char, "character device"),
        (EntryType::Block, "block device"),
    ] {
        let bench = Bench::new(IsolationMode::Off);
        let mut layer = Layer::new();
        layer.entry(kind, "dev/disk", 0o666, None, b"");
        let error = unpack(&bench, vec![layer]).await.unwrap_err();
        assert!(chain(&error).contains(expected), "{}", chain(&error));
        bench.check_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let store = std::sync::Arc::new(oci::Store::open(folder.path().join("store")).unwrap());
    let settings = settings(&store, IsolationMode::Off, &folder.path().join("engine"));
    let limits = Limits {
        entries: 12,
        file_bytes: 2000,
        total_bytes: 20_000,
    };
    let engine = ProcessEngine::with_limits(settings, limits).unwrap();
    let prepare = async |layer: Layer| {
        let layers = [(Packing::Gzip, layer.tar())];
        let image = images::push(&store, &layers, RunConfig::default());
        engine.prepare(&image).await.map(|_| ())
    };
    let mut many = Layer::new();
    for number in 0..13 {
        many.directory(&format!("d{number}"), 0o755);
    }
    let mut large = Layer::new();
    large.file("large", 0o644, &[0; 2001]);
    let mut sum = Layer::new();
    for number in 0..11 {
        sum.file(&format!("f{number}"), 0o644, &[0; 1999]);
    }
    let mut fits = Layer::new();
    fits.file("fits", 0o644, &[0; 2000]);
    for (layer, expected) in [
        (many, "12 entries"),
        (large, "2000 bytes"),
        (sum, "20000 bytes"),
    ] {
        let text = chain(&prepare(layer).await.unwrap_err());
        assert!(text.contains(expected), "{text}");
    }
    prepare(fits).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_as_promised_is_refused() {
    let bench = Bench::new(IsolationMode::Off);
    let mut layer = Layer::new();
    layer.file("a", 0o644, b"a");
    let tar = layer.tar();
    let promise = vec![Digest::of(b"something else")];
    let layers = [(Packing::Gzip, tar.clone())];
    let wrong = images::push_with_diff_ids(&bench.store, &layers, RunConfig::default(), promise);
    let error = bench.engine.prepare(&wrong).await.unwrap_err();
    assert!(matches!(error, EngineError::LayerDigest { .. }), "{error}");
    let cut = [(Packing::Tar, tar[..700].to_vec())];
    let cut = images::push(&bench.store, &cut, RunConfig::default());
    assert!(bench.engine.prepare(&cut).await.is_err());
    let few = images::push_with_diff_ids(&bench.store, &layers, RunConfig::default(), Vec::new());
    let error = bench.engine.prepare(&few).await.unwrap_err();
    assert!(
        error.to_string().contains("1 layers and 0 diff ids"),
        "{error}"
    );
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_image_or_layer_is_named() {
    let bench = Bench::new(IsolationMode::Off);
    let absent = Digest::of(b"absent");
    let error = bench.engine.prepare(&absent).await.unwrap_err();
    assert!(error.to_string().starts_with("image not found"), "{error}");
    let mut layer = Layer::new();
    layer.file("a", 0o644, b"a");
    let tar = layer.tar();
    let image = images::push(
        &bench.store,
        &[(Packing::Tar, tar.clone())],
        RunConfig::default(),
    );
    bench.store.remove(&Digest::of(&tar)).unwrap();
    let error = bench.engine.prepare(&image).await.unwrap_err();
    assert!(
        matches!(error, EngineError::ImageNotFound { missing, .. } if missing == Digest::of(&tar)),
        "{error}"
    );
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_callers_share_the_work() {
    let bench = Bench::new(IsolationMode::Off);
    let image = bench.app(command(&["/x"]));
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let engine = bench.engine.clone();
            tokio::spawn(async move { engine.prepare(&image).await })
        })
        .collect();
    let mut bytes = Vec::new();
    for call in calls {
        bytes.push(call.await.unwrap().unwrap().bytes);
    }
    bytes.dedup();
    assert_eq!(bytes.len(), 1, "{bytes:?}");
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_unpacked_once_and_kept_while_it_is_used() {
    let bench = Bench::new(IsolationMode::Auto);
    let image = bench.app(command(&["/bin/sleep", "600"]));
    let prepared = bench.engine.prepare(&image).await.unwrap();
    assert_eq!(
        prepared.config.cmd,
        Some(vec!["/bin/sleep".to_owned(), "600".to_owned()])
    );
    let made = || fs::metadata(tree(&bench, image)).unwrap().ino();
    let before = made();
    bench.engine.prepare(&image).await.unwrap();
    assert_eq!(made(), before);
    assert_eq!(
        bench.engine.retain(&[image]).await.unwrap(),
        0,
        "it is listed"
    );
    let instance = bench.engine.start(bench.spec("one", image)).await.unwrap();
    assert_eq!(bench.engine.retain(&[]).await.unwrap(), 0, "it is in use");
    instance.stop(std::time::Duration::ZERO).await;
    let freed = bench.engine.retain(&[]).await.unwrap();
    assert!(freed >= prepared.bytes, "{freed}");
    assert!(!tree(&bench, image).exists());
    bench.check_nothing_left();
}

/// Whoever has made the image knows its paths, and nothing of where it lies on this machine.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_where_a_directory_must_be_is_told_by_its_path_in_the_image() {
    let bench = Bench::new(IsolationMode::Off);
    let mut layer = Layer::new();
    layer.file("app/run", 0o755, b"");
    layer.link(EntryType::Symlink, "link", "/app/run");
    let layer = layer.tar();
    let image = |run: RunConfig| {
        let layers = [(Packing::Tar, layer.clone())];
        images::push(&bench.store, &layers, run)
    };
    let in_directory = |path: &str| RunConfig {
        working_dir: Some(path.to_owned()),
        ..RunConfig::default()
    };
    let with_volume = RunConfig {
        volumes: ["/app/run".to_owned()].into(),
        ..RunConfig::default()
    };
    for (run, named) in [
        (in_directory("/app/run"), "WORKDIR `/app/run` of the image"),
        (in_directory("app/run"), "WORKDIR `/app/run` of the image"),
        (
            in_directory("/app/run/below/it"),
            "WORKDIR `/app/run/below/it` of the image",
        ),
        (in_directory("/link"), "WORKDIR `/link` of the image"),
        (with_volume, "VOLUME `/app/run` of the image"),
    ] {
        let told = chain(&bench.engine.prepare(&image(run)).await.unwrap_err());
        assert!(told.starts_with(named), "{told}");
        assert!(
            told.contains("name a directory in its Dockerfile"),
            "{told}"
        );
        assert!(!told.contains(&bench.mark()), "{told}");
    }
    let mut layer = Layer::new();
    layer.file("tmp", 0o644, b"");
    let told = chain(&unpack(&bench, vec![layer]).await.unwrap_err());
    assert!(
        told.starts_with("directory `/tmp` of the image is a file"),
        "{told}"
    );
    bench.check_nothing_left();
}

/// An error with all of its causes.
fn chain(error: &EngineError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

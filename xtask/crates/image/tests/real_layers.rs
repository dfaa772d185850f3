//! Layers: the same from everywhere, and readable by the programs that others read them with.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

mod common;

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};

use common::Project;
use deploy_image::{Cache, Compression, Dockerfile, Image, NoImages, Options, assemble, plan};

const DOCKERFILE: &str = "FROM scratch\nCOPY --chown=7:8 data /data\nCOPY one /bin/\n";
/// The first layer holds the directories that the others stand in.
const DATA: usize = 1;
const ONE: usize = 2;

fn image(project: &Project, compression: Compression) -> Image {
    let dockerfile = Dockerfile::parse("Dockerfile", DOCKERFILE).unwrap();
    let options = Options {
        compression,
        ..Options::default()
    };
    let plan = plan(&dockerfile, &project.context(), &options, &NoImages).unwrap();
    let mut cache = Cache::open(project.path("layers.json"));
    let image = assemble(&plan, &project.store(), &mut cache).unwrap();
    cache.save().unwrap();
    image
}

/// Some megabytes that compress about as well as machine code does.
fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16
    };
    let words: Vec<[u8; 8]> = (0..512)
        .map(|_| std::array::from_fn(|_| next().to_le_bytes()[0]))
        .collect();
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&words[next() as usize % words.len()]);
    }
    bytes
}

fn project() -> Project {
    let project = Project::new();
    project.write("data/empty", "");
    project.write("data/deep/er/text", "text\n");
    fs::create_dir_all(project.root().join("data/nothing")).unwrap();
    fs::write(project.root().join("data/noise"), noise(1, 3_000_000)).unwrap();
    fs::write(project.root().join("one"), noise(2, 1_500_001)).unwrap();
    project.chmod("one", 0o755);
    std::os::unix::fs::symlink("../data", project.root().join("data/deep/link")).unwrap();
    project.age();
    project
}

fn bytes(image: &Image, layer: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let source = &image.sources[&image.layers[layer].digest];
    source.open_at(0).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, image.layers[layer].size);
    bytes
}

/// What another program makes of some bytes.
fn through(program: &str, arguments: &[&str], folder: &Path, input: &[u8]) -> Vec<u8> {
    let file = folder.join("input");
    fs::write(&file, input).unwrap();
    let output = Command::new(program)
        .args(arguments)
        .stdin(fs::File::open(&file).unwrap())
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|_| panic!("{program} is missing: run `cargo xtask test --setup`"));
    assert!(output.status.success(), "{program}");
    output.stdout
}

/// Two folders, two users, two umasks, an hour and a new inode apart.
#[test]
fn the_same_files_give_the_same_image_anywhere() {
    let (here, there) = (project(), project());
    for entry in walkdir::WalkDir::new(there.root()) {
        let entry = entry.unwrap();
        if entry.file_type().is_file() {
            let executable = entry.file_name() == "one";
            let mode = if executable { 0o700 } else { 0o600 };
            there.chmod(entry.path().to_str().unwrap(), mode);
        }
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::lchown(entry.path(), Some(1234), Some(4321)).unwrap();
        }
    }
    let compressions = [
        Compression::None,
        Compression::Gzip(3),
        Compression::Zstd(3),
    ];
    for compression in compressions {
        let (one, other) = (image(&here, compression), image(&there, compression));
        assert_eq!(one.digest, other.digest, "{compression:?}");
    }
}

#[test]
fn the_usual_programs_read_what_is_compressed() {
    let project = project();
    let plain = image(&project, Compression::None);
    let readers = [
        (Compression::Gzip(1), "gzip", "+gzip"),
        (Compression::Gzip(9), "gzip", "+gzip"),
        (Compression::Zstd(1), "zstd", "+zstd"),
        (Compression::Zstd(5), "zstd", "+zstd"),
    ];
    for (compression, program, suffix) in readers {
        let compressed = image(&project, compression);
        for layer in 0..plain.layers.len() {
            let report = &compressed.layers[layer];
            assert!(report.media_type.ends_with(suffix));
            assert_eq!(report.diff_id, plain.layers[layer].diff_id);
            let input = bytes(&compressed, layer);
            let back = through(program, &["-dc"], &project.path(""), &input);
            assert!(back == bytes(&plain, layer), "{compression:?} {layer}");
        }
        assert!(compressed.layers[DATA].size < plain.layers[DATA].size);
        let again = image(&project, compression);
        assert_eq!(again.digest, compressed.digest);
        assert_eq!(
            (again.counters.layers_built, again.counters.bytes_read),
            (0, 0)
        );
    }
}

#[test]
fn tar_reads_what_is_plain() {
    let project = project();
    let image = image(&project, Compression::None);
    let listing = through(
        "tar",
        &["-tv", "--numeric-owner"],
        &project.path(""),
        &bytes(&image, DATA),
    );
    let listing = String::from_utf8(listing).unwrap();
    let lines: Vec<&str> = listing.lines().collect();
    assert_eq!(lines.len(), 8, "{listing}");
    assert!(
        lines
            .iter()
            .all(|line| line.contains(" 7/8 ") && line.contains("1970-01-01"))
    );
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("lrwxrwxrwx") && line.ends_with("link -> ../data"))
    );
}

/// An uncompressed layer takes no room beside its files.
#[test]
fn plain_layers_stay_where_their_files_are() {
    let project = project();
    let plain = image(&project, Compression::None);
    let store = project.store();
    assert!(
        plain
            .layers
            .iter()
            .all(|layer| !store.contains(&layer.digest))
    );
    assert!(store.contains(&plain.digest) && store.contains(&plain.config_digest));
}

/// A file that is rewritten between its reading and its sending ends the sending, not in a wrong layer.
#[test]
fn a_file_that_changes_before_it_is_sent_is_noticed() {
    let project = project();
    let plain = image(&project, Compression::None);
    fs::write(project.root().join("one"), noise(3, 1_500_001)).unwrap();
    let source = &plain.sources[&plain.layers[ONE].digest];
    let error = source
        .open_at(0)
        .unwrap()
        .read_to_end(&mut Vec::new())
        .unwrap_err();
    assert!(
        error.to_string().contains("one changed while it was read"),
        "{error}"
    );
}

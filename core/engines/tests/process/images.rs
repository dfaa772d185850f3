//! Images made here and now, out of this machine's own programs.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use oci::media_type;
use oci::{Descriptor, Digest, ImageConfig, ImageManifest, Platform, RootFs, RunConfig, Store};
use tar::{Builder, EntryType, Header};

/// The program that [`app`] has at `/app/fixture`.
pub(crate) const PROGRAM: &str = "/app/fixture";

/// A layer in the making.
pub(crate) struct Layer {
    builder: Builder<Vec<u8>>,
    pub(crate) owner: (u64, u64),
}

impl Layer {
    pub(crate) fn new() -> Self {
        Self {
            builder: Builder::new(Vec::new()),
            owner: (0, 0),
        }
    }

    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> &mut Self {
        self.entry(EntryType::Regular, path, mode, None, content)
    }

    pub(crate) fn directory(&mut self, path: &str, mode: u32) -> &mut Self {
        self.entry(EntryType::Directory, path, mode, None, b"")
    }

    pub(crate) fn link(&mut self, kind: EntryType, path: &str, target: &str) -> &mut Self {
        self.entry(kind, path, 0o777, Some(target), b"")
    }

    /// Writes the header by hand: the library refuses the names that the tests are about.
    pub(crate) fn entry(
        &mut self,
        kind: EntryType,
        path: &str,
        mode: u32,
        target: Option<&str>,
        content: &[u8],
    ) -> &mut Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        if let Some(target) = target {
            let field = &mut header.as_gnu_mut().unwrap().linkname;
            field[..target.len()].copy_from_slice(target.as_bytes());
        }
        header.set_mode(mode);
        header.set_uid(self.owner.0);
        header.set_gid(self.owner.1);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.builder.append(&header, content).unwrap();
        self
    }

    pub(crate) fn tar(self) -> Vec<u8> {
        self.builder.into_inner().unwrap()
    }
}

/// How a layer is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    Tar,
    Gzip,
    /// Plain, and said to be gzip, as docker pushes what it has pulled like that.
    TarCalledGzip,
}

/// Puts an image into the store and returns its manifest's digest.
pub(crate) fn push(store: &Store, layers: &[(Packing, Vec<u8>)], run: RunConfig) -> Digest {
    let diff_ids = layers.iter().map(|(_, tar)| Digest::of(tar)).collect();
    push_with_diff_ids(store, layers, run, diff_ids)
}

pub(crate) fn push_with_diff_ids(
    store: &Store,
    layers: &[(Packing, Vec<u8>)],
    run: RunConfig,
    diff_ids: Vec<Digest>,
) -> Digest {
    let platform = Platform::host();
    let config = ImageConfig {
        created: None,
        author: None,
        architecture: platform.architecture,
        variant: None,
        os: platform.os,
        config: run,
        rootfs: RootFs {
            kind: "layers".to_owned(),
            diff_ids,
        },
        history: Vec::new(),
    };
    let blob = |media_type: &str, bytes: &[u8]| {
        store.put_bytes(bytes).unwrap();
        Descriptor::of(media_type, bytes)
    };
    let layers = layers.iter().map(|(packing, tar)| match packing {
        Packing::Tar => blob(media_type::OCI_LAYER, tar),
        Packing::Gzip => blob(media_type::OCI_LAYER_GZIP, &gzip(tar)),
        Packing::TarCalledGzip => blob(media_type::DOCKER_LAYER_GZIP, tar),
    });
    let layers = layers.collect();
    let manifest = ImageManifest::new(blob(media_type::OCI_CONFIG, &config.to_vec()), layers);
    store.put_bytes(&manifest.to_vec()).unwrap()
}

/// An image with a shell, a few tools, the fixture program and a user `app`.
pub(crate) fn app(store: &Store, fixture: &Path, run: RunConfig) -> Digest {
    static LAYER: OnceLock<Vec<u8>> = OnceLock::new();
    let tar = LAYER.get_or_init(|| app_layer(fixture));
    push(store, &[(Packing::Tar, tar.clone())], run)
}

/// The same, with a set-uid copy of the fixture program at `/app/elevated`.
pub(crate) fn with_set_uid_program(store: &Store, fixture: &Path, run: RunConfig) -> Digest {
    let mut above = Layer::new();
    above.file("app/elevated", 0o4755, &fs::read(fixture).unwrap());
    let layers = [app_layer(fixture), above.tar()];
    push(store, &layers.map(|tar| (Packing::Tar, tar)), run)
}

fn app_layer(fixture: &Path) -> Vec<u8> {
    let mut layer = Layer::new();
    layer.directory("tmp", 0o1777).directory("app/", 0o755);
    layer.file(
        "etc/passwd",
        0o644,
        b"root:x:0:0::/root:/bin/sh\napp:x:1001:1002::/home/app:/bin/sh\n",
    );
    layer.file("etc/group", 0o644, b"app:x:1002:\nextra:x:1003:app\n");
    layer.file("app/config.toml", 0o644, b"configured = true\n");
    layer.file("app/script", 0o755, b"#!/bin/sh\necho script ran with $1\n");
    layer.file("app/garbage", 0o755, b"this is no program\n");
    layer.file("app/orphan", 0o755, b"#!/bin/absent\n");
    let mut libraries = BTreeSet::new();
    for (name, program) in [
        ("bin/sh", "/bin/sh"),
        ("bin/sleep", "/bin/sleep"),
        ("bin/cat", "/bin/cat"),
    ] {
        layer.file(name, 0o755, &fs::read(program).unwrap());
        libraries.extend(closure(Path::new(program)));
    }
    layer.file("app/fixture", 0o755, &fs::read(fixture).unwrap());
    libraries.extend(closure(fixture));
    for library in libraries {
        let name = library.to_str().unwrap().trim_start_matches('/').to_owned();
        layer.file(&name, 0o755, &fs::read(&library).unwrap());
    }
    layer.tar()
}

/// What `RunConfig` looks like for a command.
pub(crate) fn command(words: &[&str]) -> RunConfig {
    RunConfig {
        cmd: Some(words.iter().map(|word| (*word).to_owned()).collect()),
        env: vec!["PATH=/app:/bin".to_owned()],
        ..RunConfig::default()
    }
}

/// The loader and libraries of a program, as the machine's own loader lists them.
pub(crate) fn closure(program: &Path) -> Vec<PathBuf> {
    let listed = Command::new("ldd")
        .arg(program)
        .output()
        .expect("ldd, of package libc-bin");
    let listed = String::from_utf8(listed.stdout).unwrap();
    let words = listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    words.map(PathBuf::from).collect()
}

fn gzip(tar: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(tar).unwrap();
    encoder.finish().unwrap()
}

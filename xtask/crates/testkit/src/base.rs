//! Base images made for a test and pushed to a registry, layer by layer as the test wants them.

use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use crate::process::need_program;
use crate::registry::DockerRegistry;

/// The media types of layers.
const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";
const GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
const ODD: &str = "application/vnd.oci.image.layer.v1.tar+odd";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An image to be.
#[derive(Debug, Clone)]
pub struct BaseImage {
    layers: Vec<Layer>,
    architecture: String,
}

#[derive(Debug, Clone)]
struct Layer {
    media_type: &'static str,
    bytes: Vec<u8>,
    diff_id: String,
}

/// The files of one layer.
#[derive(Debug, Default)]
pub struct Files(Vec<(String, Node)>);

#[derive(Debug)]
enum Node {
    File(Vec<u8>),
    Link(String),
}

impl Files {
    /// Adds a file.
    #[must_use]
    pub fn file(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.0.push((path.to_owned(), Node::File(content.into())));
        self
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn link(mut self, path: &str, target: &str) -> Self {
        self.0
            .push((path.to_owned(), Node::Link(target.to_owned())));
        self
    }

    /// Adds a file of this machine, by the path it has there.
    #[must_use]
    pub fn of_this_machine(self, path: &Path) -> Self {
        let content = std::fs::read(path)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
        let name = path.to_string_lossy();
        self.file(name.trim_start_matches('/'), content)
    }

    fn archive(&self) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (path, node) in &self.0 {
            let mut header = Header::new_gnu();
            header.set_mode(0o755);
            header.set_mtime(1);
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(0);
            let written = match node {
                Node::File(content) => {
                    header.set_size(content.len() as u64);
                    builder.append_data(&mut header, path, content.as_slice())
                }
                Node::Link(target) => {
                    header.set_entry_type(EntryType::Symlink);
                    builder.append_link(&mut header, path, target)
                }
            };
            written.expect("write to memory");
        }
        builder.into_inner().expect("write to memory")
    }
}

impl Default for BaseImage {
    fn default() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self {
            layers: Vec::new(),
            architecture: architecture.to_owned(),
        }
    }
}

impl BaseImage {
    /// Adds a layer packed with gzip, as most base images have them.
    #[must_use]
    pub fn layer(mut self, files: &Files) -> Self {
        let archive = files.archive();
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&archive).expect("write to memory");
        self.layers.push(Layer {
            media_type: GZIP,
            bytes: encoder.finish().expect("write to memory"),
            diff_id: digest(&archive),
        });
        self
    }

    /// Adds a layer that is not packed.
    #[must_use]
    pub fn plain_layer(mut self, files: &Files) -> Self {
        let archive = files.archive();
        self.layers.push(Layer {
            media_type: PLAIN,
            diff_id: digest(&archive),
            bytes: archive,
        });
        self
    }

    /// Adds a layer packed with zstd.
    #[must_use]
    pub fn zstd_layer(mut self, files: &Files) -> Self {
        let archive = files.archive();
        self.layers.push(Layer {
            media_type: ZSTD,
            bytes: zstd(&archive),
            diff_id: digest(&archive),
        });
        self
    }

    /// Adds a layer packed in a way that nobody knows.
    #[must_use]
    pub fn odd_layer(mut self, bytes: &[u8]) -> Self {
        self.layers.push(Layer {
            media_type: ODD,
            bytes: bytes.to_vec(),
            diff_id: digest(bytes),
        });
        self
    }

    /// Makes it an image for another processor.
    #[must_use]
    pub fn for_architecture(mut self, architecture: &str) -> Self {
        architecture.clone_into(&mut self.architecture);
        self
    }

    /// The processor it is for.
    #[must_use]
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The digests of its layers as they are pushed.
    #[must_use]
    pub fn layer_digests(&self) -> Vec<String> {
        self.layers
            .iter()
            .map(|layer| digest(&layer.bytes))
            .collect()
    }

    /// Pushes it; the digest of its manifest.
    #[expect(
        clippy::must_use_candidate,
        reason = "the push is what is wanted, its digest only sometimes"
    )]
    pub fn push(&self, registry: &DockerRegistry, repository: &str, tag: &str) -> String {
        let diff_ids: Vec<&str> = self.layers.iter().map(|l| l.diff_id.as_str()).collect();
        let config = json!({
            "architecture": self.architecture,
            "os": "linux",
            "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [],
        })
        .to_string();
        registry.put_blob(repository, config.as_bytes());
        for layer in &self.layers {
            registry.put_blob(repository, &layer.bytes);
        }
        let layers = self.layers.iter();
        let layers: Vec<Value> = layers
            .map(|layer| described(layer.media_type, &layer.bytes))
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": described(CONFIG, config.as_bytes()),
            "layers": layers,
        })
        .to_string();
        registry.put_manifest(repository, tag, MANIFEST, manifest.as_bytes());
        digest(manifest.as_bytes())
    }
}

/// Pushes one image for several processors; the digest of the index.
#[expect(
    clippy::must_use_candidate,
    reason = "the push is what is wanted, its digest only sometimes"
)]
pub fn push_index(
    registry: &DockerRegistry,
    repository: &str,
    tag: &str,
    images: &[BaseImage],
) -> String {
    let manifests: Vec<Value> = images
        .iter()
        .map(|image| {
            let digest = image.push(registry, repository, &format!("for-{}", image.architecture));
            let (manifest, _) = registry.manifest_bytes(repository, &digest);
            json!({
                "mediaType": MANIFEST,
                "digest": digest,
                "size": manifest.len(),
                "platform": {"os": "linux", "architecture": image.architecture},
            })
        })
        .collect();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).to_string();
    registry.put_manifest(repository, tag, INDEX, index.as_bytes());
    digest(index.as_bytes())
}

/// A shared library without content that offers these symbol versions, made by the C compiler.
#[must_use]
pub fn library_offering(name: &str, versions: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("source.c"), "int answer(void) { return 42; }\n").expect("write a source");
    let script: String = versions
        .iter()
        .enumerate()
        .map(|(number, version)| match number {
            0 => format!("{version} {{ global: answer; }};\n"),
            _ => format!("{version} {{ }};\n"),
        })
        .collect();
    std::fs::write(at("versions"), script).expect("write a version script");
    let made = Command::new("cc")
        .args(["-shared", "-fPIC", "-nostdlib", "-o"])
        .arg(at("library"))
        .arg(at("source.c"))
        .arg(format!("-Wl,-soname,{name}"))
        .arg(format!("-Wl,--version-script={}", at("versions").display()))
        .status()
        .expect("cc is missing: run `cargo xtask test --setup`");
    assert!(made.success(), "cc cannot make {name}");
    std::fs::read(at("library")).expect("read the library")
}

/// The loader and the libraries that this process itself runs on.
#[must_use]
pub fn own_libraries() -> Vec<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux tells what is mapped");
    let files = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5));
    let files = files.filter(|file| file.contains(".so"));
    let files: std::collections::BTreeSet<PathBuf> = files.map(PathBuf::from).collect();
    files.into_iter().collect()
}

/// The path of the loader in programs for this machine.
#[must_use]
pub fn loader() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "/lib64/ld-linux-x86-64.so.2",
        "aarch64" => "/lib/ld-linux-aarch64.so.1",
        other => panic!("the loader of {other} is not known to the test kit"),
    }
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(bytes).expect("write a temporary file");
    file.rewind().expect("rewind a temporary file");
    let packed = Command::new(need_program("zstd"))
        .args(["--quiet", "--stdout", "-3"])
        .stdin(file)
        .output()
        .expect("start zstd");
    assert!(packed.status.success(), "zstd failed");
    packed.stdout
}

fn described(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
}

/// `sha256:…` of some bytes.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let hash = Sha256::digest(bytes);
    hash.iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

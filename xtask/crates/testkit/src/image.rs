//! What a container sees of an image: its files, whoever made the layers, and its configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

use flate2::read::MultiGzDecoder;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tar::{Archive, EntryType};

use crate::registry::DockerRegistry;

/// A file, folder or link. Time stamps are left out: builders differ in them, programs rarely care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `file`, `folder`, `link` or `other`.
    pub kind: &'static str,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u64, u64),
    /// The digest of a file's content, or where a link leads to.
    pub content: String,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            mode,
            owner: (user, group),
            content,
        } = self;
        write!(f, "{kind} {mode:04o} {user}:{group} {content}")
    }
}

/// The files of an image, by absolute path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree(BTreeMap<String, Node>);

impl Tree {
    /// The layers on top of each other, the base first; each a tar archive, maybe compressed with
    /// gzip.
    #[must_use]
    pub fn of_layers(layers: &[Vec<u8>]) -> Self {
        let mut tree = Self::default();
        for layer in layers {
            tree.apply(layer);
        }
        tree
    }

    /// The tree of an image in a registry.
    #[must_use]
    pub fn of_registry(registry: &DockerRegistry, repository: &str, reference: &str) -> Self {
        let (manifest, _) = registry.manifest(repository, reference);
        let layers = manifest["layers"]
            .as_array()
            .expect("a manifest lists layers");
        let blobs: Vec<_> = layers
            .iter()
            .map(|layer| layer["digest"].as_str().expect("a layer has a digest"))
            .map(|digest| registry.blob(repository, digest))
            .collect();
        Self::of_layers(&blobs)
    }

    /// The tree of a `docker save` archive that holds one image.
    #[must_use]
    pub fn of_saved(archive: &[u8]) -> Self {
        let files = entries(archive);
        let manifest = files
            .get("manifest.json")
            .expect("an archive has a manifest.json");
        let manifest: Value = serde_json::from_slice(manifest).expect("it is JSON");
        let names = manifest[0]["Layers"].as_array().expect("it lists layers");
        let layers: Vec<_> = names
            .iter()
            .map(|name| files[name.as_str().expect("a layer has a name")].clone())
            .collect();
        Self::of_layers(&layers)
    }

    /// What is at a path.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.0.get(path)
    }

    /// A line a file, for comparing two trees in a message.
    #[must_use]
    pub fn listing(&self) -> String {
        let lines = self
            .0
            .iter()
            .map(|(path, node)| format!("{path}: {node}\n"));
        lines.collect()
    }

    fn apply(&mut self, layer: &[u8]) {
        let mut plain = Vec::new();
        if layer.starts_with(&[0x1f, 0x8b]) {
            MultiGzDecoder::new(layer)
                .read_to_end(&mut plain)
                .expect("a gzip layer");
        } else {
            plain.extend_from_slice(layer);
        }
        let mut archive = Archive::new(plain.as_slice());
        for entry in archive.entries().expect("a layer is a tar archive") {
            self.put(entry.expect("an entry of a layer"));
        }
    }

    fn put(&mut self, mut entry: tar::Entry<'_, &[u8]>) {
        let path = entry
            .path()
            .expect("an entry has a path")
            .to_string_lossy()
            .into_owned();
        let path = format!("/{}", path.trim_start_matches("./").trim_matches('/'));
        if path == "/" {
            return;
        }
        if let Some((folder, name)) = path.rsplit_once('/')
            && let Some(hidden) = name.strip_prefix(".wh.")
        {
            self.hide(folder, hidden);
            return;
        }
        let header = entry.header().clone();
        let (kind, content) = match header.entry_type() {
            EntryType::Directory => ("folder", String::new()),
            EntryType::Symlink => ("link", link_of(&entry)),
            // A second name of a file is a file to whoever reads it.
            EntryType::Link => return self.put_again(&path, &link_of(&entry)),
            EntryType::Regular => ("file", digest_of(&mut entry)),
            _ => ("other", String::new()),
        };
        let node = Node {
            kind,
            mode: header.mode().expect("an entry has a mode") & 0o7777,
            owner: (
                header.uid().expect("an owner"),
                header.gid().expect("a group"),
            ),
            content,
        };
        self.0.insert(path, node);
    }

    fn put_again(&mut self, path: &str, target: &str) {
        let target = format!("/{}", target.trim_start_matches("./").trim_matches('/'));
        let node = self.0.get(&target).cloned();
        self.0.insert(
            path.to_owned(),
            node.expect("a hard link leads to an earlier entry"),
        );
    }

    /// A whiteout: one name, or with `.wh..opq` all that lower layers hold in the folder.
    fn hide(&mut self, folder: &str, name: &str) {
        let hidden = if name == ".wh..opq" {
            format!("{folder}/")
        } else {
            self.0.remove(&format!("{folder}/{name}"));
            format!("{folder}/{name}/")
        };
        self.0.retain(|path, _| !path.starts_with(&hidden));
    }
}

/// The part of an image's configuration that a container is run by, in one spelling: builders
/// write absent values in several ways.
#[must_use]
pub fn run_configuration(config: &Value) -> Value {
    let fields = [
        "Cmd",
        "Entrypoint",
        "Env",
        "ExposedPorts",
        "Healthcheck",
        "Labels",
        "StopSignal",
        "User",
        "Volumes",
        "WorkingDir",
    ];
    let mut kept = serde_json::Map::new();
    for field in fields {
        let value = config[field].clone();
        let empty = value.is_null()
            || value == ""
            || value.as_array().is_some_and(Vec::is_empty)
            || value.as_object().is_some_and(serde_json::Map::is_empty);
        if !empty {
            kept.insert(field.to_owned(), value);
        }
    }
    Value::Object(kept)
}

/// The configuration of an image in a registry, as a container is run by it.
#[must_use]
pub fn configuration_of(registry: &DockerRegistry, repository: &str, reference: &str) -> Value {
    let (manifest, _) = registry.manifest(repository, reference);
    let digest = manifest["config"]["digest"]
        .as_str()
        .expect("a manifest has a configuration");
    let config: Value = serde_json::from_slice(&registry.blob(repository, digest))
        .expect("a configuration is JSON");
    run_configuration(&config["config"])
}

fn link_of(entry: &tar::Entry<'_, &[u8]>) -> String {
    let target = entry
        .link_name()
        .expect("a link is readable")
        .expect("a link has a target");
    target.to_string_lossy().into_owned()
}

fn digest_of(entry: &mut tar::Entry<'_, &[u8]>) -> String {
    let mut content = Vec::new();
    entry
        .read_to_end(&mut content)
        .expect("the content of an entry");
    let digest = Sha256::digest(&content);
    let first = digest
        .iter()
        .take(8)
        .fold(0, |number, byte| number << 8 | u64::from(*byte));
    format!("{} bytes {first:016x}", content.len())
}

fn entries(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = Archive::new(archive);
    let entries = archive.entries().expect("a tar archive");
    entries
        .map(|entry| {
            let mut entry = entry.expect("an entry");
            let path = entry.path().expect("a path").to_string_lossy().into_owned();
            let mut content = Vec::new();
            entry
                .read_to_end(&mut content)
                .expect("the content of an entry");
            (path, content)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(files: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            builder
                .append_data(&mut header, path, content.as_bytes())
                .unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn upper_layers_replace_and_hide() {
        let lower = layer(&[("a/b", "1"), ("a/c", "1"), ("d/e", "1")]);
        let upper = layer(&[
            ("a/b", "22"),
            ("a/.wh.c", ""),
            ("d/.wh..wh..opq", ""),
            ("d/f", ""),
        ]);
        let tree = Tree::of_layers(&[lower, upper]);
        let paths: Vec<_> = tree.0.keys().map(String::as_str).collect();
        assert_eq!(paths, ["/a/b", "/d/f"]);
        assert!(tree.get("/a/b").unwrap().content.starts_with("2 bytes"));
    }

    #[test]
    fn absent_values_are_the_same_however_they_are_written() {
        let one = serde_json::json!({"Cmd": ["a"], "Labels": null, "User": ""});
        let other = serde_json::json!({"Cmd": ["a"], "Labels": {}, "Hostname": "x"});
        assert_eq!(run_configuration(&one), run_configuration(&other));
    }
}

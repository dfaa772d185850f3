//! The files of an image under construction, as far as the Dockerfile puts them there.
//!
//! What a base image holds is not known here, only what every one of them has: the directories
//! below `/` that a Linux system expects.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::ops::Bound::{Excluded, Unbounded};
use std::path::{Path, PathBuf};

use crate::files::{Files, FilesError, Node, Owner};

/// Directories that every base image is taken to have.
const STANDARD: [&str; 41] = [
    "bin",
    "boot",
    "dev",
    "etc",
    "etc/ssl",
    "etc/ssl/certs",
    "home",
    "lib",
    "lib64",
    "media",
    "mnt",
    "opt",
    "proc",
    "root",
    "run",
    "sbin",
    "srv",
    "sys",
    "tmp",
    "usr",
    "usr/bin",
    "usr/lib",
    "usr/libexec",
    "usr/local",
    "usr/local/bin",
    "usr/local/etc",
    "usr/local/lib",
    "usr/local/sbin",
    "usr/local/share",
    "usr/sbin",
    "usr/share",
    "usr/src",
    "var",
    "var/cache",
    "var/lib",
    "var/local",
    "var/lock",
    "var/log",
    "var/run",
    "var/spool",
    "var/tmp",
];

/// Directories that no application layer describes: in some base image each of them is a symbolic
/// link (`/bin`, `/var/run`) or has a mode of its own (`/tmp`, `/root`), which an entry for a plain
/// directory would overwrite. Where the base lacks one, [`Tree::missing_in_base`] says so.
const OF_THE_BASE: [&str; 27] = [
    "",
    "bin",
    "boot",
    "dev",
    "etc",
    "home",
    "lib",
    "lib32",
    "lib64",
    "libx32",
    "proc",
    "root",
    "run",
    "sbin",
    "sys",
    "tmp",
    "usr",
    "usr/bin",
    "usr/lib",
    "usr/lib32",
    "usr/lib64",
    "usr/sbin",
    "var",
    "var/lock",
    "var/mail",
    "var/run",
    "var/tmp",
];

/// Whether the base image is the one to describe this directory.
pub(crate) fn belongs_to_base(path: &Path) -> bool {
    OF_THE_BASE.iter().any(|known| path.as_os_str() == *known)
}

/// Paths and what stands there; relative to the root of the image.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree {
    nodes: BTreeMap<PathBuf, Node>,
    /// Directories that every base has and that the Dockerfile itself has made or copied.
    own: BTreeSet<PathBuf>,
}

impl Tree {
    /// The files of a stage that starts from an image nobody has looked into.
    pub(crate) fn on_image() -> Self {
        let mut tree = Self::default();
        for path in STANDARD {
            let mode = match path {
                "tmp" | "var/tmp" => 0o1777,
                "root" => 0o700,
                _ => 0o755,
            };
            let node = Node {
                mode,
                ..Node::directory(Owner::default())
            };
            tree.nodes.insert(path.into(), node);
        }
        tree
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn get(&self, path: &Path) -> Option<&Node> {
        self.nodes.get(path)
    }

    pub(crate) fn insert(&mut self, path: PathBuf, node: Node) {
        if belongs_to_base(&path) {
            self.own.insert(path.clone());
        }
        self.nodes.insert(path, node);
    }

    pub(crate) fn is_directory(&self, path: &Path) -> bool {
        path.as_os_str().is_empty() || self.get(path).is_some_and(Node::is_directory)
    }

    /// Makes the directories of `path` that are missing; gives those it made.
    pub(crate) fn make_directories(&mut self, path: &Path, owner: Owner) -> Vec<PathBuf> {
        let mut made = Vec::new();
        let mut ancestors: Vec<&Path> = path.ancestors().collect();
        ancestors.pop();
        for directory in ancestors.into_iter().rev() {
            if !self.nodes.contains_key(directory) {
                self.insert(directory.to_owned(), Node::directory(owner));
                made.push(directory.to_owned());
            }
        }
        made
    }

    /// Directories that the layers holding `used` rely on and do not describe.
    pub(crate) fn missing_in_base(&self, used: &[&Path]) -> Vec<(&Path, &Node)> {
        let of_base = self.nodes.iter().filter(|(path, node)| {
            let needed = || used.iter().any(|used| used.starts_with(path));
            node.is_directory() && belongs_to_base(path) && (self.own.contains(*path) || needed())
        });
        of_base.map(|(path, node)| (path.as_path(), node)).collect()
    }
}

impl Files for Tree {
    fn node(&self, path: &Path) -> Result<Option<Node>, FilesError> {
        if path.as_os_str().is_empty() {
            return Ok(Some(Node::directory(Owner::default())));
        }
        Ok(self.get(path).cloned())
    }

    fn children(&self, path: &Path) -> Result<Vec<OsString>, FilesError> {
        // What is below a directory stands right behind it: paths are ordered part by part.
        let below = self.nodes.range::<Path, _>((Excluded(path), Unbounded));
        let below = below
            .map(|(known, _)| known)
            .take_while(|known| known.starts_with(path));
        let children = below.filter(|known| known.parent() == Some(path));
        Ok(children
            .filter_map(|known| known.file_name().map(ToOwned::to_owned))
            .collect())
    }
}

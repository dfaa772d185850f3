//! What is known of a base image after its layers have been read once: its libraries with the
//! symbol versions that they offer, its loaders, its users.
//!
//! The layers may be removed afterwards: the facts are a small record, kept by the image's digest.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::names::{clean, file_name, parent};
use crate::owners::Accounts;

/// Raised when the record or what is looked for changes: older records are then made anew.
const VERSION: u32 = 1;
/// As in Linux.
const LINK_LIMIT: usize = 40;

/// What has been found in a base image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseFacts {
    version: u32,
    passwd: String,
    group: String,
    /// Shared libraries and loaders, by their path from the root.
    pub(super) libraries: BTreeMap<String, Library>,
    /// Symbolic links to libraries and those that stand high up (`/lib`), with where they lead.
    pub(super) links: BTreeMap<String, String>,
}

/// A shared library or a loader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Library {
    /// The processor, as `GOARCH` names it.
    pub(super) machine: String,
    /// 64-bit or 32-bit.
    pub(super) wide: bool,
    /// The symbol versions it offers; `None` when that cannot be told.
    pub(super) versions: Option<BTreeSet<String>>,
}

impl BaseFacts {
    pub(super) fn new(
        passwd: String,
        group: String,
        libraries: BTreeMap<String, Library>,
        links: BTreeMap<String, String>,
    ) -> Self {
        Self {
            version: VERSION,
            passwd,
            group,
            libraries,
            links,
        }
    }

    /// Reads a record; `None` for one that another version wrote, or a damaged one.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let facts: Self = serde_json::from_slice(bytes).ok()?;
        (facts.version == VERSION).then_some(facts)
    }

    /// The record.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The image's users and groups.
    #[must_use]
    pub fn accounts(&self) -> Accounts {
        Accounts {
            passwd: self.passwd.clone(),
            group: self.group.clone(),
        }
    }

    /// The library or loader at an absolute path, links followed.
    pub(super) fn at(&self, path: &str) -> Option<&Library> {
        self.libraries.get(&self.resolve(&clean(path))?)
    }

    /// The libraries that programs find by this name, wherever they are: several where an image
    /// holds one a processor, or a newer one in a folder that is searched first.
    pub(super) fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Library> {
        let called = |path: &&String| file_name(path) == name;
        let files = self.libraries.keys().filter(called).cloned();
        let links = self.links.keys().filter(called);
        let links = links.filter_map(|link| self.resolve(link));
        let found: BTreeSet<String> = files.chain(links).collect();
        found
            .into_iter()
            .filter_map(|path| self.libraries.get(&path))
    }

    /// Where a path really leads; `None` for a loop.
    fn resolve(&self, path: &str) -> Option<String> {
        resolve(&self.links, path)
    }
}

/// Follows links in every part of `path`; `None` for a loop.
pub(super) fn resolve(links: &BTreeMap<String, String>, path: &str) -> Option<String> {
    let mut at = String::new();
    let mut rest: Vec<String> = parts(path);
    let mut followed = 0;
    while let Some(name) = rest.pop() {
        if name == ".." {
            at.truncate(parent(&at).len());
            continue;
        }
        let next = if at.is_empty() {
            name
        } else {
            format!("{at}/{name}")
        };
        let Some(target) = links.get(&next) else {
            at = next;
            continue;
        };
        followed += 1;
        if followed > LINK_LIMIT {
            return None;
        }
        if target.starts_with('/') {
            at = String::new();
        }
        rest.extend(parts(target));
    }
    Some(at)
}

/// The parts of a path, last first. `..` stays: it means the parent of where a link has led to.
fn parts(path: &str) -> Vec<String> {
    let parts = path.split('/').rev();
    let parts = parts.filter(|part| !part.is_empty() && *part != ".");
    parts.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> BaseFacts {
        let library = |versions: &[&str]| Library {
            machine: "amd64".into(),
            wide: true,
            versions: Some(versions.iter().map(|v| (*v).to_owned()).collect()),
        };
        let path = |text: &str| text.to_owned();
        let libraries = [
            (path("usr/lib/x/ld-2.31.so"), library(&["GLIBC_2.3"])),
            (path("usr/lib/x/libc.so.6"), library(&["GLIBC_2.17"])),
            (path("opt/libc.so.6"), library(&["GLIBC_2.31"])),
        ];
        let links = [
            (path("lib"), path("usr/lib")),
            (path("lib64"), path("/usr/lib64")),
            (path("usr/lib64"), path("lib")),
            (path("usr/lib/ld-linux.so.2"), path("../lib/x/ld-2.31.so")),
            (path("usr/lib/libm.so.6"), path("libm.so.6")),
        ];
        BaseFacts::new(String::new(), String::new(), libraries.into(), links.into())
    }

    #[test]
    fn links_are_followed_as_the_kernel_does() {
        let facts = facts();
        let loader = facts.at("/lib64/ld-linux.so.2").unwrap();
        assert!(loader.versions.as_ref().unwrap().contains("GLIBC_2.3"));
        assert_eq!(facts.at("/lib/libm.so.6"), None);
        assert_eq!(facts.at("/lib/x/libm.so.6"), None);
    }

    #[test]
    fn a_name_finds_every_library() {
        assert_eq!(facts().named("libc.so.6").count(), 2);
        assert_eq!(facts().named("ld-linux.so.2").count(), 1);
        assert_eq!(facts().named("libz.so.1").count(), 0);
    }

    #[test]
    fn a_record_comes_back_and_others_do_not() {
        let facts = facts();
        assert_eq!(BaseFacts::from_slice(&facts.to_vec()), Some(facts.clone()));
        let newer = BaseFacts {
            version: VERSION + 1,
            ..facts
        };
        assert_eq!(BaseFacts::from_slice(&newer.to_vec()), None);
        assert_eq!(BaseFacts::from_slice(b"{"), None);
    }
}

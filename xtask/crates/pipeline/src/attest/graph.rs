//! What programs are made of: packages and who needs whom.

use std::collections::{BTreeMap, BTreeSet};

/// A package in one version. Two sources of the same are told apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) origin: Origin,
}

/// Where a package comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// crates.io
    Registry,
    /// This folder, relative to the project where it is below it.
    Local(String),
    /// A repository at a commit, or another registry, as cargo names it.
    Elsewhere(String),
}

/// What is known of a package beyond its name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Details {
    /// An SPDX expression, as its author wrote it.
    pub(super) licence: Option<String>,
    /// SHA-256 of the archive it comes in.
    pub(super) checksum: Option<String>,
    /// One line about it.
    pub(super) description: Option<String>,
    /// Where its source is kept.
    pub(super) repository: Option<String>,
}

/// Packages, and those that each of them needs to run.
pub(super) type Edges = BTreeMap<Part, BTreeSet<Part>>;

/// Everything that is known about the programs of an image.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// The packages whose programs are in the image.
    pub(super) shipped: BTreeSet<Part>,
    pub(super) edges: Edges,
    pub(super) details: BTreeMap<Part, Details>,
    /// Packages whose programs say themselves what they are made of.
    pub(super) audited: BTreeSet<Part>,
}

impl Facts {
    /// Adds a program: its package and all that it needs, directly or not.
    pub(super) fn add(&mut self, root: &Part, edges: &Edges) {
        self.shipped.insert(root.clone());
        let mut waiting = vec![root];
        let mut seen = BTreeSet::new();
        while let Some(part) = waiting.pop() {
            if !seen.insert(part) {
                continue;
            }
            let needed = edges.get(part);
            let known = self.edges.entry(part.clone()).or_default();
            known.extend(needed.into_iter().flatten().cloned());
            waiting.extend(needed.into_iter().flatten());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str) -> Part {
        Part {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            origin: Origin::Registry,
        }
    }

    #[test]
    fn only_what_a_program_reaches_is_taken() {
        let edges = Edges::from([
            (part("app"), [part("a")].into()),
            (part("a"), [part("b"), part("app")].into()),
            (part("test"), [part("c")].into()),
        ]);
        let mut facts = Facts::default();
        facts.add(&part("app"), &edges);
        let names: Vec<_> = facts.edges.keys().map(|part| part.name.as_str()).collect();
        assert_eq!(names, ["a", "app", "b"]);
    }
}

//! What a caller knows of blobs before the registry is asked: each thing known saves a request.

use std::collections::{BTreeMap, BTreeSet};

use crate::digest::Digest;
use crate::reference::Repository;

/// What is known of an image's blobs. It may be wrong: then a push costs more, and is right all the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    produced: BTreeSet<Digest>,
    holders: BTreeMap<Digest, Vec<Repository>>,
}

impl Known {
    /// Nothing is known.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            produced: BTreeSet::new(),
            holders: BTreeMap::new(),
        }
    }

    /// This blob has just been made, with content that nobody can have sent before: it is sent
    /// without a look whether it is there.
    pub fn produced(&mut self, digest: Digest) {
        self.produced.insert(digest);
    }

    /// A repository of the same registry had this blob when it was last seen. Of several holders
    /// those named first are asked first.
    pub fn held_by(&mut self, digest: Digest, repository: Repository) {
        let holders = self.holders.entry(digest).or_default();
        if !holders.contains(&repository) {
            holders.push(repository);
        }
    }

    pub(super) fn holders(&self, digest: &Digest) -> &[Repository] {
        self.holders.get(digest).map_or(&[], Vec::as_slice)
    }

    /// Made just now, and seen nowhere. What was made anew and came out as something seen before is
    /// nothing new.
    pub(super) fn is_new(&self, digest: &Digest) -> bool {
        self.produced.contains(digest) && self.holders(digest).is_empty()
    }

    /// Seen in this registry, but not in this repository.
    pub(super) fn is_elsewhere(&self, digest: &Digest, repository: &Repository) -> bool {
        let holders = self.holders(digest);
        !holders.is_empty() && !holders.contains(repository)
    }
}

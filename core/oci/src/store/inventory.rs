//! What a store holds at a moment, who needs what of it, and what would go without some of it. Looks only.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::{Store, StoreError, files};
use crate::digest::Digest;
use crate::manifest::{Descriptor, ImageIndex, ImageManifest};
use crate::media_type;
use crate::reference::Repository;

/// No registry takes longer manifests.
const MANIFEST_LIMIT: u64 = 4 * 1024 * 1024;

/// Manifests, by the repository that has them.
pub type Manifests = BTreeMap<Repository, BTreeSet<Digest>>;

/// Everything in a store.
#[derive(Debug, Default)]
pub struct Inventory {
    /// By repository.
    pub repositories: BTreeMap<Repository, Holdings>,
    /// What is on the disk, whoever needs it.
    pub contents: BTreeMap<Digest, Content>,
}

/// What one repository has.
#[derive(Debug, Default)]
pub struct Holdings {
    /// Its manifests.
    pub manifests: BTreeMap<Digest, Manifest>,
    /// The blobs that it may read, and since when nobody has asked for them.
    pub blobs: BTreeMap<Digest, Duration>,
}

/// A manifest of a repository.
#[derive(Debug, Default)]
pub struct Manifest {
    /// Since when it was neither pushed nor asked about.
    pub age: Duration,
    /// What it needs: blobs, or other manifests.
    pub names: BTreeSet<Digest>,
    /// The manifest that it is about.
    pub subject: Option<Digest>,
}

/// A file of the store.
#[derive(Debug, Clone, Copy)]
pub struct Content {
    /// In bytes.
    pub size: u64,
    /// Since when nobody has relied on it.
    pub age: Duration,
}

/// What goes when some manifests go.
#[derive(Debug, Default)]
pub struct Surplus {
    /// Links of repositories to blobs.
    pub links: Vec<(Repository, Digest)>,
    /// Contents.
    pub contents: Vec<Digest>,
    /// The length of these in bytes.
    pub bytes: u64,
}

/// All that it takes to pull an image.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Itself, those that it lists, and those about it, which carry its list of parts, provenance and signature.
    pub manifests: BTreeSet<Digest>,
    /// Configurations and layers.
    pub blobs: BTreeSet<Digest>,
}

/// Files of a store that belong together.
#[derive(Debug, Default)]
pub struct Files {
    /// Content, named by its digest.
    pub contents: Vec<PathBuf>,
    /// What makes the content a repository's.
    pub links: Vec<PathBuf>,
}

impl Inventory {
    /// What goes when these manifests go, of what nobody has relied on for `grace`.
    #[must_use]
    pub fn without(&self, gone: &Manifests, grace: Duration) -> Surplus {
        let mut surplus = Surplus::default();
        let mut kept: BTreeSet<&Digest> = BTreeSet::new();
        for (repository, holdings) in &self.repositories {
            let gone = gone.get(repository);
            let stays = |digest: &Digest| !gone.is_some_and(|gone| gone.contains(digest));
            let mut needed = BTreeSet::new();
            for (digest, manifest) in holdings.manifests.iter().filter(|(d, _)| stays(d)) {
                needed.insert(digest);
                needed.extend(&manifest.names);
            }
            for (digest, age) in &holdings.blobs {
                if needed.contains(digest) {
                    continue;
                }
                if *age > grace {
                    surplus.links.push((repository.clone(), *digest));
                } else {
                    kept.insert(digest);
                }
            }
            kept.extend(needed);
        }
        for (digest, content) in &self.contents {
            if content.age > grace && !kept.contains(digest) {
                surplus.contents.push(*digest);
                surplus.bytes += content.size;
            }
        }
        surplus
    }

    /// The length of all contents in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.contents.values().map(|content| content.size).sum()
    }
}

impl Holdings {
    /// A manifest, those that it lists, and those about any of them; what is not here is left out.
    #[must_use]
    pub fn family(&self, digest: &Digest) -> BTreeSet<Digest> {
        let mut family = BTreeSet::new();
        let mut open = vec![*digest];
        while let Some(next) = open.pop() {
            let Some(manifest) = self.manifests.get(&next) else {
                continue;
            };
            if family.insert(next) {
                open.extend(&manifest.names);
                let about = |(_, other): &(&Digest, &Manifest)| other.subject == Some(next);
                open.extend(
                    self.manifests
                        .iter()
                        .filter(about)
                        .map(|(digest, _)| *digest),
                );
            }
        }
        family
    }
}

impl Store {
    /// Looks at everything. A manifest that cannot be read is an error: nobody knows what it needs.
    pub fn inventory(&self) -> Result<Inventory, StoreError> {
        let mut inventory = Inventory::default();
        for repository in self.repositories()? {
            let mut holdings = Holdings::default();
            for digest in self.manifests(&repository)? {
                let manifest = self.manifest(&repository, &digest)?;
                holdings.manifests.insert(digest, manifest);
            }
            for digest in self.linked_blobs(&repository)? {
                let age = files::age(&self.blob_link(&repository, &digest));
                holdings.blobs.insert(digest, age);
            }
            inventory.repositories.insert(repository, holdings);
        }
        for name in files::names(&self.blobs())? {
            let Ok(digest) = Digest::from_hex(&name) else {
                continue;
            };
            let age = files::age(&self.path(&digest));
            let size = self.size(&digest).unwrap_or_default();
            inventory.contents.insert(digest, Content { size, age });
        }
        Ok(inventory)
    }

    /// All that it takes to pull an image of a repository. A manifest that is not there is an error.
    pub fn parts(&self, repository: &Repository, digest: &Digest) -> Result<Parts, StoreError> {
        let mut parts = Parts::default();
        let mut open = vec![*digest];
        while let Some(next) = open.pop() {
            if !parts.manifests.insert(next) {
                continue;
            }
            let bytes = self.read_small(&next, MANIFEST_LIMIT)?;
            match self.read_manifest(&next, &bytes)? {
                Named::Blobs(blobs) => parts.blobs.extend(blobs),
                Named::Manifests(manifests) => open.extend(manifests),
            }
            open.extend(self.referrers(repository, &next)?);
        }
        Ok(parts)
    }

    /// The files of the store, relative to its folder, that make an image of a repository all there is to it.
    pub fn files_of(&self, repository: &Repository, digest: &Digest) -> Result<Files, StoreError> {
        let parts = self.parts(repository, digest)?;
        let mut files = Files::default();
        for digest in &parts.manifests {
            files.links.push(self.manifest_link(repository, digest));
            for about in self.referrers(repository, digest)? {
                let folder = self.referrers_folder(repository, digest);
                files.links.push(folder.join(about.hex()));
            }
        }
        for tag in self.tags(repository)? {
            let means = self.tagged(repository, &tag)?;
            if means.is_some_and(|digest| parts.manifests.contains(&digest)) {
                files.links.push(self.tag_file(repository, &tag));
            }
        }
        let links = parts
            .blobs
            .iter()
            .map(|digest| self.blob_link(repository, digest));
        files.links.extend(links);
        let contents = parts.manifests.iter().chain(&parts.blobs);
        files
            .contents
            .extend(contents.map(|digest| self.path(digest)));
        let within = |path: &mut PathBuf| {
            if let Ok(relative) = path.strip_prefix(self.root()) {
                *path = relative.to_owned();
            }
        };
        files.contents.iter_mut().for_each(within);
        files.links.iter_mut().for_each(within);
        Ok(files)
    }

    /// A link that leads nowhere needs nothing.
    fn manifest(&self, repository: &Repository, digest: &Digest) -> Result<Manifest, StoreError> {
        let age = files::age(&self.manifest_link(repository, digest));
        let bytes = match self.read_small(digest, MANIFEST_LIMIT) {
            Ok(bytes) => bytes,
            Err(StoreError::Missing { .. }) => {
                return Ok(Manifest {
                    age,
                    ..Manifest::default()
                });
            }
            Err(error) => return Err(error),
        };
        let names = match self.read_manifest(digest, &bytes)? {
            Named::Blobs(digests) | Named::Manifests(digests) => digests.into_iter().collect(),
        };
        Ok(Manifest {
            age,
            names,
            subject: subject(&bytes),
        })
    }

    fn read_manifest(&self, digest: &Digest, bytes: &[u8]) -> Result<Named, StoreError> {
        if let Ok(manifest) = ImageManifest::from_slice(bytes) {
            let ours = |blob: &&Descriptor| media_type::is_distributable(&blob.media_type);
            let blobs = manifest.blobs().filter(ours).map(|blob| blob.digest);
            return Ok(Named::Blobs(blobs.collect()));
        }
        match ImageIndex::from_slice(bytes) {
            Ok(index) => {
                let manifests = index.manifests.iter().map(|entry| entry.digest);
                Ok(Named::Manifests(manifests.collect()))
            }
            Err(_) => Err(StoreError::Corrupt {
                path: self.path(digest),
            }),
        }
    }
}

/// What a manifest needs.
enum Named {
    Blobs(Vec<Digest>),
    Manifests(Vec<Digest>),
}

/// What a manifest is about.
pub(super) fn subject(bytes: &[u8]) -> Option<Digest> {
    #[derive(Deserialize)]
    struct Outline {
        subject: Option<Descriptor>,
    }
    let outline: Outline = serde_json::from_slice(bytes).ok()?;
    Some(outline.subject?.digest)
}

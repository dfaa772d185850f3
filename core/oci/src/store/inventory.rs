//! What a store holds at a moment, who needs what of it, and what would go without some of it. Looks only.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::{Store, StoreError, files};
use crate::digest::{Algorithm, Digest};
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
    /// Whether these are manifests.
    pub lists: bool,
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

impl Holdings {
    /// What has to go before each manifest: those that name it, and the one that it is about.
    pub(super) fn holders(&self) -> BTreeMap<Digest, BTreeSet<Digest>> {
        let mut holders: BTreeMap<Digest, BTreeSet<Digest>> = BTreeMap::new();
        for (digest, manifest) in &self.manifests {
            for named in &manifest.names {
                if self.manifests.contains_key(named) {
                    holders.entry(*named).or_default().insert(*digest);
                }
            }
            if let Some(subject) = manifest.subject
                && self.manifests.contains_key(&subject)
            {
                holders.entry(*digest).or_default().insert(subject);
            }
        }
        holders
    }

    /// Those of the manifests that are here, in the order in which they may go: a list before what it lists, an image
    /// before what is about it. Whoever stops half-way has left nothing that names what is not there.
    #[must_use]
    pub fn in_order(&self, digests: &BTreeSet<Digest>) -> Vec<Digest> {
        let among = |digest: &&Digest| digests.contains(digest);
        let mut held: BTreeMap<Digest, Vec<Digest>> = BTreeMap::new();
        let mut waits_for: BTreeMap<Digest, usize> = BTreeMap::new();
        for (digest, holders) in self.holders() {
            if !digests.contains(&digest) {
                continue;
            }
            for holder in holders.iter().filter(among) {
                held.entry(*holder).or_default().push(digest);
                *waits_for.entry(digest).or_default() += 1;
            }
        }
        let here = digests.iter().filter(|d| self.manifests.contains_key(d));
        let mut order: Vec<Digest> = here
            .filter(|d| !waits_for.contains_key(d))
            .copied()
            .collect();
        let mut next = 0;
        while let Some(digest) = order.get(next).copied() {
            next += 1;
            for freed in held.remove(&digest).unwrap_or_default() {
                let left = waits_for.entry(freed).or_default();
                *left = left.saturating_sub(1);
                if *left == 0 {
                    order.push(freed);
                }
            }
        }
        order
    }
}

impl Inventory {
    /// Whether a repository has a manifest with all that it names.
    #[must_use]
    pub fn is_whole(&self, repository: &Repository, digest: &Digest) -> bool {
        let Some(holdings) = self.repositories.get(repository) else {
            return false;
        };
        let mut seen = BTreeSet::new();
        let mut open = vec![*digest];
        while let Some(next) = open.pop() {
            if !seen.insert(next) {
                continue;
            }
            let Some(manifest) = holdings.manifests.get(&next) else {
                return false;
            };
            let has_blob = |blob: &Digest| {
                holdings.blobs.contains_key(blob) && self.contents.contains_key(blob)
            };
            if !self.contents.contains_key(&next) {
                return false;
            }
            if manifest.lists {
                open.extend(&manifest.names);
            } else if !manifest.names.iter().all(has_blob) {
                return false;
            }
        }
        true
    }
}

impl Store {
    /// Whether a repository has a manifest with all that it names. What is about it is not needed to run it.
    pub fn is_whole(&self, repository: &Repository, digest: &Digest) -> Result<bool, StoreError> {
        let mut seen = BTreeSet::new();
        let mut open = vec![*digest];
        while let Some(next) = open.pop() {
            if !seen.insert(next) {
                continue;
            }
            if self.manifest_media_type(repository, &next)?.is_none() {
                return Ok(false);
            }
            let Some(named) = self.named(repository, &next)? else {
                return Ok(false);
            };
            match named {
                Named::Blobs(blobs) if blobs.iter().all(|b| self.linked(repository, b)) => {}
                Named::Blobs(_) => return Ok(false),
                Named::Manifests(manifests) => open.extend(manifests),
            }
        }
        Ok(true)
    }

    /// Manifests with all that they name, as far as it is here.
    pub fn closure(
        &self,
        repository: &Repository,
        roots: impl IntoIterator<Item = Digest>,
    ) -> Result<BTreeSet<Digest>, StoreError> {
        let mut all = BTreeSet::new();
        let mut open: Vec<Digest> = roots.into_iter().collect();
        while let Some(next) = open.pop() {
            if all.insert(next)
                && let Some(named) = self.named(repository, &next)?
            {
                match named {
                    Named::Blobs(blobs) => all.extend(blobs),
                    Named::Manifests(manifests) => open.extend(manifests),
                }
            }
        }
        Ok(all)
    }

    /// Gives a repository back the links that it lacks to an image that it had: possible as long as all content is
    /// here. Says whether the image is whole.
    pub fn relink(&self, repository: &Repository, digest: &Digest) -> Result<bool, StoreError> {
        if self.is_whole(repository, digest)? {
            return Ok(true);
        }
        let (mut manifests, mut blobs) = (Vec::new(), BTreeSet::new());
        let mut open = vec![*digest];
        while let Some(next) = open.pop() {
            if manifests.iter().any(|(known, _)| *known == next) {
                continue;
            }
            match self.named(repository, &next)? {
                None => return Ok(false),
                Some(Named::Blobs(named)) => {
                    manifests.push((next, media_type::OCI_MANIFEST));
                    blobs.extend(named);
                }
                Some(Named::Manifests(named)) => {
                    manifests.push((next, media_type::OCI_INDEX));
                    open.extend(named);
                }
            }
        }
        let blobs: Vec<Digest> = blobs.into_iter().collect();
        if self.link_present(repository, &blobs)?.len() < blobs.len() {
            return Ok(false);
        }
        // What names comes after what it names.
        for (digest, usual) in manifests.iter().rev() {
            if self.manifest_media_type(repository, digest)?.is_none() {
                let written = written_media_type(&self.read_small(digest, MANIFEST_LIMIT)?);
                let media_type = written.as_deref().unwrap_or(usual);
                self.link_manifest(repository, digest, media_type)?;
            }
        }
        self.is_whole(repository, digest)
    }

    /// What a manifest names; nothing where it is not here.
    fn named(&self, repository: &Repository, digest: &Digest) -> Result<Option<Named>, StoreError> {
        let bytes = match self.read_small(digest, MANIFEST_LIMIT) {
            Err(StoreError::Missing { .. }) => return Ok(None),
            read => read?,
        };
        let media_type = self
            .manifest_media_type(repository, digest)?
            .or_else(|| written_media_type(&bytes));
        let named = self.read_manifest(digest, media_type.as_deref(), &bytes)?;
        Ok(Some(named))
    }

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
        for digest in self.contents()? {
            let age = files::age(&self.path(&digest));
            let size = self.size(&digest).unwrap_or_default();
            inventory.contents.insert(digest, Content { size, age });
        }
        Ok(inventory)
    }

    /// Everything on the disk, whoever needs it.
    pub fn contents(&self) -> Result<Vec<Digest>, StoreError> {
        let mut contents = Vec::new();
        for algorithm in Algorithm::ALL {
            let names = files::names(&self.blobs(algorithm))?;
            let digests = names.iter().filter_map(|name| Digest::from_hex(name).ok());
            contents.extend(digests.filter(|digest| digest.algorithm() == algorithm));
        }
        Ok(contents)
    }

    /// All that it takes to pull an image of a repository. A manifest that is not there is an error.
    pub fn parts(&self, repository: &Repository, digest: &Digest) -> Result<Parts, StoreError> {
        let mut parts = Parts::default();
        let mut open = vec![*digest];
        while let Some(next) = open.pop() {
            if !parts.manifests.insert(next) {
                continue;
            }
            let named = self.named(repository, &next)?;
            match named.ok_or(StoreError::Missing { digest: next })? {
                Named::Blobs(blobs) => parts.blobs.extend(blobs),
                Named::Manifests(manifests) => open.extend(manifests),
            }
            for about in self.referrers(repository, &next)? {
                // An image can be pulled without what is about it.
                if self.is_whole(repository, &about)? {
                    open.push(about);
                }
            }
        }
        Ok(parts)
    }

    /// The files of the store, relative to its folder, that make an image of a repository all there is to it.
    pub fn files_of(&self, repository: &Repository, digest: &Digest) -> Result<Files, StoreError> {
        let parts = self.parts(repository, digest)?;
        let mut files = Files::default();
        for digest in &parts.manifests {
            files.links.push(self.manifest_link(repository, digest));
            let about = self.referrers(repository, digest)?.into_iter();
            for about in about.filter(|about| parts.manifests.contains(about)) {
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
        let media_type = self.manifest_media_type(repository, digest)?;
        let named = self.read_manifest(digest, media_type.as_deref(), &bytes)?;
        let lists = matches!(named, Named::Manifests(_));
        let (Named::Blobs(names) | Named::Manifests(names)) = named;
        Ok(Manifest {
            age,
            names: names.into_iter().collect(),
            lists,
            subject: subject(&bytes),
        })
    }

    /// As what it was pushed, because one document may look like both.
    fn read_manifest(
        &self,
        digest: &Digest,
        media_type: Option<&str>,
        bytes: &[u8],
    ) -> Result<Named, StoreError> {
        let is_list = media_type.is_some_and(media_type::is_index);
        let is_image = media_type.is_some_and(media_type::is_manifest);
        if !is_list && let Ok(manifest) = ImageManifest::from_slice(bytes) {
            let ours = |blob: &&Descriptor| media_type::is_distributable(&blob.media_type);
            let blobs = manifest.blobs().filter(ours).map(|blob| blob.digest);
            return Ok(Named::Blobs(blobs.collect()));
        }
        if !is_image && let Ok(index) = ImageIndex::from_slice(bytes) {
            let manifests = index.manifests.iter().map(|entry| entry.digest);
            return Ok(Named::Manifests(manifests.collect()));
        }
        Err(StoreError::Corrupt {
            path: self.path(digest),
        })
    }
}

/// What a manifest needs.
enum Named {
    Blobs(Vec<Digest>),
    Manifests(Vec<Digest>),
}

/// What a manifest says that it is.
fn written_media_type(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Outline {
        media_type: Option<String>,
    }
    let outline: Outline = serde_json::from_slice(bytes).ok()?;
    outline.media_type
}

/// What a manifest is about.
fn subject(bytes: &[u8]) -> Option<Digest> {
    #[derive(Deserialize)]
    struct Outline {
        subject: Option<Descriptor>,
    }
    let outline: Outline = serde_json::from_slice(bytes).ok()?;
    Some(outline.subject?.digest)
}

//! Base images from registries. Which image a name means is in `deploy.lock`; manifest,
//! configuration and what was found in the layers are kept by digest, so that a base that is known
//! needs its registry no more. Layers are fetched when the target has them neither already nor by a
//! mount, and once to look into them.

mod error;
mod fetch;
mod kept;
mod registry;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use deploy_image::{Accounts, BaseFacts, BaseImage, BaseSource, Look, Looked};
use oci::{
    BlobSource, Descriptor, Digest, ImageIndex, ImageManifest, Platform, Reference, Repository,
    Store,
};

pub(crate) use error::BaseError;
pub(crate) use registry::Access;

use crate::events::Event;
use crate::lock::{Lock, Pin};
use fetch::{Fetch, Found, of_platform, read_config, read_manifest};
use kept::Kept;
use registry::{BaseLayer, Registry};

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Where base images come from.
pub(crate) struct Bases<'a> {
    /// `.systemprompt`
    folder: PathBuf,
    kept: Kept,
    online: Option<Online<'a>>,
    /// The images given, by their manifests.
    given: RefCell<BTreeMap<Digest, Given>>,
    registries: Registries,
}

/// The registries that were asked, by name: one connection and one look for credentials for all images of a deployment.
#[derive(Clone, Default)]
pub(crate) struct Registries(Rc<RefCell<BTreeMap<String, Arc<Registry>>>>);

/// What it takes to ask registries.
pub(crate) struct Online<'a> {
    /// Where layers go.
    pub(crate) store: &'a Store,
    pub(crate) access: Access,
    /// Refuse what `deploy.lock` does not pin.
    pub(crate) locked: bool,
}

/// Asks a registry what a name means now, and notes it in the lock of the project whose
/// `.systemprompt` is `folder`.
pub(crate) fn update(folder: &Path, access: &Access, pin: &Pin) -> Result<Digest, BaseError> {
    let reference = parse(&pin.reference)?;
    let fetch = Fetch {
        kept: &Kept::below(&folder.join("cache")),
        registry: Arc::new(Registry::new(reference.registry(), access.clone())),
        reference: &reference,
    };
    let found = fetch.by_tag(&pin.machines())?;
    Lock::read(folder)?.set(pin.clone(), found.digest)?;
    Ok(found.digest)
}

/// Who has a layer: in the same registry it can be mounted from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The layer.
    pub layer: Digest,
    /// `host[:port]`
    pub registry: String,
    /// The repository in it.
    pub repository: Repository,
}

/// An image that another one stands on or takes files from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UsedBase {
    /// What it was asked for by.
    pub(crate) reference: Reference,
    /// What it is, where that is known.
    pub(crate) digest: Option<Digest>,
}

/// A finished image as it is copied: every byte of it stays as it is.
pub(crate) struct Finished {
    pub(crate) digest: Digest,
    pub(crate) manifest: ImageManifest,
    /// The manifest as its registry has it.
    pub(crate) bytes: Vec<u8>,
    /// The configuration.
    pub(crate) config: Vec<u8>,
}

/// Where the layers of an image are.
#[derive(Debug, Clone)]
struct Given {
    reference: Reference,
    registry: Arc<Registry>,
    repository: Repository,
    layers: Vec<Descriptor>,
}

impl<'a> Bases<'a> {
    /// Those that are known here: no registry is asked, nothing is written.
    pub(crate) fn known(folder: PathBuf) -> Self {
        Self {
            kept: Kept::below(&folder.join("cache")),
            folder,
            online: None,
            given: RefCell::default(),
            registries: Registries::default(),
        }
    }

    /// Those that are known, and all others from their registries.
    pub(crate) fn online(folder: PathBuf, online: Online<'a>, registries: &Registries) -> Self {
        Self {
            online: Some(online),
            registries: registries.clone(),
            ..Self::known(folder)
        }
    }

    /// Where a layer is sent from, if it belongs to one of the images given.
    pub(crate) fn source(&self, store: &Store, layer: &Digest) -> Option<Box<dyn BlobSource>> {
        let given = self.given.borrow();
        let (manifest, found) = given
            .iter()
            .find(|(_, given)| given.layers.iter().any(|known| known.digest == *layer))?;
        let layer = found.layers.iter().find(|known| known.digest == *layer)?;
        Some(Box::new(found.layer(
            manifest,
            layer,
            store.root().to_owned(),
        )))
    }

    /// The images given so far were another image's affair. Registries that were asked stay known.
    pub(crate) fn forget_given(&self) {
        self.given.borrow_mut().clear();
    }

    /// A finished image.
    pub(crate) fn finished(&self, text: &str, platform: &Platform) -> Result<Finished, BaseError> {
        let unknown = || BaseError::Unknown {
            image: text.to_owned(),
        };
        let found = self.find(text, platform)?.ok_or_else(unknown)?;
        let digest = found.digest.ok_or_else(unknown)?;
        let bytes = self.kept.read(&digest).ok_or_else(unknown)?;
        let manifest = read_manifest(&parse(text)?, &bytes)?;
        let config = self.kept.read(&manifest.config.digest);
        Ok(Finished {
            digest,
            config: config.ok_or_else(unknown)?,
            bytes,
            manifest,
        })
    }

    /// Who has the layers of the images given.
    pub(crate) fn holders(&self) -> Vec<Holder> {
        let given = self.given.borrow();
        let held = given.values().flat_map(|given| {
            given.layers.iter().map(|layer| Holder {
                layer: layer.digest,
                registry: given.registry.name().to_owned(),
                repository: given.repository.clone(),
            })
        });
        held.collect()
    }

    /// The images given, by name and digest.
    pub(crate) fn used(&self) -> Vec<UsedBase> {
        let given = self.given.borrow();
        let used = given.iter().map(|(digest, given)| UsedBase {
            reference: given.reference.clone(),
            digest: Some(*digest),
        });
        used.collect()
    }

    /// What is in an image: from the record, or by fetching its layers once and reading them.
    pub(crate) fn facts(&self, image: &BaseImage) -> Result<Looked<BaseFacts>, BaseError> {
        let Some(digest) = &image.digest else {
            return Ok(Looked::Later);
        };
        if let Some(facts) = self.kept.facts(digest) {
            return Ok(Looked::Found(facts));
        }
        let unreadable = image
            .layers
            .iter()
            .find_map(|layer| Look::check_readable(&layer.media_type).err());
        if let Some(error) = unreadable {
            return Ok(Looked::Impossible(error.to_string()));
        }
        let Some(online) = &self.online else {
            return Ok(Looked::Later);
        };
        let given = self.given.borrow().get(digest).cloned();
        let Some(given) = given else {
            return Ok(Looked::Later);
        };
        let facts = self.look(online, &given, digest, image)?;
        if let Err(error) = self.kept.keep_facts(digest, &facts) {
            // The next run looks again, that is all.
            online.access.tell(Event::Warning(format!(
                "what was found in {} cannot be kept: {error}",
                image.reference
            )));
        }
        Ok(Looked::Found(facts))
    }

    fn look(
        &self,
        online: &Online<'_>,
        given: &Given,
        digest: &Digest,
        image: &BaseImage,
    ) -> Result<BaseFacts, BaseError> {
        let failed = |source| BaseError::Look {
            image: image.reference.clone(),
            source,
        };
        // The scratch folder is the store's.
        self.kept.store().map_err(|source| BaseError::Store {
            image: image.reference.clone(),
            source,
        })?;
        let mut look = Look::begin(&self.kept.scratch()).map_err(failed)?;
        for layer in &image.layers {
            let source = given.layer(digest, layer, online.store.root().to_owned());
            look.layer(&layer.media_type, source.file()?)
                .map_err(failed)?;
        }
        Ok(look.finish())
    }

    fn find(&self, text: &str, platform: &Platform) -> Result<Option<BaseImage>, BaseError> {
        let reference = parse(text)?;
        let pin = Pin::of(&reference, platform);
        let pinned = match reference.digest() {
            Some(digest) => Some(*digest),
            None => Lock::read(&self.folder)?.get(&pin),
        };
        let known = match &pinned {
            Some(digest) => self.remembered(&reference, digest, platform)?,
            None => None,
        };
        let found = match (known, &self.online, pinned) {
            (Some(found), ..) => found,
            (None, None, _) => return Ok(None),
            (None, Some(online), Some(digest)) => {
                Fetch::new(self, online, &reference).by_digest(&digest, platform)?
            }
            (None, Some(online), None) if online.locked => {
                return Err(BaseError::NotLocked { pin });
            }
            (None, Some(online), None) => self.pin(online, &reference, pin, platform)?,
        };
        self.give(&reference, &found);
        Ok(Some(BaseImage {
            reference: text.to_owned(),
            digest: Some(found.digest),
            config: found.config,
            layers: found.manifest.layers,
        }))
    }

    /// Finds out what a tag means now, and writes it into the lock.
    fn pin(
        &self,
        online: &Online<'_>,
        reference: &Reference,
        pin: Pin,
        platform: &Platform,
    ) -> Result<Found, BaseError> {
        let found = Fetch::new(self, online, reference).by_tag(platform)?;
        let note = format!(
            "{} is pinned to {} in .systemprompt/deploy.lock: commit it",
            pin.reference,
            crate::push::short(&found.digest)
        );
        Lock::read(&self.folder)?.set(pin, found.digest)?;
        online.access.tell(Event::Note(note));
        Ok(found)
    }

    /// The image with this digest, or of the index with it, as it is kept here.
    fn remembered(
        &self,
        reference: &Reference,
        digest: &Digest,
        platform: &Platform,
    ) -> Result<Option<Found>, BaseError> {
        let Some(bytes) = self.kept.read(digest) else {
            return Ok(None);
        };
        if let Ok(index) = ImageIndex::from_slice(&bytes)
            && !index.manifests.is_empty()
        {
            let digest = of_platform(reference, &index, platform)?;
            let Some(bytes) = self.kept.read(&digest) else {
                return Ok(None);
            };
            return self.complete(reference, digest, &bytes, platform);
        }
        self.complete(reference, *digest, &bytes, platform)
    }

    fn complete(
        &self,
        reference: &Reference,
        digest: Digest,
        manifest: &[u8],
        platform: &Platform,
    ) -> Result<Option<Found>, BaseError> {
        let manifest = read_manifest(reference, manifest)?;
        let Some(config) = self.kept.read(&manifest.config.digest) else {
            return Ok(None);
        };
        let config = read_config(reference, &config, platform)?;
        Ok(Some(Found {
            digest,
            manifest,
            config,
        }))
    }

    fn registry(&self, online: &Online<'_>, name: &str) -> Arc<Registry> {
        let mut registries = self.registries.0.borrow_mut();
        let registry = registries
            .entry(name.to_owned())
            .or_insert_with(|| Arc::new(Registry::new(name, online.access.clone())));
        Arc::clone(registry)
    }

    fn give(&self, reference: &Reference, found: &Found) {
        let Some(online) = &self.online else {
            return;
        };
        let mut given = self.given.borrow_mut();
        given.entry(found.digest).or_insert_with(|| Given {
            reference: reference.clone(),
            registry: self.registry(online, reference.registry()),
            repository: reference.repository().clone(),
            layers: found.manifest.layers.clone(),
        });
    }
}

impl Given {
    fn layer(&self, manifest: &Digest, layer: &Descriptor, store: PathBuf) -> BaseLayer {
        let (name, repository) = (self.registry.name(), &self.repository);
        BaseLayer {
            registry: Arc::clone(&self.registry),
            repository: repository.clone(),
            image: format!("{name}/{repository}@{manifest}"),
            layer: layer.clone(),
            store,
        }
    }
}

impl BaseSource for Bases<'_> {
    fn image(&self, reference: &str, platform: &Platform) -> Result<Option<BaseImage>, Failed> {
        Ok(self.find(reference, platform)?)
    }

    fn accounts(&self, image: &BaseImage) -> Result<Looked<Accounts>, Failed> {
        Ok(match self.facts(image)? {
            Looked::Found(facts) => Looked::Found(facts.accounts()),
            Looked::Later => Looked::Later,
            Looked::Impossible(reason) => Looked::Impossible(reason),
        })
    }
}

fn parse(text: &str) -> Result<Reference, BaseError> {
    text.parse().map_err(|source| BaseError::Reference {
        text: text.to_owned(),
        source,
    })
}

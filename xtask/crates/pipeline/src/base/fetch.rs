//! Asking a registry for a base image: its manifest, chosen for the platform, and its configuration.
//! Its layers stay where they are.

use std::sync::Arc;

use oci::{
    Client, ClientError, Descriptor, Digest, ImageConfig, ImageIndex, ImageManifest, Platform,
    Reference, Store, Tag, TagOrDigest, media_type,
};

use super::error::BaseError;
use super::kept::Kept;
use super::registry::Registry;
use super::{Bases, Online};
use crate::lock::platform_text;

/// No configuration of an image is longer.
const CONFIG_LIMIT: u64 = 4 * 1024 * 1024;

/// An image as its registry or the cache has it.
pub(super) struct Found {
    pub(super) digest: Digest,
    pub(super) manifest: ImageManifest,
    pub(super) config: ImageConfig,
}

/// One image on its way here: manifest and configuration, not its layers.
pub(super) struct Fetch<'a> {
    pub(super) kept: &'a Kept,
    pub(super) registry: Arc<Registry>,
    pub(super) reference: &'a Reference,
}

impl<'a> Fetch<'a> {
    pub(super) fn new(bases: &'a Bases<'_>, online: &Online<'_>, reference: &'a Reference) -> Self {
        Self {
            kept: &bases.kept,
            registry: bases.registry(online, reference.registry()),
            reference,
        }
    }

    pub(super) fn by_tag(&self, platform: &Platform) -> Result<Found, BaseError> {
        // Docker's meaning of a reference without a tag.
        let latest = || parse_tag("latest");
        let tag = self.reference.tag().cloned().map_or_else(latest, Ok)?;
        self.image(
            TagOrDigest::Tag(&tag),
            &self.reference.to_string(),
            platform,
        )
    }

    pub(super) fn by_digest(
        &self,
        digest: &Digest,
        platform: &Platform,
    ) -> Result<Found, BaseError> {
        let image = self.reference.pinned(*digest).to_string();
        self.image(TagOrDigest::Digest(digest), &image, platform)
    }

    fn image(
        &self,
        wanted: TagOrDigest<'_>,
        image: &str,
        platform: &Platform,
    ) -> Result<Found, BaseError> {
        let unkept = |source| BaseError::Store {
            image: image.to_owned(),
            source,
        };
        let repository = self.reference.repository();
        let ask = |wanted: TagOrDigest<'_>| {
            let question = |client: &Client| client.get_manifest(repository, wanted);
            self.registry.ask(image, question)
        };
        let store = self.kept.store().map_err(unkept)?;
        let mut received = ask(wanted)?;
        store.put_bytes(&received.bytes).map_err(unkept)?;
        if media_type::is_index(&received.media_type) {
            let index =
                ImageIndex::from_slice(&received.bytes).map_err(|source| BaseError::Manifest {
                    image: image.to_owned(),
                    source,
                })?;
            let digest = of_platform(self.reference, &index, platform)?;
            received = ask(TagOrDigest::Digest(&digest))?;
            store.put_bytes(&received.bytes).map_err(unkept)?;
        }
        let manifest = read_manifest(self.reference, &received.bytes)?;
        let config = self.config(image, &manifest.config, &store)?;
        Ok(Found {
            digest: received.digest,
            config: read_config(self.reference, &config, platform)?,
            manifest,
        })
    }

    fn config(
        &self,
        image: &str,
        config: &Descriptor,
        store: &Store,
    ) -> Result<Vec<u8>, BaseError> {
        if config.size > CONFIG_LIMIT {
            return Err(BaseError::Configuration {
                image: image.to_owned(),
                reason: "it has more than 4 MiB".to_owned(),
            });
        }
        let repository = self.reference.repository();
        let fetch = |client: &Client| -> Result<(), ClientError> {
            client.fetch_blob(repository, config, store)
        };
        self.registry.ask(image, fetch)?;
        store
            .read_small(&config.digest, CONFIG_LIMIT)
            .map_err(|source| BaseError::Store {
                image: image.to_owned(),
                source,
            })
    }
}

fn parse_tag(text: &str) -> Result<Tag, BaseError> {
    text.parse().map_err(|source| BaseError::Reference {
        text: text.to_owned(),
        source,
    })
}

pub(super) fn read_manifest(
    reference: &Reference,
    bytes: &[u8],
) -> Result<ImageManifest, BaseError> {
    ImageManifest::from_slice(bytes).map_err(|source| BaseError::Manifest {
        image: reference.to_string(),
        source,
    })
}

/// Reads a configuration and sees to it that it is for the right machines: only an index says so
/// before.
pub(super) fn read_config(
    reference: &Reference,
    bytes: &[u8],
    platform: &Platform,
) -> Result<ImageConfig, BaseError> {
    let image = reference.to_string();
    let config = ImageConfig::from_slice(bytes).map_err(|error| BaseError::Configuration {
        image: image.clone(),
        reason: error.to_string(),
    })?;
    let unsaid = config.os.is_empty() || config.architecture.is_empty();
    let right = config.os == platform.os && config.architecture == platform.architecture;
    if unsaid || right {
        return Ok(config);
    }
    Err(BaseError::OtherPlatform {
        image,
        found: format!("{}/{}", config.os, config.architecture),
        wanted: platform_text(platform),
    })
}

pub(super) fn of_platform(
    reference: &Reference,
    index: &ImageIndex,
    platform: &Platform,
) -> Result<Digest, BaseError> {
    let found = index.for_platform(platform);
    found.map(|found| found.digest).ok_or_else(|| {
        let offered = index.manifests.iter();
        let offered = offered.filter_map(|entry| entry.platform.as_ref());
        let offered: Vec<String> = offered
            // What is attached to images stands in the list as well.
            .filter(|platform| platform.os != "unknown")
            .map(platform_text)
            .collect();
        BaseError::NoPlatform {
            image: reference.to_string(),
            wanted: platform_text(platform),
            offered: match offered[..] {
                [] => "none that is named".to_owned(),
                _ => offered.join(", "),
            },
        }
    })
}

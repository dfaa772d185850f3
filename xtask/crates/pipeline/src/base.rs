//! Base images from registries: manifest, configuration and layers, kept in the local store by
//! digest.

use std::error::Error;

use deploy_image::{BaseImage, BaseSource};
use oci::{
    Client, ClientOptions, Digest, ImageConfig, ImageIndex, ImageManifest, PlainHttp, Platform,
    Reference, Repository, Store, Tag, TagOrDigest, media_type,
};

type Failed = Box<dyn Error + Send + Sync>;
/// No configuration of an image is longer.
const CONFIG_LIMIT: u64 = 4 * 1024 * 1024;

/// Where base images come from.
#[derive(Clone)]
pub(crate) struct Bases<'a> {
    store: Option<&'a Store>,
    insecure: &'a [String],
    replacement: Option<String>,
}

impl<'a> Bases<'a> {
    /// From nowhere: a plan is made without looking at them.
    pub(crate) fn offline() -> Self {
        Self {
            store: None,
            insecure: &[],
            replacement: None,
        }
    }

    /// From their registries, into the store.
    pub(crate) fn online(store: &'a Store, insecure: &'a [String]) -> Self {
        Self {
            store: Some(store),
            insecure,
            replacement: None,
        }
    }

    /// The image given stands in for whatever a Dockerfile's `FROM` names (`image.base`).
    pub(crate) fn in_place_of_all(&self, reference: &str) -> Self {
        Self {
            replacement: Some(reference.to_owned()),
            ..self.clone()
        }
    }
}

impl BaseSource for Bases<'_> {
    fn image(&self, reference: &str, platform: &Platform) -> Result<Option<BaseImage>, Failed> {
        let Some(store) = self.store else {
            return Ok(None);
        };
        let name = self.replacement.as_deref().unwrap_or(reference);
        let fetch = Fetch {
            store,
            reference: name.parse::<Reference>()?,
            insecure: self.insecure,
        };
        fetch.image(name, platform).map(Some)
    }
}

struct Fetch<'a> {
    store: &'a Store,
    reference: Reference,
    insecure: &'a [String],
}

impl Fetch<'_> {
    fn image(&self, name: &str, platform: &Platform) -> Result<BaseImage, Failed> {
        let client = Client::new(self.reference.registry(), self.options())?;
        let repository = self.reference.repository();
        let manifest = self.manifest(&client, repository, platform)?;
        client.fetch_blob(repository, &manifest.config, self.store)?;
        for layer in &manifest.layers {
            client.fetch_blob(repository, layer, self.store)?;
        }
        let config = self
            .store
            .read_small(&manifest.config.digest, CONFIG_LIMIT)?;
        Ok(BaseImage {
            reference: name.to_owned(),
            config: serde_json::from_slice::<ImageConfig>(&config)?,
            layers: manifest.layers,
            accounts: deploy_image::Accounts::default(),
        })
    }

    fn options(&self) -> ClientOptions {
        ClientOptions {
            plain_http: PlainHttp {
                loopback: true,
                registries: self.insecure.to_vec(),
            },
            ..ClientOptions::default()
        }
    }

    fn manifest(
        &self,
        client: &Client,
        repository: &Repository,
        platform: &Platform,
    ) -> Result<ImageManifest, Failed> {
        let latest = "latest".parse::<Tag>()?;
        let wanted = match (self.reference.digest(), self.reference.tag()) {
            (Some(digest), _) => TagOrDigest::Digest(digest),
            (None, Some(tag)) => TagOrDigest::Tag(tag),
            // Docker's meaning of a reference without a tag.
            (None, None) => TagOrDigest::Tag(&latest),
        };
        let received = client.get_manifest(repository, wanted)?;
        if !media_type::is_index(&received.media_type) {
            return Ok(ImageManifest::from_slice(&received.bytes)?);
        }
        let digest = self.of_platform(&received.bytes, platform)?;
        let received = client.get_manifest(repository, &digest)?;
        Ok(ImageManifest::from_slice(&received.bytes)?)
    }

    fn of_platform(&self, index: &[u8], platform: &Platform) -> Result<Digest, Failed> {
        let index = ImageIndex::from_slice(index)?;
        let found = index.for_platform(platform).ok_or_else(|| {
            format!(
                "{} has no image for {}/{}",
                self.reference, platform.os, platform.architecture
            )
        })?;
        Ok(found.digest)
    }
}

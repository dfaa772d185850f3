//! Small images made of pseudo-random bytes, and the options that tests give to clients.

use std::time::Duration;

use oci::{
    BlobSources, Client, ClientOptions, Credentials, Descriptor, ImageConfig, ImageManifest,
    ImagePush, Known, Pushed, Repository, RetryPolicy, RootFs, Tag, Timeouts, media_type,
    push_image,
};

pub(crate) struct TestImage {
    pub(crate) manifest: ImageManifest,
    pub(crate) blobs: Vec<(Descriptor, Vec<u8>)>,
}

impl TestImage {
    /// Layers of these lengths; the seed makes their content.
    pub(crate) fn new(seed: u64, lengths: &[usize]) -> Self {
        let blobs = lengths.iter().enumerate().map(|(index, length)| {
            let bytes = noise(seed * 1000 + index as u64, *length);
            (Descriptor::of(media_type::OCI_LAYER_GZIP, &bytes), bytes)
        });
        Self::of(blobs.collect())
    }

    /// Of these layers.
    pub(crate) fn of(mut blobs: Vec<(Descriptor, Vec<u8>)>) -> Self {
        let layers: Vec<_> = blobs
            .iter()
            .map(|(descriptor, _)| descriptor.clone())
            .collect();
        let config = ImageConfig {
            architecture: "amd64".to_owned(),
            os: "linux".to_owned(),
            rootfs: RootFs {
                diff_ids: layers.iter().map(|layer| layer.digest).collect(),
                ..RootFs::default()
            },
            ..ImageConfig::default()
        };
        let config_bytes = config.to_vec();
        let config = Descriptor::of(media_type::OCI_CONFIG, &config_bytes);
        blobs.push((config.clone(), config_bytes));
        Self {
            manifest: ImageManifest::new(config, layers),
            blobs,
        }
    }

    pub(crate) fn sources(&self) -> BlobSources {
        let mut sources = BlobSources::new();
        for (descriptor, bytes) in &self.blobs {
            sources.insert(descriptor.digest, Box::new(bytes.clone()));
        }
        sources
    }

    pub(crate) fn push(&self, client: &Client, name: &str, tag: &str) -> Pushed {
        self.try_push(client, name, tag, &[]).unwrap()
    }

    pub(crate) fn try_push(
        &self,
        client: &Client,
        name: &str,
        tag: &str,
        mount_from: &[Repository],
    ) -> Result<Pushed, oci::ClientError> {
        self.push_knowing(client, name, tag, mount_from, &Known::new())
    }

    pub(crate) fn push_knowing(
        &self,
        client: &Client,
        name: &str,
        tag: &str,
        mount_from: &[Repository],
        known: &Known,
    ) -> Result<Pushed, oci::ClientError> {
        let (repository, tag, sources) = (repository(name), self::tag(tag), self.sources());
        let push = ImagePush {
            repository: &repository,
            manifest: &self.manifest,
            sources: &sources,
            tag: Some(&tag),
            mount_from,
            known,
            store: None,
            ahead: None,
        };
        push_image(client, &push)
    }
}

pub(crate) fn repository(name: &str) -> Repository {
    name.parse().unwrap()
}

pub(crate) fn tag(name: &str) -> Tag {
    name.parse().unwrap()
}

pub(crate) fn client(address: &str, credentials: Option<(&str, &str)>) -> Client {
    Client::new(address, options(credentials)).unwrap()
}

/// Short pauses, so that tests of patience are quick.
pub(crate) fn options(credentials: Option<(&str, &str)>) -> ClientOptions {
    ClientOptions {
        credentials: credentials.map(|(username, password)| Credentials {
            username: username.to_owned(),
            password: password.into(),
        }),
        timeouts: Timeouts {
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(20),
        },
        retry: RetryPolicy {
            first_pause: Duration::from_millis(20),
            longest_pause: Duration::from_millis(100),
            ..RetryPolicy::default()
        },
        root_certificates: None,
        ..ClientOptions::default()
    }
}

/// Bytes that do not repeat: xorshift.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

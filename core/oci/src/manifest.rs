//! Image manifests and indexes: <https://github.com/opencontainers/image-spec>, version 1.1.
//!
//! Fields stand in the specification's order and maps are sorted, so that the same value always
//! yields the same bytes and therefore the same digest. Unknown fields are tolerated and dropped:
//! whoever passes a manifest on unchanged passes on its bytes, not its value.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::media_type;

/// What some content is, how long it is, and its address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The content's media type.
    pub media_type: String,
    /// The content's address.
    pub digest: Digest,
    /// The content's length in bytes.
    pub size: u64,
    /// Where else the content may be fetched.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub urls: Vec<String>,
    /// Free-form notes.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub annotations: BTreeMap<String, String>,
    /// The platform the content is for; only in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The artifact's type; only in an index of referrers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

impl Descriptor {
    /// A descriptor with nothing optional in it.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: None,
            artifact_type: None,
        }
    }

    /// The descriptor of `bytes`.
    pub fn of(media_type: impl Into<String>, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }
}

/// Which machines content runs on, in Go's words (`linux`, `amd64`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// The processor, as `GOARCH` names it.
    pub architecture: String,
    /// The operating system, as `GOOS` names it.
    pub os: String,
    /// The operating system's version.
    #[serde(
        rename = "os.version",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub os_version: Option<String>,
    /// The processor's variant, `v8` for instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// The platform of this machine.
    #[must_use]
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        let os = match std::env::consts::OS {
            "macos" => "darwin",
            other => other,
        };
        Self {
            architecture: architecture.to_owned(),
            os: os.to_owned(),
            os_version: None,
            variant: None,
        }
    }
}

/// The manifest of one image: its configuration and its layers, base first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageManifest {
    /// Always 2.
    pub schema_version: u32,
    /// OCI lets it be absent, Docker does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What an artifact is, when it is not an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The image configuration.
    pub config: Descriptor,
    /// The layers, base first.
    #[serde(default, deserialize_with = "null_as_default")]
    pub layers: Vec<Descriptor>,
    /// The manifest this one is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free-form notes.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub annotations: BTreeMap<String, String>,
}

impl ImageManifest {
    /// An OCI manifest of these parts.
    #[must_use]
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    /// Reads a manifest and checks that it is one.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, ParseManifestError> {
        check_shape(bytes)?;
        let manifest: Self = serde_json::from_slice(bytes)?;
        check_header(
            manifest.schema_version,
            manifest.media_type.as_deref(),
            media_type::is_manifest,
        )?;
        Ok(manifest)
    }

    /// The canonical bytes: compact JSON, fields in the specification's order.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        to_json(self)
    }

    /// The media type to send it with.
    #[must_use]
    pub fn media_type(&self) -> &str {
        self.media_type
            .as_deref()
            .unwrap_or(media_type::OCI_MANIFEST)
    }

    /// Every blob the manifest needs: the configuration, then the layers, base first.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        std::iter::once(&self.config).chain(&self.layers)
    }
}

/// A list of manifests, one a platform or one a referrer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageIndex {
    /// Always 2.
    pub schema_version: u32,
    /// OCI lets it be absent, Docker does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What an artifact is, when it is not a list of images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The manifests.
    #[serde(default, deserialize_with = "null_as_default")]
    pub manifests: Vec<Descriptor>,
    /// The manifest this one is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free-form notes.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub annotations: BTreeMap<String, String>,
}

impl ImageIndex {
    /// An OCI index of these manifests.
    #[must_use]
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.to_owned()),
            artifact_type: None,
            manifests,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    /// Reads an index and checks that it is one.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, ParseManifestError> {
        check_shape(bytes)?;
        let index: Self = serde_json::from_slice(bytes)?;
        check_header(
            index.schema_version,
            index.media_type.as_deref(),
            media_type::is_index,
        )?;
        Ok(index)
    }

    /// The canonical bytes: compact JSON, fields in the specification's order.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        to_json(self)
    }

    /// The manifest for a platform. An entry without a variant serves every variant.
    #[must_use]
    pub fn for_platform(&self, wanted: &Platform) -> Option<&Descriptor> {
        self.manifests.iter().find(|entry| {
            entry.platform.as_ref().is_some_and(|offered| {
                offered.os == wanted.os
                    && offered.architecture == wanted.architecture
                    && (wanted.variant.is_none()
                        || offered.variant.is_none()
                        || offered.variant == wanted.variant)
            })
        })
    }
}

/// Why bytes are not a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ParseManifestError {
    /// Not JSON, or not of this shape.
    #[error("the manifest is not well-formed")]
    Json(#[from] serde_json::Error),
    /// Schema 1 or something of the future.
    #[error("manifest schema version {found} is not supported, only 2 is")]
    SchemaVersion {
        /// The version found.
        found: u32,
    },
    /// The document says that it is something else.
    #[error("`{found}` is not the media type expected here")]
    MediaType {
        /// The media type found.
        found: String,
    },
    /// A document that reads as an image and as an index, depending on who looks.
    #[error("the document holds both `layers` and `manifests`")]
    Ambiguous,
}

pub(crate) fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    #[expect(
        clippy::expect_used,
        reason = "plain structs with string keys always serialise"
    )]
    serde_json::to_vec(value).expect("plain structs serialise")
}

pub(crate) fn null_as_default<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: serde::Deserializer<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// CVE-2021-41190: a document with both lists means different images to different readers.
fn check_shape(bytes: &[u8]) -> Result<(), ParseManifestError> {
    #[derive(Deserialize)]
    struct Lists {
        layers: Option<serde::de::IgnoredAny>,
        manifests: Option<serde::de::IgnoredAny>,
    }
    let lists: Lists = serde_json::from_slice(bytes)?;
    match (lists.layers, lists.manifests) {
        (Some(_), Some(_)) => Err(ParseManifestError::Ambiguous),
        _ => Ok(()),
    }
}

fn check_header(
    schema_version: u32,
    media_type: Option<&str>,
    expected: fn(&str) -> bool,
) -> Result<(), ParseManifestError> {
    if schema_version != 2 {
        return Err(ParseManifestError::SchemaVersion {
            found: schema_version,
        });
    }
    match media_type {
        Some(found) if !expected(found) => Err(ParseManifestError::MediaType {
            found: found.to_owned(),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> ImageManifest {
        ImageManifest::new(
            Descriptor::of(media_type::OCI_CONFIG, b"{}"),
            vec![Descriptor::of(media_type::OCI_LAYER_GZIP, b"layer")],
        )
    }

    #[test]
    fn canonical_bytes_read_back() {
        let manifest = sample();
        let bytes = manifest.to_vec();
        assert!(bytes.starts_with(br#"{"schemaVersion":2,"mediaType":"#));
        assert_eq!(ImageManifest::from_slice(&bytes).unwrap(), manifest);
        assert_eq!(manifest.blobs().count(), 2);
    }

    #[test]
    fn unknown_fields_and_nulls_are_tolerated() {
        let text = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"m","digest":"{0}","size":2,"data":"e30="}},
               "layers":null,"annotations":null,"x":1}}"#,
            Digest::of(b"{}")
        );
        let manifest = ImageManifest::from_slice(text.as_bytes()).unwrap();
        assert!(manifest.layers.is_empty());
        assert_eq!(manifest.media_type(), media_type::OCI_MANIFEST);
    }

    #[test]
    fn what_is_not_an_image_manifest_is_refused() {
        let mut old = sample();
        old.schema_version = 1;
        let error = ImageManifest::from_slice(&old.to_vec()).unwrap_err();
        assert!(matches!(
            error,
            ParseManifestError::SchemaVersion { found: 1 }
        ));

        let mut index = sample();
        index.media_type = Some(media_type::OCI_INDEX.to_owned());
        let error = ImageManifest::from_slice(&index.to_vec()).unwrap_err();
        assert!(matches!(error, ParseManifestError::MediaType { .. }));

        let error = ImageManifest::from_slice(br#"{"layers":[],"manifests":[]}"#).unwrap_err();
        assert!(matches!(error, ParseManifestError::Ambiguous));
        assert!(ImageManifest::from_slice(b"[]").is_err());
    }

    #[test]
    fn an_index_finds_the_platform() {
        let mut arm = Descriptor::of(media_type::OCI_MANIFEST, b"arm");
        arm.platform = Some(Platform {
            architecture: "arm64".to_owned(),
            os: "linux".to_owned(),
            os_version: None,
            variant: Some("v8".to_owned()),
        });
        let index = ImageIndex::new(vec![arm.clone()]);
        let read = ImageIndex::from_slice(&index.to_vec()).unwrap();
        let mut wanted = arm.platform.clone().unwrap();
        wanted.variant = None;
        assert_eq!(read.for_platform(&wanted), Some(&arm));
        wanted.architecture = "amd64".to_owned();
        assert_eq!(read.for_platform(&wanted), None);
    }
}

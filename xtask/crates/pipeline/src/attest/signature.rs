//! Signatures as cosign makes and finds them.
//!
//! What is signed is a small document that names the image by repository and digest ("simple
//! signing"). It is the layer of a manifest under the tag `sha256-HEX.sig`, and the signature is
//! an annotation of that layer; several signers share one such manifest. The format:
//! <https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md>.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci::{Client, ClientError, Descriptor, Digest, ImageManifest, Repository, Tag, media_type};
use serde::Serialize;

use super::key::{NotSigned, SigningKey};
use super::send::put_blob;

const PAYLOAD_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";

/// Why an image is not signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignError {
    /// The key did not work.
    #[error(transparent)]
    Key(#[from] NotSigned),
    /// The registry did not take the signature.
    #[error("cannot attach the signature")]
    Registry(#[from] ClientError),
    /// The tag that signatures stand under holds something else.
    #[error("{tag} in the registry is no list of signatures")]
    Foreign {
        /// The tag.
        tag: Tag,
    },
}

/// The document that is signed. Fields in the order of their names, as cosign writes them.
#[derive(Serialize)]
struct Payload<'a> {
    critical: Critical<'a>,
    optional: Option<()>,
}

#[derive(Serialize)]
struct Critical<'a> {
    identity: Identity<'a>,
    image: SignedImage,
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Serialize)]
struct Identity<'a> {
    #[serde(rename = "docker-reference")]
    reference: &'a str,
}

#[derive(Serialize)]
struct SignedImage {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// The bytes that are signed for an image of `name`, `registry/repository` without a tag.
pub(crate) fn payload(name: &str, image: &Digest) -> Vec<u8> {
    let payload = Payload {
        critical: Critical {
            identity: Identity { reference: name },
            image: SignedImage {
                digest: image.to_string(),
            },
            kind: "cosign container image signature",
        },
        optional: None,
    };
    super::to_json(&payload)
}

/// Signs an image, unless this key has signed it already. Signatures of others stay.
pub(crate) fn sign(
    client: &Client,
    repository: &Repository,
    registry: &str,
    image: &Digest,
    key: &SigningKey,
) -> Result<(), SignError> {
    let payload = payload(&format!("{registry}/{repository}"), image);
    let Some(tag) = tag(image) else {
        return Ok(());
    };
    let mut layers = existing(client, repository, &tag)?;
    if layers.iter().any(|layer| is_ours(layer, &payload, key)) {
        return Ok(());
    }
    let mut layer = Descriptor::of(PAYLOAD_TYPE, &payload);
    let signature = STANDARD.encode(key.sign(&payload)?);
    let annotations = &mut layer.annotations;
    annotations.insert(SIGNATURE_ANNOTATION.to_owned(), signature);
    layers.push(layer);
    let config = configuration(&layers);
    let config_descriptor = Descriptor::of(media_type::OCI_CONFIG, &config);
    put_blob(client, repository, &payload)?;
    put_blob(client, repository, &config)?;
    let manifest = ImageManifest::new(config_descriptor, layers);
    client.put_manifest(repository, &tag, &manifest.to_vec(), manifest.media_type())?;
    Ok(())
}

/// `sha256-HEX.sig`
fn tag(image: &Digest) -> Option<Tag> {
    format!("sha256-{}.sig", image.hex()).parse().ok()
}

/// The signatures that are there.
fn existing(
    client: &Client,
    repository: &Repository,
    tag: &Tag,
) -> Result<Vec<Descriptor>, SignError> {
    if client.manifest_exists(repository, tag)?.is_none() {
        return Ok(Vec::new());
    }
    let received = client.get_manifest(repository, tag)?;
    let manifest = ImageManifest::from_slice(&received.bytes)
        .map_err(|_| SignError::Foreign { tag: tag.clone() })?;
    Ok(manifest.layers)
}

fn is_ours(layer: &Descriptor, payload: &[u8], key: &SigningKey) -> bool {
    let signature = layer.annotations.get(SIGNATURE_ANNOTATION);
    let signature = signature.and_then(|text| STANDARD.decode(text).ok());
    layer.digest == Digest::of(payload)
        && signature.is_some_and(|signature| key.has_signed(payload, &signature))
}

/// The configuration of an image that is none: the layers, and nothing that changes.
fn configuration(layers: &[Descriptor]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Configuration {
        architecture: &'static str,
        created: &'static str,
        os: &'static str,
        config: std::collections::BTreeMap<String, String>,
        rootfs: RootFs,
    }
    #[derive(Serialize)]
    struct RootFs {
        #[serde(rename = "type")]
        kind: &'static str,
        diff_ids: Vec<Digest>,
    }
    super::to_json(&Configuration {
        architecture: "",
        created: "0001-01-01T00:00:00Z",
        os: "",
        config: std::collections::BTreeMap::new(),
        rootfs: RootFs {
            kind: "layers",
            diff_ids: layers.iter().map(|layer| layer.digest).collect(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_is_byte_for_byte_that_of_cosign() {
        let image = Digest::of(b"image");
        let text = String::from_utf8(payload("registry.example/app", &image)).unwrap();
        assert_eq!(
            text,
            format!(
                "{{\"critical\":{{\"identity\":{{\"docker-reference\":\"registry.example/app\"}},\
                 \"image\":{{\"docker-manifest-digest\":\"{image}\"}},\
                 \"type\":\"cosign container image signature\"}},\"optional\":null}}"
            )
        );
    }
}

//! Sending what is about an image: small blobs, and a manifest that names the image as its subject.

use oci::{Client, ClientError, Descriptor, Digest, ImageManifest, Repository, media_type};

/// A document about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Document {
    /// What kind of document it is.
    pub(crate) media_type: &'static str,
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
}

/// Sends bytes as a blob, unless the repository has them.
pub(crate) fn put_blob(
    client: &Client,
    repository: &Repository,
    bytes: &[u8],
) -> Result<(), ClientError> {
    let descriptor = Descriptor::of(media_type::OCI_EMPTY, bytes);
    if client.blob_exists(repository, &descriptor.digest)? {
        return Ok(());
    }
    client.push_blob(repository, &descriptor, &bytes.to_vec())
}

/// Attaches a document to an image: an artifact with one layer, as OCI 1.1 describes it.
pub(crate) fn attach(
    client: &Client,
    repository: &Repository,
    subject: &Descriptor,
    document: &Document,
) -> Result<Digest, ClientError> {
    let manifest = artifact(subject, document);
    put_blob(client, repository, EMPTY)?;
    put_blob(client, repository, &document.bytes)?;
    client.put_referrer(repository, &manifest)
}

/// The configuration of artifacts that have none.
const EMPTY: &[u8] = b"{}";

fn artifact(subject: &Descriptor, document: &Document) -> ImageManifest {
    let config = Descriptor::of(media_type::OCI_EMPTY, EMPTY);
    let layer = Descriptor::of(document.media_type, &document.bytes);
    let mut manifest = ImageManifest::new(config, vec![layer]);
    manifest.artifact_type = Some(document.media_type.to_owned());
    manifest.subject = Some(subject.clone());
    manifest
}

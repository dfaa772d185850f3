//! Pushing a whole image with as few requests as can be.
//!
//! One `HEAD` of the manifest comes first: when the tag means it already, nothing else is sent. Then
//! each blob is looked for, mounted from a repository that may have it, or uploaded, several at a
//! time and none twice; the manifest comes last, so that a broken push leaves no broken image.
//!
//! The requests of a push, `L` being the image's layers; `core/registry/tests/it/budget.rs` holds them:
//!
//! | | |
//! | --- | --- |
//! | the tag means the image | 1: the tag |
//! | the image is there, the tag is new | 3: the tag, the digest, the manifest |
//! | all layers are new and known to be | 2L + 4: the tag; begin and send each layer and the configuration; the manifest |
//! | one layer has changed | L + 5: the tag; begin and send that layer and the configuration; a look for each other; the manifest |
//! | nothing is known | 3L + 5: the digest and a look for each layer come on top |
//! | another repository is known to have it | L + 3: the tag, a mount of each blob, the manifest |
//! | it was made into the registry's own store | 2: the tag, the manifest |
//!
//! The look for the manifest by digest is left out when a blob is new for sure, because then the
//! manifest is new too. A blob in one `POST` without a `PUT` is not tried: the registry that most
//! run (distribution 2.8) reads such a body to its end, drops it, and wants it again.

mod ahead;
mod blobs;
mod known;

use std::collections::{BTreeMap, BTreeSet};

use crate::client::{BlobSource, Client, ClientError};
use crate::digest::Digest;
use crate::manifest::{Descriptor, ImageManifest};
use crate::media_type;
use crate::reference::{Repository, Tag};
use crate::store::Store;

pub use ahead::Ahead;
use blobs::{Tally, push_blobs};
pub use known::Known;

/// Where the blobs of an image come from. Blobs the registry has need no source.
pub type BlobSources = BTreeMap<Digest, Box<dyn BlobSource>>;

/// An image and where it is to go.
#[derive(Clone, Copy)]
pub struct ImagePush<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// The image.
    pub manifest: &'a ImageManifest,
    /// Its blobs.
    pub sources: &'a BlobSources,
    /// None pushes by digest alone.
    pub tag: Option<&'a Tag>,
    /// Repositories of the same registry that may have some of the blobs; which, nobody knows.
    pub mount_from: &'a [Repository],
    /// What is known of the blobs.
    pub known: &'a Known,
    /// The registry's own store, where it is on this machine and ours to write to: what is in it
    /// already needs no sending, only a link. What is not is sent.
    pub store: Option<&'a Store>,
    /// What was sent while the image was still being made.
    pub ahead: Option<&'a Ahead<'a>>,
}

/// What a push did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// The manifest's digest: what to deploy.
    pub digest: Digest,
    /// Blobs uploaded.
    pub uploaded: usize,
    /// Blobs the repository had.
    pub existing: usize,
    /// Blobs mounted from another repository.
    pub mounted: usize,
    /// Blobs that were in the registry's own store, and were given to the repository there.
    pub placed: usize,
    /// Bytes of request bodies sent, those of repeated tries included.
    pub bytes: u64,
    /// Requests to the registry.
    pub requests: u64,
}

/// Pushes an image. Doing it again is harmless and, when nothing changed, one request.
///
/// The counts of the result are right only while nobody else uses the client.
pub fn push_image(client: &Client, push: &ImagePush<'_>) -> Result<Pushed, ClientError> {
    push_image_as(client, push, &push.manifest.to_vec())
}

/// The same with the bytes of a manifest that somebody else has written: an image that is copied keeps its digest.
pub fn push_image_as(
    client: &Client,
    push: &ImagePush<'_>,
    bytes: &[u8],
) -> Result<Pushed, ClientError> {
    let before = push.ahead.map_or_else(|| client.counters(), Ahead::before);
    push.ahead.map_or(Ok(()), Ahead::check)?;
    let digest = Digest::of(bytes);
    let mut tally = Tally::default();
    match registry_state(client, push, &digest)? {
        RegistryState::Complete => tally.existing = distinct_blobs(push.manifest).len(),
        RegistryState::Untagged => {
            tally.existing = distinct_blobs(push.manifest).len();
            put_manifest(client, push, &digest, bytes)?;
        }
        RegistryState::Missing => {
            tally = push_blobs(client, push)?;
            match put_manifest(client, push, &digest, bytes) {
                Err(error) if misses_a_blob(&error) => {
                    tally = push_doubted_blobs(client, push)?;
                    put_manifest(client, push, &digest, bytes)?;
                }
                done => done?,
            }
        }
    }
    let after = client.counters();
    Ok(Pushed {
        digest,
        uploaded: tally.uploaded,
        existing: tally.existing,
        mounted: tally.mounted,
        placed: tally.placed,
        bytes: after.bytes_sent - before.bytes_sent,
        requests: after.requests - before.requests,
    })
}

enum RegistryState {
    /// Manifest and tag are as wanted.
    Complete,
    /// The manifest is there, so its blobs are; the tag means something else or nothing.
    Untagged,
    Missing,
}

fn registry_state(
    client: &Client,
    push: &ImagePush<'_>,
    digest: &Digest,
) -> Result<RegistryState, ClientError> {
    if let Some(tag) = push.tag {
        let tagged = client.manifest_exists(push.repository, tag)?;
        if tagged.is_some_and(|found| found.digest == *digest) {
            return Ok(RegistryState::Complete);
        }
    }
    if is_new_here(push) {
        return Ok(RegistryState::Missing);
    }
    match (client.manifest_exists(push.repository, digest)?, push.tag) {
        (None, _) => Ok(RegistryState::Missing),
        (Some(_), None) => Ok(RegistryState::Complete),
        (Some(_), Some(_)) => Ok(RegistryState::Untagged),
    }
}

/// Whether the repository cannot have the manifest: a blob of it was made just now, or this very
/// image was seen in other repositories only. Layers say less, those of a base are in its own.
fn is_new_here(push: &ImagePush<'_>) -> bool {
    let config = &push.manifest.config.digest;
    let mut blobs = push.manifest.blobs();
    push.known.is_elsewhere(config, push.repository)
        || blobs.any(|blob| push.known.is_new(&blob.digest))
}

/// A registry that cleans up may take a blob away after it has said that it has it.
fn misses_a_blob(error: &ClientError) -> bool {
    error.has_code("MANIFEST_BLOB_UNKNOWN") || error.has_code("BLOB_UNKNOWN")
}

/// Once more, and nothing is believed but what the registry says now.
fn push_doubted_blobs(client: &Client, push: &ImagePush<'_>) -> Result<Tally, ClientError> {
    let known = Known::new();
    let doubting = ImagePush {
        known: &known,
        ahead: None,
        ..*push
    };
    push_blobs(client, &doubting)
}

fn put_manifest(
    client: &Client,
    push: &ImagePush<'_>,
    digest: &Digest,
    bytes: &[u8],
) -> Result<(), ClientError> {
    let media_type = push.manifest.media_type();
    match push.tag {
        Some(tag) => client.put_manifest(push.repository, tag, bytes, media_type)?,
        None => client.put_manifest(push.repository, digest, bytes, media_type)?,
    };
    Ok(())
}

/// A layer that occurs twice, an empty one for instance, is one blob. Foreign layers stay where they are.
fn distinct_blobs(manifest: &ImageManifest) -> Vec<&Descriptor> {
    let mut seen = BTreeSet::new();
    let ours = manifest
        .blobs()
        .filter(|blob| media_type::is_distributable(&blob.media_type));
    ours.filter(|blob| seen.insert(blob.digest)).collect()
}

//! Pushing a whole image with as few requests as can be.
//!
//! One `HEAD` of the manifest comes first: when the tag means it already, nothing else is sent. Then
//! each blob is looked for, mounted from a repository that may have it, or uploaded, several at a
//! time and none twice; the manifest comes last, so that a broken push leaves no broken image.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use url::Url;

use crate::client::{BlobSource, Client, ClientError, Mounted};
use crate::digest::Digest;
use crate::manifest::{Descriptor, ImageManifest};
use crate::media_type;
use crate::reference::{Repository, Tag};

/// Blobs handled at the same time. More gains little on one connection to the outside and makes
/// registries throttle.
const PARALLEL: usize = 4;

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
    /// Repositories of the same registry that may have some of the blobs.
    pub mount_from: &'a [Repository],
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
    /// Bytes of request bodies sent, those of repeated tries included.
    pub bytes: u64,
    /// Requests to the registry.
    pub requests: u64,
}

/// Pushes an image. Doing it again is harmless and, when nothing changed, one request.
///
/// The counts of the result are right only while nobody else uses the client.
pub fn push_image(client: &Client, push: &ImagePush<'_>) -> Result<Pushed, ClientError> {
    let before = client.counters();
    let bytes = push.manifest.to_vec();
    let digest = Digest::of(&bytes);
    let mut tally = Tally::default();
    let state = registry_state(client, push, &digest)?;
    match state {
        RegistryState::Complete => tally.existing = distinct_blobs(push.manifest).len(),
        RegistryState::Untagged => {
            tally.existing = distinct_blobs(push.manifest).len();
            put_manifest(client, push, &digest, &bytes)?;
        }
        RegistryState::Missing => {
            tally = push_blobs(client, push)?;
            match put_manifest(client, push, &digest, &bytes) {
                // A registry that cleans up may take a blob away after it has said that it has it.
                Err(error) if error.has_code("MANIFEST_BLOB_UNKNOWN") => {
                    tally = push_blobs(client, push)?;
                    put_manifest(client, push, &digest, &bytes)?;
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
    match (client.manifest_exists(push.repository, digest)?, push.tag) {
        (None, _) => Ok(RegistryState::Missing),
        (Some(_), None) => Ok(RegistryState::Complete),
        (Some(_), Some(_)) => Ok(RegistryState::Untagged),
    }
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

#[derive(Debug, Default)]
struct Tally {
    uploaded: usize,
    existing: usize,
    mounted: usize,
}

enum Outcome {
    Uploaded,
    Existing,
    Mounted,
}

fn push_blobs(client: &Client, push: &ImagePush<'_>) -> Result<Tally, ClientError> {
    let mut blobs = distinct_blobs(push.manifest);
    // The largest first: it should not be the one everybody waits for.
    blobs.sort_by_key(|blob| std::cmp::Reverse(blob.size));
    let queue = Queue {
        client,
        push,
        blobs,
        next: AtomicUsize::new(0),
        failed: AtomicBool::new(false),
        results: Mutex::new(Ok(Tally::default())),
    };
    std::thread::scope(|scope| {
        for _ in 1..PARALLEL.min(queue.blobs.len()) {
            scope.spawn(|| queue.work());
        }
        queue.work();
    });
    queue
        .results
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
}

/// Blobs that several threads work off.
struct Queue<'a> {
    client: &'a Client,
    push: &'a ImagePush<'a>,
    blobs: Vec<&'a Descriptor>,
    next: AtomicUsize,
    failed: AtomicBool,
    results: Mutex<Result<Tally, ClientError>>,
}

impl Queue<'_> {
    fn work(&self) {
        while !self.failed.load(Ordering::Relaxed) {
            let Some(blob) = self.blobs.get(self.next.fetch_add(1, Ordering::Relaxed)) else {
                return;
            };
            self.note(push_blob(self.client, self.push, blob));
        }
    }

    /// Of several errors the first is kept.
    fn note(&self, outcome: Result<Outcome, ClientError>) {
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        match (outcome, results.as_mut()) {
            (Ok(Outcome::Uploaded), Ok(tally)) => tally.uploaded += 1,
            (Ok(Outcome::Existing), Ok(tally)) => tally.existing += 1,
            (Ok(Outcome::Mounted), Ok(tally)) => tally.mounted += 1,
            (Err(error), Ok(_)) => {
                self.failed.store(true, Ordering::Relaxed);
                *results = Err(error);
            }
            (_, Err(_)) => {}
        }
    }
}

fn push_blob(
    client: &Client,
    push: &ImagePush<'_>,
    blob: &Descriptor,
) -> Result<Outcome, ClientError> {
    if client.blob_exists(push.repository, &blob.digest)? {
        return Ok(Outcome::Existing);
    }
    let mut begun: Option<Url> = None;
    for from in push
        .mount_from
        .iter()
        .filter(|from| *from != push.repository)
    {
        match client.try_mount(push.repository, &blob.digest, from)? {
            Mounted::Done => {
                forget(client, push, begun);
                return Ok(Outcome::Mounted);
            }
            Mounted::UploadBegun(location) => forget(client, push, begun.replace(location)),
        }
    }
    let Some(source) = push.sources.get(&blob.digest) else {
        forget(client, push, begun);
        return Err(ClientError::NoSource {
            digest: blob.digest,
        });
    };
    client.push_blob_to(push.repository, blob, source.as_ref(), begun)?;
    Ok(Outcome::Uploaded)
}

fn forget(client: &Client, push: &ImagePush<'_>, begun: Option<Url>) {
    if let Some(location) = begun {
        client.cancel_upload(push.repository, location);
    }
}

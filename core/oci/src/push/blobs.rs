//! The blobs of an image: several at a time, the largest first, each by the cheapest way.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use url::Url;

use super::{Ahead, ImagePush, Known, distinct_blobs};
use crate::client::{BlobSource, BlobState, Client, ClientError, Mounted, Progress};
use crate::digest::Digest;
use crate::manifest::Descriptor;
use crate::reference::Repository;
use crate::store::{Linked, Store};

/// Blobs handled at the same time. More gains little on one connection to the outside and makes
/// registries throttle.
const PARALLEL: usize = 6;
/// Repositories asked for one blob. Each costs a request; the first that is known to have it has it.
const MOUNTS: usize = 4;

#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tally {
    pub(super) uploaded: usize,
    pub(super) existing: usize,
    pub(super) mounted: usize,
    pub(super) placed: usize,
}

impl Tally {
    pub(super) fn count(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Uploaded => self.uploaded += 1,
            Outcome::Existing => self.existing += 1,
            Outcome::Mounted => self.mounted += 1,
            Outcome::Placed => self.placed += 1,
        }
    }
}

/// What became of a blob.
pub(super) enum Outcome {
    Uploaded,
    Existing,
    Mounted,
    Placed,
}

pub(super) fn push_blobs(client: &Client, push: &ImagePush<'_>) -> Result<Tally, ClientError> {
    let mut blobs = distinct_blobs(push.manifest);
    let sent = push.ahead.map(Ahead::sent).unwrap_or_default();
    blobs.retain(|blob| !sent.contains(&blob.digest));
    let mut tally = push.ahead.map(Ahead::tally).unwrap_or_default();
    place(client, push, &mut blobs, &mut tally);
    // The largest first: it should not be the one everybody waits for.
    blobs.sort_by_key(|blob| std::cmp::Reverse(blob.size));
    let queue = Queue {
        client,
        push,
        blobs,
        next: AtomicUsize::new(0),
        failed: AtomicBool::new(false),
        results: Mutex::new(Ok(tally)),
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

/// Gives the repository what is in the registry's own store; the blobs that remain have to be sent.
/// A store that cannot be written to is no failure: the registry itself can.
fn place(client: &Client, push: &ImagePush<'_>, blobs: &mut Vec<&Descriptor>, tally: &mut Tally) {
    let digests: Vec<Digest> = blobs.iter().map(|blob| blob.digest).collect();
    let link = |store: &Store| store.link_present(push.repository, &digests);
    let linked = push.store.and_then(|store| link(store).ok());
    let linked: BTreeMap<Digest, Linked> = linked.unwrap_or_default().into_iter().collect();
    blobs.retain(|blob| {
        let outcome = match linked.get(&blob.digest) {
            Some(Linked::Now) => Outcome::Placed,
            Some(Linked::Before) => Outcome::Existing,
            None => return true,
        };
        tell(client, blob, &outcome);
        tally.count(&outcome);
        false
    });
}

fn tell(client: &Client, blob: &Descriptor, outcome: &Outcome) {
    let (digest, total) = (blob.digest, blob.size);
    let (state, sent) = match outcome {
        Outcome::Uploaded => (BlobState::Sent, total),
        Outcome::Existing => (BlobState::Exists, 0),
        Outcome::Mounted => (BlobState::Mounted, 0),
        Outcome::Placed => (BlobState::Placed, 0),
    };
    client.tell(Progress {
        digest,
        state,
        sent,
        total,
    });
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
            let (push, digest) = (self.push, &blob.digest);
            let step = Step {
                client: self.client,
                repository: push.repository,
                blob,
                source: push.sources.get(digest).map(AsRef::as_ref),
                is_config: *digest == push.manifest.config.digest,
                mount_from: push.mount_from,
                known: push.known,
            };
            self.note(step.run());
        }
    }

    /// Of several errors the first is kept.
    fn note(&self, outcome: Result<Outcome, ClientError>) {
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        match (outcome, results.as_mut()) {
            (Ok(outcome), Ok(tally)) => tally.count(&outcome),
            (Err(error), Ok(_)) => {
                self.failed.store(true, Ordering::Relaxed);
                *results = Err(error);
            }
            (_, Err(_)) => {}
        }
    }
}

/// One blob, and where it is to go.
pub(super) struct Step<'a> {
    pub(super) client: &'a Client,
    pub(super) repository: &'a Repository,
    pub(super) blob: &'a Descriptor,
    pub(super) source: Option<&'a dyn BlobSource>,
    pub(super) is_config: bool,
    pub(super) mount_from: &'a [Repository],
    pub(super) known: &'a Known,
}

impl Step<'_> {
    pub(super) fn run(&self) -> Result<Outcome, ClientError> {
        let outcome = self.bring()?;
        tell(self.client, self.blob, &outcome);
        Ok(outcome)
    }

    fn bring(&self) -> Result<Outcome, ClientError> {
        if self.is_new() {
            return self.upload(None);
        }
        let elsewhere = self.known.is_elsewhere(&self.blob.digest, self.repository);
        if !elsewhere && self.exists()? {
            return Ok(Outcome::Existing);
        }
        let begun = match self.mount()? {
            Mounted::Done => return Ok(Outcome::Mounted),
            Mounted::UploadBegun(location) => Some(location),
            Mounted::Refused => None,
        };
        // Where it was known to be it is not, or may not be taken from: so it was not looked for yet.
        if elsewhere && self.exists()? {
            self.forget(begun);
            return Ok(Outcome::Existing);
        }
        self.upload(begun)
    }

    /// A configuration names its layers and what made them, so that with a new manifest it is new
    /// too; should it not be, it is a few kilobytes, in the time of a look.
    fn is_new(&self) -> bool {
        let (digest, known) = (&self.blob.digest, self.known);
        let seen = !known.holders(digest).is_empty() || !self.mount_from.is_empty();
        let new = known.is_new(digest) || (self.is_config && !seen);
        new && self.source.is_some()
    }

    fn exists(&self) -> Result<bool, ClientError> {
        self.client.blob_exists(self.repository, &self.blob.digest)
    }

    /// Asks one repository after the other; an upload that a refusal has begun is kept for the blob.
    fn mount(&self) -> Result<Mounted, ClientError> {
        let mut begun = None;
        for from in self.neighbours() {
            let tried = self
                .client
                .try_mount(self.repository, &self.blob.digest, from)?;
            match tried {
                Mounted::Done => {
                    self.forget(begun);
                    return Ok(Mounted::Done);
                }
                Mounted::UploadBegun(location) => self.forget(begun.replace(location)),
                Mounted::Refused => {}
            }
        }
        Ok(begun.map_or(Mounted::Refused, Mounted::UploadBegun))
    }

    /// Those known to have the blob come before those that may have some.
    fn neighbours(&self) -> impl Iterator<Item = &Repository> {
        let known = self.known.holders(&self.blob.digest);
        let others = self.mount_from.iter();
        let others = others.filter(|from| !known.contains(from));
        let all = known.iter().chain(others);
        all.filter(|from| *from != self.repository).take(MOUNTS)
    }

    fn upload(&self, begun: Option<Url>) -> Result<Outcome, ClientError> {
        let Some(source) = self.source else {
            self.forget(begun);
            let digest = self.blob.digest;
            return Err(ClientError::NoSource { digest });
        };
        self.client
            .push_blob_to(self.repository, self.blob, source, begun)?;
        Ok(Outcome::Uploaded)
    }

    fn forget(&self, begun: Option<Url>) {
        if let Some(location) = begun {
            self.client.cancel_upload(self.repository, location);
        }
    }
}

//! The blobs of an image: several at a time, the largest first, each by the cheapest way.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use url::Url;

use super::{ImagePush, distinct_blobs};
use crate::client::{BlobState, Client, ClientError, Mounted, Progress};
use crate::manifest::Descriptor;
use crate::reference::Repository;
use crate::store::Store;

/// Blobs handled at the same time. More gains little on one connection to the outside and makes
/// registries throttle.
const PARALLEL: usize = 6;
/// Repositories asked for one blob. Each costs a request; the first that is known to have it has it.
const MOUNTS: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) uploaded: usize,
    pub(super) existing: usize,
    pub(super) mounted: usize,
    pub(super) placed: usize,
}

enum Outcome {
    Uploaded,
    Existing,
    Mounted,
    Placed,
}

pub(super) fn push_blobs(client: &Client, push: &ImagePush<'_>) -> Result<Tally, ClientError> {
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
            let step = Step {
                client: self.client,
                push: self.push,
                blob,
            };
            let outcome = step.run();
            if let Ok(outcome) = &outcome {
                step.tell(outcome);
            }
            self.note(outcome);
        }
    }

    /// Of several errors the first is kept.
    fn note(&self, outcome: Result<Outcome, ClientError>) {
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        match (outcome, results.as_mut()) {
            (Ok(Outcome::Uploaded), Ok(tally)) => tally.uploaded += 1,
            (Ok(Outcome::Existing), Ok(tally)) => tally.existing += 1,
            (Ok(Outcome::Mounted), Ok(tally)) => tally.mounted += 1,
            (Ok(Outcome::Placed), Ok(tally)) => tally.placed += 1,
            (Err(error), Ok(_)) => {
                self.failed.store(true, Ordering::Relaxed);
                *results = Err(error);
            }
            (_, Err(_)) => {}
        }
    }
}

/// One blob.
struct Step<'a> {
    client: &'a Client,
    push: &'a ImagePush<'a>,
    blob: &'a Descriptor,
}

impl Step<'_> {
    fn run(&self) -> Result<Outcome, ClientError> {
        if self.is_placed() {
            return Ok(Outcome::Placed);
        }
        if self.is_new() {
            return self.upload(None);
        }
        let known = self.push.known;
        let elsewhere = known.is_elsewhere(&self.blob.digest, self.push.repository);
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

    fn tell(&self, outcome: &Outcome) {
        let (digest, total) = (self.blob.digest, self.blob.size);
        let (state, sent) = match outcome {
            Outcome::Uploaded => (BlobState::Sent, total),
            Outcome::Existing => (BlobState::Exists, 0),
            Outcome::Mounted => (BlobState::Mounted, 0),
            Outcome::Placed => (BlobState::Placed, 0),
        };
        self.client.tell(Progress {
            digest,
            state,
            sent,
            total,
        });
    }

    /// A store that cannot be written to is no failure: the registry itself can.
    fn is_placed(&self) -> bool {
        let place = |store: &Store| store.link_if_present(self.push.repository, &self.blob.digest);
        self.push.store.map(place).is_some_and(|placed| placed.unwrap_or(false))
    }

    /// A configuration names its layers and what made them, so that with a new manifest it is new
    /// too; should it not be, it is a few kilobytes, in the time of a look.
    fn is_new(&self) -> bool {
        let (digest, known) = (&self.blob.digest, self.push.known);
        let is_config = *digest == self.push.manifest.config.digest;
        let seen = !known.holders(digest).is_empty() || !self.push.mount_from.is_empty();
        let new = known.is_new(digest) || (is_config && !seen);
        new && self.push.sources.contains_key(digest)
    }

    fn exists(&self) -> Result<bool, ClientError> {
        self.client
            .blob_exists(self.push.repository, &self.blob.digest)
    }

    /// Asks one repository after the other; an upload that a refusal has begun is kept for the blob.
    fn mount(&self) -> Result<Mounted, ClientError> {
        let mut begun = None;
        for from in self.neighbours() {
            let tried = self
                .client
                .try_mount(self.push.repository, &self.blob.digest, from)?;
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
        let known = self.push.known.holders(&self.blob.digest);
        let others = self.push.mount_from.iter();
        let others = others.filter(|from| !known.contains(from));
        let all = known.iter().chain(others);
        all.filter(|from| *from != self.push.repository)
            .take(MOUNTS)
    }

    fn upload(&self, begun: Option<Url>) -> Result<Outcome, ClientError> {
        let Some(source) = self.push.sources.get(&self.blob.digest) else {
            self.forget(begun);
            let digest = self.blob.digest;
            return Err(ClientError::NoSource { digest });
        };
        self.client
            .push_blob_to(self.push.repository, self.blob, source.as_ref(), begun)?;
        Ok(Outcome::Uploaded)
    }

    fn forget(&self, begun: Option<Url>) {
        if let Some(location) = begun {
            self.client.cancel_upload(self.push.repository, location);
        }
    }
}

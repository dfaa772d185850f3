//! Blobs of an image that is not whole yet: sent while the rest of it is made.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Known;
use super::blobs::{Step, Tally};
use crate::client::{BlobSource, Client, ClientError, Counters};
use crate::digest::Digest;
use crate::manifest::Descriptor;
use crate::reference::Repository;

/// The first part of a push. [`super::push_image`] with the same client does the rest, counts what was done here, and
/// ends with the error that this met, if it met one.
pub struct Ahead<'c> {
    client: &'c Client,
    repository: Repository,
    before: Counters,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sent: BTreeSet<Digest>,
    tally: Tally,
    failure: Option<ClientError>,
}

impl<'c> Ahead<'c> {
    /// Nothing is sent yet.
    #[must_use]
    pub fn new(client: &'c Client, repository: Repository) -> Self {
        Self {
            before: client.counters(),
            client,
            repository,
            state: Mutex::default(),
        }
    }

    /// Brings a blob to the repository by the cheapest way, as a push would. Blocks; several threads may send at
    /// a time. After an error nothing more is sent.
    pub fn send(&self, blob: &Descriptor, source: &dyn BlobSource, known: &Known) {
        if self.state().failure.is_some() {
            return;
        }
        let step = Step {
            client: self.client,
            repository: &self.repository,
            blob,
            source: Some(source),
            is_config: false,
            mount_from: &[],
            known,
        };
        let outcome = step.run();
        let mut state = self.state();
        match outcome {
            Ok(outcome) if state.sent.insert(blob.digest) => state.tally.count(&outcome),
            Ok(_) => {}
            Err(error) => _ = state.failure.get_or_insert(error),
        }
    }

    pub(super) fn before(&self) -> Counters {
        self.before
    }

    pub(super) fn sent(&self) -> BTreeSet<Digest> {
        self.state().sent.clone()
    }

    pub(super) fn tally(&self) -> Tally {
        self.state().tally
    }

    /// Ends with what went wrong.
    pub(super) fn check(&self) -> Result<(), ClientError> {
        self.state().failure.take().map_or(Ok(()), Err)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

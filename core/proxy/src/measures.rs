//! What the proxy saw of one instance, for whoever judges whether it does as well as another.
//!
//! Only what the instance itself did is in here: no answer of the proxy's own, no client that soon left,
//! and of a request that was sent twice each instance has its own attempt.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;

use crate::answers::{Answers, Classes, Histogram};

/// A reading of what one instance did since it first got traffic.
#[derive(Clone, Debug, PartialEq)]
pub struct Measures {
    /// Answers of the instance, by class.
    pub responses: Classes,
    /// Attempts that got no answer, or none that is valid: no connection, one that closed or broke
    /// the protocol, a time-out, or a client that left after it had waited for two seconds. They count even when another instance then answered the client.
    pub failures: u64,
    /// Times from the head of a request to the head of the instance's answer. For a second attempt
    /// they begin when the instance is chosen: the time lost on another one is not its own.
    pub latency: Histogram,
}

/// The living counters behind [`Measures`].
#[derive(Debug, Default)]
pub(crate) struct Record {
    answers: Answers,
    failures: AtomicU64,
}

impl Record {
    pub(crate) fn answered(&self, status: StatusCode, latency: Duration) {
        self.answers.count(status, latency);
    }

    pub(crate) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Measures {
        Measures {
            responses: self.answers.classes(),
            failures: self.failures.load(Ordering::Relaxed),
            latency: self.answers.latency(),
        }
    }
}

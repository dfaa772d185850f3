//! Counters of one proxy. They only ever grow, except for the gauges `in_flight`, `waiting` and `tunnels`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;

use crate::answers::{Answers, Classes, Histogram};

/// A reading of the counters.
#[derive(Clone, Debug, PartialEq)]
pub struct Stats {
    /// Requests received, answered or not.
    pub requests: u64,
    /// Answers sent, by class, the proxy's own errors included.
    pub responses: Classes,
    /// Answers that the proxy made itself because the instance gave none.
    pub failures: u64,
    /// Requests sent a second time after a connection failed.
    pub retries: u64,
    /// Requests and tunnels that have an instance right now.
    pub in_flight: u64,
    /// Requests that wait right now for an instance that is on its way; no part of `in_flight`.
    pub waiting: u64,
    /// Tunnels open right now; part of `in_flight`.
    pub tunnels: u64,
    /// Client connections accepted.
    pub connections: u64,
    /// Body and tunnel bytes from clients to instances.
    pub bytes_in: u64,
    /// Body and tunnel bytes from instances to clients.
    pub bytes_out: u64,
    /// Times from the head of a request to the head of its answer.
    pub latency: Histogram,
}

/// The living counters behind [`Stats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    requests: AtomicU64,
    answers: Answers,
    failures: AtomicU64,
    retries: AtomicU64,
    in_flight: AtomicU64,
    waiting: AtomicU64,
    tunnels: AtomicU64,
    connections: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

/// A request that waits for an instance. Its client may go away at any time.
#[derive(Debug)]
pub(crate) struct Waiting<'a>(&'a Counters);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counters {
    pub(crate) fn connected(&self) {
        add(&self.connections, 1);
    }

    pub(crate) fn requested(&self) {
        add(&self.requests, 1);
    }

    pub(crate) fn retried(&self) {
        add(&self.retries, 1);
    }

    pub(crate) fn failed(&self) {
        add(&self.failures, 1);
    }

    pub(crate) fn answered(&self, status: StatusCode, latency: Duration) {
        self.answers.count(status, latency);
    }

    pub(crate) fn flight_began(&self) {
        add(&self.in_flight, 1);
    }

    pub(crate) fn flight_ended(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// A request waits until this is dropped.
    pub(crate) fn waits(&self) -> Waiting<'_> {
        add(&self.waiting, 1);
        Waiting(self)
    }

    pub(crate) fn tunnel_began(&self) {
        add(&self.tunnels, 1);
    }

    pub(crate) fn tunnel_ended(&self) {
        self.tunnels.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn received(&self, bytes: usize) {
        add(&self.bytes_in, bytes as u64);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        add(&self.bytes_out, bytes as u64);
    }

    pub(crate) fn read(&self) -> Stats {
        Stats {
            requests: get(&self.requests),
            responses: self.answers.classes(),
            failures: get(&self.failures),
            retries: get(&self.retries),
            in_flight: get(&self.in_flight),
            waiting: get(&self.waiting),
            tunnels: get(&self.tunnels),
            connections: get(&self.connections),
            bytes_in: get(&self.bytes_in),
            bytes_out: get(&self.bytes_out),
            latency: self.answers.latency(),
        }
    }
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

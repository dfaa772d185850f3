//! One instance: the requests it still has, the connections that they use, and how it did.
//!
//! A request is counted in when its instance is chosen, by the table and under its lock, and out
//! when its [`Flight`] is dropped. Which instance is chosen is not decided here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::sync::Notify;

use crate::measures::{Measures, Record};
use crate::pool::Pool;
use crate::settings::Settings;
use crate::stats::Counters;

/// An instance that can take traffic. Two targets are the same instance if id and address are the
/// same: one that comes back under its id at another address is a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The caller's own name for the instance; the proxy only hands it back.
    pub id: String,
    /// Where the instance listens, in HTTP/1.1 without TLS.
    pub address: SocketAddr,
}

/// An instance that gets no new requests. It drains by itself, whatever happens to the others, and
/// dropping this changes nothing for the requests it still has.
#[derive(Debug)]
pub struct Retired {
    route: Arc<Route>,
}

impl Retired {
    /// The instance that was retired.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.route.target
    }

    /// Requests and tunnels that the instance still has.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.route.in_flight()
    }

    /// Waits until the instance has none left, for at most `limit`; true if it has none.
    pub async fn drained(&self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.route.empty())
            .await
            .is_ok()
            || self.in_flight() == 0
    }
}

/// A target with its connections, the count of its requests and its measures.
#[derive(Debug)]
pub(crate) struct Route {
    target: Target,
    pool: Arc<Pool>,
    in_flight: AtomicUsize,
    emptied: Notify,
    record: Record,
}

impl Route {
    pub(crate) fn new(target: Target, settings: &Settings) -> Self {
        let pool = Arc::new(Pool::new(target.address, settings));
        Self {
            target,
            pool,
            in_flight: AtomicUsize::new(0),
            emptied: Notify::new(),
            record: Record::default(),
        }
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    pub(crate) fn measures(&self) -> Measures {
        self.record.read()
    }

    /// Drops connections that nobody uses.
    pub(crate) fn expire(&self) {
        self.pool.expire();
    }

    /// Keeps no connection from now on. Only for a route that can no longer be chosen.
    pub(crate) fn retire(self: Arc<Self>) -> Retired {
        self.pool.close();
        Retired { route: self }
    }

    async fn empty(&self) {
        loop {
            // Registered before the count is read: an end between the two is not missed.
            let emptied = self.emptied.notified();
            if self.in_flight() == 0 {
                return;
            }
            emptied.await;
        }
    }
}

/// One request or tunnel that an instance has; dropping it counts it out.
#[derive(Debug)]
pub(crate) struct Flight {
    route: Arc<Route>,
    /// Name of the group that it was chosen from.
    group: Arc<str>,
    counters: Arc<Counters>,
    began: Instant,
    /// Whether the instance's answer, or that it gave none, has been noted.
    noted: AtomicBool,
}

/// A client that leaves sooner has changed its mind; one that leaves later has waited in vain.
const IN_VAIN: Duration = Duration::from_secs(2);

impl Flight {
    /// Counts a request in that has been under way since `began`.
    pub(crate) fn begin(
        route: Arc<Route>,
        group: Arc<str>,
        counters: Arc<Counters>,
        began: Instant,
    ) -> Self {
        route.in_flight.fetch_add(1, Ordering::AcqRel);
        counters.flight_began();
        Self {
            route,
            group,
            counters,
            began,
            noted: AtomicBool::new(false),
        }
    }

    /// Notes the instance's answer.
    pub(crate) fn answered(&self, status: StatusCode) {
        self.noted.store(true, Ordering::Relaxed);
        self.route.record.answered(status, self.began.elapsed());
    }

    /// Notes that the instance gave no answer.
    pub(crate) fn failed(&self) {
        self.noted.store(true, Ordering::Relaxed);
        self.route.record.failed();
    }

    pub(crate) fn route(&self) -> &Arc<Route> {
        &self.route
    }

    pub(crate) fn group(&self) -> &Arc<str> {
        &self.group
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.route.pool
    }

    pub(crate) fn target(&self) -> &Target {
        &self.route.target
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.counters.flight_ended();
        // Else an instance that hangs would be seen by nobody: its clients are gone before its time is over.
        if !self.noted.load(Ordering::Relaxed) && self.began.elapsed() >= IN_VAIN {
            self.route.record.failed();
        }
        if self.route.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.route.emptied.notify_waiters();
        }
    }
}

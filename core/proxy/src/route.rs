//! Which instance gets the next request, and which requests an instance still has.
//!
//! Choosing the route and counting the request in are one critical section, and so is replacing
//! the route. So once [`Table::switch`] has returned, the count of the old route can only fall: a
//! drain cannot miss a request that had chosen the old instance and was not yet counted.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::pool::Pool;
use crate::settings::Settings;
use crate::stats::Counters;

/// An instance that can take traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The caller's own name for the instance; the proxy only hands it back.
    pub id: String,
    /// Where the instance listens, in HTTP/1.1 without TLS.
    pub address: SocketAddr,
}

/// A route that gets no new requests. Dropping it changes nothing for those it still has.
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
        self.route.in_flight.load(Ordering::Acquire)
    }

    /// Waits until the instance has none left, for at most `limit`; true if it has none.
    pub async fn drained(&self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.route.empty())
            .await
            .is_ok()
            || self.in_flight() == 0
    }
}

/// A target with its connections and the count of its requests.
#[derive(Debug)]
pub(crate) struct Route {
    target: Target,
    pool: Arc<Pool>,
    in_flight: AtomicUsize,
    emptied: Notify,
}

impl Route {
    pub(crate) fn new(target: Target, settings: &Settings) -> Self {
        let pool = Arc::new(Pool::new(target.address, settings));
        Self {
            target,
            pool,
            in_flight: AtomicUsize::new(0),
            emptied: Notify::new(),
        }
    }

    async fn empty(&self) {
        loop {
            // Registered before the count is read: an end between the two is not missed.
            let emptied = self.emptied.notified();
            if self.in_flight.load(Ordering::Acquire) == 0 {
                return;
            }
            emptied.await;
        }
    }
}

/// The one route of a proxy.
#[derive(Debug)]
pub(crate) struct Table {
    current: Mutex<Option<Arc<Route>>>,
    counters: Arc<Counters>,
}

impl Table {
    pub(crate) fn new(counters: Arc<Counters>) -> Self {
        Self {
            current: Mutex::new(None),
            counters,
        }
    }

    /// Chooses the current route and counts a request in on it.
    pub(crate) fn choose(&self) -> Option<Flight> {
        let current = self.lock();
        let route = Arc::clone(current.as_ref()?);
        route.in_flight.fetch_add(1, Ordering::AcqRel);
        drop(current);
        self.counters.flight_began();
        Some(Flight {
            route,
            counters: Arc::clone(&self.counters),
        })
    }

    /// Replaces the route; every later [`Table::choose`] sees the new one.
    pub(crate) fn switch(&self, next: Option<Arc<Route>>) -> Option<Retired> {
        let previous = std::mem::replace(&mut *self.lock(), next);
        previous.map(|route| {
            route.pool.close();
            Retired { route }
        })
    }

    /// Drops connections of the current route that nobody uses.
    pub(crate) fn expire(&self) {
        let current = self.lock().clone();
        if let Some(route) = current {
            route.pool.expire();
        }
    }

    pub(crate) fn target(&self) -> Option<Target> {
        self.lock().as_ref().map(|route| route.target.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Route>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request or tunnel that an instance has; dropping it counts it out.
#[derive(Debug)]
pub(crate) struct Flight {
    route: Arc<Route>,
    counters: Arc<Counters>,
}

impl Flight {
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
        if self.route.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.route.emptied.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table::new(Arc::new(Counters::default()))
    }

    fn route(id: &str) -> Arc<Route> {
        let target = Target {
            id: id.to_owned(),
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
        };
        Arc::new(Route::new(target, &Settings::default()))
    }

    #[test]
    fn a_request_counts_on_the_route_it_chose() {
        let table = table();
        assert!(table.choose().is_none(), "nothing to choose yet");
        assert!(table.switch(Some(route("one"))).is_none());
        let first = table.choose().expect("a route");
        let retired = table.switch(Some(route("two"))).expect("the first route");
        let second = table.choose().expect("a route");
        assert_eq!(
            (first.target().id.as_str(), second.target().id.as_str()),
            ("one", "two")
        );
        assert_eq!(retired.in_flight(), 1);
        drop(first);
        assert_eq!(retired.in_flight(), 0);
        assert_eq!(table.counters.read().in_flight, 1);
    }

    #[tokio::test]
    async fn a_drain_ends_with_the_last_request_and_not_before() {
        let table = table();
        table.switch(Some(route("one")));
        let flights: Vec<_> = (0..3).filter_map(|_| table.choose()).collect();
        let retired = table.switch(None).expect("the first route");
        assert!(!retired.drained(Duration::from_millis(5)).await);
        let drain = tokio::spawn(async move { retired.drained(Duration::from_secs(5)).await });
        drop(flights);
        assert!(drain.await.expect("no panic"));
    }
}

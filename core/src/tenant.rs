//! One tenant at run time: its listener, who has its traffic, what is being done to it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proxy::{Proxy, Retired, Target};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::rollout::{Live, LiveState};

/// The run-time side of a tenant. What must outlive the process is in the store.
pub(crate) struct Tenant {
    pub(crate) id: String,
    /// Where its URL listens.
    pub(crate) address: SocketAddr,
    /// Counts changes of its deployments.
    changes: watch::Sender<u64>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Absent while its port cannot be had.
    proxy: Option<Proxy>,
    /// The deployment that may direct the traffic.
    owner: Option<u64>,
    /// Where the traffic goes, or will go once there is a proxy.
    target: Option<Target>,
    live: Option<Arc<Live>>,
    rollout: Option<RunningRollout>,
}

struct RunningRollout {
    number: u64,
    abort: CancellationToken,
}

impl Tenant {
    pub(crate) fn new(id: &str, address: SocketAddr) -> Self {
        Self {
            id: id.to_owned(),
            address,
            changes: watch::Sender::new(0),
            inner: Mutex::default(),
        }
    }

    /// The tenant's URL. It is for this machine where the server listens on all addresses.
    pub(crate) fn url(&self) -> String {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        format!("http://{address}")
    }

    /// Tells whoever follows a deployment that there is something new in the store.
    pub(crate) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Gives the tenant its listener and directs it where the traffic belongs.
    pub(crate) fn set_proxy(&self, proxy: Proxy) {
        let mut inner = self.inner();
        // There was no traffic before: nothing to drain.
        drop(proxy.switch(inner.target.clone()));
        inner.proxy = Some(proxy);
    }

    pub(crate) fn proxy(&self) -> Option<Proxy> {
        self.inner().proxy.clone()
    }

    /// Makes `owner` the deployment that directs the traffic, and directs it.
    pub(crate) fn take_traffic(
        &self,
        owner: Option<u64>,
        target: Option<Target>,
    ) -> Option<Retired> {
        let mut inner = self.inner();
        inner.owner = owner;
        inner.direct(target)
    }

    /// Directs the traffic unless another deployment has taken it meanwhile.
    pub(crate) fn direct_traffic(&self, owner: u64, target: Option<Target>) {
        let mut inner = self.inner();
        if inner.owner == Some(owner) {
            // The instance before this one has ended: there is nothing to wait for.
            drop(inner.direct(target));
        }
    }

    /// Gives the traffic back to the live release, wherever its instance is now.
    pub(crate) fn return_traffic(&self) -> Option<Retired> {
        let mut inner = self.inner();
        let live = inner.live.clone();
        inner.owner = live.as_ref().map(|live| live.number);
        let target = live.and_then(|live| live.target());
        inner.direct(target)
    }

    /// The release that is kept running.
    pub(crate) fn live(&self) -> Option<Arc<Live>> {
        self.inner().live.clone()
    }

    pub(crate) fn set_live(&self, live: Option<Arc<Live>>) {
        self.inner().live = live;
    }

    /// State of the live release, with its deployment's number.
    pub(crate) fn live_state(&self) -> Option<(u64, LiveState)> {
        self.live().map(|live| (live.number, live.state()))
    }

    /// Registers a rollout; the token tells it to stop.
    pub(crate) fn begin_rollout(&self, number: u64) -> CancellationToken {
        let abort = CancellationToken::new();
        self.inner().rollout = Some(RunningRollout {
            number,
            abort: abort.clone(),
        });
        abort
    }

    pub(crate) fn end_rollout(&self, number: u64) {
        let mut inner = self.inner();
        if inner.rollout.as_ref().is_some_and(|r| r.number == number) {
            inner.rollout = None;
        }
    }

    /// Asks a rollout to undo itself; false when it is not running.
    pub(crate) fn abort_rollout(&self, number: u64) -> bool {
        let inner = self.inner();
        let running = inner.rollout.as_ref().filter(|r| r.number == number);
        running.inspect(|rollout| rollout.abort.cancel()).is_some()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Each change is one assignment after another without anything that could panic between.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn direct(&mut self, target: Option<Target>) -> Option<Retired> {
        self.target.clone_from(&target);
        self.proxy.as_ref()?.switch(target)
    }
}

//! One tenant at run time: its listener, who has its traffic, what is being done to it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proxy::{Proxy, Retired, Share, Target};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::rollout::{Live, LiveState};

/// The run-time side of a tenant. What must outlive the process is in the store.
pub(crate) struct Tenant {
    pub(crate) id: String,
    /// Where its URL listens.
    pub(crate) address: SocketAddr,
    /// `http` or `https`.
    scheme: &'static str,
    /// Counts changes of its deployments.
    changes: watch::Sender<u64>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Absent while its port cannot be had.
    proxy: Option<Proxy>,
    /// Who has the traffic, or will have it once there is a proxy.
    shares: Vec<Traffic>,
    live: Option<Arc<Live>>,
    /// A set that had the traffic before and is kept for a quick return.
    warm: Option<Arc<Live>>,
    /// Whether `live` stands in for `warm`, which is the release that should serve and does not.
    standing_in: bool,
    /// Held while instances that an earlier server has left, and nobody needs, come to their end.
    leftovers: Arc<tokio::sync::Mutex<()>>,
    rollout: Option<RunningRollout>,
}

/// The part of the traffic that the instances of one deployment get.
#[derive(Debug)]
struct Traffic {
    number: u64,
    weight: Weight,
    targets: Vec<Target>,
}

/// How much of the traffic a deployment gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    /// As much for each of its instances as for those of others.
    Each,
    /// So many per cent.
    Percent(u32),
}

struct RunningRollout {
    number: u64,
    signals: Signals,
}

/// What a rollout is told from outside.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signals {
    /// Undo everything.
    pub(crate) abort: CancellationToken,
    promote: Arc<Notify>,
    /// Whether somebody waits for [`Signals::promoted`].
    watching: Arc<AtomicBool>,
}

impl Signals {
    /// Returns when somebody says that it was watched enough. A word that comes while nobody waits for it is refused, so it
    /// cannot skip a later watch.
    pub(crate) async fn promoted(&self) {
        struct Watching<'a>(&'a AtomicBool);
        impl Drop for Watching<'_> {
            fn drop(&mut self) {
                self.0.store(false, Ordering::Release);
            }
        }
        self.watching.store(true, Ordering::Release);
        let _watching = Watching(&self.watching);
        self.promote.notified().await;
    }

    fn promote(&self) -> bool {
        // Whoever is first takes it: the second word is for nobody.
        let promoted = self.watching.swap(false, Ordering::AcqRel);
        if promoted {
            self.promote.notify_one();
        }
        promoted
    }
}

impl Tenant {
    pub(crate) fn new(id: &str, address: SocketAddr, scheme: &'static str) -> Self {
        Self {
            id: id.to_owned(),
            address,
            scheme,
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
        format!("{}://{address}", self.scheme)
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
        inner.proxy = Some(proxy);
        // There was no traffic before: nothing to drain.
        drop(inner.direct());
    }

    pub(crate) fn proxy(&self) -> Option<Proxy> {
        self.inner().proxy.clone()
    }

    /// Makes one deployment that which has all of the traffic.
    pub(crate) fn give_traffic(&self, number: u64, targets: Vec<Target>) -> Vec<Retired> {
        let mut inner = self.inner();
        inner.shares = vec![Traffic {
            number,
            weight: Weight::Each,
            targets,
        }];
        inner.direct()
    }

    /// Nobody gets traffic.
    pub(crate) fn stop_traffic(&self) -> Vec<Retired> {
        let mut inner = self.inner();
        inner.shares.clear();
        inner.direct()
    }

    /// Makes these the deployments that share the traffic. One that was among them already keeps its
    /// instances, whatever is said of them here; a new one begins with those that are named.
    pub(crate) fn split_traffic(&self, parts: Vec<(u64, Weight, Vec<Target>)>) -> Vec<Retired> {
        let mut inner = self.inner();
        let mut before = std::mem::take(&mut inner.shares);
        let part = |(number, weight, targets)| match before.iter().position(|s| s.number == number)
        {
            Some(place) => Traffic {
                weight,
                ..before.swap_remove(place)
            },
            None => Traffic {
                number,
                weight,
                targets,
            },
        };
        let shares = parts.into_iter().map(part).collect();
        inner.shares = shares;
        inner.direct()
    }

    /// Names the instances of a deployment, if it has a part of the traffic.
    pub(crate) fn set_targets(&self, number: u64, targets: Vec<Target>) -> Vec<Retired> {
        let mut inner = self.inner();
        let Some(share) = inner.shares.iter_mut().find(|s| s.number == number) else {
            return Vec::new();
        };
        share.targets = targets;
        inner.direct()
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

    /// The set that is kept for a quick return, which nobody else gets then.
    pub(crate) fn take_warm(&self) -> Option<Arc<Live>> {
        let mut inner = self.inner();
        inner.standing_in = false;
        inner.warm.take()
    }

    /// Keeps a set for a quick return; the one that was kept before comes back.
    pub(crate) fn set_warm(&self, warm: Arc<Live>) -> Option<Arc<Live>> {
        self.inner().warm.replace(warm)
    }

    /// Takes back this very set, unless somebody was quicker.
    pub(crate) fn take_this_warm(&self, warm: &Arc<Live>) -> Option<Arc<Live>> {
        let kept = &mut self.inner().warm;
        kept.take_if(|kept| Arc::ptr_eq(kept, warm))
    }

    /// Whether this very set is the one that is kept beside the live release.
    pub(crate) fn keeps_warm(&self, warm: &Arc<Live>) -> bool {
        let inner = self.inner();
        inner
            .warm
            .as_ref()
            .is_some_and(|kept| Arc::ptr_eq(kept, warm))
    }

    /// Lets a set serve in the place of the live release until that one serves again. There is nothing warm then: the
    /// rollout that gives up has taken it.
    pub(crate) fn stand_in(&self, stand_in: Arc<Live>, lost: Arc<Live>) {
        let mut inner = self.inner();
        inner.live = Some(stand_in);
        inner.warm = Some(lost);
        inner.standing_in = true;
    }

    /// Whether the release that should serve does not, and another one does.
    pub(crate) fn is_standing_in(&self) -> bool {
        self.inner().standing_in
    }

    /// Ends the waiting for the release that should have served: another one does from now on. Hands it over.
    pub(crate) fn give_up_lost(&self) -> Option<Arc<Live>> {
        let mut inner = self.inner();
        std::mem::take(&mut inner.standing_in)
            .then(|| inner.warm.take())
            .flatten()
    }

    /// Held while what an earlier server has left comes to its end.
    pub(crate) fn leftovers(&self) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(&self.inner().leftovers)
    }

    /// Makes this set, which is kept beside it, the live release again; hands over the one that was. Not while a
    /// rollout decides about either.
    pub(crate) fn swap_back(&self, warm: &Arc<Live>) -> Option<Arc<Live>> {
        let mut inner = self.inner();
        if inner.rollout.is_some() {
            return None;
        }
        let back = inner.warm.take_if(|kept| Arc::ptr_eq(kept, warm))?;
        inner.standing_in = false;
        inner.live.replace(back)
    }

    /// Registers a rollout.
    pub(crate) fn begin_rollout(&self, number: u64) -> Signals {
        let signals = Signals::default();
        self.inner().rollout = Some(RunningRollout {
            number,
            signals: signals.clone(),
        });
        signals
    }

    pub(crate) fn end_rollout(&self, number: u64) {
        let mut inner = self.inner();
        if inner.rollout.as_ref().is_some_and(|r| r.number == number) {
            inner.rollout = None;
        }
    }

    /// Asks a rollout to undo itself; false when it is not running.
    pub(crate) fn abort_rollout(&self, number: u64) -> bool {
        self.signal(number, |signals| {
            signals.abort.cancel();
            true
        })
    }

    /// Lets a rollout that is watching go on; false when it is not watching.
    pub(crate) fn promote_rollout(&self, number: u64) -> bool {
        self.signal(number, Signals::promote)
    }

    fn signal(&self, number: u64, tell: impl FnOnce(&Signals) -> bool) -> bool {
        let inner = self.inner();
        let running = inner.rollout.as_ref().filter(|r| r.number == number);
        running.is_some_and(|rollout| tell(&rollout.signals))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Each change is one assignment after another without anything that could panic between.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn direct(&self) -> Vec<Retired> {
        let Some(proxy) = &self.proxy else {
            return Vec::new();
        };
        let shares = self.shares.iter().map(|share| Share {
            weight: match share.weight {
                Weight::Each => u32::try_from(share.targets.len()).unwrap_or(u32::MAX),
                Weight::Percent(percent) => percent,
            },
            targets: share.targets.clone(),
        });
        proxy.direct(&shares.collect::<Vec<_>>())
    }
}

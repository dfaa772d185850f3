//! One tenant at run time: its listener, who has its traffic, what is being done to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engines::orchestrator::{Address, Place};
use management_api::types::Protocol;
use proxy::{Proxy, Retired, Rule, Target};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::rollout::{Kept, KeptState, Live, LiveState, Release, ServiceNow, Sight};
use crate::traffic::{Gets, Part, Traffic};

/// The run-time side of a tenant. What must outlive the process is in the store.
pub(crate) struct Tenant {
    pub(crate) id: String,
    /// Where its URL listens.
    pub(crate) address: SocketAddr,
    /// `http` or `https`.
    scheme: &'static str,
    /// Its URL, where the settings say how it is reached from elsewhere.
    public: Option<String>,
    /// Counts changes of its deployments.
    changes: watch::Sender<u64>,
    /// What is seen of its release, where an engine replaces releases by itself.
    pub(crate) sight: Option<Arc<Sight>>,
    /// Cancelled when it is deleted.
    pub(crate) deleted: CancellationToken,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    traffic: Traffic,
    /// Where an engine that replaces releases by itself has it reached.
    place: Option<Place>,
    live: Option<Release>,
    /// A set that had the traffic before and is kept for a quick return.
    warm: Option<Arc<Live>>,
    /// Whether `live` stands in for `warm`, which is the release that should serve and does not.
    standing_in: bool,
    /// Held while instances that an earlier server has left, and nobody needs, come to their end.
    leftovers: Arc<tokio::sync::Mutex<()>>,
    rollout: Option<RunningRollout>,
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
    /// Where somebody waits for [`Signals::promoted`].
    watching: Arc<Mutex<Option<oneshot::Sender<()>>>>,
}

impl Signals {
    /// Returns when somebody says that it was watched enough, from this call on. A word that comes while nobody waits for it is
    /// refused, so it cannot skip a later watch.
    pub(crate) fn promoted(&self) -> impl Future<Output = ()> + use<> {
        let (word, said) = oneshot::channel();
        *self.watching() = Some(word);
        async move {
            if said.await.is_err() {
                // Another watch has begun.
                std::future::pending::<()>().await;
            }
        }
    }

    fn promote(&self) -> bool {
        // Whoever is first takes it: the second word is for nobody.
        let watching = self.watching().take();
        watching.is_some_and(|word| word.send(()).is_ok())
    }

    fn watching(&self) -> MutexGuard<'_, Option<oneshot::Sender<()>>> {
        self.watching.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tenant {
    pub(crate) fn new(id: &str, address: SocketAddr, scheme: &'static str) -> Self {
        Self {
            id: id.to_owned(),
            address,
            scheme,
            public: None,
            changes: watch::Sender::new(0),
            sight: None,
            deleted: CancellationToken::new(),
            inner: Mutex::default(),
        }
    }

    /// One whose releases an engine replaces by itself. The port is kept for when another engine does not.
    pub(crate) fn ordered(id: &str, address: SocketAddr, scheme: &'static str) -> Self {
        Self {
            sight: Some(Arc::default()),
            ..Self::new(id, address, scheme)
        }
    }

    /// The same with this URL, if there is one that its address does not say.
    pub(crate) fn reached_at(self, public: Option<String>) -> Self {
        Self { public, ..self }
    }

    /// The tenant's URL, if anybody knows it yet.
    pub(crate) fn known_url(&self) -> Option<String> {
        (self.sight.is_none() || self.place().is_some()).then(|| self.url())
    }

    /// The tenant's URL. It is for this machine where the server listens on all addresses and nothing is said of others.
    pub(crate) fn url(&self) -> String {
        if let Some(place) = self.place() {
            return place.url;
        }
        if let Some(public) = &self.public {
            return public.clone();
        }
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

    /// Where an engine that replaces releases by itself has it reached, once that has said so.
    pub(crate) fn place(&self) -> Option<Place> {
        self.inner().place.clone()
    }

    /// Services that were told of are not forgotten.
    pub(crate) fn set_place(&self, place: Place) {
        let mut inner = self.inner();
        let mut services = place.services;
        if let Some(before) = inner.place.take() {
            for (name, address) in before.services {
                services.entry(name).or_insert(address);
            }
        }
        let url = place.url;
        inner.place = Some(Place { url, services });
    }

    /// Where other services reach one, as a host and a port.
    pub(crate) fn inside(&self, service: &str, protocol: Protocol) -> Option<Address> {
        if self.sight.is_some() {
            let inner = self.inner();
            return inner.place.as_ref()?.services.get(service).cloned();
        }
        let door = self.door(service, protocol)?;
        Some(Address {
            host: door.ip().to_string(),
            port: door.port(),
        })
    }

    /// Gives the tenant its listener and directs it where the traffic belongs.
    pub(crate) fn set_proxy(&self, proxy: Proxy) {
        // There was no traffic before: nothing to drain.
        drop(self.inner().traffic.set_proxy(proxy));
    }

    pub(crate) fn proxy(&self) -> Option<Proxy> {
        self.inner().traffic.proxy().cloned()
    }

    /// Opens a place where services reach one of them, unless it is open.
    pub(crate) fn add_door(&self, key: &str, proxy: Proxy) {
        drop(self.inner().traffic.add_door(key, proxy));
    }

    pub(crate) fn has_door(&self, key: &str) -> bool {
        self.inner().traffic.has_door(key)
    }

    /// Hands over the doors that are not among these.
    pub(crate) fn close_doors(&self, keys: &BTreeSet<String>) -> Vec<Proxy> {
        self.inner().traffic.close_doors(keys)
    }

    /// The proxies between its services, by the keys of their doors.
    pub(crate) fn doors(&self) -> BTreeMap<String, Proxy> {
        let inner = self.inner();
        let doors = inner.traffic.doors();
        doors
            .map(|(key, proxy)| (key.to_owned(), proxy.clone()))
            .collect()
    }

    /// Where other services reach one.
    pub(crate) fn door(&self, service: &str, protocol: Protocol) -> Option<SocketAddr> {
        self.inner().traffic.door(service, protocol)
    }

    /// Makes these the only services that have traffic and these the only routes, all at one moment.
    pub(crate) fn give_traffic(
        &self,
        rules: Vec<Rule>,
        services: BTreeMap<String, Gets>,
    ) -> Vec<Retired> {
        self.inner().traffic.give(rules, services)
    }

    /// See [`Traffic::open_inside`].
    pub(crate) fn open_inside(&self, service: &str, number: u64, targets: Vec<Target>) {
        self.inner().traffic.open_inside(service, number, targets);
    }

    /// Nobody gets traffic of these services.
    pub(crate) fn stop_traffic(&self, services: &BTreeSet<String>) -> Vec<Retired> {
        self.inner().traffic.stop(services)
    }

    /// See [`Traffic::await_others`].
    pub(crate) fn await_traffic(&self, services: &BTreeSet<String>) {
        self.inner().traffic.await_others(services);
    }

    /// Nobody waits any more for what does not serve, unless a rollout says otherwise.
    pub(crate) fn stop_waiting(&self) {
        let mut inner = self.inner();
        if inner.rollout.is_none() {
            inner.traffic.stop_waiting();
        }
    }

    /// See [`Traffic::suspend`]. The end of the rollout is the end of waiting, too.
    pub(crate) fn suspend_traffic(&self, services: &BTreeSet<String>) -> Vec<Retired> {
        self.inner().traffic.suspend(services)
    }

    /// Nobody gets traffic.
    pub(crate) fn stop_all_traffic(&self) -> Vec<Retired> {
        self.inner().traffic.stop_all()
    }

    /// See [`Traffic::split`].
    pub(crate) fn split_traffic(&self, services: BTreeMap<String, Vec<Part>>) -> Vec<Retired> {
        self.inner().traffic.split(services)
    }

    /// Names the instances of a deployment, if it has a part of the service's traffic.
    pub(crate) fn set_targets(
        &self,
        service: &str,
        number: u64,
        targets: Vec<Target>,
    ) -> Vec<Retired> {
        self.inner().traffic.set_targets(service, number, targets)
    }

    /// See [`Traffic::public`].
    #[cfg(test)]
    pub(crate) fn public_traffic(&self) -> (Vec<Rule>, BTreeMap<String, Vec<Part>>) {
        self.inner().traffic.public()
    }

    /// Number of the deployment that a rollout carries out.
    pub(crate) fn rollout(&self) -> Option<u64> {
        self.inner().rollout.as_ref().map(|rollout| rollout.number)
    }

    /// Whether instances of a service get what it is asked.
    pub(crate) fn serves(&self, service: &str) -> bool {
        let inner = self.inner();
        let lost = inner.warm.as_ref().filter(|_| inner.standing_in);
        let live = inner.live.iter().filter_map(Release::kept);
        let releases = live.chain(lost);
        let mut kept = releases.filter_map(|live| live.service(service));
        // Nobody starts it again: there is nothing to wait for.
        let is_over = |kept: &Arc<Kept>| matches!(kept.state(), KeptState::Ended { .. });
        inner.traffic.serves(service) || kept.any(is_over)
    }

    /// Whether instances of a service have its traffic, or will have it.
    pub(crate) fn has_traffic(&self, service: &str) -> bool {
        self.inner().traffic.has(service)
    }

    /// The release that serves, whoever keeps it running.
    pub(crate) fn release(&self) -> Option<Release> {
        self.inner().live.clone()
    }

    /// The services of what serves: those of the live release, and those that the release keeps for it in whose place it
    /// serves.
    pub(crate) fn services_now(&self) -> Vec<ServiceNow> {
        let lost = self.lost().map(Release::Kept);
        let releases = lost.into_iter().chain(self.release());
        releases.flat_map(|release| release.services()).collect()
    }

    /// The release that this server keeps running.
    pub(crate) fn live(&self) -> Option<Arc<Live>> {
        self.inner().live.as_ref().and_then(Release::kept).cloned()
    }

    pub(crate) fn set_live(&self, live: Option<Arc<Live>>) {
        self.set_release(live.map(Release::Kept));
    }

    pub(crate) fn set_release(&self, release: Option<Release>) {
        self.inner().live = release;
        // Somebody may wait for a service that has done its work.
        self.changed();
    }

    /// State of the live release, with its deployment's number.
    pub(crate) fn live_state(&self) -> Option<(u64, LiveState)> {
        let release = self.release();
        release.map(|release| (release.number(), release.state()))
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
        inner.live = Some(Release::Kept(stand_in));
        inner.warm = Some(lost);
        inner.standing_in = true;
    }

    /// The release that should serve and does not, while another one does.
    pub(crate) fn lost(&self) -> Option<Arc<Live>> {
        let inner = self.inner();
        inner.warm.clone().filter(|_| inner.standing_in)
    }

    /// What is kept beside the live release.
    pub(crate) fn warm(&self) -> Option<Arc<Live>> {
        self.inner().warm.clone()
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
        let before = inner.live.replace(Release::Kept(back))?;
        before.kept().cloned()
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
            inner.traffic.stop_waiting();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_word_is_for_the_watch_that_has_begun_and_for_no_later_one() {
        let signals = Signals::default();
        assert!(!signals.promote(), "nobody watches");
        // Whoever sees that it is paused may say so at once, before anybody has come to wait.
        let first = signals.promoted();
        assert!(signals.promote());
        assert!(!signals.promote(), "the second word is for nobody");
        first.await;
        // One that has ended by itself takes a word with it.
        drop(signals.promoted());
        assert!(!signals.promote());
        let said = signals.promoted();
        assert!(signals.promote());
        drop(said);
        let mut next = std::pin::pin!(signals.promoted());
        let waits = futures_util::poll!(&mut next);
        assert!(waits.is_pending(), "a word of before skips nothing");
    }
}

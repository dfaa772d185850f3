//! Keeping a service of a release running: each of its instances that ends or stops answering is started again.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engines::{Exit, Instance};
use futures_util::future::join_all;
use management_api::types::{Failure, Probe, Restart};
use proxy::{Retired, Target};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::failure::PORT_TAKEN;
use super::live::Live;
use super::probe::no_longer;
use super::release::Condition;
use super::restart::{is_done, starts_again};
use super::{health, instances};
use crate::deployments::Service;
use crate::platform::App;
use crate::store::DeploymentRow;
use crate::tenant::Tenant;

/// Before the first restart, doubled with each further one up to the limit.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// An instance that ran for this long has proved itself: its restart begins a new series.
const STABLE: Duration = Duration::from_mins(1);

/// How the instances of a service are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeptState {
    /// None is healthy yet.
    Starting,
    /// These have the traffic.
    Serving(Vec<Target>),
    /// None is healthy; the last one ended, for this reason. Others will be started.
    Down(String),
    /// None runs, and none is started again.
    Ended {
        /// Why the last one ended.
        why: String,
        /// Whether all have done their work.
        well: bool,
    },
}

/// A service of a release that is kept running until somebody takes it over.
pub(crate) struct Kept {
    pub(crate) name: String,
    pub(crate) service: Service,
    /// The deployment that has started it.
    pub(crate) row: DeploymentRow,
    /// Whether no instance was there when the keeping began.
    pub(super) is_new: bool,
    app: App,
    board: Arc<Board>,
    slots: Mutex<Vec<Slot>>,
}

/// A place for one instance, and who keeps it filled.
struct Slot {
    id: u64,
    stop: CancellationToken,
    keeper: JoinHandle<Option<Instance>>,
}

/// What a slot begins with.
enum Beginning {
    Nothing,
    Healthy(Instance),
    Unproven(Instance),
}

impl Beginning {
    fn serving(&self) -> Option<Instance> {
        match self {
            Self::Healthy(instance) => Some(instance.clone()).filter(|one| one.exited().is_none()),
            Self::Nothing | Self::Unproven(_) => None,
        }
    }
}

/// A service whose keepers wait.
pub(super) struct Held<'a>(MutexGuard<'a, Entries>);

impl Held<'_> {
    pub(super) fn targets(&self) -> Vec<Target> {
        self.0.targets()
    }
}

/// The instances of one service that have run on.
#[derive(Default)]
pub(super) struct Running {
    /// Those that answer as they should.
    pub(super) healthy: Vec<Instance>,
    /// Those that may yet: still starting, or out of the traffic for a while.
    pub(super) unproven: Vec<Instance>,
    /// How many have ended that are not started again.
    pub(super) ended: u32,
}

/// How each slot is: what the keepers write and everybody reads.
struct Board {
    number: u64,
    service: String,
    /// Whether instances have ended before this began that are not started again.
    ended_before: bool,
    tenant: Arc<Tenant>,
    slots: Mutex<Entries>,
    state: watch::Sender<KeptState>,
}

#[derive(Default)]
struct Entries {
    next: u64,
    slots: Vec<(u64, Option<Instance>)>,
    /// Why the last instance ended that did.
    ended: Option<String>,
    /// Those whose instance has ended and is not started again; they may be gone since.
    over: Vec<u64>,
    /// Whether one of them has failed.
    failed: bool,
}

impl Entries {
    fn targets(&self) -> Vec<Target> {
        let serving = self.slots.iter().flat_map(|(_, instance)| instance);
        serving.map(instances::target).collect()
    }

    /// How many slots have an instance, or are to have one.
    fn kept(&self) -> usize {
        let kept = self.slots.iter().filter(|(id, _)| !self.over.contains(id));
        kept.count()
    }
}

impl Kept {
    /// Keeps a service of the release of `row` running, beginning with instances that are healthy, and others that get no traffic before
    /// they are.
    pub(super) fn keep(
        app: &App,
        tenant: &Arc<Tenant>,
        row: DeploymentRow,
        (name, service): (String, Service),
        running: Running,
    ) -> Arc<Self> {
        let Running {
            healthy, unproven, ..
        } = running;
        let kept = Arc::new(Self {
            is_new: healthy.is_empty() && unproven.is_empty(),
            app: App::clone(app),
            board: Arc::new(Board::new(&row, &name, tenant)),
            slots: Mutex::default(),
            name,
            service,
            row,
        });
        let wanted = kept.wanted();
        let healthy = healthy.into_iter().map(Beginning::Healthy);
        let mut slots: Vec<_> = healthy
            .chain(unproven.into_iter().map(Beginning::Unproven))
            .collect();
        slots.resize_with(wanted.max(slots.len()), || Beginning::Nothing);
        kept.add(slots);
        kept
    }

    /// Whether so many of its instances answer as they should, right now.
    pub(crate) async fn answers(&self, count: usize) -> bool {
        let check = &self.service.health;
        let serving = self.board.instances();
        let asked = serving.iter().map(|one| health::is_healthy(one, check));
        let answers = join_all(asked).await;
        answers.into_iter().filter(|good| *good).count() >= count
    }

    pub(crate) fn state(&self) -> KeptState {
        self.board.state.borrow().clone()
    }

    /// How it is, for everybody who asks nothing of its instances.
    pub(crate) fn condition(&self) -> Condition {
        match self.state() {
            KeptState::Starting => Condition::Starting,
            KeptState::Serving(targets) => {
                Condition::Serving(targets.into_iter().map(|target| target.id).collect())
            }
            KeptState::Down(why) => Condition::Down(why),
            KeptState::Ended { why, well } => Condition::Ended { why, well },
        }
    }

    /// Where its instances are that serve.
    pub(crate) fn targets(&self) -> Vec<Target> {
        match self.state() {
            KeptState::Serving(targets) => targets,
            KeptState::Starting | KeptState::Down(_) | KeptState::Ended { .. } => Vec::new(),
        }
    }

    /// How many instances there have been to keep at the beginning.
    fn wanted(&self) -> usize {
        let ended = self.row.ended_of(&self.name);
        self.service.replicas.saturating_sub(ended) as usize
    }

    /// How many run, or are being started.
    pub(crate) fn kept(&self) -> usize {
        self.board.lock().kept()
    }

    /// How many were taken away that would still run.
    pub(crate) fn missing(&self) -> usize {
        let entries = self.board.lock();
        let there = entries.kept() + entries.over.len();
        self.wanted().saturating_sub(there)
    }

    /// How many have ended that are not started again.
    pub(crate) fn ended(&self) -> u32 {
        let over = u32::try_from(self.board.lock().over.len()).unwrap_or(u32::MAX);
        self.row.ended_of(&self.name).saturating_add(over)
    }

    /// How many instances are kept.
    pub(crate) fn size(&self) -> usize {
        self.slots().len()
    }

    /// Waits until so many serve, or none is started any more; false when that has not come true within `limit`.
    pub(crate) async fn serves_within(&self, count: usize, limit: Duration) -> bool {
        let mut state = self.board.state.subscribe();
        let serving = state.wait_for(|state| match state {
            KeptState::Serving(targets) => targets.len() >= count,
            // Nobody comes.
            KeptState::Ended { .. } => true,
            KeptState::Starting | KeptState::Down(_) => false,
        });
        matches!(tokio::time::timeout(limit, serving).await, Ok(Ok(_)))
    }

    /// Returns once an instance serves, or the first start of one has come to nothing, or nobody keeps the service any more.
    pub(super) fn started(&self) -> impl Future<Output = ()> + use<> {
        let mut state = self.board.state.subscribe();
        async move {
            // An error means that it is not kept any more.
            let _ = state.wait_for(|now| *now != KeptState::Starting).await;
        }
    }

    /// Holds its keepers, so that they name no other instances meanwhile, and says which there are.
    pub(super) fn hold(&self) -> Held<'_> {
        Held(self.board.lock())
    }

    /// Keeps `count` more instances.
    pub(crate) fn grow(&self, count: usize) {
        self.add((0..count).map(|_| Beginning::Nothing).collect());
    }

    /// Keeps `count` fewer: these get no new requests and are handed over, with the routes that tell when
    /// their last request has ended. Those that are down go first.
    pub(crate) async fn shrink(&self, count: usize) -> (Vec<Instance>, Vec<Retired>) {
        let serving = self.board.serving();
        let chosen: Vec<Slot> = {
            let mut slots = self.slots();
            slots.sort_by_key(|slot| !serving.contains(&slot.id));
            let rest = slots.len().saturating_sub(count);
            // The end holds those that are down.
            slots.split_off(rest)
        };
        let ids: Vec<u64> = chosen.iter().map(|slot| slot.id).collect();
        let instances = collect(chosen).await;
        (instances, self.board.remove(&ids))
    }

    /// Ends the keeping and hands the instances over. Their traffic stays as it is. The first caller
    /// gets them.
    pub(crate) async fn let_go(&self) -> Vec<Instance> {
        let slots = std::mem::take(&mut *self.slots());
        collect(slots).await
    }

    /// Keeps instances again that it has handed over and nobody has stopped. Those that answer as they should serve at once,
    /// as far as somebody gives them traffic.
    pub(super) async fn take_back(&self, instances: Vec<Instance>) {
        let check = &self.service.health;
        let asked = instances.into_iter().map(|one| async move {
            if health::is_healthy(&one, check).await {
                Beginning::Healthy(one)
            } else {
                Beginning::Unproven(one)
            }
        });
        let beginnings = join_all(asked).await;
        let kept: Vec<u64> = self.slots().iter().map(|slot| slot.id).collect();
        self.board.forget_all_but(&kept);
        self.add(beginnings);
    }

    /// A slot for each, filled or not.
    fn add(&self, slots: Vec<Beginning>) {
        let ids = self
            .board
            .enter(slots.iter().map(Beginning::serving).collect());
        for (id, beginning) in ids.into_iter().zip(slots) {
            // The end of the server ends the keeping too.
            let stop = self.app.shutdown.child_token();
            let keeper = Keeper {
                app: App::clone(&self.app),
                name: self.name.clone(),
                service: self.service.clone(),
                row: self.row.clone(),
                board: Arc::clone(&self.board),
                slot: id,
                stop: stop.clone(),
                pause: Duration::ZERO,
            };
            let keeper = self.app.tasks.spawn(keeper.run(beginning));
            self.slots().push(Slot { id, stop, keeper });
        }
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells all keepers to stop, then waits for each.
async fn collect(slots: Vec<Slot>) -> Vec<Instance> {
    for slot in &slots {
        slot.stop.cancel();
    }
    let mut instances = Vec::new();
    for slot in slots {
        instances.extend(slot.keeper.await.ok().flatten());
    }
    instances
}

impl Board {
    fn new(row: &DeploymentRow, service: &str, tenant: &Arc<Tenant>) -> Self {
        Self {
            number: row.number,
            ended_before: row.ended_of(service) > 0,
            service: service.to_owned(),
            tenant: Arc::clone(tenant),
            slots: Mutex::default(),
            state: watch::Sender::new(KeptState::Starting),
        }
    }

    fn enter(&self, serving: Vec<Option<Instance>>) -> Vec<u64> {
        let mut entries = self.lock();
        let first = entries.next;
        entries.slots.extend((first..).zip(serving));
        entries.next = entries.slots.last().map_or(first, |(id, _)| id + 1);
        // All at once: none of those that serve loses its traffic for a moment.
        drop(self.publish(&entries));
        let ids = (first..entries.next).collect();
        drop(entries);
        self.tenant.changed();
        ids
    }

    fn serving(&self) -> Vec<u64> {
        let entries = self.lock();
        let serving = entries.slots.iter().filter(|(_, one)| one.is_some());
        serving.map(|(id, _)| *id).collect()
    }

    fn instances(&self) -> Vec<Instance> {
        let entries = self.lock();
        let serving = entries.slots.iter().flat_map(|(_, instance)| instance);
        serving.cloned().collect()
    }

    fn up(&self, slot: u64, instance: &Instance) {
        self.set(slot, Some(instance.clone()), None);
    }

    /// The instance of a slot has ended, and no other one takes its place.
    fn over(&self, slot: u64, why: String, well: bool) {
        let mut entries = self.lock();
        entries.over.push(slot);
        entries.failed |= !well;
        drop(entries);
        self.set(slot, None, Some(why));
    }

    fn down(&self, slot: u64, why: String) {
        self.set(slot, None, Some(why));
    }

    fn set(&self, slot: u64, instance: Option<Instance>, ended: Option<String>) {
        let mut entries = self.lock();
        if let Some(entry) = entries.slots.iter_mut().find(|(id, _)| *id == slot) {
            entry.1 = instance;
        }
        entries.ended = ended.or(entries.ended.take());
        // What it had before has ended, or only gets nothing new: there is nothing to wait for.
        drop(self.publish(&entries));
        drop(entries);
        self.tenant.changed();
    }

    /// Of slots without a keeper nothing is told any more, but that they are over.
    fn forget_all_but(&self, ids: &[u64]) {
        let mut entries = self.lock();
        let Entries { slots, over, .. } = &mut *entries;
        slots.retain(|(id, _)| ids.contains(id) || over.contains(id));
    }

    fn remove(&self, ids: &[u64]) -> Vec<Retired> {
        let mut entries = self.lock();
        entries.slots.retain(|(id, _)| !ids.contains(id));
        self.publish(&entries)
    }

    /// Tells the world, in the order of the changes.
    fn publish(&self, entries: &Entries) -> Vec<Retired> {
        let targets = entries.targets();
        let over = entries.kept() == 0 && (self.ended_before || !entries.over.is_empty());
        let why = entries.ended.clone();
        let state = match (targets.is_empty(), why) {
            (false, _) => KeptState::Serving(targets.clone()),
            (true, why) if over => KeptState::Ended {
                why: why.unwrap_or_else(|| "all of its instances have ended".to_owned()),
                well: !entries.failed,
            },
            (true, Some(why)) => KeptState::Down(why),
            (true, None) => KeptState::Starting,
        };
        self.state.send_replace(state);
        self.tenant.set_targets(&self.service, self.number, targets)
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why an instance is no good any more.
enum Lost {
    Ended(Exit),
    /// It runs, and does not answer as it should.
    Unwell(String),
}

impl Lost {
    fn why(self) -> String {
        match self {
            Self::Ended(exit) => described(exit),
            Self::Unwell(why) => why,
        }
    }
}

struct Keeper {
    app: App,
    name: String,
    service: Service,
    row: DeploymentRow,
    board: Arc<Board>,
    slot: u64,
    stop: CancellationToken,
    /// Before the next start.
    pause: Duration,
}

impl Keeper {
    async fn run(mut self, beginning: Beginning) -> Option<Instance> {
        let (mut healthy, mut unproven) = match beginning {
            Beginning::Nothing => (None, None),
            Beginning::Healthy(instance) => (Some(instance), None),
            Beginning::Unproven(instance) => (None, Some(instance)),
        };
        loop {
            let current = match healthy.take() {
                Some(instance) => instance,
                None => self.start(unproven.take()).await?,
            };
            let since = Instant::now();
            let Some(lost) = self.watch(&current).await else {
                return Some(current);
            };
            if let Lost::Ended(exit) = lost
                && !starts_again(self.restart(), exit)
            {
                let well = is_done(self.restart(), exit);
                self.finish(described(exit), well).await;
                // It leaves a directory behind.
                current.stop(Duration::ZERO).await;
                return None;
            }
            self.note_end(lost.why(), since.elapsed());
            // What is unhealthy still runs; what has ended leaves a directory behind.
            current.stop(self.app.settings.rollout.stop_grace()).await;
            self.app.metrics.count_restart(&self.row.tenant);
        }
    }

    /// Starts instances until one is healthy and has traffic, beginning with one that runs already if there is one; `None`
    /// when told to stop.
    async fn start(&mut self, mut running: Option<Instance>) -> Option<Instance> {
        loop {
            let pause = tokio::time::sleep(self.pause);
            tokio::select! {
                () = self.stop.cancelled() => return None,
                () = pause => {}
            }
            let adopted = running.is_some();
            let started = if let Some(instance) = running.take() {
                Ok(instance)
            } else {
                self.until_needed_serve().await?;
                // A start that has begun comes to its end: else it could run beside what takes this one's place.
                instances::start(&self.app, &self.row, &self.name, &self.service).await
            };
            let instance = match started {
                Ok(instance) => instance,
                Err(failure) => {
                    self.note_end(failure.message, Duration::ZERO);
                    continue;
                }
            };
            match self.prove(instance, adopted).await {
                Ok(Some(instance)) if instance.exited().is_some() => return Some(instance),
                Ok(Some(instance)) => {
                    self.board.up(self.slot, &instance);
                    self.tell(&instance, "an instance of the live release serves");
                    return Some(instance);
                }
                Ok(None) => return None,
                // Where another program has its port, the application has had no chance.
                Err(failure) if self.restart() == Restart::Never && failure.code != PORT_TAKEN => {
                    self.finish(failure.message, false).await;
                    return None;
                }
                Err(failure) => self.note_end(failure.message, Duration::ZERO),
            }
        }
    }

    /// Waits for the services that it depends on; `None` when told to stop.
    async fn until_needed_serve(&self) -> Option<()> {
        let tenant = &self.board.tenant;
        let mut changes = tenant.changes();
        let needed = &self.service.depends_on;
        while !needed.iter().all(|needed| tenant.serves(needed)) {
            tokio::select! {
                () = self.stop.cancelled() => return None,
                changed = changes.changed() => changed.ok()?,
            }
        }
        Some(())
    }

    async fn prove(&self, instance: Instance, adopted: bool) -> Result<Option<Instance>, Failure> {
        let proof = async {
            if adopted && self.restart() == Restart::Never {
                // It has proved itself to an earlier server; until it is well again it gets no requests.
                tokio::select! {
                    _ = instance.wait() => {}
                    () = health::until_well(&instance, &self.service.health) => {}
                }
            }
            health::until_healthy(&instance, &self.service).await
        };
        let healthy = tokio::select! {
            () = self.stop.cancelled() => None,
            healthy = proof => Some(healthy),
        };
        if let Some(Ok(_)) = healthy {
            return Ok(Some(instance));
        }
        instance.stop(self.app.settings.rollout.stop_grace()).await;
        match healthy {
            Some(Err(failure)) => Err(failure),
            _ => Ok(None),
        }
    }

    /// Watches a serving instance; returns why it is no good any more, or `None` when told to stop.
    async fn watch(&self, instance: &Instance) -> Option<Lost> {
        tokio::select! {
            () = self.stop.cancelled() => None,
            exit = instance.wait() => Some(Lost::Ended(exit)),
            asked = self.until_lost(instance) => Some(Lost::Unwell(format!("it {}", no_longer(asked)))),
        }
    }

    fn restart(&self) -> Restart {
        self.service.restart
    }

    /// The deployment whose release it belongs to by now: that which has carried it over, else that which has started it.
    fn release(&self) -> u64 {
        let tenant = &self.board.tenant;
        let carries = |live: &Arc<Live>| {
            let kept = live.service(&self.name);
            kept.is_some_and(|kept| kept.row.number == self.row.number)
        };
        let mut releases = tenant.live().into_iter().chain(tenant.lost());
        releases
            .find(carries)
            .map_or(self.row.number, |live| live.number)
    }

    /// Takes note of an instance that has ended and is not started again, for the next server too.
    async fn finish(&self, why: String, well: bool) {
        tracing::info!(
            tenant = self.row.tenant,
            deployment = self.row.number,
            why,
            "an instance of the live release has ended and is not started again"
        );
        self.board.over(self.slot, why, well);
        let (tenant, number) = (&self.row.tenant, self.release());
        let over = u32::try_from(self.board.lock().over.len()).unwrap_or(u32::MAX);
        let count = self.row.ended_of(&self.name).saturating_add(over);
        note_ended(&self.app, tenant, number, &self.name, count).await;
    }

    /// Returns when it has to be started again although it runs, with what it failed.
    async fn until_lost(&self, instance: &Instance) -> &Probe {
        let check = &self.service.health;
        let Some(liveness) = &check.liveness else {
            if self.restart() == Restart::Never {
                match self.follow_readiness(instance).await {}
            }
            health::until_unhealthy(instance, check).await;
            return &check.probe;
        };
        tokio::select! {
            () = health::until_dead(instance, liveness) => &liveness.probe,
            never = self.follow_readiness(instance) => match never {},
        }
    }

    /// Takes an instance that is not healthy out of the traffic, and back in when it is again.
    async fn follow_readiness(&self, instance: &Instance) -> Infallible {
        let check = &self.service.health;
        loop {
            health::until_unhealthy(instance, check).await;
            let why = format!("it {}", no_longer(&check.probe));
            self.tell(
                instance,
                "an instance of the live release gets no requests until it is well",
            );
            self.board.down(self.slot, why);
            health::until_well(instance, check).await;
            self.tell(
                instance,
                "an instance of the live release gets requests again",
            );
            self.board.up(self.slot, instance);
        }
    }

    fn tell(&self, instance: &Instance, what: &str) {
        tracing::info!(
            tenant = self.row.tenant,
            deployment = self.row.number,
            service = self.name,
            instance = instance.id(),
            "{what}"
        );
    }

    fn note_end(&mut self, why: String, ran: Duration) {
        self.pause = if ran >= STABLE || self.pause.is_zero() {
            FIRST_PAUSE
        } else {
            (self.pause * 2).min(LONGEST_PAUSE)
        };
        tracing::warn!(
            tenant = self.row.tenant,
            deployment = self.row.number,
            service = self.name,
            why,
            again_in_seconds = self.pause.as_secs(),
            "an instance of the live release is down"
        );
        self.board.down(self.slot, why);
    }
}

/// Writes down, for the next server too, how many instances of a service have ended that are not started again.
pub(super) async fn note_ended(app: &App, tenant: &str, number: u64, service: &str, count: u32) {
    let noted = app.store.note_ended(tenant, number, service, count).await;
    if let Err(error) = noted {
        tracing::error!(
            tenant,
            deployment = number,
            service,
            error = %crate::chain(&error),
            "the end of an instance could not be written down: the next server starts it again"
        );
    }
}

pub(super) fn described(exit: Exit) -> String {
    match exit {
        Exit::Code(_) => format!("it ended with {exit}"),
        Exit::Signal(_) => format!("it was ended by {exit}"),
        Exit::OutOfMemory { .. } => exit.to_string(),
    }
}

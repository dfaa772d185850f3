//! One rollout, step by step. Each state is durable before what it announces is done, so that a
//! server that dies at any point leaves behind what the next one can finish.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engines::{Exit, Instance};
use futures_util::future::join_all;
use management_api::types::Failure;
use proxy::{Retired, Target};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use super::kept::{Kept, Running, note_ended};
use super::live::{Live, rules};
use super::restart::is_done;
use super::verify::verify;
use super::watching::{Log, log_from_now};
use super::{doors, instances};
use crate::deployments::{Course, Service, State};
use crate::die::die_if;
use crate::platform::App;
use crate::store::{Advance, DeploymentRow, StoreError};
use crate::tenant::{Signals, Tenant};
use crate::traffic::Gets;

/// How often a state that must be written is tried again, and how long between.
const WRITES: u32 = 30;
const WRITE_PAUSE: Duration = Duration::from_secs(1);
/// For requests on instances that retire while the server ends: as long as its proxies wait.
const DRAIN_AT_THE_END: Duration = Duration::from_secs(10);

/// Why a rollout does not go on.
pub(super) enum Stop {
    Failed(Failure),
    Aborted,
    /// The server is stopping.
    Interrupted,
    Deadline,
    Store(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Carries out a deployment that is in state `requested`.
pub(crate) async fn run(
    app: App,
    tenant: Arc<Tenant>,
    row: DeploymentRow,
    unchanged: Unchanged,
    signals: Signals,
) {
    let started = Instant::now();
    let number = row.number;
    let course = Course::of(row.strategy, &row.rollout);
    let old = tenant.live();
    let span = tracing::info_span!(
        "deployment",
        otel.status_code = Empty,
        tenant = tenant.id,
        deployment = number,
        strategy = row.strategy.as_str(),
        digest = row.capsule.digest,
        state = Empty,
    );
    let rollout = Rollout {
        deadline: started + Duration::from_secs(row.timeout_seconds) + pauses(&course, &row),
        state: row.state,
        in_state: span.in_scope(|| in_state(row.state)),
        old_served: old.iter().flat_map(|old| old.serving()).collect(),
        old,
        old_let_go: false,
        parts: Vec::new(),
        handed_over: Vec::new(),
        leaving: Vec::new(),
        carried: Vec::new(),
        once: New::default(),
        may_carry: unchanged == Unchanged::RunsOn,
        well: BTreeSet::new(),
        proved: None,
        opened: BTreeSet::new(),
        app: App::clone(&app),
        tenant: Arc::clone(&tenant),
        course,
        row,
        signals,
    };
    let end = rollout.carry_out().instrument(span.clone()).await;
    span.record("state", end.as_str());
    if end != State::Succeeded {
        span.record("otel.status_code", "ERROR");
    }
    drop(span);
    tenant.end_rollout(number);
    app.metrics.count_deployment(end, started.elapsed());
    tracing::info!(tenant = tenant.id, deployment = number, %end, "a deployment is over");
    app.tidy(&tenant.id).await;
}

/// What becomes of services that a deployment does not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unchanged {
    RunsOn,
    /// It is started anew as well.
    Restarts,
}

/// The time in which a deployment only watches.
fn pauses(course: &Course, row: &DeploymentRow) -> Duration {
    let services = row.capsule.services().into_values();
    let routed = services.filter(Service::is_routed);
    let pauses = routed.map(|service| course.planned_pauses(service.replicas as usize));
    match course {
        // One service after the other.
        Course::Rolling { .. } => pauses.sum(),
        _ => pauses.max().unwrap_or_default(),
    }
}

/// The new instances of a service that were started. Each is in here from its start on, whoever is waited for.
#[derive(Clone, Default)]
pub(super) struct New(Arc<Mutex<Vec<Instance>>>);

impl New {
    pub(super) fn push(&self, instance: Instance) {
        self.lock().push(instance);
    }

    pub(super) fn all(&self) -> Vec<Instance> {
        self.lock().clone()
    }

    pub(super) fn take(&self) -> Vec<Instance> {
        std::mem::take(&mut *self.lock())
    }

    pub(super) fn remove(&self, instance: &Instance) {
        self.lock().retain(|one| one.id() != instance.id());
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn targets(&self) -> Vec<Target> {
        let new = self.lock();
        let running = new.iter().filter(|one| one.exited().is_none());
        running.map(instances::target).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Instance>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Rollout {
    pub(super) app: App,
    pub(super) tenant: Arc<Tenant>,
    pub(super) row: DeploymentRow,
    pub(super) course: Course,
    /// As written last.
    pub(super) state: State,
    /// The time in this state, for traces.
    pub(super) in_state: Span,
    pub(super) deadline: Instant,
    pub(super) signals: Signals,
    /// The release that was live before.
    pub(super) old: Option<Arc<Live>>,
    /// Those of its services that served when this began.
    pub(super) old_served: BTreeSet<String>,
    /// Whether nobody keeps the old release running any more, but what is carried over.
    pub(super) old_let_go: bool,
    /// The services that are started, each behind those that it depends on; those that take volumes over come last.
    pub(super) parts: Vec<Part>,
    /// Services of releases before that were stopped for others to have their volumes.
    pub(super) handed_over: Vec<Arc<Kept>>,
    /// Old instances that made room and end beside what else is done, by who kept them.
    pub(super) leaving: Vec<(Arc<Kept>, JoinHandle<()>)>,
    /// The services that run on as they are.
    pub(super) carried: Vec<Arc<Kept>>,
    /// What runs the release command.
    pub(super) once: New,
    /// Whether what has not changed runs on.
    pub(super) may_carry: bool,
    /// New instances that have proved themselves.
    pub(super) well: BTreeSet<String>,
    /// How the service proved itself that did last.
    pub(super) proved: Option<String>,
    /// Services that others reach elsewhere already than before this began, or nowhere.
    pub(super) opened: BTreeSet<String>,
}

/// A service that is started.
#[derive(Clone)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) service: Service,
    pub(super) new: New,
    /// The one of the old release.
    pub(super) old: Option<Arc<Kept>>,
    /// Begins behind the release command.
    pub(super) log: Log,
    /// Whether it gets a volume that a release before has.
    pub(super) takes_over: bool,
}

impl Part {
    pub(super) fn replicas(&self) -> usize {
        self.service.replicas as usize
    }

    /// How one of its new instances has ended that should not have.
    pub(super) fn failed(&self) -> Option<Exit> {
        let ended = self.new.all().into_iter().filter_map(|one| one.exited());
        let mut failed = ended.filter(|exit| !is_done(self.service.restart, *exit));
        failed.next()
    }

    /// Whether there is somebody to share the traffic with.
    pub(super) fn old_serves(&self) -> bool {
        self.old
            .as_ref()
            .is_some_and(|old| !old.targets().is_empty())
    }

    /// The old one, where requests from outside may go to it or to the new one.
    pub(super) fn shares_with(&self) -> Option<&Arc<Kept>> {
        let shares = self.service.is_routed() && self.old_serves();
        self.old.as_ref().filter(|_| shares && !self.takes_over)
    }
}

impl Rollout {
    async fn carry_out(mut self) -> State {
        if let Some(engine) = self.app.engine.orchestrator().cloned() {
            self.order(engine).await;
            return self.state;
        }
        match self.forward().await {
            Ok(retired) => self.finish(retired).await,
            Err(stop) => self.undo(stop).await,
        }
        self.state
    }

    /// Up to the commit.
    async fn forward(&mut self) -> Result<Vec<Retired>, Stop> {
        // Nothing of this tenant runs twice, a release command for instance.
        let leftovers = self.tenant.leftovers();
        drop(self.bounded(leftovers.lock()).await?);
        self.open_doors().await?;
        self.divide().await;
        self.run_release_command().await?;
        self.take_warm().await;
        match self.course.clone() {
            Course::Recreate => self.stop_old().await?,
            Course::Rolling {
                surge,
                unavailable,
                pause,
            } => self.roll_all(surge, unavailable, pause).await?,
            Course::BlueGreen { .. } => {}
            Course::Canary { steps } => self.try_out(&steps).await?,
        }
        self.bring_up_all(Part::replicas).await?;
        self.ask_dependents().await?;
        self.note_healthy().await?;
        self.advance(State::Shifting, "moving all of the traffic".to_owned())
            .await?;
        let retired = self.move_traffic();
        for part in &self.parts {
            self.bounded(verify(self, part)).await??;
        }
        if let Course::BlueGreen {
            bake: Some(bake), ..
        } = self.course
        {
            let parts = self.parts.clone();
            self.watch(&parts, Some(bake)).await?;
        }
        let message = format!("serves at {}", self.tenant.url());
        self.advance(State::Verified, message).await?;
        Ok(retired)
    }

    /// The services that run on and those that are started.
    async fn divide(&mut self) {
        let capsule = self.row.capsule.clone();
        for name in capsule.order() {
            let Some(service) = capsule.service(&name) else {
                continue;
            };
            if let Some(kept) = self.unchanged(&name).await {
                self.carried.push(kept);
                continue;
            }
            let old = self.old.as_ref().and_then(|old| old.service(&name));
            let folder = self.app.data.logs(&self.tenant.id);
            self.parts.push(Part {
                old: old.cloned(),
                log: log_from_now(folder, self.row.number, &name),
                new: New::default(),
                name,
                service,
                takes_over: false,
            });
        }
        self.put_takers_last();
    }

    /// Who keeps a service that is the same in the new release, if all of its instances are well.
    async fn unchanged(&self, name: &str) -> Option<Arc<Kept>> {
        if !self.may_carry || self.row.capsule.is_single() {
            return None;
        }
        // Where another release stands in, the lost one may keep services that serve.
        let lost = self.tenant.lost();
        let mut releases = self.old.iter().chain(lost.iter());
        let kept = releases.find_map(|live| live.service(name))?;
        let wanted = self.row.capsule.fingerprint_of(name);
        let same = kept.row.capsule.fingerprint_of(name) == wanted;
        let wanted = kept.service.replicas as usize;
        (same && kept.size() == wanted && kept.answers(wanted).await).then(|| Arc::clone(kept))
    }

    async fn open_doors(&self) -> Result<(), Stop> {
        let (old, warm) = (self.old.clone(), self.tenant.warm());
        let before = old.iter().chain(warm.iter());
        let releases = before
            .map(|live| &live.row.capsule)
            .chain([&self.row.capsule]);
        let opened = doors::open(&self.app, &self.tenant, releases);
        Ok(self.bounded(opened).await??)
    }

    /// All at one moment: what is new gets all of the traffic, what is carried over keeps it, what is gone gets none.
    fn move_traffic(&self) -> Vec<Retired> {
        let carried = self
            .carried
            .iter()
            .map(|kept| (kept.name.clone(), Gets::AsItIs));
        let new = self.parts.iter().map(|part| {
            let gets = Gets::Deployment(self.row.number, part.new.targets());
            (part.name.clone(), gets)
        });
        self.tenant
            .give_traffic(rules(&self.row.capsule), carried.chain(new).collect())
    }

    /// All new instances.
    pub(super) fn new_instances(&self) -> Vec<Instance> {
        self.parts.iter().flat_map(|part| part.new.all()).collect()
    }

    /// Keeps the new services running from now on.
    pub(super) fn keep_new(&self) -> Vec<Arc<Kept>> {
        let keep = |part: &Part| {
            let running = Running {
                healthy: part.new.take(),
                ..Running::default()
            };
            let what = (part.name.clone(), part.service.clone());
            Kept::keep(&self.app, &self.tenant, self.row.clone(), what, running)
        };
        self.parts.iter().map(keep).collect()
    }

    /// After the commit: there is no way back, and nothing here can make the new release stop.
    async fn finish(&mut self, retired: Vec<Retired>) {
        let kept = self.carried.iter().cloned().chain(self.keep_new());
        let live = Live::of(&self.tenant, self.row.clone(), kept);
        self.tenant.set_live(Some(Arc::clone(&live)));
        // What has ended until now was another release's.
        for kept in self.carried.iter().filter(|kept| kept.ended() > 0) {
            let (tenant, number) = (&self.row.tenant, self.row.number);
            note_ended(&self.app, tenant, number, &kept.name, kept.ended()).await;
        }
        let lost = self.tenant.give_up_lost();
        if let Some(lost) = lost.and_then(|lost| lost.without(&live)) {
            let instances = lost.let_go().await;
            self.app.stop_all(&instances).await;
        }
        let old = self.old.take().filter(|_| !self.old_let_go);
        if let Some(old) = old.and_then(|old| old.without(&live)) {
            let message = "the old instances finish their requests";
            self.insist(State::Draining, message, None).await;
            match self.course {
                Course::BlueGreen { keep_warm, .. } if !keep_warm.is_zero() => {
                    self.drain(retired).await;
                    self.keep_warm(old, keep_warm).await;
                }
                _ => {
                    let instances = old.let_go().await;
                    self.drain(retired).await;
                    self.app.stop_all(&instances).await;
                }
            }
        }
        self.insist(State::Succeeded, "done", None).await;
    }

    /// Keeps the old set started for a quick return.
    async fn keep_warm(&self, old: Arc<Live>, time: Duration) {
        if let Some(before) = self.tenant.set_warm(Arc::clone(&old)) {
            let instances = before.let_go().await;
            self.app.stop_all(&instances).await;
        }
        let (app, tenant) = (App::clone(&self.app), Arc::clone(&self.tenant));
        self.app.tasks.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(time) => {}
                // Whoever ends the server stops the set.
                () = app.shutdown.cancelled() => return,
            }
            if let Some(warm) = tenant.take_this_warm(&old) {
                let instances = warm.let_go().await;
                app.stop_all(&instances).await;
            }
        });
    }

    pub(super) async fn drain(&self, retired: Vec<Retired>) {
        drain(&self.app, &self.tenant, retired).await;
    }

    /// Runs `work` unless somebody or the clock says stop.
    pub(super) async fn bounded<T>(&self, work: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::select! {
            biased;
            () = self.signals.abort.cancelled() => Err(Stop::Aborted),
            () = self.app.shutdown.cancelled() => Err(Stop::Interrupted),
            () = tokio::time::sleep_until(self.deadline) => Err(Stop::Deadline),
            done = work => Ok(done),
        }
    }

    /// Writes the next state; what it announces is done afterwards.
    pub(super) async fn advance(&mut self, to: State, message: String) -> Result<(), Stop> {
        self.bounded(async {}).await?;
        self.write(to, message, None).await?;
        Ok(())
    }

    /// Writes a state that must not be lost. When the disk refuses for long, the next start of the
    /// server writes it.
    pub(super) async fn insist(&mut self, to: State, message: &str, failure: Option<Failure>) {
        for attempt in 1..=WRITES {
            match self.write(to, message.to_owned(), failure.clone()).await {
                Ok(()) => return,
                Err(error) => tracing::error!(
                    tenant = self.tenant.id,
                    deployment = self.row.number,
                    state = %to,
                    attempt,
                    error = %crate::chain(&error),
                    "a state could not be written"
                ),
            }
            tokio::time::sleep(WRITE_PAUSE).await;
        }
    }

    async fn write(
        &mut self,
        to: State,
        message: String,
        failure: Option<Failure>,
    ) -> Result<(), StoreError> {
        let step = Advance {
            tenant: self.row.tenant.clone(),
            number: self.row.number,
            generation: self.row.generation,
            from: self.state,
            to,
            message,
            failure,
        };
        let written = self.app.store.advance(step).await;
        if let Err(error) = written
            && !self.is_written(to).await
        {
            return Err(error);
        }
        die_if_told(to);
        self.state = to;
        self.in_state = in_state(to);
        self.tenant.changed();
        Ok(())
    }

    /// Whether a write that was reported to have failed took place all the same: a release that is committed is never
    /// undone.
    async fn is_written(&self, to: State) -> bool {
        let stored = self.app.store.deployment(&self.row.tenant, self.row.number);
        let state = stored.await.ok().flatten().map(|row| row.state);
        to != self.state && state == Some(to)
    }
}

/// Waits, for a bounded time, until routes have no requests left.
pub(super) async fn drain(app: &App, tenant: &Tenant, retired: Vec<Retired>) {
    let limit = app.settings.rollout.drain();
    let all = join_all(retired.iter().map(|route| route.drained(limit)));
    let ending = async {
        app.shutdown.cancelled().await;
        tokio::time::sleep(limit.min(DRAIN_AT_THE_END)).await;
    };
    let drained = tokio::select! {
        drained = all => drained.into_iter().all(|drained| drained),
        () = ending => false,
    };
    if !drained {
        let left: usize = retired.iter().map(Retired::in_flight).sum();
        tracing::warn!(tenant = tenant.id, left, "requests are cut off");
    }
}

/// Starts one more instance, to its end whoever waits for it.
pub(super) async fn start(app: App, row: DeploymentRow, part: Part) -> Result<(), Failure> {
    let instance = instances::start(&app, &row, &part.name, &part.service).await?;
    part.new.push(instance);
    Ok(())
}

/// What is behind the last state takes no time any more.
fn in_state(state: State) -> Span {
    if state.is_final() {
        return Span::none();
    }
    tracing::info_span!("deployment state", otel.name = state.as_str())
}

/// Lets tests end or stop the server right after a state was written: a certain one, the nth that this server writes, or each.
fn die_if_told(state: State) {
    static WRITTEN: AtomicU32 = AtomicU32::new(1);
    let nth = WRITTEN.fetch_add(1, Ordering::Relaxed).to_string();
    die_if(|wanted| wanted == state.as_str() || wanted == nth || wanted == "each");
}

//! One rollout, step by step. Each state is durable before what it announces is done, so that a
//! server that dies at any point leaves behind what the next one can finish.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engines::Instance;
use futures_util::future::join_all;
use management_api::types::{Failure, HealthCheck};
use proxy::{Retired, Target};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use super::live::{Live, LiveState};
use super::probe::{Probed, at_url, probe_with, wrong};
use super::restart::is_done;
use super::watching::{Log, log_from_now};
use super::{failure, instances};
use crate::deployments::{Course, State};
use crate::die::die_if;
use crate::platform::App;
use crate::store::{Advance, DeploymentRow, StoreError};
use crate::tenant::{Signals, Tenant};
use crate::tls::Tls;

/// Requests through the proxy before the first one that fails is believed.
const VERIFICATIONS: u32 = 5;
const VERIFICATION_PAUSE: Duration = Duration::from_millis(200);
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
pub(crate) async fn run(app: App, tenant: Arc<Tenant>, row: DeploymentRow, signals: Signals) {
    let started = Instant::now();
    let number = row.number;
    let course = Course::of(row.strategy, &row.rollout);
    let pauses = course.planned_pauses(row.capsule.replicas as usize);
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
        deadline: started + Duration::from_secs(row.timeout_seconds) + pauses,
        state: row.state,
        in_state: span.in_scope(|| in_state(row.state)),
        old_served: matches!(tenant.live_state(), Some((_, LiveState::Serving(_)))),
        old: tenant.live(),
        old_let_go: false,
        new: New::default(),
        log: log_from_now(app.data.logs(&tenant.id), number),
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

/// The new instances that were started. Each is in here from its start on, whoever is waited for.
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
    /// Whether it served when this began.
    pub(super) old_served: bool,
    /// Whether nobody keeps the old release running any more.
    pub(super) old_let_go: bool,
    pub(super) new: New,
    /// Begins behind the release command.
    pub(super) log: Log,
}

impl Rollout {
    async fn carry_out(mut self) -> State {
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
        self.run_release_command().await?;
        self.take_warm().await;
        match self.course.clone() {
            Course::Recreate => self.stop_old().await,
            Course::Rolling {
                surge,
                unavailable,
                pause,
            } => self.roll(surge, unavailable, pause).await?,
            Course::BlueGreen { .. } => {}
            Course::Canary { steps } => self.try_out(&steps).await?,
        }
        self.bring_up(self.replicas()).await?;
        self.advance(State::Shifting, "moving all of the traffic".to_owned())
            .await?;
        let retired = self
            .tenant
            .give_traffic(self.row.number, self.new.targets());
        let tls = self.app.tls.as_ref().map(Tls::connector);
        self.bounded(verify(tls, &self.tenant, &self.row, &self.new.all()))
            .await??;
        if let Course::BlueGreen {
            bake: Some(bake), ..
        } = self.course
        {
            self.watch(Some(bake)).await?;
        }
        let message = format!("serves at {}", self.tenant.url());
        self.advance(State::Verified, message).await?;
        Ok(retired)
    }

    pub(super) fn replicas(&self) -> usize {
        self.row.capsule.replicas as usize
    }

    /// Whether there is somebody to share the traffic with.
    pub(super) fn old_serves(&self) -> bool {
        self.old
            .as_ref()
            .is_some_and(|old| !old.targets().is_empty())
    }

    /// After the commit: there is no way back, and nothing here can make the new release stop.
    async fn finish(&mut self, retired: Vec<Retired>) {
        let (row, instances) = (self.row.clone(), self.new.take());
        let live = Live::keep(&self.app, &self.tenant, row, instances, Vec::new());
        self.tenant.set_live(Some(live));
        if let Some(lost) = self.tenant.give_up_lost() {
            let instances = lost.let_go().await;
            self.app.stop_all(&instances).await;
        }
        if let Some(old) = self.old.take().filter(|_| !self.old_let_go) {
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
pub(super) async fn start(app: App, row: DeploymentRow, new: New) -> Result<(), Failure> {
    let instance = instances::start(&app, &row).await?;
    new.push(instance);
    Ok(())
}

/// Asks the tenant's own URL, as its users will.
async fn verify(
    tls: Option<TlsConnector>,
    tenant: &Tenant,
    row: &DeploymentRow,
    new: &[Instance],
) -> Result<(), Failure> {
    let check = &row.capsule.health;
    let limit = Duration::from_millis(check.timeout_ms);
    let mut address = tenant.address;
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let mut last = Probed::Refused;
    for _ in 0..VERIFICATIONS {
        let ended: Vec<_> = new.iter().filter_map(Instance::exited).collect();
        let failed = ended
            .iter()
            .find(|exit| !is_done(row.capsule.restart, **exit));
        if let Some(exit) = failed {
            return Err(failure::ended(*exit));
        }
        if ended.len() == new.len() {
            // All have done their work: nobody is left to ask.
            return Ok(());
        }
        last = probe_with(tls.clone(), address, &at_url(&check.probe), limit).await;
        if last == Probed::Good {
            return Ok(());
        }
        tokio::time::sleep(VERIFICATION_PAUSE).await;
    }
    Err(failure::plain(
        "unhealthy",
        unverified(tenant, check, &last),
    ))
}

fn unverified(tenant: &Tenant, check: &HealthCheck, last: &Probed) -> String {
    let (url, port) = (tenant.url(), tenant.address.port());
    let limit = Duration::from_millis(check.timeout_ms);
    match last {
        Probed::Refused if tenant.proxy().is_none() => format!(
            "port {port} of the tenant's URL is in use by another program; free it and deploy again"
        ),
        Probed::Refused => format!("{url} refuses connections"),
        _ => format!(
            "asked at {url}: {}",
            wrong(&at_url(&check.probe), limit, port, last)
        ),
    }
}

/// What is behind the last state takes no time any more.
fn in_state(state: State) -> Span {
    if state.is_final() {
        return Span::none();
    }
    tracing::info_span!("deployment state", otel.name = state.as_str())
}

/// Lets tests end the server right after a state was written: a certain one, or the nth that this server writes.
fn die_if_told(state: State) {
    static WRITTEN: AtomicU32 = AtomicU32::new(1);
    let nth = WRITTEN.fetch_add(1, Ordering::Relaxed).to_string();
    die_if(|wanted| wanted == state.as_str() || wanted == nth);
}

//! One rollout, step by step. Each state is durable before what it announces is done, so that a
//! server that dies at any point leaves behind what the next one can finish.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engines::process::{Exit, Instance};
use futures_util::future::{join_all, try_join_all};
use management_api::types::Failure;
use proxy::{Retired, Target};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_rustls::TlsConnector;

use super::analysis::Verdict;
use super::live::Live;
use super::probe::{Probed, probe_with};
use super::watching::{self, Watch};
use super::{failure, health, instances};
use crate::deployments::{Course, State, Step, Thresholds};
use crate::platform::App;
use crate::store::{Advance, DeploymentRow, StoreError};
use crate::tenant::{Signals, Tenant, Weight};
use crate::tls::Tls;

/// Requests through the proxy before the first one that fails is believed.
const VERIFICATIONS: u32 = 5;
const VERIFICATION_PAUSE: Duration = Duration::from_millis(200);
/// How often a state that must be written is tried again, and how long between.
const WRITES: u32 = 30;
const WRITE_PAUSE: Duration = Duration::from_secs(1);
/// For requests on instances that retire while the server ends: as long as its proxies wait.
const DRAIN_AT_THE_END: Duration = Duration::from_secs(10);
/// For an old release that has to be started again after a failed `recreate`.
const RESTORE_LIMIT: Duration = Duration::from_mins(2);

/// Why a rollout does not go on.
enum Stop {
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
    let rollout = Rollout {
        deadline: started + Duration::from_secs(row.timeout_seconds) + pauses,
        state: row.state,
        old: tenant.live(),
        old_let_go: false,
        new: New::default(),
        app: App::clone(&app),
        tenant: Arc::clone(&tenant),
        course,
        row,
        signals,
    };
    let end = rollout.carry_out().await;
    tenant.end_rollout(number);
    app.metrics.count_deployment(end, started.elapsed());
    tracing::info!(tenant = tenant.id, deployment = number, %end, "a deployment is over");
    app.tidy(&tenant.id).await;
}

/// The new instances that were started. Each is in here from its start on, whoever is waited for.
#[derive(Clone, Default)]
struct New(Arc<Mutex<Vec<Instance>>>);

impl New {
    fn push(&self, instance: Instance) {
        self.lock().push(instance);
    }

    fn all(&self) -> Vec<Instance> {
        self.lock().clone()
    }

    fn take(&self) -> Vec<Instance> {
        std::mem::take(&mut *self.lock())
    }

    fn len(&self) -> usize {
        self.lock().len()
    }

    fn targets(&self) -> Vec<Target> {
        self.lock().iter().map(instances::target).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Instance>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Rollout {
    app: App,
    tenant: Arc<Tenant>,
    row: DeploymentRow,
    course: Course,
    /// As written last.
    state: State,
    deadline: Instant,
    signals: Signals,
    /// The release that was live before.
    old: Option<Arc<Live>>,
    /// Whether nobody keeps the old release running any more.
    old_let_go: bool,
    new: New,
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

    fn replicas(&self) -> usize {
        self.row.capsule.replicas as usize
    }

    /// Whether there is somebody to share the traffic with.
    fn old_serves(&self) -> bool {
        self.old
            .as_ref()
            .is_some_and(|old| !old.targets().is_empty())
    }

    /// Once, in the new image, before anything of it is started and anything of the old release is touched.
    async fn run_release_command(&mut self) -> Result<(), Stop> {
        if self.row.release_command.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        let instance = self
            .bounded(instances::start_command(&self.app, &self.row))
            .await?
            .map_err(failure::command_not_started)?;
        self.new.push(instance.clone());
        let words = self.row.release_command.clone();
        let limit = Duration::from_secs(self.row.timeout_seconds);
        // The deadline may lie later, by the time of the watches.
        let ended = tokio::time::timeout(limit, instance.wait());
        match self.bounded(ended).await {
            Ok(Ok(Exit::Code(0))) => {}
            Ok(Ok(exit)) => return Err(failure::command_failed(&words, exit).into()),
            Ok(Err(_)) | Err(Stop::Deadline) => {
                return Err(failure::command_late(&words, limit).into());
            }
            Err(stop) => return Err(stop),
        }
        // It has ended; what is left of it goes.
        let ended = self.new.take();
        self.stop_all(ended).await;
        let seconds = begun.elapsed().as_secs_f64();
        let message = format!("the release command ended well after {seconds:.1} s");
        self.advance(State::Migrated, message).await
    }

    /// A set that is kept warm is of this very release and becomes the new one, or makes room.
    async fn take_warm(&mut self) {
        let Some(warm) = self.tenant.take_warm() else {
            return;
        };
        let same = warm.row.release_id == self.row.release_id;
        let fits = same && self.course != Course::Recreate;
        let mut unfit = Vec::new();
        for instance in warm.let_go().await {
            // One that has died meanwhile, or is sick, is started anew instead.
            if fits && health::is_healthy(&instance, &self.row.capsule.health).await {
                self.new.push(instance);
            } else {
                unfit.push(instance);
            }
        }
        self.stop_all(unfit).await;
    }

    /// Some new instances, then as many old ones fewer, until all but the last ones are new: those go when the
    /// new release has proved itself.
    async fn roll(
        &mut self,
        surge: usize,
        unavailable: usize,
        pause: Option<Duration>,
    ) -> Result<(), Stop> {
        let Some(old) = self.old.clone().filter(|_| self.old_serves()) else {
            return Ok(());
        };
        let replicas = self.replicas();
        let least = replicas.saturating_sub(unavailable);
        loop {
            // Only what is above the least that has to serve makes room.
            let serving = old.size() + self.new.len();
            let room = old.size().min(serving.saturating_sub(least));
            if self.new.len() + surge < replicas && room > 0 {
                self.take_away(&old, room.min(unavailable)).await;
            }
            let free = (replicas + surge).saturating_sub(old.size());
            let next = free.max(self.new.len() + 1).min(replicas);
            self.bring_up(next).await?;
            if next == replicas && pause.is_none() {
                return Ok(());
            }
            let message = format!("{next} of {replicas} instances are new");
            self.share(message, Weight::Each, Weight::Each).await?;
            if let Some(pause) = pause {
                self.watch(Some(pause)).await?;
            }
            if next == replicas {
                return Ok(());
            }
            let surplus = old.size().saturating_sub(replicas - next);
            self.take_away(&old, surplus).await;
        }
    }

    /// More and more of the traffic, as long as nothing speaks against it.
    async fn try_out(&mut self, steps: &[Step]) -> Result<(), Stop> {
        if !self.old_serves() {
            // Nobody to compare it with, and nobody else to serve.
            return Ok(());
        }
        for step in steps {
            let percent = step.weight.min(100);
            let instances = (self.replicas() * percent as usize).div_ceil(100);
            self.bring_up(instances.max(1)).await?;
            let message = format!("{percent} % of the traffic");
            let (new, old) = (Weight::Percent(percent), Weight::Percent(100 - percent));
            self.share(message, new, old).await?;
            self.watch(step.pause).await?;
        }
        Ok(())
    }

    /// Writes that the traffic moves, and divides it between the new and the old instances.
    async fn share(&mut self, message: String, new: Weight, old: Weight) -> Result<(), Stop> {
        self.advance(State::Shifting, message).await?;
        let mut parts = vec![(self.row.number, new, self.new.targets())];
        parts.extend(self.old.iter().map(|o| (o.number, old, o.targets())));
        // Nobody leaves here: instances only come.
        drop(self.tenant.split_traffic(parts));
        drop(self.tenant.set_targets(self.row.number, self.new.targets()));
        Ok(())
    }

    /// Lets some old instances finish their requests and stops them, beside what else is done: neither a long download
    /// nor a WebSocket may use up the time of a deployment.
    async fn take_away(&self, old: &Live, count: usize) {
        if count == 0 {
            return;
        }
        let (instances, retired) = old.shrink(count).await;
        let (app, tenant) = (App::clone(&self.app), Arc::clone(&self.tenant));
        self.app.tasks.spawn(async move {
            drain(&app, &tenant, retired).await;
            stop_all(&app, instances).await;
        });
    }

    /// Starts new instances until there are `count`, and waits until all are healthy.
    async fn bring_up(&mut self, count: usize) -> Result<(), Stop> {
        let missing = count.saturating_sub(self.new.len());
        let starting: Vec<_> = (0..missing)
            .map(|_| {
                tokio::spawn(start(
                    App::clone(&self.app),
                    self.row.clone(),
                    self.new.clone(),
                ))
            })
            .collect();
        let mut started = Box::pin(join_all(starting));
        let started = match self.bounded(&mut started).await {
            Ok(started) => started,
            Err(stop) => {
                // What has begun to start comes to its end first: else it could run beside what comes back.
                started.await;
                return Err(stop);
            }
        };
        for outcome in started {
            // A panic has been printed; there is no instance then.
            outcome
                .unwrap_or_else(|_| Err(failure::plain("internal", "a start was broken off")))?;
        }
        if matches!(self.state, State::Requested | State::Migrated) {
            let message = match &self.new.all()[..] {
                [one] => format!("instance {} runs", one.id()),
                many => format!("{} instances run", many.len()),
            };
            self.advance(State::Provisioned, message).await?;
        }
        let health = self.row.capsule.health.clone();
        let new = self.new.all();
        let healthy = new.iter().map(|i| health::until_healthy(i, &health));
        let took = self.bounded(try_join_all(healthy)).await??;
        if self.state == State::Provisioned {
            let seconds = took.into_iter().max().unwrap_or_default().as_secs_f64();
            let message = format!("GET {} answered after {seconds:.1} s", health.path);
            self.advance(State::Healthy, message).await?;
        }
        Ok(())
    }

    /// Watches the new release for a time, or until somebody promotes it. What is bad stops the rollout; where nobody
    /// can say, it is paused.
    async fn watch(&mut self, pause: Option<Duration>) -> Result<(), Stop> {
        let health = self.row.capsule.health.clone();
        let mut watch = Watch::begin(
            &self.tenant,
            Thresholds::of(&self.row.rollout),
            &health,
            self.new.all(),
            self.old.clone(),
            pause,
        );
        let signals = self.signals.clone();
        let mut promoted = pin!(signals.promoted());
        let mut broken = pin!(watching::broken(self.new.all(), health));
        let mut rhythm = tokio::time::interval(Watch::rhythm(pause));
        rhythm.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let over = pause.map(|pause| Instant::now() + pause);
        if over.is_none() {
            self.pause("it waits for somebody to promote it").await?;
        }
        loop {
            let looked = async {
                tokio::select! {
                    failure = &mut broken => Err(failure),
                    () = &mut promoted => Ok(None),
                    _ = rhythm.tick() => Ok(Some(watch.look().await)),
                }
            };
            let is_over = || over.is_some_and(|over| Instant::now() >= over);
            match self.bounded(looked).await?? {
                None => return self.go_on("promoted").await,
                Some(Verdict::Fail(why)) => {
                    // Its end is the reason why requests failed.
                    let ended = self.new.all().iter().find_map(Instance::exited);
                    let told = || failure::plain("analysis_failed", why);
                    return Err(ended.map_or_else(told, failure::ended).into());
                }
                Some(Verdict::Pass) if is_over() => {
                    return self.go_on("nothing speaks against it").await;
                }
                Some(Verdict::Inconclusive(why)) if is_over() => {
                    self.pause(&format!("{why}; promote it or abort it"))
                        .await?;
                }
                Some(Verdict::Pass | Verdict::Inconclusive(_)) => {}
            }
        }
    }

    async fn pause(&mut self, why: &str) -> Result<(), Stop> {
        if self.state == State::Paused {
            return Ok(());
        }
        self.advance(State::Paused, why.to_owned()).await
    }

    async fn go_on(&mut self, why: &str) -> Result<(), Stop> {
        self.advance(State::Shifting, why.to_owned()).await
    }

    /// After the commit: there is no way back, and nothing here can make the new release stop.
    async fn finish(&mut self, retired: Vec<Retired>) {
        let (row, instances) = (self.row.clone(), self.new.take());
        let live = Live::keep(&self.app, &self.tenant, row, instances);
        self.tenant.set_live(Some(live));
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
                    self.stop_all(instances).await;
                }
            }
        }
        self.insist(State::Succeeded, "done", None).await;
    }

    /// Keeps the old set started for a quick return.
    async fn keep_warm(&self, old: Arc<Live>, time: Duration) {
        if let Some(before) = self.tenant.set_warm(Arc::clone(&old)) {
            let instances = before.let_go().await;
            self.stop_all(instances).await;
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
                stop_all(&app, instances).await;
            }
        });
    }

    /// Puts everything back as it was.
    async fn undo(&mut self, stop: Stop) {
        let aborted = matches!(stop, Stop::Aborted);
        let shifted = matches!(self.state, State::Shifting | State::Paused);
        let failure = self.explain(stop).await;
        tracing::warn!(
            tenant = self.tenant.id,
            deployment = self.row.number,
            code = failure.code,
            reason = failure.message,
            "a deployment is undone"
        );
        let message = failure.message.clone();
        if aborted {
            self.insist(State::Aborting, &message, Some(failure.clone()))
                .await;
        }
        self.insist(State::RollingBack, &message, Some(failure))
            .await;
        self.refill_old(shifted).await;
        if shifted {
            let retired = match &self.old {
                Some(old) if !self.old_let_go => old.take_traffic(),
                _ => self.tenant.stop_traffic(),
            };
            self.drain(retired).await;
        }
        let instances = self.new.take();
        self.stop_all(instances).await;
        let message = self.restore_old().await;
        self.insist(State::undone(self.old.is_some()), &message, None)
            .await;
    }

    /// Old instances that made room, or are down, come back before the new ones go that have traffic.
    async fn refill_old(&self, new_has_traffic: bool) {
        let Some(old) = self.old.as_ref().filter(|_| !self.old_let_go) else {
            return;
        };
        let wanted = old.row.capsule.replicas as usize;
        let missing = wanted.saturating_sub(old.size());
        if missing > 0 {
            old.grow(missing);
        }
        let enough = if missing > 0 { wanted } else { 1 };
        if !new_has_traffic && missing == 0 {
            return;
        }
        let serves = tokio::select! {
            serves = old.serves_within(enough, RESTORE_LIMIT) => serves,
            () = self.app.shutdown.cancelled() => false,
        };
        if !serves {
            tracing::warn!(
                tenant = self.tenant.id,
                deployment = old.number,
                "not all instances of the old release serve again yet"
            );
        }
    }

    /// Sees to it that the old release is kept running, and says how it is.
    async fn restore_old(&mut self) -> String {
        let Some(old) = self.old.clone() else {
            return "no release was serving before".to_owned();
        };
        let number = old.number;
        if !self.old_let_go {
            return if old.targets().is_empty() {
                format!("deployment {number} stays the live one, but is down")
            } else {
                format!("deployment {number} serves on")
            };
        }
        let live = Live::keep(&self.app, &self.tenant, old.row.clone(), Vec::new());
        drop(live.take_traffic());
        self.tenant.set_live(Some(Arc::clone(&live)));
        let serves = tokio::select! {
            serves = live.serves_within(1, RESTORE_LIMIT) => serves,
            () = self.app.shutdown.cancelled() => false,
        };
        if serves {
            format!("deployment {number} serves again")
        } else {
            format!("deployment {number} is being started again")
        }
    }

    /// For `recreate`: the old instances end before the new ones begin.
    async fn stop_old(&mut self) {
        let Some(old) = &self.old else { return };
        self.old_let_go = true;
        let instances = old.let_go().await;
        self.tenant.set_live(None);
        let retired = self.tenant.stop_traffic();
        self.drain(retired).await;
        self.stop_all(instances).await;
    }

    async fn stop_all(&self, instances: Vec<Instance>) {
        stop_all(&self.app, instances).await;
    }

    async fn drain(&self, retired: Vec<Retired>) {
        drain(&self.app, &self.tenant, retired).await;
    }

    /// Runs `work` unless somebody or the clock says stop.
    async fn bounded<T>(&self, work: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::select! {
            biased;
            () = self.signals.abort.cancelled() => Err(Stop::Aborted),
            () = self.app.shutdown.cancelled() => Err(Stop::Interrupted),
            () = tokio::time::sleep_until(self.deadline) => Err(Stop::Deadline),
            done = work => Ok(done),
        }
    }

    async fn explain(&self, stop: Stop) -> Failure {
        let failure = match stop {
            Stop::Failed(failure) => failure,
            Stop::Aborted => failure::plain("aborted", "the deployment was aborted"),
            Stop::Interrupted => failure::plain("interrupted", "the server was stopped"),
            Stop::Deadline => failure::plain(
                "deadline",
                format!(
                    "the deployment was still {} after {} s",
                    self.state, self.row.timeout_seconds
                ),
            ),
            Stop::Store(error) => {
                tracing::error!(error = %crate::chain(&error), "a state could not be written");
                failure::plain("internal", "the server could not write its state")
            }
        };
        failure::with_log(failure, self.new.all().first()).await
    }

    /// Writes the next state; what it announces is done afterwards.
    async fn advance(&mut self, to: State, message: String) -> Result<(), Stop> {
        self.bounded(async {}).await?;
        self.write(to, message, None).await?;
        Ok(())
    }

    /// Writes a state that must not be lost. When the disk refuses for long, the next start of the
    /// server writes it.
    async fn insist(&mut self, to: State, message: &str, failure: Option<Failure>) {
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
        self.app.store.advance(step).await?;
        #[cfg(debug_assertions)]
        die_if_told(to);
        self.state = to;
        self.tenant.changed();
        Ok(())
    }
}

/// Waits, for a bounded time, until routes have no requests left.
async fn drain(app: &App, tenant: &Tenant, retired: Vec<Retired>) {
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
async fn start(app: App, row: DeploymentRow, new: New) -> Result<(), Failure> {
    let instance = instances::start(&app, &row).await?;
    new.push(instance);
    Ok(())
}

async fn stop_all(app: &App, instances: Vec<Instance>) {
    let grace = app.settings.rollout.stop_grace();
    join_all(instances.iter().map(|instance| instance.stop(grace))).await;
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
        if let Some(exit) = new.iter().find_map(Instance::exited) {
            return Err(failure::ended(exit));
        }
        last = probe_with(tls.clone(), address, &check.path, limit).await;
        if matches!(last, Probed::Answered(status) if status.as_u16() == check.status) {
            return Ok(());
        }
        tokio::time::sleep(VERIFICATION_PAUSE).await;
    }
    Err(failure::plain(
        "unhealthy",
        unverified(tenant, &check.path, &last),
    ))
}

fn unverified(tenant: &Tenant, path: &str, last: &Probed) -> String {
    let url = tenant.url();
    match last {
        Probed::Answered(status) => format!("{url}{path} answers {}", status.as_u16()),
        Probed::Refused if tenant.proxy().is_none() => format!(
            "port {} of the tenant's URL is in use by another program; free it and deploy again",
            tenant.address.port()
        ),
        Probed::Refused => format!("{url} refuses connections"),
        Probed::TimedOut => format!("{url}{path} does not answer in time"),
        Probed::Broken(why) => format!("{url}{path} does not answer: {why}"),
    }
}

/// Lets tests end the server right after a state was written, which no signal from outside hits
/// reliably. Not in release builds.
#[cfg(debug_assertions)]
fn die_if_told(state: State) {
    if std::env::var("SYSTEMPROMPT_DIE_AT").is_ok_and(|wanted| wanted == state.as_str()) {
        // No destructor runs, no buffer is flushed: like a kill.
        std::process::abort();
    }
}

//! One rollout, step by step. Each state is durable before what it announces is done, so that a
//! server that dies at any point leaves behind what the next one can finish.

use std::sync::Arc;
use std::time::Duration;

use engines::process::Instance;
use management_api::types::Failure;
use proxy::Retired;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::live::Live;
use super::probe::{Probed, probe};
use super::{failure, health, instances};
use crate::deployments::{State, Strategy};
use crate::platform::App;
use crate::store::{Advance, DeploymentRow, StoreError};
use crate::tenant::Tenant;

/// Requests through the proxy before the first one that fails is believed.
const VERIFICATIONS: u32 = 5;
const VERIFICATION_PAUSE: Duration = Duration::from_millis(200);
/// How often a state that must be written is tried again, and how long between.
const WRITES: u32 = 30;
const WRITE_PAUSE: Duration = Duration::from_secs(1);
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
pub(crate) async fn run(
    app: App,
    tenant: Arc<Tenant>,
    row: DeploymentRow,
    abort: CancellationToken,
) {
    let started = Instant::now();
    let number = row.number;
    let rollout = Rollout {
        deadline: started + Duration::from_secs(row.timeout_seconds),
        state: row.state,
        old: tenant.live(),
        old_let_go: false,
        instance: None,
        app: App::clone(&app),
        tenant: Arc::clone(&tenant),
        row,
        abort,
    };
    let end = rollout.carry_out().await;
    tenant.end_rollout(number);
    app.metrics.count_deployment(end, started.elapsed());
    tracing::info!(tenant = tenant.id, deployment = number, %end, "a deployment is over");
    app.tidy(&tenant.id).await;
}

struct Rollout {
    app: App,
    tenant: Arc<Tenant>,
    row: DeploymentRow,
    /// As written last.
    state: State,
    deadline: Instant,
    abort: CancellationToken,
    /// The release that was live before.
    old: Option<Arc<Live>>,
    /// Whether nobody keeps the old release running any more.
    old_let_go: bool,
    /// The new instance.
    instance: Option<Instance>,
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
    async fn forward(&mut self) -> Result<Option<Retired>, Stop> {
        if self.row.strategy == Strategy::Recreate {
            self.stop_old().await;
        }
        let instance = self.bring_up().await?;
        self.advance(State::Shifting, "moving the traffic".to_owned())
            .await?;
        let target = instances::target(&instance);
        let retired = self
            .tenant
            .take_traffic(Some(self.row.number), Some(target));
        self.bounded(verify(&self.tenant, &self.row, &instance))
            .await??;
        let message = format!("serves at {}", self.tenant.url());
        self.advance(State::Verified, message).await?;
        Ok(retired)
    }

    /// Starts the new instance and waits until it is healthy.
    async fn bring_up(&mut self) -> Result<Instance, Stop> {
        let instance = self
            .bounded(instances::start(&self.app, &self.row))
            .await??;
        self.instance = Some(instance.clone());
        let message = format!("instance {} runs", instance.id());
        self.advance(State::Provisioned, message).await?;
        let health = self.row.capsule.health.clone();
        let took = self
            .bounded(health::until_healthy(&instance, &health))
            .await??;
        let seconds = took.as_secs_f64();
        let message = format!("GET {} answered after {seconds:.1} s", health.path);
        self.advance(State::Healthy, message).await?;
        Ok(instance)
    }

    /// After the commit: there is no way back, and nothing here can make the new release stop.
    async fn finish(&mut self, retired: Option<Retired>) {
        let (row, instance) = (self.row.clone(), self.instance.take());
        let live = Live::keep(&self.app, &self.tenant, row, instance);
        self.tenant.set_live(Some(live));
        let old = match self.old.take() {
            Some(old) => old.let_go().await,
            None => None,
        };
        if let Some(old) = old {
            self.insist(
                State::Draining,
                "the old instance finishes its requests",
                None,
            )
            .await;
            self.drain(retired).await;
            old.stop(self.app.settings.rollout.stop_grace()).await;
        }
        self.insist(State::Succeeded, "done", None).await;
    }

    /// Puts everything back as it was.
    async fn undo(&mut self, stop: Stop) {
        let aborted = matches!(stop, Stop::Aborted);
        let shifted = self.state == State::Shifting;
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
        if shifted {
            let retired = self.tenant.return_traffic();
            self.drain(retired).await;
        }
        if let Some(instance) = self.instance.take() {
            instance.stop(self.app.settings.rollout.stop_grace()).await;
        }
        let message = self.restore_old().await;
        self.insist(State::undone(self.old.is_some()), &message, None)
            .await;
    }

    /// Sees to it that the old release is kept running, and says how it is.
    async fn restore_old(&mut self) -> String {
        let Some(old) = self.old.clone() else {
            return "no release was serving before".to_owned();
        };
        let number = old.number;
        if !self.old_let_go {
            return match old.target() {
                Some(_) => format!("deployment {number} serves on"),
                None => format!("deployment {number} stays the live one, but is down"),
            };
        }
        drop(self.tenant.take_traffic(Some(number), None));
        let live = Live::keep(&self.app, &self.tenant, old.row.clone(), None);
        self.tenant.set_live(Some(Arc::clone(&live)));
        let serves = tokio::select! {
            serves = live.serves_within(RESTORE_LIMIT) => serves,
            () = self.app.shutdown.cancelled() => false,
        };
        if serves {
            format!("deployment {number} serves again")
        } else {
            format!("deployment {number} is being started again")
        }
    }

    /// For `recreate`: the old instance ends before the new one begins.
    async fn stop_old(&mut self) {
        let Some(old) = &self.old else { return };
        self.old_let_go = true;
        let instance = old.let_go().await;
        self.tenant.set_live(None);
        let retired = self.tenant.take_traffic(None, None);
        self.drain(retired).await;
        if let Some(instance) = instance {
            instance.stop(self.app.settings.rollout.stop_grace()).await;
        }
    }

    /// Waits, for a bounded time, until a route has no requests left.
    async fn drain(&self, retired: Option<Retired>) {
        let Some(retired) = retired else { return };
        let limit = self.app.settings.rollout.drain();
        let drained = tokio::select! {
            drained = retired.drained(limit) => drained,
            () = self.app.shutdown.cancelled() => false,
        };
        if !drained {
            let left = retired.in_flight();
            tracing::warn!(tenant = self.tenant.id, left, "requests are cut off");
        }
    }

    /// Runs `work` unless somebody or the clock says stop.
    async fn bounded<T>(&self, work: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::select! {
            biased;
            () = self.abort.cancelled() => Err(Stop::Aborted),
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
        failure::with_log(failure, self.instance.as_ref()).await
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

/// Asks the tenant's own URL, as its users will.
async fn verify(tenant: &Tenant, row: &DeploymentRow, instance: &Instance) -> Result<(), Failure> {
    let check = &row.capsule.health;
    let limit = Duration::from_millis(check.timeout_ms);
    let mut address = tenant.address;
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let mut last = Probed::Refused;
    for _ in 0..VERIFICATIONS {
        if let Some(exit) = instance.exited() {
            return Err(failure::ended(exit));
        }
        last = probe(address, &check.path, limit).await;
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

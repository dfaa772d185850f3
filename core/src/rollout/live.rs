//! Keeping a release running: an instance that ends or stops answering is started again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engines::process::{Exit, Instance};
use management_api::types::HealthCheck;
use proxy::Target;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{health, instances};
use crate::platform::App;
use crate::store::DeploymentRow;
use crate::tenant::Tenant;

/// Before the first restart, doubled with each further one up to the limit.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// An instance that ran for this long has proved itself: its restart begins a new series.
const STABLE: Duration = Duration::from_mins(1);

/// What became of the release's instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LiveState {
    /// None is healthy yet.
    Starting,
    /// One has the traffic.
    Serving(Target),
    /// The last one ended, for this reason; another will be started.
    Down(String),
}

/// A release that is kept running until somebody takes it over.
pub(crate) struct Live {
    /// Its deployment.
    pub(crate) number: u64,
    /// The release.
    pub(crate) row: DeploymentRow,
    state: watch::Receiver<LiveState>,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<Option<Instance>>>>,
}

impl Live {
    /// Keeps the release of `row` running, beginning with `instance` where there is one that has
    /// the traffic already.
    pub(crate) fn keep(
        app: &App,
        tenant: &Arc<Tenant>,
        row: DeploymentRow,
        instance: Option<Instance>,
    ) -> Arc<Self> {
        let first = match &instance {
            Some(instance) => LiveState::Serving(instances::target(instance)),
            None => LiveState::Starting,
        };
        let (sender, state) = watch::channel(first);
        // The end of the server ends the keeping too.
        let stop = app.shutdown.child_token();
        let keeper = Keeper {
            app: App::clone(app),
            tenant: Arc::clone(tenant),
            row: row.clone(),
            state: sender,
            stop: stop.clone(),
            pause: Duration::ZERO,
        };
        let task = app.tasks.spawn(keeper.run(instance));
        Arc::new(Self {
            number: row.number,
            row,
            state,
            stop,
            task: Mutex::new(Some(task)),
        })
    }

    pub(crate) fn state(&self) -> LiveState {
        self.state.borrow().clone()
    }

    /// Where its instance is, when it serves.
    pub(crate) fn target(&self) -> Option<Target> {
        match self.state() {
            LiveState::Serving(target) => Some(target),
            LiveState::Starting | LiveState::Down(_) => None,
        }
    }

    /// Waits until it serves; false when that has not come true within `limit`.
    pub(crate) async fn serves_within(&self, limit: Duration) -> bool {
        let mut state = self.state.clone();
        let serving = state.wait_for(|state| matches!(state, LiveState::Serving(_)));
        matches!(tokio::time::timeout(limit, serving).await, Ok(Ok(_)))
    }

    /// Ends the keeping and hands the instance over, where there is one. The first caller gets it.
    pub(crate) async fn let_go(&self) -> Option<Instance> {
        self.stop.cancel();
        let task = self
            .task
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        task?.await.ok().flatten()
    }
}

struct Keeper {
    app: App,
    tenant: Arc<Tenant>,
    row: DeploymentRow,
    state: watch::Sender<LiveState>,
    stop: CancellationToken,
    /// Before the next start.
    pause: Duration,
}

impl Keeper {
    async fn run(mut self, mut instance: Option<Instance>) -> Option<Instance> {
        loop {
            let current = match instance.take() {
                Some(instance) => instance,
                None => self.start().await?,
            };
            let since = Instant::now();
            let Some(why) = self.watch(&current).await else {
                return Some(current);
            };
            self.tenant.direct_traffic(self.row.number, None);
            self.note_end(why, since.elapsed());
            // What is unhealthy still runs; what has ended leaves a directory behind.
            current.stop(self.app.settings.rollout.stop_grace()).await;
            self.app.metrics.count_restart(&self.row.tenant);
        }
    }

    /// Starts instances until one is healthy and has the traffic; `None` when told to stop.
    async fn start(&mut self) -> Option<Instance> {
        loop {
            let pause = tokio::time::sleep(self.pause);
            tokio::select! {
                () = self.stop.cancelled() => return None,
                () = pause => {}
            }
            match self.try_start().await {
                Ok(Some(instance)) => {
                    let target = instances::target(&instance);
                    self.state.send_replace(LiveState::Serving(target.clone()));
                    self.tenant.direct_traffic(self.row.number, Some(target));
                    self.tenant.changed();
                    tracing::info!(
                        tenant = self.row.tenant,
                        deployment = self.row.number,
                        "the release serves"
                    );
                    return Some(instance);
                }
                Ok(None) => return None,
                Err(why) => self.note_end(why, Duration::ZERO),
            }
        }
    }

    async fn try_start(&self) -> Result<Option<Instance>, String> {
        let started = tokio::select! {
            () = self.stop.cancelled() => return Ok(None),
            started = instances::start(&self.app, &self.row) => started,
        };
        let instance = started.map_err(|failure| failure.message)?;
        let healthy = tokio::select! {
            () = self.stop.cancelled() => None,
            healthy = health::until_healthy(&instance, &self.row.capsule.health) => Some(healthy),
        };
        if let Some(Ok(_)) = healthy {
            return Ok(Some(instance));
        }
        instance.stop(self.app.settings.rollout.stop_grace()).await;
        match healthy {
            Some(Err(failure)) => Err(failure.message),
            _ => Ok(None),
        }
    }

    /// Watches a serving instance; returns why it is no good any more, or `None` when told to stop.
    async fn watch(&self, instance: &Instance) -> Option<String> {
        tokio::select! {
            () = self.stop.cancelled() => None,
            exit = instance.wait() => Some(described(exit)),
            () = until_unhealthy(instance, &self.row.capsule.health) => {
                let path = &self.row.capsule.health.path;
                Some(format!("it no longer answers GET {path} as it should"))
            }
        }
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
            why,
            again_in_seconds = self.pause.as_secs(),
            "the live release is down"
        );
        self.state.send_replace(LiveState::Down(why));
        self.tenant.changed();
    }
}

fn described(exit: Exit) -> String {
    match exit {
        Exit::Code(_) => format!("it ended with {exit}"),
        Exit::Signal(_) => format!("it was ended by {exit}"),
    }
}

/// Returns after as many failed checks in a row as `check` allows.
async fn until_unhealthy(instance: &Instance, check: &HealthCheck) {
    let mut failures = 0;
    while failures < check.retries {
        tokio::time::sleep(Duration::from_millis(check.interval_ms)).await;
        if health::is_healthy(instance, check).await {
            failures = 0;
        } else {
            failures += 1;
        }
    }
}

//! The way back: everything as it was before the deployment.

use std::sync::Arc;
use std::time::Duration;

use management_api::types::Failure;

use proxy::Retired;

use super::failure;
use super::live::{Live, LiveState};
use super::run::{Rollout, Stop, drain};
use crate::deployments::State;
use crate::platform::App;
use crate::store::{Advance, DeploymentRow, StoreError};
use crate::tenant::Tenant;

/// Between two looks whether a release that is to come back is still wanted.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Between two questions to a release that is to serve again.
const ASK_AGAIN: Duration = Duration::from_millis(250);

impl Rollout {
    /// Puts everything back as it was.
    pub(super) async fn undo(&mut self, stop: Stop) {
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
        let (end, message) = match self.old.clone() {
            None => {
                let retired = self.tenant.stop_traffic();
                self.end_new(retired).await;
                (State::Failed, "no release was serving before".to_owned())
            }
            Some(old) if self.old_let_go => self.start_again(&old).await,
            Some(old) => self.return_to(old, shifted).await,
        };
        self.insist(end, &message, None).await;
    }

    /// The old release still runs, or some of it.
    async fn return_to(&self, old: Arc<Live>, new_has_traffic: bool) -> (State, String) {
        self.refill(&old, new_has_traffic).await;
        let number = old.number;
        // Asked itself: what is known of it may be as old as its checks are rare.
        let serves = old.answers(1).await;
        let lost = !serves && self.is_lost(&old);
        if lost && new_has_traffic {
            self.stand_in(old).await;
            let new = self.row.number;
            let message = format!(
                "deployment {number} does not serve any more; what runs of deployment {new} has the traffic until it does"
            );
            return (State::NeedsOperator, message);
        }
        let retired = if new_has_traffic {
            old.take_traffic()
        } else {
            Vec::new()
        };
        self.end_new(retired).await;
        match (serves, lost) {
            (true, _) => (State::RolledBack, format!("deployment {number} serves on")),
            (false, true) => (
                State::NeedsOperator,
                format!("deployment {number} does not serve any more and is being started again"),
            ),
            (false, false) => (
                State::RolledBack,
                format!("deployment {number} stays the live one, but is down"),
            ),
        }
    }

    /// Old instances that made room, or are down, come back before the new ones go that have traffic.
    async fn refill(&self, old: &Live, new_has_traffic: bool) {
        let missing = old.missing();
        if missing > 0 {
            old.grow(missing);
        }
        let enough = if missing > 0 { old.kept() } else { 1 };
        if !new_has_traffic && missing == 0 && !self.old_served {
            return;
        }
        if !self.is_back(old, enough).await {
            tracing::warn!(
                tenant = self.tenant.id,
                deployment = old.number,
                "not all instances of the old release serve again yet"
            );
        }
    }

    /// The old release was stopped; it must not run beside the new one.
    async fn start_again(&mut self, old: &Live) -> (State, String) {
        let retired = self.tenant.stop_traffic();
        self.end_new(retired).await;
        let number = old.number;
        let live = Live::keep(&self.app, &self.tenant, old.again(), Vec::new(), Vec::new());
        drop(live.take_traffic());
        self.tenant.set_live(Some(Arc::clone(&live)));
        if self.is_back(&live, 1).await {
            return (
                State::RolledBack,
                format!("deployment {number} serves again"),
            );
        }
        let end = if self.is_lost(&live) {
            State::NeedsOperator
        } else {
            State::RolledBack
        };
        (end, format!("deployment {number} is being started again"))
    }

    async fn is_back(&self, old: &Live, count: usize) -> bool {
        if matches!(old.state(), LiveState::Ended { .. }) {
            // Nobody comes.
            return false;
        }
        let limit = self.app.settings.rollout.restore();
        let back = async {
            while !(old.serves_within(count, limit).await && old.answers(count).await) {
                tokio::time::sleep(ASK_AGAIN).await;
            }
        };
        tokio::select! {
            back = tokio::time::timeout(limit, back) => back.is_ok(),
            () = self.app.shutdown.cancelled() => false,
        }
    }

    /// Whether what does not serve now did before. A server that ends starts it again at its next start.
    fn is_lost(&self, old: &Live) -> bool {
        let ended = matches!(old.state(), LiveState::Ended { .. });
        self.old_served && !ended && !self.app.shutdown.is_cancelled()
    }

    /// The new instances that cannot go, because nobody else serves, are kept running until somebody does.
    async fn stand_in(&self, old: Arc<Live>) {
        let (row, new) = (self.row.clone(), self.new.take());
        let stand_in = Live::keep(&self.app, &self.tenant, row, new, Vec::new());
        // They had a part of it; nobody else had the rest.
        drop(stand_in.take_traffic());
        note_stand_in(&self.app, &self.tenant, Some(self.row.number)).await;
        begin_standing_in(&self.app, &self.tenant, stand_in, old);
    }

    async fn end_new(&self, retired: Vec<Retired>) {
        self.drain(retired).await;
        self.app.stop_all(&self.new.take()).await;
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
}

/// Lets a set serve until the release that should serves again.
pub(super) fn begin_standing_in(
    app: &App,
    tenant: &Arc<Tenant>,
    stand_in: Arc<Live>,
    lost: Arc<Live>,
) {
    tenant.stand_in(stand_in, Arc::clone(&lost));
    let (shared, tenant) = (App::clone(app), Arc::clone(tenant));
    app.tasks.spawn(return_when_it_serves(shared, tenant, lost));
}

/// Writes down who stands in, so that a server that starts knows. Without that, the next one starts the release that should serve.
async fn note_stand_in(app: &App, tenant: &Tenant, number: Option<u64>) {
    if let Err(error) = app.store.set_stand_in(&tenant.id, number).await {
        tracing::error!(
            tenant = tenant.id,
            error = %crate::chain(&error),
            "who stands in could not be written down"
        );
    }
}

/// Gives the traffic back to the old release as soon as it serves, unless another rollout has begun to decide about it.
async fn return_when_it_serves(app: App, tenant: Arc<Tenant>, old: Arc<Live>) {
    while tenant.keeps_warm(&old) {
        let serves = tokio::select! {
            serves = old.serves_within(1, LOOK_AGAIN) => serves,
            () = app.shutdown.cancelled() => return,
        };
        if !serves {
            continue;
        }
        if !old.answers(1).await {
            tokio::time::sleep(ASK_AGAIN).await;
            continue;
        }
        if let Some(stand_in) = tenant.swap_back(&old) {
            note_stand_in(&app, &tenant, None).await;
            let retired = old.take_traffic();
            tracing::info!(
                tenant = tenant.id,
                deployment = old.number,
                "the release before serves again"
            );
            let instances = stand_in.let_go().await;
            drain(&app, &tenant, retired).await;
            app.stop_all(&instances).await;
            return;
        }
        // A rollout runs. Its end changes something here.
        let mut changes = tenant.changes();
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = app.shutdown.cancelled() => return,
        }
    }
}

/// An operator has seen to what could not be undone: others may deploy again. Says who serves.
pub(crate) async fn settle(app: &App, row: &DeploymentRow, by: &str) -> Result<(), StoreError> {
    let tenant = app.tenants.get(&row.tenant);
    let how = match tenant.as_ref().and_then(|tenant| tenant.live_state()) {
        Some((number, LiveState::Serving(_))) => format!("deployment {number} serves"),
        _ => "nothing serves".to_owned(),
    };
    let step = Advance {
        tenant: row.tenant.clone(),
        number: row.number,
        generation: row.generation,
        from: row.state,
        to: State::RolledBack,
        message: format!("settled by {by}: {how}"),
        failure: None,
    };
    app.store.advance(step).await?;
    if let Some(tenant) = tenant {
        tenant.changed();
    }
    Ok(())
}

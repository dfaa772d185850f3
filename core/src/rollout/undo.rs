//! The way back: everything as it was before the deployment.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use engines::Instance;
use management_api::types::Failure;
use proxy::Retired;

use super::failure;
use super::kept::{Kept, Running};
use super::live::Live;
use super::release::LiveState;
use super::run::{Rollout, Stop, drain};
use crate::deployments::State;
use crate::platform::App;
use crate::store::{Advance, DeploymentRow, StoreError};
use crate::tenant::Tenant;
use crate::traffic::{self, Weight};

/// Between two looks whether a release that is to come back is still wanted.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Between two questions to a release that is to serve again.
const ASK_AGAIN: Duration = Duration::from_millis(250);

impl Rollout {
    /// Puts everything back as it was.
    pub(super) async fn undo(&mut self, stop: Stop) {
        let shifted = matches!(self.state, State::Shifting | State::Paused);
        self.note_undo(stop).await;
        self.hand_back().await;
        let (end, message) = match self.old.clone() {
            None => {
                let retired = self.tenant.stop_all_traffic();
                self.end_new(retired).await;
                (State::Failed, "no release was serving before".to_owned())
            }
            Some(old) if self.old_let_go => self.start_again(&old).await,
            Some(old) => self.return_to(old, shifted).await,
        };
        self.insist(end, &message, None).await;
    }

    /// Writes down that it is undone, and why.
    pub(super) async fn note_undo(&mut self, stop: Stop) {
        let aborted = matches!(stop, Stop::Aborted);
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
    }

    /// The old release still runs, or some of it.
    async fn return_to(&self, old: Arc<Live>, new_has_traffic: bool) -> (State, String) {
        let number = old.number;
        let is_back = self.refill(&old, new_has_traffic).await;
        // Asked itself: what is known of it may be as old as its checks are rare. Not a second time, though: what ends right
        // behind an answer is started again, and nobody has to decide anything for that.
        let wanted = self.wanted(&old, |_| 1);
        let serves = is_back || (!old.serving().is_empty() && old.answers(&wanted).await);
        let lost = !serves && self.is_lost(&old);
        if lost && new_has_traffic {
            self.stand_in(old).await;
            let new = self.row.number;
            let message = format!(
                "deployment {number} does not serve any more; what runs of deployment {new} has the traffic until it does"
            );
            return (State::NeedsOperator, message);
        }
        let retired = if new_has_traffic || !self.opened.is_empty() {
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

    /// Old instances that made room, or are down, come back before the new ones go that have traffic. Whether they are known
    /// to be back.
    async fn refill(&self, old: &Live, new_has_traffic: bool) -> bool {
        let mut missing = BTreeSet::new();
        for kept in old.services() {
            let lacking = kept.missing();
            if lacking > 0 {
                kept.grow(lacking);
                missing.insert(kept.name.clone());
            }
        }
        if !new_has_traffic && missing.is_empty() && self.old_served.is_empty() {
            return false;
        }
        let enough = |kept: &Kept| {
            if missing.contains(&kept.name) {
                kept.kept()
            } else {
                1
            }
        };
        let wanted = self.wanted(old, enough);
        let is_back = tokio::select! {
            is_back = self.is_back(old, &wanted) => is_back,
            never = self.give_back_the_dead(old), if new_has_traffic => match never {},
        };
        if !is_back {
            tracing::warn!(
                tenant = self.tenant.id,
                deployment = old.number,
                "not all instances of the old release serve again yet"
            );
        }
        is_back
    }

    /// Services of which no new instance lives have their traffic back at once: nobody loses anything, and what else of the old
    /// release is to come back may wait for them.
    async fn give_back_the_dead(&self, old: &Live) -> Infallible {
        let mut given = BTreeSet::new();
        loop {
            for part in &self.parts {
                let new = part.new.all();
                let is_dead = new.iter().all(|instance| instance.exited().is_some());
                let kept = old.service(&part.name).filter(|_| is_dead);
                if let Some(kept) = kept
                    && given.insert(part.name.clone())
                {
                    // No keeper names other instances in between.
                    let held = kept.hold();
                    let back = traffic::Part {
                        number: kept.row.number,
                        weight: Weight::Each,
                        targets: held.targets(),
                    };
                    let back = BTreeMap::from([(part.name.clone(), vec![back])]);
                    drop(self.tenant.split_traffic(back));
                    drop(held);
                    self.tenant.changed();
                }
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// How many instances of each service are to serve. What did not serve when this began is not waited for, unless
    /// nothing did.
    fn wanted(&self, old: &Live, count: impl Fn(&Kept) -> usize) -> BTreeMap<String, usize> {
        let is_wanted =
            |kept: &&Arc<Kept>| self.old_served.is_empty() || self.old_served.contains(&kept.name);
        let wanted = old.services().filter(is_wanted);
        wanted
            .map(|kept| (kept.name.clone(), count(kept)))
            .collect()
    }

    /// The old release was stopped; it must not run beside the new one.
    async fn start_again(&mut self, old: &Live) -> (State, String) {
        let names = self.parts.iter().map(|part| part.name.clone());
        let retired = self.tenant.stop_traffic(&names.collect());
        self.end_new(retired).await;
        let number = old.number;
        let is_carried = |kept: &Arc<Kept>| self.carried.iter().any(|c| Arc::ptr_eq(c, kept));
        let mut row = old.row.clone();
        for kept in old.services() {
            row.ended.insert(kept.name.clone(), kept.ended());
        }
        let again = old.services().map(|kept| {
            if is_carried(kept) {
                return Arc::clone(kept);
            }
            let what = (kept.name.clone(), kept.service.clone());
            let nothing = Running::default();
            Kept::keep(&self.app, &self.tenant, row.clone(), what, nothing)
        });
        let again: Vec<_> = again.collect();
        let live = Live::of(&self.tenant, row, again);
        drop(live.take_traffic());
        self.tenant.set_live(Some(Arc::clone(&live)));
        if self.is_back(&live, &self.wanted(&live, |_| 1)).await {
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

    async fn is_back(&self, old: &Live, wanted: &BTreeMap<String, usize>) -> bool {
        if old.is_over() {
            // Nobody comes.
            return false;
        }
        let limit = self.app.settings.rollout.restore();
        let back = async {
            while !(old.serves_within(wanted, limit).await && old.answers(wanted).await) {
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
        !self.old_served.is_empty() && !old.is_over() && !self.app.shutdown.is_cancelled()
    }

    /// The new instances that cannot go, because nobody else serves, are kept running until somebody does.
    async fn stand_in(&self, old: Arc<Live>) {
        let stand_in = Live::of(&self.tenant, self.row.clone(), self.keep_new());
        // They had a part of it; nobody else had the rest.
        drop(stand_in.take_traffic());
        note_stand_in(&self.app, &self.tenant, Some(self.row.number)).await;
        begin_standing_in(&self.app, &self.tenant, stand_in, old);
    }

    async fn end_new(&self, retired: Vec<Retired>) {
        self.drain(retired).await;
        let new = self.parts.iter().flat_map(|part| part.new.take());
        let all: Vec<_> = new.chain(self.once.take()).collect();
        self.app.stop_all(&all).await;
    }

    /// An instance that has most to say about a failure: one that has ended, else one of the service that was started last.
    fn last_started(&self) -> Option<Instance> {
        let all = self.once.all().into_iter().chain(self.new_instances());
        let all: Vec<Instance> = all.collect();
        let ended = all.iter().find(|instance| instance.exited().is_some());
        let begun = self.parts.iter().rev().find(|part| part.new.len() > 0);
        let first = || begun.and_then(|part| part.new.all().into_iter().next());
        ended
            .cloned()
            .or_else(first)
            .or_else(|| all.first().cloned())
    }

    async fn explain(&self, stop: Stop) -> Failure {
        let failure = match stop {
            Stop::Failed(failure) => failure,
            Stop::Aborted => failure::plain("aborted", "the deployment was aborted"),
            Stop::Interrupted => failure::plain("interrupted", "the server was stopped"),
            Stop::Deadline => {
                failure::plain("deadline", overdue(self.state, self.row.timeout_seconds))
            }
            Stop::Store(error) => {
                tracing::error!(error = %crate::chain(&error), "a state could not be written");
                failure::plain("internal", "the server could not write its state")
            }
        };
        failure::with_log(failure, self.last_started().as_ref()).await
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

/// One instance of each service.
fn all(live: &Live) -> BTreeMap<String, usize> {
    let services = live.services();
    services.map(|kept| (kept.name.clone(), 1)).collect()
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
    let one_of_each = all(&old);
    while tenant.keeps_warm(&old) {
        let serves = tokio::select! {
            serves = old.serves_within(&one_of_each, LOOK_AGAIN) => serves,
            () = app.shutdown.cancelled() => return,
        };
        if !serves {
            continue;
        }
        if old.serving().is_empty() || !old.answers(&one_of_each).await {
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
        Some((number, LiveState::Serving)) => format!("deployment {number} serves"),
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

/// What has not come in time.
fn overdue(state: State, seconds: u64) -> String {
    match state {
        State::Provisioned => format!("the new release was not healthy within {seconds} s"),
        State::Paused => format!("nobody promoted or aborted the deployment within {seconds} s"),
        state => format!("the deployment was still {state} after {seconds} s"),
    }
}

//! A deployment whose instances an engine replaces by itself: the same records, deadline and end as any other.

use std::sync::Arc;
use std::time::Duration;

use engines::orchestrator::{Cause, GivenUp, Observed};
use engines::{Exit, Orchestrator};
use management_api::types::Failure;
use tokio::time::Instant;

use super::super::failure;
use super::super::release::{LiveState, Release};
use super::super::run::{Rollout, Stop};
use super::release::Ordered;
use super::sight::look;
use super::{orders, url};
use crate::deployments::State;
use crate::store::DeploymentRow;

/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Before it is told once more what it has given up on the way back.
const TELL_AGAIN: Duration = Duration::from_secs(1);

impl Rollout {
    /// Has the engine carry it out.
    pub(in super::super) async fn order(&mut self, engine: Arc<dyn Orchestrator>) {
        // What was seen last may be a moment old. Whoever does not answer, or an abort, is met again below.
        let _ = self.bounded(look(&self.app, &self.tenant, &*engine)).await;
        let state = self.tenant.live_state();
        let served = matches!(state, Some((_, LiveState::Serving)));
        match self.order_forward(&*engine).await {
            Ok(()) => {
                self.make_live();
                self.insist(State::Succeeded, "done", None).await;
            }
            Err(stop) => self.order_back(&*engine, stop, served).await,
        }
    }

    /// Up to the commit.
    async fn order_forward(&mut self, engine: &dyn Orchestrator) -> Result<(), Stop> {
        // Nobody tells the engine anything else meanwhile.
        let alone = self.tenant.leftovers();
        drop(self.bounded(alone.lock()).await?);
        self.run_command_by(engine).await?;
        self.advance(
            State::Shifting,
            format!("engine {} replaces the instances", engine.name()),
        )
        .await?;
        // A deployment of one service brings new instances, as with any engine.
        let restart = !self.may_carry || self.row.capsule.is_single();
        let applied = orders::apply(&self.app, &self.tenant, engine, Some(&self.row), restart);
        let turn = self.bounded(applied).await??;
        self.until_serving(engine, turn).await?;
        let url = self.tenant.url();
        self.bounded(url::verify(&self.row.capsule, &url)).await??;
        self.advance(State::Verified, format!("serves at {url}"))
            .await
    }

    async fn run_command_by(&mut self, engine: &dyn Orchestrator) -> Result<(), Stop> {
        let words = self.row.release_command.clone();
        if words.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        let task = orders::task(&self.app, &self.tenant, engine, &self.row);
        let task = self.bounded(task).await??;
        let limit = Duration::from_secs(self.row.timeout_seconds);
        let ran = tokio::time::timeout(limit, engine.run_once(task));
        let ran = match self.bounded(ran).await {
            Ok(Ok(ran)) => {
                ran.map_err(|error| failure::command_not_started(failure::not_started(&error)))?
            }
            Ok(Err(_)) | Err(Stop::Deadline) => {
                return Err(failure::command_late(&words, limit).into());
            }
            Err(stop) => return Err(stop),
        };
        if ran.exit != Exit::Code(0) {
            let failed = failure::command_failed(&words, ran.exit);
            let log_tail = ran.log_tail;
            return Err(Failure { log_tail, ..failed }.into());
        }
        let seconds = begun.elapsed().as_secs_f64();
        let message = format!("the release command ended well after {seconds:.1} s");
        self.advance(State::Migrated, message).await
    }

    /// Looks until the engine has done what it was told, or says that it will not.
    async fn until_serving(&self, engine: &dyn Orchestrator, turn: u64) -> Result<(), Stop> {
        loop {
            // Whoever does not answer may yet: the deadline is the deployment's.
            let looked = self.bounded(look(&self.app, &self.tenant, engine)).await?;
            match looked.map(|observed| progress(observed, turn)) {
                Ok(Progress::Done) => return Ok(()),
                Ok(Progress::Over(given_up)) => return Err(self.told_by(given_up).into()),
                Ok(Progress::Other) => {
                    let message =
                        "the engine was told something else meanwhile, or has forgotten it";
                    return Err(failure::plain("start_failed", message).into());
                }
                Ok(Progress::OnItsWay) | Err(_) => {}
            }
            self.bounded(tokio::time::sleep(LOOK_AGAIN)).await?;
        }
    }

    /// In the words of the contract.
    fn told_by(&self, given_up: GivenUp) -> Failure {
        let told = match given_up.cause {
            Cause::Ended(exit) => failure::ended(exit),
            Cause::Unhealthy => failure::plain("unhealthy", given_up.message),
            Cause::Silent => failure::plain("health_timeout", given_up.message),
            Cause::ImageNotFound => failure::plain("image_not_found", given_up.message),
            Cause::NotStarted => failure::plain("start_failed", given_up.message),
        };
        let service = given_up.service.filter(|_| !self.row.capsule.is_single());
        Failure {
            message: match service {
                Some(name) => format!("{name}: {}", told.message),
                None => told.message,
            },
            log_tail: given_up.log_tail,
            ..told
        }
    }

    fn make_live(&self) {
        let Some(sight) = &self.tenant.sight else {
            return;
        };
        let ordered = Ordered::new(self.row.clone(), sight);
        let release = Release::Ordered(Arc::new(ordered));
        self.tenant.set_release(Some(release));
    }

    /// The engine is told what it had before.
    async fn order_back(&mut self, engine: &dyn Orchestrator, stop: Stop, served: bool) {
        let told = self.state == State::Shifting;
        self.note_undo(stop).await;
        let before = self.tenant.release().map(|release| release.row().clone());
        let (end, message) = match before {
            None => {
                if told {
                    self.return_to_order(engine, None).await;
                }
                (State::Failed, "no release was serving before".to_owned())
            }
            Some(row) if !told => {
                let message = format!("deployment {} serves on", row.number);
                (State::RolledBack, message)
            }
            Some(row) => self.serve_again(engine, &row, served).await,
        };
        self.insist(end, &message, None).await;
    }

    async fn serve_again(
        &self,
        engine: &dyn Orchestrator,
        row: &DeploymentRow,
        served: bool,
    ) -> (State, String) {
        let number = row.number;
        if self.return_to_order(engine, Some(row)).await {
            return (
                State::RolledBack,
                format!("deployment {number} serves again"),
            );
        }
        // A server that ends brings it back at its next start.
        let end = if served && !self.app.shutdown.is_cancelled() {
            State::NeedsOperator
        } else {
            State::RolledBack
        };
        (end, format!("deployment {number} is being brought back"))
    }

    /// Whether the engine has come back to a release, or to none, in time. A server that ends tells it, and does not wait. Whoever
    /// keeps the tenant tells it again where it has not been told.
    async fn return_to_order(
        &self,
        engine: &dyn Orchestrator,
        row: Option<&DeploymentRow>,
    ) -> bool {
        let limit = self.app.settings.rollout.restore();
        let back = async {
            loop {
                if let Some(turn) = self.tell_to_return(engine, row).await
                    && self.has_returned(engine, turn).await
                {
                    return true;
                }
                if self.app.shutdown.is_cancelled() {
                    return false;
                }
                tokio::time::sleep(TELL_AGAIN).await;
            }
        };
        tokio::time::timeout(limit, back).await.unwrap_or(false)
    }

    /// Returns the turn of what it was told.
    async fn tell_to_return(
        &self,
        engine: &dyn Orchestrator,
        row: Option<&DeploymentRow>,
    ) -> Option<u64> {
        let told = orders::apply(&self.app, &self.tenant, engine, row, false).await;
        let untold = |failure: &Failure| {
            tracing::error!(
                tenant = self.tenant.id,
                deployment = self.row.number,
                reason = failure.message,
                "the engine was not told to return"
            );
        };
        told.inspect_err(untold).ok()
    }

    /// Waits for that; false where it does not go on, or nobody can wait any more.
    async fn has_returned(&self, engine: &dyn Orchestrator, turn: u64) -> bool {
        let returned = async {
            loop {
                let looked = look(&self.app, &self.tenant, engine).await;
                match looked.map(|observed| progress(observed, turn)) {
                    Ok(Progress::Done) => return true,
                    Ok(Progress::Over(_) | Progress::Other) => return false,
                    Ok(Progress::OnItsWay) | Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
                }
            }
        };
        tokio::select! {
            returned = returned => returned,
            () = self.app.shutdown.cancelled() => false,
        }
    }
}

/// How far an engine has come with what it was told.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    OnItsWay,
    Done,
    /// It does not go on.
    Over(GivenUp),
    /// It was told something else since, or knows nothing of it.
    Other,
}

/// Done is that what was wanted serves, never that nothing moves: an engine that has returned by itself stands still as well.
fn progress(observed: Option<Observed>, turn: u64) -> Progress {
    let Some(observed) = observed.filter(|observed| observed.turn == turn) else {
        return Progress::Other;
    };
    match (observed.failed, observed.serving) {
        (Some(given_up), _) => Progress::Over(given_up),
        (None, Some(serving)) if serving == turn => Progress::Done,
        (None, _) => Progress::OnItsWay,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn observed(turn: u64, serving: Option<u64>) -> Observed {
        Observed {
            turn,
            deployment: 2,
            serving,
            services: BTreeMap::new(),
            failed: None,
        }
    }

    #[test]
    fn what_stands_still_is_not_done() {
        assert_eq!(progress(Some(observed(5, Some(5))), 5), Progress::Done);
        assert_eq!(progress(Some(observed(5, Some(4))), 5), Progress::OnItsWay);
        assert_eq!(progress(Some(observed(5, None)), 5), Progress::OnItsWay);
        assert_eq!(progress(Some(observed(6, Some(6))), 5), Progress::Other);
        assert_eq!(progress(None, 5), Progress::Other);
        let given_up = GivenUp {
            cause: Cause::Unhealthy,
            message: "it answers 500".to_owned(),
            service: None,
            log_tail: Vec::new(),
        };
        let failed = Observed {
            failed: Some(given_up.clone()),
            ..observed(5, Some(5))
        };
        assert_eq!(progress(Some(failed), 5), Progress::Over(given_up));
    }
}

//! Sees to it that the engine has of a tenant what the database says: at the start of a server, after a way back that did not
//! succeed, and when the engine has forgotten it.

use std::sync::Arc;
use std::time::Duration;

use engines::orchestrator::Observed;
use engines::{EngineError, Orchestrator};
use management_api::types::Failure;
use tokio::time::Instant;

use super::super::release::Release;
use super::release::Ordered;
use super::sight::look;
use super::{logs, orders};
use crate::platform::App;
use crate::store::StoreError;
use crate::tenant::Tenant;

/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// For the first one, at the start of a server or of a tenant: an engine that does not answer holds nobody up.
const FIRST_LOOK: Duration = Duration::from_secs(5);
/// Before an engine is told once more what it has given up, doubled each time up to the limit.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// Makes the live release of a tenant known that has one. What the engine has of it is brought about by [`keep`].
pub(crate) async fn restore(app: &App, tenant: &Tenant) -> Result<(), StoreError> {
    let Some(sight) = &tenant.sight else {
        return Ok(());
    };
    let known = app.store.tenant(&tenant.id).await?;
    let Some(number) = known.and_then(|row| row.live) else {
        return Ok(());
    };
    if let Some(row) = app.store.deployment(&tenant.id, number).await? {
        let ordered = Ordered::new(row, sight);
        tenant.set_release(Some(Release::Ordered(Arc::new(ordered))));
    }
    Ok(())
}

/// Looks after a tenant until it is deleted. Returns when that was done once, or takes long.
pub(crate) async fn keep(app: &App, tenant: &Arc<Tenant>) {
    let Some(engine) = app.engine.orchestrator().cloned() else {
        return;
    };
    let mut keeper = Keeper {
        app: App::clone(app),
        tenant: Arc::clone(tenant),
        engine: Arc::clone(&engine),
        pause: FIRST_PAUSE,
        told_again: None,
        said: None,
    };
    if tokio::time::timeout(FIRST_LOOK, keeper.look_after())
        .await
        .is_err()
    {
        tracing::warn!(
            tenant = tenant.id,
            "the engine takes long to say what it has of a tenant"
        );
    }
    app.tasks.spawn(keeper.run());
    let (app_, tenant) = (App::clone(app), Arc::clone(tenant));
    app.tasks
        .spawn(async move { logs::follow(&app_, &tenant, &*engine).await });
}

/// Has the engine forget a tenant that was deleted; in the background where that takes long.
pub(crate) async fn forget(app: &App, tenant: String) {
    let Some(engine) = app.engine.orchestrator() else {
        return;
    };
    let removed = tokio::time::timeout(FIRST_LOOK, engine.remove(tenant.clone()));
    if !matches!(removed.await, Ok(Ok(()))) {
        forget_all(app, vec![tenant]);
    }
}

/// Has the engine forget tenants that were deleted, one after the other, in the background: as often as it takes while this server
/// is there. The next one asks again.
pub(crate) fn forget_all(app: &App, tenants: Vec<String>) {
    let Some(engine) = app.engine.orchestrator().cloned() else {
        return;
    };
    let shutdown = app.shutdown.clone();
    let forgetting = async move {
        for tenant in tenants {
            let mut pause = FIRST_PAUSE;
            while let Err(error) = engine.remove(tenant.clone()).await {
                tracing::warn!(tenant, error = %crate::chain(&error), "a deleted tenant is still the engine's");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    };
    app.tasks.spawn(async move {
        tokio::select! {
            () = forgetting => {}
            () = shutdown.cancelled() => {}
        }
    });
}

struct Keeper {
    app: App,
    tenant: Arc<Tenant>,
    engine: Arc<dyn Orchestrator>,
    /// Before it is told once more what it has given up.
    pause: Duration,
    told_again: Option<Instant>,
    /// The last trouble, which is told once.
    said: Option<String>,
}

/// Why a tenant could not be looked after.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("{}", .0.message)]
    Untold(Failure),
}

impl Keeper {
    async fn run(mut self) {
        loop {
            let (shutdown, deleted) = (self.app.shutdown.clone(), self.tenant.deleted.clone());
            let next = async {
                tokio::time::sleep(LOOK_AGAIN).await;
                self.look_after().await;
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = deleted.cancelled() => return,
                () = next => {}
            }
        }
    }

    async fn look_after(&mut self) {
        let trouble = self.settle().await.err().map(|error| crate::chain(&error));
        if let Some(why) = trouble
            .as_ref()
            .filter(|why| self.said.as_ref() != Some(why))
        {
            let tenant = &self.tenant.id;
            tracing::warn!(tenant, why, "a tenant is not looked after");
        }
        self.said = trouble;
    }

    /// Tells the engine what it should have, unless it has that, or a deployment decides about it.
    async fn settle(&mut self) -> Result<(), KeepError> {
        let (app, tenant, engine) = (&self.app, &self.tenant, &*self.engine);
        let release = tenant.release();
        let row = release.as_ref().map(Release::row);
        if tenant.place().is_none() {
            let asked = orders::place(tenant, engine, row).await;
            asked.map_err(KeepError::Untold)?;
        }
        // A deployment that begins waits for this.
        let leftovers = tenant.leftovers();
        let Ok(_alone) = leftovers.try_lock() else {
            return Ok(());
        };
        let observed = look(app, tenant, engine).await?;
        if tenant.rollout().is_some() || tenant.deleted.is_cancelled() {
            return Ok(());
        }
        let release = tenant.release();
        let row = release.as_ref().map(Release::row);
        let wanted = release.as_ref().map_or(0, Release::number);
        if is_there(observed.as_ref(), wanted) {
            self.pause = FIRST_PAUSE;
            return Ok(());
        }
        if observed.is_some_and(|observed| observed.deployment == wanted) {
            // It was told, and has given up.
            let is_early = |told: Instant| told.elapsed() < self.pause;
            if self.told_again.is_some_and(is_early) {
                return Ok(());
            }
            self.told_again = Some(Instant::now());
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
        let turn = orders::apply(app, tenant, engine, row, false).await;
        let turn = turn.map_err(KeepError::Untold)?;
        tracing::info!(
            tenant = tenant.id,
            deployment = wanted,
            turn,
            "the engine was told what is live"
        );
        Ok(())
    }
}

/// Whether the engine has been told so, and has not given up.
fn is_there(observed: Option<&Observed>, wanted: u64) -> bool {
    match observed {
        Some(observed) => observed.deployment == wanted && observed.failed.is_none(),
        None => wanted == 0,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use engines::orchestrator::{Cause, GivenUp};

    use super::*;

    #[test]
    fn the_engine_is_told_what_it_does_not_have_and_what_it_has_given_up() {
        let observed = |deployment, failed| Observed {
            turn: 5,
            deployment,
            // On the way, or some of it down: it is the engine's to bring it about.
            serving: None,
            services: BTreeMap::new(),
            failed,
        };
        assert!(is_there(Some(&observed(2, None)), 2));
        assert!(!is_there(Some(&observed(3, None)), 2));
        assert!(!is_there(None, 2));
        assert!(is_there(None, 0) && is_there(Some(&observed(0, None)), 0));
        assert!(!is_there(Some(&observed(1, None)), 0));
        let given_up = GivenUp {
            cause: Cause::Silent,
            message: String::new(),
            service: None,
            log_tail: Vec::new(),
        };
        assert!(!is_there(Some(&observed(2, Some(given_up))), 2));
    }
}

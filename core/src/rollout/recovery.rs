//! What a server does when it starts and finds what the last one has left.

use std::sync::Arc;

use engines::Instance;
use futures_util::future::join_all;
use management_api::types::Failure;
use tokio::task::JoinHandle;

use super::instances::LeftRunning;
use super::live::{Live, described};
use super::restart::starts_again;
use super::undo::begin_standing_in;
use super::{failure, health};
use crate::deployments::{State, Strategy};
use crate::platform::App;
use crate::store::{Advance, DeploymentRow, Store, StoreError};
use crate::tenant::Tenant;

/// Gives every unfinished deployment its final state. Which instances are kept follows from that.
pub(crate) async fn finish_interrupted(store: &Store) -> Result<(), StoreError> {
    let unfinished = store.unfinished().await?.into_iter();
    // What waits for an operator waits on.
    for row in unfinished.filter(|row| !row.state.is_final()) {
        let live = store.tenant(&row.tenant).await?.and_then(|t| t.live);
        let mut from = row.state;
        for to in row.state.recovery(live.is_some()) {
            store.advance(step(&row, from, to)).await?;
            from = to;
        }
        tracing::warn!(
            tenant = row.tenant,
            deployment = row.number,
            was = %row.state,
            is = %from,
            "a deployment was interrupted by the end of the server"
        );
    }
    Ok(())
}

/// Keeps the live release of a tenant running, and what stands in for it: with instances that have never stopped, at once;
/// what is missing of them is started in the background. What nobody needs is stopped.
pub(crate) async fn restore_live(
    app: &App,
    tenant: &Arc<Tenant>,
    left: LeftRunning,
) -> Result<(), StoreError> {
    let known = app.store.tenant(&tenant.id).await?;
    let number = known.as_ref().and_then(|row| row.live);
    let live = find(app, tenant, number).await?;
    let stand_in = find(app, tenant, known.and_then(|row| row.stand_in)).await?;
    let LeftRunning {
        live: of_live,
        stand_in: of_stand_in,
        mut rest,
    } = left;
    let of_live = Running::of(tenant, live.as_ref(), of_live, &mut rest).await;
    let of_stand_in = Running::of(tenant, stand_in.as_ref(), of_stand_in, &mut rest).await;
    let live = note_ended(app, live, &of_live).await?;
    let stand_in = note_ended(app, stand_in, &of_stand_in).await?;
    // Where two must not run at once, nothing is started beside what still ends.
    let alone = live
        .as_ref()
        .is_some_and(|row| row.strategy == Strategy::Recreate)
        || last_began_alone(app, tenant).await?;
    let ending = end_leftovers(app, tenant, rest);
    if alone {
        // A panic in it has been printed.
        let _ = ending.await;
    }
    let Some(row) = live else { return Ok(()) };
    let keep = |row: DeploymentRow, running: Running| {
        // A share of its own first: else nobody could be told who serves.
        drop(tenant.give_traffic(row.number, Vec::new()));
        Live::keep(app, tenant, row, running.healthy, running.unproven)
    };
    match stand_in {
        None => tenant.set_live(Some(keep(row, of_live))),
        Some(stand_in) => {
            let (healthy, unproven) = (of_live.healthy, of_live.unproven);
            let lost = Live::keep(app, tenant, row, healthy, unproven);
            let stand_in = keep(stand_in, of_stand_in);
            begin_standing_in(app, tenant, stand_in, lost);
        }
    }
    Ok(())
}

/// Takes note of those that have ended while there was no server, and are not started again.
async fn note_ended(
    app: &App,
    row: Option<DeploymentRow>,
    running: &Running,
) -> Result<Option<DeploymentRow>, StoreError> {
    let Some(mut row) = row else { return Ok(None) };
    for _ in 0..running.ended {
        app.store.note_ended(&row.tenant, row.number).await?;
        row.ended += 1;
    }
    Ok(Some(row))
}

async fn find(
    app: &App,
    tenant: &Tenant,
    number: Option<u64>,
) -> Result<Option<DeploymentRow>, StoreError> {
    match number {
        Some(number) => app.store.deployment(&tenant.id, number).await,
        None => Ok(None),
    }
}

/// Whether the newest deployment is one of those that stop the old instances first.
async fn last_began_alone(app: &App, tenant: &Tenant) -> Result<bool, StoreError> {
    let last = app.store.deployments(&tenant.id, 1).await?;
    Ok(last.iter().any(|row| row.strategy == Strategy::Recreate))
}

/// Stops what nobody needs; no rollout of the tenant begins before that is over.
fn end_leftovers(app: &App, tenant: &Tenant, rest: Vec<Instance>) -> JoinHandle<()> {
    // Nobody else can have it yet.
    let held = tenant.leftovers().try_lock_owned();
    let app = App::clone(app);
    let tasks = app.tasks.clone();
    tasks.spawn(async move {
        app.stop_all(&rest).await;
        drop(held);
    })
}

/// The instances of one release that have run on.
#[derive(Default)]
struct Running {
    /// Those that answer as they should.
    healthy: Vec<Instance>,
    /// Those that may yet: still starting, or out of the traffic for a while.
    unproven: Vec<Instance>,
    /// How many have ended that are not started again.
    ended: u32,
}

impl Running {
    /// As many as the release has; the others, and those that have ended, go to the `rest`.
    async fn of(
        tenant: &Tenant,
        row: Option<&DeploymentRow>,
        instances: Vec<Instance>,
        rest: &mut Vec<Instance>,
    ) -> Self {
        let Some(row) = row else {
            rest.extend(instances);
            return Self::default();
        };
        let check = &row.capsule.health;
        let asked = instances.iter().map(|one| health::is_healthy(one, check));
        let answers = join_all(asked).await;
        let mut running = Self::default();
        for (instance, is_healthy) in instances.into_iter().zip(answers) {
            if let Some(exit) = instance.exited() {
                tracing::warn!(
                    tenant = tenant.id,
                    deployment = row.number,
                    instance = instance.id(),
                    why = described(exit),
                    "an instance of the live release is down since before the start"
                );
                running.ended += u32::from(!starts_again(row.capsule.restart, exit));
                // What has ended leaves a directory behind.
                rest.push(instance);
            } else if is_healthy {
                running.healthy.push(instance);
            } else {
                running.unproven.push(instance);
            }
        }
        let ended = row.ended.saturating_add(running.ended);
        let wanted = row.capsule.replicas.saturating_sub(ended) as usize;
        let surplus = running.healthy.len().min(wanted);
        rest.extend(running.healthy.split_off(surplus));
        let surplus = running.unproven.len().min(wanted - running.healthy.len());
        rest.extend(running.unproven.split_off(surplus));
        if !running.healthy.is_empty() {
            tracing::info!(
                tenant = tenant.id,
                deployment = row.number,
                instances = running.healthy.len(),
                "the live release has run on and is taken over"
            );
        }
        running
    }
}

fn step(row: &DeploymentRow, from: State, to: State) -> Advance {
    let message = match to {
        State::Succeeded => "finished after a restart of the server".to_owned(),
        State::RollingBack => format!("the server ended while the deployment was {from}"),
        _ => "undone after a restart of the server".to_owned(),
    };
    Advance {
        tenant: row.tenant.clone(),
        number: row.number,
        generation: row.generation,
        from,
        to,
        message,
        failure: (to == State::RollingBack).then(|| interrupted(from)),
    }
}

fn interrupted(state: State) -> Failure {
    failure::plain(
        "interrupted",
        format!("the server ended while the deployment was {state}; deploy again"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deployments::capsule_fixture as capsule;
    use crate::store::deployment_fixtures::{GOOD, begin, tenant, walk};
    use crate::store::fixtures::store;

    /// Interrupts the last deployment after `steps` steps of a good one.
    async fn check(with_live: bool, steps: usize, expected: State, live: Option<u64>) {
        let (store, _folder) = store();
        tenant(&store).await;
        if with_live {
            let row = begin(&store, capsule('a')).await;
            walk(&store, &row, GOOD).await;
        }
        let row = begin(&store, capsule('b')).await;
        walk(&store, &row, &GOOD[..steps]).await;
        finish_interrupted(&store).await.unwrap();
        let row = store.deployment("a", row.number).await.unwrap().unwrap();
        assert_eq!(row.state, expected, "after {steps} steps");
        let undone = !expected.is_committed();
        assert_eq!(row.failure.is_some_and(|f| f.code == "interrupted"), undone);
        assert_eq!(store.tenant("a").await.unwrap().unwrap().live, live);
        assert!(store.unfinished().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn before_the_commit_the_old_release_stays() {
        for steps in 0..=3 {
            check(true, steps, State::RolledBack, Some(1)).await;
            check(false, steps, State::Failed, None).await;
        }
    }

    #[tokio::test]
    async fn after_the_commit_the_new_one_stays() {
        for steps in 4..=5 {
            check(true, steps, State::Succeeded, Some(2)).await;
            check(false, steps, State::Succeeded, Some(1)).await;
        }
    }
}

//! What a server does when it starts and finds what the last one has left.

use std::collections::BTreeMap;
use std::sync::Arc;

use engines::Instance;
use futures_util::future::join_all;
use management_api::types::Failure;
use tokio::task::JoinHandle;

use super::instances::LeftRunning;
use super::kept::{Kept, KeptState, Running, described};
use super::live::Live;
use super::restart::starts_again;
use super::undo::begin_standing_in;
use super::{doors, failure, health};
use crate::deployments::{Service, State, Strategy};
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
    let started = started(app, tenant, &left).await?;
    let mut left = left;
    let mut surplus = Vec::new();
    let mut of_live = Vec::new();
    if let Some(row) = &live {
        let services = row.capsule.services().into_iter().collect();
        of_live = Running::all(tenant, row, services, &started, &mut left, &mut surplus).await;
    }
    let mut of_stand_in = Vec::new();
    if let Some(row) = &stand_in {
        let own = own_services(row, live.as_ref());
        of_stand_in = Running::all(tenant, row, own, &started, &mut left, &mut surplus).await;
    }
    surplus.extend(left.rest());
    let live = note_ended(app, live, &of_live).await?;
    let stand_in = note_ended(app, stand_in, &of_stand_in).await?;
    // Where two must not run at once, nothing is started beside what still ends.
    let has_volumes = |row: &DeploymentRow| row.capsule.has_volumes();
    let alone = live
        .as_ref()
        .is_some_and(|row| row.strategy == Strategy::Recreate)
        || live.iter().chain(&stand_in).any(has_volumes)
        || last_began_alone(app, tenant).await?;
    let ending = end_leftovers(app, tenant, surplus);
    if alone {
        // A panic in it has been printed.
        let _ = ending.await;
    }
    doors::open_again(app, tenant).await?;
    let Some(row) = live else { return Ok(()) };
    let lost = Live::keep(app, tenant, row, of_live);
    let Some(stand_in) = stand_in else {
        await_starts(app, tenant, lost.services());
        drop(lost.take_traffic());
        tenant.set_live(Some(lost));
        tenant.changed();
        return Ok(());
    };
    drop(lost.take_traffic());
    let stand_in = Live::keep(app, tenant, stand_in, of_stand_in);
    await_starts(app, tenant, lost.services().chain(stand_in.services()));
    // What the lost one keeps for it goes on.
    drop(stand_in.take_traffic());
    begin_standing_in(app, tenant, stand_in, lost);
    tenant.changed();
    Ok(())
}

/// Whoever asks for a service that begins anew waits for its first instance, until that has failed. What has run on and is not
/// well may stay so for long.
fn await_starts<'a>(
    app: &App,
    tenant: &Arc<Tenant>,
    services: impl Iterator<Item = &'a Arc<Kept>>,
) {
    let starting = services.filter(|kept| kept.is_new && kept.state() == KeptState::Starting);
    let starting: Vec<_> = starting.cloned().collect();
    if starting.is_empty() {
        return;
    }
    tenant.await_traffic(&starting.iter().map(|kept| kept.name.clone()).collect());
    let started: Vec<_> = starting.iter().map(|kept| kept.started()).collect();
    let (shared, tenant) = (App::clone(app), Arc::clone(tenant));
    app.tasks.spawn(async move {
        tokio::select! {
            _ = join_all(started) => tenant.stop_waiting(),
            () = shared.shutdown.cancelled() => {}
        }
    });
}

/// The services that a release which stands in keeps itself: the others are those of the lost one.
fn own_services(row: &DeploymentRow, lost: Option<&DeploymentRow>) -> Vec<(String, Service)> {
    let services = row.capsule.services().into_iter();
    let is_own = |name: &str| {
        row.capsule.is_single()
            || lost.is_none_or(|lost| {
                lost.capsule.fingerprint_of(name) != row.capsule.fingerprint_of(name)
            })
    };
    services.filter(|(name, _)| is_own(name)).collect()
}

/// The deployments that have started what an earlier server has left.
async fn started(
    app: &App,
    tenant: &Tenant,
    left: &LeftRunning,
) -> Result<BTreeMap<u64, DeploymentRow>, StoreError> {
    let mut started = BTreeMap::new();
    for number in left.deployments() {
        if let Some(row) = app.store.deployment(&tenant.id, number).await? {
            started.insert(number, row);
        }
    }
    Ok(started)
}

/// Takes note of those that have ended while there was no server, and are not started again.
async fn note_ended(
    app: &App,
    row: Option<DeploymentRow>,
    services: &[(String, Service, Running)],
) -> Result<Option<DeploymentRow>, StoreError> {
    let Some(mut row) = row else { return Ok(None) };
    for (name, _, running) in services {
        if running.ended > 0 {
            let count = row.ended_of(name).saturating_add(running.ended);
            let noted = app.store.note_ended(&row.tenant, row.number, name, count);
            noted.await?;
            row.ended.insert(name.clone(), count);
        }
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

impl Running {
    /// What has run on of services of a release; the surplus, and those that have ended, come to `surplus`.
    async fn all(
        tenant: &Tenant,
        row: &DeploymentRow,
        services: Vec<(String, Service)>,
        started: &BTreeMap<u64, DeploymentRow>,
        left: &mut LeftRunning,
        surplus: &mut Vec<Instance>,
    ) -> Vec<(String, Service, Self)> {
        let mut all = Vec::new();
        for (name, service) in services {
            let wanted = row.capsule.fingerprint_of(&name);
            // Those that were carried over have the name of the deployment that has started them.
            let is_of = |number: u64| {
                let earlier = started.get(&number).filter(|_| number < row.number);
                number == row.number
                    || (!row.capsule.is_single()
                        && earlier.is_some_and(|e| e.capsule.fingerprint_of(&name) == wanted))
            };
            let instances = left.take(&name, is_of);
            let running = Self::of(tenant, row, (&name, &service), instances, surplus).await;
            all.push((name, service, running));
        }
        all
    }

    /// As many as the service has; the others, and those that have ended, go to the `rest`.
    async fn of(
        tenant: &Tenant,
        row: &DeploymentRow,
        (name, service): (&str, &Service),
        instances: Vec<Instance>,
        rest: &mut Vec<Instance>,
    ) -> Self {
        let check = &service.health;
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
                running.ended += u32::from(!starts_again(service.restart, exit));
                // What has ended leaves a directory behind.
                rest.push(instance);
            } else if is_healthy {
                running.healthy.push(instance);
            } else {
                running.unproven.push(instance);
            }
        }
        // One that was to make room has ended too; those that live have their places first.
        let alive = running.healthy.len() + running.unproven.len();
        let alive = u32::try_from(alive).unwrap_or(u32::MAX);
        let open = service.replicas.saturating_sub(row.ended_of(name));
        running.ended = running.ended.min(open.saturating_sub(alive));
        let ended = row.ended_of(name).saturating_add(running.ended);
        let wanted = service.replicas.saturating_sub(ended) as usize;
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

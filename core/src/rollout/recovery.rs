//! What a server does when it starts and finds what the last one has left.

use std::sync::Arc;

use engines::process::Instance;
use management_api::types::Failure;

use super::failure;
use super::live::{Live, described};
use crate::deployments::State;
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

/// Keeps the live release of a tenant running: with `instances`, which have never stopped, at once; what is
/// missing of it is started in the background.
pub(crate) async fn restore_live(
    app: &App,
    tenant: &Arc<Tenant>,
    instances: Vec<Instance>,
) -> Result<(), StoreError> {
    let live = app.store.tenant(&tenant.id).await?.and_then(|t| t.live);
    let Some(number) = live else { return Ok(()) };
    let Some(row) = app.store.deployment(&tenant.id, number).await? else {
        return Ok(());
    };
    let (ended, instances): (Vec<_>, Vec<_>) = instances
        .into_iter()
        .partition(|instance| instance.exited().is_some());
    for (instance, exit) in ended.iter().filter_map(|i| Some((i, i.exited()?))) {
        tracing::warn!(
            tenant = tenant.id,
            deployment = number,
            instance = instance.id(),
            why = described(exit),
            "an instance of the live release is down since before the start"
        );
    }
    // What has ended leaves a directory behind.
    let stopping = App::clone(app);
    app.tasks
        .spawn(async move { stopping.stop_all(&ended).await });
    if !instances.is_empty() {
        tracing::info!(
            tenant = tenant.id,
            deployment = number,
            instances = instances.len(),
            "the live release has run on and is taken over"
        );
    }
    drop(tenant.give_traffic(number, Vec::new()));
    tenant.set_live(Some(Live::keep(app, tenant, row, instances)));
    Ok(())
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

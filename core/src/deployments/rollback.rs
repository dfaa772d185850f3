//! Which release a rollback restores.

use std::collections::BTreeSet;

use crate::store::{DeploymentRow, KeptSecrets, Store, StoreError};

/// Why there is nothing to restore.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RollbackError {
    /// No older good release.
    #[error("{0}")]
    Nothing(String),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What of a tenant's releases is still there.
#[derive(Debug)]
pub(crate) struct Restorable {
    /// Digests of images.
    pub(crate) images: BTreeSet<String>,
    pub(crate) secrets: KeptSecrets,
}

impl Restorable {
    /// Whether a deployment's release can be started again.
    pub(crate) fn holds(&self, row: &DeploymentRow) -> bool {
        let capsule = &row.capsule;
        let mut digests = capsule.digests().into_iter();
        digests.all(|digest| self.images.contains(&digest)) && self.secrets.hold(&capsule.secrets)
    }
}

/// The deployment whose release a rollback restores: the one named by number or tag, else the
/// newest good one before the release that serves now. Rolling back twice goes back twice: a
/// rollback stands where the deployment stands whose release it restored.
pub(crate) async fn restored_release(
    store: &Store,
    tenant: &str,
    to: Option<&str>,
) -> Result<DeploymentRow, RollbackError> {
    match to {
        Some(name) => named(store, tenant, name).await,
        None => before_live(store, tenant).await,
    }
}

async fn named(store: &Store, tenant: &str, name: &str) -> Result<DeploymentRow, RollbackError> {
    let by_number = match name.parse::<u64>() {
        Ok(number) => store.deployment(tenant, number).await?,
        Err(_) => None,
    };
    let found = match by_number {
        Some(row) => Some(row),
        None => store.good_by_tag(tenant, name).await?,
    };
    match found {
        Some(row) if row.state.is_committed() => Ok(row),
        Some(row) => Err(RollbackError::Nothing(format!(
            "deployment {} ended {}: only a release that has served can be restored",
            row.number, row.state
        ))),
        None => Err(RollbackError::Nothing(format!(
            "no deployment has the number or tag {name:?}"
        ))),
    }
}

async fn before_live(store: &Store, tenant: &str) -> Result<DeploymentRow, RollbackError> {
    let nothing = || RollbackError::Nothing("there is no older good release to return to".into());
    let live = store.tenant(tenant).await?.and_then(|tenant| tenant.live);
    let live = match live {
        Some(number) => store.deployment(tenant, number).await?,
        None => None,
    };
    let live = live.ok_or_else(nothing)?;
    let standing = live.restores.unwrap_or(live.number);
    let good = store.good_before(tenant, standing, live.release_id).await?;
    good.ok_or_else(nothing)
}

#[cfg(test)]
mod tests {
    use super::super::{Capsule, Kind, State, capsule_fixture};
    use super::*;
    use crate::store::deployment_fixtures::{GOOD, begin, request, tenant, walk};
    use crate::store::fixtures::with_each_database;

    with_each_database!(
        rolling_back_twice_goes_back_twice,
        only_a_release_that_served_can_be_named,
    );

    async fn roll_back(store: &Store) -> Result<u64, RollbackError> {
        let target = restored_release(store, "a", None).await?;
        let mut new = request(target.capsule.clone());
        new.kind = Kind::Rollback;
        new.restores = Some(target.number);
        let row = store
            .begin_deployment(new, |_| unreachable!())
            .await
            .unwrap();
        walk(store, &row, GOOD).await;
        Ok(target.number)
    }

    async fn rolling_back_twice_goes_back_twice(store: &Store) {
        tenant(store).await;
        for digit in ['a', 'b', 'c'] {
            let row = begin(store, capsule_fixture(digit)).await;
            walk(store, &row, GOOD).await;
        }
        assert_eq!(roll_back(store).await.unwrap(), 2);
        assert_eq!(roll_back(store).await.unwrap(), 1);
        assert!(matches!(
            roll_back(store).await,
            Err(RollbackError::Nothing(_))
        ));
    }

    async fn only_a_release_that_served_can_be_named(store: &Store) {
        tenant(store).await;
        let good = begin(store, capsule_fixture('a')).await;
        walk(store, &good, GOOD).await;
        let capsule = Capsule {
            digest: capsule_fixture('b').digest,
            ..capsule_fixture('a')
        };
        let bad = begin(store, capsule).await;
        walk(store, &bad, &[State::RollingBack, State::RolledBack]).await;
        for (name, found) in [("1", Some(1)), ("2", None), ("t", Some(1)), ("v9", None)] {
            let result = restored_release(store, "a", Some(name)).await;
            assert_eq!(result.ok().map(|row| row.number), found, "{name}");
        }
    }
}

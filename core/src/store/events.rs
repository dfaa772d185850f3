//! Events of deployments: append-only, numbered from 1 within each deployment.

use super::sql::{Transaction, params};
use super::{Store, StoreError, from_millis, now, signed, unsigned};
use crate::deployments::State;
use management_api::types::DeploymentEvent;

impl Store {
    /// The events of a deployment after number `after`, in order.
    pub(crate) async fn events_after(
        &self,
        tenant: &str,
        number: u64,
        after: u64,
    ) -> Result<Vec<DeploymentEvent>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |transaction| {
            let sql = "SELECT seq, state, message, at FROM events
                 WHERE tenant = ?1 AND number = ?2 AND seq > ?3 ORDER BY seq";
            let parameters = params![tenant, signed(number), signed(after)];
            transaction.all(sql, parameters, |row| {
                Ok(DeploymentEvent {
                    seq: unsigned(row.get(0)?),
                    deployment: number,
                    state: row.get(1)?,
                    message: row.get(2)?,
                    at: from_millis(row.get(3)?),
                })
            })
        })
        .await
    }
}

/// Adds one event within the transaction of the change that it tells about.
pub(super) fn append(
    transaction: &Transaction<'_>,
    tenant: &str,
    number: u64,
    state: State,
    message: &str,
) -> Result<(), StoreError> {
    // It may have words of an application in it, and PostgreSQL takes no such character.
    let message = message.replace('\0', "\u{fffd}");
    transaction.execute(
        "INSERT INTO events (tenant, number, seq, state, message, at)
         SELECT ?1, ?2, COALESCE(MAX(seq), 0) + 1, ?3, ?4, ?5
         FROM events WHERE tenant = ?1 AND number = ?2",
        params![
            tenant,
            signed(number),
            state.as_str(),
            message,
            now().timestamp_millis()
        ],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::deployments::fixtures::{begin, tenant, walk};
    use super::super::fixtures::with_each_database;
    use super::*;
    use crate::deployments::capsule_fixture as capsule;

    with_each_database!(events_are_numbered_and_resumable, events_cannot_be_changed,);

    async fn events_are_numbered_and_resumable(store: &Store) {
        tenant(store).await;
        let row = begin(store, capsule('a')).await;
        walk(store, &row, &[State::RollingBack, State::Failed]).await;
        let all = store.events_after("a", 1, 0).await.unwrap();
        let seqs: Vec<_> = all.iter().map(|e| e.seq).collect();
        assert_eq!(seqs, [1, 2, 3]);
        let rest = store.events_after("a", 1, 2).await.unwrap();
        assert_eq!(rest.len(), 1);
        assert_eq!(rest[0].state, "failed");
    }

    async fn events_cannot_be_changed(store: &Store) {
        tenant(store).await;
        begin(store, capsule('a')).await;
        for sql in ["UPDATE events SET message = ''", "DELETE FROM events"] {
            let refused = store
                .write(move |transaction| Ok(transaction.execute(sql, &[])?))
                .await;
            assert!(refused.is_err(), "{sql}");
        }
    }
}

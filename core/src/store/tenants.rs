//! Tenants: who owns a repository, a port and a history.

use serde_json::json;

use super::audit::{self, Action, Actor, Entry};
use super::sql::{Row, Transaction, params};
use super::{Store, StoreError, now, signed, tokens, unsigned};

/// One tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TenantRow {
    /// Stable identifier.
    pub(crate) id: String,
    /// Display name.
    pub(crate) name: String,
    /// Port of its URL.
    pub(crate) port: u16,
    /// Number of the deployment whose release serves.
    pub(crate) live: Option<u64>,
    /// Number of the deployment that stands in for it.
    pub(crate) stand_in: Option<u64>,
}

impl Store {
    /// Adds a tenant. Refused when the id is or was in use, or the port is.
    pub(crate) async fn create_tenant(
        &self,
        tenant: TenantRow,
        by: &Actor,
    ) -> Result<(), StoreError> {
        let by = by.clone();
        self.write(move |transaction| {
            let details = json!({ "name": tenant.name, "port": tenant.port });
            let entry = Entry::of(Action::TenantCreate, Some(&tenant.id), details);
            audit::append(transaction, &by, &entry)?;
            transaction
                .execute(
                    "INSERT INTO tenants (id, name, port, created_at) VALUES (?1, ?2, ?3, ?4)",
                    params![
                        tenant.id,
                        tenant.name,
                        tenant.port,
                        now().timestamp_millis()
                    ],
                )
                .map_err(|error| {
                    if error.is_unique_violation() {
                        StoreError::TenantTaken { id: tenant.id }
                    } else {
                        error.into()
                    }
                })?;
            Ok(())
        })
        .await
    }

    /// All tenants that were not deleted, by id.
    pub(crate) async fn tenants(&self) -> Result<Vec<TenantRow>, StoreError> {
        self.read(|transaction| {
            let sql = "SELECT id, name, port, live, stand_in FROM tenants
                 WHERE deleted_at IS NULL ORDER BY id";
            transaction.all(sql, &[], tenant)
        })
        .await
    }

    /// One tenant; `None` when there is none or it was deleted.
    pub(crate) async fn tenant(&self, id: &str) -> Result<Option<TenantRow>, StoreError> {
        let id = id.to_owned();
        self.read(move |transaction| find(transaction, &id)).await
    }

    /// [`tenant`](Self::tenant) on a thread that may block.
    pub(crate) fn tenant_blocking(&self, id: &str) -> Result<Option<TenantRow>, StoreError> {
        self.read_blocking(|transaction| find(transaction, id))
    }

    /// Whether no tenant was ever made.
    pub(crate) async fn is_new(&self) -> Result<bool, StoreError> {
        self.read(|transaction| {
            let sql = "SELECT NOT EXISTS (SELECT 1 FROM tenants)";
            transaction.one(sql, &[], |row| Ok(row.get(0)?))
        })
        .await
    }

    /// Says which deployment stands in for the live release of a tenant, if any does.
    pub(crate) async fn set_stand_in(
        &self,
        id: &str,
        number: Option<u64>,
    ) -> Result<(), StoreError> {
        let id = id.to_owned();
        self.write(move |transaction| {
            transaction.execute(
                "UPDATE tenants SET stand_in = ?2 WHERE id = ?1",
                params![id, number.map(signed)],
            )?;
            Ok(())
        })
        .await
    }

    /// The next turn of a tenant, above all that were given and above `seen`: a database that comes from a backup may have
    /// forgotten some.
    pub(crate) async fn next_turn(&self, id: &str, seen: u64) -> Result<u64, StoreError> {
        let id = id.to_owned();
        self.write(move |transaction| {
            let sql = "UPDATE tenants SET turn = CASE WHEN turn < ?2 THEN ?2 ELSE turn END + 1
                 WHERE id = ?1 AND deleted_at IS NULL RETURNING turn";
            let turn = transaction.optional(sql, params![id, signed(seen)], |row| {
                Ok::<i64, StoreError>(row.get(0)?)
            })?;
            turn.map(unsigned).ok_or(StoreError::NoTenant { id })
        })
        .await
    }

    /// Ids of the tenants that were deleted.
    pub(crate) async fn deleted_tenants(&self) -> Result<Vec<String>, StoreError> {
        self.read(|transaction| {
            let sql = "SELECT id FROM tenants WHERE deleted_at IS NOT NULL ORDER BY id";
            transaction.all(sql, &[], |row| Ok(row.get(0)?))
        })
        .await
    }

    /// Marks a tenant as deleted and ends its tokens. Refused while a deployment is in progress.
    pub(crate) async fn delete_tenant(&self, id: &str, by: &Actor) -> Result<(), StoreError> {
        let (id, by) = (id.to_owned(), by.clone());
        self.write(move |transaction| {
            if let Some(number) = super::deployments::in_progress(transaction, &id)? {
                return Err(StoreError::InProgress { number });
            }
            let at = now().timestamp_millis();
            let changed = transaction.execute(
                "UPDATE tenants SET deleted_at = ?2, live = NULL, stand_in = NULL
                 WHERE id = ?1 AND deleted_at IS NULL",
                params![id, at],
            )?;
            if changed == 0 {
                return Err(StoreError::NoTenant { id });
            }
            let entry = Entry::of(Action::TenantDelete, Some(&id), json!({}));
            audit::append(transaction, &by, &entry)?;
            tokens::revoke(transaction, "tenant = ?2", &id, &by)?;
            // Nothing of the tenant is started any more.
            transaction.execute("DELETE FROM secrets WHERE tenant = ?1", params![id])?;
            transaction.execute("DELETE FROM service_ports WHERE tenant = ?1", params![id])?;
            Ok(())
        })
        .await
    }
}

/// One tenant within a transaction.
pub(super) fn find(
    transaction: &Transaction<'_>,
    id: &str,
) -> Result<Option<TenantRow>, StoreError> {
    let sql = "SELECT id, name, port, live, stand_in FROM tenants
         WHERE id = ?1 AND deleted_at IS NULL";
    transaction.optional(sql, params![id], tenant)
}

fn tenant(row: &Row) -> Result<TenantRow, StoreError> {
    Ok(TenantRow {
        id: row.get(0)?,
        name: row.get(1)?,
        port: row.get(2)?,
        live: row.get::<Option<i64>>(3)?.map(unsigned),
        stand_in: row.get::<Option<i64>>(4)?.map(unsigned),
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::with_each_database;
    use super::*;

    with_each_database!(
        a_deleted_id_is_not_given_out_again_but_its_port_is,
        two_tenants_cannot_have_one_port,
        turns_grow_also_behind_those_that_were_forgotten,
    );

    fn row(id: &str, port: u16) -> TenantRow {
        TenantRow {
            id: id.into(),
            name: id.into(),
            port,
            live: None,
            stand_in: None,
        }
    }

    async fn a_deleted_id_is_not_given_out_again_but_its_port_is(store: &Store) {
        store
            .create_tenant(row("a", 2000), &Actor::server())
            .await
            .unwrap();
        store.delete_tenant("a", &Actor::server()).await.unwrap();
        assert_eq!(store.tenant("a").await.unwrap(), None);
        assert!(matches!(
            store.create_tenant(row("a", 2001), &Actor::server()).await,
            Err(StoreError::TenantTaken { .. })
        ));
        store
            .create_tenant(row("b", 2000), &Actor::server())
            .await
            .unwrap();
        assert_eq!(store.tenants().await.unwrap().len(), 1);
    }

    async fn turns_grow_also_behind_those_that_were_forgotten(store: &Store) {
        let by = Actor::server();
        store.create_tenant(row("a", 2000), &by).await.unwrap();
        for (seen, turn) in [(0, 1), (0, 2), (1, 3), (7, 8), (8, 9)] {
            assert_eq!(store.next_turn("a", seen).await.unwrap(), turn);
        }
        store.delete_tenant("a", &by).await.unwrap();
        assert!(store.next_turn("a", 0).await.is_err());
        assert_eq!(store.deleted_tenants().await.unwrap(), ["a"]);
    }

    async fn two_tenants_cannot_have_one_port(store: &Store) {
        store
            .create_tenant(row("a", 2000), &Actor::server())
            .await
            .unwrap();
        assert!(
            store
                .create_tenant(row("b", 2000), &Actor::server())
                .await
                .is_err()
        );
    }
}

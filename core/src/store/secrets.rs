//! Versions of tenants' secrets. What stands here is sealed; names and versions are not secret.
//!
//! A version is never changed and never given out twice: a release names the versions that it runs with.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde_json::json;

use super::audit::{self, Action, Actor, Entry};
use super::sql::{Row, Transaction, params};
use super::{Store, StoreError, from_millis, now, on_blocking_thread, signed, tenants, unsigned};
use crate::vault::VaultError;

/// What is known of a secret without opening it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SecretRow {
    pub(crate) name: String,
    pub(crate) version: u64,
    /// Somebody else changes it, so that a rollback does not bring its old value back.
    pub(crate) external: bool,
    pub(crate) updated_at: DateTime<Utc>,
}

/// A version of a secret as it is kept.
pub(crate) struct SealedSecret {
    pub(crate) tenant: String,
    pub(crate) name: String,
    pub(crate) version: u64,
    pub(crate) sealed: Vec<u8>,
}

const SEALED: &str = "SELECT tenant, name, version, sealed FROM secrets WHERE sealed IS NOT NULL";

type IsSame = Box<dyn Fn(u64, &[u8]) -> bool + Send>;
type Seal = Box<dyn Fn(u64) -> Option<Vec<u8>> + Send>;

/// What is to become of a secret.
pub(crate) enum Change {
    /// A value; the function says whether the newest version holds it already, and seals it for the next one.
    Set {
        /// See [`SecretRow::external`].
        external: bool,
        /// Newest version and what is sealed in it.
        is_same: IsSame,
        /// Seals for a version.
        seal: Seal,
    },
    /// No value from now on. Releases that name a version keep it.
    Remove,
}

/// What became of a change.
enum Applied {
    /// A value, in this version.
    Set(u64),
    Removed,
    /// It was so already.
    Nothing,
}

/// Which versions of a tenant's secrets have a value.
#[derive(Debug, Default)]
pub(crate) struct KeptSecrets {
    versions: BTreeSet<(String, u64)>,
    /// Names that somebody else changes: their newest version stands for every other.
    external: BTreeSet<String>,
}

impl KeptSecrets {
    /// Whether all of these can be opened.
    pub(crate) fn hold(&self, versions: &BTreeMap<String, u64>) -> bool {
        versions.iter().all(|(name, version)| {
            self.external.contains(name) || self.versions.contains(&(name.clone(), *version))
        })
    }
}

/// The newest version of one name.
struct Newest {
    version: u64,
    external: bool,
    /// Absent once it was removed.
    sealed: Option<Vec<u8>>,
}

impl Store {
    /// Changes some of a tenant's secrets, all or none. What is the same already gets no new version.
    pub(crate) async fn change_secrets(
        &self,
        tenant: &str,
        actor: &Actor,
        changes: Vec<(String, Change)>,
    ) -> Result<(), StoreError> {
        let (tenant, actor) = (tenant.to_owned(), actor.clone());
        self.write(move |transaction| {
            if tenants::find(transaction, &tenant)?.is_none() {
                return Err(StoreError::NoTenant { id: tenant });
            }
            let mut set = BTreeMap::new();
            let mut removed = Vec::new();
            for (name, change) in changes {
                match apply(transaction, &tenant, &name, change, &actor.name)? {
                    Applied::Set(version) => drop(set.insert(name, version)),
                    Applied::Removed => removed.push(name),
                    Applied::Nothing => {}
                }
            }
            if set.is_empty() && removed.is_empty() {
                return Ok(());
            }
            let details = json!({ "set": set, "removed": removed });
            let entry = Entry::of(Action::SecretsChange, Some(&tenant), details);
            audit::append(transaction, &actor, &entry)
        })
        .await
    }

    /// A tenant's secrets as they are now, by name.
    pub(crate) async fn secrets(&self, tenant: &str) -> Result<Vec<SecretRow>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |transaction| {
            let sql = "SELECT s.name, s.version, s.external, s.created_at FROM secrets s
                 WHERE s.tenant = ?1 AND s.sealed IS NOT NULL AND s.version =
                   (SELECT MAX(version) FROM secrets WHERE tenant = s.tenant AND name = s.name)
                 ORDER BY s.name";
            transaction.all(sql, params![tenant], |row| {
                Ok(SecretRow {
                    name: row.get(0)?,
                    version: unsigned(row.get(1)?),
                    external: row.get(2)?,
                    updated_at: from_millis(row.get(3)?),
                })
            })
        })
        .await
    }

    /// Which versions of a tenant's secrets have a value.
    pub(crate) async fn kept_secrets(&self, tenant: &str) -> Result<KeptSecrets, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |transaction| {
            let sql = "SELECT name, version, external, sealed IS NOT NULL FROM secrets
                 WHERE tenant = ?1 ORDER BY name, version";
            let mut kept = KeptSecrets::default();
            transaction.each(sql, params![tenant], |row| {
                let (name, external): (String, bool) = (row.get(0)?, row.get(2)?);
                let has_value: bool = row.get(3)?;
                // The last row of a name is its newest.
                if external && has_value {
                    kept.external.insert(name.clone());
                } else {
                    kept.external.remove(&name);
                }
                if has_value {
                    kept.versions.insert((name, unsigned(row.get(1)?)));
                }
                Ok::<_, StoreError>(())
            })?;
            Ok(kept)
        })
        .await
    }

    /// Any secret there is.
    pub(crate) async fn any_secret(&self) -> Result<Option<SealedSecret>, StoreError> {
        self.read(any).await
    }

    /// Seals every version with what `seal` makes of it, all or none, and leaves nothing of what they were before in
    /// the files. Says how many there are.
    pub(crate) async fn reseal_secrets(
        &self,
        seal: impl Fn(&SealedSecret) -> Result<Vec<u8>, VaultError> + Send + 'static,
    ) -> Result<usize, StoreError> {
        let fence = self.fence.clone();
        on_blocking_thread(&self.writer, move |connection| {
            connection.begin_erasing()?;
            let count = fence.write(connection, |transaction| reseal(transaction, seal))?;
            connection.end_erasing("secrets")?;
            Ok(count)
        })
        .await
    }

    /// The sealed values of these versions; of those that somebody else changes, the newest.
    pub(crate) async fn sealed_secrets(
        &self,
        tenant: &str,
        versions: &BTreeMap<String, u64>,
    ) -> Result<Vec<(String, u64, Vec<u8>)>, StoreError> {
        let (tenant, versions) = (tenant.to_owned(), versions.clone());
        self.read(move |transaction| {
            let mut found = Vec::new();
            for (name, version) in versions {
                let newest = newest(transaction, &tenant, &name)?;
                if let Some(Newest {
                    version,
                    external: true,
                    sealed: Some(sealed),
                }) = newest
                {
                    found.push((name, version, sealed));
                    continue;
                }
                let sql =
                    "SELECT sealed FROM secrets WHERE tenant = ?1 AND name = ?2 AND version = ?3";
                let parameters = params![tenant, name, signed(version)];
                let sealed = transaction.optional(sql, parameters, |row| Ok(row.get(0)?))?;
                let missing = || StoreError::NoSecret {
                    name: name.clone(),
                    version,
                };
                let sealed: Vec<u8> = sealed.flatten().ok_or_else(missing)?;
                found.push((name, version, sealed));
            }
            Ok(found)
        })
        .await
    }
}

/// Some version of some secret.
pub(super) fn any(transaction: &Transaction<'_>) -> Result<Option<SealedSecret>, StoreError> {
    let sql = format!("{SEALED} LIMIT 1");
    transaction.optional(&sql, &[], sealed)
}

fn reseal(
    transaction: &Transaction<'_>,
    seal: impl Fn(&SealedSecret) -> Result<Vec<u8>, VaultError>,
) -> Result<usize, StoreError> {
    let secrets = transaction.all(SEALED, &[], sealed)?;
    for secret in &secrets {
        let resealed = seal(secret).map_err(|_| StoreError::Unsealed {
            name: secret.name.clone(),
        })?;
        transaction.execute(
            "UPDATE secrets SET sealed = ?4 WHERE tenant = ?1 AND name = ?2 AND version = ?3",
            params![secret.tenant, secret.name, signed(secret.version), resealed],
        )?;
    }
    let details = json!({ "versions": secrets.len() });
    let entry = Entry::of(Action::SecretsRekey, None, details);
    audit::append(transaction, &Actor::server(), &entry)?;
    Ok(secrets.len())
}

fn sealed(row: &Row) -> Result<SealedSecret, StoreError> {
    Ok(SealedSecret {
        tenant: row.get(0)?,
        name: row.get(1)?,
        version: unsigned(row.get(2)?),
        sealed: row.get(3)?,
    })
}

fn newest(
    transaction: &Transaction<'_>,
    tenant: &str,
    name: &str,
) -> Result<Option<Newest>, StoreError> {
    let sql = "SELECT version, external, sealed FROM secrets WHERE tenant = ?1 AND name = ?2
         ORDER BY version DESC LIMIT 1";
    let read = |row: &Row| {
        Ok(Newest {
            version: unsigned(row.get(0)?),
            external: row.get(1)?,
            sealed: row.get(2)?,
        })
    };
    transaction.optional(sql, params![tenant, name], read)
}

fn apply(
    transaction: &Transaction<'_>,
    tenant: &str,
    name: &str,
    change: Change,
    actor: &str,
) -> Result<Applied, StoreError> {
    let newest = newest(transaction, tenant, name)?;
    let next = newest.as_ref().map_or(1, |newest| newest.version + 1);
    let (external, sealed) = match change {
        Change::Set {
            external,
            is_same,
            seal,
        } => {
            let same = newest.as_ref().is_some_and(|newest| {
                let sealed = newest.sealed.as_ref();
                newest.external == external
                    && sealed.is_some_and(|sealed| is_same(newest.version, sealed))
            });
            if same {
                return Ok(Applied::Nothing);
            }
            let unsealed = || StoreError::Unsealed {
                name: name.to_owned(),
            };
            (external, Some(seal(next).ok_or_else(unsealed)?))
        }
        Change::Remove if newest.is_none_or(|newest| newest.sealed.is_none()) => {
            return Ok(Applied::Nothing);
        }
        Change::Remove => (false, None),
    };
    let applied = match sealed {
        Some(_) => Applied::Set(next),
        None => Applied::Removed,
    };
    transaction.execute(
        "INSERT INTO secrets (tenant, name, version, external, sealed, actor, created_at)
         VALUES (?1,?2,?3,?4,?5,?6,?7)",
        params![
            tenant,
            name,
            signed(next),
            external,
            sealed,
            actor,
            now().timestamp_millis()
        ],
    )?;
    Ok(applied)
}

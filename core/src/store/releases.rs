//! Releases: which of them somebody may still need, and what goes with one that nobody does.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use super::audit::{self, Actor, Entry};
use super::sql::{Row, Transaction, params};
use super::{Store, StoreError, deployments, from_millis, services, signed, unsigned};

/// A release, and how it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReleaseUse {
    pub(crate) id: i64,
    pub(crate) tenant: String,
    /// Digest of its image.
    pub(crate) digest: String,
    /// Digests of the images of its further services.
    pub(crate) others: BTreeSet<String>,
    /// The secrets that it names, each with its version.
    pub(crate) secrets: BTreeMap<String, u64>,
    /// Number of its newest deployment.
    pub(crate) newest: u64,
    /// When that was asked for.
    pub(crate) used_at: DateTime<Utc>,
    /// Number of its newest deployment that has served.
    pub(crate) served: Option<u64>,
    /// A deployment of it has not come to its end.
    pub(crate) running: bool,
    /// It serves.
    pub(crate) live: bool,
    /// A rollback that names nothing returns to it.
    pub(crate) next_back: bool,
}

impl ReleaseUse {
    /// Whether it serves, is being deployed, or may be restored as long as its image is there.
    pub(crate) fn is_needed(&self) -> bool {
        self.live || self.running || self.next_back || self.served.is_some()
    }

    /// Digests of all of its images.
    pub(crate) fn images(&self) -> impl Iterator<Item = &str> {
        let others = self.others.iter().filter(|other| **other != self.digest);
        [&self.digest].into_iter().chain(others).map(String::as_str)
    }
}

const SELECT: &str = "
    SELECT r.id, r.tenant, r.digest, r.secrets, MAX(d.number), MAX(d.created_at),
           MAX(CASE WHEN d.state IN ('verified', 'draining', 'succeeded') THEN d.number END),
           MAX(CASE WHEN d.finished_at IS NULL THEN 1 ELSE 0 END),
           MAX(CASE WHEN d.number = t.live OR d.number = t.stand_in THEN 1 ELSE 0 END),
           r.services
    FROM releases r
    JOIN deployments d ON d.release_id = r.id
    JOIN tenants t ON t.id = r.tenant AND t.deleted_at IS NULL
    GROUP BY r.id ORDER BY r.tenant, r.id";

impl Store {
    /// Every release of a tenant that was not deleted, and who uses it.
    pub(crate) async fn releases_in_use(&self) -> Result<Vec<ReleaseUse>, StoreError> {
        self.read(in_use).await
    }

    /// [`releases_in_use`](Self::releases_in_use) on a thread that may block.
    pub(crate) fn releases_in_use_blocking(&self) -> Result<Vec<ReleaseUse>, StoreError> {
        self.read_blocking(in_use)
    }

    /// Removes versions of secrets that neither is the newest of its name nor is named by one of these releases, and
    /// writes down what is removed with them. Says how many.
    pub(crate) async fn forget_secrets(
        &self,
        kept: Vec<i64>,
        by: &Actor,
        entry: impl FnOnce(usize) -> Option<Entry> + Send + 'static,
    ) -> Result<usize, StoreError> {
        let by = by.clone();
        self.write(move |transaction| {
            let surplus = surplus_secrets(transaction, &kept)?;
            for (tenant, name, version) in &surplus {
                transaction.execute(
                    "DELETE FROM secrets WHERE tenant = ?1 AND name = ?2 AND version = ?3",
                    params![tenant, name, signed(*version)],
                )?;
            }
            if let Some(entry) = entry(surplus.len()) {
                audit::append(transaction, &by, &entry)?;
            }
            Ok(surplus.len())
        })
        .await
    }

    /// How many versions [`forget_secrets`](Self::forget_secrets) would remove.
    pub(crate) async fn surplus_secrets(&self, kept: Vec<i64>) -> Result<usize, StoreError> {
        self.read(move |transaction| Ok(surplus_secrets(transaction, &kept)?.len()))
            .await
    }
}

/// Every release of a tenant that was not deleted, and who uses it.
pub(super) fn in_use(transaction: &Transaction<'_>) -> Result<Vec<ReleaseUse>, StoreError> {
    let mut found = transaction.all(SELECT, &[], read)?;
    for live in deployments::live(transaction)? {
        let standing = live.restores.unwrap_or(live.number);
        let back = deployments::good_before(transaction, &live.tenant, standing, live.release_id)?;
        if let Some(back) = back
            && let Some(release) = found.iter_mut().find(|r| r.id == back.release_id)
        {
            release.next_back = true;
        }
    }
    Ok(found)
}

fn read(row: &Row) -> Result<ReleaseUse, StoreError> {
    let group = services::from_column(row.get(9)?)?;
    let others = group.services.into_values().map(|service| service.digest);
    Ok(ReleaseUse {
        others: others.collect(),
        id: row.get(0)?,
        tenant: row.get(1)?,
        digest: row.get(2)?,
        secrets: serde_json::from_str(&row.get::<String>(3)?)?,
        newest: unsigned(row.get(4)?),
        used_at: from_millis(row.get(5)?),
        served: row.get::<Option<i64>>(6)?.map(unsigned),
        running: row.get(7)?,
        live: row.get(8)?,
        next_back: false,
    })
}

/// Tenant, name and version of what nobody needs. The newest stays whoever names it: a version is not given out twice.
fn surplus_secrets(
    transaction: &Transaction<'_>,
    kept: &[i64],
) -> Result<Vec<(String, String, u64)>, StoreError> {
    let kept: BTreeSet<i64> = kept.iter().copied().collect();
    let releases = in_use(transaction)?;
    let named: BTreeSet<(&str, &str, u64)> = releases
        .iter()
        .filter(|release| kept.contains(&release.id))
        .flat_map(|release| {
            let secrets = release.secrets.iter();
            secrets.map(|(name, version)| (release.tenant.as_str(), name.as_str(), *version))
        })
        .collect();
    let sql = "SELECT tenant, name, version FROM secrets s WHERE version <
           (SELECT MAX(version) FROM secrets WHERE tenant = s.tenant AND name = s.name)";
    let older: Vec<(String, String, u64)> = transaction.all(sql, &[], |row| {
        Ok((row.get(0)?, row.get(1)?, unsigned(row.get(2)?)))
    })?;
    let is_needed = |(tenant, name, version): &(String, String, u64)| {
        named.contains(&(tenant.as_str(), name.as_str(), *version))
    };
    Ok(older.into_iter().filter(|one| !is_needed(one)).collect())
}

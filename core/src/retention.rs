//! What is kept of images and secrets, and the removal of the rest.
//!
//! Kept is what serves, what is being deployed, what a rollback may restore, and what is young. Nothing here knows
//! tenants' instances: the platform frees unpacked images and logs.

mod plan;

#[cfg(test)]
mod never_loses;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use management_api::types::{CollectedRelease, Collection};
use oci::Inventory;
use serde_json::json;

use crate::store::{Action, Actor, Entry, ReleaseUse, Store, StoreError};
use plan::Plan;
pub(crate) use plan::Rules;

/// Why nothing, or not everything, was collected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CollectError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The registry.
    #[error("the registry cannot be collected")]
    Images(#[from] oci::StoreError),
}

/// Collects, or says what would go.
pub(crate) struct Collector {
    pub(crate) store: Store,
    pub(crate) images: Arc<oci::Store>,
    pub(crate) rules: Rules,
}

/// What was collected, and what is left.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) collection: Collection,
    /// Digests of the images that are kept.
    pub(crate) kept: BTreeSet<String>,
    /// The length of all contents that are left, in bytes.
    pub(crate) left: u64,
}

impl Collector {
    /// What would go now.
    pub(crate) async fn look(&self, now: DateTime<Utc>) -> Result<Outcome, CollectError> {
        let releases = self.store.releases_in_use().await?;
        let (plan, inventory) = self.plan(releases, now).await?;
        let secret_versions = self.store.surplus_secrets(plan.kept.clone()).await?;
        let surplus = inventory.without(&plan.gone, self.rules.grace);
        let collection = Collection {
            dry_run: true,
            secret_versions,
            manifests: plan.manifests(),
            blobs: surplus.contents.len(),
            bytes: surplus.bytes,
            ..plan.collection()
        };
        let left = inventory.bytes().saturating_sub(surplus.bytes);
        Ok(self.outcome(collection, &plan, left))
    }

    /// Removes it. Nobody may begin a deployment before `alone` is given back, which is when no image goes any more and
    /// only bytes that are nobody's do; pushes may go on. What is to go is written down before, and what has gone after.
    pub(crate) async fn collect<G>(
        &self,
        by: &Actor,
        now: DateTime<Utc>,
        alone: G,
    ) -> Result<Outcome, CollectError> {
        let begun = std::time::Instant::now();
        // Before anything goes: while a backup is made nothing does.
        let right = self.images.collecting()?;
        let releases = self.relink(self.store.releases_in_use().await?).await?;
        let (plan, inventory) = self.plan(releases, now).await?;
        let planned = plan.collection();
        let manifests = plan.manifests();
        let entry = move |secret_versions| {
            let something = manifests > 0 || secret_versions > 0;
            let details = json!({
                "releases": planned.releases,
                "manifests": manifests,
                "secret_versions": secret_versions,
            });
            something.then(|| Entry::of(Action::Collect, None, details))
        };
        let kept = plan.kept.clone();
        let secret_versions = self.store.forget_secrets(kept, by, entry).await?;
        let (gone, grace) = (plan.gone.clone(), self.rules.grace);
        let (images, all) = (Arc::clone(&self.images), Arc::clone(&inventory));
        let unlinked = blocking(move || {
            let unlinked = images.unlink_manifests(&right, &all, &gone, grace)?;
            Ok((right, unlinked))
        });
        let (right, unlinked) = unlinked.await?;
        drop(alone);
        let (images, all) = (Arc::clone(&self.images), Arc::clone(&inventory));
        let collected =
            blocking(move || images.remove_surplus(&right, &all, &unlinked, grace)).await?;
        let collection = Collection {
            secret_versions,
            manifests: collected.manifests,
            blobs: collected.blobs,
            bytes: collected.bytes,
            ..plan.collection()
        };
        if collected.manifests + collected.blobs > 0 {
            let took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            let details = json!({
                "manifests": collected.manifests,
                "blobs": collected.blobs,
                "bytes": collected.bytes,
                "milliseconds": took,
            });
            let entry = Entry::of(Action::Collected, None, details);
            self.store.audit(by, entry).await?;
        }
        let left = inventory.bytes().saturating_sub(collected.bytes);
        Ok(self.outcome(collection, &plan, left))
    }

    /// What serves or is being deployed is kept also where its repository has lost it.
    async fn relink(&self, releases: Vec<ReleaseUse>) -> Result<Vec<ReleaseUse>, CollectError> {
        let images = Arc::clone(&self.images);
        blocking(move || {
            for release in releases.iter().filter(|r| r.live || r.running) {
                for digest in release.images() {
                    if let (Ok(repository), Ok(digest)) = (release.tenant.parse(), digest.parse())
                        && !images.relink(&repository, &digest)?
                    {
                        tracing::warn!(
                            tenant = release.tenant,
                            deployment = release.newest,
                            "parts of an image that is in use are not in the registry any more: push it again"
                        );
                    }
                }
            }
            Ok(releases)
        })
        .await
    }

    async fn plan(
        &self,
        releases: Vec<ReleaseUse>,
        now: DateTime<Utc>,
    ) -> Result<(Plan, Arc<Inventory>), CollectError> {
        let tenants = self.store.tenants().await?;
        let tenants: BTreeSet<String> = tenants.into_iter().map(|tenant| tenant.id).collect();
        let (images, rules) = (Arc::clone(&self.images), self.rules.clone());
        blocking(move || {
            let inventory = images.inventory()?;
            let plan = plan::plan(releases, &tenants, &inventory, &rules, now);
            Ok((plan, Arc::new(inventory)))
        })
        .await
    }

    fn outcome(&self, mut collection: Collection, plan: &Plan, left: u64) -> Outcome {
        collection.bytes_kept = left;
        collection.bytes_over = match self.rules.bytes_kept {
            Some(bound) => left.saturating_sub(bound),
            None => 0,
        };
        Outcome {
            collection,
            kept: plan.images.clone(),
            left,
        }
    }
}

/// Work on the registry's files.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, oci::StoreError> + Send + 'static,
) -> Result<T, CollectError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|_| StoreError::Stopped)??)
}

/// What somebody relied on within this time is never collected: long enough for a push over a slow line.
pub(crate) const GRACE: Duration = Duration::from_hours(1);

impl Plan {
    fn manifests(&self) -> usize {
        self.gone.values().map(BTreeSet::len).sum()
    }

    fn collection(&self) -> Collection {
        let releases = self.releases.iter().map(|release| CollectedRelease {
            tenant: release.tenant.clone(),
            deployment: release.newest,
            digest: release.digest.clone(),
        });
        Collection {
            releases: releases.collect(),
            more: self.more,
            ..Collection::default()
        }
    }
}

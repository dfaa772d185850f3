//! The registry's questions to the platform: who may do what, and what nobody may remove.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use registry::{Action, Authorize, Caller, Decision, Needed};
use tokio::runtime::Handle;
use tokio::sync::OwnedRwLockWriteGuard;

use crate::platform::App;
use crate::store::ReleaseUse;

/// For a deployment that is being begun, or a collection.
const WAIT: Duration = Duration::from_secs(10);

/// The platform as its registry sees it.
pub(super) struct RegistryGuard(pub(super) App);

impl Authorize for RegistryGuard {
    fn authorize(&self, caller: &Caller, repository: Option<&str>, action: Action) -> Decision {
        let decided = self.0.registry.decide(caller, repository, action);
        decided.unwrap_or_else(|error| {
            tracing::error!(error = %crate::chain(&error), "the registry refuses a request");
            Decision::Deny
        })
    }

    /// The images of the tenant's releases that serve, are being deployed, or have served: a rollback may name any of
    /// these. What has failed may go.
    fn needed(&self, repository: &str) -> Option<Needed> {
        // Nobody begins a deployment of what is about to go.
        let alone = Arc::clone(&self.0.keeping).write_owned();
        let alone = Handle::current().block_on(async { tokio::time::timeout(WAIT, alone).await });
        let alone: OwnedRwLockWriteGuard<()> = alone.ok()?;
        let releases = self.0.store.releases_in_use_blocking();
        let releases = releases.inspect_err(|error| {
            tracing::error!(error = %crate::chain(error), "the registry removes nothing");
        });
        let releases = releases.ok()?.into_iter();
        let needed = releases.filter(|release| release.tenant == repository && release.is_needed());
        let needed: Vec<_> = needed.collect();
        let images = needed.iter().flat_map(ReleaseUse::images);
        Some(Needed {
            images: images.filter_map(|digest| digest.parse().ok()).collect(),
            hold: Some(Box::new(alone) as Box<dyn Any + Send>),
        })
    }
}

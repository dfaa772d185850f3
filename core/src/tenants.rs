//! All tenants of the server at run time.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use crate::deployments::State;
use crate::metrics::TenantMeasurements;
use crate::rollout::{Condition, LiveState, ServiceNow};
use crate::store::DeploymentRow;
use crate::tenant::Tenant;

/// Tenants by id.
#[derive(Default)]
pub(crate) struct Tenants {
    all: RwLock<BTreeMap<String, Arc<Tenant>>>,
}

impl Tenants {
    /// False when there is one with this id.
    pub(crate) fn add(&self, tenant: Arc<Tenant>) -> bool {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        match all.entry(tenant.id.clone()) {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                place.insert(tenant);
                true
            }
        }
    }

    pub(crate) fn remove(&self, id: &str) -> Option<Arc<Tenant>> {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        all.remove(id)
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<Tenant>> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.get(id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Tenant>> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.values().cloned().collect()
    }

    /// A tenant's URL.
    pub(crate) fn url(&self, id: &str) -> Option<String> {
        self.get(id).and_then(|tenant| tenant.known_url())
    }

    /// Wakes when something about the tenant's deployments was written.
    pub(crate) fn changes(&self, id: &str) -> Option<watch::Receiver<u64>> {
        self.get(id).map(|tenant| tenant.changes())
    }

    /// The deployment whose instance serves at this moment.
    pub(crate) fn serving(&self, id: &str) -> Option<u64> {
        match self.get(id)?.live_state()? {
            (number, LiveState::Serving) => Some(number),
            _ => None,
        }
    }

    /// Asks a rollout to undo itself; false when it is not running.
    pub(crate) fn abort(&self, id: &str, number: u64) -> bool {
        self.get(id)
            .is_some_and(|tenant| tenant.abort_rollout(number))
    }

    /// Lets a rollout that is watching go on; false when it is not running.
    pub(crate) fn promote(&self, id: &str, number: u64) -> bool {
        self.get(id)
            .is_some_and(|tenant| tenant.promote_rollout(number))
    }

    /// The contract's status, with a sentence for people.
    pub(crate) fn summary(
        &self,
        id: &str,
        running: Option<&DeploymentRow>,
        latest: Option<&DeploymentRow>,
    ) -> (&'static str, Option<String>) {
        let live = self.get(id).and_then(|tenant| tenant.live_state());
        if let Some(row) = running.filter(|row| row.state == State::NeedsOperator) {
            let message = format!(
                "{}; abort it when it is settled",
                why_undone(row, live.as_ref())
            );
            return ("needs_operator", Some(message));
        }
        if let Some(row) = running {
            let message = format!("deployment {} is {}", row.number, row.state);
            return ("deploying", Some(message));
        }
        match latest {
            None => ("pending", Some("nothing was deployed yet".to_owned())),
            Some(row) if !row.state.is_committed() => {
                ("failed", Some(why_undone(row, live.as_ref())))
            }
            Some(_) => describe_live(live),
        }
    }

    /// What the proxies have counted.
    pub(crate) fn measurements(&self) -> Vec<TenantMeasurements> {
        let all = self.all().into_iter();
        all.map(|tenant| measure(&tenant)).collect()
    }

    /// The same of one of them.
    pub(crate) fn measurement(&self, id: &str) -> Option<TenantMeasurements> {
        self.get(id).map(|tenant| measure(&tenant))
    }
}

fn measure(tenant: &Tenant) -> TenantMeasurements {
    TenantMeasurements {
        up: matches!(tenant.live_state(), Some((_, LiveState::Serving))),
        traffic: tenant.proxy().map(|proxy| proxy.stats()),
        services: services_of(tenant),
        tenant: tenant.id.clone(),
    }
}

/// The services of what serves, and how many instances of each do.
fn services_of(tenant: &Tenant) -> BTreeMap<String, usize> {
    let serving = |now: ServiceNow| match now.condition {
        Condition::Serving(instances) => (now.name, instances.len()),
        _ => (now.name, 0),
    };
    tenant.services_now().into_iter().map(serving).collect()
}

fn why_undone(row: &DeploymentRow, live: Option<&(u64, LiveState)>) -> String {
    let why = match &row.failure {
        Some(failure) => failure.message.as_str(),
        None => "no reason was recorded",
    };
    let still = match live {
        Some((number, LiveState::Serving)) => format!("; deployment {number} serves"),
        _ => "; nothing serves".to_owned(),
    };
    format!("deployment {} was undone: {why}{still}", row.number)
}

fn describe_live(live: Option<(u64, LiveState)>) -> (&'static str, Option<String>) {
    match live {
        Some((_, LiveState::Serving)) => ("deployed", None),
        Some((number, LiveState::Starting)) => (
            "deploying",
            Some(format!("deployment {number} is being started again")),
        ),
        Some((number, LiveState::Down(why))) => (
            "failed",
            Some(format!(
                "deployment {number} is down: {why}; it will be started again"
            )),
        ),
        Some((number, LiveState::Ended { why, well })) => (
            if well { "deployed" } else { "failed" },
            Some(format!(
                "deployment {number} has ended: {why}; it is not started again"
            )),
        ),
        None => ("failed", Some("nothing serves".to_owned())),
    }
}

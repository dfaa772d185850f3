//! A release that is kept running: its services, each with its keepers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use engines::Instance;
use futures_util::future::join_all;
use proxy::{Retired, Rule};

use super::kept::{Kept, KeptState, Running};
use super::release::{LiveState, ServiceNow, worst};
use crate::deployments::{Capsule, Service};
use crate::platform::App;
use crate::store::DeploymentRow;
use crate::tenant::Tenant;
use crate::traffic::Gets;

/// A release that is kept running until somebody takes it over. Services that it shares with another one are kept by one
/// of the two only.
pub(crate) struct Live {
    /// Its deployment.
    pub(crate) number: u64,
    /// The release.
    pub(crate) row: DeploymentRow,
    tenant: Arc<Tenant>,
    services: BTreeMap<String, Arc<Kept>>,
}

impl Live {
    /// The release of `row` with services that are kept already.
    pub(super) fn of(
        tenant: &Arc<Tenant>,
        row: DeploymentRow,
        services: impl IntoIterator<Item = Arc<Kept>>,
    ) -> Arc<Self> {
        let services = services.into_iter();
        Arc::new(Self {
            number: row.number,
            row,
            tenant: Arc::clone(tenant),
            services: services.map(|kept| (kept.name.clone(), kept)).collect(),
        })
    }

    /// Keeps services of the release of `row` running, each beginning with what runs of it.
    pub(super) fn keep(
        app: &App,
        tenant: &Arc<Tenant>,
        row: DeploymentRow,
        services: Vec<(String, Service, Running)>,
    ) -> Arc<Self> {
        let kept = services
            .into_iter()
            .map(|(name, service, running)| {
                Kept::keep(app, tenant, row.clone(), (name, service), running)
            })
            .collect::<Vec<_>>();
        Self::of(tenant, row, kept)
    }

    pub(crate) fn services(&self) -> impl Iterator<Item = &Arc<Kept>> {
        self.services.values()
    }

    /// One of its services, if it keeps it.
    pub(crate) fn service(&self, name: &str) -> Option<&Arc<Kept>> {
        self.services.get(name)
    }

    /// How it is.
    pub(crate) fn state(&self) -> LiveState {
        let services = self.services.values();
        let services = services.map(|kept| (kept.name.as_str(), kept.condition()));
        worst(&services.collect::<Vec<_>>(), self.row.capsule.is_single())
    }

    /// Its services, as they are.
    pub(crate) fn services_now(&self) -> Vec<ServiceNow> {
        let services = self.services.values().map(|kept| ServiceNow {
            name: kept.name.clone(),
            service: kept.service.clone(),
            deployment: kept.row.number,
            condition: kept.condition(),
        });
        services.collect()
    }

    /// Whether nothing of it is started any more.
    pub(super) fn is_over(&self) -> bool {
        let mut services = self.services.values();
        services.all(|kept| matches!(kept.state(), KeptState::Ended { .. }))
    }

    /// Names of the services that serve.
    pub(super) fn serving(&self) -> BTreeSet<String> {
        let serving = self.services.values();
        let serving = serving.filter(|kept| matches!(kept.state(), KeptState::Serving(_)));
        serving.map(|kept| kept.name.clone()).collect()
    }

    /// Whether so many instances of each of these services answer as they should, right now. What it does not keep itself, or
    /// does not start any more, is not asked.
    pub(super) async fn answers(&self, wanted: &BTreeMap<String, usize>) -> bool {
        let is_over = |kept: &&Arc<Kept>| matches!(kept.state(), KeptState::Ended { .. });
        let kept = self.services.values().filter(|kept| !is_over(kept));
        let asked = kept.filter_map(|kept| Some(kept.answers(*wanted.get(&kept.name)?)));
        join_all(asked).await.into_iter().all(|good| good)
    }

    /// Waits until so many instances of each of these services serve; false when that has not come true within `limit`.
    pub(super) async fn serves_within(
        &self,
        wanted: &BTreeMap<String, usize>,
        limit: Duration,
    ) -> bool {
        let kept = self.services.values();
        let waits =
            kept.filter_map(|kept| Some(kept.serves_within(*wanted.get(&kept.name)?, limit)));
        join_all(waits).await.into_iter().all(|good| good)
    }

    /// Takes all of the traffic, for whichever of its instances serve now and later. Services that somebody else keeps for it
    /// go on.
    pub(super) fn take_traffic(&self) -> Vec<Retired> {
        // No keeper names other instances in between.
        let held: BTreeMap<&String, _> = self
            .services
            .iter()
            .map(|(name, kept)| (name, (kept.row.number, kept.hold())))
            .collect();
        let names = self.row.capsule.services().into_keys();
        let gets = names.map(|name| {
            let gets = match held.get(&name) {
                Some((number, held)) => Gets::Deployment(*number, held.targets()),
                None => Gets::AsItIs,
            };
            (name, gets)
        });
        let retired = self
            .tenant
            .give_traffic(rules(&self.row.capsule), gets.collect());
        drop(held);
        // Somebody may wait for one of its services.
        self.tenant.changed();
        retired
    }

    /// Ends the keeping and hands the instances over. Their traffic stays as it is. The first caller gets them.
    pub(crate) async fn let_go(&self) -> Vec<Instance> {
        let all = join_all(self.services.values().map(|kept| kept.let_go())).await;
        all.into_iter().flatten().collect()
    }

    /// What it keeps and another one does not, if there is something.
    pub(super) fn without(&self, other: &Self) -> Option<Arc<Self>> {
        let is_own = |kept: &&Arc<Kept>| {
            let others = other.services.get(&kept.name);
            !others.is_some_and(|others| Arc::ptr_eq(kept, others))
        };
        let own: Vec<_> = self.services.values().filter(is_own).cloned().collect();
        (!own.is_empty()).then(|| Self::of(&self.tenant, self.row.clone(), own))
    }

    /// Numbers of the deployments that have started what it keeps.
    pub(crate) fn deployments(&self) -> BTreeSet<u64> {
        let kept = self.services.values();
        kept.map(|kept| kept.row.number).collect()
    }
}

/// The routes of a release.
pub(super) fn rules(capsule: &Capsule) -> Vec<Rule> {
    let services = capsule.services().into_iter();
    let rules = services.flat_map(|(name, service)| {
        let routes = service.routes.into_iter();
        routes.map(move |route| Rule {
            host: route.host,
            prefix: route.path,
            group: name.clone(),
        })
    });
    rules.collect()
}

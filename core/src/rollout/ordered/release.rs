//! The release of a tenant that an engine runs by order.

use std::collections::BTreeSet;
use std::sync::Arc;

use engines::orchestrator::{Counted, Over};

use super::super::release::{Condition, LiveState, ServiceNow, worst};
use super::sight::Sight;
use crate::store::DeploymentRow;

/// A release that somebody else keeps running. What is told of it was seen a moment ago.
pub(crate) struct Ordered {
    pub(crate) row: DeploymentRow,
    sight: Arc<Sight>,
}

impl Ordered {
    pub(super) fn new(row: DeploymentRow, sight: &Arc<Sight>) -> Self {
        Self {
            row,
            sight: Arc::clone(sight),
        }
    }

    pub(crate) fn state(&self) -> LiveState {
        let services = self.services_now();
        let services = services
            .iter()
            .map(|now| (now.name.as_str(), now.condition.clone()));
        worst(&services.collect::<Vec<_>>(), self.row.capsule.is_single())
    }

    pub(crate) fn services_now(&self) -> Vec<ServiceNow> {
        let observed = self.sight.observed();
        let missed = self.sight.missed();
        let services = self.row.capsule.services().into_iter();
        let now = services.map(|(name, service)| {
            let counted = observed.as_ref().and_then(|seen| seen.services.get(&name));
            let condition = match &missed {
                Some(why) => Condition::Down(format!("nothing is known of it: {why}")),
                None => counted.map_or(Condition::Starting, condition),
            };
            let deployment = counted.map(|counted| counted.deployment);
            ServiceNow {
                name,
                service,
                deployment: deployment.unwrap_or(self.row.number),
                condition,
            }
        });
        now.collect()
    }

    pub(crate) fn deployments(&self) -> BTreeSet<u64> {
        let services = self.services_now().into_iter();
        let started = services.map(|now| now.deployment);
        started.chain([self.row.number]).collect()
    }
}

fn condition(counted: &Counted) -> Condition {
    let reason = || counted.reason.clone();
    match counted.over {
        Some(over) => Condition::Ended {
            why: reason().unwrap_or_else(|| "all instances have ended".to_owned()),
            well: over == Over::Well,
        },
        None if !counted.ready.is_empty() => Condition::Serving(counted.ready.clone()),
        None => reason().map_or(Condition::Starting, Condition::Down),
    }
}

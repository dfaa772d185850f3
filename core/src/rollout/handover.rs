//! Volumes from one release to the next. No two instances have one at once: whoever had it is dead before the next one begins.
//!
//! Under every strategy this is the moment: what does not need the services that take volumes over is started and healthy by
//! then; those that had them are stopped, those that take them over are started and have to become healthy, and only then what
//! depends on these is started, and asked with them in place. Until then nothing is missing, and a failure costs nothing.
//! From then on a failure stops the new instances, and the old ones are started again. What the new ones have written stays.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use management_api::types::Protocol;

use super::failure;
use super::kept::{Kept, KeptState};
use super::run::{Part, Rollout, Stop};
use crate::deployments::Service;
use crate::die::die_if;
use crate::traffic::{self, Weight};

/// Between two questions to one that is to answer again.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// For tests: volumes have nobody at this moment.
const FREED: &str = "volumes-freed";

impl Rollout {
    /// Puts what takes volumes over, and all that depends on it, behind everything else. The order stays otherwise.
    pub(super) fn put_takers_last(&mut self) {
        let old = self.old.as_ref().map(|old| old.row.capsule.services());
        let lost = self.tenant.lost().map(|lost| lost.row.capsule.services());
        let before = old.into_iter().chain(lost).flatten();
        let before: Vec<Service> = before.map(|(_, service)| service).collect();
        for part in &mut self.parts {
            part.takes_over = before.iter().any(|old| shares(old, &part.service));
        }
        let late = self.takers_and_dependents();
        self.parts.sort_by_key(|part| late.contains(&part.name));
    }

    /// Services of the new release that take volumes over, and those that depend on one of these.
    fn takers_and_dependents(&self) -> BTreeSet<String> {
        let takers = self.parts.iter().filter(|part| part.takes_over);
        let mut found: BTreeSet<String> = takers.map(|part| part.name.clone()).collect();
        let capsule = &self.row.capsule;
        // Each is behind those that it depends on.
        for name in capsule.order() {
            let service = capsule.service(&name);
            if service.is_some_and(|service| !service.depends_on.is_disjoint(&found)) {
                found.insert(name);
            }
        }
        found
    }

    /// Those that still have a volume of a service that is to be started, dependents first.
    fn holders(&self) -> Vec<Arc<Kept>> {
        let old = self.old.clone().filter(|_| !self.old_let_go);
        let releases = old.into_iter().chain(self.tenant.lost());
        let mut holders = Vec::new();
        for release in releases {
            let names = release.row.capsule.order().into_iter().rev();
            let kept = names.filter_map(|name| release.service(&name).cloned());
            let wanted = |kept: &Arc<Kept>| {
                let is = |other: &Arc<Kept>| Arc::ptr_eq(kept, other);
                let has = |part: &Part| part.takes_over && shares(&kept.service, &part.service);
                self.parts.iter().any(has) && !self.handed_over.iter().any(is)
            };
            holders.extend(kept.filter(wanted));
        }
        holders
    }

    /// Stops those that have the volumes of a service that is to be started, for all such services at once.
    pub(super) async fn hand_over(&mut self) -> Result<(), Stop> {
        let holders = self.holders();
        if holders.is_empty() {
            return Ok(());
        }
        self.bounded(async {}).await?;
        for kept in holders {
            // From here on it has to come back when something fails.
            self.handed_over.push(Arc::clone(&kept));
            self.opened.insert(kept.name.clone());
            let name = BTreeSet::from([kept.name.clone()]);
            // Before the last one gets nothing any more.
            self.tenant.await_traffic(&name);
            let (instances, mut retired) = kept.shrink(kept.size()).await;
            retired.extend(self.tenant.stop_traffic(&name));
            // Connections of another kind than requests may have no end.
            if kept.service.protocol == Some(Protocol::Http)
                && let Err(stop) = self.bounded(self.drain(retired)).await
            {
                // It only finishes its requests yet, and serves on as soon as the traffic returns.
                kept.take_back(instances).await;
                self.handed_over.pop();
                return Err(stop);
            }
            self.app.stop_all(&instances).await;
            // Where there was no room beside it, it was taken away already, and may still finish its requests.
            self.have_left(&kept).await;
            tracing::info!(
                tenant = self.tenant.id,
                deployment = self.row.number,
                service = kept.name,
                "an instance has ended, for another one to take over its volumes"
            );
            let goes_on = |part: &Part| part.name == kept.name && part.new.len() > 0;
            if self.parts.iter().any(goes_on) {
                // Without the volume.
                self.open_inside(&kept.name);
            }
        }
        die_if(|wanted| wanted == FREED);
        Ok(())
    }

    /// What runs on and depends on a service that was replaced has lost it for a moment: it is asked as well.
    pub(super) async fn ask_dependents(&self) -> Result<(), Stop> {
        if self.handed_over.is_empty() {
            return Ok(());
        }
        let late = self.takers_and_dependents();
        let limit = self.app.settings.rollout.restore();
        let is_over = |kept: &&Arc<Kept>| matches!(kept.state(), KeptState::Ended { .. });
        let depends = |kept: &&Arc<Kept>| late.contains(&kept.name) && !is_over(kept);
        for kept in self.carried.iter().filter(depends) {
            let count = kept.kept();
            let asked = async {
                while !(kept.serves_within(count, limit).await && kept.answers(count).await) {
                    tokio::time::sleep(ASK_AGAIN).await;
                }
            };
            let asked = tokio::time::timeout(limit, asked);
            if self.bounded(asked).await?.is_err() {
                let what = "it runs on, and does not answer since a service that it depends on was replaced";
                let failure = failure::plain("unhealthy", format!("{}: {what}", kept.name));
                return Err(failure.into());
            }
        }
        Ok(())
    }

    /// The way back: new instances with volumes of the release before end, and the old ones are started again.
    pub(super) async fn hand_back(&mut self) {
        let back = std::mem::take(&mut self.handed_over);
        if back.is_empty() {
            return;
        }
        // Requests find the old ones as soon as they serve; those of the live release, where another one is lost.
        let turned = back.iter().rev().map(|kept| {
            let part = traffic::Part {
                number: kept.row.number,
                weight: Weight::Each,
                targets: Vec::new(),
            };
            (kept.name.clone(), vec![part])
        });
        let retired = self.tenant.split_traffic(turned.collect());
        let taken: Vec<Part> = self
            .parts
            .iter()
            .filter(|p| p.takes_over)
            .cloned()
            .collect();
        if taken
            .iter()
            .any(|part| part.service.protocol == Some(Protocol::Http))
        {
            self.drain(retired).await;
        }
        // Those that depend on others first.
        for part in taken.iter().rev() {
            self.app.stop_all(&part.new.take()).await;
        }
        for kept in back {
            kept.grow(kept.missing());
        }
    }
}

/// Whether both have one of the tenant's volumes.
fn shares(one: &Service, other: &Service) -> bool {
    let mut volumes = one.volumes.keys();
    volumes.any(|volume| other.volumes.contains_key(volume))
}

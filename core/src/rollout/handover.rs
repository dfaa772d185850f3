//! Volumes from one release to the next. No two instances have one at once: whoever had it is dead before the next one begins.
//!
//! Under every strategy this is the moment: what does not need the services that take volumes over is started and healthy by
//! then; those that had them are stopped, those that take them over are started and have to become healthy, and only then what
//! depends on these is started, and asked with them in place. Until then nothing is missing, and a failure costs nothing.
//! From then on a failure stops the new instances, and the old ones are started again. What the new ones have written stays.

use std::collections::BTreeSet;
use std::sync::Arc;

use management_api::types::Protocol;

use super::kept::Kept;
use super::run::{Part, Rollout, Stop};
use crate::deployments::Service;
use crate::die::die_if;
use crate::traffic::{self, Weight};

/// For tests: volumes have nobody at this moment.
const FREED: &str = "volumes-freed";

impl Rollout {
    /// Puts what takes volumes over, and all that depends on it, behind everything else. The order stays otherwise.
    pub(super) fn put_takers_last(&mut self) {
        let old = self.old.as_ref().map(|old| old.row.capsule.services());
        let lost = self.tenant.lost().map(|lost| lost.row.capsule.services());
        let before = old.into_iter().chain(lost).flatten();
        let before: Vec<Service> = before.map(|(_, service)| service).collect();
        let mut late = BTreeSet::new();
        // Each is behind those that it depends on.
        for part in &mut self.parts {
            part.takes_over = before.iter().any(|old| shares(old, &part.service));
            if part.takes_over || !part.service.depends_on.is_disjoint(&late) {
                late.insert(part.name.clone());
            }
        }
        self.parts.sort_by_key(|part| late.contains(&part.name));
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
            let (instances, mut retired) = kept.shrink(kept.size()).await;
            let name = BTreeSet::from([kept.name.clone()]);
            retired.extend(self.tenant.stop_traffic(&name));
            // Connections of another kind than requests may have no end.
            if kept.service.protocol == Some(Protocol::Http) {
                self.drain(retired).await;
            }
            self.app.stop_all(&instances).await;
            tracing::info!(
                tenant = self.tenant.id,
                deployment = self.row.number,
                service = kept.name,
                "an instance has ended, for another one to take over its volumes"
            );
            let goes_on = |part: &&Part| part.name == kept.name && part.new.len() > 0;
            if self.parts.iter().any(|part| goes_on(&part)) {
                // Without the volume.
                self.open_inside(&kept.name);
            }
        }
        die_if(|wanted| wanted == FREED);
        Ok(())
    }

    /// The way back: new instances with volumes of the release before end, and the old ones are started again.
    pub(super) async fn hand_back(&mut self) {
        let back = std::mem::take(&mut self.handed_over);
        if back.is_empty() {
            return;
        }
        // Requests find the old ones as soon as they serve.
        let turned = back.iter().map(|kept| {
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

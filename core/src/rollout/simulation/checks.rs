//! What must be true in a simulation of several services: at any moment, and when nothing moves any more.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::machine::{Behaviour, Program, ids};
use super::services::World;
use super::{TENANT, check_history};
use crate::deployments::{Capsule, Service, State, Strategy};
use crate::rollout::live::rules;
use crate::store::DeploymentRow;

impl World {
    /// What must be true at any moment.
    pub(super) fn look(&self) {
        let (live, lost, running, (rules_now, services)) = self.with(async |server| {
            let tenant = &server.tenant;
            let row = self.store.tenant(TENANT).await.unwrap();
            let live = row.and_then(|row| row.live);
            let lost = tenant
                .is_standing_in()
                .then(|| tenant.live().map(|live| live.number));
            (
                live,
                lost.flatten(),
                tenant.rollout(),
                tenant.public_traffic(),
            )
        });
        let told = || format!("live {live:?}, running {running:?}: {}", self.told());
        let named: BTreeSet<u64> = [live, lost, running].into_iter().flatten().collect();
        let releases: Vec<(u64, Capsule)> = named
            .into_iter()
            .filter_map(|number| Some((number, self.machine.release(number)?.0)))
            .collect();
        if services.is_empty() {
            return;
        }
        // Whether what a part of the traffic goes to is what a release has for that service.
        let is_of = |number: u64, service: &str, capsule: &Capsule| {
            let started = self.machine.release(number).map(|(capsule, _)| capsule);
            let started = started.and_then(|started| started.fingerprint_of(service));
            started.is_some() && started == capsule.fingerprint_of(service)
        };
        let whole = releases.iter().find(|(_, capsule)| {
            rules(capsule) == rules_now
                && services
                    .iter()
                    .all(|(name, parts)| parts.iter().any(|part| is_of(part.number, name, capsule)))
        });
        let Some((_, capsule)) = whole else {
            panic!(
                "traffic of several releases: {services:?}, {rules_now:?}, {}",
                told()
            );
        };
        for (name, parts) in &services {
            let others = parts
                .iter()
                .filter(|part| !is_of(part.number, name, capsule));
            let others: Vec<_> = others.collect();
            // A part of the traffic is for a release that is on its way.
            let is_tried = others.iter().all(|part| Some(part.number) == running);
            assert!(
                is_tried && parts.len() <= 2,
                "{name} of {parts:?}, {}",
                told()
            );
        }
        if self.unhurt && live.is_some() && lost.is_none() {
            let programs = self.machine.programs();
            for (name, service) in capsule.services() {
                let is_good = |digest: &str| {
                    matches!(Behaviour::of(digest), Behaviour::Good | Behaviour::Slow)
                };
                if !service.is_routed()
                    || !is_good(&service.digest)
                    || running.is_some_and(|n| !self.is_good(n))
                {
                    continue;
                }
                let parts = services.get(&name).into_iter().flatten();
                let mut targets = parts.flat_map(|part| &part.targets);
                let is_well = targets.any(|target| {
                    programs
                        .iter()
                        .any(|one| one.id == target.id && one.is_well())
                });
                assert!(
                    is_well,
                    "nobody answers for {name}: {services:?}, {}",
                    told()
                );
            }
        }
    }

    /// Whether everything of a release is good.
    pub(super) fn is_good(&self, number: u64) -> bool {
        let (capsule, _) = self.machine.release(number).unwrap();
        capsule.services().values().all(|service| {
            matches!(
                Behaviour::of(&service.digest),
                Behaviour::Good | Behaviour::Slow
            )
        })
    }

    pub(super) fn check_machine(&self) {
        let breaches = self.machine.breaches();
        assert!(breaches.is_empty(), "{breaches:?}, {}", self.told());
    }

    pub(super) fn check_at_rest(&mut self) {
        self.check_machine();
        let store = self.store.clone();
        let rows = self.with(async |_| store.deployments(TENANT, 1000).await.unwrap());
        let mut committed = None;
        for row in rows.iter().rev() {
            let events =
                self.with(async |_| store.events_after(TENANT, row.number, 0).await.unwrap());
            if events
                .iter()
                .any(|event| event.state == State::Verified.as_str())
            {
                committed = Some(row.number);
            }
        }
        let mut records = std::mem::take(&mut self.records);
        self.with(async |_| check_history(&store, None, committed, &mut records).await);
        self.records = records;
        let (live, standing_in) =
            self.with(async |server| (server.tenant.live(), server.tenant.is_standing_in()));
        if standing_in {
            return;
        }
        assert_eq!(
            live.as_ref().map(|live| live.number),
            committed,
            "{}",
            self.told()
        );
        let programs = self.machine.programs();
        let is_whole = live.as_ref().is_none_or(|live| self.is_good(live.number));
        self.check_before(
            rows.first(),
            live.as_ref().map(|live| &live.row.capsule),
            &programs,
        );
        self.unhurt = is_whole;
        if is_whole {
            self.machine.is_whole();
        }
        self.look();
    }

    /// Whether there are as many of each service as there are to be, each of what the release has for it, and nothing else.
    pub(super) fn is_whole(&self, capsule: &Capsule, programs: &[Arc<Program>]) -> bool {
        let is_of_it = |one: &Arc<Program>| {
            let (started, _) = self.machine.release(one.deployment).unwrap();
            let wanted = capsule.fingerprint_of(&one.service);
            wanted.is_some() && wanted == started.fingerprint_of(&one.service)
        };
        let mut services = capsule.services().into_iter();
        let is_complete = |(name, service): (String, Service)| {
            ids(programs, &name).len() == service.replicas as usize
        };
        programs.iter().all(is_of_it) && services.all(is_complete)
    }

    /// What has not changed is the very same as before; where a deployment failed that takes nothing away, that is everything.
    pub(super) fn check_before(
        &mut self,
        last: Option<&DeploymentRow>,
        live: Option<&Capsule>,
        programs: &[Arc<Program>],
    ) {
        let Some((before, last)) = self.before.take().zip(last) else {
            return;
        };
        assert_eq!(before.number, last.number);
        let Some(live) = live else { return };
        let old = before.live.and_then(|number| self.machine.release(number));
        let Some((old, _)) = old else { return };
        let is_same = |name: &str| match last.state {
            State::Succeeded => old.fingerprint_of(name) == live.fingerprint_of(name),
            _ => matches!(last.strategy, Strategy::BlueGreen | Strategy::Canary),
        };
        for (name, ids_before) in &before.instances {
            if is_same(name) && live.service(name).is_some() {
                assert_eq!(
                    *ids_before,
                    ids(programs, name),
                    "{name} is not the same: {}",
                    self.told()
                );
            }
        }
    }

    /// For whoever has to find out what went wrong.
    pub(super) fn told(&self) -> String {
        let store = self.store.clone();
        let rows = self.with(async |_| store.deployments(TENANT, 1000).await.unwrap());
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                format!(
                    "{} {} {:?} {:?}",
                    row.number, row.state, row.strategy, row.failure
                )
            })
            .collect();
        let programs = self.machine.programs();
        let programs: Vec<_> = programs
            .iter()
            .map(|one| format!("{} runs {} well {}", one.id, one.runs(), one.is_well()))
            .collect();
        let live = self.with(async |server| server.tenant.live_state());
        format!("{rows:#?} {programs:#?} {live:?}")
    }
}

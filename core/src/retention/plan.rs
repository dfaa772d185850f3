//! Which images go. Pure: what is there, and what is asked of it, are arguments.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use oci::{Digest, Holdings, Inventory, Manifests, Repository};

use crate::store::ReleaseUse;

/// What is kept.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// How many of a tenant's releases that have served, the newest first.
    pub(crate) releases_kept: usize,
    /// How long anything else, after it was pushed, asked about or deployed last.
    pub(crate) age_kept: Duration,
    /// How much in all, if there is a bound; what a rollback may need is kept beyond it.
    pub(crate) bytes_kept: Option<u64>,
    /// What somebody relied on within this time is kept whatever else is said.
    pub(crate) grace: Duration,
    /// How many manifests go at a time.
    pub(crate) at_once: usize,
}

/// What is to become of a store.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// The manifests that go.
    pub(crate) gone: Manifests,
    /// The releases whose images are among them.
    pub(crate) releases: Vec<ReleaseUse>,
    /// Ids of the releases that can be restored afterwards, or run.
    pub(crate) kept: Vec<i64>,
    /// Digests of the images of those.
    pub(crate) images: BTreeSet<String>,
    /// Whether more is to go than goes at a time.
    pub(crate) more: bool,
}

/// Decides.
pub(crate) fn plan(
    releases: Vec<ReleaseUse>,
    tenants: &BTreeSet<String>,
    inventory: &Inventory,
    rules: &Rules,
    now: DateTime<Utc>,
) -> Plan {
    let needed = needed(&releases, rules.releases_kept);
    let used = last_used(&releases, now);
    let mut plan = Plan::default();
    let mut spare = Vec::new();
    for (repository, holdings) in &inventory.repositories {
        let owner = repository.as_str();
        let roots = releases
            .iter()
            .filter(|release| needed.contains(&release.id) && release.tenant == owner)
            .filter_map(|release| release.digest.parse::<Digest>().ok());
        let mut kept = families(holdings, roots);
        // Nothing of a deleted tenant is started any more.
        let age_kept = if tenants.contains(owner) {
            rules.age_kept
        } else {
            Duration::ZERO
        };
        let age = |digest: &Digest| {
            let asked = holdings.manifests[digest].age;
            let deployed = used.get(&(owner, digest.to_string()));
            deployed.map_or(asked, |deployed| asked.min(*deployed))
        };
        let is_young = |digest: &&Digest| age(digest) <= age_kept.max(rules.grace);
        let mut rest: BTreeSet<Digest> = holdings.manifests.keys().copied().collect();
        rest.retain(|digest| !kept.contains(digest));
        let young = families(holdings, rest.iter().filter(is_young).copied());
        for digest in rest.difference(&young) {
            plan.take(repository, *digest, rules.at_once);
        }
        kept.extend(&young);
        // Those that nobody else who stays needs, and that nobody relies on at this moment.
        let droppable = young.iter().filter(|digest| rest.contains(digest));
        spare.extend(droppable.map(|digest| (age(digest), repository.clone(), *digest)));
    }
    keep_within(&mut plan, spare, inventory, rules);
    plan.settle(releases, &needed, inventory);
    plan
}

impl Plan {
    /// Adds a manifest to those that go, unless those are enough already.
    fn take(&mut self, repository: &Repository, digest: Digest, at_once: usize) -> bool {
        if self.gone.values().map(BTreeSet::len).sum::<usize>() >= at_once {
            self.more = true;
            return false;
        }
        self.gone
            .entry(repository.clone())
            .or_default()
            .insert(digest)
    }

    /// Tells the releases that go from those that stay.
    fn settle(&mut self, releases: Vec<ReleaseUse>, needed: &BTreeSet<i64>, inventory: &Inventory) {
        for release in releases {
            let place = release.tenant.parse::<Repository>().ok();
            let image = place.zip(release.digest.parse::<Digest>().ok());
            let is_there = image.as_ref().is_some_and(|(repository, digest)| {
                let holdings = inventory.repositories.get(repository);
                holdings.is_some_and(|holdings| holdings.manifests.contains_key(digest))
                    && inventory.contents.contains_key(digest)
            });
            let goes = image.is_some_and(|(repository, digest)| {
                let gone = self.gone.get(&repository);
                gone.is_some_and(|gone| gone.contains(&digest))
            });
            if needed.contains(&release.id) || (is_there && !goes) {
                self.kept.push(release.id);
                self.images.insert(release.digest);
            } else if goes {
                self.releases.push(release);
            }
        }
    }
}

/// Ids of the releases that serve, are being deployed, or that a rollback may restore.
fn needed(releases: &[ReleaseUse], releases_kept: usize) -> BTreeSet<i64> {
    let mut by_tenant: BTreeMap<&str, Vec<(u64, i64)>> = BTreeMap::new();
    for release in releases {
        if let Some(number) = release.served {
            by_tenant
                .entry(&release.tenant)
                .or_default()
                .push((number, release.id));
        }
    }
    let mut needed: BTreeSet<i64> = BTreeSet::new();
    for mut served in by_tenant.into_values() {
        served.sort_unstable_by(|a, b| b.cmp(a));
        needed.extend(served.iter().take(releases_kept).map(|(_, id)| id));
    }
    let in_use = releases
        .iter()
        .filter(|r| r.live || r.running || r.next_back);
    needed.extend(in_use.map(|release| release.id));
    needed
}

/// How long ago an image was deployed last.
fn last_used(releases: &[ReleaseUse], now: DateTime<Utc>) -> BTreeMap<(&str, String), Duration> {
    let mut used: BTreeMap<(&str, String), Duration> = BTreeMap::new();
    for release in releases {
        let past = now.signed_duration_since(release.used_at);
        let past = past.to_std().unwrap_or_default();
        used.entry((&release.tenant, release.digest.clone()))
            .and_modify(|known| *known = past.min(*known))
            .or_insert(past);
    }
    used
}

/// Manifests with all that belongs to them.
fn families(holdings: &Holdings, roots: impl Iterator<Item = Digest>) -> BTreeSet<Digest> {
    let mut found = BTreeSet::new();
    for root in roots {
        if !found.contains(&root) {
            found.extend(holdings.family(&root));
        }
    }
    found
}

/// Lets the oldest of what may go go, until the rest is within the bound.
fn keep_within(
    plan: &mut Plan,
    mut spare: Vec<(Duration, Repository, Digest)>,
    inventory: &Inventory,
    rules: &Rules,
) {
    let Some(bound) = rules.bytes_kept else {
        return;
    };
    spare.sort_by_key(|(age, ..)| Reverse(*age));
    let left = |plan: &Plan| {
        let surplus = inventory.without(&plan.gone, rules.grace);
        inventory.bytes().saturating_sub(surplus.bytes)
    };
    while left(plan) > bound {
        // A list goes before what it lists, an image before what is about it.
        let next = spare.iter().position(|(age, repository, digest)| {
            *age > rules.grace && !belongs_to_another(inventory, &spare, repository, digest)
        });
        let Some(next) = next else { return };
        let (_, repository, digest) = spare.remove(next);
        if !plan.take(&repository, digest, rules.at_once) {
            return;
        }
    }
}

fn belongs_to_another(
    inventory: &Inventory,
    spare: &[(Duration, Repository, Digest)],
    repository: &Repository,
    digest: &Digest,
) -> bool {
    let holdings = &inventory.repositories[repository];
    let subject = holdings.manifests[digest].subject;
    spare.iter().any(|(_, other_repository, other)| {
        other_repository == repository
            && other != digest
            && (subject == Some(*other) || holdings.manifests[other].names.contains(digest))
    })
}

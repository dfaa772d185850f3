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
            .flat_map(ReleaseUse::images)
            .filter_map(|digest| digest.parse::<Digest>().ok());
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
        // Where only some go, nothing that stays names one of them.
        let old = rest.difference(&young).copied().collect();
        for digest in holdings.in_order(&old) {
            plan.take(repository, digest, rules.at_once);
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
            let images = images_of(&release);
            let is_there = images
                .iter()
                .all(|(repository, digest)| inventory.is_whole(repository, digest));
            let goes = images.iter().any(|(repository, digest)| {
                let gone = self.gone.get(repository);
                gone.is_some_and(|gone| gone.contains(digest))
            });
            if needed.contains(&release.id) || (is_there && !images.is_empty() && !goes) {
                self.kept.push(release.id);
                self.images.extend(release.images().map(str::to_owned));
            } else if goes {
                self.releases.push(release);
            }
        }
    }
}

/// Those that can be named, with their place.
fn images_of(release: &ReleaseUse) -> Vec<(Repository, Digest)> {
    let Ok(repository) = release.tenant.parse::<Repository>() else {
        return Vec::new();
    };
    let digests = release.images().filter_map(|digest| digest.parse().ok());
    digests.map(|digest| (repository.clone(), digest)).collect()
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
        for digest in release.images() {
            used.entry((&release.tenant, digest.to_owned()))
                .and_modify(|known| *known = past.min(*known))
                .or_insert(past);
        }
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

#[cfg(test)]
mod tests {
    use oci::{Content, Manifest};

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);
    const DAYS: Duration = Duration::from_hours(48);

    /// A digest that is told apart by one letter.
    fn digest(letter: char) -> Digest {
        Digest::of(letter.to_string().as_bytes())
    }

    fn release(number: u64, letter: char) -> ReleaseUse {
        ReleaseUse {
            id: i64::try_from(number).unwrap(),
            tenant: "a".into(),
            digest: digest(letter).to_string(),
            others: BTreeSet::new(),
            secrets: BTreeMap::new(),
            newest: number,
            used_at: DateTime::UNIX_EPOCH,
            served: Some(number),
            running: false,
            live: false,
            next_back: false,
        }
    }

    /// Images of a tenant: a letter, its age and what it names. Everything has ten bytes and is old.
    fn inventory(owner: &str, images: &[(char, Duration, &str)]) -> Inventory {
        let mut inventory = Inventory::default();
        let mut holdings = Holdings::default();
        for (letter, age, names) in images {
            let manifest = Manifest {
                age: *age,
                names: names.chars().map(digest).collect(),
                lists: false,
                subject: None,
            };
            holdings.manifests.insert(digest(*letter), manifest);
            for letter in std::iter::once(*letter).chain(names.chars()) {
                let content = Content {
                    size: 10,
                    age: DAYS,
                };
                inventory.contents.insert(digest(letter), content);
            }
            let blobs = names.chars().map(|letter| (digest(letter), DAYS));
            holdings.blobs.extend(blobs);
        }
        inventory
            .repositories
            .insert(owner.parse().unwrap(), holdings);
        inventory
    }

    fn rules() -> Rules {
        Rules {
            releases_kept: 1,
            age_kept: HOUR,
            bytes_kept: None,
            grace: HOUR,
            at_once: 100,
        }
    }

    /// The letters of what goes.
    fn check(
        releases: &[ReleaseUse],
        inventory: &Inventory,
        rules: &Rules,
        expected: &str,
    ) -> Plan {
        let tenants = BTreeSet::from(["a".to_owned()]);
        let plan = plan(releases.to_vec(), &tenants, inventory, rules, Utc::now());
        let gone: BTreeSet<Digest> = plan.gone.values().flatten().copied().collect();
        assert_eq!(gone, expected.chars().map(digest).collect(), "{expected}");
        plan
    }

    #[test]
    fn the_newest_that_have_served_stay_whatever_failed_after_them() {
        let mut failed = release(3, 'c');
        failed.served = None;
        let releases = [release(1, 'a'), release(2, 'b'), failed];
        let images = [('a', DAYS, "x"), ('b', DAYS, "x"), ('c', DAYS, "x")];
        let plan = check(&releases, &inventory("a", &images), &rules(), "ac");
        assert_eq!(plan.kept, [2]);
        assert_eq!(plan.releases.len(), 2);
    }

    #[test]
    fn what_serves_runs_or_is_next_back_stays() {
        let mut releases = [
            release(1, 'a'),
            release(2, 'b'),
            release(3, 'c'),
            release(4, 'd'),
        ];
        releases[0].live = true;
        releases[1].running = true;
        releases[2].next_back = true;
        let images = [
            ('a', DAYS, ""),
            ('b', DAYS, ""),
            ('c', DAYS, ""),
            ('d', DAYS, ""),
        ];
        let plan = check(&releases, &inventory("a", &images), &rules(), "");
        assert_eq!(plan.kept, [1, 2, 3, 4]);
    }

    #[test]
    fn what_is_young_stays_with_all_that_it_lists() {
        let images = [
            ('i', Duration::ZERO, "ab"),
            ('a', DAYS, "x"),
            ('b', DAYS, "x"),
            ('c', DAYS, "x"),
        ];
        check(&[], &inventory("a", &images), &rules(), "c");
    }

    #[test]
    fn nothing_of_a_tenant_that_is_not_there_any_more_stays_longer_than_a_push() {
        let rules = Rules {
            age_kept: 10 * DAYS,
            ..rules()
        };
        let images = [('a', DAYS, ""), ('b', HOUR / 2, "")];
        check(&[], &inventory("b", &images), &rules, "a");
        check(&[], &inventory("a", &images), &rules, "");
    }

    #[test]
    fn beyond_the_bound_the_oldest_go_but_nothing_that_a_rollback_needs() {
        let images = [
            ('a', 4 * DAYS, "x"),
            ('b', 3 * DAYS, "yz"),
            ('c', 2 * DAYS, "x"),
            ('d', HOUR / 2, "x"),
        ];
        let inventory = inventory("a", &images);
        assert_eq!(inventory.bytes(), 70);
        // The layer of the oldest is everybody's.
        for (bytes_kept, expected) in [(70, ""), (60, "a"), (59, "ab"), (0, "abc")] {
            let rules = Rules {
                age_kept: 10 * DAYS,
                bytes_kept: Some(bytes_kept),
                ..rules()
            };
            check(&[], &inventory, &rules, expected);
            let kept = expected.replace('b', "");
            let kept = if expected == "ab" {
                "ac".to_owned()
            } else {
                kept
            };
            check(&[release(1, 'b')], &inventory, &rules, &kept);
        }
    }

    #[test]
    fn a_list_goes_before_what_it_lists() {
        let images = [('a', 4 * DAYS, "x"), ('i', 2 * DAYS, "a")];
        let rules = Rules {
            age_kept: 10 * DAYS,
            bytes_kept: Some(20),
            ..rules()
        };
        check(&[], &inventory("a", &images), &rules, "i");
    }

    #[test]
    fn whatever_goes_first_a_list_that_stays_has_what_it_lists() {
        // Both orders of digests among them.
        let images = [
            ('i', DAYS, "ab"),
            ('j', DAYS, "bc"),
            ('a', DAYS, "x"),
            ('b', DAYS, "y"),
            ('c', DAYS, "z"),
        ];
        let inventory = inventory("a", &images);
        let tenants = BTreeSet::from(["a".to_owned()]);
        for at_once in 0..=images.len() {
            let rules = Rules { at_once, ..rules() };
            let plan = plan(Vec::new(), &tenants, &inventory, &rules, Utc::now());
            let gone: BTreeSet<Digest> = plan.gone.values().flatten().copied().collect();
            assert_eq!(gone.len(), at_once);
            for (list, parts) in [('i', "ab"), ('j', "bc")] {
                let stays = !gone.contains(&digest(list));
                assert!(
                    !stays || parts.chars().all(|part| !gone.contains(&digest(part))),
                    "{at_once}"
                );
            }
        }
    }

    #[test]
    fn a_release_of_a_list_without_its_image_is_not_kept() {
        let releases = [release(1, 'i'), release(2, 'n')];
        let rules = Rules {
            age_kept: 10 * DAYS,
            ..rules()
        };
        let mut inventory = inventory("a", &[('i', DAYS, "b"), ('b', DAYS, "x"), ('n', DAYS, "")]);
        let plan_of = |inventory: &Inventory| check(&releases, inventory, &rules, "").kept;
        assert_eq!(plan_of(&inventory), [1, 2]);
        let holdings = inventory.repositories.values_mut().next().unwrap();
        holdings.manifests.remove(&digest('b'));
        holdings.blobs.remove(&digest('b'));
        assert_eq!(plan_of(&inventory), [2]);
    }

    #[test]
    fn only_so_many_go_at_a_time() {
        let images = [('a', DAYS, ""), ('b', DAYS, ""), ('c', DAYS, "")];
        let rules = Rules {
            at_once: 2,
            ..rules()
        };
        let tenants = BTreeSet::from(["a".to_owned()]);
        let plan = plan(
            Vec::new(),
            &tenants,
            &inventory("a", &images),
            &rules,
            Utc::now(),
        );
        assert_eq!(plan.gone.values().map(BTreeSet::len).sum::<usize>(), 2);
        assert!(plan.more);
    }
}

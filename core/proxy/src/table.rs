//! Which instances there are, and which one gets the next request.
//!
//! Choosing an instance and counting the request in are one critical section, and so is replacing
//! the split. So once [`Table::direct`] has returned, the count of an instance that it retired can
//! only fall: a drain cannot miss a request that had chosen the instance and was not yet counted.
//!
//! That lock is taken by every request, so everything else is kept out of it: what is new is built
//! before, what is old is freed after, and readings go by the list of instances, which has a lock
//! of its own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};

use crate::failure::Failure;
use crate::route::{Flight, Retired, Route, Target};
use crate::rules::{Asked, Rule, Rules};
use crate::settings::Settings;
use crate::split::{Group, Share, Split};
use crate::stats::Counters;

/// The instances of a proxy.
#[derive(Debug)]
pub(crate) struct Table {
    /// Taken before `ways` and held while they are replaced, so that the two agree.
    listed: Mutex<Vec<Listed>>,
    ways: Mutex<Ways>,
    counters: Arc<Counters>,
    /// Tells those that wait for an instance that there may be one.
    directed: watch::Sender<()>,
    /// How many more may wait.
    room: Semaphore,
}

/// Which group a request is for, and whose turn it is there.
#[derive(Debug, Default)]
struct Ways {
    rules: Rules,
    groups: Vec<Way>,
}

#[derive(Debug)]
struct Way {
    group: Arc<str>,
    split: Split,
    awaited: bool,
}

/// Where a request goes.
#[derive(Debug)]
pub(crate) enum Choice {
    Instance(Flight),
    /// To an instance that is on its way: see [`Table::wait`].
    Awaited,
}

impl Ways {
    fn group(&mut self, name: &str) -> Option<&mut Way> {
        self.groups.iter_mut().find(|way| *way.group == *name)
    }
}

/// An instance of some share.
#[derive(Debug)]
struct Listed {
    route: Arc<Route>,
    /// Whether one of its shares has a weight.
    serves: bool,
}

impl Table {
    pub(crate) fn new(counters: Arc<Counters>, settings: &Settings) -> Self {
        Self {
            listed: Mutex::default(),
            ways: Mutex::default(),
            counters,
            directed: watch::Sender::new(()),
            room: Semaphore::new(settings.max_waiting),
        }
    }

    /// Chooses an instance and counts a request in on it, whose head had come at `began`.
    pub(crate) fn choose(&self, began: Instant, asked: Asked<'_>) -> Result<Choice, Failure> {
        let mut ways = lock(&self.ways);
        let Ways { rules, groups } = &mut *ways;
        if rules.is_empty() {
            return Err(Failure::NoRelease);
        }
        let name = rules.find(asked).ok_or(Failure::NoRoute)?;
        let way = groups.iter_mut().find(|way| *way.group == *name);
        // The lock is held until it is counted.
        self.take(way, began)
    }

    /// [`Table::choose`] once there is an instance for the request, which begins only then. Where it goes is asked anew each
    /// time: what has come may have other routes than what was there before.
    pub(crate) async fn wait(&self, asked: Asked<'_>, limit: Duration) -> Result<Flight, Failure> {
        let room = self.room.try_acquire();
        let _place = room.map_err(|_| Failure::NoRelease)?;
        let _waiting = self.counters.waits();
        let mut directed = self.directed.subscribe();
        let come = async {
            loop {
                if let Choice::Instance(flight) = self.choose(Instant::now(), asked)? {
                    return Ok(flight);
                }
                // The sender is here.
                let _ = directed.changed().await;
            }
        };
        let come = tokio::time::timeout(limit, come).await;
        come.unwrap_or(Err(Failure::NoRelease))
    }

    fn take(&self, way: Option<&mut Way>, began: Instant) -> Result<Choice, Failure> {
        let way = way.ok_or(Failure::NoRelease)?;
        let group = Arc::clone(&way.group);
        match way.split.next() {
            Some(route) => {
                let counters = Arc::clone(&self.counters);
                Ok(Choice::Instance(Flight::begin(
                    route, group, counters, began,
                )))
            }
            None if way.awaited => Ok(Choice::Awaited),
            None => Err(Failure::NoRelease),
        }
    }

    /// Chooses once more for a request that has failed, on another instance if there is one.
    pub(crate) fn choose_again(&self, failed: Flight) -> Option<Flight> {
        let (failed_on, group) = (Arc::clone(failed.route()), Arc::clone(failed.group()));
        drop(failed);
        let mut ways = lock(&self.ways);
        let route = ways.group(&group)?.split.next_after(&failed_on)?;
        Some(Flight::begin(
            route,
            group,
            Arc::clone(&self.counters),
            Instant::now(),
        ))
    }

    /// Replaces groups and rules; every later [`Table::choose`] goes by the new ones. Returns the
    /// instances that are in no share any more.
    pub(crate) fn direct(
        &self,
        groups: &[Group],
        rules: &[Rule],
        settings: &Settings,
    ) -> Vec<Retired> {
        let rules = Rules::of(rules.to_vec());
        let mut listed = lock(&self.listed);
        let mut next = Vec::new();
        let groups = groups.iter().map(|group| Way {
            group: Arc::from(group.name.as_str()),
            split: split_of(&group.shares, &mut next, &listed, settings),
            awaited: group.awaited,
        });
        let groups = groups.collect();
        drop(self.replace(Ways { rules, groups }));
        self.directed.send_replace(());
        std::mem::replace(&mut *listed, next)
            .into_iter()
            .map(|entry| entry.route)
            .filter(|route| find(&listed, route.target()).is_none())
            .map(Route::retire)
            .collect()
    }

    /// Drops connections of all instances that nobody uses.
    pub(crate) fn expire(&self) {
        for entry in lock(&self.listed).iter() {
            entry.route.expire();
        }
    }

    /// What `read` says of each instance that gets requests.
    pub(crate) fn serving<T>(&self, read: impl Fn(&Route) -> T) -> Vec<T> {
        let listed = lock(&self.listed);
        let serving = listed.iter().filter(|entry| entry.serves);
        serving.map(|entry| read(&entry.route)).collect()
    }

    fn replace(&self, mut next: Ways) -> Ways {
        let mut ways = lock(&self.ways);
        for way in &mut next.groups {
            if let Some(before) = ways.group(&way.group) {
                way.split.resume(&before.split);
            }
        }
        std::mem::replace(&mut *ways, next)
    }
}

fn split_of(
    shares: &[Share],
    next: &mut Vec<Listed>,
    previous: &[Listed],
    settings: &Settings,
) -> Split {
    let mut split = Split::default();
    for share in shares {
        let mut routes = Vec::with_capacity(share.targets.len());
        for target in &share.targets {
            let route = enlist(next, previous, target, share.weight > 0, settings);
            if !routes.iter().any(|other| Arc::ptr_eq(other, &route)) {
                routes.push(route);
            }
        }
        split.add(routes, share.weight);
    }
    split
}

/// Puts `target` on the list `next`: as what it is there already, else as what it was on the list
/// `previous`, else as new.
fn enlist(
    next: &mut Vec<Listed>,
    previous: &[Listed],
    target: &Target,
    serves: bool,
    settings: &Settings,
) -> Arc<Route> {
    if let Some(index) = find(next, target) {
        let entry = &mut next[index];
        entry.serves |= serves;
        return Arc::clone(&entry.route);
    }
    let route = match find(previous, target) {
        Some(index) => Arc::clone(&previous[index].route),
        None => Arc::new(Route::new(target.clone(), settings)),
    };
    next.push(Listed {
        route: Arc::clone(&route),
        serves,
    });
    route
}

fn find(listed: &[Listed], target: &Target) -> Option<usize> {
    listed
        .iter()
        .position(|entry| entry.route.target() == target)
}

/// Nothing that is done under these locks panics, so a poisoned one holds nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;

    fn table() -> Table {
        Table::new(Arc::new(Counters::default()), &Settings::default())
    }

    fn target(id: &str) -> Target {
        Target {
            id: id.to_owned(),
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
        }
    }

    fn share(ids: &[&str], weight: u32) -> Share {
        Share {
            targets: ids.iter().map(|id| target(id)).collect(),
            weight,
        }
    }

    fn direct(table: &Table, shares: &[Share]) -> Vec<Retired> {
        table.direct(
            &[Group::only(shares)],
            &[Group::all()],
            &Settings::default(),
        )
    }

    fn chosen(table: &Table) -> Option<Flight> {
        match table.choose(Instant::now(), Asked::NOTHING) {
            Ok(Choice::Instance(flight)) => Some(flight),
            _ => None,
        }
    }

    fn choose(table: &Table) -> Flight {
        chosen(table).expect("an instance")
    }

    fn serving(table: &Table) -> Vec<String> {
        table.serving(|route| route.target().id.clone())
    }

    fn ids<'a>(flights: impl IntoIterator<Item = &'a Flight>) -> Vec<&'a str> {
        let flights = flights.into_iter();
        flights.map(|flight| flight.target().id.as_str()).collect()
    }

    #[test]
    fn a_request_counts_on_the_instance_it_chose() {
        let table = table();
        assert!(chosen(&table).is_none(), "nothing to choose yet");
        assert!(direct(&table, &[share(&["one"], 1)]).is_empty());
        let first = choose(&table);
        let retired = direct(&table, &[share(&["two"], 1)]);
        let second = choose(&table);
        assert_eq!(ids([&first, &second]), ["one", "two"]);
        assert_eq!(retired.len(), 1);
        assert_eq!(retired[0].in_flight(), 1);
        drop(first);
        assert_eq!(retired[0].in_flight(), 0);
        assert_eq!(table.counters.read().in_flight, 1);
    }

    #[tokio::test]
    async fn a_drain_ends_with_the_last_request_and_not_before() {
        let table = table();
        assert!(direct(&table, &[share(&["one"], 1)]).is_empty());
        let flights: Vec<_> = (0..3).map(|_| choose(&table)).collect();
        let retired = direct(&table, &[]).pop().expect("the first");
        assert!(!retired.drained(Duration::from_millis(5)).await);
        let drain = tokio::spawn(async move { retired.drained(Duration::from_secs(5)).await });
        drop(flights);
        assert!(drain.await.expect("no panic"));
    }

    #[test]
    fn idle_instances_take_turns_and_busy_ones_wait() {
        let table = table();
        direct(&table, &[share(&["one", "two", "three"], 1)]);
        let turns: Vec<_> = (0..6).map(|_| choose(&table).target().id.clone()).collect();
        assert_eq!(turns, ["one", "two", "three", "one", "two", "three"]);
        let slow = [choose(&table), choose(&table)];
        assert_eq!(ids(&slow), ["one", "two"]);
        for _ in 0..3 {
            assert_eq!(ids([&choose(&table)]), ["three"]);
        }
        let third = choose(&table);
        let [first, _] = slow;
        drop(first);
        assert_eq!(ids([&third, &choose(&table)]), ["three", "one"]);
    }

    #[test]
    fn an_instance_that_stays_keeps_its_requests() {
        let table = table();
        direct(&table, &[share(&["one"], 1), share(&["two"], 1)]);
        let flight = choose(&table);
        assert_eq!(ids([&flight]), ["one"]);
        // It moves to the other share and the other one goes.
        let retired = direct(&table, &[share(&["one", "three"], 9)]);
        assert_eq!(retired.len(), 1);
        assert_eq!(retired[0].target().id, "two");
        let next = choose(&table);
        assert_eq!(ids([&next]), ["three"], "the other one is still busy");
        let retired = direct(&table, &[]);
        let counts: Vec<_> = retired.iter().map(Retired::in_flight).collect();
        assert_eq!(counts, [1, 1]);
    }

    #[test]
    fn a_share_without_weight_is_kept_and_gets_nothing() {
        let table = table();
        direct(&table, &[share(&["old"], 1)]);
        let flight = choose(&table);
        let before = Arc::clone(flight.route());
        assert!(direct(&table, &[share(&["old"], 0), share(&["new"], 1)]).is_empty());
        assert_eq!(serving(&table), ["new"]);
        assert_eq!(ids([&choose(&table), &choose(&table)]), ["new", "new"]);
        assert_eq!(direct(&table, &[share(&["old"], 0)]).len(), 1);
        assert!(chosen(&table).is_none());
        assert!(direct(&table, &[share(&["old"], 2)]).is_empty());
        assert!(Arc::ptr_eq(choose(&table).route(), &before));
    }

    #[test]
    fn an_instance_that_is_named_twice_is_one() {
        let table = table();
        let shares = [
            share(&["one", "one", "two"], 1),
            share(&["one"], 0),
            share(&["two"], 1),
        ];
        direct(&table, &shares);
        assert_eq!(serving(&table), ["one", "two"]);
        let flights: Vec<_> = (0..4).map(|_| choose(&table)).collect();
        assert_eq!(ids(&flights), ["one", "two", "two", "two"]);
        assert_eq!(direct(&table, &[]).len(), 2);
    }

    #[test]
    fn a_retired_instance_that_comes_back_is_a_new_one() {
        let table = table();
        direct(&table, &[share(&["one"], 1)]);
        let flight = choose(&table);
        let retired = direct(&table, &[]).pop().expect("the instance");
        direct(&table, &[share(&["one"], 1)]);
        let second = choose(&table);
        assert!(!Arc::ptr_eq(flight.route(), second.route()));
        assert_eq!(retired.in_flight(), 1);
        drop(flight);
        assert_eq!((retired.in_flight(), second.route().in_flight()), (0, 1));
    }

    #[test]
    fn a_second_attempt_counts_on_the_other_instance_only() {
        let table = table();
        direct(&table, &[share(&["one", "two"], 1)]);
        let first = choose(&table);
        let second = table.choose_again(first).expect("the other");
        assert_eq!(ids([&second]), ["two"]);
        let counts = table.serving(Route::in_flight);
        assert_eq!(counts, [0, 1]);
        direct(&table, &[]);
        assert!(table.choose_again(second).is_none());
        assert_eq!(table.counters.read().in_flight, 0);
    }
}

//! Whose turn it is: among the shares by weight, within a share by what its instances have to do.
//!
//! Shares take turns by smooth weighted round robin, as in nginx: every share gets its weight in
//! credit, the one with the most credit is chosen and pays the sum of all weights. No chance is
//! involved, so among any `sum / gcd` requests in a row each share gets exactly its part, and
//! those of a small share are spread evenly over the others.
//!
//! Nothing here counts requests or waits for anything: the table does, and holds its lock
//! around each of these calls.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::route::{Route, Target};
use crate::rules::Rule;

/// A group of instances and the part of the traffic that it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Instances that may stand in for each other. One named twice is still one.
    pub targets: Vec<Target>,
    /// Its part is this of the sum of all weights that get something. With 0 the instances stay
    /// listed, keep connections and measures, and get nothing.
    pub weight: u32,
}

/// Shares among which the requests of some [`Rule`]s are divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// What rules call it.
    pub name: String,
    /// Who shares its requests.
    pub shares: Vec<Share>,
    /// Whether an instance is on its way. As long as there is none, requests wait for it instead of being answered 503:
    /// as long as they would for an answer, and only so many at a time.
    pub awaited: bool,
}

impl Group {
    /// The one group of a proxy whose requests all go the same way.
    pub(crate) fn only(shares: &[Share]) -> Self {
        Self {
            name: String::new(),
            shares: shares.to_vec(),
            awaited: false,
        }
    }

    /// The rule that gives everything to [`Group::only`].
    pub(crate) fn all() -> Rule {
        Rule {
            host: None,
            prefix: "/".to_owned(),
            group: String::new(),
        }
    }
}

/// The shares that get requests, and whose turn it is.
#[derive(Debug, Default)]
pub(crate) struct Split {
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    /// Never empty.
    routes: Vec<Arc<Route>>,
    /// Never 0. Signed and wide, so that the sum of any number of weights fits beside it.
    weight: i64,
    credit: i64,
    /// Who is asked first when several have equally little to do.
    turn: usize,
}

impl Split {
    /// Adds a share; one that can get nothing is left out.
    pub(crate) fn add(&mut self, routes: Vec<Arc<Route>>, weight: u32) {
        if weight > 0 && !routes.is_empty() {
            self.parts.push(Part {
                routes,
                weight: i64::from(weight),
                credit: 0,
                turn: 0,
            });
        }
    }

    /// Goes on where `previous` was if the weights are the same. Instances that come and go would
    /// otherwise start the round anew each time, and a share of one in a hundred never get there.
    pub(crate) fn resume(&mut self, previous: &Self) {
        let weights = self.parts.iter().map(|part| part.weight);
        if !weights.eq(previous.parts.iter().map(|part| part.weight)) {
            return;
        }
        for (part, before) in self.parts.iter_mut().zip(&previous.parts) {
            part.credit = before.credit;
            part.turn = before.turn;
        }
    }

    /// The instance for the next request.
    pub(crate) fn next(&mut self) -> Option<Arc<Route>> {
        let mut total = 0;
        for part in &mut self.parts {
            part.credit += part.weight;
            total += part.weight;
        }
        // The first of several with the most.
        let part = self
            .parts
            .iter_mut()
            .min_by_key(|part| Reverse(part.credit))?;
        part.credit -= total;
        part.least_busy(None)
    }

    /// The instance for a request that has failed on `failed`: another one of the same share,
    /// else another one of the largest share that has one, else the same one. It takes nobody's
    /// turn, so failures do not shift the parts of the shares.
    ///
    /// If `failed` gets nothing any more, the request is like a new one.
    pub(crate) fn next_after(&mut self, failed: &Arc<Route>) -> Option<Arc<Route>> {
        if !self.parts.iter().any(|part| part.has(failed)) {
            return self.next();
        }
        self.parts
            .iter_mut()
            .filter(|part| part.has_other_than(failed))
            .min_by_key(|part| Reverse((part.has(failed), part.weight)))
            .map_or_else(
                || Some(Arc::clone(failed)),
                |part| part.least_busy(Some(failed)),
            )
    }
}

impl Part {
    fn has(&self, route: &Arc<Route>) -> bool {
        self.routes.iter().any(|other| Arc::ptr_eq(other, route))
    }

    fn has_other_than(&self, route: &Arc<Route>) -> bool {
        self.routes.iter().any(|other| !Arc::ptr_eq(other, route))
    }

    /// The instance with the fewest requests in flight, in turn if several have that few.
    fn least_busy(&mut self, except: Option<&Arc<Route>>) -> Option<Arc<Route>> {
        let count = self.routes.len();
        let index = (0..count)
            .map(|step| (self.turn + step) % count)
            .filter(|&index| !except.is_some_and(|not| Arc::ptr_eq(not, &self.routes[index])))
            .min_by_key(|&index| self.routes[index].in_flight())?;
        self.turn = index + 1;
        Some(Arc::clone(&self.routes[index]))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use crate::settings::Settings;

    use super::*;

    fn route(id: impl Into<String>) -> Arc<Route> {
        let target = Target {
            id: id.into(),
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
        };
        Arc::new(Route::new(target, &Settings::default()))
    }

    /// A share with one instance, called by its position, for each weight.
    fn split(weights: &[u32]) -> Split {
        let mut split = Split::default();
        for (index, weight) in weights.iter().enumerate() {
            split.add(vec![route(index.to_string())], *weight);
        }
        split
    }

    /// The positions of the shares that the next `count` requests go to.
    fn next(split: &mut Split, count: usize) -> Vec<usize> {
        std::iter::repeat_with(|| split.next().expect("an instance"))
            .map(|route| route.target().id.parse().expect("a position"))
            .take(count)
            .collect()
    }

    fn gcd(one: usize, other: usize) -> usize {
        if other == 0 {
            one
        } else {
            gcd(other, one % other)
        }
    }

    /// Among all requests in a row that are as many as the reduced weights, every share has its part.
    fn assert_exact(sequence: &[usize], weights: &[u32]) {
        let weights: Vec<_> = weights.iter().map(|weight| *weight as usize).collect();
        let divisor = weights.iter().copied().fold(0, gcd);
        let round = weights.iter().sum::<usize>() / divisor;
        assert!(sequence.len() >= round, "{weights:?} needs a longer look");
        for window in sequence.windows(round) {
            for (share, weight) in weights.iter().enumerate() {
                let got = window.iter().filter(|other| **other == share).count();
                assert_eq!(got, weight / divisor, "share {share} of {weights:?}");
            }
        }
    }

    #[test]
    fn any_round_of_requests_is_divided_exactly_by_weight() {
        for weights in [
            &[1][..],
            &[1, 1],
            &[1, 99],
            &[99, 1],
            &[5, 95],
            &[50, 950],
            &[100, 100, 100],
            &[5, 1, 1],
            &[7, 11, 13, 17],
            &[0, 3, 0, 9],
            &[1, 2, 4, 8, 16, 32, 64],
        ] {
            let sequence = next(&mut split(weights), 1500);
            assert_exact(&sequence, weights);
        }
    }

    #[test]
    fn a_share_is_spread_over_the_round() {
        assert_eq!(next(&mut split(&[5, 1, 1]), 7), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(next(&mut split(&[1, 3]), 8), [1, 0, 1, 1, 1, 0, 1, 1]);
    }

    #[test]
    fn the_largest_weights_are_divided_too() {
        let sequence = next(&mut split(&[u32::MAX, u32::MAX, u32::MAX]), 9);
        assert_exact(&sequence, &[u32::MAX, u32::MAX, u32::MAX]);
    }

    #[test]
    fn other_weights_hold_from_the_request_after_the_change() {
        let mut before = split(&[1, 99]);
        next(&mut before, 37);
        // Credit of large weights would be many rounds of small ones.
        for weights in [&[1, 1][..], &[5, 95], &[3, 1], &[50, 50], &[1, 1, 98], &[7]] {
            let mut after = split(weights);
            after.resume(&before);
            assert_exact(&next(&mut after, 250), weights);
            next(&mut after, 13);
            before = after;
        }
    }

    #[test]
    fn the_same_weights_go_on_where_they_were() {
        let mut current = split(&[1, 99]);
        let mut sequence = Vec::new();
        // Instances are replaced more often than the small share has its turn.
        for _ in 0..50 {
            sequence.extend(next(&mut current, 7));
            let mut replaced = split(&[1, 99]);
            replaced.resume(&current);
            current = replaced;
        }
        assert_exact(&sequence, &[1, 99]);
    }

    #[test]
    fn shares_that_can_get_nothing_are_passed_over() {
        assert!(Split::default().next().is_none());
        assert!(split(&[0, 0]).next().is_none());
        let mut split = split(&[0]);
        split.add(Vec::new(), 7);
        assert!(split.next().is_none());
        split.add(vec![route("2")], 1);
        assert_eq!(next(&mut split, 3), [2, 2, 2]);
    }

    #[test]
    fn a_second_attempt_stays_in_its_share_if_it_can() {
        let [dead, alive, large, small] = ["0", "1", "2", "3"].map(route);
        let mut split = Split::default();
        split.add(vec![Arc::clone(&small)], 1);
        split.add(vec![Arc::clone(&dead), Arc::clone(&alive)], 3);
        split.add(vec![Arc::clone(&large)], 6);
        let after = |split: &mut Split, failed| {
            let next = split.next_after(failed).expect("an instance");
            next.target().id.clone()
        };
        for _ in 0..5 {
            assert_eq!(after(&mut split, &dead), "1");
        }
        assert_eq!(after(&mut split, &small), "2", "the largest other share");
        assert_eq!(after(&mut split, &large), "0", "the largest other share");
        let stranger = route("4");
        assert_ne!(after(&mut split, &stranger), "4");
    }

    #[test]
    fn a_second_attempt_goes_back_when_there_is_nobody_else() {
        let only = route("0");
        let mut split = Split::default();
        split.add(vec![Arc::clone(&only)], 1);
        let again = split.next_after(&only).expect("an instance");
        assert!(Arc::ptr_eq(&again, &only));
        assert!(Split::default().next_after(&only).is_none());
    }

    #[test]
    fn second_attempts_do_not_shift_the_parts() {
        let mut split = split(&[5, 95]);
        let mut sequence = Vec::new();
        for _ in 0..300 {
            sequence.extend(next(&mut split, 1));
            let failed = split.next().expect("an instance");
            sequence.push(failed.target().id.parse().expect("a position"));
            split.next_after(&failed).expect("another instance");
        }
        assert_exact(&sequence, &[5, 95]);
    }
}

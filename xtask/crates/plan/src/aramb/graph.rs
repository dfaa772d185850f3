//! Who takes what from whom, and the order that follows.
//!
//! Images and values have to be there before they are used: such edges are strict. The URLs of services are known to a
//! control plane before they run, so services may name each other's in a circle; where they do not, they are ordered by
//! them too. Everything here grows with the number of services and references, not with their product.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::ops::Range;

use super::{ArambFile, Id, OutputName, Reference, Service, Target, references};

/// What a service takes from another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EdgeKind {
    /// The image that a build makes.
    Image,
    /// A variable or a secret.
    Value,
    /// An address.
    Url,
}

impl EdgeKind {
    /// Whether what is taken has to be there before.
    #[must_use]
    pub fn is_strict(self) -> bool {
        self != Self::Url
    }
}

/// A service that takes something from another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Position of the service that takes it.
    pub from: usize,
    /// Position of the service that it is taken from.
    pub to: usize,
    /// What it is.
    pub kind: EdgeKind,
    /// The text in the file that the reference stands in.
    pub span: Range<usize>,
}

/// Services that take something from each other in a circle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cycle {
    /// Positions, by their numbers.
    pub services: Vec<usize>,
    /// Whether there is a circle of strict edges alone: then there is no order.
    pub is_strict: bool,
    /// The text of one reference of the circle.
    pub span: Range<usize>,
}

/// The services of a file with what they take from each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graph {
    /// Each pair of services once for each kind, in the order of the file.
    pub edges: Vec<Edge>,
    /// The circles.
    pub cycles: Vec<Cycle>,
    /// Positions of all services, each behind what it takes strictly and, but for circles, behind those whose URLs it
    /// takes; otherwise builds before databases before backends before frontends, and lower numbers first. Empty if a
    /// strict circle leaves no order.
    pub order: Vec<usize>,
}

impl Graph {
    /// The graph of a file. References to services that are not there are left out: the reader complains about them.
    #[must_use]
    pub fn of(file: &ArambFile) -> Self {
        let edges = edges(file);
        let circles = Components::of(file.services.len(), &edges, |_| true);
        let strict = Components::of(file.services.len(), &edges, |edge| edge.kind.is_strict());
        let cycles = cycles(file, &edges, &circles, &strict);
        let order = if cycles.iter().any(|cycle| cycle.is_strict) {
            Vec::new()
        } else {
            order(file, &edges, &circles)
        };
        Self {
            edges,
            cycles,
            order,
        }
    }
}

/// Positions by number; of several with one number the first.
pub(super) fn positions(services: &[Service]) -> HashMap<Id, usize> {
    let mut positions = HashMap::with_capacity(services.len());
    for (position, service) in services.iter().enumerate() {
        positions.entry(service.id).or_insert(position);
    }
    positions
}

fn edges(file: &ArambFile) -> Vec<Edge> {
    let positions = positions(&file.services);
    let mut edges = Vec::new();
    for (from, service) in file.services.iter().enumerate() {
        let before = edges.len();
        for value in service.values() {
            for reference in references(&value.text).flatten() {
                let Some(&to) = positions.get(&reference.service) else {
                    continue;
                };
                let kind = kind(&reference);
                // A service may well read its own variables and its own address.
                if to == from && kind != EdgeKind::Image {
                    continue;
                }
                edges.push(Edge {
                    from,
                    to,
                    kind,
                    span: value.span.clone(),
                });
            }
        }
        edges[before..].sort_by_key(|edge: &Edge| (edge.to, edge.kind, edge.span.start));
        let mut last = None;
        let mut kept = before;
        for at in before..edges.len() {
            let key = Some((edges[at].to, edges[at].kind));
            if key != last {
                last = key;
                edges.swap(kept, at);
                kept += 1;
            }
        }
        edges.truncate(kept);
    }
    edges
}

fn kind(reference: &Reference) -> EdgeKind {
    match reference.target {
        Target::Output(OutputName::ImageUrl) => EdgeKind::Image,
        Target::Output(OutputName::PublicUrl | OutputName::InternalUrl) => EdgeKind::Url,
        Target::Var(_) | Target::Secret(_) => EdgeKind::Value,
    }
}

/// The services in circles: those that can reach each other have the same component.
struct Components {
    of: Vec<usize>,
    count: usize,
}

impl Components {
    /// Tarjan's algorithm, on a stack of its own: files may be long chains.
    fn of(count: usize, edges: &[Edge], counts: impl Fn(&Edge) -> bool) -> Self {
        let next = neighbours(count, edges, |edge| {
            counts(edge).then_some((edge.from, edge.to))
        });
        let mut walk = Walk {
            index: vec![None; count],
            low: vec![0; count],
            is_open: vec![false; count],
            open: Vec::new(),
            found: Self {
                of: vec![0; count],
                count: 0,
            },
            visited: 0,
        };
        for start in 0..count {
            if walk.index[start].is_none() {
                walk.from(start, &next);
            }
        }
        walk.found
    }

    fn same(&self, one: usize, other: usize) -> bool {
        self.of[one] == self.of[other]
    }
}

struct Walk {
    index: Vec<Option<usize>>,
    low: Vec<usize>,
    is_open: Vec<bool>,
    open: Vec<usize>,
    found: Components,
    visited: usize,
}

impl Walk {
    fn from(&mut self, start: usize, next: &[Vec<usize>]) {
        let mut path = vec![(start, 0)];
        self.enter(start);
        while let Some((node, tried)) = path.last_mut() {
            let node = *node;
            if let Some(&to) = next[node].get(*tried) {
                *tried += 1;
                match self.index[to] {
                    None => {
                        self.enter(to);
                        path.push((to, 0));
                    }
                    Some(index) if self.is_open[to] => {
                        self.low[node] = self.low[node].min(index);
                    }
                    Some(_) => {}
                }
                continue;
            }
            path.pop();
            if let Some((parent, _)) = path.last() {
                self.low[*parent] = self.low[*parent].min(self.low[node]);
            }
            if self.index[node] == Some(self.low[node]) {
                self.close(node);
            }
        }
    }

    fn enter(&mut self, node: usize) {
        self.index[node] = Some(self.visited);
        self.low[node] = self.visited;
        self.visited += 1;
        self.is_open[node] = true;
        self.open.push(node);
    }

    fn close(&mut self, node: usize) {
        while let Some(member) = self.open.pop() {
            self.is_open[member] = false;
            self.found.of[member] = self.found.count;
            if member == node {
                break;
            }
        }
        self.found.count += 1;
    }
}

fn neighbours(
    count: usize,
    edges: &[Edge],
    pair: impl Fn(&Edge) -> Option<(usize, usize)>,
) -> Vec<Vec<usize>> {
    let mut next = vec![Vec::new(); count];
    for (from, to) in edges.iter().filter_map(pair) {
        next[from].push(to);
    }
    next
}

fn cycles(
    file: &ArambFile,
    edges: &[Edge],
    circles: &Components,
    strict: &Components,
) -> Vec<Cycle> {
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); circles.count];
    for position in 0..file.services.len() {
        members[circles.of[position]].push(position);
    }
    // For each component the first reference inside of it, and the first one of a strict circle.
    let mut inside: Vec<Option<&Edge>> = vec![None; circles.count];
    let mut strictly: Vec<Option<&Edge>> = vec![None; circles.count];
    for edge in edges.iter().filter(|edge| circles.same(edge.from, edge.to)) {
        let component = circles.of[edge.from];
        inside[component].get_or_insert(edge);
        if edge.kind.is_strict() && strict.same(edge.from, edge.to) {
            strictly[component].get_or_insert(edge);
        }
    }
    let mut cycles = Vec::new();
    for ((mut services, first), strict) in members.into_iter().zip(inside).zip(strictly) {
        if let Some(edge) = strict.or(first) {
            services.sort_by_key(|position| file.services[*position].id);
            cycles.push(Cycle {
                services,
                is_strict: strict.is_some(),
                span: edge.span.clone(),
            });
        }
    }
    cycles.sort_by_key(|cycle| cycle.span.start);
    cycles
}

/// Kahn's algorithm; among those that are free the one that [`rank`] puts first.
fn order(file: &ArambFile, edges: &[Edge], circles: &Components) -> Vec<usize> {
    let count = file.services.len();
    let orders = |edge: &Edge| edge.kind.is_strict() || !circles.same(edge.from, edge.to);
    let dependents = neighbours(count, edges, |edge| {
        orders(edge).then_some((edge.to, edge.from))
    });
    let mut waits_for = vec![0; count];
    for edge in edges.iter().filter(|edge| orders(edge)) {
        waits_for[edge.from] += 1;
    }
    let rank = |position: usize| {
        let service = &file.services[position];
        Reverse((service.kind.rank(), service.id, position))
    };
    let mut free: BinaryHeap<_> = (0..count)
        .filter(|position| waits_for[*position] == 0)
        .map(rank)
        .collect();
    let mut order = Vec::with_capacity(count);
    while let Some(Reverse((_, _, position))) = free.pop() {
        order.push(position);
        for &dependent in &dependents[position] {
            waits_for[dependent] -= 1;
            if waits_for[dependent] == 0 {
                free.push(rank(dependent));
            }
        }
    }
    order
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::{ServiceType, Value, Variable};
    use super::*;

    /// A service that says these texts in its variables.
    pub(in super::super) fn service(id: Id, kind: ServiceType, says: &[&str]) -> Service {
        let variables = says.iter().enumerate().map(|(number, text)| Variable {
            key: format!("V{number}"),
            value: Value {
                text: (*text).to_owned(),
                span: number..number + 1,
            },
        });
        Service {
            id,
            name: format!("{}-{id}", kind.name()),
            kind,
            span: 0..0,
            slug: None,
            settings: super::super::ServiceSettings::default(),
            vars: variables.collect(),
            secrets: Vec::new(),
        }
    }

    pub(in super::super) fn file(services: Vec<Service>) -> ArambFile {
        ArambFile {
            application: None,
            services,
        }
    }

    fn ids(file: &ArambFile, positions: &[usize]) -> Vec<Id> {
        positions
            .iter()
            .map(|position| file.services[*position].id)
            .collect()
    }

    #[test]
    fn a_service_comes_behind_what_it_takes() {
        use ServiceType::{Backend, Build, Frontend, Postgres};
        let file = file(vec![
            service(200, Frontend, &["${102.outputs.PUBLIC_URL}"]),
            service(
                102,
                Backend,
                &[
                    "x ${101.outputs.IMAGE_URL}",
                    "${103.outputs.PRIVATE_URL} ${103.vars.V0}",
                ],
            ),
            service(103, Postgres, &["db"]),
            service(101, Build, &[]),
            service(
                100,
                Backend,
                &[
                    "${102.outputs.INTERNAL_URL}",
                    "${100.vars.V0}",
                    "${999.vars.X}",
                ],
            ),
        ]);
        let graph = Graph::of(&file);
        assert_eq!(ids(&file, &graph.order), [101, 103, 102, 100, 200]);
        assert_eq!(graph.cycles, []);
        let kinds: Vec<_> = graph
            .edges
            .iter()
            .map(|edge| {
                (
                    file.services[edge.from].id,
                    file.services[edge.to].id,
                    edge.kind,
                )
            })
            .collect();
        assert_eq!(
            kinds,
            [
                (200, 102, EdgeKind::Url),
                (102, 103, EdgeKind::Value),
                (102, 103, EdgeKind::Url),
                (102, 101, EdgeKind::Image),
                (100, 102, EdgeKind::Url),
            ]
        );
    }

    #[test]
    fn urls_may_go_in_a_circle_and_the_rest_keeps_its_order() {
        use ServiceType::{Backend, Frontend, Postgres};
        let file = file(vec![
            service(103, Frontend, &["${101.outputs.PUBLIC_URL}"]),
            service(102, Frontend, &["${101.outputs.PUBLIC_URL}"]),
            service(
                101,
                Backend,
                &[
                    "${102.outputs.PUBLIC_URL},${103.outputs.PUBLIC_URL}",
                    "${100.outputs.PRIVATE_URL}",
                ],
            ),
            service(100, Postgres, &[]),
        ]);
        let graph = Graph::of(&file);
        assert_eq!(ids(&file, &graph.order), [100, 101, 102, 103]);
        let [cycle] = &graph.cycles[..] else {
            panic!("{:?}", graph.cycles)
        };
        assert!(!cycle.is_strict);
        assert_eq!(ids(&file, &cycle.services), [101, 102, 103]);
    }

    #[test]
    fn images_and_values_in_a_circle_leave_no_order() {
        use ServiceType::{Backend, Build};
        for (one, other) in [
            ("${101.outputs.IMAGE_URL}", "${100.outputs.IMAGE_URL}"),
            ("${101.vars.V0}", "${100.vars.V0}"),
            ("${100.outputs.IMAGE_URL}", ""),
        ] {
            let file = file(vec![
                service(100, Build, &[one]),
                service(101, Backend, &[other]),
            ]);
            let graph = Graph::of(&file);
            assert!(graph.cycles.iter().all(|cycle| cycle.is_strict), "{one}");
            assert_eq!((graph.cycles.len(), graph.order.len()), (1, 0), "{one}");
        }
        // One of the two directions can wait.
        let file = file(vec![
            service(100, Backend, &["${101.vars.V0}"]),
            service(101, Backend, &["${100.outputs.PUBLIC_URL}"]),
        ]);
        let graph = Graph::of(&file);
        assert!(!graph.cycles[0].is_strict);
        assert_eq!(ids(&file, &graph.order), [101, 100]);
    }

    #[test]
    fn a_long_chain_is_no_trouble() {
        let count = 20_000;
        let services = (0..count).map(|number| {
            let takes = format!("${{{}.outputs.INTERNAL_URL}}", FIRST + number + 1);
            service(FIRST + number, ServiceType::Backend, &[&takes])
        });
        let file = file(services.collect());
        let graph = Graph::of(&file);
        assert_eq!(
            graph.order.first(),
            Some(&(usize::try_from(count).unwrap() - 1))
        );
        assert_eq!(graph.order.len(), file.services.len());
    }

    const FIRST: Id = super::super::FIRST_ID;
}

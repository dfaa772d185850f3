//! Which services of a file are deployed, and what they need besides.

use std::collections::{BTreeSet, HashMap};

use super::{ArambFile, EdgeKind, Graph, ServiceType};

/// What was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Wanted {
    /// Everything that runs.
    #[default]
    All,
    /// These services and no others.
    Services(Vec<String>),
    /// These backends, and the databases that they take something from.
    Backends(Vec<String>),
}

/// What is deployed, by position in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// The services: databases, then backends, then frontends, each behind what it takes.
    pub services: Vec<usize>,
    /// The builds of their images, in an order in which they can be built.
    pub builds: Vec<usize>,
    /// Services that are not deployed and whose addresses those above take.
    pub needed: Vec<usize>,
    /// Nothing was left out.
    pub is_everything: bool,
}

/// What was asked for is not in the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// No service is called so.
    #[error("there is no service `{0}`")]
    Unknown(String),
    /// It is not run.
    #[error("`{0}` is a build, which does not run: name the services that run its image")]
    Build(String),
    /// `--backend-services` names another type.
    #[error("`{0}` is of type {kind}, not a backend: name it with --services", kind = .1.name())]
    NoBackend(String, ServiceType),
    /// There is nothing to deploy.
    #[error("the file has no service that runs")]
    Nothing,
}

/// Finds what is deployed, or everything that is wrong with what was asked for.
///
/// # Errors
///
/// For each name that the file does not have, or has for something else.
pub fn select(
    file: &ArambFile,
    graph: &Graph,
    wanted: &Wanted,
) -> Result<Selection, Vec<SelectError>> {
    let running: BTreeSet<usize> = (0..file.services.len())
        .filter(|position| file.services[*position].kind != ServiceType::Build)
        .collect();
    if running.is_empty() {
        return Err(vec![SelectError::Nothing]);
    }
    let taken = Taken::of(graph);
    let chosen = match wanted {
        Wanted::All => running.clone(),
        Wanted::Services(names) => named(file, names, false)?,
        Wanted::Backends(names) => {
            let backends = named(file, names, true)?;
            let databases = taken
                .by_all(&backends)
                .into_iter()
                .filter(|position| file.services[*position].kind.is_database());
            backends.iter().copied().chain(databases).collect()
        }
    };
    let mut services: Vec<usize> = in_order(graph, &chosen).collect();
    // Stable: within a rank the order of the graph stays.
    services.sort_by_key(|position| file.services[*position].kind.rank());
    let builds = taken.images_of(&chosen);
    let needed = taken.urls_of(&chosen);
    Ok(Selection {
        builds: in_order(graph, &builds).collect(),
        needed: in_order(graph, &(&needed - &chosen)).collect(),
        is_everything: chosen == running,
        services,
    })
}

fn in_order<'a>(graph: &'a Graph, some: &'a BTreeSet<usize>) -> impl Iterator<Item = usize> + 'a {
    let order = graph.order.iter().copied();
    order.filter(|position| some.contains(position))
}

fn named(
    file: &ArambFile,
    names: &[String],
    backends: bool,
) -> Result<BTreeSet<usize>, Vec<SelectError>> {
    let positions: HashMap<&str, usize> = file
        .services
        .iter()
        .enumerate()
        .map(|(position, service)| (service.name.as_str(), position))
        .collect();
    let mut chosen = BTreeSet::new();
    let mut wrong = Vec::new();
    for name in names {
        let Some(&position) = positions.get(name.as_str()) else {
            wrong.push(SelectError::Unknown(name.clone()));
            continue;
        };
        match file.services[position].kind {
            ServiceType::Build => wrong.push(SelectError::Build(name.clone())),
            kind if backends && kind != ServiceType::Backend => {
                wrong.push(SelectError::NoBackend(name.clone(), kind));
            }
            _ => _ = chosen.insert(position),
        }
    }
    if wrong.is_empty() {
        Ok(chosen)
    } else {
        Err(wrong)
    }
}

/// Who takes something from whom, each way looked at once.
struct Taken {
    images: HashMap<usize, Vec<usize>>,
    urls: HashMap<usize, Vec<usize>>,
    all: HashMap<usize, Vec<usize>>,
}

impl Taken {
    fn of(graph: &Graph) -> Self {
        let mut taken = Self {
            images: HashMap::new(),
            urls: HashMap::new(),
            all: HashMap::new(),
        };
        for edge in &graph.edges {
            taken.all.entry(edge.from).or_default().push(edge.to);
            match edge.kind {
                EdgeKind::Image => taken.images.entry(edge.from).or_default().push(edge.to),
                EdgeKind::Url => taken.urls.entry(edge.from).or_default().push(edge.to),
                EdgeKind::Value => {}
            }
        }
        taken
    }

    /// The builds of these services, and the builds that those take an image of.
    fn images_of(&self, services: &BTreeSet<usize>) -> BTreeSet<usize> {
        reached(&self.images, services)
    }

    /// Addresses are taken once they are known: those that a neighbour takes are its own concern.
    fn urls_of(&self, services: &BTreeSet<usize>) -> BTreeSet<usize> {
        let taken = services.iter().filter_map(|from| self.urls.get(from));
        taken.flatten().copied().collect()
    }

    fn by_all(&self, services: &BTreeSet<usize>) -> BTreeSet<usize> {
        reached(&self.all, services)
    }
}

/// Everything that is reached from these, on one edge or several.
fn reached(edges: &HashMap<usize, Vec<usize>>, from: &BTreeSet<usize>) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut open: Vec<usize> = from.iter().copied().collect();
    while let Some(position) = open.pop() {
        for &next in edges.get(&position).into_iter().flatten() {
            if found.insert(next) {
                open.push(next);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::graph::tests::{file, service};
    use super::*;

    fn shop() -> ArambFile {
        use ServiceType::{Backend, Build, Frontend, Postgres, Redis};
        let mut file = file(vec![
            service(110, Frontend, &["${104.outputs.PUBLIC_URL}"]),
            service(
                104,
                Backend,
                &["${102.outputs.IMAGE_URL}", "${100.outputs.INTERNAL_URL}"],
            ),
            service(
                105,
                Backend,
                &["${103.outputs.IMAGE_URL}", "${104.outputs.INTERNAL_URL}"],
            ),
            service(103, Build, &["${102.outputs.IMAGE_URL}"]),
            service(102, Build, &[]),
            service(106, Build, &[]),
            service(101, Redis, &[]),
            service(100, Postgres, &[]),
        ]);
        for service in &mut file.services {
            service.name = format!("s{}", service.id);
        }
        file
    }

    fn check(wanted: &Wanted, expected: &str) {
        let file = shop();
        let names = |positions: &[usize]| {
            let names: Vec<_> = positions
                .iter()
                .map(|position| file.services[*position].name.as_str())
                .collect();
            names.join(" ")
        };
        let found = match select(&file, &Graph::of(&file), wanted) {
            Ok(found) => format!(
                "{} | {} | {}{}",
                names(&found.services),
                names(&found.builds),
                names(&found.needed),
                if found.is_everything { " all" } else { "" },
            ),
            Err(wrong) => {
                let wrong: Vec<_> = wrong.iter().map(ToString::to_string).collect();
                wrong.join("; ")
            }
        };
        assert_eq!(found, expected, "{wanted:?}");
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn databases_come_first_and_builds_are_those_that_are_needed() {
        check(&Wanted::All, "s100 s101 s104 s105 s110 | s102 s103 |  all");
        let services = |some: &[&str]| Wanted::Services(names(some));
        check(&services(&["s104", "s100"]), "s100 s104 | s102 | ");
        check(&services(&["s105"]), "s105 | s102 s103 | s104");
        check(&services(&["s110"]), "s110 |  | s104");
        let backends = |some: &[&str]| Wanted::Backends(names(some));
        check(&backends(&["s105"]), "s100 s105 | s102 s103 | s104");
        check(
            &backends(&["s104", "s105"]),
            "s100 s104 s105 | s102 s103 | ",
        );
    }

    #[test]
    fn all_that_is_not_there_is_told() {
        check(
            &Wanted::Services(names(&["s1", "s104", "s102"])),
            "there is no service `s1`; `s102` is a build, which does not run: name the services that run its image",
        );
        check(
            &Wanted::Backends(names(&["s110"])),
            "`s110` is of type frontend, not a backend: name it with --services",
        );
        let only_builds = file(vec![service(100, ServiceType::Build, &[])]);
        let found = select(&only_builds, &Graph::of(&only_builds), &Wanted::All);
        assert_eq!(found, Err(vec![SelectError::Nothing]));
    }
}

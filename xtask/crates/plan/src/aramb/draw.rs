//! The graph in writing.

use std::fmt::Write as _;

use super::{ArambFile, Edge, EdgeKind, Graph, Service};

/// The services in their order, a line each, with what they take from whom; then the circles.
#[must_use]
pub fn text(file: &ArambFile, graph: &Graph) -> String {
    let services = &file.services;
    let width = |of: fn(&Service) -> usize| services.iter().map(of).max().unwrap_or_default();
    let numbers = width(|service| service.id.to_string().len());
    let names = width(|service| service.name.chars().count());
    let kinds = width(|service| service.kind.name().len());
    let taken = taken(services.len(), graph);
    let mut out = String::new();
    for position in shown(file, graph) {
        let service = &services[position];
        let from: Vec<_> = taken[position]
            .iter()
            .map(|edge| format!("{} of {}", what(edge.kind), services[edge.to].name))
            .collect();
        let line = format!(
            "{:>numbers$}  {:names$}  {:kinds$}  {}",
            service.id,
            service.name,
            service.kind.name(),
            from.join(", ")
        );
        // Writing to a text cannot fail.
        let _ = writeln!(out, "{}", line.trim_end());
    }
    for cycle in &graph.cycles {
        let names: Vec<_> = cycle
            .services
            .iter()
            .map(|position| services[*position].name.as_str())
            .collect();
        let means = if cycle.is_strict {
            "there is no order in which they can be made"
        } else {
            "their URLs are known before they run, so this can be deployed"
        };
        let _ = writeln!(out, "circle: {}; {means}", names.join(", "));
    }
    out
}

/// The graph for a Mermaid block in Markdown; an arrow goes from a service to what it takes something from.
#[must_use]
pub fn mermaid(file: &ArambFile, graph: &Graph) -> String {
    let mut out = "flowchart LR\n".to_owned();
    for position in shown(file, graph) {
        let service = &file.services[position];
        let (open, close) = match service.kind {
            kind if kind.is_database() => ("[(", ")]"),
            super::ServiceType::Build => ("[[", "]]"),
            _ => ("[", "]"),
        };
        let (name, kind) = (quoted(&service.name), service.kind.name());
        let _ = writeln!(out, "  s{}{open}\"{name}<br/>{kind}\"{close}", service.id);
    }
    for edge in &graph.edges {
        let (from, to) = (&file.services[edge.from], &file.services[edge.to]);
        let arrow = if edge.kind.is_strict() { "-->" } else { "-.->" };
        let _ = writeln!(
            out,
            "  s{} {arrow}|{}| s{}",
            from.id,
            what(edge.kind),
            to.id
        );
    }
    out
}

/// The order, or that of the file if there is none.
pub(super) fn shown(file: &ArambFile, graph: &Graph) -> Vec<usize> {
    if graph.order.is_empty() {
        (0..file.services.len()).collect()
    } else {
        graph.order.clone()
    }
}

/// What is taken, for people.
pub(super) fn what(kind: EdgeKind) -> &'static str {
    match kind {
        EdgeKind::Image => "image",
        EdgeKind::Value => "variables",
        EdgeKind::Url => "URL",
    }
}

fn taken(count: usize, graph: &Graph) -> Vec<Vec<&Edge>> {
    let mut taken = vec![Vec::new(); count];
    for edge in &graph.edges {
        taken[edge.from].push(edge);
    }
    taken
}

/// Mermaid has no escapes inside of quotes, but entities.
fn quoted(text: &str) -> String {
    text.replace('#', "#35;")
        .replace('"', "#quot;")
        .replace('<', "#lt;")
        .replace('>', "#gt;")
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::ServiceType::{Backend, Build, Frontend, Postgres};
    use super::super::graph::tests::{file, service};
    use super::*;

    pub(in super::super) fn shop() -> ArambFile {
        let mut shop = file(vec![
            service(103, Frontend, &["${102.outputs.PUBLIC_URL}"]),
            service(
                102,
                Backend,
                &[
                    "${101.outputs.IMAGE_URL}",
                    "${103.outputs.PUBLIC_URL}",
                    "${100.outputs.INTERNAL_URL} ${100.vars.V0}",
                ],
            ),
            service(101, Build, &[]),
            service(100, Postgres, &["x"]),
        ]);
        shop.services[0].name = "web \"<&>\" é".to_owned();
        shop
    }

    #[test]
    fn lines_are_in_the_order() {
        let shop = shop();
        let expected = "\
101  build-101     build
100  postgres-100  postgres
102  backend-102   backend   URL of web \"<&>\" é, image of build-101, variables of postgres-100, URL of postgres-100
103  web \"<&>\" é   frontend  URL of backend-102
circle: backend-102, web \"<&>\" é; their URLs are known before they run, so this can be deployed
";
        assert_eq!(text(&shop, &Graph::of(&shop)), expected);
    }

    #[test]
    fn mermaid_shows_what_is_strict() {
        let shop = shop();
        let expected = "\
flowchart LR
  s101[[\"build-101<br/>build\"]]
  s100[(\"postgres-100<br/>postgres\")]
  s102[\"backend-102<br/>backend\"]
  s103[\"web #quot;#lt;&#gt;#quot; é<br/>frontend\"]
  s103 -.->|URL| s102
  s102 -.->|URL| s103
  s102 -->|image| s101
  s102 -->|variables| s100
  s102 -.->|URL| s100
";
        assert_eq!(mermaid(&shop, &Graph::of(&shop)), expected);
    }
}

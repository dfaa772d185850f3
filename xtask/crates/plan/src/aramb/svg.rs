//! The graph as a picture: what is needed by others stands to the left of them.

use std::cmp::Ordering;
use std::fmt::Write as _;

use super::draw::{shown, what};
use super::{ArambFile, Edge, EdgeKind, Graph, ServiceType};

const WIDTH: usize = 190;
const HEIGHT: usize = 46;
const GAP_X: usize = 110;
const GAP_Y: usize = 22;
const MARGIN: usize = 24;
const LEGEND: usize = 44;
/// Longer names are cut: a box is as wide as all others.
const NAME: usize = 24;

/// The graph as one SVG document, which needs nothing else.
#[must_use]
pub fn svg(file: &ArambFile, graph: &Graph) -> String {
    let places = places(file, graph);
    let columns = places
        .iter()
        .map(|(column, _)| column + 1)
        .max()
        .unwrap_or(1);
    let rows = places.iter().map(|(_, row)| row + 1).max().unwrap_or(1);
    // Behind the last column there is room for arrows that go around.
    let width = 2 * MARGIN + columns * (WIDTH + GAP_X) - GAP_X / 2;
    let height = 2 * MARGIN + rows * (HEIGHT + GAP_Y) - GAP_Y + LEGEND;
    let width = width.max(3 * 130 + 2 * MARGIN);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"ui-sans-serif, system-ui, sans-serif\" font-size=\"13\" role=\"img\" aria-label=\"services and what they take from each other\">\n\
         <defs><marker id=\"end\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerUnits=\"userSpaceOnUse\" markerWidth=\"9\" markerHeight=\"9\" orient=\"auto-start-reverse\">\
         <path d=\"M0 0 L8 4 L0 8 Z\" fill=\"#57606a\"/></marker></defs>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    for edge in &graph.edges {
        arrow(&mut out, edge, places[edge.from], places[edge.to]);
    }
    for (service, place) in file.services.iter().zip(&places) {
        let (x, y) = corner(*place);
        let (fill, line) = colours(service.kind);
        let name = escaped(&cut(&service.name));
        let middle = x + WIDTH / 2;
        // Writing to a text cannot fail.
        let _ = writeln!(
            out,
            "<g><title>{} {}</title><rect x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"7\" fill=\"{fill}\" stroke=\"{line}\"/>\
             <text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\" fill=\"#1f2328\">{name}</text>\
             <text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\" font-size=\"11\" fill=\"#57606a\">{} · {}</text></g>",
            service.id,
            escaped(&service.name),
            y + 20,
            y + 36,
            service.kind.name(),
            service.id
        );
    }
    legend(&mut out, height);
    out.push_str("</svg>\n");
    out
}

/// Column and row of each service: one column further than anything that it takes, circles aside.
fn places(file: &ArambFile, graph: &Graph) -> Vec<(usize, usize)> {
    let count = file.services.len();
    let mut taken: Vec<Vec<usize>> = vec![Vec::new(); count];
    for edge in &graph.edges {
        taken[edge.from].push(edge.to);
    }
    let mut places: Vec<Option<(usize, usize)>> = vec![None; count];
    let mut rows: Vec<usize> = Vec::new();
    for position in shown(file, graph) {
        // What comes later in the order is taken in a circle.
        let before = taken[position].iter().filter_map(|to| places[*to]);
        let column = before.map(|(column, _)| column + 1).max().unwrap_or(0);
        if rows.len() <= column {
            rows.resize(column + 1, 0);
        }
        places[position] = Some((column, rows[column]));
        rows[column] += 1;
    }
    places.into_iter().map(Option::unwrap_or_default).collect()
}

fn corner((column, row): (usize, usize)) -> (usize, usize) {
    (
        MARGIN + column * (WIDTH + GAP_X),
        MARGIN + row * (HEIGHT + GAP_Y),
    )
}

fn arrow(out: &mut String, edge: &Edge, from: (usize, usize), to: (usize, usize)) {
    let ((from_x, from_y), (to_x, to_y)) = (corner(from), corner(to));
    // Several arrows between the same two boxes do not cover each other.
    let shift = match edge.kind {
        EdgeKind::Image => HEIGHT / 4,
        EdgeKind::Value => HEIGHT / 2,
        EdgeKind::Url => 3 * HEIGHT / 4,
    };
    // Nor do two in opposite directions.
    let shift = if to.0 > from.0 { shift + 6 } else { shift };
    let (from_y, to_y) = (from_y + shift, to_y + shift);
    // Away from what it takes only in a circle.
    let (start, end) = match to.0.cmp(&from.0) {
        Ordering::Less => (from_x, to_x + WIDTH),
        Ordering::Equal => (from_x + WIDTH, to_x + WIDTH),
        Ordering::Greater => (from_x + WIDTH, to_x),
    };
    let (bend_start, bend_end) = if start == end {
        (start + GAP_X / 2, end + GAP_X / 2)
    } else {
        let middle = usize::midpoint(start, end);
        (middle, middle)
    };
    let path = format!("M{start} {from_y} C{bend_start} {from_y} {bend_end} {to_y} {end} {to_y}");
    let _ = writeln!(
        out,
        "<path d=\"{path}\" fill=\"none\" stroke=\"#57606a\"{} marker-end=\"url(#end)\"><title>{}</title></path>",
        dashes(edge.kind),
        what(edge.kind)
    );
}

fn dashes(kind: EdgeKind) -> &'static str {
    match kind {
        EdgeKind::Image => " stroke-width=\"2\"",
        EdgeKind::Value => "",
        EdgeKind::Url => " stroke-dasharray=\"5 4\"",
    }
}

fn legend(out: &mut String, height: usize) {
    let y = height - MARGIN;
    for (number, kind) in [EdgeKind::Image, EdgeKind::Value, EdgeKind::Url]
        .into_iter()
        .enumerate()
    {
        let x = MARGIN + number * 130;
        let _ = writeln!(
            out,
            "<path d=\"M{x} {y} h34\" stroke=\"#57606a\"{} marker-end=\"url(#end)\"/><text x=\"{}\" y=\"{}\" font-size=\"11\" fill=\"#57606a\">{}</text>",
            dashes(kind),
            x + 44,
            y + 4,
            what(kind)
        );
    }
}

fn colours(kind: ServiceType) -> (&'static str, &'static str) {
    match kind.rank() {
        0 => ("#fff8c5", "#d4a72c"),
        1 => ("#ddf4ff", "#54aeff"),
        2 => ("#dafbe1", "#4ac26b"),
        _ => ("#fbefff", "#c297ff"),
    }
}

fn cut(name: &str) -> String {
    if name.chars().count() <= NAME {
        return name.to_owned();
    }
    name.chars().take(NAME - 1).chain(['…']).collect()
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML has no way to write these at all.
            other if other.is_control() => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::draw::tests::shop;
    use super::*;

    #[test]
    fn boxes_stand_behind_what_they_take() {
        let shop = shop();
        let graph = Graph::of(&shop);
        // Frontend, backend, build, database, as they stand in the file.
        assert_eq!(places(&shop, &graph), [(2, 0), (1, 0), (0, 0), (0, 1)]);
        let picture = svg(&shop, &graph);
        assert_eq!(picture.matches("<rect x=").count(), 4);
        assert_eq!(
            picture.matches("<path d=\"M").count(),
            graph.edges.len() + 3 + 1
        );
        assert!(
            picture.contains("web &quot;&lt;&amp;&gt;&quot; é"),
            "{picture}"
        );
    }

    #[test]
    fn a_file_without_services_is_a_picture_too() {
        let empty = ArambFile::default();
        assert!(svg(&empty, &Graph::of(&empty)).ends_with("</svg>\n"));
    }
}

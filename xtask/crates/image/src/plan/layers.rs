//! Which files of one instruction go into which layer.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{PlannedFile, PlannedLayer};
use crate::base::Nodes;
use crate::dockerfile::Line;
use crate::files::{Content, Kind};
use crate::tree::{Tree, belongs_to_base};

/// The layers of one `COPY`: what the build makes gets a layer for each file, so that one changed
/// binary is one changed layer; the rest stays together. What is likely to change comes last:
/// engines keep what they unpacked of the layers below a changed one.
pub(super) fn layers(
    tree: &Tree,
    line: &Line,
    destination: &str,
    mut paths: BTreeSet<PathBuf>,
) -> Vec<PlannedLayer> {
    let artifact = |path: &PathBuf| match tree.get(path).map(|node| &node.kind) {
        Some(Kind::File { artifact, .. }) => *artifact,
        _ => None,
    };
    let mut artifacts: Vec<PathBuf> = paths
        .iter()
        .filter(|path| artifact(path).is_some())
        .cloned()
        .collect();
    artifacts.sort_by_key(|path| artifact(path).map(|artifact| artifact.own_crates));
    let others = paths
        .iter()
        .any(|path| artifact(path).is_none() && !leads_to(path, &artifacts));
    if artifacts.len() + usize::from(others) < 2 {
        return layer(tree, line, destination, &paths).into_iter().collect();
    }
    paths.retain(|path| artifact(path).is_none() && !leads_to(path, &artifacts));
    let alone = artifacts.into_iter().map(|path| BTreeSet::from([path]));
    let groups = std::iter::once(paths).chain(alone);
    groups
        .filter_map(|paths| layer(tree, line, destination, &paths))
        .collect()
}

fn leads_to(path: &Path, artifacts: &[PathBuf]) -> bool {
    artifacts
        .iter()
        .any(|artifact| artifact.starts_with(path) && artifact != path)
}

/// One layer of `paths` and the directories that lead to them; none when nothing is left of it.
pub(super) fn layer(
    tree: &Tree,
    line: &Line,
    destination: &str,
    paths: &BTreeSet<PathBuf>,
) -> Option<PlannedLayer> {
    let mut nodes = Nodes::new();
    for path in paths {
        for path in path.ancestors() {
            // Whatever is in the layer came with all that leads to it.
            if nodes.contains_key(path) {
                break;
            }
            let node = tree
                .get(path)
                .filter(|node| !(node.is_directory() && belongs_to_base(path)));
            nodes.extend(node.map(|node| (path.to_owned(), node.clone())));
        }
    }
    if nodes.is_empty() {
        return None;
    }
    let files = nodes
        .iter()
        .map(|(path, node)| planned_file(path, &node.kind))
        .collect();
    Some(PlannedLayer {
        line: line.span.first,
        source: line.text.clone(),
        destination: destination.to_owned(),
        files,
        nodes,
    })
}

fn planned_file(path: &Path, kind: &Kind) -> PlannedFile {
    let content = match kind {
        Kind::File { content, .. } => Some(content),
        _ => None,
    };
    PlannedFile {
        path: Path::new("/").join(path),
        from: content.and_then(|content| match content {
            Content::Disk { path, .. } => Some(path.clone()),
            _ => None,
        }),
        size: content.and_then(Content::size),
        built_by: content.and_then(|content| match content {
            Content::Unbuilt { package } => Some(package.clone()),
            _ => None,
        }),
    }
}

//! Builds whose sources have not changed since their image was made.

use std::collections::BTreeMap;
use std::path::Path;

use deploy_image::Ignore;
use deploy_plan::aramb::{ArambFile, EdgeKind, Graph};
use oci::Digest;
use serde::{Deserialize, Serialize};

use super::git;
use super::plane::{Build, Built, Flow};
use super::state::State;

/// Under which name the state has them.
const KEPT: &str = "images.json";

/// Images by the names of their builds.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Images(BTreeMap<String, Known>);

#[derive(Debug, Serialize, Deserialize)]
struct Known {
    /// What it was made of.
    from: String,
    image: String,
    /// It is in a registry.
    is_pushed: bool,
}

impl Images {
    pub(super) fn of(state: &State) -> Self {
        state.read(KEPT).unwrap_or_default()
    }

    /// The image of a build, if it would be the same. The images that it takes are among those that are there `already`, or are
    /// made anew.
    pub(super) fn find(
        &self,
        sources: &Sources<'_>,
        build: &Build,
        already: &BTreeMap<usize, Built>,
    ) -> Option<Built> {
        let known = self.0.get(sources.name(build))?;
        if build.push && !known.is_pushed {
            return None;
        }
        (known.from == sources.of_build(build, already)?).then(|| Built {
            service: build.service,
            image: known.image.clone(),
            took: std::time::Duration::ZERO,
            reused: true,
        })
    }

    /// Notes an image; nothing where it cannot be told what it was made of.
    pub(super) fn note(
        &mut self,
        sources: &Sources<'_>,
        build: &Build,
        built: &BTreeMap<usize, Built>,
    ) {
        let name = sources.name(build);
        match (sources.of_build(build, built), built.get(&build.service)) {
            (Some(from), Some(new)) => {
                let known = Known {
                    from,
                    image: new.image.clone(),
                    is_pushed: build.push,
                };
                self.0.insert(name.to_owned(), known);
            }
            _ => _ = self.0.remove(name),
        }
    }

    pub(super) fn keep(&self, state: &State) -> std::io::Result<()> {
        state.write(KEPT, self)
    }
}

/// What images are made of.
pub(super) struct Sources<'a> {
    folder: &'a Path,
    file: &'a ArambFile,
    graph: &'a Graph,
    /// All that the file says of each service, in its order: what we do not know may be of use to another.
    said: Vec<toml::Value>,
}

impl<'a> Sources<'a> {
    pub(super) fn of(flow: &Flow<'a>, text: &str) -> Self {
        let table: toml::Table = text.parse().unwrap_or_default();
        let said = table.get("services").and_then(toml::Value::as_array);
        Self {
            folder: flow.folder,
            file: flow.file,
            graph: flow.graph,
            said: said.cloned().unwrap_or_default(),
        }
    }

    fn name(&self, build: &Build) -> &str {
        &self.file.services[build.service].name
    }

    /// The folder's content, what the file says of the build, and the images that it takes; nothing where something of it is
    /// not known.
    fn of_build(&self, build: &Build, built: &BTreeMap<usize, Built>) -> Option<String> {
        let path = self.file.services[build.service]
            .settings
            .build_path
            .as_ref();
        let folder = self.folder.join(path.map_or(".", |path| &path.text));
        let tree = git::tree(&folder).filter(|_| sees_committed_alone(&folder))?;
        let edges = self.graph.edges.iter();
        let taken = edges.filter(|edge| edge.from == build.service && edge.kind == EdgeKind::Image);
        let images: Option<Vec<&str>> = taken
            .map(|edge| built.get(&edge.to).map(|built| built.image.as_str()))
            .collect();
        let said = self.said.get(build.service)?;
        let all = serde_json::to_vec(&(tree, &build.repository, said, images?)).ok()?;
        Some(Digest::of(&all).to_string())
    }
}

/// Whether a build in a folder sees none of the files that git ignores, as far as `.dockerignore` tells.
fn sees_committed_alone(folder: &Path) -> bool {
    let Some(ignored) = git::ignored(folder) else {
        return false;
    };
    ignored.is_empty()
        || Ignore::find(folder, &folder.join("Dockerfile"))
            .is_ok_and(|rules| ignored.iter().all(|path| rules.excludes_all(path)))
}

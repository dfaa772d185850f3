//! Builds whose sources have not changed since their image was made.

use std::collections::BTreeMap;
use std::path::Path;

use deploy_plan::aramb::Service;
use oci::Digest;
use serde::{Deserialize, Serialize};

use super::git;
use super::plane::{Build, Built};
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

    /// The image of a build, if it would be the same.
    pub(super) fn find(&self, folder: &Path, service: &Service, build: &Build) -> Option<Built> {
        let known = self.0.get(&service.name)?;
        if build.push && !known.is_pushed {
            return None;
        }
        (known.from == source(folder, service, build)?).then(|| Built {
            service: build.service,
            image: known.image.clone(),
            took: std::time::Duration::ZERO,
            reused: true,
        })
    }

    /// Notes an image; nothing where its sources are not all committed.
    pub(super) fn note(&mut self, folder: &Path, service: &Service, build: &Build, built: &Built) {
        match source(folder, service, build) {
            Some(from) => {
                let known = Known {
                    from,
                    image: built.image.clone(),
                    is_pushed: build.push,
                };
                self.0.insert(service.name.clone(), known);
            }
            None => _ = self.0.remove(&service.name),
        }
    }

    pub(super) fn keep(&self, state: &State) -> std::io::Result<()> {
        state.write(KEPT, self)
    }
}

/// What an image is made of: the folder's content, and what the file says of the build.
fn source(folder: &Path, service: &Service, build: &Build) -> Option<String> {
    let path = service.settings.build_path.as_ref();
    let tree = git::tree(&folder.join(path.map_or(".", |path| &path.text)))?;
    let mut said = vec![tree, build.repository.clone(), service.id.to_string()];
    said.extend(service.values().map(|value| value.text.clone()));
    let said = serde_json::to_vec(&said).ok()?;
    Some(Digest::of(&said).to_string())
}

//! What is deployed, and with which images: those that were just built, those of registries, and those that serve.

use std::collections::{BTreeMap, BTreeSet};

use deploy_plan::aramb::ServiceType;
use deploy_plan::aramb::translate::Names;
use deploy_plan::config::APP;
use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};
use deploy_plan::observed::Live;

use crate::aramb::plane::{Deployment, Flow};

/// The digests of the images that serve, by the positions of services in the file.
pub(super) fn digests(live: Option<&Live>, names: &Names) -> BTreeMap<usize, String> {
    let Some(live) = live else {
        return BTreeMap::new();
    };
    let of_app = std::iter::once((APP, &live.digest));
    let others = live.services.iter();
    let others = others.map(|(name, digest)| (name.as_str(), digest));
    let found = of_app.chain(others).filter_map(|(name, digest)| {
        let position = names.position(name)?;
        Some((position, digest.clone()))
    });
    found.collect()
}

/// The services of the release: those that are deployed, and those that are there and stay. All of the file where nothing was
/// selected.
pub(super) fn services(
    flow: &Flow<'_>,
    deployment: &Deployment<'_>,
    live: &BTreeMap<usize, String>,
) -> BTreeSet<usize> {
    let services = &flow.file.services;
    let runs = |position: &usize| services[*position].kind != ServiceType::Build;
    let is_in = |position: &usize| {
        deployment.is_everything
            || deployment.services.contains(position)
            || live.contains_key(position)
    };
    (0..services.len()).filter(runs).filter(is_in).collect()
}

/// Images that are in the tenant's repository, by the names of services there.
pub(super) fn there(
    flow: &Flow<'_>,
    deployment: &Deployment<'_>,
    release: &Release<'_>,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut there = BTreeMap::new();
    for position in release.services {
        let is_deployed = deployment.is_everything || deployment.services.contains(position);
        let live = release.live.get(position);
        let digest = match (release.builds.get(position), is_deployed) {
            (Some(build), true) => {
                let built = deployment.images.get(build);
                let built = built.and_then(|image| digest_of(image));
                let digest = built.or(live.cloned());
                Some(digest.ok_or_else(|| not_built(flow, *position, *build))?)
            }
            (None, true) => None,
            (_, false) => live.cloned(),
        };
        let name = release.names.on_platform(*position).to_owned();
        there.extend(digest.map(|digest| (name, digest)));
    }
    Ok(there)
}

/// What is known of a release.
pub(super) struct Release<'a> {
    pub(super) names: &'a Names,
    pub(super) services: &'a BTreeSet<usize>,
    /// Which service runs which build.
    pub(super) builds: &'a BTreeMap<usize, usize>,
    pub(super) live: &'a BTreeMap<usize, String>,
}

/// The digest in `registry/repository:tag@sha256:…`.
fn digest_of(image: &str) -> Option<String> {
    image.rsplit_once('@').map(|(_, digest)| digest.to_owned())
}

fn not_built(flow: &Flow<'_>, position: usize, build: usize) -> Failure {
    let name = |position: usize| &flow.file.services[position].name;
    Failure::new(
        Step::Preflight,
        "image_not_built",
        Exit::Configuration,
        format!(
            "`{}` runs the image of `{}`, which was not built in this run, and serves with none yet",
            name(position),
            name(build)
        ),
        "deploy without --skip-build",
    )
}

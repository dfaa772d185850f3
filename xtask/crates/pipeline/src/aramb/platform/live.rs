//! What is deployed, and with which images: those that were just built, those of registries, and those that serve.

use std::collections::{BTreeMap, BTreeSet};

use deploy_plan::aramb::translate::Names;
use deploy_plan::aramb::{FlowError, FlowStep, ServiceType};
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
    let former = was_beside_app(live, names);
    let found = of_app.chain(others).filter_map(|(name, digest)| {
        let position = match former {
            // Whose image it is cannot be told.
            Some(_) if name == APP => None,
            Some(app) if name == names.fitting(app) => Some(app),
            _ => names.position(name),
        };
        Some((position?, digest.clone()))
    });
    found.collect()
}

/// The service that is `app` by the file, if it still serves beside another that is.
fn was_beside_app(live: &Live, names: &Names) -> Option<usize> {
    let app = names.app()?;
    live.services
        .contains_key(names.fitting(app))
        .then_some(app)
}

/// What speaks against leaving a part of the release as it is: another service is `app` there.
pub(super) fn moved(live: Option<&Live>, names: &Names) -> Option<FlowError> {
    let app = names.said(was_beside_app(live?, names)?);
    let message = format!("`{app}` is to get all requests, which go to another service now");
    let error = FlowError::new(
        FlowStep::Extract,
        "public_service_moved",
        Exit::Configuration,
        message,
    );
    Some(error.with("deploy the whole file once, without --services"))
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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use deploy_config::aramb::{ArambToml, parse};

    use super::*;
    use crate::events::Silent;
    use crate::interrupt::Interrupts;
    use crate::redact::Redactor;

    const FILE: &str = "
[[services]]
uniqueIdentifier = 100
name = \"db\"
type = \"postgres\"
configuration.settings.image = \"postgres:15\"
[[services]]
uniqueIdentifier = 101
name = \"build\"
type = \"build\"
[[services]]
uniqueIdentifier = 102
name = \"Api\"
type = \"backend\"
configuration.settings.image = \"${101.outputs.IMAGE_URL}\"
[[services]]
uniqueIdentifier = 103
name = \"worker\"
type = \"backend\"
configuration.settings.image = \"${101.outputs.IMAGE_URL}\"
";

    fn read() -> ArambToml {
        let toml = parse(Path::new("aramb.toml"), FILE);
        assert!(toml.diagnostics.is_empty(), "{:?}", toml.diagnostics);
        toml
    }

    /// The services of the release, and the images that are there, when `selected` are deployed (everything if none) with an image
    /// of the build or without, while `live` serve.
    fn check(selected: &[usize], has_image: bool, live: &[&str]) -> Result<Vec<String>, String> {
        let toml = read();
        let (redactor, interrupts) = (Redactor::default(), Interrupts::default());
        let flow = Flow {
            reporter: &Silent,
            redactor: &redactor,
            interrupts: &interrupts,
            folder: Path::new("."),
            file: &toml.file,
            graph: &toml.graph,
            timeout: Duration::from_secs(1),
            is_patient: false,
        };
        let image = "r/local:build-abc@sha256:new".to_owned();
        let images = has_image.then_some((1, image)).into_iter().collect();
        let deployment = Deployment {
            services: selected,
            is_everything: selected.is_empty(),
            images: &images,
        };
        let names = Names::of(flow.file).unwrap();
        let others = live.iter().filter(|name| **name != APP);
        let live = (!live.is_empty()).then(|| Live {
            deployment: 1,
            tag: None,
            digest: "sha256:app".to_owned(),
            services: others
                .map(|name| ((*name).to_owned(), format!("sha256:{name}")))
                .collect(),
            git_sha: None,
            commits_since: None,
            url: None,
        });
        let live = digests(live.as_ref(), &names);
        let services = services(&flow, &deployment, &live);
        let release = Release {
            names: &names,
            services: &services,
            builds: &[(2, 1), (3, 1)].into(),
            live: &live,
        };
        let there = there(&flow, &deployment, &release).map_err(|failure| failure.details)?;
        let told = services.iter().map(|position| {
            let name = names.on_platform(*position);
            let image = there.get(name).map_or("copied", String::as_str);
            format!("{name} {image}")
        });
        Ok(told.collect())
    }

    #[test]
    fn what_is_deployed_and_what_stays() {
        let all = ["app", "db", "worker", "gone"];
        for (selected, has_image, live, expected) in [
            (
                &[][..],
                true,
                &[][..],
                &["db copied", "app sha256:new", "worker sha256:new"][..],
            ),
            (
                &[],
                true,
                &all,
                &["db copied", "app sha256:new", "worker sha256:new"],
            ),
            // A selection leaves all others as they are.
            (
                &[3],
                true,
                &all,
                &["db sha256:db", "app sha256:app", "worker sha256:new"],
            ),
            (
                &[0],
                false,
                &["app", "db"],
                &["db copied", "app sha256:app"],
            ),
            (&[2], true, &[], &["app sha256:new"]),
            // Without a build, what serves serves on.
            (
                &[],
                false,
                &all,
                &["db copied", "app sha256:app", "worker sha256:worker"],
            ),
        ] {
            let told = check(selected, has_image, live).unwrap();
            assert_eq!(told, expected, "{selected:?} {has_image} {live:?}");
        }
    }

    #[test]
    fn another_service_may_get_all_requests() {
        let toml = read();
        let names = Names::of(&toml.file).unwrap();
        let live = |services: &[&str]| Live {
            deployment: 1,
            tag: None,
            digest: "sha256:app".to_owned(),
            services: services
                .iter()
                .map(|name| ((*name).to_owned(), format!("sha256:{name}")))
                .collect(),
            git_sha: None,
            commits_since: None,
            url: None,
        };
        let same = live(&["worker"]);
        assert_eq!(moved(Some(&same), &names), None);
        assert_eq!(digests(Some(&same), &names)[&2], "sha256:app");
        // `Api` was beside another, which was `app`.
        let other = live(&["api", "worker"]);
        let error = moved(Some(&other), &names).unwrap();
        assert!(error.message.starts_with("`Api` is to get"), "{error}");
        let expected = [(2, "sha256:api"), (3, "sha256:worker")];
        let expected = expected.map(|(position, digest)| (position, digest.to_owned()));
        assert_eq!(digests(Some(&other), &names), expected.into());
    }

    #[test]
    fn nothing_is_deployed_without_an_image() {
        let refused = check(&[], false, &["app", "db"]).unwrap_err();
        assert!(
            refused.starts_with("`worker` runs the image of `build`, which was not built"),
            "{refused}"
        );
    }
}

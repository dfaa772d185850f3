//! The images of registries that a file needs: finished ones, and those that its builds stand on.

use std::path::Path;

use deploy_config::Settings;
use deploy_config::aramb::{self, ARAMB_TOML};
use deploy_config::project::{DEPLOY_TOML, FOLDER};
use deploy_plan::aramb::references;
use deploy_plan::aramb::{Service, ServiceType};
use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};

use super::file::without_deployment;
use super::platform::Source;

/// What a file needs.
#[derive(Default)]
pub(crate) struct Needed {
    /// Finished images by their names.
    pub(crate) images: Vec<String>,
    /// The settings by which each build is made.
    pub(crate) builds: Vec<Settings>,
    /// Whether the project is described by the file alone.
    pub(crate) alone: bool,
}

/// What the file in the project's folder needs, if there is one.
pub(crate) fn needed(settings: &Settings) -> Result<Needed, Failure> {
    let path = settings.root.join(ARAMB_TOML);
    if !path.is_file() {
        return Ok(Needed::default());
    }
    let unknown = |why: String| {
        Failure::new(
            Step::Settings,
            "aramb_invalid",
            Exit::Configuration,
            format!("it cannot be known which images {ARAMB_TOML} needs: {why}"),
            "see what is wrong with it: cargo xtask plan",
        )
    };
    let text = without_deployment(&path).map_err(|error| unknown(error.to_string()))?;
    let toml = aramb::parse(Path::new(ARAMB_TOML), &text);
    if let Some(first) = toml.diagnostics.first() {
        return Err(unknown(first.message.clone()));
    }
    let has = |path: &Path| settings.root.join(path).is_file();
    let mut needed = Needed {
        alone: !has(&Path::new(FOLDER).join(DEPLOY_TOML))
            && !has(&settings.config.image.dockerfile),
        ..Needed::default()
    };
    for service in &toml.file.services {
        if service.kind == ServiceType::Build {
            needed.builds.extend(of_build(settings, service)?);
        } else if let Some(image) = finished(service) {
            needed.images.push(image.map_err(unknown)?);
        }
    }
    Ok(needed)
}

/// None for what only others know how to build.
fn of_build(settings: &Settings, build: &Service) -> Result<Option<Settings>, Failure> {
    let source = match Source::of(&settings.root, build, settings.config.image.builder) {
        Ok(source) => source,
        Err(failure) if failure.code == "build_source_missing" => return Ok(None),
        Err(failure) => return Err(failure),
    };
    let mut settings = settings.clone();
    source.apply(&mut settings.config);
    Ok(Some(settings))
}

/// The finished image of a service, or why it is not known; none where a build makes it.
fn finished(service: &Service) -> Option<Result<String, String>> {
    let text = &service.settings.image.as_ref()?.text;
    match references(text).next() {
        None => Some(Ok(text.clone())),
        Some(Ok(reference)) if reference.range == (0..text.len()) => None,
        Some(_) => Some(Err(format!(
            "the image of `{}` is `{text}`, which is known when it is deployed",
            service.name
        ))),
    }
}

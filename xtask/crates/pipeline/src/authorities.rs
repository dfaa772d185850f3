//! Certificates of private authorities that the settings name: where they are, and whether they can be
//! used.

use std::path::{Path, PathBuf};

use deploy_config::Settings;
use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};
use trust::TrustError;

use crate::control::with_causes;

/// The key of the certificates for the Management API.
const API: &str = "api.ca_file";
/// The key of those for registries.
const REGISTRIES: &str = "api.registry_ca_file";

/// The files of certificates that the Management API's may come from too.
#[must_use]
pub fn of_api(settings: &Settings) -> Vec<PathBuf> {
    below(settings, settings.config.api.ca_file.as_deref())
}

/// The files of certificates that those of registries may come from too.
#[must_use]
pub fn of_registries(settings: &Settings) -> Vec<PathBuf> {
    below(settings, settings.config.api.registry_ca_file.as_deref())
}

/// Makes sure that the certificates for the Management API can be used.
pub fn check_api(settings: &Settings) -> Result<(), Failure> {
    check(API, &of_api(settings))
}

/// Makes sure that the certificates for registries can be used.
pub fn check_registries(settings: &Settings) -> Result<(), Failure> {
    check(REGISTRIES, &of_registries(settings))
}

fn below(settings: &Settings, file: Option<&Path>) -> Vec<PathBuf> {
    file.map(|file| settings.root.join(file))
        .into_iter()
        .collect()
}

fn check(key: &str, files: &[PathBuf]) -> Result<(), Failure> {
    files
        .iter()
        .try_for_each(|file| trust::read(file).map(drop))
        .map_err(|error| unusable(key, &error))
}

fn unusable(key: &str, error: &TrustError) -> Failure {
    let (code, exit) = match error {
        TrustError::Read { .. } => ("ca_file_missing", Exit::Configuration),
        _ => ("ca_file_invalid", Exit::Configuration),
    };
    Failure::new(
        Step::Preflight,
        code,
        exit,
        format!("{key}: {}", with_causes(error)),
        format!("correct {key} in .systemprompt/deploy.toml: a file with certificates in PEM"),
    )
}

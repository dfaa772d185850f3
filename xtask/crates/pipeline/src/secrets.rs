//! No secret goes into an image: what stops a deployment that would send one.

use deploy_image::{AssemblyPlan, Cache, FoundSecret, SecretsError, find_secrets};
use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};
use deploy_plan::plan::Image;

use crate::control::with_causes;

/// More than anybody reads at once.
const SHOWN: usize = 20;

/// Fails when a file of the image, or its configuration, holds a secret that is not allowed.
pub(crate) fn check(
    image: &Image,
    planned: &AssemblyPlan,
    cache: &mut Cache,
) -> Result<(), Failure> {
    let found = find_secrets(planned, &image.allow_secrets, cache).map_err(|e| unread(&e))?;
    refuse(&found, "name the file in .dockerignore")
}

/// Fails where anything was found. `cure` is what to do about a file that was not meant to be there.
pub(crate) fn refuse(found: &[FoundSecret], cure: &str) -> Result<(), Failure> {
    if found.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        Step::Image,
        "secret_in_image",
        Exit::Configuration,
        listed(found),
        resolution(found, cure),
    ))
}

fn listed(found: &[FoundSecret]) -> String {
    let mut lines: Vec<String> = found.iter().take(SHOWN).map(ToString::to_string).collect();
    if found.len() > SHOWN {
        lines.push(format!("and {} more", found.len() - SHOWN));
    }
    format!("the image would hold secrets:\n{}", lines.join("\n"))
}

fn resolution(found: &[FoundSecret], cure: &str) -> String {
    match found.iter().find_map(|secret| secret.path.as_deref()) {
        Some(path) => format!(
            "{cure}, or allow it: image.allow_secrets = [\"{}\"]",
            path.display()
        ),
        None => "take it out of the Dockerfile and give it to the application as [env]".to_owned(),
    }
}

fn unread(error: &SecretsError) -> Failure {
    let (code, exit, resolution) = match error {
        SecretsError::Pattern(_) => return pattern_invalid(error),
        SecretsError::Read { .. } | SecretsError::Changed { .. } => (
            "image_failed",
            Exit::Build,
            "make the file readable and wait for whoever writes it, then run again",
        ),
    };
    Failure::new(Step::Image, code, exit, with_causes(error), resolution)
}

/// The failure of an allow-list with something in it that is no pattern.
pub(crate) fn pattern_invalid(error: &dyn std::error::Error) -> Failure {
    Failure::new(
        Step::Image,
        "allow_secrets_invalid",
        Exit::Configuration,
        with_causes(error),
        "correct image.allow_secrets in .systemprompt/deploy.toml",
    )
}

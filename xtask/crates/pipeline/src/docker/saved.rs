//! The look for secrets in what Docker has built, between its build and its push.

use std::fs;

use deploy_image::{SavedError, SavedImage, find_secrets_in_saved};
use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};
use deploy_plan::plan::Image;
use oci::Digest;

use super::bases::Base;
use super::failure;
use crate::child::Program;
use crate::control::with_causes;
use crate::deploy::Execution;
use crate::events::Event;
use crate::image::cache_folder;
use crate::run::{Run, interrupted};
use crate::secrets;

/// An engine writes hundreds of megabytes a second, and reads what it writes twice.
const LIMIT: std::time::Duration = std::time::Duration::from_mins(30);
/// What a command like `RUN` has made is in no context.
const CURE: &str = "keep the file out of that layer (another stage, RUN --mount=type=secret, \
     .dockerignore): one that a later instruction removes is still in the image";

/// Fails when the image holds a secret that is not allowed. Its layers, uncompressed.
pub(super) fn check(
    run: &Run<'_>,
    execution: &Execution<'_>,
    image: &Image,
    name: &str,
    bases: &[Base],
) -> Result<Vec<Digest>, Failure> {
    let bases: Vec<Vec<Digest>> = bases.iter().flat_map(Base::layers).collect();
    let saved = read(run, execution, image, name, &bases)?;
    secrets::refuse(&saved.secrets, CURE)?;
    Ok(saved.diff_ids)
}

/// `docker save`, as it comes.
fn read(
    run: &Run<'_>,
    execution: &Execution<'_>,
    image: &Image,
    name: &str,
    bases: &[Vec<Digest>],
) -> Result<SavedImage, Failure> {
    let folder = cache_folder(execution.settings);
    let unsaved = |why: String| failure(Step::Image, "docker_failed", why);
    fs::create_dir_all(&folder)
        .map_err(|e| unsaved(format!("cannot make {}: {e}", folder.display())))?;
    let program = Program::new("docker", &execution.settings.root).arguments(["save", name]);
    let shown = program.shown();
    let look = |mut output: std::io::PipeReader| {
        let found = find_secrets_in_saved(&mut output, bases, &image.allow_secrets, &folder);
        // What stands behind the end of the archive is its writer's to write.
        let rest = std::io::copy(&mut output, &mut std::io::sink());
        found.and_then(|found| rest.map(|_| found).map_err(SavedError::Archive))
    };
    let (status, found) = program
        .within(LIMIT)
        .read(run.interrupts, look, |line| {
            run.reporter.event(Event::Output(line.to_owned()));
        })
        .map_err(|e| unsaved(format!("cannot run `{shown}`: {e}")))?;
    if run.interrupts.any() {
        return Err(interrupted(Step::Image));
    }
    if !status.success() {
        let details = format!("`{shown}` ended with {status}; its messages are above");
        return Err(unsaved(details));
    }
    found.map_err(|error| unread(&error))
}

fn unread(error: &SavedError) -> Failure {
    match error {
        SavedError::Pattern(_) => secrets::pattern_invalid(error),
        SavedError::Layer { .. } => Failure::new(
            Step::Image,
            "image_failed",
            Exit::Build,
            format!("whether the image holds secrets cannot be seen: {error}"),
            "install the program that is missing, or use --builder native",
        ),
        _ => Failure::new(
            Step::Image,
            "image_failed",
            Exit::Build,
            format!(
                "whether the image holds secrets cannot be seen: {}",
                with_causes(error)
            ),
            "run the same command again, or use --builder native",
        ),
    }
}

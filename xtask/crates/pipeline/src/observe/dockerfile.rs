//! The Dockerfile, as far as the plan needs it.

use std::io;
use std::path::Path;

use deploy_image::{Context, Dockerfile, Ignore, Options, Outline, finds_anything};
use deploy_plan::config::Config;
use deploy_plan::observed::{self, Copy, NeedsEngine};
use deploy_plan::plan::artifact_name;
use deploy_plan::preflight::profile_folder;

use super::Observation;

pub(super) fn observe(root: &Path, config: &Config, found: &mut Observation) {
    let path = root.join(&config.image.dockerfile);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => {
            found.observed.dockerfile = observed::Dockerfile::Invalid(vec![error.to_string()]);
            return;
        }
    };
    let options = Options {
        build_arguments: config.image.build_args.clone(),
        ..Options::default()
    };
    found.observed.dockerfile = match read(config, &text, &options) {
        Ok(dockerfile) => dockerfile,
        Err(error) => observed::Dockerfile::Invalid(vec![crate::control::with_causes(&error)]),
    };
    present(root, config, found);
}

fn read(
    config: &Config,
    text: &str,
    options: &Options,
) -> Result<observed::Dockerfile, deploy_image::DockerfileError> {
    let name = config.image.dockerfile.display().to_string();
    let dockerfile = Dockerfile::parse(&name, text)?;
    let copies = deploy_image::copies(&dockerfile, options)?
        .into_iter()
        .filter(|copy| copy.from.is_none())
        .map(|copy| Copy {
            line: copy.line,
            sources: copy.sources,
            destination: copy.destination,
        })
        .collect();
    let needs_engine = deploy_image::needs_engine(&dockerfile, options)?
        .into_iter()
        .map(|need| NeedsEngine {
            line: need.line,
            instruction: need.instruction,
            reason: need.reason,
        })
        .collect();
    let outline = Outline::new(&dockerfile, options)?;
    let from = outline.base_image().unwrap_or("scratch").to_owned();
    Ok(observed::Dockerfile::Read {
        copies,
        needs_engine,
        from,
    })
}

/// Notes which `COPY` sources match something that is not hidden from the image. A binary may lie
/// where cargo's target folder really is instead of where the Dockerfile names it.
fn present(root: &Path, config: &Config, found: &mut Observation) {
    let observed::Dockerfile::Read { copies, .. } = &found.observed.dockerfile else {
        return;
    };
    let folder = root.join(&config.image.context);
    // An ignore file that cannot be read is told by the plan of the image.
    let ignore = Ignore::find(&folder, &root.join(&config.image.dockerfile)).unwrap_or_default();
    let context = Context::new(folder, ignore);
    let present = copies
        .iter()
        .flat_map(|copy| &copy.sources)
        .filter(|source| finds_anything(&context, source) || is_built(source, config, found))
        .cloned()
        .collect();
    found.observed.present = present;
}

fn is_built(source: &str, config: &Config, found: &Observation) -> bool {
    let folder = found
        .target_folder
        .join(profile_folder(&config.build.profile));
    artifact_name(source).is_some_and(|binary| folder.join(binary).is_file())
}

//! The Dockerfile, as far as the plan needs it.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use deploy_image::{Context, Dockerfile, Ignore, Options, Outline, finds_anything};
use deploy_plan::config::Config;
use deploy_plan::observed::{self, Copy, NeedsEngine};
use deploy_plan::plan::{Recipe, artifact_name, recipe, recipe_of_app};
use deploy_plan::preflight::profile_folder;

use super::Observation;

/// That of `app`, and those of services that have an image of their own made.
pub(super) fn observe(root: &Path, config: &Config, found: &mut Observation) {
    if let Some(of_app) = recipe_of_app(config) {
        found.observed.dockerfile = look(root, config, found, &of_app);
    }
    for (name, service) in &config.services.others {
        let recipe = recipe(name.as_str(), service, config, &found.observed.dockerfile);
        if let Some(recipe) = recipe {
            let dockerfile = look(root, config, found, &recipe);
            let dockerfiles = &mut found.observed.dockerfiles;
            dockerfiles.insert(name.to_string(), dockerfile);
        }
    }
}

fn look(
    root: &Path,
    config: &Config,
    found: &Observation,
    recipe: &Recipe,
) -> observed::Dockerfile {
    let text = match &recipe.text {
        Some(text) => Ok(text.clone()),
        None => std::fs::read_to_string(root.join(&recipe.dockerfile)),
    };
    let text = match text {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return observed::Dockerfile::Missing;
        }
        Err(error) => return observed::Dockerfile::Invalid(vec![error.to_string()]),
    };
    let options = Options {
        build_arguments: config.image.build_args.clone(),
        ..Options::default()
    };
    let mut dockerfile = match read(&recipe.dockerfile, &text, &options) {
        Ok(dockerfile) => dockerfile,
        Err(error) => {
            return observed::Dockerfile::Invalid(vec![crate::control::with_causes(&error)]);
        }
    };
    if let observed::Dockerfile::Read {
        copies, present, ..
    } = &mut dockerfile
    {
        *present = sources_there(root, config, found, recipe, copies);
    }
    dockerfile
}

fn read(
    path: &Path,
    text: &str,
    options: &Options,
) -> Result<observed::Dockerfile, deploy_image::DockerfileError> {
    let dockerfile = Dockerfile::parse(&path.display().to_string(), text)?;
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
        present: BTreeSet::new(),
        needs_engine,
        from,
    })
}

/// Which `COPY` sources match something that is not hidden from the image. A binary may lie where cargo's target folder
/// really is instead of where the Dockerfile names it.
fn sources_there(
    root: &Path,
    config: &Config,
    found: &Observation,
    recipe: &Recipe,
    copies: &[Copy],
) -> BTreeSet<String> {
    let folder = root.join(&config.image.context);
    // An ignore file that cannot be read is told by the plan of the image.
    let ignore = Ignore::find(&folder, &root.join(&recipe.dockerfile)).unwrap_or_default();
    let context = Context::new(folder, ignore);
    copies
        .iter()
        .flat_map(|copy| &copy.sources)
        .filter(|source| finds_anything(&context, source) || is_built(source, config, found))
        .cloned()
        .collect()
}

fn is_built(source: &str, config: &Config, found: &Observation) -> bool {
    let folder = found
        .target_folder
        .join(profile_folder(&config.build.profile));
    artifact_name(source).is_some_and(|binary| folder.join(binary).is_file())
}

//! `cargo xtask deploy`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use deploy_pipeline::deploy::{Execution, execute};
use deploy_pipeline::image;
use deploy_pipeline::locking::{Pinned, pinned, pinned_copy};
use deploy_pipeline::observe::{Observation, Observer};
use deploy_pipeline::outcome::{End, Outcome};
use deploy_pipeline::redact::Redacting;
use deploy_pipeline::run::Run;
use deploy_plan::config::APP;
use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};
use deploy_plan::plan::{AppImage, Copied, Image, ImageBuilder, Plan, Request, ServiceImage, plan};

use crate::cli::{Aramb, Deploy, Output};
use crate::context::{Context, deploy_overrides};
use crate::render;
use crate::render::plan::Previews;

pub(crate) fn run(project: Option<&Path>, flags: &Deploy) -> Exit {
    let output = flags.target.output;
    if flags.aramb != Aramb::default() {
        return refused(output);
    }
    let context = match Context::load(project, |overrides| {
        deploy_overrides(flags, overrides);
    }) {
        Ok(context) => context,
        Err(failure) => {
            let environment = flags.target.environment.clone().unwrap_or_default();
            return conclude(&failed(&environment, vec![failure]), output);
        }
    };
    let request = request(flags, &context);
    let reporter = render::reporter();
    let found = Observer {
        settings: &context.settings,
        variables: &context.variables,
        redactor: &context.redactor,
        reporter: reporter.as_ref(),
    }
    .everything(&request);
    let planned = planned(&request, &context, &found).and_then(|planned| {
        let unused = planned.0.base_unused().filter(|_| flags.base.is_some());
        unused.map_or(Ok(planned), |failure| Err(vec![failure]))
    });
    let (plan, mut previews) = match planned {
        Ok(planned) => planned,
        Err(failures) => return conclude(&failed(&request.environment, failures), output),
    };
    if flags.dry_run {
        compare(&context, &plan, &found, &mut previews);
        return dry_run(&context, &plan, &previews, output);
    }
    let outcome = perform(&context, &plan, found, &reporter);
    conclude(&outcome, output)
}

/// Flags for a file that is not there.
fn refused(output: Output) -> Exit {
    let failure = Failure::new(
        Step::Settings,
        "aramb_not_found",
        Exit::Usage,
        "--policy, --services, --backend-services, --push-registry, --write-back and --install-cli are for an aramb.toml, and this project goes by .systemprompt/deploy.toml",
        "leave them out, or name the file: --config aramb.toml",
    );
    conclude(&failed("", vec![failure]), output)
}

fn request(flags: &Deploy, context: &Context) -> Request {
    Request {
        environment: context.settings.environment.to_string(),
        tag: flags.tag.clone(),
        skip_push: flags.skip_push,
        skip_build: flags.skip_build,
        force: flags.force,
        verify: flags.verify,
        there: BTreeMap::new(),
    }
}

/// The plan and the layers it would make, or everything that speaks against it: what the plan
/// found, what looking found, and — when nothing else is wrong — what is wrong with the image.
fn planned(
    request: &Request,
    context: &Context,
    found: &Observation,
) -> Result<(Plan, Previews), Vec<Failure>> {
    let planned = plan(request, &context.settings.config, &found.observed);
    let mut failures = found.failures.clone();
    let plan = match planned {
        Ok(plan) if failures.is_empty() => plan,
        Ok(_) => return Err(clean(failures, context)),
        Err(more) => {
            failures.extend(more);
            return Err(clean(failures, context));
        }
    };
    match previews(context, &plan, found) {
        Ok(previews) => Ok((plan, previews)),
        Err(failures) => Err(clean(failures, context)),
    }
}

/// What is known of all images, or everything that is wrong with any.
fn previews(context: &Context, plan: &Plan, found: &Observation) -> Result<Previews, Vec<Failure>> {
    let settings = &context.settings;
    let mut previews = Previews::default();
    let mut failures = Vec::new();
    for (name, image) in made(plan) {
        match image::preview(settings, plan, image, &found.target_folder) {
            Ok(layers) if name == APP => previews.app = layers,
            Ok(layers) => _ = previews.services.insert(name.to_owned(), layers),
            Err(failure) => failures.push(failure),
        }
    }
    let live = |name: &str| {
        let live = plan.live.as_ref()?;
        match name {
            APP => Some(live.digest.as_str()),
            name => live.services.get(name).map(String::as_str),
        }
    };
    for (name, copied) in copied(plan) {
        if let Some(report) = image::known_copy(settings, copied, live(name)) {
            previews.copies.insert(name.to_owned(), report);
        }
    }
    if failures.is_empty() {
        Ok(previews)
    } else {
        Err(failures)
    }
}

/// The images that would be made, by the names of their services.
fn made(plan: &Plan) -> impl Iterator<Item = (&str, &Image)> {
    let of_app = plan.image.iter().filter(|_| plan.app == AppImage::Made);
    let of_app = of_app.map(|image| (APP, image));
    let others = plan.services.iter();
    of_app.chain(others.filter_map(|service| match &service.image {
        ServiceImage::Made(image) => Some((service.name.as_str(), image.as_ref())),
        ServiceImage::OfApp
        | ServiceImage::Copied(_)
        | ServiceImage::Kept(_)
        | ServiceImage::There => None,
    }))
}

/// The finished images that would be copied, by the names of their services.
fn copied(plan: &Plan) -> impl Iterator<Item = (&str, &Copied)> {
    let of_app = match &plan.app {
        AppImage::Copied(copied) => Some((APP, copied)),
        AppImage::Made | AppImage::Kept(_) => None,
    };
    let others = plan.services.iter();
    of_app
        .into_iter()
        .chain(others.filter_map(|service| match &service.image {
            ServiceImage::Copied(copied) => Some((service.name.as_str(), copied)),
            _ => None,
        }))
}

/// Notes which layers serve already.
fn compare(context: &Context, plan: &Plan, found: &Observation, previews: &mut Previews) {
    let Some(live) = &plan.live else {
        return;
    };
    for (name, image) in made(plan) {
        let (digest, layers) = if name == APP {
            (Some(&live.digest), Some(&mut previews.app))
        } else {
            (live.services.get(name), previews.services.get_mut(name))
        };
        if let (Some(digest), Some(layers)) = (digest, layers) {
            image::compare(
                &context.settings,
                image,
                digest,
                &found.target_folder,
                layers,
            );
        }
    }
}

fn clean(failures: Vec<Failure>, context: &Context) -> Vec<Failure> {
    let clean = |failure| context.redactor.clean_failure(failure);
    failures.into_iter().map(clean).collect()
}

fn dry_run(context: &Context, plan: &Plan, previews: &Previews, output: Output) -> Exit {
    let bases = match bases(context, plan) {
        Ok(bases) => bases,
        Err(failure) => {
            return conclude(
                &failed(&plan.environment, clean(vec![failure], context)),
                output,
            );
        }
    };
    let document = render::plan::Document::new(plan, previews, &bases, &context.settings.config);
    match output {
        Output::Human => render::out(&document.text()),
        _ => render::result::document(&document, output),
    }
    Exit::Done
}

/// The images of registries that the plan needs, by the names of services; bases Docker finds by itself.
fn bases(context: &Context, plan: &Plan) -> Result<BTreeMap<String, Vec<Pinned>>, Failure> {
    let mut bases = BTreeMap::new();
    for (name, image) in made(plan) {
        if image.builder == ImageBuilder::Native {
            bases.insert(name.to_owned(), pinned(&context.settings, image)?);
        }
    }
    for (name, copied) in copied(plan) {
        let pinned = pinned_copy(&context.settings, copied)?;
        bases.insert(name.to_owned(), vec![pinned]);
    }
    Ok(bases)
}

fn perform(
    context: &Context,
    plan: &Plan,
    found: Observation,
    reporter: &Arc<dyn deploy_pipeline::events::Reporter + Send + Sync>,
) -> Outcome {
    let sink = Redacting {
        redactor: &context.redactor,
        sink: reporter.as_ref(),
    };
    for warning in &plan.warnings {
        reporter.event(deploy_pipeline::events::Event::Warning(warning.clone()));
    }
    let mut run = Run::new(
        &sink,
        &context.redactor,
        &context.interrupts,
        &plan.environment,
    );
    let shared = Arc::clone(reporter);
    let execution = Execution {
        settings: &context.settings,
        plan,
        found,
        shared: Arc::new(move |event| shared.event(event)),
    };
    let result = execute(&mut run, execution);
    let mut outcome = run.outcome;
    if let Err(failure) = result {
        outcome
            .failures
            .push(context.redactor.clean_failure(failure));
    }
    outcome
}

/// The outcome of a run that failed before it began.
pub(super) fn failed(environment: &str, failures: Vec<Failure>) -> Outcome {
    Outcome {
        environment: environment.to_owned(),
        failures,
        end: End::Failed,
        ..Outcome::default()
    }
}

/// Shows an outcome and says how the command ends.
pub(super) fn conclude(outcome: &Outcome, output: Output) -> Exit {
    render::result::outcome(outcome, output);
    if outcome.failures.is_empty() {
        Exit::Done
    } else {
        super::exit_of(&outcome.failures)
    }
}

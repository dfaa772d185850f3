//! `cargo xtask deploy`.

use std::path::Path;
use std::sync::Arc;

use deploy_pipeline::deploy::{Execution, execute};
use deploy_pipeline::image::{self, LayerPreview};
use deploy_pipeline::locking::{Pinned, pinned};
use deploy_pipeline::observe::{Observation, Observer};
use deploy_pipeline::outcome::{End, Outcome};
use deploy_pipeline::redact::Redacting;
use deploy_pipeline::run::Run;
use deploy_plan::exit::Exit;
use deploy_plan::failure::Failure;
use deploy_plan::plan::{ImageBuilder, Plan, Request, plan};

use crate::cli::{Deploy, Output};
use crate::context::{Context, deploy_overrides};
use crate::render;

pub(crate) fn run(project: Option<&Path>, flags: &Deploy) -> Exit {
    let output = flags.target.output;
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
    let (plan, mut layers) = match planned(&request, &context, &found) {
        Ok(planned) => planned,
        Err(failures) => return conclude(&failed(&request.environment, failures), output),
    };
    if flags.dry_run {
        image::compare(&context.settings, &plan, &found.target_folder, &mut layers);
        return dry_run(&context, &plan, &layers, output);
    }
    let outcome = perform(&context, &plan, found, &reporter);
    conclude(&outcome, output)
}

fn request(flags: &Deploy, context: &Context) -> Request {
    Request {
        environment: context.settings.environment.to_string(),
        tag: flags.tag.clone(),
        skip_push: flags.skip_push,
        skip_build: flags.skip_build,
        force: flags.force,
        verify: flags.verify,
    }
}

/// The plan and the layers it would make, or everything that speaks against it: what the plan
/// found, what looking found, and — when nothing else is wrong — what is wrong with the image.
fn planned(
    request: &Request,
    context: &Context,
    found: &Observation,
) -> Result<(Plan, Vec<LayerPreview>), Vec<Failure>> {
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
    match image::preview(&context.settings, &plan, &found.target_folder) {
        Ok(layers) => Ok((plan, layers)),
        Err(failure) => Err(clean(vec![failure], context)),
    }
}

fn clean(failures: Vec<Failure>, context: &Context) -> Vec<Failure> {
    let clean = |failure| context.redactor.clean_failure(failure);
    failures.into_iter().map(clean).collect()
}

fn dry_run(context: &Context, plan: &Plan, layers: &[LayerPreview], output: Output) -> Exit {
    let bases = match bases(context, plan) {
        Ok(bases) => bases,
        Err(failure) => {
            return conclude(
                &failed(&plan.environment, clean(vec![failure], context)),
                output,
            );
        }
    };
    let document = render::plan::Document::new(plan, layers, &bases, &context.settings.config);
    match output {
        Output::Human => render::out(&document.text()),
        _ => render::result::document(&document, output),
    }
    Exit::Done
}

/// The base images of the plan, which Docker finds by itself.
fn bases(context: &Context, plan: &Plan) -> Result<Vec<Pinned>, Failure> {
    match &plan.image {
        Some(image) if image.builder == ImageBuilder::Native => pinned(&context.settings, image),
        _ => Ok(Vec::new()),
    }
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

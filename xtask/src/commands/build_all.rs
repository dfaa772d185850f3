//! `cargo xtask build-all`: the build step of a deployment alone.

use std::path::Path;

use deploy_pipeline::deploy::build_packages;
use deploy_pipeline::observe::Observer;
use deploy_pipeline::redact::Redacting;
use deploy_pipeline::run::Run;
use deploy_plan::plan::{Request, plan};

use super::Failures;
use crate::cli::{BuildAll, Output};
use crate::context::{Context, build_overrides, target_overrides};
use crate::render;

pub(crate) fn run(project: Option<&Path>, flags: &BuildAll) -> Result<(), Failures> {
    let context = Context::load(project, |overrides| {
        target_overrides(&flags.target, overrides);
        build_overrides(&flags.build, overrides);
    })
    .map_err(|failure| vec![failure])?;
    let reporter = render::reporter();
    let request = Request {
        environment: context.settings.environment.to_string(),
        ..Request::default()
    };
    let observer = Observer {
        settings: &context.settings,
        variables: &context.variables,
        redactor: &context.redactor,
        reporter: reporter.as_ref(),
    };
    let found = observer.project(&request);
    if !found.failures.is_empty() {
        return Err(found.failures);
    }
    let plan = plan(&request, &context.settings.config, &found.observed)?;
    let Some(build) = &plan.build else {
        return Ok(());
    };
    let sink = Redacting {
        redactor: &context.redactor,
        sink: reporter.as_ref(),
    };
    let mut run = Run::new(
        &sink,
        &context.redactor,
        &context.interrupts,
        &plan.environment,
    );
    let binaries =
        build_packages(&mut run, &context.root, build).map_err(|failure| vec![failure])?;
    if flags.target.output == Output::Human {
        for path in binaries.values() {
            render::out(&format!("{}\n", path.display()));
        }
    } else {
        render::result::document(&binaries, flags.target.output);
    }
    Ok(())
}

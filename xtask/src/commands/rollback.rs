//! `cargo xtask rollback`.

use std::path::Path;

use deploy_pipeline::observe::Observer;
use deploy_pipeline::outcome::Outcome;
use deploy_pipeline::redact::Redacting;
use deploy_pipeline::rollback::{Wanted, execute};
use deploy_pipeline::run::Run;
use deploy_plan::exit::Exit;
use deploy_plan::failure::Failure;

use super::deploy::{conclude, failed};
use super::status::connected;
use crate::cli::Rollback;
use crate::context::{Context, target_overrides};
use crate::render;

pub(crate) fn run(project: Option<&Path>, flags: &Rollback) -> Exit {
    let output = flags.target.output;
    let context = Context::load(project, |overrides| {
        target_overrides(&flags.target, overrides);
        overrides.set_some("--timeout", "deploy.timeout", flags.timeout.as_deref());
    });
    let outcome = match context {
        Ok(context) => perform(&context, flags),
        Err(failure) => {
            let environment = flags.target.environment.clone().unwrap_or_default();
            failed(&environment, vec![failure])
        }
    };
    conclude(&outcome, output)
}

fn perform(context: &Context, flags: &Rollback) -> Outcome {
    let reporter = render::reporter();
    let environment = context.settings.environment.to_string();
    let found = Observer {
        settings: &context.settings,
        variables: &context.variables,
        redactor: &context.redactor,
        reporter: reporter.as_ref(),
    }
    .target();
    let (control, live) = match connected(context, found) {
        Ok(connected) => connected,
        Err(failures) => return failed(&environment, failures),
    };
    let sink = Redacting {
        redactor: &context.redactor,
        sink: reporter.as_ref(),
    };
    let mut run = Run::new(&sink, &context.redactor, &context.interrupts, &environment);
    run.outcome.previous = live.map(|live| deploy_plan::report::Previous {
        deployment: live.deployment,
        tag: live.tag,
        digest: live.digest,
    });
    let wanted = Wanted {
        to: flags.to.clone(),
        wait: !flags.no_wait,
        timeout: context.settings.config.deploy.timeout.as_std(),
    };
    let result: Result<(), Failure> = execute(&mut run, &control, &context.state(), &wanted);
    let mut outcome = run.outcome;
    if let Err(failure) = result {
        outcome
            .failures
            .push(context.redactor.clean_failure(failure));
    }
    outcome
}

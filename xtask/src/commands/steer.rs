//! `cargo xtask promote` and `cargo xtask abort`: a word to the deployment that is being made now.

use std::path::Path;

use deploy_pipeline::control::{self, Control};
use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};
use management_api::client::ApiError;
use management_api::types::{Deployment, is_final};

use super::Failures;
use crate::cli::{Output, Steer};
use crate::context::{Context, target_overrides};
use crate::render;

/// What is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// Go on to the next step.
    Promote,
    /// Undo everything.
    Abort,
}

pub(crate) fn run(project: Option<&Path>, flags: &Steer, word: Word) -> Result<(), Failures> {
    let context = Context::load(project, |overrides| {
        target_overrides(&flags.target, overrides);
    })
    .map_err(|failure| vec![failure])?;
    let control = super::status::connect(&context)?;
    let said = say(&control, flags.deployment, word);
    let deployment = said.map_err(|failure| vec![context.redactor.clean_failure(failure)])?;
    if flags.target.output == Output::Human {
        let what = match word {
            Word::Promote => "goes on",
            // An operator said so of one that could not be undone.
            Word::Abort if is_final(&deployment.state) => "is settled",
            Word::Abort => "is being undone",
        };
        render::out(&format!("deployment {} {what}\n", deployment.number));
    } else {
        render::result::document(&deployment, flags.target.output);
    }
    Ok(())
}

fn say(control: &Control, number: Option<u64>, word: Word) -> Result<Deployment, Failure> {
    let (client, tenant) = (&control.client, &control.tenant);
    let named = number.is_some();
    let number = match number {
        Some(number) => number,
        None => running(control)?,
    };
    match word {
        Word::Promote => client.promote(tenant, number),
        Word::Abort => client.abort(tenant, number),
    }
    .map_err(|e| refusal(&e, word, named))?;
    let deployment = client.deployment(tenant, number);
    deployment.map_err(|e| control::failure(Step::Inspect, &e))
}

/// Why the word was not taken. What is in progress is the very deployment that it is for, so that waiting for its end is
/// no way out.
fn refusal(error: &ApiError, word: Word, named: bool) -> Failure {
    let failure = control::failure(Step::Inspect, error);
    match (error, word) {
        (ApiError::NotFound { .. }, _) if named => Failure::new(
            Step::Inspect,
            "deployment_unknown",
            Exit::Other,
            failure.details,
            "`cargo xtask history` lists the deployments of this tenant",
        ),
        (ApiError::Refused { status: 409, .. }, Word::Promote) => Failure::new(
            Step::Inspect,
            "not_watched",
            Exit::Other,
            failure.details,
            "`cargo xtask status` tells how far it is; undo it, if it is in progress: cargo xtask abort",
        ),
        (ApiError::Refused { status: 409, .. }, Word::Abort) => Failure::new(
            Step::Inspect,
            "nothing_in_progress",
            Exit::Other,
            failure.details,
            TO_UNDO,
        ),
        _ => failure,
    }
}

/// What is over is not aborted.
const TO_UNDO: &str = "see `cargo xtask history`; to undo one that is over: cargo xtask rollback";

/// The deployment that is being made now.
fn running(control: &Control) -> Result<u64, Failure> {
    let status = control.client.status(&control.tenant);
    let status = status.map_err(|e| control::failure(Step::Inspect, &e))?;
    status.running.map(|running| running.number).ok_or_else(|| {
        Failure::new(
            Step::Inspect,
            "nothing_in_progress",
            Exit::Other,
            format!("no deployment of tenant {} is in progress", control.tenant),
            TO_UNDO,
        )
    })
}

//! `cargo xtask status`: what serves now and what is being deployed.

use std::path::Path;

use deploy_pipeline::control::{self, Control};
use deploy_pipeline::observe::{Observation, Observer};
use deploy_pipeline::platform::Platform;
use deploy_plan::config::ControlPlane;
use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};
use deploy_plan::observed::Live;
use deploy_plan::plan::Request;
use deploy_plan::preflight;
use management_api::types::{Deployment, TenantStatus};

use super::Failures;
use crate::cli::{Output, Target};
use crate::context::{Context, target_overrides};
use crate::render;
use crate::render::services::{self, Row};

pub(crate) fn run(project: Option<&Path>, target: &Target) -> Result<(), Failures> {
    let context = Context::load(project, |overrides| {
        target_overrides(target, overrides);
    })
    .map_err(|failure| vec![failure])?;
    let control = connect(&context)?;
    let status = control
        .client
        .status(&control.tenant)
        .map_err(|e| vec![control::failure(Step::Inspect, &e)])?;
    if target.output == Output::Human {
        render::out(&text(&context, &control, &status));
    } else {
        render::result::document(&status, target.output);
    }
    Ok(())
}

/// Reaches the control plane for a command that only looks or asks.
pub(super) fn connect(context: &Context) -> Result<Control, Failures> {
    let reporter = render::reporter();
    let found = Observer {
        settings: &context.settings,
        variables: &context.variables,
        redactor: &context.redactor,
        reporter: reporter.as_ref(),
    }
    .target();
    connected(context, found).map(|(control, _)| control)
}

/// The control plane that an observation reached, or why it reached none.
pub(super) fn connected(
    context: &Context,
    mut found: Observation,
) -> Result<(Control, Option<Live>), Failures> {
    if let Some(control) = found.control.take() {
        return Ok((control, found.observed.live));
    }
    let mut failures = found.failures;
    failures.extend(no_credentials(context, &found.observed));
    if failures.is_empty() {
        debug_assert_eq!(
            context.settings.config.control_plane,
            ControlPlane::Embedded
        );
        failures.push(nothing_answers(&context.state()));
    }
    Err(failures
        .into_iter()
        .map(|failure| context.redactor.clean_failure(failure))
        .collect())
}

fn no_credentials(
    context: &Context,
    observed: &deploy_plan::observed::Observed,
) -> Option<Failure> {
    let request = Request {
        environment: context.settings.environment.to_string(),
        ..Request::default()
    };
    preflight::credentials(&request, &context.settings.config, observed)
}

/// Why there is nobody to ask on this machine.
fn nothing_answers(state: &Path) -> Failure {
    let silent = Platform::of(state).silent(Step::Inspect);
    silent.unwrap_or_else(|| {
        Failure::new(
            Step::Inspect,
            "platform_not_running",
            Exit::Other,
            "the platform on this machine does not run",
            "start it: cargo xtask local up, or deploy: cargo xtask deploy",
        )
    })
}

fn text(context: &Context, control: &Control, status: &TenantStatus) -> String {
    let mut lines = vec![
        format!("environment  {}", context.settings.environment),
        format!("platform     {}", control.client.base_url()),
        format!("tenant       {}", control.tenant),
        format!("status       {}", status.status),
    ];
    if let Some(message) = &status.message {
        lines.push(format!("             {message}"));
    }
    if let Some(live) = &status.live {
        lines.push(format!("live         {}", release(live)));
    }
    if let Some(running) = &status.running {
        lines.push(format!(
            "in progress  {} — {}",
            release(running),
            running.state
        ));
    }
    if let Some(url) = &status.app_url {
        lines.push(format!("url          {url}"));
    }
    let mut text = format!("{}\n", lines.join("\n"));
    if status.services.len() > 1 {
        let services = status.services.iter().map(Row::of_status);
        text.push_str(&services::table(services));
    }
    text
}

fn release(deployment: &Deployment) -> String {
    let tag = deployment.tag.as_deref().unwrap_or("(no tag)");
    let digest = deployment.digest.get(..19).unwrap_or(&deployment.digest);
    format!("deployment {}, {tag}, {digest}", deployment.number)
}

//! `cargo xtask doctor`: everything that a deployment needs, looked at without doing anything.

use std::path::Path;

use deploy_pipeline::observe::Observer;
use deploy_plan::config::{APP, ControlPlane, ServiceName};
use deploy_plan::exit::Exit;
use deploy_plan::failure::Failure;
use deploy_plan::observed::{Dockerfile, Observed};
use deploy_plan::plan::{Request, plan};
use serde::Serialize;

use crate::cli::{Output, Target};
use crate::context::{Context, target_overrides};
use crate::render;

#[derive(Serialize)]
struct Finding {
    what: &'static str,
    good: bool,
    details: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    resolution: String,
}

pub(crate) fn run(project: Option<&Path>, target: &Target) -> Exit {
    let context = match Context::load(project, |o| {
        target_overrides(target, o);
    }) {
        Ok(context) => context,
        Err(failure) => {
            render::result::failed(std::slice::from_ref(&failure), target.output);
            return failure.exit;
        }
    };
    let findings = examine(&context);
    if target.output == Output::Human {
        render::out(&text(&findings));
    } else {
        render::result::document(&findings, target.output);
    }
    if findings.iter().all(|finding| finding.good) {
        Exit::Done
    } else {
        Exit::Configuration
    }
}

fn examine(context: &Context) -> Vec<Finding> {
    let reporter = render::reporter();
    let request = Request {
        environment: context.settings.environment.to_string(),
        ..Request::default()
    };
    let found = Observer {
        settings: &context.settings,
        variables: &context.variables,
        redactor: &context.redactor,
        reporter: reporter.as_ref(),
    }
    .everything(&request);
    let mut findings = facts(context, &found.observed);
    let planned = plan(&request, &context.settings.config, &found.observed);
    let failures = planned.err().unwrap_or_default();
    for failure in found.failures.into_iter().chain(failures) {
        findings.push(bad(&context.redactor.clean_failure(failure)));
    }
    findings
}

fn bad(failure: &Failure) -> Finding {
    let failure = render::same_target::failure(failure);
    Finding {
        what: failure.step.name(),
        good: false,
        details: failure.details,
        resolution: failure.resolution,
    }
}

fn good(what: &'static str, details: String) -> Finding {
    Finding {
        what,
        good: true,
        details,
        resolution: String::new(),
    }
}

fn facts(context: &Context, observed: &Observed) -> Vec<Finding> {
    let config = &context.settings.config;
    let mut facts = vec![good("project", context.root.display().to_string())];
    if let Some(git) = &observed.git {
        let state = if git.dirty {
            "uncommitted changes"
        } else {
            "clean"
        };
        facts.push(good("git", format!("{}, {state}", git.sha)));
    }
    let binaries: usize = observed.packages.iter().map(|p| p.binaries.len()).sum();
    facts.push(good(
        "cargo",
        format!("{} packages, {binaries} binaries", observed.packages.len()),
    ));
    if let Dockerfile::Read { copies, from, .. } = &observed.dockerfile {
        facts.push(good(
            "dockerfile",
            format!("FROM {from}, {} COPY lines", copies.len()),
        ));
    }
    let others = config.services.others.keys();
    let others: Vec<&str> = others.map(ServiceName::as_str).collect();
    if !others.is_empty() {
        facts.push(good("services", format!("{APP}, {}", others.join(", "))));
    }
    let enabled = observed.extensions.iter().filter(|e| e.enabled).count();
    facts.push(good("extensions", format!("{enabled} enabled")));
    let target = match config.control_plane {
        ControlPlane::Embedded => "the platform on this machine".to_owned(),
        ControlPlane::ManagementApi => config.api.url.to_string(),
    };
    facts.push(good(
        "target",
        format!("environment {}, {target}", context.settings.environment),
    ));
    if let Some(live) = &observed.live {
        let tag = live.tag.as_deref().unwrap_or("no tag");
        facts.push(good(
            "live",
            format!("deployment {}, {tag}", live.deployment),
        ));
    }
    facts
}

fn text(findings: &[Finding]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for finding in findings {
        let mark = if finding.good { "ok " } else { "BAD" };
        let _ = writeln!(text, "{mark} {:<11} {}", finding.what, finding.details);
        if !finding.resolution.is_empty() {
            let _ = writeln!(text, "    {:<11} {}", "", finding.resolution);
        }
    }
    text
}

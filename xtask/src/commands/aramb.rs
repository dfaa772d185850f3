//! `cargo xtask deploy` for an `aramb.toml`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use deploy_config::aramb::ARAMB_TOML;
use deploy_config::project::{DEPLOY_TOML, FOLDER};
use deploy_pipeline::aramb::install::Install;
use deploy_pipeline::aramb::{Cli, Finished, Policy, Request, deploy};
use deploy_pipeline::interrupt::Interrupts;
use deploy_plan::aramb::{FlowError, Wanted};
use deploy_plan::config;
use deploy_plan::exit::Exit;

use crate::cli::{self, Aramb, Deploy, Output};
use crate::context::environment;
use crate::render::{self, err, out, table::table};

/// How long services may take until they are healthy, where nothing is said.
const TIMEOUT: Duration = Duration::from_mins(10);

/// The file that is deployed: the one named, else the nearest project's own, if that has no `deploy.toml`.
pub(crate) fn find(project: Option<&Path>, flags: &Aramb) -> Option<PathBuf> {
    let start = match project {
        Some(folder) => std::path::absolute(folder),
        None => std::env::current_dir(),
    };
    let start = start.ok()?;
    if let Some(file) = &flags.config {
        return Some(start.join(file));
    }
    let is_project = |folder: &&Path| {
        [ARAMB_TOML, FOLDER]
            .iter()
            .any(|name| folder.join(name).exists())
    };
    let folder = start.ancestors().find(is_project)?;
    let file = folder.join(ARAMB_TOML);
    (file.is_file() && !folder.join(DEPLOY_TOML).exists()).then_some(file)
}

pub(crate) fn run(file: PathBuf, flags: &Deploy) -> Exit {
    let request = match request(file, flags) {
        Ok(request) => request,
        Err(details) => {
            err(&format!("error: {details}\n"));
            return Exit::Usage;
        }
    };
    let interrupts = match Interrupts::catch() {
        Ok(interrupts) => interrupts,
        Err(error) => {
            err(&format!("error: cannot watch for signals: {error}\n"));
            return Exit::Other;
        }
    };
    let variables = environment();
    let path = variables.get("PATH").map_or("", String::as_str);
    let jobs = match request.policy {
        Policy::Strict => 1,
        Policy::Guarded => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let mut plane = Cli::new(Cli::find("aramb", path), variables.clone(), jobs);
    if flags.aramb.install_cli {
        plane = plane.installing(Install::here(flags.aramb.cli_sha256.clone()));
    }
    let reporter = render::reporter();
    let redactor = render::redactor();
    let finished = deploy(
        &request,
        &mut plane,
        reporter.as_ref(),
        &redactor,
        &interrupts,
    );
    // A terminal's passing lines end before the result begins.
    drop(reporter);
    conclude(&finished, flags.target.output);
    finished.exit
}

fn request(file: PathBuf, flags: &Deploy) -> Result<Request, String> {
    let aramb = &flags.aramb;
    refuse_others(flags)?;
    let timeout = match &flags.timeout {
        Some(text) => text
            .parse::<config::Duration>()
            .map_err(|error| format!("--timeout: {error}"))?
            .as_std(),
        None => TIMEOUT,
    };
    let wanted = if !aramb.services.is_empty() {
        Wanted::Services(aramb.services.clone())
    } else if !aramb.backend_services.is_empty() {
        Wanted::Backends(aramb.backend_services.clone())
    } else {
        Wanted::All
    };
    Ok(Request {
        path: file,
        policy: match aramb.policy {
            Some(cli::Policy::Guarded) => Policy::Guarded,
            Some(cli::Policy::Strict) | None => Policy::Strict,
        },
        wanted,
        skip_build: flags.skip_build,
        push: aramb.push_registry,
        write_back: aramb.write_back,
        force: flags.force,
        require_clean: flags.require_clean,
        dry_run: flags.dry_run,
        timeout,
    })
}

/// A flag that is not heeded would be a lie.
fn refuse_others(flags: &Deploy) -> Result<(), String> {
    let target = &flags.target;
    let others = [
        ("--tag", flags.tag.is_some()),
        ("--skip-push", flags.skip_push),
        ("--no-wait", flags.no_wait),
        ("--strategy", flags.strategy.is_some()),
        ("--replicas", flags.replicas.is_some()),
        ("--verify", flags.verify),
        ("--profile", flags.build.profile.is_some()),
        ("--locked", flags.build.locked),
        ("--builder", flags.builder.is_some()),
        ("--base", flags.base.is_some()),
        ("--environment", target.environment.is_some()),
        ("--tenant", target.tenant.is_some()),
        ("--api-url", target.api_url.is_some()),
    ];
    let given: Vec<_> = others
        .iter()
        .filter_map(|(name, is_given)| is_given.then_some(*name))
        .collect();
    if given.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{} is not for the control plane of an aramb.toml; see docs/guides/aramb.md",
        given.join(", ")
    ))
}

fn conclude(finished: &Finished, output: Output) {
    if output == Output::Human {
        err(&services(finished));
        let outputs = finished.report.deployments.as_ref();
        let url = outputs.and_then(|deployments| deployments.backend_outputs.public_url.as_deref());
        if let Some(url) = url.filter(|_| finished.error.is_none()) {
            out(&format!("{url}\n"));
        }
        if finished.error.is_none() {
            err(&format!(
                "{} in {}\n",
                finished.report.status, finished.report.total_time
            ));
        }
    } else {
        render::result::document(&finished.report, output);
    }
    if let Some(error) = &finished.error {
        err(&told(error));
    }
}

/// The three parts that programs look for in the output of this flow.
fn told(error: &FlowError) -> String {
    let details = if error.details.is_empty() {
        "none".to_owned()
    } else {
        error.details.join("\n")
    };
    format!(
        "ERROR: {}\nStep: {}\nDetails: {details}\n",
        error.message, error.step
    )
}

fn services(finished: &Finished) -> String {
    let rows: Vec<_> = finished
        .services
        .iter()
        .map(|line| {
            let reached = match (&line.public_url, &line.internal_url) {
                (Some(public), _) => public.clone(),
                (None, Some(internal)) => format!("{internal} (for the other services)"),
                (None, None) => String::new(),
            };
            vec![
                line.service.clone(),
                line.kind.to_owned(),
                line.state.to_owned(),
                reached,
            ]
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    format!("\n{}", table(&["SERVICE", "TYPE", "STATE", "URL"], rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_the_three_parts_that_programs_look_for() {
        let error = FlowError::new(
            deploy_plan::aramb::FlowStep::Build,
            "aramb_build_failed",
            Exit::Build,
            "Build failed for backend-build",
        )
        .with("Image my-app/backend-build:abc123")
        .with("Command: aramb build --name my-app/backend-build --tag abc123");
        assert_eq!(
            told(&error),
            "ERROR: Build failed for backend-build\n\
             Step: 5 - Run Build Commands\n\
             Details: Image my-app/backend-build:abc123\n\
             Command: aramb build --name my-app/backend-build --tag abc123\n"
        );
    }
}

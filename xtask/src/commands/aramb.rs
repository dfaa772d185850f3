//! `cargo xtask deploy` for an `aramb.toml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use deploy_config::aramb::ARAMB_TOML;
use deploy_config::project::{DEPLOY_TOML, FOLDER};
use deploy_config::{Overrides, Settings};
use deploy_pipeline::aramb::install::Install;
use deploy_pipeline::aramb::{Cli, ControlPlane, Finished, OwnPlatform, Policy, Request, deploy};
use deploy_pipeline::events::Reporter;
use deploy_pipeline::interrupt::Interrupts;
use deploy_plan::aramb::{FlowError, FlowStep, Wanted};
use deploy_plan::config;
use deploy_plan::exit::Exit;
use deploy_plan::failure::Failure;
use deploy_plan::plan;

use crate::cli::{self, Aramb, Deploy, Output, Plane};
use crate::context::{deploy_overrides, environment, settings_failure};
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
    let variables = environment();
    let command = Cli::find("aramb", variables.get("PATH").map_or("", String::as_str));
    let plane = chosen(flags, &variables, command.is_some());
    let mut request = match request(file, flags, plane) {
        Ok(request) => request,
        Err(details) if flags.target.output == Output::Human => {
            err(&format!("error: {details}\n"));
            return Exit::Usage;
        }
        Err(details) => {
            let error = FlowError::new(FlowStep::Read, "usage", Exit::Usage, details);
            return refused(
                policy(flags),
                error.with("cargo xtask deploy --help"),
                flags,
            );
        }
    };
    let interrupts = match Interrupts::catch() {
        Ok(interrupts) => interrupts,
        Err(error) => {
            err(&format!("error: cannot watch for signals: {error}\n"));
            return Exit::Other;
        }
    };
    let reporter = render::reporter();
    let redactor = render::redactor();
    let found: Result<Box<dyn ControlPlane>, (FlowStep, Failure)> = match plane {
        Plane::Aramb => match aramb(command, variables, flags, &request, &reporter) {
            Ok(plane) => Ok(Box::new(plane)),
            Err(failure) => Err((FlowStep::Install, failure)),
        },
        Plane::Platform => match settings(&request.path, &variables, flags) {
            Ok(settings) => {
                request.timeout = settings.config.deploy.timeout.as_std();
                Ok(Box::new(platform(settings, variables, flags, &reporter)))
            }
            Err(failure) => Err((FlowStep::Platform, failure)),
        },
    };
    let mut plane = match found {
        Ok(plane) => plane,
        Err((step, failure)) => {
            drop(reporter);
            return refused(request.policy, FlowError::of(step, &failure), flags);
        }
    };
    let finished = deploy(
        &request,
        plane.as_mut(),
        reporter.as_ref(),
        &redactor,
        &interrupts,
    );
    // A terminal's passing lines end before the result begins.
    drop(plane);
    drop(reporter);
    conclude(&finished, flags.target.output);
    finished.exit
}

/// What was named; else what the command line or the environment is made for.
fn chosen(flags: &Deploy, variables: &BTreeMap<String, String>, has_command: bool) -> Plane {
    let is_set = |names: &[&str]| {
        let mut names = names.iter();
        names.any(|name| variables.get(*name).is_some_and(|value| !value.is_empty()))
    };
    let target = &flags.target;
    let names_platform =
        target.environment.is_some() || target.tenant.is_some() || target.api_url.is_some();
    if let Some(plane) = flags.aramb.control_plane {
        plane
    } else if names_platform || is_set(&["SYSTEMPROMPT_ENVIRONMENT", "SYSTEMPROMPT_API_URL"]) {
        Plane::Platform
    } else if has_command
        || flags.aramb.install_cli
        || is_set(&["ARAMB_API_TOKEN", "APPLICATION_ID"])
    {
        Plane::Aramb
    } else {
        Plane::Platform
    }
}

fn aramb(
    command: Option<PathBuf>,
    variables: BTreeMap<String, String>,
    flags: &Deploy,
    request: &Request,
    reporter: &Arc<dyn Reporter + Send + Sync>,
) -> Result<Cli, Failure> {
    let jobs = match request.policy {
        Policy::Strict => 1,
        Policy::Guarded => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let mut plane = Cli::new(command, variables.clone(), jobs);
    if flags.builder.as_deref() == Some("native") {
        // Its images stand on what the environment of this machine says: nothing is deployed there.
        let settings = settings(&request.path, &variables, flags)?;
        let shared = Arc::clone(reporter);
        let shared = Arc::new(move |event| shared.event(event));
        plane = plane.building_natively(OwnPlatform::for_docker(settings, variables, shared));
    }
    if flags.aramb.install_cli {
        plane = plane.installing(Install::here(flags.aramb.cli_sha256.clone()));
    }
    Ok(plane)
}

/// The settings of the project that the file is in, if it is one: where to, and how.
fn settings(
    file: &Path,
    variables: &BTreeMap<String, String>,
    flags: &Deploy,
) -> Result<Settings, Failure> {
    let root = file.parent().unwrap_or(Path::new("."));
    let mut overrides = Overrides::new(variables.clone());
    deploy_overrides(flags, &mut overrides);
    Settings::load(root, &overrides).map_err(|error| settings_failure(&error))
}

fn platform(
    settings: Settings,
    variables: BTreeMap<String, String>,
    flags: &Deploy,
    reporter: &Arc<dyn Reporter + Send + Sync>,
) -> OwnPlatform {
    let shared = Arc::clone(reporter);
    let request = plan::Request {
        force: flags.force,
        verify: flags.verify,
        ..plan::Request::default()
    };
    let shared = Arc::new(move |event| shared.event(event));
    OwnPlatform::new(settings, variables, shared, &request)
}

fn request(file: PathBuf, flags: &Deploy, plane: Plane) -> Result<Request, String> {
    let aramb = &flags.aramb;
    refuse_others(flags, plane)?;
    let timeout = match &flags.timeout {
        Some(text) => text
            .parse::<config::Duration>()
            .map_err(|error| format!("--timeout: {error}"))?
            .as_std(),
        None => TIMEOUT,
    };
    let wanted = if !aramb.services.is_empty() {
        Wanted::Services(trimmed(&aramb.services))
    } else if !aramb.backend_services.is_empty() {
        Wanted::Backends(trimmed(&aramb.backend_services))
    } else {
        Wanted::All
    };
    Ok(Request {
        path: file,
        policy: policy(flags),
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

fn policy(flags: &Deploy) -> Policy {
    match flags.aramb.policy {
        Some(cli::Policy::Guarded) => Policy::Guarded,
        Some(cli::Policy::Strict) | None => Policy::Strict,
    }
}

/// `a, b` names the same as `a,b`: no name has a blank in it.
fn trimmed(names: &[String]) -> Vec<String> {
    let names = names.iter();
    names.map(|name| name.trim().to_owned()).collect()
}

/// A flag that is not heeded would be a lie.
fn refuse_others(flags: &Deploy, plane: Plane) -> Result<(), String> {
    let target = &flags.target;
    let never = [
        ("--tag", flags.tag.is_some()),
        ("--skip-push", flags.skip_push),
        ("--no-wait", flags.no_wait),
        ("--replicas", flags.replicas.is_some()),
    ];
    let by_aramb = [
        ("--strategy", flags.strategy.is_some()),
        ("--verify", flags.verify),
        (
            "--builder",
            flags
                .builder
                .as_deref()
                .is_some_and(|builder| builder != "native"),
        ),
        ("--environment", target.environment.is_some()),
        ("--tenant", target.tenant.is_some()),
        ("--api-url", target.api_url.is_some()),
    ];
    let by_platform = [
        ("--push-registry", flags.aramb.push_registry),
        ("--install-cli", flags.aramb.install_cli),
    ];
    let (of_plane, whose): (&[_], _) = match plane {
        Plane::Aramb => (&by_aramb, "--control-plane aramb"),
        Plane::Platform => (&by_platform, "--control-plane platform"),
    };
    let given: Vec<_> = never
        .iter()
        .chain(of_plane)
        .filter_map(|(name, is_given)| is_given.then_some(*name))
        .collect();
    if given.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{} does not go with an aramb.toml and {whose}; see docs/guides/aramb.md",
        given.join(", ")
    ))
}

/// It ends before a step was taken.
fn refused(policy: Policy, error: FlowError, flags: &Deploy) -> Exit {
    let finished = Finished::refused(policy, error);
    conclude(&finished, flags.target.output);
    finished.exit
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
    } else if render::unwritten::any() {
        err(&told_in_short(finished));
    }
}

/// For whoever could not be told on standard output.
fn told_in_short(finished: &Finished) -> String {
    let outputs = finished.report.deployments.as_ref();
    let url = outputs.and_then(|deployments| deployments.backend_outputs.public_url.as_deref());
    let url = url.map_or_else(String::new, |url| format!(", {url}"));
    format!("{}{url}\n", finished.report.status)
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

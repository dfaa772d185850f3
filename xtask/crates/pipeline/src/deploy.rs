//! Executing a plan: build, image, token, push, request, wait. Every choice is in the plan.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use deploy_config::Settings;
use deploy_plan::config::{Auth, Config, ControlPlane};
use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};
use deploy_plan::plan::{EMBEDDED_TENANT, Plan, SERVER_BINARY};
use deploy_plan::report::Previous;
use management_api::types::DeployAnswer;
use oci::Store;

use crate::base::Registries;
use crate::build::{self, Binaries};
use crate::control::{self, Access, Control};
use crate::events::Event;
use crate::journal::{Entry, Journal};
use crate::observe::Observation;
use crate::outcome::End;
use crate::platform::{Running, Start};
use crate::request::{key, offered, request};
use crate::run::Run;
use crate::ship::{Release, look_for_copies, ship};
use crate::{sweep, wait};

/// Reports from the threads of a push, which outlive no step but cannot borrow one.
pub type SharedReporter = Arc<dyn Fn(Event) + Send + Sync>;

/// What executing takes beside the plan.
pub struct Execution<'a> {
    /// The project's settings.
    pub settings: &'a Settings,
    /// The plan.
    pub plan: &'a Plan,
    /// What it was made from.
    pub found: Observation,
    /// For the threads of a push.
    pub shared: SharedReporter,
}

impl Execution<'_> {
    pub(crate) fn config(&self) -> &Config {
        &self.settings.config
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.settings.root.join(deploy_config::project::FOLDER)
    }

    /// The embedded platform keeps its images on this machine, for the same user: what is made here
    /// for it is made in its store, and not sent through a socket to be copied and hashed again.
    pub(crate) fn registry_store(&self) -> Option<Store> {
        let embedded = self.plan.target.control_plane == ControlPlane::Embedded;
        embedded.then(|| self.found.platform.registry_store())?
    }
}

/// Runs the plan to its end. What came out is in `run.outcome`, also when it failed.
pub fn execute(run: &mut Run<'_>, mut execution: Execution<'_>) -> Result<(), Failure> {
    note_live(run, &execution);
    let Prepared { control, release } = prepare(run, &mut execution)?;
    let end = release_it(run, &execution, &control, &release);
    keep_in_journal(run, &execution, &control, &release);
    end
}

/// The control plane, and the images of a release in the tenant's repository.
pub(crate) struct Prepared {
    pub(crate) control: Control,
    pub(crate) release: Release,
}

/// Does everything that a release takes but asking for it: builds, starts the embedded platform, and makes and sends the images.
pub(crate) fn prepare(
    run: &mut Run<'_>,
    execution: &mut Execution<'_>,
) -> Result<Prepared, Failure> {
    sweep::abandoned(&execution.state());
    if let Some(control) = &execution.found.control {
        offered(execution.config(), control)?;
    }
    let registries = Registries::default();
    look_for_copies(run, execution, &registries)?;
    let binaries = build(run, execution)?;
    let control = control(run, execution, &binaries)?;
    offered(execution.config(), &control)?;
    run.outcome.tenant = Some(control.tenant.clone());
    let release = ship(run, execution, &control, &binaries, &registries)?;
    Ok(Prepared { control, release })
}

pub(crate) fn note_live(run: &mut Run<'_>, execution: &Execution<'_>) {
    run.outcome.previous = execution.plan.live.as_ref().map(|live| Previous {
        deployment: live.deployment,
        tag: live.tag.clone(),
        digest: live.digest.clone(),
    });
}

pub(crate) fn build(run: &mut Run<'_>, execution: &Execution<'_>) -> Result<Binaries, Failure> {
    let Some(plan) = &execution.plan.build else {
        run.skip(Step::Build, "the image or its binaries are there");
        return Ok(Binaries::new());
    };
    if plan.web.is_none() && plan.invocations.is_empty() {
        run.skip(Step::Build, "the image holds nothing that cargo builds");
        return Ok(Binaries::new());
    }
    build_packages(run, &execution.settings.root, plan)
}

/// The front end and the packages.
pub fn build_packages(
    run: &mut Run<'_>,
    root: &std::path::Path,
    plan: &deploy_plan::plan::Build,
) -> Result<Binaries, Failure> {
    if let Some(folder) = &plan.web {
        run.step(Step::Web, |run| {
            build::web(run, root, folder)?;
            Ok(((), format!("built {}", folder.display())))
        })?;
    }
    run.step(Step::Build, |run| build::cargo(run, root, plan))
}

/// The control plane that observation reached, or the embedded one, started now.
fn control(
    run: &mut Run<'_>,
    execution: &mut Execution<'_>,
    binaries: &Binaries,
) -> Result<Control, Failure> {
    if let Some(control) = execution.found.control.take() {
        return Ok(control);
    }
    if execution.plan.target.control_plane != ControlPlane::Embedded {
        return Err(Failure::new(
            Step::Token,
            "control_plane_unreachable",
            Exit::Other,
            "the control plane was not reached",
            "run the same command again",
        ));
    }
    let built = binaries.get(SERVER_BINARY).cloned();
    run.step(Step::Platform, |run| {
        let running = start_embedded(execution, built)?;
        run.redactor.learn(&running.token);
        let summary = format!("started at {}", running.url);
        let access = Access {
            url: running.url,
            token: running.token,
            auth: Auth::Bearer,
            kind: ControlPlane::Embedded,
            certificates: Vec::new(),
        };
        let tenant = execution.plan.target.tenant.as_deref();
        let control = Control::connect(&access, Some(tenant.unwrap_or(EMBEDDED_TENANT)))?;
        Ok((control, summary))
    })
}

fn start_embedded(execution: &Execution<'_>, built: Option<PathBuf>) -> Result<Running, Failure> {
    let configured = execution.config().local.server.is_some();
    let there = execution.found.server.clone();
    // What was just built is what its builder wants to see, unless a server is configured.
    let binary = if configured { there } else { built.or(there) };
    let Some(binary) = binary else {
        return Err(Failure::new(
            Step::Platform,
            "server_missing",
            Exit::Configuration,
            "the embedded platform needs the `systemprompt` binary",
            "install systemprompt, or name it: local.server in .systemprompt/deploy.toml",
        ));
    };
    execution
        .found
        .platform
        .start(&Start::of_project(execution.settings, &binary))
}

fn release_it(
    run: &mut Run<'_>,
    execution: &Execution<'_>,
    control: &Control,
    release: &Release,
) -> Result<(), Failure> {
    let answer = run.step(Step::Deploy, |_| {
        let answer = ask(execution, control, release)?;
        let summary = accepted(&answer);
        Ok((answer, summary))
    })?;
    finish(
        run,
        control,
        &answer,
        execution.plan.rollout.wait,
        timeout(execution),
    )
}

/// Asks for the release.
pub(crate) fn ask(
    execution: &Execution<'_>,
    control: &Control,
    release: &Release,
) -> Result<DeployAnswer, Failure> {
    let request = request(execution, control, release);
    let client = &control.client;
    let idempotent = control.offers("idempotency");
    let answer = client.deploy(&control.tenant, &request, &key(), idempotent);
    answer.map_err(|e| control::failure(Step::Deploy, &e))
}

/// How long the release may take, the time in which it is watched included.
pub(crate) fn timeout(execution: &Execution<'_>) -> Duration {
    let rollout = &execution.plan.rollout;
    Duration::from_secs(
        rollout
            .timeout_seconds
            .saturating_add(rollout.watched_seconds),
    )
}

/// Follows an accepted deployment or rollback to its end, if that is wanted.
pub(crate) fn finish(
    run: &mut Run<'_>,
    control: &Control,
    answer: &DeployAnswer,
    wait: bool,
    timeout: Duration,
) -> Result<(), Failure> {
    run.outcome.deployment = answer.deployment;
    run.outcome.url.clone_from(&answer.app_url);
    if answer.unchanged {
        run.skip(Step::Wait, "this very release is live");
        run.outcome.end = End::Unchanged;
        note_services(run, control);
        return Ok(());
    }
    if !wait {
        run.skip(Step::Wait, "--no-wait");
        run.outcome.end = End::Started;
        return Ok(());
    }
    let ended = run.step(Step::Wait, |run| {
        let live = wait::follow(run, control, answer.deployment, timeout)?;
        let summary = live.words.clone();
        Ok((live, summary))
    });
    match ended {
        Ok(live) => {
            if live.url.is_some() {
                run.outcome.url = live.url;
            }
            run.outcome.end = End::Succeeded;
            note_services(run, control);
            Ok(())
        }
        Err(failure) => {
            run.outcome.end = match failure.exit {
                Exit::RolledBack => End::RolledBack,
                Exit::Interrupted => End::Started,
                _ => End::Failed,
            };
            Err(failure)
        }
    }
}

/// How the services of the release are that serves, where it has several. A platform that does not tell is no reason for a
/// failure: the release serves.
fn note_services(run: &mut Run<'_>, control: &Control) {
    if !control.offers("services") {
        return;
    }
    let Ok(status) = control.client.status(&control.tenant) else {
        return;
    };
    if status.services.len() > 1 {
        run.outcome.services.note_all(status.services);
    }
}

pub(crate) fn accepted(answer: &DeployAnswer) -> String {
    match (answer.unchanged, answer.deployment) {
        (true, Some(number)) => format!("unchanged: deployment {number} serves it"),
        (true, None) => "unchanged".to_owned(),
        (false, Some(number)) if let Some(message) = &answer.message => {
            format!("deployment {number}: {message}")
        }
        (false, Some(number)) => format!("deployment {number} accepted ({})", answer.status),
        (false, None) => format!("accepted ({})", answer.status),
    }
}

/// Where the platform keeps a history, ours would only repeat it.
pub(crate) fn keep_in_journal(
    run: &mut Run<'_>,
    execution: &Execution<'_>,
    control: &Control,
    release: &Release,
) {
    if control.offers("history") || run.outcome.end == End::Unchanged {
        return;
    }
    let entry = Entry {
        v: 1,
        at: execution.found.observed.now,
        environment: execution.plan.environment.clone(),
        api: control.client.base_url().to_owned(),
        tenant: control.tenant.clone(),
        image: release.app.image.clone(),
        tag: release.destination.tag.to_string(),
        digest: release.app.digest.as_ref().map(ToString::to_string),
        status: match run.outcome.end {
            End::Succeeded => "succeeded",
            End::Started => "started",
            End::RolledBack => "rolled_back",
            _ => "failed",
        }
        .to_owned(),
        url: run.outcome.url.clone(),
    };
    if let Err(error) = Journal::of(&execution.state()).append(&entry) {
        run.reporter.event(Event::Warning(format!(
            "the deployment could not be noted in the local history: {error}"
        )));
    }
}

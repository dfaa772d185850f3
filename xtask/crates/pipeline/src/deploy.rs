//! Executing a plan: build, image, token, push, request, wait. Every choice is in the plan.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use deploy_config::Settings;
use deploy_plan::config::{Auth, Config, ControlPlane, Memory, Strategy};
use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};
use deploy_plan::plan::Tag as PlannedTag;
use deploy_plan::plan::{EMBEDDED_TENANT, ImageBuilder, Plan, SERVER_BINARY};
use deploy_plan::report::Previous;
use management_api::types::{
    AnalysisSettings, CanaryStep, DeployAnswer, DeployRequest, HealthCheck, Resources,
    RolloutSettings, Source,
};
use oci::{Digest, Store};

use crate::attest::Papers;
use crate::build::{self, Binaries};
use crate::control::{self, Access, Control};
use crate::docker;
use crate::events::Event;
use crate::image::{self, Made};
use crate::journal::{Entry, Journal};
use crate::observe::Observation;
use crate::outcome::End;
use crate::platform::{Running, Start};
use crate::push::{self, Delivery, Destination};
use crate::run::Run;
use crate::wait;

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
    fn config(&self) -> &Config {
        &self.settings.config
    }

    fn state(&self) -> PathBuf {
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
    if let Some(control) = &execution.found.control {
        offered(execution.config(), control)?;
    }
    let binaries = build(run, &execution)?;
    let control = control(run, &mut execution, &binaries)?;
    offered(execution.config(), &control)?;
    run.outcome.tenant = Some(control.tenant.clone());
    let release = ship(run, &execution, &control, &binaries)?;
    let end = release_it(run, &execution, &control, &release);
    keep_in_journal(run, &execution, &control, &release);
    end
}

/// A platform that does not know a setting would ignore it: a release without its migration, for instance.
fn offered(config: &Config, control: &Control) -> Result<(), Failure> {
    let deploy = &config.deploy;
    let strategy = deploy.strategy.to_string();
    let strategies = control.capabilities.as_ref().map(|known| &known.strategies);
    let known = strategies.is_some_and(|known| known.contains(&strategy));
    let missing = [
        (
            !deploy.release_command.is_empty() && !control.offers("release-command"),
            "deploy.release_command".to_owned(),
        ),
        (
            deploy.replicas != 1 && !control.offers("replicas"),
            "deploy.replicas".to_owned(),
        ),
        (
            config.resources != deploy_plan::config::Resources::default()
                && !control.offers("resources"),
            "[resources]".to_owned(),
        ),
        (
            deploy.strategy != Strategy::Rolling && !known,
            format!("deploy.strategy = \"{strategy}\""),
        ),
    ];
    let missing: Vec<String> = missing
        .into_iter()
        .filter_map(|(is_missing, what)| is_missing.then_some(what))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::preflight(
        "not_offered",
        format!(
            "the platform at {} does not offer {}",
            control.client.base_url(),
            missing.join(", ")
        ),
        "take it out of this environment, or deploy to a platform that has it",
    ))
}

fn note_live(run: &mut Run<'_>, execution: &Execution<'_>) {
    run.outcome.previous = execution.plan.live.as_ref().map(|live| Previous {
        deployment: live.deployment,
        tag: live.tag.clone(),
        digest: live.digest.clone(),
    });
}

fn build(run: &mut Run<'_>, execution: &Execution<'_>) -> Result<Binaries, Failure> {
    let Some(plan) = &execution.plan.build else {
        run.skip(Step::Build, "the image or its binaries are there");
        return Ok(Binaries::new());
    };
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

/// An image in a registry.
struct Release {
    destination: Destination,
    digest: Option<Digest>,
}

fn ship(
    run: &mut Run<'_>,
    execution: &Execution<'_>,
    control: &Control,
    binaries: &Binaries,
) -> Result<Release, Failure> {
    let Some(image) = &execution.plan.image else {
        run.skip(Step::Image, "--skip-push");
        let destination = token(run, execution, control)?;
        let digest = run.step(Step::Push, |run| {
            let digest = push::verify(run, &destination, execution.settings)?;
            let summary = format!("{} is there", destination.image());
            Ok((digest, summary))
        })?;
        return Ok(note_release(run, destination, Some(digest)));
    };
    if image.builder == ImageBuilder::Docker {
        let destination = token(run, execution, control)?;
        let digest = docker::build_and_push(run, execution, image, binaries, &destination)?;
        return Ok(note_release(run, destination, digest));
    }
    // Before the image, because its first layers are sent while the last ones are compressed.
    let mut destination = token(run, execution, control)?;
    let client = push::sender(run, &destination, execution)?;
    let delivery = Delivery::begin(&client, &destination, &execution.state().join("cache"));
    let made = run.step(Step::Image, |run| {
        let made = image::make(run, execution, image, binaries, &delivery)?;
        let summary = made.summary();
        Ok((made, summary))
    })?;
    reuse_live_tag(execution.plan, &made, &mut destination);
    run.step(Step::Push, |run| {
        let papers = Papers::of(execution, image);
        let pushed = push::push(run, &destination, &made, &papers, delivery)?;
        let summary = image::push_summary(&destination.image(), &pushed);
        Ok(((), summary))
    })?;
    Ok(note_release(run, destination, Some(made.digest)))
}

/// The very image that serves already keeps its tag: a second deploy without changes sends nothing.
fn reuse_live_tag(plan: &Plan, made: &Made, destination: &mut Destination) {
    let PlannedTag::Generated(_) = plan.tag else {
        return;
    };
    let Some(live) = &plan.live else {
        return;
    };
    if live.digest == made.digest.to_string()
        && let Some(tag) = live.tag.as_ref().and_then(|tag| tag.parse().ok())
    {
        destination.tag = tag;
    }
}

fn note_release(run: &mut Run<'_>, destination: Destination, digest: Option<Digest>) -> Release {
    run.outcome.image = Some(destination.image());
    run.outcome.tag = Some(destination.tag.to_string());
    run.outcome.digest = digest.as_ref().map(ToString::to_string);
    Release {
        destination,
        digest,
    }
}

fn token(
    run: &mut Run<'_>,
    execution: &Execution<'_>,
    control: &Control,
) -> Result<Destination, Failure> {
    run.step(Step::Token, |run| {
        let destination = push::destination(run, control, execution.plan)?;
        let summary = format!("for {}/{}", destination.registry, destination.repository);
        Ok((destination, summary))
    })
}

fn release_it(
    run: &mut Run<'_>,
    execution: &Execution<'_>,
    control: &Control,
    release: &Release,
) -> Result<(), Failure> {
    let request = request(execution, control, release);
    let answer = run.step(Step::Deploy, |_| {
        let answer = control
            .client
            .deploy(
                &control.tenant,
                &request,
                &key(),
                control.offers("idempotency"),
            )
            .map_err(|e| control::failure(Step::Deploy, &e))?;
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

fn timeout(execution: &Execution<'_>) -> Duration {
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

fn accepted(answer: &DeployAnswer) -> String {
    match (answer.unchanged, answer.deployment) {
        (true, Some(number)) => format!("unchanged: deployment {number} serves it"),
        (true, None) => "unchanged".to_owned(),
        (false, Some(number)) => format!("deployment {number} accepted ({})", answer.status),
        (false, None) => format!("accepted ({})", answer.status),
    }
}

/// The contract's request; the rest goes only to servers that offer to understand it.
fn request(execution: &Execution<'_>, control: &Control, release: &Release) -> DeployRequest {
    let plain = DeployRequest {
        image: release.destination.image(),
        ..DeployRequest::default()
    };
    if control.capabilities.is_none() {
        return plain;
    }
    let config = execution.config();
    let several = control.offers("replicas");
    DeployRequest {
        digest: release.digest.as_ref().map(ToString::to_string),
        strategy: Some(execution.plan.rollout.strategy.to_string()),
        release_command: config.deploy.release_command.clone(),
        replicas: several.then_some(config.deploy.replicas),
        rollout: if several {
            rollout_settings(config)
        } else {
            RolloutSettings::default()
        },
        resources: resources(config),
        health: Some(health(config)),
        env: config
            .env
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        timeout_seconds: Some(execution.plan.rollout.timeout_seconds),
        source: execution.found.observed.git.as_ref().map(|git| Source {
            git_sha: git.sha.clone(),
            dirty: git.dirty,
        }),
        force: execution.plan.rollout.force,
        ..plain
    }
}

/// What belongs to the strategy: the platform refuses the rest.
fn rollout_settings(config: &Config) -> RolloutSettings {
    let rollout = &config.rollout;
    let analysis = &config.analysis;
    let mut settings = RolloutSettings {
        analysis: Some(AnalysisSettings {
            min_requests: Some(analysis.min_requests),
            max_error_percent: Some(f64::from(analysis.max_error_percent)),
            max_p95_ms: Some(analysis.max_p95.as_millis()),
            max_p95_ratio: Some(f64::from(analysis.max_p95_ratio)),
            log_patterns: Some(analysis.log_patterns.clone()),
            synthetic: Some(analysis.synthetic),
        }),
        ..RolloutSettings::default()
    };
    match config.deploy.strategy {
        Strategy::Recreate => {}
        Strategy::Rolling => {
            settings.max_surge = Some(rollout.max_surge);
            settings.max_unavailable = Some(rollout.max_unavailable);
            settings.batch_pause_ms = Some(rollout.batch_pause.as_millis());
        }
        Strategy::BlueGreen => {
            settings.bake_ms = Some(rollout.bake.as_millis());
            settings.keep_warm_ms = Some(rollout.keep_warm.as_millis());
        }
        Strategy::Canary => {
            let steps = rollout.steps.iter().map(|step| CanaryStep {
                weight: step.weight,
                pause_ms: step.pause.map(deploy_plan::config::Duration::as_millis),
            });
            settings.steps = Some(steps.collect());
        }
    }
    settings
}

fn resources(config: &Config) -> Resources {
    let resources = &config.resources;
    Resources {
        memory_bytes: resources.memory.map(Memory::bytes),
        cpu_millis: resources.cpus.millis(),
        pids: (resources.pids > 0).then_some(resources.pids),
        read_only: resources.read_only,
        best_effort: resources.best_effort,
    }
}

fn health(config: &Config) -> HealthCheck {
    let milliseconds = deploy_plan::config::Duration::as_millis;
    HealthCheck {
        path: config.health.path.clone(),
        status: config.health.status,
        interval_ms: milliseconds(config.health.interval),
        timeout_ms: milliseconds(config.health.timeout),
        start_period_ms: milliseconds(config.health.start_period),
        retries: config.health.retries,
    }
}

/// Unique to this run: the same request sent twice by us is one deployment.
pub(crate) fn key() -> String {
    let nanos = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_nanos());
    format!("{nanos:x}-{:x}", std::process::id())
}

/// Where the platform keeps a history, ours would only repeat it.
fn keep_in_journal(
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
        image: release.destination.image(),
        tag: release.destination.tag.to_string(),
        digest: release.digest.as_ref().map(ToString::to_string),
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

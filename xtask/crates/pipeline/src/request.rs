//! What a platform is asked for: the plan and its settings in the words of the Management API.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use deploy_config::Settings;
use deploy_plan::config::{
    self, Config, HealthKind, LivenessKind, Memory, Restart, ServiceHealthKind, Strategy, Variables,
};
use deploy_plan::failure::Failure;
use management_api::types::{
    AnalysisSettings, CanaryStep, DeployRequest, HealthCheck, Liveness, Probe, ProbeKind, Protocol,
    Resources, RolloutSettings, Route, Service, Source,
};

use crate::control::Control;
use crate::deploy::Execution;
use crate::ship::{InRegistry, Release};

/// As the platform has it for a service that says nothing of its health.
const PROCESS_PROOF: config::Duration = config::Duration::from_secs(2);

/// A platform that does not know a setting would ignore it: a release without its migration, for instance.
pub(crate) fn offered(config: &Config, control: &Control) -> Result<(), Failure> {
    let deploy = &config.deploy;
    let strategy = deploy.strategy.to_string();
    let strategies = control.capabilities.as_ref().map(|known| &known.strategies);
    let known = strategies.is_some_and(|known| known.contains(&strategy));
    let checks = control.offers("health-checks");
    let commands = control.offers("command-checks");
    let (health, liveness) = (config.health.kind, config.liveness.kind);
    let health_offered = match health {
        HealthKind::Http => true,
        HealthKind::Tcp => checks,
        HealthKind::Command | HealthKind::Image => commands,
        HealthKind::Process => control.offers("services"),
    };
    let liveness_offered = match liveness {
        LivenessKind::None => true,
        LivenessKind::Http | LivenessKind::Tcp => checks,
        LivenessKind::Command => commands,
    };
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
            deploy.restart != Restart::Always && !control.offers("restart"),
            format!("deploy.restart = \"{}\"", deploy.restart),
        ),
        (!liveness_offered, format!("liveness.kind = \"{liveness}\"")),
        (!health_offered, format!("health.kind = \"{health}\"")),
        (
            config.health.body.is_some() && !checks,
            "health.body".to_owned(),
        ),
        (
            config.resources != deploy_plan::config::Resources::default()
                && !control.offers("resources"),
            "[resources]".to_owned(),
        ),
        (
            !config.services.is_empty() && !control.offers("services"),
            "[services]".to_owned(),
        ),
        (
            config.services.has_volumes() && !control.offers("volumes"),
            "volumes".to_owned(),
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

/// The contract's request; the rest goes only to servers that offer to understand it.
pub(crate) fn request(
    execution: &Execution<'_>,
    control: &Control,
    release: &Release,
) -> DeployRequest {
    let plain = DeployRequest {
        image: release.app.image.clone(),
        ..DeployRequest::default()
    };
    if control.capabilities.is_none() {
        return plain;
    }
    let config = execution.config();
    let app = config.services.app.clone().unwrap_or_default();
    let several = control.offers("replicas");
    DeployRequest {
        digest: release.app.digest.as_ref().map(ToString::to_string),
        strategy: Some(execution.plan.rollout.strategy.to_string()),
        release_command: config.deploy.release_command.clone(),
        replicas: several.then_some(config.deploy.replicas),
        rollout: if several {
            rollout_settings(config)
        } else {
            RolloutSettings::default()
        },
        resources: resources(&config.resources),
        restart: restart(config.deploy.restart),
        health: Some(health(
            &config.health,
            of_app(config.health.kind),
            &config.liveness,
        )),
        env: env(&config.env),
        command: app.command,
        depends_on: app.depends_on,
        volumes: app.volumes,
        routes: app.routes.map(|routes| routes.iter().map(route).collect()),
        services: services(execution.settings, release),
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

/// The services beside `app`, each with the image that it has in the registry.
fn services(settings: &Settings, release: &Release) -> BTreeMap<String, Service> {
    let services = settings.config.services.others.iter();
    let services = services.filter_map(|(name, service)| {
        let pushed = release.services.get(name.as_str())?;
        let period = settings.origin(&format!("services.{name}.health.start_period"));
        let health = health_of(service, period.is_some());
        Some((name.to_string(), service_of(service, health, pushed)))
    });
    services.collect()
}

fn service_of(
    service: &config::Service,
    health: Option<HealthCheck>,
    pushed: &InRegistry,
) -> Service {
    Service {
        image: pushed.image.clone(),
        digest: pushed.digest.as_ref().map(ToString::to_string),
        command: service.command.clone(),
        env: env(&service.env),
        secrets: service.secrets.clone(),
        volumes: service.volumes.clone(),
        health,
        replicas: Some(service.replicas),
        resources: resources(&service.resources),
        restart: restart(service.restart),
        depends_on: service.depends_on.clone(),
        protocol: match service.speaks() {
            config::Protocol::None => None,
            config::Protocol::Http => Some(Protocol::Http),
            config::Protocol::Tcp => Some(Protocol::Tcp),
        },
        routes: service.routes.iter().map(route).collect(),
    }
}

/// Nothing where nothing is said: the platform knows the image, and what the service speaks. The start period of what only has
/// to run is no time that it may take, but one that it has to last: unless it is said, a short one is enough.
fn health_of(service: &config::Service, says_period: bool) -> Option<HealthCheck> {
    let mut asked = service.asked_health()?;
    let kind = match service.health_kind() {
        Some(ServiceHealthKind::Tcp) => ProbeKind::Tcp,
        Some(ServiceHealthKind::Command) => ProbeKind::Command,
        Some(ServiceHealthKind::Image) => ProbeKind::Image,
        Some(ServiceHealthKind::Process) => ProbeKind::Process,
        Some(ServiceHealthKind::Http | ServiceHealthKind::Auto) | None => ProbeKind::Http,
    };
    if kind == ProbeKind::Process && !says_period {
        asked.start_period = PROCESS_PROOF;
    }
    Some(health(&asked, kind, &service.liveness))
}

fn route(route: &config::Route) -> Route {
    Route {
        host: route.host.clone(),
        path: route.path.clone(),
    }
}

fn env(variables: &Variables) -> BTreeMap<String, String> {
    let variables = variables.iter();
    variables
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn restart(restart: Restart) -> management_api::types::Restart {
    match restart {
        Restart::Always => management_api::types::Restart::Always,
        Restart::OnFailure => management_api::types::Restart::OnFailure,
        Restart::Never => management_api::types::Restart::Never,
    }
}

fn resources(resources: &config::Resources) -> Resources {
    Resources {
        memory_bytes: resources.memory.map(Memory::bytes),
        cpu_millis: resources.cpus.millis(),
        pids: (resources.pids > 0).then_some(resources.pids),
        read_only: resources.read_only,
        best_effort: resources.best_effort,
    }
}

fn of_app(kind: HealthKind) -> ProbeKind {
    match kind {
        HealthKind::Http => ProbeKind::Http,
        HealthKind::Tcp => ProbeKind::Tcp,
        HealthKind::Command => ProbeKind::Command,
        HealthKind::Image => ProbeKind::Image,
        HealthKind::Process => ProbeKind::Process,
    }
}

fn health<K>(health: &config::Health<K>, kind: ProbeKind, check: &config::Liveness) -> HealthCheck {
    let milliseconds = deploy_plan::config::Duration::as_millis;
    HealthCheck {
        probe: Probe {
            kind,
            path: health.path.clone(),
            status: health.status,
            body: health.body.clone(),
            command: health.command.clone(),
        },
        liveness: liveness(check),
        interval_ms: milliseconds(health.interval),
        timeout_ms: milliseconds(health.timeout),
        start_period_ms: milliseconds(health.start_period),
        retries: health.retries,
    }
}

fn liveness(check: &config::Liveness) -> Option<Liveness> {
    let kind = match check.kind {
        LivenessKind::None => return None,
        LivenessKind::Http => ProbeKind::Http,
        LivenessKind::Tcp => ProbeKind::Tcp,
        LivenessKind::Command => ProbeKind::Command,
    };
    Some(Liveness {
        probe: Probe {
            kind,
            path: check.path.clone(),
            status: check.status,
            body: None,
            command: check.command.clone(),
        },
        interval_ms: check.interval.as_millis(),
        timeout_ms: check.timeout.as_millis(),
        retries: check.retries,
    })
}

/// Unique to this run: the same request sent twice by us is one deployment.
pub(crate) fn key() -> String {
    let nanos = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_nanos());
    format!("{nanos:x}-{:x}", std::process::id())
}

//! What a platform is asked for: the plan and its settings in the words of the Management API.

use std::time::{SystemTime, UNIX_EPOCH};

use deploy_plan::config::{Config, HealthKind, LivenessKind, Memory, Restart, Strategy};
use deploy_plan::failure::Failure;
use management_api::types::{
    AnalysisSettings, CanaryStep, DeployRequest, HealthCheck, Liveness, Probe, ProbeKind,
    Resources, RolloutSettings, Source,
};

use crate::control::Control;
use crate::deploy::{Execution, Release};

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
        restart: match config.deploy.restart {
            Restart::Always => management_api::types::Restart::Always,
            Restart::OnFailure => management_api::types::Restart::OnFailure,
            Restart::Never => management_api::types::Restart::Never,
        },
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
        probe: Probe {
            kind: match config.health.kind {
                HealthKind::Http => ProbeKind::Http,
                HealthKind::Tcp => ProbeKind::Tcp,
                HealthKind::Command => ProbeKind::Command,
                HealthKind::Image => ProbeKind::Image,
            },
            path: config.health.path.clone(),
            status: config.health.status,
            body: config.health.body.clone(),
            command: config.health.command.clone(),
        },
        liveness: liveness(config),
        interval_ms: milliseconds(config.health.interval),
        timeout_ms: milliseconds(config.health.timeout),
        start_period_ms: milliseconds(config.health.start_period),
        retries: config.health.retries,
    }
}

fn liveness(config: &Config) -> Option<Liveness> {
    let check = &config.liveness;
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

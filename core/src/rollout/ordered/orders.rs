//! What an engine is told: a release with all that its records only name.

use std::time::Duration;

use engines::orchestrator::{
    HealthCheck, Liveness, Probe, Protocol, RestartPolicy, Route, Task, Wanted, WantedService,
};
use engines::{EngineError, Orchestrator};
use management_api::types::{self as api, Failure, ProbeKind};

use super::super::failure;
use super::super::instances::{bounds, environment};
use crate::deployments::{APP, Service};
use crate::platform::Platform;
use crate::store::DeploymentRow;
use crate::tenant::Tenant;

/// So often the engine is told the same once more, and so long lies between.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(250);

/// Tells the engine what a tenant is to run, nothing where there is no release. Returns the turn of it.
pub(super) async fn apply(
    app: &Platform,
    tenant: &Tenant,
    engine: &dyn Orchestrator,
    row: Option<&DeploymentRow>,
    restart: bool,
) -> Result<u64, Failure> {
    let mut wanted = Wanted {
        tenant: tenant.id.clone(),
        turn: next_turn(app, tenant).await?,
        deployment: 0,
        restart,
        surge: 1,
        unavailable: 0,
        services: Vec::new(),
    };
    if let Some(row) = row {
        place(tenant, engine, Some(row)).await?;
        wanted.deployment = row.number;
        wanted.surge = row.rollout.max_surge.unwrap_or(1);
        wanted.unavailable = row.rollout.max_unavailable.unwrap_or(0);
        for name in row.capsule.order() {
            if let Some(service) = row.capsule.service(&name) {
                let service = resolved(app, row, name, service).await?;
                wanted.services.push(service);
            }
        }
    }
    let mut tries = 1;
    loop {
        match engine.apply(wanted.clone()).await {
            Ok(()) => return Ok(wanted.turn),
            // A newer one is known of by now.
            Err(EngineError::Outdated { .. }) if tries < TRIES => {
                let _ = super::sight::look(app, tenant, engine).await;
                wanted.turn = next_turn(app, tenant).await?;
            }
            Err(error) if tries < TRIES => {
                tracing::debug!(tenant = tenant.id, error = %crate::chain(&error), "told once more");
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(failure::not_started(&error)),
        }
        tries += 1;
    }
}

/// The command that runs before a release.
pub(super) async fn task(
    app: &Platform,
    tenant: &Tenant,
    engine: &dyn Orchestrator,
    row: &DeploymentRow,
) -> Result<Task, Failure> {
    place(tenant, engine, Some(row)).await?;
    let service = resolved(app, row, APP.to_owned(), row.capsule.app()).await?;
    Ok(Task {
        tenant: tenant.id.clone(),
        turn: next_turn(app, tenant).await?,
        deployment: row.number,
        service: WantedService {
            command: Some(row.release_command.clone()),
            ..service
        },
    })
}

async fn next_turn(app: &Platform, tenant: &Tenant) -> Result<u64, Failure> {
    let seen = tenant.sight.as_ref().map_or(0, |sight| sight.turn());
    app.store.next_turn(&tenant.id, seen).await.map_err(|error| {
        tracing::error!(tenant = tenant.id, error = %crate::chain(&error), "there is no next turn");
        failure::plain("internal", "the server could not write its state")
    })
}

/// Asks where a tenant and the services of a release are reached: applications are told before they are started.
pub(super) async fn place(
    tenant: &Tenant,
    engine: &dyn Orchestrator,
    row: Option<&DeploymentRow>,
) -> Result<(), Failure> {
    // One alone finds nobody.
    let group = row.filter(|row| !row.capsule.is_single());
    let services = group.into_iter().flat_map(|row| row.capsule.services());
    let listen = services.filter(|(_, service)| service.protocol.is_some());
    let asked = engine.place(tenant.id.clone(), listen.map(|(name, _)| name).collect());
    let place = asked.await.map_err(|error| failure::not_started(&error))?;
    tenant.set_place(place);
    Ok(())
}

async fn resolved(
    app: &Platform,
    row: &DeploymentRow,
    name: String,
    service: Service,
) -> Result<WantedService, Failure> {
    let wrong = |what: &str, error: &dyn std::fmt::Display| {
        failure::plain("internal", format!("the recorded {what} is wrong: {error}"))
    };
    let digest = service.digest.parse();
    let repository = row.tenant.parse();
    Ok(WantedService {
        image: digest.map_err(|error| wrong("digest", &error))?,
        repository: repository.map_err(|error| wrong("tenant", &error))?,
        env: environment(app, row, &name, &service).await?,
        name,
        command: (!service.command.is_empty()).then_some(service.command),
        replicas: service.replicas,
        resources: bounds(&service.resources),
        health: check(service.health),
        restart: match service.restart {
            api::Restart::Always => RestartPolicy::Always,
            api::Restart::OnFailure => RestartPolicy::OnFailure,
            api::Restart::Never => RestartPolicy::Never,
        },
        depends_on: service.depends_on.into_iter().collect(),
        protocol: service.protocol.map(|protocol| match protocol {
            api::Protocol::Http => Protocol::Http,
            api::Protocol::Tcp => Protocol::Tcp,
        }),
        routes: service
            .routes
            .into_iter()
            .map(|route| Route {
                host: route.host,
                path: route.path,
            })
            .collect(),
    })
}

fn check(check: api::HealthCheck) -> HealthCheck {
    HealthCheck {
        probe: probe(check.probe),
        interval: Duration::from_millis(check.interval_ms),
        timeout: Duration::from_millis(check.timeout_ms),
        start_period: Duration::from_millis(check.start_period_ms),
        retries: check.retries,
        liveness: check.liveness.map(|liveness| Liveness {
            probe: probe(liveness.probe),
            interval: Duration::from_millis(liveness.interval_ms),
            timeout: Duration::from_millis(liveness.timeout_ms),
            retries: liveness.retries,
        }),
    }
}

fn probe(probe: api::Probe) -> Probe {
    match probe.kind {
        ProbeKind::Tcp => Probe::Tcp,
        ProbeKind::Command => Probe::Command(probe.command),
        ProbeKind::Process => Probe::Process,
        // What the image says was put in its place when the deployment was accepted.
        ProbeKind::Http | ProbeKind::Image => Probe::Http {
            path: probe.path,
            status: probe.status,
            body: probe.body,
        },
    }
}

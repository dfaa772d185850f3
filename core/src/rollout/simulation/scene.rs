//! What a simulation deploys, and the server that it deploys to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use management_api::types::{CanaryStep, HealthCheck, Probe, ProbeKind, RolloutSettings, Route};
use secrecy::SecretSlice;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::machine::{Machine, Simulated};
use super::services::Wanted;
use crate::auth::{RegistryAccess, Signer};
use crate::data_dir::DataDir;
use crate::deployments::{Capsule, Group, Service, Strategy, capsule_fixture, settle};
use crate::engine::AnyEngine;
use crate::http::Limiter;
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::platform::{App, Platform, TIDY_REST};
use crate::rollout::instances::Adopted;
use crate::rollout::{finish_interrupted, restore_live};
use crate::settings::Settings;
use crate::sockets::Sockets;
use crate::store::deployment_fixtures::request;
use crate::store::{IdempotencyKey, NewDeployment, Store};
use crate::tenant::Tenant;
use crate::tenants::Tenants;
use crate::vault::fixtures::vault;

pub(super) const API: &str = "api";
pub(super) const WORKER: &str = "worker";
/// Of a deployment.
const TIMEOUT_SECONDS: u64 = 10;
/// For which an old set stays started.
const WARM_MILLIS: u64 = 1_500;

/// As `serve::recover` does it; the tenant listens nowhere.
pub(super) async fn recover(app: &App) {
    let mut adopted = Adopted::of(app.engine.adopt().await.unwrap());
    finish_interrupted(&app.store).await.unwrap();
    app.store.release_keys_in_flight().await.unwrap();
    for row in app.store.tenants().await.unwrap() {
        let tenant = Arc::new(Tenant::new(&row.id, app.listen, "http"));
        app.tenants.add(Arc::clone(&tenant));
        restore_live(app, &tenant, adopted.of_tenant(&row))
            .await
            .unwrap();
    }
}

pub(super) fn platform(data: &Path, store: &Store, machine: &Arc<Machine>) -> App {
    let engine = Arc::new(Simulated(Arc::clone(machine)));
    platform_on(data, store, AnyEngine::Instances(engine))
}

/// A server with a store and an engine, which listens nowhere.
pub(crate) fn platform_on(data: &Path, store: &Store, engine: AnyEngine) -> App {
    let mut settings = Settings::default();
    settings.rollout.restore_seconds = 10;
    settings.rollout.drain_seconds = 1;
    settings.rollout.stop_grace_seconds = 1;
    let data = DataDir::open(data).unwrap();
    let signer = Signer::new(&SecretSlice::from(vec![0; 32]));
    Arc::new(Platform {
        registry: Arc::new(RegistryAccess::new(store.clone(), signer)),
        limiter: Limiter::new(&settings.limits),
        tls: None,
        settings,
        store: store.clone(),
        vault: Arc::new(vault()),
        images: Arc::new(oci::Store::open(data.registry()).unwrap()),
        data,
        engine,
        tenants: Tenants::default(),
        metrics: Metrics::new(),
        keeping: Arc::default(),
        tidying: Pace::new(TIDY_REST),
        sockets: Sockets::default(),
        listen: ([127, 0, 0, 1], 0).into(),
        shutdown: CancellationToken::new(),
        tasks: TaskTracker::new(),
    })
}

pub(super) fn deployment(wanted: &Wanted, key: IdempotencyKey) -> NewDeployment {
    let capsule = capsule(wanted);
    let strategy = [
        Strategy::Rolling,
        Strategy::Recreate,
        Strategy::BlueGreen,
        Strategy::Canary,
    ][wanted.strategy];
    let asked = match strategy {
        Strategy::BlueGreen => RolloutSettings {
            keep_warm_ms: Some(WARM_MILLIS),
            ..RolloutSettings::default()
        },
        Strategy::Canary => RolloutSettings {
            steps: Some(vec![CanaryStep {
                weight: 50,
                pause_ms: Some(500),
            }]),
            ..RolloutSettings::default()
        },
        _ => RolloutSettings::default(),
    };
    NewDeployment {
        rollout: settle(strategy, capsule.replicas, &asked).unwrap(),
        strategy,
        timeout_seconds: TIMEOUT_SECONDS,
        key: Some(key),
        ..request(capsule)
    }
}

/// An application that asks an interface, and a worker that does. Each version of the application has a route of its own.
fn capsule(wanted: &Wanted) -> Capsule {
    let of = |image: u8| {
        let digit = char::from_digit(image.into(), 10).unwrap();
        Capsule {
            health: health(),
            ..capsule_fixture(digit)
        }
    };
    let route = |path: String| Route { host: None, path };
    let (app, api, worker) = wanted.images;
    let api = Service {
        protocol: None,
        routes: vec![route(format!("/api-{api}"))],
        replicas: wanted.replicas,
        ..of(api).app()
    };
    let needs_api = BTreeSet::from([API.to_owned()]);
    let mut services = BTreeMap::from([(API.to_owned(), api)]);
    if let Some(worker) = worker {
        let worker = Service {
            protocol: None,
            routes: Vec::new(),
            depends_on: needs_api.clone(),
            ..of(worker).app()
        };
        services.insert(WORKER.to_owned(), worker);
    }
    Capsule {
        replicas: wanted.replicas,
        group: Group {
            depends_on: needs_api,
            routes: Some(vec![route("/".to_owned()), route(format!("/app-{app}"))]),
            services,
            ..Group::default()
        },
        ..of(app)
    }
}

fn health() -> HealthCheck {
    HealthCheck {
        probe: Probe {
            kind: ProbeKind::Command,
            command: vec!["check".to_owned()],
            ..Probe::default()
        },
        interval_ms: 200,
        timeout_ms: 1000,
        start_period_ms: 3000,
        retries: 2,
        liveness: None,
    }
}

//! Asking for a deployment or a rollback.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use management_api::error::code;
use management_api::paths;
use management_api::types::{
    Data, DeployAnswer, DeployRequest, Resources, RollbackRequest, RolloutSettings, Service,
};
use tokio::sync::OwnedRwLockReadGuard;

use super::extract::{Body, OptionalBody, Segments};
use super::idempotency::{Scope, once};
use super::{ApiError, tenants, unknown};
use crate::auth::Identity;
use crate::deployments::{
    Capsule, Found, Kind, Refusal, Restorable, Strategy, capsule_of, check_group, group_of,
    health_check_of_image, held, release_command_of, resolve, restored_release, settle,
    settle_health, strategy_of, timeout_of, with_secrets,
};
use crate::platform::App;
use crate::rollout::{self, Unchanged};
use crate::store::{Actor, DeploymentRow, IdempotencyKey, NewDeployment, StoreError, StoredAnswer};

/// `POST /api/v1/tenants/{tenant}/deploy`.
pub(super) async fn deploy(
    State(app): State<App>,
    Segments(tenant): Segments<String>,
    Extension(caller): Extension<Identity>,
    Extension(actor): Extension<Actor>,
    headers: HeaderMap,
    body: Body<DeployRequest>,
) -> Result<Response, ApiError> {
    let warnings = unknown::in_deployment(&body.bytes)?;
    let scope = Scope {
        operation: "deploy",
        tenant: &tenant,
        caller: &caller,
    };
    once(&app, scope, &headers, &body.bytes, async |key| {
        tenants::existing(&app, &tenant).await?;
        let keeping = keep_images(&app).await;
        let hosts = app.registry_hosts(&headers);
        let force = body.value.force;
        let new = requested(&app, &tenant, actor, body.value, hosts, key).await?;
        let new = NewDeployment { warnings, ..new };
        // In this order: what is not on its way any more has become live before that is looked at.
        if !force && let Some(running) = on_its_way(&app, &new).await? {
            return Ok(already_asked(&app, &running, new.warnings));
        }
        if !force && let Some(live) = unchanged(&app, &new).await? {
            return Ok(already_live(&app, &live, new.warnings));
        }
        let unchanged = if force {
            Unchanged::Restarts
        } else {
            Unchanged::RunsOn
        };
        begin(&app, new, unchanged, keeping).await
    })
    .await
}

/// `POST /api/v1/tenants/{tenant}/rollback`.
pub(super) async fn rollback(
    State(app): State<App>,
    Segments(tenant): Segments<String>,
    Extension(caller): Extension<Identity>,
    Extension(actor): Extension<Actor>,
    headers: HeaderMap,
    OptionalBody(body): OptionalBody<RollbackRequest>,
) -> Result<Response, ApiError> {
    let warnings = unknown::in_rollback(&body.bytes)?;
    let scope = Scope {
        operation: "rollback",
        tenant: &tenant,
        caller: &caller,
    };
    once(&app, scope, &headers, &body.bytes, async |key| {
        tenants::existing(&app, &tenant).await?;
        let defaults = app.settings.request_defaults();
        let timeout_seconds = timeout_of(body.value.timeout_seconds, &defaults)?;
        let keeping = keep_images(&app).await;
        let target = restored_release(&app.store, &tenant, body.value.to.as_deref()).await?;
        check_is_kept(&app, &target).await?;
        // A way back is taken in one go: nobody wants to watch a tenth of it first.
        // Where one of the two must not run beside another, neither may this.
        let live = app.tenants.get(&tenant).and_then(|tenant| tenant.live());
        let is_own = app.engine.orchestrator().is_none();
        let alone = |strategy| strategy == Strategy::Recreate && is_own;
        let strategy = if alone(target.strategy) || live.is_some_and(|l| alone(l.row.strategy)) {
            Strategy::Recreate
        } else {
            Strategy::Rolling
        };
        let rollout = settle(
            strategy,
            target.capsule.replicas,
            &RolloutSettings::default(),
        )?;
        let new = NewDeployment {
            tenant: tenant.clone(),
            kind: Kind::Rollback,
            image: target.image,
            tag: target.tag,
            capsule: target.capsule,
            strategy,
            rollout,
            // What an older release needs of the database, its own deployment has done.
            release_command: Vec::new(),
            timeout_seconds,
            restores: Some(target.restores.unwrap_or(target.number)),
            actor,
            source: target.source,
            warnings,
            key,
        };
        begin(&app, new, Unchanged::RunsOn, keeping).await
    })
    .await
}

/// No image is collected before the deployment that needs it has begun.
type Keeping = OwnedRwLockReadGuard<()>;

async fn keep_images(app: &App) -> Keeping {
    Arc::clone(&app.keeping).read_owned().await
}

async fn requested(
    app: &App,
    tenant: &str,
    actor: Actor,
    mut request: DeployRequest,
    hosts: Vec<String>,
    key: Option<IdempotencyKey>,
) -> Result<NewDeployment, ApiError> {
    let (images, owner) = (Arc::clone(&app.images), tenant.to_owned());
    let (image, expected) = (request.image.clone(), request.digest.clone());
    let mut defaults = app.settings.request_defaults();
    let health = defaults.health.clone();
    let asked = request.health.take();
    let services = request.services.clone();
    let look = tokio::task::spawn_blocking(move || {
        let found = resolve(&images, &owner, &image, expected.as_deref(), &hosts)?;
        let of_service = |(name, service): (String, Service)| {
            let (image, expected) = (&service.image, service.digest.as_deref());
            let found = resolve(&images, &owner, image, expected, &hosts);
            let found = found.map_err(|refusal| refusal.of_service(&name))?;
            let asked = service
                .health
                .map(|asked| settle_health(&images, found.digest, asked));
            let asked = asked.transpose();
            let asked = asked.map_err(|refusal| refusal.of_service(&name))?;
            let health = health_check_of_image(&images, found.digest, health.clone());
            let digest = found.digest.to_string();
            let found = Found {
                digest,
                asked,
                health,
            };
            Ok((name, found))
        };
        let services: Result<_, Refusal> = services.into_iter().map(of_service).collect();
        let asked = asked.map(|asked| settle_health(&images, found.digest, asked));
        let health = health_check_of_image(&images, found.digest, health.clone());
        Ok::<_, Refusal>((found, asked.transpose()?, health, services?))
    });
    let looked = look.await.map_err(|error| ApiError::internal(&error))??;
    let (found, asked, health, services) = looked;
    request.health = asked;
    defaults.health = health;
    let capsule = capsule_of(&request, found.digest.to_string(), &defaults)?;
    let secrets = app.store.secrets(tenant).await?.into_iter();
    let secrets = secrets.map(|row| (row.name, row.version)).collect();
    let capsule = Capsule {
        group: group_of(&request, services)?,
        ..with_secrets(capsule, secrets)?
    };
    check_group(&capsule)?;
    for service in capsule.services().values() {
        check_limits(app, &service.resources)?;
    }
    check_volumes(app, &capsule)?;
    let strategy = strategy_of(request.strategy.as_deref())?;
    check_offered(app, strategy, &request.rollout)?;
    Ok(NewDeployment {
        tenant: tenant.to_owned(),
        kind: Kind::Deploy,
        rollout: settle(strategy, capsule.replicas, &request.rollout)?,
        release_command: release_command_of(request.release_command)?,
        capsule,
        strategy,
        timeout_seconds: timeout_of(request.timeout_seconds, &defaults)?,
        image: request.image,
        tag: found.tag,
        restores: None,
        actor,
        source: request.source,
        warnings: Vec::new(),
        key,
    })
}

/// Limits that nobody would keep are not accepted in silence.
fn check_limits(app: &App, resources: &Resources) -> Result<(), ApiError> {
    match app.engine.lacks(&rollout::bounds(resources)) {
        Some(lacking) if !resources.best_effort => Err(ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            code::LIMITS_NOT_ENFORCED,
            format!(
                "this server cannot enforce {lacking}; take the limit away, or say `best_effort`"
            ),
        )),
        _ => Ok(()),
    }
}

/// An engine that replaces instances by itself does that in its own way: nobody is to believe that somebody watches.
fn check_offered(app: &App, strategy: Strategy, asked: &RolloutSettings) -> Result<(), ApiError> {
    let Some(engine) = app.engine.orchestrator() else {
        return Ok(());
    };
    let what = match strategy {
        Strategy::Rolling if asked.analysis.is_some() => "rollout.analysis",
        Strategy::Rolling if asked.batch_pause_ms.is_some_and(|pause| pause > 0) => {
            "rollout.batch_pause_ms"
        }
        Strategy::Rolling => return Ok(()),
        Strategy::Recreate | Strategy::BlueGreen | Strategy::Canary => {
            "another strategy than rolling"
        }
    };
    Err(ApiError::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        code::NOT_OFFERED,
        format!(
            "engine {} replaces instances by itself and does not offer {what}: take it out of the request",
            engine.name()
        ),
    ))
}

/// Nobody is to find out later that nothing was kept.
fn check_volumes(app: &App, capsule: &Capsule) -> Result<(), ApiError> {
    match app.engine.lacks_volumes().filter(|_| capsule.has_volumes()) {
        None => Ok(()),
        Some(why) => Err(ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            code::VOLUMES_NOT_POSSIBLE,
            format!(
                "instances can have no volumes on this server's machine: {why}; take `volumes` away, or see `cargo xtask local status`"
            ),
        )),
    }
}

/// The live deployment, when it is of the very same release and serves.
async fn unchanged(app: &App, new: &NewDeployment) -> Result<Option<DeploymentRow>, ApiError> {
    let Some(number) = app.tenants.serving(&new.tenant) else {
        return Ok(None);
    };
    if app.store.running(&new.tenant).await?.is_some() {
        return Ok(None);
    }
    let live = app.store.deployment(&new.tenant, number).await?;
    let same = |live: &DeploymentRow| {
        live.capsule == new.capsule && live.release_command == new.release_command
    };
    Ok(live.filter(|live| live.live && same(live)))
}

/// The running deployment, when it is of the very same release in the same way, and is not being undone: whoever has asked for it
/// may have died since, and asks again.
async fn on_its_way(app: &App, new: &NewDeployment) -> Result<Option<DeploymentRow>, ApiError> {
    let running = app.store.running(&new.tenant).await?;
    let same = |running: &DeploymentRow| {
        running.kind == new.kind
            && running.capsule == new.capsule
            && running.release_command == new.release_command
            && (running.strategy, &running.rollout) == (new.strategy, &new.rollout)
    };
    let goes_on =
        |running: &DeploymentRow| running.state.may_be_aborted() || running.state.is_committed();
    Ok(running.filter(|running| same(running) && goes_on(running)))
}

async fn check_is_kept(app: &App, target: &DeploymentRow) -> Result<(), ApiError> {
    let kept = restorable(app, &target.tenant, std::slice::from_ref(target)).await?;
    if kept.holds(target) {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::GONE,
        code::RELEASE_GONE,
        format!(
            "deployment {} cannot be restored: its image or a secret of it was removed; `cargo xtask history` shows \
             which can, or deploy it again",
            target.number
        ),
    ))
}

/// What of the releases of a tenant's deployments is still there.
pub(super) async fn restorable(
    app: &App,
    tenant: &str,
    rows: &[DeploymentRow],
) -> Result<Restorable, ApiError> {
    let wanted = rows.iter().flat_map(|row| row.capsule.digests()).collect();
    let secrets = app.store.kept_secrets(tenant).await?;
    let (images, tenant) = (Arc::clone(&app.images), tenant.to_owned());
    let look = tokio::task::spawn_blocking(move || held(&images, &tenant, wanted));
    let images = look.await.map_err(|error| ApiError::internal(&error))?;
    let images = images.map_err(|error| ApiError::internal(&error))?;
    Ok(Restorable { images, secrets })
}

/// Writes the deployment and starts its rollout.
async fn begin(
    app: &App,
    new: NewDeployment,
    unchanged: Unchanged,
    keeping: Keeping,
) -> Result<StoredAnswer, ApiError> {
    let tenant = new.tenant.clone();
    let url = app.tenants.url(&tenant);
    let (owner, warnings) = (tenant.clone(), new.warnings.clone());
    let answer = move |number| {
        let answer = DeployAnswer {
            app_url: url,
            warnings,
            ..deploying(number)
        };
        accepted(&owner, number, answer)
    };
    let (platform, stored) = (App::clone(app), answer.clone());
    let begin = async move {
        let row = platform.store.begin_deployment(new, stored).await?;
        drop(keeping);
        let number = row.number;
        platform.start_rollout(row, unchanged);
        Ok(number)
    };
    match app.detached(begin).await {
        Ok(number) => Ok(answer(number)),
        Err(StoreError::InProgress { number }) => Err(busy(app, &tenant, number).await),
        Err(error) => Err(error.into()),
    }
}

async fn busy(app: &App, tenant: &str, number: u64) -> ApiError {
    let about = match app.store.deployment(tenant, number).await {
        Ok(Some(row)) if row.state == crate::deployments::State::NeedsOperator => {
            return needs_operator(number);
        }
        Ok(Some(row)) => format!(
            " ({} of {}, asked for by {} at {}, {} now)",
            row.kind.as_str(),
            row.image,
            row.actor,
            row.created_at.format("%H:%M:%S UTC"),
            row.state,
        ),
        _ => String::new(),
    };
    ApiError::new(
        StatusCode::CONFLICT,
        code::DEPLOYMENT_IN_PROGRESS,
        format!("deployment {number} is in progress{about}; wait for it or abort it"),
    )
}

/// The code that whoever deploys beside it is refused with.
pub(super) fn refused_for(row: &DeploymentRow) -> &'static str {
    if row.state == crate::deployments::State::NeedsOperator {
        code::OPERATOR_NEEDED
    } else {
        code::DEPLOYMENT_IN_PROGRESS
    }
}

fn needs_operator(number: u64) -> ApiError {
    ApiError::new(
        StatusCode::CONFLICT,
        code::OPERATOR_NEEDED,
        format!(
            "deployment {number} could not be undone, and nobody has said yet that it is settled: \
             see to it, then abort it"
        ),
    )
}

/// The answer to whoever has asked for a deployment that goes on.
fn deploying(number: u64) -> DeployAnswer {
    DeployAnswer {
        status: "deploying".to_owned(),
        app_url: None,
        message: None,
        deployment: Some(number),
        unchanged: false,
        warnings: Vec::new(),
    }
}

fn accepted(tenant: &str, number: u64, answer: DeployAnswer) -> StoredAnswer {
    stored(202, Some(paths::deployment(tenant, number)), answer)
}

fn already_asked(app: &App, running: &DeploymentRow, warnings: Vec<String>) -> StoredAnswer {
    let answer = DeployAnswer {
        app_url: app.tenants.url(&running.tenant),
        message: Some("this very release was on its way already".to_owned()),
        warnings,
        ..deploying(running.number)
    };
    accepted(&running.tenant, running.number, answer)
}

fn already_live(app: &App, live: &DeploymentRow, warnings: Vec<String>) -> StoredAnswer {
    let answer = DeployAnswer {
        status: "deployed".to_owned(),
        app_url: app.tenants.url(&live.tenant),
        message: Some(format!("deployment {} runs this very release", live.number)),
        deployment: Some(live.number),
        unchanged: true,
        warnings,
    };
    stored(200, None, answer)
}

fn stored(status: u16, location: Option<String>, answer: DeployAnswer) -> StoredAnswer {
    StoredAnswer {
        status,
        location,
        body: serde_json::json!(Data { data: answer }).to_string(),
    }
}

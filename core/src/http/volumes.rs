//! Volumes of a tenant: listed, and removed when nothing has them.

#[cfg(test)]
mod removal;

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use engines::{Clearing, EngineError};
use management_api::error::code;
use management_api::types::{Data, VolumeInfo};
use serde_json::json;

use super::ApiError;
use super::extract::Segments;
use crate::deployments::Capsule;
use crate::platform::{App, Platform};
use crate::rollout;
use crate::store::{Action, Actor, Entry};

/// `GET /api/v1/tenants/{tenant}/volumes`. Those of a tenant that was deleted are still there.
pub(super) async fn list(
    State(app): State<App>,
    Segments(tenant): Segments<String>,
) -> Result<Json<Data<Vec<VolumeInfo>>>, ApiError> {
    let found = app.engine.volumes(tenant.clone()).await?;
    let known = app.store.tenant(&tenant).await?;
    if known.is_none() && found.is_empty() {
        return Err(ApiError::no_tenant(&tenant));
    }
    let serving = serving(&app, &tenant).await?;
    let data = found.into_iter().map(|volume| VolumeInfo {
        service: serving
            .iter()
            .find_map(|(_, c)| service_with(c, &volume.name)),
        name: volume.name,
        in_use_by: volume.in_use_by,
        bytes: volume.bytes,
        created_at: volume.created_at,
    });
    let data = data.collect();
    Ok(Json(Data { data }))
}

/// `DELETE /api/v1/tenants/{tenant}/volumes/{name}`.
pub(super) async fn remove(
    State(app): State<App>,
    Segments((tenant, name)): Segments<(String, String)>,
    Extension(actor): Extension<Actor>,
) -> Result<StatusCode, ApiError> {
    let platform = App::clone(&app);
    let removal = async move { removed(&platform, &tenant, &name, &actor).await };
    app.detached(removal).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn removed(app: &Platform, tenant: &str, name: &str, by: &Actor) -> Result<(), ApiError> {
    let missing = || ApiError::not_found(format!("tenant {tenant:?} has no volume {name:?}"));
    // Before the lock: all are measured for it.
    let known = app.engine.volumes(tenant.to_owned()).await?;
    if !known.iter().any(|volume| volume.name == name) {
        return Err(missing());
    }
    let clearing = put_aside(app, tenant, name, by).await?;
    let clearing = clearing.ok_or_else(missing)?;
    app.metrics.set_volume_bytes(tenant, name, None);
    clearing.done().await?;
    tracing::info!(tenant, volume = name, "a volume was removed");
    Ok(())
}

/// Takes a volume out of the way, so that what begins from then on has another one. No deployment begins meanwhile: its files
/// may take long to go, which is for the caller to wait for.
async fn put_aside(
    app: &Platform,
    tenant: &str,
    name: &str,
    by: &Actor,
) -> Result<Option<Clearing>, ApiError> {
    let _alone = Arc::clone(&app.keeping).write_owned().await;
    for (number, capsule) in serving(app, tenant).await? {
        if let Some(service) = service_with(&capsule, name) {
            return Err(in_use(format!(
                "volume {name:?} is of the service {service} of deployment {number}: deploy a release without it first"
            )));
        }
    }
    // What is gone cannot be asked any more who wanted that.
    let entry = Entry::of(
        Action::VolumeRemove,
        Some(tenant),
        json!({ "volume": name }),
    );
    app.store.audit(by, entry).await?;
    let volume = rollout::volume(tenant, name);
    Ok(app.engine.remove_volume(volume).await?)
}

/// The releases of a tenant that have instances, or may have, each with the number of its deployment.
async fn serving(app: &Platform, tenant: &str) -> Result<Vec<(u64, Capsule)>, ApiError> {
    let row = app.store.tenant(tenant).await?;
    let stored = row.map(|row| [row.live, row.stand_in]);
    let mut releases = Vec::new();
    for number in stored.into_iter().flatten().flatten() {
        releases.extend(app.store.deployment(tenant, number).await?);
    }
    releases.extend(app.store.running(tenant).await?);
    let warm = app.tenants.get(tenant).and_then(|tenant| tenant.warm());
    releases.extend(warm.map(|warm| warm.row.clone()));
    let releases = releases.into_iter();
    Ok(releases.map(|row| (row.number, row.capsule)).collect())
}

fn service_with(capsule: &Capsule, volume: &str) -> Option<String> {
    let mut services = capsule.services().into_iter();
    let found = services.find(|(_, service)| service.volumes.contains_key(volume));
    found.map(|(name, _)| name)
}

fn in_use(message: String) -> ApiError {
    ApiError::new(StatusCode::CONFLICT, code::VOLUME_IN_USE, message)
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::VolumeInUse { .. } => {
                in_use(format!("{error}; ask again when it has ended"))
            }
            other => Self::internal(&other),
        }
    }
}

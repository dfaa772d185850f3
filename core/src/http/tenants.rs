//! Tenants: list, make, show, remove, and their present state.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use management_api::types::{Data, NewTenant, Tenant, TenantLock, TenantStatus};

use super::extract::{Body, Segments};
use super::{ApiError, wire};
use crate::auth::{Identity, Permission};
use crate::deployments::check_tenant_id;
use crate::platform::App;
use crate::store::{Actor, DeploymentRow, TenantRow};

/// `GET /api/v1/tenants`.
pub(super) async fn list(
    State(app): State<App>,
    Extension(caller): Extension<Identity>,
) -> Result<Json<Data<Vec<Tenant>>>, ApiError> {
    let data = visible(&app, &caller).await?;
    Ok(Json(Data { data }))
}

/// `POST /api/v1/tenants`.
pub(super) async fn create(
    State(app): State<App>,
    Extension(actor): Extension<Actor>,
    body: Body<NewTenant>,
) -> Result<(StatusCode, Json<Data<Tenant>>), ApiError> {
    let NewTenant { id, name } = body.value;
    check_tenant_id(&id)?;
    let name = name.unwrap_or_else(|| id.clone());
    if name.is_empty() || name.chars().count() > 100 || name.chars().any(char::is_control) {
        return Err(ApiError::invalid(
            "a tenant's name is 1 to 100 printable characters",
        ));
    }
    let platform = App::clone(&app);
    let create = async move { platform.create_tenant(&id, &name, &actor).await };
    let row = app.detached(create).await?;
    let data = wire::tenant(&app, row);
    Ok((StatusCode::CREATED, Json(Data { data })))
}

/// `GET /api/v1/tenants/{tenant}`.
pub(super) async fn show(
    State(app): State<App>,
    Segments(id): Segments<String>,
) -> Result<Json<Data<Tenant>>, ApiError> {
    let row = existing(&app, &id).await?;
    let data = wire::tenant(&app, row);
    Ok(Json(Data { data }))
}

/// `DELETE /api/v1/tenants/{tenant}`.
pub(super) async fn delete(
    State(app): State<App>,
    Segments(id): Segments<String>,
    Extension(actor): Extension<Actor>,
) -> Result<StatusCode, ApiError> {
    let platform = App::clone(&app);
    let delete = async move { platform.delete_tenant(&id, &actor).await };
    app.detached(delete).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /api/v1/tenants/{tenant}/status`.
pub(super) async fn status(
    State(app): State<App>,
    Segments(id): Segments<String>,
) -> Result<Json<Data<TenantStatus>>, ApiError> {
    let tenant = existing(&app, &id).await?;
    let running = app.store.running(&id).await?;
    let live = match tenant.live {
        Some(number) => app.store.deployment(&id, number).await?,
        None => None,
    };
    let latest = app.store.deployments(&id, 1).await?.into_iter().next();
    let (status, message) = app.tenants.summary(&id, running.as_ref(), latest.as_ref());
    let data = TenantStatus {
        status: status.to_owned(),
        message,
        app_url: app.tenants.url(&id),
        secrets_url: None,
        live: live.map(|row| wire::deployment(&app, row)),
        running: running.map(|row| wire::deployment(&app, row)),
        services: app
            .tenants
            .get(&id)
            .map_or_else(Vec::new, |tenant| wire::services(&tenant)),
    };
    Ok(Json(Data { data }))
}

/// `GET …/lock`.
pub(super) async fn lock(
    State(app): State<App>,
    Segments(id): Segments<String>,
) -> Result<Json<Data<TenantLock>>, ApiError> {
    existing(&app, &id).await?;
    let held = |row: DeploymentRow| TenantLock {
        locked: true,
        reason: Some(super::deploy::refused_for(&row).to_owned()),
        deployment: Some(row.number),
        holder: Some(row.actor),
        step: Some(row.state.to_string()),
        since: Some(row.created_at),
    };
    let data = app.store.running(&id).await?.map(held).unwrap_or_default();
    Ok(Json(Data { data }))
}

/// The tenants that a caller may look at.
pub(super) async fn visible(app: &App, caller: &Identity) -> Result<Vec<Tenant>, ApiError> {
    let rows = app.store.tenants().await?;
    Ok(rows
        .into_iter()
        .filter(|row| caller.may(Permission::Look, &row.id))
        .map(|row| wire::tenant(app, row))
        .collect())
}

/// A tenant, or the refusal that says that there is none.
pub(super) async fn existing(app: &App, id: &str) -> Result<TenantRow, ApiError> {
    app.store
        .tenant(id)
        .await?
        .ok_or_else(|| ApiError::no_tenant(id))
}

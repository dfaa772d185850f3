//! Secrets of a tenant: written, and told by name and version. No answer holds a value.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use management_api::types::{Data, SecretInfo, SecretsRequest};

use super::extract::{Body, Segments};
use super::{ApiError, tenants};
use crate::platform::App;
use crate::secrets;
use crate::store::Actor;

/// `PUT /api/v1/tenants/{tenant}/secrets`. The same again changes nothing.
pub(super) async fn change(
    State(app): State<App>,
    Segments(tenant): Segments<String>,
    Extension(actor): Extension<Actor>,
    body: Body<SecretsRequest>,
) -> Result<StatusCode, ApiError> {
    tenants::existing(&app, &tenant).await?;
    let changes = secrets::changes(&app.vault, &tenant, body.value)?;
    app.store.change_secrets(&tenant, &actor, changes).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /api/v1/tenants/{tenant}/secrets`.
pub(super) async fn list(
    State(app): State<App>,
    Segments(tenant): Segments<String>,
) -> Result<Json<Data<Vec<SecretInfo>>>, ApiError> {
    tenants::existing(&app, &tenant).await?;
    let rows = app.store.secrets(&tenant).await?.into_iter();
    let data = rows
        .map(|row| SecretInfo {
            name: row.name,
            version: row.version,
            externally_rotated: row.external,
            updated_at: row.updated_at,
        })
        .collect();
    Ok(Json(Data { data }))
}

//! Reading the audit log.

use axum::extract::State;
use axum::{Extension, Json};
use management_api::types::{AuditEntry, Data};
use schemars::JsonSchema;
use serde::Deserialize;

use super::extract::{self, QueryOf};
use super::{ApiError, wire};
use crate::auth::{Identity, Permission};
use crate::platform::App;

/// The query string of [`list`].
#[derive(Deserialize, JsonSchema)]
pub(super) struct ListQuery {
    /// Only what was done to this one.
    tenant: Option<String>,
    /// Only rows with a smaller `seq`: the next page.
    before: Option<u64>,
    /// How many; 100 when absent.
    #[schemars(range(min = 1, max = extract::MAX_LIMIT))]
    limit: Option<u32>,
}

/// `GET /api/v1/audit`.
pub(super) async fn list(
    State(app): State<App>,
    Extension(caller): Extension<Identity>,
    QueryOf(query): QueryOf<ListQuery>,
) -> Result<Json<Data<Vec<AuditEntry>>>, ApiError> {
    // A deleted tenant's rows stay, so the tenant is not asked for.
    let tenant = match (query.tenant, &caller.tenant) {
        (Some(tenant), _) => Some(tenant),
        (None, Some(own)) => Some(own.clone()),
        (None, None) => None,
    };
    let allowed = match &tenant {
        Some(tenant) => caller.may(Permission::Look, tenant),
        None => caller.is_operator(),
    };
    if !allowed {
        return Err(ApiError::forbidden(format!(
            "token {:?} may see its own tenant's rows only",
            caller.name
        )));
    }
    let limit = extract::limit(query.limit)?;
    let rows = app.store.audited(tenant, query.before, limit).await?;
    let data = rows.into_iter().map(wire::audit).collect();
    Ok(Json(Data { data }))
}

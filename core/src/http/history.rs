//! The history of a tenant, and the end of what is still running.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use management_api::types::{Data, Deployment};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::deploy::restorable;
use super::extract::{QueryOf, Segments};
use super::{ApiError, extract, tenants, wire};
use crate::deployments::State as Stage;
use crate::platform::App;
use crate::rollout;
use crate::store::{Action, Actor, DeploymentRow, Entry};

/// The query string of [`list`].
#[derive(Deserialize, JsonSchema)]
pub(super) struct ListQuery {
    /// How many; 100 when absent.
    #[schemars(range(min = 1, max = extract::MAX_LIMIT))]
    limit: Option<u32>,
}

/// `GET …/deployments`.
pub(super) async fn list(
    State(app): State<App>,
    Segments(tenant): Segments<String>,
    QueryOf(query): QueryOf<ListQuery>,
) -> Result<Json<Data<Vec<Deployment>>>, ApiError> {
    tenants::existing(&app, &tenant).await?;
    let limit = extract::limit(query.limit)?;
    let rows = app.store.deployments(&tenant, limit).await?;
    let restorable = restorable(&app, &tenant, &rows).await?;
    let told = |row: DeploymentRow| Deployment {
        gone: !restorable.holds(&row),
        ..wire::deployment(&app, row)
    };
    let data = rows.into_iter().map(told).collect();
    Ok(Json(Data { data }))
}

/// `GET …/deployments/{number}`.
pub(super) async fn show(
    State(app): State<App>,
    Segments((tenant, number)): Segments<(String, u64)>,
) -> Result<Json<Data<Deployment>>, ApiError> {
    let row = existing(&app, &tenant, number).await?;
    let kept = restorable(&app, &tenant, std::slice::from_ref(&row)).await?;
    let data = Deployment {
        gone: !kept.holds(&row),
        ..wire::deployment(&app, row)
    };
    Ok(Json(Data { data }))
}

/// `POST …/deployments/{number}/abort`. Answers at once; the events tell when it is undone.
pub(super) async fn abort(
    State(app): State<App>,
    Segments((tenant, number)): Segments<(String, u64)>,
    Extension(actor): Extension<Actor>,
) -> Result<(StatusCode, Json<Data<Deployment>>), ApiError> {
    let row = existing(&app, &tenant, number).await?;
    if row.state == Stage::NeedsOperator {
        asked(&app, &actor, Action::Abort, &row).await?;
        rollout::settle(&app, &row, &actor.name).await?;
        let data = wire::deployment(&app, existing(&app, &tenant, number).await?);
        return Ok((StatusCode::OK, Json(Data { data })));
    }
    if row.state.is_final() {
        return Err(ApiError::conflict(format!(
            "deployment {number} is over: {}",
            row.state
        )));
    }
    if row.state.may_be_aborted() {
        asked(&app, &actor, Action::Abort, &row).await?;
    }
    let undone = row.state.may_be_aborted() && app.tenants.abort(&tenant, number);
    let being_undone = matches!(row.state, Stage::Aborting | Stage::RollingBack);
    if !undone && !being_undone && !row.state.is_committed() {
        return Err(ApiError::conflict(format!(
            "deployment {number} cannot be undone at this moment ({}): ask again",
            row.state
        )));
    }
    if !undone && row.state.is_committed() {
        return Err(ApiError::conflict(format!(
            "deployment {number} serves already ({}); roll back instead",
            row.state
        )));
    }
    let data = wire::deployment(&app, row);
    Ok((StatusCode::ACCEPTED, Json(Data { data })))
}

/// `POST …/deployments/{number}/resume`: [`promote`] for one that waits for a word, and for no other.
pub(super) async fn resume(
    State(app): State<App>,
    Segments((tenant, number)): Segments<(String, u64)>,
    actor: Extension<Actor>,
) -> Result<(StatusCode, Json<Data<Deployment>>), ApiError> {
    let row = existing(&app, &tenant, number).await?;
    if row.state != Stage::Paused {
        return Err(ApiError::conflict(format!(
            "deployment {number} is {}: only one that is paused can be resumed",
            row.state
        )));
    }
    promote(State(app), Segments((tenant, number)), actor).await
}

/// `POST …/deployments/{number}/promote`. Answers at once; the events tell how it goes on.
pub(super) async fn promote(
    State(app): State<App>,
    Segments((tenant, number)): Segments<(String, u64)>,
    Extension(actor): Extension<Actor>,
) -> Result<(StatusCode, Json<Data<Deployment>>), ApiError> {
    let row = existing(&app, &tenant, number).await?;
    if row.state.may_be_promoted() {
        asked(&app, &actor, Action::Promote, &row).await?;
    }
    let promoted = row.state.may_be_promoted() && app.tenants.promote(&tenant, number);
    if !promoted {
        return Err(ApiError::conflict(format!(
            "deployment {number} is {}: only one that is being watched can be promoted",
            row.state
        )));
    }
    let data = wire::deployment(&app, row);
    Ok((StatusCode::ACCEPTED, Json(Data { data })))
}

/// Writes down who says a word to a rollout, before it is said.
async fn asked(
    app: &App,
    actor: &Actor,
    action: Action,
    row: &DeploymentRow,
) -> Result<(), ApiError> {
    let entry = Entry {
        action,
        tenant: Some(row.tenant.clone()),
        deployment: Some(row.number),
        details: json!({ "state": row.state.as_str(), "digest": row.capsule.digest }),
    };
    Ok(app.store.audit(actor, entry).await?)
}

/// A deployment, or the refusal that says that there is none.
pub(super) async fn existing(
    app: &App,
    tenant: &str,
    number: u64,
) -> Result<DeploymentRow, ApiError> {
    tenants::existing(app, tenant).await?;
    app.store
        .deployment(tenant, number)
        .await?
        .ok_or_else(|| ApiError::no_deployment(tenant, number))
}

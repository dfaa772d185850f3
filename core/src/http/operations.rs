//! What operators and probes ask of the server itself.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use management_api::error::code;
use management_api::types::{Capabilities, Data, EngineInfo, Health};

use super::extract::Segments;
use super::{ApiError, tenants};
use crate::deployments::Strategy;
use crate::platform::App;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `GET /api/v1/health`.
pub(super) async fn health() -> Json<Health> {
    Json(Health {
        status: "healthy".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        timestamp: chrono::Utc::now(),
    })
}

/// `GET /healthz`: the process answers.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: requests will be served.
pub(super) async fn readyz(State(app): State<App>) -> Result<&'static str, ApiError> {
    let unavailable =
        |message: &str| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code::UNAVAILABLE, message);
    if app.shutdown.is_cancelled() {
        return Err(unavailable("the server is stopping"));
    }
    match app.store.ping().await {
        Ok(()) => Ok("ready\n"),
        Err(error) => {
            tracing::error!(error = %crate::chain(&error), "the database does not answer");
            Err(unavailable("the database does not answer"))
        }
    }
}

/// `GET /metrics`.
pub(super) async fn metrics(State(app): State<App>) -> Result<impl IntoResponse, ApiError> {
    let text = app
        .metrics
        .encode(&app.tenants.measurements())
        .map_err(|error| ApiError::internal(&error))?;
    Ok(([(CONTENT_TYPE, OPEN_METRICS)], text))
}

/// `GET …/metrics` of a tenant.
pub(super) async fn tenant_metrics(
    State(app): State<App>,
    Segments(tenant): Segments<String>,
) -> Result<impl IntoResponse, ApiError> {
    tenants::existing(&app, &tenant).await?;
    let measured = app.tenants.measurement(&tenant);
    let text = app.metrics.encode_one(&tenant, measured.as_slice());
    let text = text.map_err(|error| ApiError::internal(&error))?;
    Ok(([(CONTENT_TYPE, OPEN_METRICS)], text))
}

/// `GET /api/v1/capabilities`.
pub(super) async fn capabilities(State(app): State<App>) -> Json<Data<Capabilities>> {
    let features = [
        "abort",
        "audit",
        "collect",
        "command-checks",
        "digest",
        "events",
        "history",
        "idempotency",
        "health-checks",
        "lock",
        "logs",
        "promote",
        "release-command",
        "replicas",
        "resources",
        "restart",
        "resume",
        "rollback",
        "secrets",
        "services",
        "tenant-metrics",
        "tokens",
        "volumes",
    ];
    // What an engine that replaces instances by itself does not offer is refused with each request, too.
    let is_own = app.engine.orchestrator().is_none();
    let features = features
        .into_iter()
        .filter(|feature| is_own || !["promote", "resume", "volumes"].contains(feature));
    let strategies = Strategy::ALL
        .into_iter()
        .filter(|strategy| is_own || *strategy == Strategy::Rolling);
    Json(Data {
        data: Capabilities {
            product: "systemprompt".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            features: features.map(str::to_owned).collect(),
            strategies: strategies.map(|s| s.as_str().to_owned()).collect(),
            engine: EngineInfo {
                name: app.engine.name().to_owned(),
                notes: app.engine.notes().to_vec(),
            },
        },
    })
}

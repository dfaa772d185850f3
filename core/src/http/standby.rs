//! What a server answers that stands by: that it lives, and who leads.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use management_api::error::code;
use management_api::paths;

use super::{ApiError, operations};
use crate::standby::Known;

/// Everything but the questions of whether it lives is refused.
pub(crate) fn standby_router(known: Known) -> Router {
    Router::new()
        .route("/healthz", get(operations::healthz))
        .route(paths::HEALTH, get(operations::health))
        .fallback(refuse)
        .with_state(known)
}

async fn refuse(State(known): State<Known>) -> ApiError {
    let who = known.leader().map_or_else(
        || "it is not known which server leads".to_owned(),
        |leader| format!("the server at {} leads", leader.address),
    );
    let message = format!("this server stands by; {who}");
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code::STANDBY, message)
}

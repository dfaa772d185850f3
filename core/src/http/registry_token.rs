//! Short-lived credentials for a tenant's repository.

use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, HeaderName};
use axum::{Extension, Json};
use management_api::types::{Data, RegistryToken, Role};

use super::extract::Segments;
use super::{ApiError, tenants};
use crate::auth::{Identity, Issue};
use crate::platform::App;
use crate::store::{Actor, TokenKind};

/// Long enough for a large push over a slow line.
const LIFETIME_SECONDS: u64 = 60 * 60;

type Answer = ([(HeaderName, &'static str); 1], Json<Data<RegistryToken>>);

/// `GET /api/v1/tenants/{tenant}/registry-token`.
pub(super) async fn issue(
    State(app): State<App>,
    Segments(id): Segments<String>,
    Extension(caller): Extension<Identity>,
    Extension(actor): Extension<Actor>,
    headers: HeaderMap,
) -> Result<Answer, ApiError> {
    tenants::existing(&app, &id).await?;
    let wanted = Issue {
        kind: TokenKind::Registry,
        name: caller.name,
        // Whoever got here may deploy; the token may do that to this tenant and no more.
        role: Role::Deployer,
        tenant: Some(id.clone()),
        parent: Some(caller.root_token),
        expires_in: Some(LIFETIME_SECONDS),
        by: actor,
    };
    let (_, token) = crate::auth::issue(&app.store, wanted).await?;
    let data = RegistryToken {
        registry: app.registry_hosts(&headers).swap_remove(0),
        username: "token".to_owned(),
        token,
        repository: Some(id),
        tag: None,
        expires_in: Some(LIFETIME_SECONDS),
    };
    Ok(([(CACHE_CONTROL, "no-store")], Json(Data { data })))
}

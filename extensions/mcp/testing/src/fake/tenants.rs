//! Tenants and tokens of the fake platform.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use chrono::{TimeDelta, Utc};
use management_api::error::code;
use management_api::types::{IssuedToken, NewTenant, NewToken, Role, Tenant, TokenInfo};

use super::{Answer, Refusal, Shared, data, lock, refuse};

pub(super) async fn list(State(world): State<Shared>) -> Answer<Vec<Tenant>> {
    let world = lock(&world);
    data(world.tenants.values().map(|t| t.tenant.clone()).collect())
}

pub(super) async fn create(
    State(world): State<Shared>,
    Json(new): Json<NewTenant>,
) -> Answer<Tenant> {
    let mut world = lock(&world);
    if world.tenants.contains_key(&new.id) {
        return refuse(409, code::CONFLICT, format!("there is a tenant {}", new.id));
    }
    let name = new.name.unwrap_or_else(|| new.id.clone());
    data(world.add_tenant(&new.id, &name))
}

pub(super) async fn remove(
    State(world): State<Shared>,
    Path(id): Path<String>,
) -> Result<StatusCode, Refusal> {
    match lock(&world).tenants.remove(&id) {
        Some(_) => Ok(StatusCode::NO_CONTENT),
        None => refuse(404, code::NOT_FOUND, format!("there is no tenant {id}")),
    }
}

pub(super) async fn tokens(State(world): State<Shared>) -> Answer<Vec<TokenInfo>> {
    data(lock(&world).tokens.clone())
}

pub(super) async fn create_token(
    State(world): State<Shared>,
    Json(new): Json<NewToken>,
) -> Answer<IssuedToken> {
    let mut world = lock(&world);
    if new.role != Role::Operator && new.tenant.is_none() {
        return refuse(400, code::INVALID_REQUEST, "this role needs a tenant");
    }
    world.issued += 1;
    let lifetime = new
        .expires_in
        .and_then(|s| TimeDelta::try_seconds(i64::try_from(s).ok()?));
    let info = TokenInfo {
        id: format!("token-{}", world.issued),
        name: new.name,
        role: new.role,
        tenant: new.tenant,
        created_at: Utc::now(),
        expires_at: lifetime.map(|lifetime| Utc::now() + lifetime),
    };
    let secret = format!("spt_{}_secret", world.issued);
    world.tokens.push(info.clone());
    let known = (secret.clone(), info.id.clone(), info.role);
    world.secrets.push(known);
    let token = secret.into();
    data(IssuedToken { info, token })
}

pub(super) async fn revoke_token(
    State(world): State<Shared>,
    Path(id): Path<String>,
) -> Result<StatusCode, Refusal> {
    let mut world = lock(&world);
    let before = world.tokens.len();
    world.tokens.retain(|token| token.id != id);
    world.secrets.retain(|(_, owner, _)| *owner != id);
    if world.tokens.len() == before {
        return refuse(404, code::NOT_FOUND, format!("there is no token {id}"));
    }
    Ok(StatusCode::NO_CONTENT)
}

//! Who calls, tokens, and their exchange.

use axum::extract::{Form, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, HeaderName};
use axum::{Extension, Json};
use chrono::TimeDelta;
use management_api::types::{
    Data, ExchangedToken, IssuedToken, Me, NewToken, Role, RotateRequest, RotatedCredentials,
    RotatedToken, TokenInfo, User,
};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;

use super::extract::{Body, OptionalBody, Segments};
use super::{ApiError, limit, tenants, wire};
use crate::auth::{Identity, Issue, authenticate, issue, renewed};
use crate::platform::App;
use crate::store::{Actor, TokenKind, now};

/// How long an exchanged token is good.
const SESSION: TimeDelta = TimeDelta::minutes(5);

/// Ten years.
const MAX_TOKEN_SECONDS: u32 = 10 * 365 * 24 * 60 * 60;
/// How long tokens that were rotated still hold, in seconds, where a request does not say.
const ROTATION_GRACE: u64 = 60 * 60;
const MAX_ROTATION_GRACE: u64 = 30 * 24 * 60 * 60;

const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// No cache may keep an answer that holds a secret.
const NO_STORE: [(HeaderName, &str); 1] = [(CACHE_CONTROL, "no-store")];

/// `GET /api/v1/auth/me`.
pub(super) async fn me(
    State(app): State<App>,
    Extension(caller): Extension<Identity>,
) -> Result<Json<Me>, ApiError> {
    let tenants = tenants::visible(&app, &caller).await?;
    Ok(Json(Me {
        user: User {
            email: format!("{}@{}", caller.root_token, "localhost"),
            id: caller.root_token,
            name: Some(caller.name),
        },
        tenants,
    }))
}

/// `GET /api/v1/tokens`.
pub(super) async fn list(State(app): State<App>) -> Result<Json<Data<Vec<TokenInfo>>>, ApiError> {
    let rows = app.store.tokens().await?;
    let data = rows.into_iter().map(wire::token).collect();
    Ok(Json(Data { data }))
}

/// `POST /api/v1/tokens`.
pub(super) async fn create(
    State(app): State<App>,
    Extension(actor): Extension<Actor>,
    body: Body<NewToken>,
) -> Result<impl axum::response::IntoResponse, ApiError> {
    let wanted = body.value;
    let expires_in = check(&app, &wanted).await?;
    let (row, token) = issue(
        &app.store,
        Issue {
            kind: TokenKind::Api,
            name: wanted.name,
            role: wanted.role,
            tenant: wanted.tenant,
            parent: None,
            expires_in,
        },
        &actor,
    )
    .await?;
    let data = IssuedToken {
        info: wire::token(row),
        token,
    };
    Ok((StatusCode::CREATED, NO_STORE, Json(Data { data })))
}

/// `DELETE /api/v1/tokens/{id}`.
pub(super) async fn revoke(
    State(app): State<App>,
    Segments(id): Segments<String>,
    Extension(actor): Extension<Actor>,
) -> Result<StatusCode, ApiError> {
    if app.store.revoke_token(&id, &actor).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(ApiError::not_found(format!("there is no token {id:?}")))
}

/// `POST /api/v1/tenants/{tenant}/rotate-credentials`.
pub(super) async fn rotate(
    State(app): State<App>,
    Segments(id): Segments<String>,
    Extension(actor): Extension<Actor>,
    OptionalBody(body): OptionalBody<RotateRequest>,
) -> Result<impl axum::response::IntoResponse, ApiError> {
    let grace = body.value.grace_seconds.unwrap_or(ROTATION_GRACE);
    let old_valid_until = i64::try_from(grace)
        .ok()
        .filter(|_| grace <= MAX_ROTATION_GRACE)
        .map(|seconds| now() + TimeDelta::seconds(seconds))
        .ok_or_else(|| {
            ApiError::invalid(format!("grace_seconds is at most {MAX_ROTATION_GRACE}"))
        })?;
    let replaced = app
        .store
        .replace_tokens(&id, old_valid_until, &actor, renewed);
    let credentials: Vec<_> = replaced
        .await?
        .into_iter()
        .map(|replaced| RotatedToken {
            issued: IssuedToken {
                info: wire::token(replaced.token),
                token: replaced.extra,
            },
            replaces: replaced.old,
        })
        .collect();
    tracing::info!(
        tenant = id,
        count = credentials.len(),
        grace,
        "tokens were rotated"
    );
    let message = match credentials.len() {
        0 => format!("tenant {id:?} has no tokens of its own; make one with POST /api/v1/tokens"),
        count => format!("{count} tokens made anew; the old ones hold for {grace} s more"),
    };
    let answer = RotatedCredentials {
        status: "rotated".to_owned(),
        message,
        old_valid_until,
        credentials,
    };
    Ok((NO_STORE, Json(answer)))
}

/// Body of the token exchange. Fields that this server does not need are accepted and ignored.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct ExchangeRequest {
    /// `urn:ietf:params:oauth:grant-type:token-exchange`.
    grant_type: String,
    /// The token to be exchanged.
    #[schemars(with = "String")]
    subject_token: SecretString,
    /// `urn:ietf:params:oauth:token-type:access_token`.
    #[serde(default)]
    subject_token_type: Option<String>,
}

/// `POST /api/v1/core/oauth/token`.
pub(super) async fn exchange(
    State(app): State<App>,
    form: Result<Form<ExchangeRequest>, axum::extract::rejection::FormRejection>,
) -> Result<impl axum::response::IntoResponse, ApiError> {
    let Form(request) = form.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            return super::extract::too_large();
        }
        ApiError::malformed("a form with grant_type and subject_token is expected")
    })?;
    if request.grant_type != TOKEN_EXCHANGE {
        return Err(ApiError::malformed(format!(
            "grant_type must be {TOKEN_EXCHANGE}"
        )));
    }
    let kind = request.subject_token_type.as_deref();
    if kind.is_some_and(|kind| kind != ACCESS_TOKEN) {
        return Err(ApiError::malformed(format!(
            "subject_token_type must be {ACCESS_TOKEN}"
        )));
    }
    let caller = authenticate(&app.store, &request.subject_token).await?;
    let caller = caller.ok_or_else(ApiError::unauthorized)?;
    limit::admit(&app, &caller.root_token)?;
    let by = Actor::named(&caller.name);
    let (_, access_token) = issue(&app.store, session(caller), &by).await?;
    let answer = ExchangedToken {
        access_token,
        expires_in: Some(SESSION.num_seconds().unsigned_abs()),
    };
    Ok((NO_STORE, Json(answer)))
}

fn session(caller: Identity) -> Issue {
    Issue {
        kind: TokenKind::Session,
        name: caller.name,
        role: caller.role,
        tenant: caller.tenant,
        parent: Some(caller.root_token),
        expires_in: Some(SESSION),
    }
}

/// Refuses what no token may be; says how long it is to hold.
async fn check(app: &App, wanted: &NewToken) -> Result<Option<TimeDelta>, ApiError> {
    let name = &wanted.name;
    if name.is_empty() || name.chars().count() > 100 || name.chars().any(char::is_control) {
        return Err(ApiError::invalid(
            "a token's name is 1 to 100 printable characters",
        ));
    }
    let expires_in = wanted.expires_in.map(life).transpose()?;
    match (&wanted.tenant, wanted.role) {
        (None, Role::Operator) => Ok(expires_in),
        (None, _) => Err(ApiError::invalid(
            "a deployer's or reader's token needs its `tenant`",
        )),
        (Some(_), Role::Operator) => Err(ApiError::invalid(
            "an operator's token is for the whole platform: leave `tenant` out",
        )),
        (Some(id), _) => tenants::existing(app, id).await.map(|_| expires_in),
    }
}

fn life(seconds: u64) -> Result<TimeDelta, ApiError> {
    let bounded = u32::try_from(seconds).ok();
    let bounded = bounded.filter(|seconds| (1..=MAX_TOKEN_SECONDS).contains(seconds));
    let bounded = bounded.map(|seconds| TimeDelta::seconds(seconds.into()));
    bounded.ok_or_else(|| {
        ApiError::invalid(format!(
            "expires_in is 1 to {MAX_TOKEN_SECONDS} seconds; leave it out for a token without an end"
        ))
    })
}

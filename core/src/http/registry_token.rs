//! Credentials for the registry: those of the control plane's contract, and the tokens that registry clients ask for
//! (`docs/spec/auth/token.md` and `oauth.md` of the distribution project).

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, RawQuery, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::{Extension, Json};
use management_api::types::{Data, RegistryAccessToken, RegistryToken};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;

use super::extract::{Segments, too_large};
use super::{ApiError, limit, tenants};
use crate::auth::{Identity, MAX_SCOPES, SERVICE, Scope, basic_password};
use crate::platform::App;

/// No cache may keep an answer that holds a secret.
type Secret<T> = ([(HeaderName, &'static str); 1], Json<T>);
const NO_STORE: [(HeaderName, &str); 1] = [(CACHE_CONTROL, "no-store")];

/// `GET /api/v1/tenants/{tenant}/registry-token`.
pub(super) async fn issue(
    State(app): State<App>,
    Segments(id): Segments<String>,
    Extension(caller): Extension<Identity>,
    headers: HeaderMap,
) -> Result<Secret<Data<RegistryToken>>, ApiError> {
    tenants::existing(&app, &id).await?;
    // Whoever got here may deploy; the token may do that to this tenant and no more.
    let made = app.registry.issue_for_push(&caller.root_token, &id);
    let data = RegistryToken {
        registry: app.registry_hosts(&headers).swap_remove(0),
        username: "token".to_owned(),
        token: made.token,
        repository: Some(id),
        tag: None,
        expires_in: Some(made.expires_in),
    };
    Ok((NO_STORE, Json(Data { data })))
}

/// The query string of [`get`], which reads it itself because `scope` may be there several times.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(super) struct TokenQuery {
    /// What the registry's challenge named.
    service: Option<String>,
    /// `repository:NAME:pull,push`; may be there several times.
    scope: Option<String>,
    /// The user name; it changes nothing.
    account: Option<String>,
}

/// `GET /token`. `account`, `client_id` and `offline_token` change nothing: the password is a token already, and there
/// are no refresh tokens, which the specification leaves to the server.
pub(super) async fn get(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Secret<RegistryAccessToken>, ApiError> {
    let pairs = || form_urlencoded::parse(query.as_deref().unwrap_or_default().as_bytes());
    let value = |name: &str| pairs().find(|(key, _)| key == name).map(|(_, value)| value);
    check_service(value("service").as_deref())?;
    let scopes = pairs().filter(|(key, _)| key == "scope");
    let scopes = scopes.map(|(_, value)| value.into_owned()).collect();
    let header = headers.get(AUTHORIZATION);
    let password = header.and_then(|value| basic_password(value.to_str().ok()?));
    let password = password.ok_or_else(no_login)?;
    hand_out(app, password, scopes, false).await
}

/// Body of `POST /token`.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct TokenForm {
    /// `password`.
    grant_type: String,
    /// The service that the challenge named.
    #[serde(default)]
    service: Option<String>,
    /// `repository:NAME:pull,push`, several with spaces between them.
    #[serde(default)]
    scope: Option<String>,
    /// A platform token, or the token of a tenant's `registry-token`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    password: Option<SecretString>,
}

/// `POST /token`. The user name, `client_id` and `access_type` change nothing.
pub(super) async fn post(
    State(app): State<App>,
    form: Result<Form<TokenForm>, FormRejection>,
) -> Result<Secret<RegistryAccessToken>, ApiError> {
    let Form(form) = form.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            return too_large();
        }
        ApiError::malformed(
            "a form with grant_type, service, scope, username and password is expected",
        )
    })?;
    if form.grant_type != "password" {
        return Err(ApiError::malformed(
            "grant_type must be password: this server gives no refresh tokens",
        ));
    }
    check_service(form.service.as_deref())?;
    let password = form.password.ok_or_else(no_login)?;
    hand_out(app, password, form.scope.into_iter().collect(), true).await
}

fn no_login() -> ApiError {
    ApiError::unauthenticated(
        "the password must be a token of the platform that holds; the operator's is in the file \
         `token` of the server's data folder",
    )
}

fn check_service(service: Option<&str>) -> Result<(), ApiError> {
    match service {
        None | Some(SERVICE) => Ok(()),
        Some(_) => Err(ApiError::malformed(format!("service must be {SERVICE}"))),
    }
}

async fn hand_out(
    app: App,
    password: SecretString,
    scopes: Vec<String>,
    is_uncounted: bool,
) -> Result<Secret<RegistryAccessToken>, ApiError> {
    let scopes: Vec<_> = scopes
        .iter()
        .flat_map(|text| text.split_whitespace())
        .collect();
    if scopes.len() > MAX_SCOPES {
        return Err(ApiError::malformed(format!(
            "a token is for at most {MAX_SCOPES} scopes"
        )));
    }
    let scopes: Vec<_> = scopes.into_iter().filter_map(Scope::parse).collect();
    let work = tokio::task::spawn_blocking(move || {
        let Some(bearer) = app.registry.identify(&password)? else {
            return Ok(None);
        };
        // What is in a header was counted before.
        if is_uncounted {
            limit::admit(&app, bearer.root_token())?;
        }
        Ok::<_, ApiError>(Some(app.registry.issue(&bearer, &scopes)?))
    });
    let made = work.await.map_err(|error| ApiError::internal(&error))??;
    let made = made.ok_or_else(no_login)?;
    let answer = RegistryAccessToken {
        token: made.token.clone(),
        access_token: made.token,
        expires_in: made.expires_in,
        issued_at: made.issued_at,
    };
    Ok((NO_STORE, Json(answer)))
}

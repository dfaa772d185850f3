//! Idempotency keys around a mutation: the same key and body are answered alike and act once.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use management_api::error::code;
use sha2::{Digest as _, Sha256};

use super::ApiError;
use crate::auth::Identity;
use crate::platform::App;
use crate::store::{Begun, IdempotencyKey, StoredAnswer};

const HEADER: &str = "idempotency-key";
const MAX_KEY: usize = 255;

/// Runs `act` unless its key was used before. `act` gets the key, to have the answer written
/// together with what it begins; what it answers without having done so is recorded here.
pub(super) async fn once<F>(
    app: &App,
    scope: Scope<'_>,
    headers: &HeaderMap,
    body: &[u8],
    act: F,
) -> Result<Response, ApiError>
where
    F: AsyncFnOnce(Option<IdempotencyKey>) -> Result<StoredAnswer, ApiError>,
{
    let Some(key) = read(scope, headers, body)? else {
        return act(None).await.map(respond);
    };
    match app.store.claim_key(key.clone()).await? {
        Begun::Replay(answer) => return Ok(replayed(answer)),
        Begun::InFlight => {
            return Err(ApiError::new(
                StatusCode::CONFLICT,
                code::IDEMPOTENCY_IN_FLIGHT,
                "a request with this idempotency key is being worked on; ask again",
            ));
        }
        Begun::Mismatch => {
            return Err(ApiError::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                code::IDEMPOTENCY_MISMATCH,
                "this idempotency key was used with another body; take a new one",
            ));
        }
        Begun::New => {}
    }
    // The client may hang up while `act` runs; the key must not stay claimed because of that.
    let claim = Claim {
        app: app.clone(),
        key: Some(key.clone()),
    };
    let result = act(Some(key.clone())).await;
    if let Ok(answer) = &result {
        app.store.finish_key(key, answer.clone()).await?;
        claim.settle();
    }
    result.map(respond)
}

/// What a key is unique within.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) operation: &'static str,
    pub(super) tenant: &'a str,
    pub(super) caller: &'a Identity,
}

/// A key that is given back unless the request was answered.
struct Claim {
    app: App,
    key: Option<IdempotencyKey>,
}

impl Claim {
    fn settle(mut self) {
        self.key = None;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        let store = self.app.store.clone();
        self.app.tasks.spawn(async move {
            if let Err(error) = store.release_key(key).await {
                tracing::warn!(error = %crate::chain(&error), "an idempotency key stays claimed");
            }
        });
    }
}

fn read(
    scope: Scope<'_>,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Option<IdempotencyKey>, ApiError> {
    let Some(value) = headers.get(HEADER) else {
        return Ok(None);
    };
    let key = value.to_str().unwrap_or_default();
    if key.is_empty() || key.len() > MAX_KEY {
        return Err(ApiError::malformed(format!(
            "Idempotency-Key must be 1 to {MAX_KEY} printable characters"
        )));
    }
    let Scope {
        operation,
        tenant,
        caller,
    } = scope;
    Ok(Some(IdempotencyKey {
        scope: format!("{operation} {tenant} {}", caller.root_token),
        key: key.to_owned(),
        body_hash: Sha256::digest(body).to_vec(),
    }))
}

fn replayed(answer: StoredAnswer) -> Response {
    let mut response = respond(answer);
    response
        .headers_mut()
        .insert("idempotency-replayed", HeaderValue::from_static("true"));
    response
}

fn respond(answer: StoredAnswer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let json = HeaderValue::from_static("application/json");
    let mut response = (status, [(header::CONTENT_TYPE, json)], answer.body).into_response();
    let location = answer.location.as_deref();
    if let Some(Ok(location)) = location.map(HeaderValue::from_str) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

//! What every request passes before its handler: identity, permission, time-out, measurement.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{MatchedPath, RawPathParams, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use management_api::error::code;
use tracing::Instrument as _;
use tracing::field::Empty;

use super::ApiError;
use super::fallback::nothing_here;
use super::listener::Peer;
use crate::auth::{Access, Bearer, Identity, authenticate, bearer};
use crate::platform::App;
use crate::telemetry::continue_trace;

/// How long a route that does not stream may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What proxies say of whom they speak for.
const PROXIED: [HeaderName; 4] = [
    header::FORWARDED,
    header::VIA,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-real-ip"),
];

/// Between two looks at whether a stream's token still holds.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Lets a request through when its caller may do what the route asks for; the handler finds the
/// [`Identity`] among the extensions, and as `Actor` what the audit log is to say of it.
pub(crate) async fn access(
    State((app, access)): State<(App, Access)>,
    params: Result<RawPathParams, RawPathParamsRejection>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    // What is no text names nothing that exists.
    let params = params.map_err(|_| nothing_here(request.uri()))?;
    let tenant = params
        .iter()
        .find(|(name, _)| *name == "tenant")
        .map(|(_, value)| value.to_owned());
    let authorization = request.headers().get(header::AUTHORIZATION);
    let identity = match known(&request) {
        Some(known) => Some(known),
        None => identify(&app, authorization).await?,
    };
    if !is_open(&app, access, request.headers()) {
        check(access, identity.as_ref(), tenant.as_deref())?;
    }
    if let Some(identity) = identity {
        let pass = Pass {
            app: App::clone(&app),
            authorization: authorization.cloned(),
            access,
            tenant,
        };
        request.extensions_mut().insert(pass);
        let peer = request.extensions().get::<Peer>();
        let actor = identity.actor(peer.map(|peer| peer.0.ip()));
        request.extensions_mut().insert(actor);
        request.extensions_mut().insert(identity);
    }
    Ok(next.run(request).await)
}

/// What a request was let in with, among its extensions: a stream outlives what its caller may do.
#[derive(Clone)]
pub(super) struct Pass {
    app: App,
    authorization: Option<HeaderValue>,
    access: Access,
    tenant: Option<String>,
}

impl Pass {
    /// Returns when the token was revoked, has ended, or may not do this any more.
    pub(super) async fn over(self) {
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            let identity = identify(&self.app, self.authorization.as_ref()).await;
            // Where nobody can say, the caller comes back and is asked then.
            let Ok(identity) = identity else { return };
            let tenant = self.tenant.as_deref();
            if check(self.access, identity.as_ref(), tenant).is_err() {
                return;
            }
        }
    }
}

/// Answers 503 when a handler takes too long.
pub(crate) async fn timeout(request: Request, next: Next) -> Response {
    match tokio::time::timeout(TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            code::TIMEOUT,
            "the server is too slow now; try again",
        )
        .into_response(),
    }
}

/// Counts, logs and traces every request. Neither headers nor the query string are logged: both may hold
/// secrets.
pub(crate) async fn observe(State(app): State<App>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let span = tracing::info_span!(
        "http request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = %method,
        http.response.status_code = Empty,
        http.route = route,
        url.path = path,
    );
    continue_trace(&span, request.headers());
    let response = next.run(request).instrument(span.clone()).await;
    let status = response.status();
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    app.metrics
        .count_request(&method, &route, status, started.elapsed());
    tracing::debug!(
        %method,
        path,
        status = status.as_u16(),
        milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "request"
    );
    response
}

async fn identify(app: &App, header: Option<&HeaderValue>) -> Result<Option<Identity>, ApiError> {
    let Some(token) = header.and_then(|value| bearer(value.to_str().ok()?)) else {
        return Ok(None);
    };
    // A registry token is none of these: it travels through more hands than they do.
    Ok(authenticate(&app.store, &token).await?)
}

/// Whose bearer token a request shows, as far as that was looked up on its way here.
fn known(request: &Request) -> Option<Identity> {
    let header = request.headers().get(header::AUTHORIZATION)?;
    bearer(header.to_str().ok()?)?;
    let found = request.extensions().get::<Arc<Bearer>>()?;
    found.of_platform().cloned()
}

/// Whether nobody needs to say who they are.
fn is_open(app: &App, access: Access, headers: &HeaderMap) -> bool {
    match access {
        Access::Public => true,
        // Behind a proxy loopback is not this machine: anybody may be in front of it.
        Access::Scrape => {
            let has_come_from_afar = PROXIED.iter().any(|name| headers.contains_key(name));
            app.listen.ip().is_loopback() && !has_come_from_afar
        }
        Access::AnyToken | Access::Operator | Access::Tenant(_) => false,
    }
}

/// The decision for one request. A tenant that the caller may not see is refused alike whether it
/// exists or not.
fn check(
    access: Access,
    identity: Option<&Identity>,
    tenant: Option<&str>,
) -> Result<(), ApiError> {
    let identity = identity.ok_or_else(ApiError::unauthorized)?;
    let allowed = match access {
        Access::Public | Access::Scrape | Access::AnyToken => true,
        Access::Operator => identity.is_operator(),
        Access::Tenant(permission) => tenant.is_some_and(|id| identity.may(permission, id)),
    };
    if allowed {
        return Ok(());
    }
    Err(ApiError::forbidden(format!(
        "token {:?} may not do this; ask the operator for one with another role or tenant",
        identity.name
    )))
}

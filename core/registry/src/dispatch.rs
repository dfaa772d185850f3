//! From a request to what handles it: the address, the permission, the method.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use oci::Repository;
use tracing::Instrument as _;

use crate::authorize::{Action, Caller, Decision};
use crate::body::Incoming;
use crate::error::RegistryError;
use crate::route::{Route, Thing};
use crate::{Registry, blobs, manifests, referrers, tags, uploads};

pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// A request whose address is understood and which may be done.
pub(crate) struct Asked {
    pub(crate) registry: Arc<Registry>,
    pub(crate) repository: Repository,
    /// Method, address and headers; the body goes apart, because it cannot be shared.
    pub(crate) head: Parts,
}

impl Asked {
    /// Runs something that blocks on files.
    pub(crate) async fn blocking<T, F>(&self, work: F) -> Result<T, RegistryError>
    where
        T: Send + 'static,
        F: FnOnce(&Registry, &Repository) -> Result<T, RegistryError> + Send + 'static,
    {
        let (registry, repository) = (Arc::clone(&self.registry), self.repository.clone());
        tokio::task::spawn_blocking(move || work(&registry, &repository)).await?
    }

    /// A parameter of the query, decoded.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        self.parameters(name).next()
    }

    /// A parameter that may be there several times.
    pub(crate) fn parameters(&self, name: &str) -> impl Iterator<Item = String> {
        let query = self.head.uri.query().unwrap_or_default();
        let pairs = url::form_urlencoded::parse(query.as_bytes());
        pairs
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }

    /// A header as text.
    pub(crate) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }
}

/// `/v2/`: is this a registry, and may I use it?
pub(crate) async fn check(
    State(registry): State<Arc<Registry>>,
    request: Request<Body>,
) -> Response {
    let (head, _) = request.into_parts();
    let allowed = authorize(&registry, &head, None, Action::Pull).await;
    finish(match (allowed, &head.method) {
        (Err(error), _) => Err(error),
        (Ok(()), &(Method::GET | Method::HEAD)) => {
            Ok(json(StatusCode::OK, &serde_json::Map::new()))
        }
        (Ok(()), _) => Err(RegistryError::Unsupported),
    })
}

/// Everything below `/v2/`.
pub(crate) async fn dispatch(
    State(registry): State<Arc<Registry>>,
    Path(path): Path<String>,
    request: Request<Body>,
) -> Response {
    let (head, body) = request.into_parts();
    let headers = head.headers.clone();
    let mut incoming = Incoming::new(body, registry.limits.idle);
    let result = handle(registry, &path, head, &mut incoming).await;
    if result.is_err() {
        incoming.drain(&headers).await;
    }
    finish(result)
}

async fn handle(
    registry: Arc<Registry>,
    path: &str,
    head: Parts,
    incoming: &mut Incoming,
) -> Result<Response, RegistryError> {
    let route = Route::parse(path);
    // Permission before everything else: an address that makes no sense is not told to strangers.
    let repository = route.as_ref().ok().map(|route| &route.repository);
    let action = match (route.as_ref().map(|route| &route.thing), &head.method) {
        (Ok(Thing::Upload(_)), _) => Action::Push,
        (_, &Method::GET | &Method::HEAD) => Action::Pull,
        (_, &Method::DELETE) => Action::Delete,
        _ => Action::Push,
    };
    authorize(&registry, &head, repository, action).await?;
    let Route { repository, thing } = route?;
    let asked = Asked {
        registry,
        repository,
        head,
    };
    match (thing, asked.head.method.clone()) {
        (Thing::Blob(digest), Method::GET | Method::HEAD) => blobs::get(asked, digest).await,
        (Thing::Blob(digest), Method::DELETE) => blobs::delete(asked, digest).await,
        (Thing::Uploads, Method::POST) => {
            let span = uploads::span(&asked.repository);
            uploads::begin(asked, incoming).instrument(span).await
        }
        (Thing::Upload(id), Method::GET | Method::HEAD) => uploads::status(asked, id).await,
        (Thing::Upload(id), Method::PATCH) => {
            let span = uploads::span(&asked.repository);
            uploads::append(asked, id, incoming).instrument(span).await
        }
        (Thing::Upload(id), Method::PUT) => {
            let span = uploads::span(&asked.repository);
            uploads::finish(asked, id, incoming).instrument(span).await
        }
        (Thing::Upload(id), Method::DELETE) => uploads::cancel(asked, id).await,
        (Thing::Manifest(target), Method::GET | Method::HEAD) => {
            manifests::get(asked, target).await
        }
        (Thing::Manifest(target), Method::PUT) => manifests::put(asked, target, incoming).await,
        (Thing::Manifest(target), Method::DELETE) => manifests::delete(asked, target).await,
        (Thing::Misnamed(reference), method) => Err(misnamed(&reference, &method)),
        (Thing::Tags, Method::GET) => tags::list(asked).await,
        (Thing::Referrers(subject), Method::GET) => referrers::list(asked, subject).await,
        _ => Err(RegistryError::Unsupported),
    }
}

/// Why a manifest is neither taken nor found under a reference that is neither a tag nor a digest. To put one there is a
/// mistake of the client's. The specification has no code for it (`TAG_INVALID` went before 1.0), so it is the one that
/// the distribution project's registry has for a bad digest there. Whoever looks for one or wants it gone is right in
/// that it isn't there: a `GET` MUST be 404 then, and conformance asks with just such a name. The text comes back as
/// it was quoted, whatever is in it.
fn misnamed(reference: &str, method: &Method) -> RegistryError {
    match *method {
        Method::PUT => RegistryError::ManifestInvalid {
            detail: format!(
                "{reference:?} is neither a tag nor a digest: a tag has up to 128 letters, digits, `_`, `.` and `-`, and \
                 begins with none of the last two"
            ),
        },
        Method::GET | Method::HEAD | Method::DELETE => RegistryError::ManifestUnknown,
        _ => RegistryError::Unsupported,
    }
}

/// Asks the authoriser, on a thread that may block.
pub(crate) async fn authorize(
    registry: &Arc<Registry>,
    head: &Parts,
    repository: Option<&Repository>,
    action: Action,
) -> Result<(), RegistryError> {
    let registry = Arc::clone(registry);
    let repository = repository.cloned();
    let caller = Caller::of(head);
    let decision = tokio::task::spawn_blocking(move || {
        let repository = repository.as_ref().map(Repository::as_str);
        registry.authorize.authorize(&caller, repository, action)
    });
    match decision.await? {
        Decision::Allow => Ok(()),
        Decision::Challenge(challenge) => Err(RegistryError::Unauthorized { challenge }),
        Decision::Deny => Err(RegistryError::Denied),
    }
}

/// An answer without a body.
pub(crate) fn empty<const N: usize>(
    status: StatusCode,
    headers: [(HeaderName, String); N],
) -> Response {
    with_headers(status, Body::empty(), headers)
}

/// An answer of JSON.
pub(crate) fn json<T: serde::Serialize>(status: StatusCode, value: &T) -> Response {
    let body = Body::from(serde_json::to_vec(value).unwrap_or_default());
    with_headers(
        status,
        body,
        [(header::CONTENT_TYPE, "application/json".to_owned())],
    )
}

/// An answer. A value that no header can hold is left out; ours are all made of plain characters.
pub(crate) fn with_headers<const N: usize>(
    status: StatusCode,
    body: Body,
    headers: [(HeaderName, String); N],
) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn finish(result: Result<Response, RegistryError>) -> Response {
    let mut response = result.unwrap_or_else(|error| {
        tracing::debug!(error = %error, "request refused");
        error.into_response()
    });
    let version = HeaderValue::from_static("registry/2.0");
    response.headers_mut().insert(API_VERSION, version);
    response
}

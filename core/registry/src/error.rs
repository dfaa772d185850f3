//! Failures as the specification spells them: a status and `{"errors":[{"code","message"}]}`.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use oci::StoreError;
use serde::Serialize;

/// Why a request is not fulfilled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryError {
    #[error("authentication is required")]
    Unauthorized { challenge: String },
    #[error("the repository may not be used this way")]
    Denied,
    #[error("a release that serves, is being deployed or can be restored needs this")]
    Needed,
    #[error("`{name}` is not a repository name")]
    NameInvalid { name: String },
    #[error("the repository does not exist")]
    NameUnknown,
    #[error("{detail}")]
    DigestInvalid { detail: String },
    #[error("the repository has no such blob")]
    BlobUnknown,
    #[error("{detail}")]
    BlobUploadInvalid { detail: String },
    #[error("there is no such upload")]
    BlobUploadUnknown,
    #[error("the upload has {received} bytes, a part must begin there")]
    UploadRange { location: String, received: u64 },
    #[error("the repository has no such manifest")]
    ManifestUnknown,
    #[error("{detail}")]
    ManifestInvalid { detail: String },
    #[error("the manifest needs {digest}, which the repository does not have")]
    ManifestBlobUnknown { digest: String },
    #[error("more than the {limit} bytes allowed")]
    TooLarge { limit: u64 },
    #[error("the range lies outside of the blob's {size} bytes")]
    RangeNotSatisfiable { size: u64 },
    #[error("the upload is busy, or too much is under way, try again")]
    TooManyRequests,
    #[error("the rest of the body did not come in time")]
    BodyTimeout,
    #[error("the body broke off")]
    BodyBroken,
    #[error("`n` must be how many to list, a number")]
    PageInvalid,
    #[error("the server does not do this")]
    Unsupported,
    #[error("there is nothing at this address")]
    NotFound,
    #[error("no space is left on the server")]
    Full,
    #[error("the server failed")]
    Internal,
}

impl RegistryError {
    fn code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Unauthorized { .. } => (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"),
            Self::Denied => (StatusCode::FORBIDDEN, "DENIED"),
            Self::Needed => (StatusCode::CONFLICT, "DENIED"),
            Self::NameInvalid { .. } => (StatusCode::BAD_REQUEST, "NAME_INVALID"),
            Self::NameUnknown => (StatusCode::NOT_FOUND, "NAME_UNKNOWN"),
            Self::DigestInvalid { .. } => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
            Self::BlobUnknown => (StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
            Self::BlobUploadInvalid { .. } | Self::BodyBroken => {
                (StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID")
            }
            Self::BlobUploadUnknown => (StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
            Self::UploadRange { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID"),
            Self::ManifestUnknown => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
            Self::ManifestInvalid { .. } => (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
            Self::ManifestBlobUnknown { .. } => (StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN"),
            Self::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID"),
            Self::RangeNotSatisfiable { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, "UNSUPPORTED"),
            Self::TooManyRequests => (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
            Self::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "BLOB_UPLOAD_INVALID"),
            Self::PageInvalid => (StatusCode::BAD_REQUEST, "UNSUPPORTED"),
            Self::Unsupported => (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
            Self::NotFound => (StatusCode::NOT_FOUND, "UNSUPPORTED"),
            Self::Full => (StatusCode::INSUFFICIENT_STORAGE, "UNKNOWN"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN"),
        }
    }

    /// What the error says beside its body.
    fn header(&self) -> Option<(header::HeaderName, String)> {
        match self {
            Self::Unauthorized { challenge } => Some((header::WWW_AUTHENTICATE, challenge.clone())),
            Self::RangeNotSatisfiable { size } => {
                Some((header::CONTENT_RANGE, format!("bytes */{size}")))
            }
            Self::TooManyRequests => Some((header::RETRY_AFTER, "1".to_owned())),
            Self::UploadRange { location, .. } => Some((header::LOCATION, location.clone())),
            _ => None,
        }
    }
}

/// The client learns that something failed; what and where is for the server's log.
impl From<StoreError> for RegistryError {
    fn from(error: StoreError) -> Self {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        tracing::error!(error = %error, cause = cause.as_deref(), "the store failed");
        match error {
            StoreError::Io { source, .. } if is_full(&source) => Self::Full,
            _ => Self::Internal,
        }
    }
}

impl From<tokio::task::JoinError> for RegistryError {
    fn from(error: tokio::task::JoinError) -> Self {
        tracing::error!(error = %error, "a blocking task failed");
        Self::Internal
    }
}

/// For a file operation outside of the store's own.
pub(crate) fn io_failed(action: &'static str) -> impl FnOnce(std::io::Error) -> RegistryError {
    move |error| {
        tracing::error!(error = %error, "cannot {action}");
        if is_full(&error) {
            RegistryError::Full
        } else {
            RegistryError::Internal
        }
    }
}

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

#[derive(Serialize)]
struct Document {
    errors: [Entry; 1],
}

#[derive(Serialize)]
struct Entry {
    code: &'static str,
    message: String,
}

/// The answer for a client that asks too often, for whoever counts that: to come back in so many seconds.
#[must_use]
pub fn too_many_requests(seconds: u64) -> Response {
    let mut response = RegistryError::TooManyRequests.into_response();
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, seconds.into());
    response
}

impl IntoResponse for RegistryError {
    fn into_response(self) -> Response {
        let (status, code) = self.code();
        let document = Document {
            errors: [Entry {
                code,
                message: self.to_string(),
            }],
        };
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        if let Some((name, value)) = self.header()
            && let Ok(value) = HeaderValue::from_str(&value)
        {
            headers.insert(name, value);
        }
        if let Self::UploadRange { received, .. } = self
            && let Ok(value) = HeaderValue::from_str(&received_range(received))
        {
            headers.insert(header::RANGE, value);
        }
        response
    }
}

/// `0-<last>`, the specification's way to say how much has come; it has no way to say nothing.
pub(crate) fn received_range(received: u64) -> String {
    format!("0-{}", received.saturating_sub(1))
}

//! Refusals: always `{"error":{"code","message"}}`, whatever was wrong.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use management_api::error::{ErrorBody, code};

use crate::deployments::{Refusal, RollbackError};
use crate::retention::CollectError;
use crate::store::{SqlError, StoreError};

/// A refusal on its way to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    /// In how many seconds to come back.
    retry_after: Option<u64>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            retry_after: None,
        }
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code::NOT_FOUND, message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            code::INVALID_REQUEST,
            message,
        )
    }

    /// What was sent cannot even be read.
    pub(crate) fn malformed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code::INVALID_REQUEST, message)
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code::CONFLICT, message)
    }

    pub(crate) fn unauthorized() -> Self {
        Self::unauthenticated(
            "a valid bearer token is needed; the operator's is in the file `token` of the \
             server's data folder",
        )
    }

    /// Nobody is known to have asked; the message says what would have been needed.
    pub(crate) fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code::UNAUTHORIZED, message)
    }

    pub(crate) fn too_many_requests(seconds: u64) -> Self {
        let message =
            format!("too many requests, or too many with a wrong token; try again in {seconds} s");
        Self {
            retry_after: Some(seconds),
            ..Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                code::TOO_MANY_REQUESTS,
                message,
            )
        }
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code::FORBIDDEN, message)
    }

    pub(crate) fn no_tenant(id: &str) -> Self {
        Self::not_found(format!("there is no tenant {id:?}"))
    }

    pub(crate) fn no_deployment(tenant: &str, number: u64) -> Self {
        Self::not_found(format!("tenant {tenant:?} has no deployment {number}"))
    }

    /// The cause goes to the log, not to the client: it may tell about the machine.
    pub(crate) fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!(error = %crate::chain(error), "a request failed");
        Self::fault()
    }

    /// Something that only the log tells about.
    pub(crate) fn fault() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            code::INTERNAL,
            "the server failed; its log says why",
        )
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response =
            (self.status, Json(ErrorBody::new(self.code, self.message))).into_response();
        if let Some(seconds) = self.retry_after {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"systemprompt\""),
            );
        }
        if self.code == code::STANDBY {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoTenant { id } => Self::no_tenant(&id),
            StoreError::TenantTaken { .. } => Self::conflict(format!("{error}; choose another id")),
            StoreError::InProgress { number } => Self::new(
                StatusCode::CONFLICT,
                code::DEPLOYMENT_IN_PROGRESS,
                format!("deployment {number} is in progress; wait for it or abort it"),
            ),
            StoreError::NotLeading => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                code::STANDBY,
                error.to_string(),
            ),
            StoreError::Database(refused) if refused.is_refused_text() => {
                Self::invalid("text with a NUL character cannot be kept")
            }
            StoreError::Database(full) if full.is_full() => {
                tracing::error!(error = %crate::chain(&full), "a request failed: there is no room");
                Self::new(
                    StatusCode::INSUFFICIENT_STORAGE,
                    code::DISK_FULL,
                    "the disk of the server's database is full; free some of it, then ask again, with the same Idempotency-Key",
                )
            }
            StoreError::Database(SqlError::Lost { .. }) => {
                tracing::error!(error = %crate::chain(&error), "the database does not answer");
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    code::UNAVAILABLE,
                    "the database does not answer; ask again, with the same Idempotency-Key",
                )
            }
            other => Self::internal(&other),
        }
    }
}

impl From<CollectError> for ApiError {
    fn from(error: CollectError) -> Self {
        match error {
            CollectError::Store(error) => error.into(),
            CollectError::Images(error @ oci::StoreError::Held) => {
                Self::conflict(format!("{error}; ask again"))
            }
            CollectError::Images(error) => Self::internal(&error),
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid(message) => Self::invalid(message),
            Refusal::ImageNotFound(message) => {
                Self::new(StatusCode::NOT_FOUND, code::IMAGE_NOT_FOUND, message)
            }
        }
    }
}

impl From<RollbackError> for ApiError {
    fn from(error: RollbackError) -> Self {
        match error {
            RollbackError::Nothing(message) => {
                Self::new(StatusCode::CONFLICT, code::NOTHING_TO_ROLL_BACK, message)
            }
            RollbackError::Store(error) => error.into(),
        }
    }
}

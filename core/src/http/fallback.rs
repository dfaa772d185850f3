//! Requests that no route takes.

use axum::http::{Method, StatusCode, Uri};
use management_api::error::code;

use super::ApiError;

/// No such path.
pub(crate) async fn not_found(uri: Uri) -> ApiError {
    nothing_here(&uri)
}

/// The path exists, the method does not. The router has set `Allow`.
pub(crate) async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        code::METHOD_NOT_ALLOWED,
        format!("{method} is not offered at {}", uri.path()),
    )
}

/// The refusal of a path that names nothing.
pub(crate) fn nothing_here(uri: &Uri) -> ApiError {
    ApiError::not_found(format!("there is nothing at {}", uri.path()))
}

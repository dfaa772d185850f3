//! The error shape of the Management API.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `{"error":{"code","message"}}`, the body of every refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// What was refused and why.
    pub error: ErrorDetail,
}

/// The content of an [`ErrorBody`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorDetail {
    /// Stable, for programs; see [`code`].
    pub code: String,
    /// For people.
    pub message: String,
}

impl ErrorBody {
    /// Builds a body from a stable code and a message for people.
    #[must_use]
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            error: ErrorDetail {
                code: code.to_owned(),
                message: message.into(),
            },
        }
    }
}

/// The stable codes that our own server sends. Other servers send others.
pub mod code {
    /// No token, or one that is unknown or expired.
    pub const UNAUTHORIZED: &str = "unauthorized";
    /// The token is valid but not for this.
    pub const FORBIDDEN: &str = "forbidden";
    /// No such tenant, deployment or route.
    pub const NOT_FOUND: &str = "not_found";
    /// The body or a parameter is wrong.
    pub const INVALID_REQUEST: &str = "invalid_request";
    /// Another deployment of this tenant is running.
    pub const DEPLOYMENT_IN_PROGRESS: &str = "deployment_in_progress";
    /// A deployment of this tenant could not be undone; somebody has to look first.
    pub const OPERATOR_NEEDED: &str = "operator_needed";
    /// The registry does not hold the image.
    pub const IMAGE_NOT_FOUND: &str = "image_not_found";
    /// The server cannot enforce the limits that were asked for.
    pub const LIMITS_NOT_ENFORCED: &str = "limits_not_enforced";
    /// Instances can have no volumes on this server's machine.
    pub const VOLUMES_NOT_POSSIBLE: &str = "volumes_not_possible";
    /// This server's engine cannot do what the request asks for; the message says what.
    pub const NOT_OFFERED: &str = "not_offered";
    /// The volume is a release's that serves, is being deployed or is kept for a return, or an instance has it.
    pub const VOLUME_IN_USE: &str = "volume_in_use";
    /// There is no older release to return to.
    pub const NOTHING_TO_ROLL_BACK: &str = "nothing_to_roll_back";
    /// The release cannot be restored: its image or a secret of it was removed.
    pub const RELEASE_GONE: &str = "release_gone";
    /// The idempotency key was used with another body.
    pub const IDEMPOTENCY_MISMATCH: &str = "idempotency_mismatch";
    /// A tenant with this name exists.
    pub const CONFLICT: &str = "conflict";
    /// The server failed; its log says why.
    pub const INTERNAL: &str = "internal";
    /// The server does not offer this operation.
    pub const UNSUPPORTED: &str = "unsupported";
    /// A request with this idempotency key has not been answered yet.
    pub const IDEMPOTENCY_IN_FLIGHT: &str = "idempotency_in_flight";
    /// The route exists, the method does not.
    pub const METHOD_NOT_ALLOWED: &str = "method_not_allowed";
    /// The body is larger than the server takes.
    pub const PAYLOAD_TOO_LARGE: &str = "payload_too_large";
    /// Too many requests, or too many with a wrong token.
    pub const TOO_MANY_REQUESTS: &str = "too_many_requests";
    /// The server is starting, stopping or without its database.
    pub const UNAVAILABLE: &str = "unavailable";
    /// The server's disk is full.
    pub const DISK_FULL: &str = "disk_full";
    /// The server stands by while another one leads: ask that one.
    pub const STANDBY: &str = "standby";
    /// The server was too slow; try again.
    pub const TIMEOUT: &str = "timeout";
}

//! The paths of the Management API, relative to its base URL. One function a route, so that
//! server, client and tests cannot disagree.

/// Prefix of every route.
pub const API: &str = "/api/v1";
/// Liveness of the server itself; also what the release image answers.
pub const HEALTH: &str = "/api/v1/health";
/// What this server offers beyond the contract.
pub const CAPABILITIES: &str = "/api/v1/capabilities";
/// The interface description, generated from the types.
pub const OPENAPI: &str = "/api/v1/openapi.json";
/// The caller's identity.
pub const ME: &str = "/api/v1/auth/me";
/// Tenants that the caller may see.
pub const TENANTS: &str = "/api/v1/tenants";
/// API tokens of the platform.
pub const TOKENS: &str = "/api/v1/tokens";
/// Who changed what: the audit log.
pub const AUDIT: &str = "/api/v1/audit";
/// Remove what nothing needs any more.
pub const COLLECT: &str = "/api/v1/collect";
/// Where registry clients get their tokens.
pub const TOKEN: &str = "/token";
/// Token exchange (RFC 8693).
pub const TOKEN_EXCHANGE: &str = "/api/v1/core/oauth/token";

/// One tenant.
#[must_use]
pub fn tenant(id: &str) -> String {
    format!("{TENANTS}/{}", segment(id))
}

/// Short-lived credentials for the tenant's repository.
#[must_use]
pub fn registry_token(id: &str) -> String {
    format!("{}/registry-token", tenant(id))
}

/// Ask for a deployment.
#[must_use]
pub fn deploy(id: &str) -> String {
    format!("{}/deploy", tenant(id))
}

/// The tenant's present state.
#[must_use]
pub fn status(id: &str) -> String {
    format!("{}/status", tenant(id))
}

/// The tenant's secrets (write only).
#[must_use]
pub fn secrets(id: &str) -> String {
    format!("{}/secrets", tenant(id))
}

/// The tenant's volumes.
#[must_use]
pub fn volumes(id: &str) -> String {
    format!("{}/volumes", tenant(id))
}

/// One volume of a tenant.
#[must_use]
pub fn volume(id: &str, name: &str) -> String {
    format!("{}/{}", volumes(id), segment(name))
}

/// New credentials for the tenant.
#[must_use]
pub fn rotate_credentials(id: &str) -> String {
    format!("{}/rotate-credentials", tenant(id))
}

/// History of the tenant.
#[must_use]
pub fn deployments(id: &str) -> String {
    format!("{}/deployments", tenant(id))
}

/// One deployment.
#[must_use]
pub fn deployment(id: &str, number: u64) -> String {
    format!("{}/{number}", deployments(id))
}

/// Events of one deployment (server-sent events).
#[must_use]
pub fn deployment_events(id: &str, number: u64) -> String {
    format!("{}/events", deployment(id, number))
}

/// Undo a running deployment.
#[must_use]
pub fn abort(id: &str, number: u64) -> String {
    format!("{}/abort", deployment(id, number))
}

/// Let a paused deployment go on.
#[must_use]
pub fn resume(id: &str, number: u64) -> String {
    format!("{}/resume", deployment(id, number))
}

/// Who holds the tenant: the deployment that is being made.
#[must_use]
pub fn lock(id: &str) -> String {
    format!("{}/lock", tenant(id))
}

/// What was measured of the tenant.
#[must_use]
pub fn metrics(id: &str) -> String {
    format!("{}/metrics", tenant(id))
}

/// Let a deployment that is being watched go on.
#[must_use]
pub fn promote(id: &str, number: u64) -> String {
    format!("{}/promote", deployment(id, number))
}

/// Return to an older release.
#[must_use]
pub fn rollback(id: &str) -> String {
    format!("{}/rollback", tenant(id))
}

/// The application's log (server-sent events when followed).
#[must_use]
pub fn logs(id: &str) -> String {
    format!("{}/logs", tenant(id))
}

/// One API token.
#[must_use]
pub fn token(id: &str) -> String {
    format!("{TOKENS}/{}", segment(id))
}

/// Percent-encodes what could leave a path segment.
fn segment(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    // `.` and `..` are removed by URL normalisation, which would address another route.
    if encoded.chars().all(|c| c == '.') {
        return encoded.replace('.', "%2E");
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_id_cannot_leave_its_segment() {
        assert_eq!(deploy("local"), "/api/v1/tenants/local/deploy");
        assert_eq!(status("../x y"), "/api/v1/tenants/..%2Fx%20y/status");
        assert_eq!(tenant(".."), "/api/v1/tenants/%2E%2E");
    }
}

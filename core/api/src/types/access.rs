//! Who calls, and the tokens that say so.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{Tenant, reveal};

/// `GET /api/v1/auth/me`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Me {
    /// Who the token belongs to.
    pub user: User,
    /// The tenants this user may deploy to.
    #[serde(default)]
    pub tenants: Vec<Tenant>,
}

/// A person or a robot account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct User {
    /// Stable identifier.
    pub id: String,
    /// Address, also of robot accounts.
    pub email: String,
    /// Display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// `GET …/registry-token`: what it takes to push.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RegistryToken {
    /// `host[:port]` of the registry.
    pub registry: String,
    /// User name; its value is often without meaning (`x`).
    pub username: String,
    /// The password. Older servers call the field `password`.
    #[serde(alias = "password", serialize_with = "reveal")]
    #[schemars(with = "String")]
    pub token: SecretString,
    /// Repository to push to; the tenant's application id when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// A tag chosen by the server, to be used unless the user pins one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// *Ours*: seconds until the token ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
}

/// *Ours*: answer of the token endpoint for registry clients, as the distribution project describes it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RegistryAccessToken {
    /// The bearer token.
    #[serde(serialize_with = "reveal")]
    #[schemars(with = "String")]
    pub token: SecretString,
    /// The same, under OAuth 2's name.
    #[serde(serialize_with = "reveal")]
    #[schemars(with = "String")]
    pub access_token: SecretString,
    /// Seconds until it ends.
    pub expires_in: u64,
    /// When it was made.
    pub issued_at: DateTime<Utc>,
}

/// *Ours*: body of `POST /api/v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NewToken {
    /// Shown in the history as the actor.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The one tenant it is for; needed unless the role is `operator`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Seconds until it ends, at most ten years; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 315_360_000))]
    pub expires_in: Option<u64>,
}

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything.
    Operator,
    /// Deploy to one tenant.
    Deployer,
    /// Look at one tenant.
    Reader,
}

/// *Ours*: one API token, without its secret part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenInfo {
    /// Identifier, for revoking.
    pub id: String,
    /// Shown in the history as the actor.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The one tenant it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
}

/// *Ours*: answer to `POST /api/v1/tokens`, the only time the secret part is shown.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct IssuedToken {
    /// The token's facts.
    #[serde(flatten)]
    pub info: TokenInfo,
    /// The bearer token itself.
    #[serde(serialize_with = "reveal")]
    #[schemars(with = "String")]
    pub token: SecretString,
}

/// *Ours*: `POST …/rotate-credentials`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RotateRequest {
    /// Seconds for which the old tokens still hold, at most 30 days; 0 ends them at once, an hour when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 2_592_000))]
    pub grace_seconds: Option<u64>,
}

/// Answer to `POST …/rotate-credentials`, the only time the secret parts are shown. The contract has it without `data`
/// around it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RotatedCredentials {
    /// `rotated`.
    pub status: String,
    /// A sentence for people.
    pub message: String,
    /// *Ours*: until when the old tokens hold.
    pub old_valid_until: DateTime<Utc>,
    /// *Ours*: the new tokens.
    #[serde(default)]
    pub credentials: Vec<RotatedToken>,
}

/// *Ours*: a token in the place of another.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RotatedToken {
    /// The new token.
    #[serde(flatten)]
    pub issued: IssuedToken,
    /// Identifier of the old one.
    pub replaces: String,
}

/// Answer of the token exchange (RFC 8693).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ExchangedToken {
    /// Bearer token for tenant calls.
    #[serde(serialize_with = "reveal")]
    #[schemars(with = "String")]
    pub access_token: SecretString,
    /// Seconds until it ends; 300 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
}

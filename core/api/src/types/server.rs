//! The server itself: what it offers, what it remembers, what it removes.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// *Ours*: `GET /api/v1/capabilities`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Capabilities {
    /// `systemprompt`.
    pub product: String,
    /// Version of the server.
    pub version: String,
    /// Names of what it offers: `events`, `history`, `rollback`, `logs`, `idempotency`, `digest`.
    pub features: Vec<String>,
    /// Strategies it can run.
    pub strategies: Vec<String>,
    /// How instances are run.
    pub engine: EngineInfo,
}

impl Capabilities {
    /// Whether a feature is offered.
    #[must_use]
    pub fn offers(&self, feature: &str) -> bool {
        self.features.iter().any(|f| f == feature)
    }
}

/// *Ours*: how instances are run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EngineInfo {
    /// `process`, `docker`, …
    pub name: String,
    /// What isolates an instance and what this machine does not allow, in words.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// *Ours*: one row of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditEntry {
    /// Counts up from 1, without a gap.
    pub seq: u64,
    /// When.
    pub at: DateTime<Utc>,
    /// What was done, `deployment.deploy` for instance. An open set.
    pub action: String,
    /// To which tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// To which of its deployments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<u64>,
    /// Name of the token that asked for it; `server` without a token is the server itself.
    pub actor: String,
    /// Id of that token, or of the one it was derived from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Its role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The other end of the connection: a proxy's, where one stands between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// More about it, by action. Values of secrets and variables are not in here.
    pub details: serde_json::Map<String, serde_json::Value>,
    /// SHA-256 over this row and the one before it.
    pub hash: String,
}

/// *Ours*: body of `POST /api/v1/collect`; may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CollectRequest {
    /// Only say what would go.
    #[serde(default)]
    pub dry_run: bool,
}

/// *Ours*: what a collection removed, or would remove.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Collection {
    /// Whether nothing was removed.
    pub dry_run: bool,
    /// Releases that cannot be restored any more.
    pub releases: Vec<CollectedRelease>,
    /// Manifests taken from repositories.
    pub manifests: usize,
    /// Blobs removed from the registry.
    pub blobs: usize,
    /// The length of these in bytes.
    pub bytes: u64,
    /// Versions of secrets that no release needs.
    pub secret_versions: usize,
    /// Bytes of images that were unpacked for instances; not known beforehand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unpacked_bytes: Option<u64>,
    /// What the registry holds afterwards, in bytes.
    pub bytes_kept: u64,
    /// By how much that is beyond the bound, because rollbacks may need it.
    pub bytes_over: u64,
    /// Whether there is more to remove than is removed at a time.
    pub more: bool,
}

/// *Ours*: a release whose image was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CollectedRelease {
    /// Whose.
    pub tenant: String,
    /// Its newest deployment.
    pub deployment: u64,
    /// Digest of its image.
    pub digest: String,
}

/// `GET /api/v1/health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// `healthy`.
    pub status: String,
    /// Version of the server.
    pub version: String,
    /// When the answer was made.
    pub timestamp: DateTime<Utc>,
}

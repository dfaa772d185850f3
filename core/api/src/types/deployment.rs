//! Deployments as they go and went, and what their applications write.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DeployedService, Source};

/// *Ours*: one row of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Deployment {
    /// Counts up from 1 within a tenant and is never used twice.
    pub number: u64,
    /// The tenant.
    pub tenant: String,
    /// `deploy` or `rollback`.
    pub kind: String,
    /// An open set; see [`is_final`] and [`is_good`].
    pub state: String,
    /// The image as it was asked for.
    pub image: String,
    /// Its tag, when it was asked for by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The digest that was deployed.
    pub digest: String,
    /// Strategy of the rollout.
    pub strategy: String,
    /// Instances of the release.
    #[serde(default = "Deployment::one_replica")]
    pub replicas: u32,
    /// Further services of the release; those fields are of the service `app`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<DeployedService>,
    /// The deployment that served before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<u64>,
    /// For a rollback: the deployment whose release was restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restores: Option<u64>,
    /// Whether this one serves now.
    #[serde(default)]
    pub live: bool,
    /// Whether its image, or a secret of it, is not kept any more: no rollback returns to it.
    #[serde(default)]
    pub gone: bool,
    /// Name of the token that asked for it.
    pub actor: String,
    /// Where the image came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The tenant's URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_url: Option<String>,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When it came to its final state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<DateTime<Utc>>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

impl Deployment {
    /// Servers of before there were several do not say it.
    fn one_replica() -> u32 {
        1
    }
}

/// *Ours*: why a deployment failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// `exited`, `killed`, `wrong_port`, `health_timeout`, `unhealthy`, `image_not_found`,
    /// `start_failed`, `no_port`, `port_taken`, `secret_unreadable`, `interrupted`, `aborted`, `deadline`, `analysis_failed`,
    /// `release_command_failed`, `not_a_directory`, `internal`.
    pub code: String,
    /// For people.
    pub message: String,
    /// Exit code of the application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Signal that ended the application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// The application's last lines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log_tail: Vec<String>,
}

/// *Ours*: one event of a deployment; the `data` of a server-sent event whose `id` is `seq`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeploymentEvent {
    /// Counts up from 1 within a deployment.
    pub seq: u64,
    /// The deployment.
    pub deployment: u64,
    /// State after the event.
    pub state: String,
    /// For people.
    pub message: String,
    /// When.
    pub at: DateTime<Utc>,
}

/// *Ours*: one line of an application's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// When it was written.
    pub at: DateTime<Utc>,
    /// The deployment whose instance wrote it.
    pub deployment: u64,
    /// The service that wrote it, where it is not `app`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The instance that wrote it, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The line, without its end.
    pub line: String,
}

/// Whether a status ends a wait. Unknown ones do not: they are shown and waited on.
#[must_use]
pub fn is_final(status: &str) -> bool {
    is_good(status) || is_bad(status)
}

/// Whether a status says that the wanted release serves.
#[must_use]
pub fn is_good(status: &str) -> bool {
    matches!(status, "succeeded" | "deployed" | "ready" | "active")
}

/// Whether a status says that the wanted release does not and will not serve.
#[must_use]
pub fn is_bad(status: &str) -> bool {
    matches!(
        status,
        "failed" | "rolled_back" | "needs_operator" | "superseded" | "suspended" | "deleted"
    )
}

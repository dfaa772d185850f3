//! What a deployment or a rollback asks for, and the answer to it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{HealthCheck, Route, Service};

/// `POST …/deploy`. Only `image` belongs to the contract; the rest is *ours*. A field that is not here is ignored, which the
/// answer's `warnings` say; one that is a letter or two away from one that is here is refused.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeployRequest {
    /// `registry/repository:tag` or `registry/repository@sha256:…`.
    pub image: String,
    /// Digest of the manifest that the tag is expected to name; another one is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// `rolling`, `recreate`, `blue-green`, `canary`; the server's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<String>,
    /// How the strategy goes about it.
    #[serde(default, skip_serializing_if = "RolloutSettings::is_empty")]
    pub rollout: RolloutSettings,
    /// Instances of the release, 1 when absent; part of the release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// What each instance may use of the machine; part of the release.
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
    /// What becomes of an instance that has ended; part of the release.
    #[serde(default, skip_serializing_if = "Restart::is_always")]
    pub restart: Restart,
    /// What is run once, in the new image with the new environment, before anything of the new release is started: a
    /// migration for instance. Arguments for the image's entrypoint, as `docker run IMAGE ARGUMENTS` has them. It must end
    /// with 0; else nothing has changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub release_command: Vec<String>,
    /// How the new release proves that it works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthCheck>,
    /// Environment of the application; part of the release. `${secrets.NAME}` in a value is a secret of the tenant, put in when
    /// an instance is started.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// In place of the image's own command: arguments for its entrypoint; part of the release. `${PORT}` in it is the port to
    /// listen on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Volumes that `app` has, by name, each with the absolute path at which it finds them; part of the release. They are the
    /// tenant's and outlive instances and releases.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, String>,
    /// Further services of the release, by name. The fields beside this one describe the service `app`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<String, Service>,
    /// Services that have to serve before `app` is started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
    /// Requests on the tenant's URL that are for `app`: all that are for no other service when absent, none when empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<Vec<Route>>,
    /// Deadline of the whole rollout, held by the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u64>,
    /// Where the image came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Start new instances even when the very same release is live.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// *Ours*: which instances are started again that have ended, with longer and longer pauses between.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// All of them.
    #[default]
    Always,
    /// Those that ended with anything but 0. One that ended with 0 has done its work.
    OnFailure,
    /// None.
    Never,
}

impl Restart {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::OnFailure => "on-failure",
            Self::Never => "never",
        }
    }

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde passes a reference"
    )]
    pub(super) fn is_always(&self) -> bool {
        *self == Self::Always
    }
}

/// *Ours*: what each instance of a release may use of the machine. What is absent is not bounded. A server that cannot
/// enforce one of them refuses the deployment with the code `limits_not_enforced`, unless `best_effort` is said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Bytes of memory. An instance that needs more is ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Thousandths of a processor: 1500 is one and a half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u32>,
    /// Processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// Whether nothing of the image can be written to. `/tmp` and volumes can.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// Run without what the machine cannot enforce, rather than not at all.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub best_effort: bool,
}

impl Resources {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// *Ours*: how a strategy goes about it. What is absent is the server's default; what is of another
/// strategy is refused.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutSettings {
    /// `rolling`: instances above `replicas` while the new ones start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_surge: Option<u32>,
    /// `rolling`: instances below `replicas` that may be missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<u32>,
    /// `rolling`: milliseconds in which each batch is watched before the next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_pause_ms: Option<u64>,
    /// `blue-green`: milliseconds in which the new set is watched after the switch, before the old one is let go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bake_ms: Option<u64>,
    /// `blue-green`: milliseconds for which the old set stays started, for an instant return.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_warm_ms: Option<u64>,
    /// `canary`: steps before all of the traffic, each with more weight than the one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<Vec<CanaryStep>>,
    /// What is looked at while the new release is watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<AnalysisSettings>,
}

impl RolloutSettings {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// *Ours*: one step of a canary rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CanaryStep {
    /// Per cent of the traffic, 1 to 99.
    pub weight: u32,
    /// Milliseconds in which it is watched; without any it waits for `promote`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_ms: Option<u64>,
}

/// *Ours*: when a release that is being watched is bad. What is absent is the server's default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnalysisSettings {
    /// Requests below which nothing can be said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_requests: Option<u64>,
    /// Per cent of answers 5xx and of requests without an answer, above which it fails, unless the old
    /// release has as many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_error_percent: Option<f64>,
    /// Milliseconds above which the 95th percentile of its answers fails, unless the old release is as slow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_p95_ms: Option<u64>,
    /// How many times as slow as the old release, at the 95th percentile, it may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_p95_ratio: Option<f64>,
    /// Texts that make it fail when they come in its log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_patterns: Option<Vec<String>>,
    /// Whether requests are made up where there are too few; they ask for the health check's path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synthetic: Option<bool>,
}

/// *Ours*: where an image came from, kept in the history.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Source {
    /// Short commit id, or `unknown`.
    pub git_sha: String,
    /// Whether the tree had changes that no commit holds.
    #[serde(default)]
    pub dirty: bool,
}

/// Answer to `POST …/deploy` and `POST …/rollback`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeployAnswer {
    /// An open set; see [`is_final`](super::is_final) and [`is_good`](super::is_good).
    pub status: String,
    /// The tenant's URL. The field was once called `url`.
    #[serde(default, alias = "url", skip_serializing_if = "Option::is_none")]
    pub app_url: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// *Ours*: number of the deployment that was begun (or was on its way, or is already live).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<u64>,
    /// *Ours*: the very same release is live and healthy; nothing was begun.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unchanged: bool,
    /// *Ours*: what of the request was left unheeded, for people: fields that the server does not know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// *Ours*: body of `POST …/rollback`. Unknown fields are as in [`DeployRequest`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RollbackRequest {
    /// Number or tag of the deployment to restore; the last good one before the live one when
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Deadline of the whole rollout, held by the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u64>,
}

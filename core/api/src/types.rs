//! The wire types. Field names are the contract's; fields marked *ours* are sent by the embedded
//! and self-hosted platform only.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};

/// The envelope of most answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Data<T> {
    /// The answer itself.
    pub data: T,
}

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

/// A tenant: the unit that owns a repository, a URL and a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tenant {
    /// Stable identifier, part of every path.
    pub id: String,
    /// Display name.
    pub name: String,
    /// Name of the Fly application, where there is one; also the default repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fly_app_name: Option<String>,
    /// Host name of the Fly application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fly_hostname: Option<String>,
    /// Host name that people use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// *Ours*: the tenant's URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_url: Option<String>,
}

/// *Ours*: body of `POST /api/v1/tenants`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NewTenant {
    /// Lower-case letters, digits and dashes, 1 to 40; becomes part of the repository's name.
    pub id: String,
    /// Display name; the id when absent.
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

/// `POST …/deploy`. Only `image` belongs to the contract; the rest is *ours*.
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
    /// What is run once, in the new image with the new environment, before anything of the new release is started: a
    /// migration for instance. Arguments for the image's entrypoint, as `docker run IMAGE ARGUMENTS` has them. It must end
    /// with 0; else nothing has changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub release_command: Vec<String>,
    /// How the new release proves that it works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthCheck>,
    /// Environment of the application; part of the release.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
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

/// *Ours*: how a release proves that it works. Defaults are the server's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HealthCheck {
    /// What is asked. Only an instance that answers it well has traffic.
    #[serde(flatten)]
    pub probe: Probe,
    /// Milliseconds between two checks of a running instance.
    pub interval_ms: u64,
    /// Milliseconds that one check may take.
    pub timeout_ms: u64,
    /// Milliseconds after the start in which failures do not count.
    pub start_period_ms: u64,
    /// Failures in a row that make an instance unhealthy.
    pub retries: u32,
    /// Whether a running instance has to be started again. Without it, one that is unhealthy has to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness: Option<Liveness>,
}

/// *Ours*: how a running instance that cannot be helped any more is recognised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Liveness {
    /// What is asked.
    #[serde(flatten)]
    pub probe: Probe,
    /// Milliseconds between two checks.
    pub interval_ms: u64,
    /// Milliseconds that one check may take.
    pub timeout_ms: u64,
    /// Failures in a row after which the instance is started again.
    pub retries: u32,
}

/// *Ours*: one question to an instance, and which answer is a good one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Probe {
    /// How it is asked.
    #[serde(default, skip_serializing_if = "ProbeKind::is_http")]
    pub kind: ProbeKind,
    /// `http`: path of a `GET`.
    #[serde(default = "Probe::default_path")]
    pub path: String,
    /// `http`: the status of a good answer.
    #[serde(default = "Probe::default_status")]
    pub status: u16,
    /// `http`: text that the first 64 KiB of a good answer hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            kind: ProbeKind::default(),
            path: Self::default_path(),
            status: Self::default_status(),
            body: None,
        }
    }
}

impl Probe {
    fn default_path() -> String {
        "/".to_owned()
    }

    fn default_status() -> u16 {
        200
    }
}

/// How an instance is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProbeKind {
    /// A `GET` on the instance's port.
    #[default]
    Http,
    /// A connection to the instance's port.
    Tcp,
}

impl ProbeKind {
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde passes a reference"
    )]
    fn is_http(&self) -> bool {
        *self == Self::Http
    }
}

/// Answer to `POST …/deploy` and `POST …/rollback`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeployAnswer {
    /// An open set; see [`is_final`] and [`is_good`].
    pub status: String,
    /// The tenant's URL. The field was once called `url`.
    #[serde(default, alias = "url", skip_serializing_if = "Option::is_none")]
    pub app_url: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// *Ours*: number of the deployment that was begun (or is already live).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<u64>,
    /// *Ours*: the very same release is live and healthy; nothing was begun.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unchanged: bool,
}

/// `GET …/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TenantStatus {
    /// An open set; see [`is_final`] and [`is_good`].
    pub status: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The tenant's URL.
    #[serde(default, alias = "url", skip_serializing_if = "Option::is_none")]
    pub app_url: Option<String>,
    /// Where secrets are edited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets_url: Option<String>,
    /// *Ours*: the release that serves now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<Deployment>,
    /// *Ours*: the deployment that is being made now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<Deployment>,
}

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
    /// `start_failed`, `secret_unreadable`, `interrupted`, `aborted`, `deadline`, `analysis_failed`,
    /// `release_command_failed`, `internal`.
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
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The line, without its end.
    pub line: String,
}

/// *Ours*: body of `POST …/rollback`.
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

/// `PUT …/secrets`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct SecretsRequest {
    /// Names and values; never answered by any call.
    #[serde(serialize_with = "reveal_all")]
    #[schemars(with = "BTreeMap<String, String>")]
    pub secrets: BTreeMap<String, SecretString>,
    /// *Ours*: those of them that somebody else changes from time to time. A rollback does not bring their old values
    /// back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub externally_rotated: Vec<String>,
    /// *Ours*: names that have no value from now on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

/// *Ours*: what is told of a secret, which is everything but its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretInfo {
    /// Its name, which is that of the variable the application finds it in.
    pub name: String,
    /// Counts up with each new value.
    pub version: u64,
    /// Whether somebody else changes it.
    #[serde(default)]
    pub externally_rotated: bool,
    /// When it got this value.
    pub updated_at: DateTime<Utc>,
}

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

/// The few places where a secret goes over the wire on purpose.
fn reveal<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose_secret())
}

fn reveal_all<S: Serializer>(
    secrets: &BTreeMap<String, SecretString>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(secrets.iter().map(|(k, v)| (k, v.expose_secret())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_shapes_of_the_registry_token_are_read() {
        for field in ["token", "password"] {
            let text = format!(r#"{{"registry":"r","username":"x","{field}":"s3cret"}}"#);
            let token: RegistryToken = serde_json::from_str(&text).unwrap();
            assert_eq!(token.token.expose_secret(), "s3cret");
            assert!(!format!("{token:?}").contains("s3cret"));
        }
    }

    #[test]
    fn both_names_of_the_url_are_read() {
        for field in ["app_url", "url"] {
            let text = format!(r#"{{"status":"deploying","{field}":"https://a.example"}}"#);
            let answer: DeployAnswer = serde_json::from_str(&text).unwrap();
            assert_eq!(answer.app_url.as_deref(), Some("https://a.example"));
        }
    }

    #[test]
    fn a_plain_request_is_the_contract_and_nothing_more() {
        let request = DeployRequest {
            image: "r/a:t".into(),
            ..DeployRequest::default()
        };
        assert_eq!(
            serde_json::to_string(&request).unwrap(),
            r#"{"image":"r/a:t"}"#
        );
    }

    #[test]
    fn unknown_statuses_are_waited_on() {
        assert!(!is_final("warming-up"));
        assert!(is_final("ready") && is_good("ready"));
        assert!(is_final("rolled_back") && !is_good("rolled_back"));
    }
}

//! The services of a release: what each one is, and where requests for it come from.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{HealthCheck, Resources, Restart};

/// *Ours*: a service of a release beside the one that the request itself describes, which is called `app`. What has routes is
/// public; what has a protocol and no routes is for the other services; what has neither listens nowhere.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// `registry/repository:tag` or `registry/repository@sha256:…`, in the tenant's repository.
    pub image: String,
    /// Digest of the manifest that the tag is expected to name; another one is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// In place of the image's own command: arguments for its entrypoint. `${PORT}` in it is the port to listen on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Environment. `${services.NAME.INTERNAL_URL}` in a value is the address of a service; so are `INTERNAL_HOST`,
    /// `INTERNAL_PORT` and `PUBLIC_URL`. `${secrets.NAME}` is a secret of the tenant, put in when an instance is started.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Secrets of the tenant that it finds: names of variables, each with the secret's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, String>,
    /// Volumes that it has, by name, each with the absolute path at which it finds them. They are the tenant's and outlive
    /// instances and releases; one service has one at a time, with one instance.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, String>,
    /// How it proves that it works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthCheck>,
    /// Instances, 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// What each instance may use of the machine.
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
    /// Which of its instances are started again that have ended; always, when absent.
    #[serde(default, skip_serializing_if = "Restart::is_always")]
    pub restart: Restart,
    /// Services that have to serve before it is started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
    /// What it speaks on the port that `PORT` names; `http` when absent and there are routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Requests on the tenant's URL that are for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
}

/// What a service speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP.
    Http,
    /// Anything on connections, a database for instance.
    Tcp,
}

/// *Ours*: requests on the tenant's URL, by host and path. The host decides first, an exact one before a wildcard before none;
/// then the longest prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// A host name, or `*.` and one, for any label before it. Absent: whatever the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// A path; those below it are meant too. The service sees it whole.
    #[serde(default = "Route::everything")]
    pub path: String,
}

impl Default for Route {
    fn default() -> Self {
        Self {
            host: None,
            path: Self::everything(),
        }
    }
}

impl Route {
    fn everything() -> String {
        "/".to_owned()
    }
}

/// *Ours*: a service of the release that serves, as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceStatus {
    /// Its name; `app` is the one that the release's own fields describe.
    pub name: String,
    /// `serving`, `starting`, `down`; `done` or `failed` where none is started again.
    pub state: String,
    /// For people: why none serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The deployment that has started it: an older one where it was carried over.
    pub deployment: u64,
    /// Digest of its image.
    pub digest: String,
    /// How many instances it should have.
    pub replicas: u32,
    /// Those that serve.
    #[serde(default)]
    pub instances: Vec<String>,
    /// Where everybody reaches it, if everybody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_url: Option<String>,
    /// Where other services reach it, if it listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub internal_url: Option<String>,
}

/// *Ours*: a service of a deployment, in the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeployedService {
    /// Its name.
    pub name: String,
    /// Digest of its image.
    pub digest: String,
    /// Instances of it.
    pub replicas: u32,
}

/// *Ours*: a volume of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VolumeInfo {
    /// Its name.
    pub name: String,
    /// The service of the live release that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The instance that has it at this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_use_by: Option<String>,
    /// Bytes on disk, where that is soon found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// When it was used for the first time, if the machine knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<DateTime<Utc>>,
}

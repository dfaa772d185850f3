//! The services of a release: `[services.NAME]`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Health, Liveness, LivenessKind, Protocol, Resources, Restart, Route, ServiceHealthKind,
    ServiceName, Variables, rules,
};

/// The services of a release. `app` is the one that the rest of the file describes; every other name is a service beside it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("additionalProperties" = false))]
pub struct Services {
    /// What `app` has besides, being one of several services.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "AppService")]
    pub app: Option<AppService>,
    /// The services beside it.
    #[serde(flatten)]
    pub others: BTreeMap<ServiceName, Service>,
}

impl Services {
    /// Whether any service has a volume.
    #[must_use]
    pub fn has_volumes(&self) -> bool {
        let of_app = self.app.iter().map(|app| &app.volumes);
        let others = self.others.values().map(|service| &service.volumes);
        of_app.chain(others).any(|volumes| !volumes.is_empty())
    }

    /// Whether the release is `app` alone, as if nothing was said of services but where its image comes from.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.others.is_empty() && self.app.as_ref().is_none_or(AppService::is_alone)
    }

    /// The binary that the image of `app` holds alone, where it is such an image.
    #[must_use]
    pub fn binary_of_app(&self) -> Option<&str> {
        self.app.as_ref()?.binary.as_deref()
    }

    /// The finished image that `app` runs, where it does.
    #[must_use]
    pub fn image_of_app(&self) -> Option<&str> {
        self.app.as_ref()?.image.as_deref()
    }
}

/// What the service `app` has, being one of several: all else of it is said by the other sections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AppService {
    /// A binary of the workspace: its image holds nothing else, on the base that `image.base` chooses, else on what it needs of
    /// this machine. No Dockerfile is read then.
    #[serde(with = "rules::optional")]
    #[schemars(with = "String")]
    pub binary: Option<String>,
    /// A finished image of any registry, as in `docker.io/library/nginx:1`: it is pinned in `.systemprompt/deploy.lock` and
    /// copied to the tenant's repository. No Dockerfile is read then.
    #[serde(with = "rules::optional_reference")]
    #[schemars(with = "String")]
    pub image: Option<String>,
    /// What is run in place of the image's own command: arguments for its entrypoint. `${PORT}` in it is the port to listen
    /// on.
    pub command: Vec<String>,
    /// Services that have to serve before it is started.
    pub depends_on: Vec<String>,
    /// Volumes that it has, by name, each with the absolute path at which it finds them. They are the tenant's and outlive
    /// instances and releases; a service with one has one instance.
    #[serde(deserialize_with = "rules::volumes")]
    pub volumes: BTreeMap<String, String>,
    /// Requests on the tenant's URL that are for it, each a path, a host, or both. Not said: all that are for no other
    /// service. `[]`: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<Route>")]
    pub routes: Option<Vec<Route>>,
}

impl AppService {
    fn is_alone(&self) -> bool {
        let from = Self {
            binary: self.binary.clone(),
            image: self.image.clone(),
            ..Self::default()
        };
        *self == from
    }
}

/// A service beside `app`. Where it says neither `binary` nor `dockerfile` nor `image`, it runs the image of `app`, with
/// another command perhaps. With routes it is public; with a protocol and no routes it is for the other services; with neither it
/// listens nowhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Service {
    /// A binary of the workspace: its image holds nothing else, on the base that `image.base` chooses.
    #[serde(with = "rules::optional")]
    #[schemars(with = "String")]
    pub binary: Option<String>,
    /// A Dockerfile of its own, relative to the project.
    #[serde(with = "rules::optional_path")]
    #[schemars(with = "String")]
    pub dockerfile: Option<PathBuf>,
    /// A finished image of any registry, as in `docker.io/library/postgres:16`: it is pinned in `.systemprompt/deploy.lock` and
    /// copied to the tenant's repository.
    #[serde(with = "rules::optional_reference")]
    #[schemars(with = "String")]
    pub image: Option<String>,
    /// What is run in place of the image's own command: arguments for its entrypoint. `${PORT}` in it is the port to listen
    /// on.
    pub command: Vec<String>,
    /// Services that have to serve before it is started.
    pub depends_on: Vec<String>,
    /// Requests on the tenant's URL that are for it, each a path, a host, or both.
    pub routes: Vec<Route>,
    /// What it speaks on the port that `PORT` names.
    pub protocol: Protocol,
    /// How many instances of it run.
    #[schemars(range(min = 1, max = 100))]
    pub replicas: u32,
    /// Which of its instances are started again that have ended, as in `deploy.restart`.
    pub restart: Restart,
    /// Its environment variables. `${services.NAME.INTERNAL_URL}` in a value is the address of a service; so are
    /// `INTERNAL_HOST`, `INTERNAL_PORT` and `PUBLIC_URL`. `${secrets.NAME}` is a secret of the tenant, put in when an instance is
    /// started.
    pub env: Variables,
    /// The tenant's secrets that it finds: names of variables, each with the name of a secret.
    #[serde(deserialize_with = "rules::secret_names")]
    pub secrets: BTreeMap<String, String>,
    /// Volumes that it has, by name, each with the absolute path at which it finds them. They are the tenant's and outlive
    /// instances and releases; a service with one has one instance.
    #[serde(deserialize_with = "rules::volumes")]
    pub volumes: BTreeMap<String, String>,
    /// What each of its instances may use of the machine.
    pub resources: Resources,
    /// How the platform decides that an instance of it is well. Where nothing is said of it: what its image says, else as it
    /// speaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Health<ServiceHealthKind>")]
    pub health: Option<Health<ServiceHealthKind>>,
    /// How the platform decides that a running instance of it has to be started again.
    pub liveness: Liveness,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            binary: None,
            dockerfile: None,
            image: None,
            command: Vec::new(),
            depends_on: Vec::new(),
            routes: Vec::new(),
            protocol: Protocol::None,
            replicas: 1,
            restart: Restart::Always,
            env: Variables::default(),
            secrets: BTreeMap::new(),
            volumes: BTreeMap::new(),
            resources: Resources::default(),
            health: None,
            liveness: Liveness::default(),
        }
    }
}

impl Service {
    /// Whether its image is another one than that of `app`.
    #[must_use]
    pub fn has_own_image(&self) -> bool {
        self.binary.is_some() || self.dockerfile.is_some() || self.image.is_some()
    }

    /// What it speaks, if it listens: one with routes speaks HTTP without saying so.
    #[must_use]
    pub fn speaks(&self) -> Protocol {
        match self.protocol {
            Protocol::None if !self.routes.is_empty() => Protocol::Http,
            protocol => protocol,
        }
    }

    /// Its health check, where anything is said of it or of its liveness: the platform takes both together.
    #[must_use]
    pub fn asked_health(&self) -> Option<Health<ServiceHealthKind>> {
        let alone = || (self.liveness.kind != LivenessKind::None).then(Health::default);
        self.health.clone().or_else(alone)
    }

    /// How its health is asked, where it is said.
    #[must_use]
    pub fn health_kind(&self) -> Option<ServiceHealthKind> {
        let said = self.asked_health()?.kind;
        Some(match (said, self.speaks()) {
            (ServiceHealthKind::Auto, Protocol::Http) => ServiceHealthKind::Http,
            (ServiceHealthKind::Auto, Protocol::Tcp) => ServiceHealthKind::Tcp,
            (ServiceHealthKind::Auto, Protocol::None) => ServiceHealthKind::Process,
            (said, _) => said,
        })
    }
}

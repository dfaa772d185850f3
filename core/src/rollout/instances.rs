//! Starting an instance of a release, and knowing again those that an earlier server has started.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use engines::{EngineError, Instance, InstanceSpec, Mounted, VolumeId};
use management_api::types::{Failure, Resources};
use oci::Digest;
use proxy::Target;
use secrecy::ExposeSecret;

use super::doors::Addresses;
use super::failure;
use crate::deployments::outputs::{Reference, filled};
use crate::deployments::{APP, Service, run_config};
use crate::platform::Platform;
use crate::store::{DeploymentRow, TenantRow};
use crate::{logs, ports, secrets};

/// Tells apart the instances of one deployment.
static COUNT: AtomicU64 = AtomicU64::new(1);

/// In a command: the port to listen on.
const PORT: &str = "${PORT}";

/// What an instance's id says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name<'a> {
    tenant: &'a str,
    pub(super) service: &'a str,
    pub(super) deployment: u64,
    count: u64,
}

/// Neither a tenant's id nor a service's name has two dashes in a row.
const SERVICE: &str = "--";

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            tenant,
            service,
            deployment,
            count,
        } = self;
        f.write_str(tenant)?;
        if *service != APP {
            write!(f, "{SERVICE}{service}")?;
        }
        write!(f, "-{deployment}-{count}")
    }
}

impl<'a> Name<'a> {
    pub(super) fn of(id: &'a str) -> Option<Self> {
        let (rest, count) = id.rsplit_once('-')?;
        let (rest, deployment) = rest.rsplit_once('-')?;
        let (tenant, service) = rest.split_once(SERVICE).unwrap_or((rest, APP));
        Some(Self {
            tenant,
            service,
            deployment: deployment.parse().ok()?,
            count: count.parse().ok()?,
        })
    }
}

/// Instances of an earlier server that run on.
pub(crate) struct Adopted(Vec<Instance>);

impl Adopted {
    pub(crate) fn of(instances: Vec<Instance>) -> Self {
        let counts = instances.iter().filter_map(|i| Name::of(i.id()));
        if let Some(last) = counts.map(|name| name.count).max() {
            // New ones must not have their names.
            COUNT.fetch_max(last + 1, Ordering::Relaxed);
        }
        Self(instances)
    }

    /// All of a tenant, the youngest first.
    pub(crate) fn of_tenant(&mut self, tenant: &TenantRow) -> LeftRunning {
        let is_of = |i: &Instance| Name::of(i.id()).is_some_and(|name| name.tenant == tenant.id);
        let all = std::mem::take(&mut self.0);
        let (mut left, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(is_of);
        self.0 = rest;
        left.sort_by_key(|i| Reverse(Name::of(i.id()).map(|name| name.count)));
        LeftRunning(left)
    }

    /// Those of nobody.
    pub(crate) fn rest(self) -> Vec<Instance> {
        self.0
    }
}

/// Instances of one tenant that an earlier server has left.
#[derive(Default)]
pub(crate) struct LeftRunning(Vec<Instance>);

impl LeftRunning {
    /// The deployments that have started them.
    pub(super) fn deployments(&self) -> BTreeSet<u64> {
        let names = self.0.iter().filter_map(|i| Name::of(i.id()));
        names.map(|name| name.deployment).collect()
    }

    /// Those of a service that one of certain deployments has started.
    pub(super) fn take(&mut self, service: &str, of: impl Fn(u64) -> bool) -> Vec<Instance> {
        let all = std::mem::take(&mut self.0);
        let is_wanted = |name: Name<'_>| name.service == service && of(name.deployment);
        let (taken, rest) = all
            .into_iter()
            .partition(|instance| Name::of(instance.id()).is_some_and(is_wanted));
        self.0 = rest;
        taken
    }

    /// Of deployments that were not finished, of release commands, of sets that were kept warm.
    pub(super) fn rest(self) -> Vec<Instance> {
        self.0
    }
}

/// Starts an instance of a service on a port of its own.
pub(super) async fn start(
    platform: &Platform,
    row: &DeploymentRow,
    name: &str,
    service: &Service,
) -> Result<Instance, Failure> {
    let command = (!service.command.is_empty()).then(|| service.command.clone());
    begin(platform, row, name, service, command).await
}

/// Starts the command that runs before a release; its output is in the log of the deployment. The service has its volumes
/// meanwhile, and nobody else.
pub(super) async fn start_command(
    platform: &Platform,
    row: &DeploymentRow,
) -> Result<Instance, Failure> {
    let app = Service {
        volumes: BTreeMap::new(),
        ..row.capsule.app()
    };
    begin(platform, row, APP, &app, Some(row.release_command.clone())).await
}

async fn begin(
    platform: &Platform,
    row: &DeploymentRow,
    name: &str,
    service: &Service,
    command: Option<Vec<String>>,
) -> Result<Instance, Failure> {
    let image = digest_of(service)?;
    let repository = row.tenant.parse().map_err(|error| {
        failure::plain(
            "internal",
            format!("the tenant names no repository: {error}"),
        )
    })?;
    let range = platform.settings.engine.instance_ports();
    let port = ports::for_instance(&range).ok_or_else(|| failure::no_port(&range))?;
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // Images of databases read no variable.
    let listens_on = |word: String| word.replace(PORT, &port.to_string());
    let spec = InstanceSpec {
        id: Name {
            tenant: &row.tenant,
            service: name,
            deployment: row.number,
            count,
        }
        .to_string(),
        repository,
        image,
        env: environment(platform, row, name, service).await?,
        port,
        log: logs::file(&platform.data.logs(&row.tenant), row.number, name),
        command: command.map(|words| words.into_iter().map(listens_on).collect()),
        resources: bounds(&service.resources),
        volumes: mounted(row, service),
    };
    platform
        .engine
        .start(spec)
        .await
        .map_err(|error: EngineError| failure::not_started(&error))
}

/// A tenant's volume, as the engine calls it.
pub(crate) fn volume(tenant: &str, name: &str) -> VolumeId {
    VolumeId {
        owner: tenant.to_owned(),
        name: name.to_owned(),
    }
}

fn mounted(row: &DeploymentRow, service: &Service) -> Vec<Mounted> {
    let volumes = service.volumes.iter();
    let mounted = volumes.map(|(name, path)| Mounted {
        volume: volume(&row.tenant, name),
        path: path.into(),
    });
    mounted.collect()
}

/// What the engine is told of what a release may use.
pub(crate) fn bounds(resources: &Resources) -> engines::Resources {
    engines::Resources {
        memory: resources.memory_bytes,
        cpu_millis: resources.cpu_millis,
        pids: resources.pids,
        read_only: resources.read_only,
        best_effort: resources.best_effort,
    }
}

/// The service's own variables, the versions of the secrets that it names, and the addresses that it is told. What values name is
/// put in here and nowhere else: secrets are in clear in what the engine is given, and in nothing that is kept.
pub(super) async fn environment(
    platform: &Platform,
    row: &DeploymentRow,
    name: &str,
    service: &Service,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut env = service.env.clone();
    let of_secret = |secret: String| {
        let version = *row.capsule.secrets.get(&secret)?;
        Some((secret, version))
    };
    let named = service.named_secrets().into_iter();
    let versions = named.filter_map(of_secret).collect();
    let opened = secrets::open(&platform.store, &platform.vault, &row.tenant, &versions).await;
    let opened =
        opened.map_err(|error| failure::plain("secret_unreadable", crate::chain(&error)))?;
    let addresses = Addresses::of(platform, row);
    for value in env.values_mut() {
        *value = filled(value, |reference| match reference {
            Reference::Output { service, output } => addresses.named(service, output),
            Reference::Secret(name) => Some(opened.get(name)?.expose_secret().to_owned()),
        });
    }
    for (variable, secret) in &service.secrets {
        if let Some(value) = opened.get(secret) {
            env.insert(variable.clone(), value.expose_secret().to_owned());
        }
    }
    for (variable, value) in addresses.told(name, service) {
        // What somebody has said himself holds.
        if !env.contains_key(&variable) && !image_holds(platform, row, service, &variable).await? {
            env.insert(variable, value);
        }
    }
    Ok(env)
}

/// Whether a variable stays what the image says. An application that is alone needs no address but for itself, and whoever
/// made its image may mean something else by the name.
async fn image_holds(
    platform: &Platform,
    row: &DeploymentRow,
    service: &Service,
    variable: &str,
) -> Result<bool, Failure> {
    if !row.capsule.is_single() {
        return Ok(false);
    }
    let image = digest_of(service)?;
    let (images, variable) = (Arc::clone(&platform.images), variable.to_owned());
    let look = move || run_config::sets(&images, image, &variable);
    let looked = tokio::task::spawn_blocking(look).await;
    looked.map_err(|error| failure::plain("internal", crate::chain(&error)))
}

fn digest_of(service: &Service) -> Result<Digest, Failure> {
    service.digest.parse().map_err(|error| {
        failure::plain("internal", format!("the recorded digest is wrong: {error}"))
    })
}

/// Where the proxy finds an instance.
pub(super) fn target(instance: &Instance) -> Target {
    Target {
        id: instance.id().to_owned(),
        address: instance.address(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_whose_instance_it_is() {
        let mut name = Name {
            tenant: "a-1",
            service: APP,
            deployment: 20,
            count: 3,
        };
        assert_eq!(name.to_string(), "a-1-20-3");
        assert_eq!(Name::of("a-1-20-3"), Some(name));
        name.service = "db-2";
        assert_eq!(name.to_string(), "a-1--db-2-20-3");
        assert_eq!(Name::of("a-1--db-2-20-3"), Some(name));
        for other in ["a", "a-1", "a-b-1", "a-1-b", ""] {
            assert_eq!(Name::of(other), None, "{other}");
        }
    }
}

//! Starting an instance of a release, and knowing again those that an earlier server has started.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use engines::{EngineError, Instance, InstanceSpec};
use management_api::types::{Failure, Resources};
use oci::Digest;
use proxy::Target;
use secrecy::ExposeSecret;

use super::failure;
use crate::platform::Platform;
use crate::store::{DeploymentRow, TenantRow};
use crate::{logs, ports, secrets};

/// Tells apart the instances of one deployment.
static COUNT: AtomicU64 = AtomicU64::new(1);

/// What an instance's id says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Name<'a> {
    tenant: &'a str,
    deployment: u64,
    count: u64,
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            tenant,
            deployment,
            count,
        } = self;
        write!(f, "{tenant}-{deployment}-{count}")
    }
}

impl<'a> Name<'a> {
    fn of(id: &'a str) -> Option<Self> {
        let (rest, count) = id.rsplit_once('-')?;
        let (tenant, deployment) = rest.rsplit_once('-')?;
        Some(Self {
            tenant,
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

    /// Those of one deployment.
    fn take(&mut self, tenant: &str, deployment: u64) -> Vec<Instance> {
        let is_of = |name: Name<'_>| name.tenant == tenant && name.deployment == deployment;
        let all = std::mem::take(&mut self.0);
        let (taken, rest) = all
            .into_iter()
            .partition(|instance| Name::of(instance.id()).is_some_and(is_of));
        self.0 = rest;
        taken
    }

    /// All of a tenant, told apart by what becomes of them. The youngest come first.
    pub(crate) fn of_tenant(&mut self, tenant: &TenantRow) -> LeftRunning {
        let mut left = LeftRunning {
            live: tenant
                .live
                .map_or_else(Vec::new, |n| self.take(&tenant.id, n)),
            stand_in: tenant
                .stand_in
                .map_or_else(Vec::new, |n| self.take(&tenant.id, n)),
            rest: Vec::new(),
        };
        let is_of = |i: &Instance| Name::of(i.id()).is_some_and(|name| name.tenant == tenant.id);
        let all = std::mem::take(&mut self.0);
        (left.rest, self.0) = all.into_iter().partition(is_of);
        let age = |i: &Instance| Reverse(Name::of(i.id()).map(|name| name.count));
        left.live.sort_by_key(age);
        left.stand_in.sort_by_key(age);
        left
    }

    /// Those of nobody.
    pub(crate) fn rest(self) -> Vec<Instance> {
        self.0
    }
}

/// Instances of one tenant that an earlier server has left.
#[derive(Default)]
pub(crate) struct LeftRunning {
    pub(super) live: Vec<Instance>,
    /// Of the release that stands in for the live one.
    pub(super) stand_in: Vec<Instance>,
    /// Of deployments that were not finished, of release commands, of sets that were kept warm.
    pub(super) rest: Vec<Instance>,
}

/// Starts an instance on a port of its own.
pub(super) async fn start(platform: &Platform, row: &DeploymentRow) -> Result<Instance, Failure> {
    begin(platform, row, None).await
}

/// Starts the command that runs before a release; its output is in the log of the deployment.
pub(super) async fn start_command(
    platform: &Platform,
    row: &DeploymentRow,
) -> Result<Instance, Failure> {
    begin(platform, row, Some(row.release_command.clone())).await
}

async fn begin(
    platform: &Platform,
    row: &DeploymentRow,
    command: Option<Vec<String>>,
) -> Result<Instance, Failure> {
    let image: Digest = row.capsule.digest.parse().map_err(|error| {
        failure::plain("internal", format!("the recorded digest is wrong: {error}"))
    })?;
    let repository = row.tenant.parse().map_err(|error| {
        failure::plain(
            "internal",
            format!("the tenant names no repository: {error}"),
        )
    })?;
    let port = ports::for_instance()
        .map_err(|error| failure::plain("start_failed", format!("no port is free: {error}")))?;
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let spec = InstanceSpec {
        id: Name {
            tenant: &row.tenant,
            deployment: row.number,
            count,
        }
        .to_string(),
        repository,
        image,
        env: environment(platform, row).await?,
        port,
        log: logs::file(&platform.data.logs(&row.tenant), row.number),
        command,
        resources: bounds(&row.capsule.resources),
    };
    platform
        .engine
        .start(spec)
        .await
        .map_err(|error: EngineError| failure::not_started(&error))
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

/// The release's own variables and the versions of the secrets that it names.
async fn environment(
    platform: &Platform,
    row: &DeploymentRow,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut env = row.capsule.env.clone();
    let versions = &row.capsule.secrets;
    let opened = secrets::open(&platform.store, &platform.vault, &row.tenant, versions).await;
    let opened =
        opened.map_err(|error| failure::plain("secret_unreadable", crate::chain(&error)))?;
    env.extend(
        opened
            .into_iter()
            .map(|(name, value)| (name, value.expose_secret().to_owned())),
    );
    Ok(env)
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
        let name = Name {
            tenant: "a-1",
            deployment: 20,
            count: 3,
        };
        assert_eq!(name.to_string(), "a-1-20-3");
        assert_eq!(Name::of("a-1-20-3"), Some(name));
        for other in ["a", "a-1", "a-b-1", "a-1-b", ""] {
            assert_eq!(Name::of(other), None, "{other}");
        }
    }
}

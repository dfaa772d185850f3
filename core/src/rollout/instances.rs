//! Starting an instance of a release.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use engines::process::{EngineError, Instance, InstanceSpec};
use management_api::types::Failure;
use oci::Digest;
use proxy::Target;
use secrecy::ExposeSecret;

use super::failure;
use crate::platform::Platform;
use crate::store::DeploymentRow;
use crate::{logs, ports, secrets};

/// Tells apart the instances that one server starts of one deployment.
static COUNT: AtomicU64 = AtomicU64::new(1);

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
    let port = ports::for_instance()
        .map_err(|error| failure::plain("start_failed", format!("no port is free: {error}")))?;
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let spec = InstanceSpec {
        id: format!("{}-{}-{count}", row.tenant, row.number),
        image,
        env: environment(platform, row).await?,
        port,
        log: logs::file(&platform.data.logs(&row.tenant), row.number),
        command,
    };
    platform
        .engine
        .start(spec)
        .await
        .map_err(|error: EngineError| failure::not_started(&error))
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

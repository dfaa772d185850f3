//! `list_volumes` and `list_secrets`: what a tenant keeps beside its releases. Values of secrets are told by nobody.

use management_api::types::{SecretInfo, VolumeInfo};
use mcp_common::{Platform, Reply, ToolError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Arguments of `list_volumes` and `list_secrets`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeptArguments {
    /// The tenant; the configured one, or the only one, when absent.
    #[schemars(length(min = 1, max = 100))]
    tenant: Option<String>,
}

/// Volumes of a tenant.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Volumes {
    /// The tenant.
    pub tenant: String,
    /// The volumes, by name.
    pub volumes: Vec<VolumeInfo>,
}

/// Secrets of a tenant, without their values.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Secrets {
    /// The tenant.
    pub tenant: String,
    /// The secrets, by name.
    pub secrets: Vec<SecretInfo>,
}

pub(crate) async fn volumes(
    platform: &Platform,
    arguments: KeptArguments,
) -> Result<Reply<Volumes>, ToolError> {
    platform
        .call(move |connection| {
            let tenant = connection.tenant(arguments.tenant)?;
            let known = connection.client.volumes(&tenant)?;
            let mut volumes = known.ok_or_else(|| not_told("has no volumes"))?;
            volumes.sort_by(|a, b| a.name.cmp(&b.name));
            let lines = volumes.iter().map(volume).collect();
            let text = listed(volumes.len(), "volumes", &tenant, lines);
            Ok(Reply::new(text, Volumes { tenant, volumes }))
        })
        .await
}

pub(crate) async fn secrets(
    platform: &Platform,
    arguments: KeptArguments,
) -> Result<Reply<Secrets>, ToolError> {
    platform
        .call(move |connection| {
            let tenant = connection.tenant(arguments.tenant)?;
            let known = connection.client.secrets(&tenant)?;
            let mut secrets =
                known.ok_or_else(|| not_told("does not tell which secrets there are"))?;
            secrets.sort_by(|a, b| a.name.cmp(&b.name));
            let lines = secrets.iter().map(secret).collect();
            let text = listed(secrets.len(), "secrets", &tenant, lines);
            Ok(Reply::new(text, Secrets { tenant, secrets }))
        })
        .await
}

fn not_told(what: &str) -> ToolError {
    ToolError::new(format!("this platform {what}")).next("ask what it offers with `status`")
}

fn listed(count: usize, what: &str, tenant: &str, lines: Vec<String>) -> String {
    let first = format!("{count} {what} of {tenant}");
    [vec![first], lines].concat().join("\n")
}

fn volume(volume: &VolumeInfo) -> String {
    let size = volume.bytes.map(|bytes| format!("  {bytes} bytes"));
    let service = volume.service.as_ref().map(|name| format!("  of {name}"));
    let holder = volume
        .in_use_by
        .as_ref()
        .map(|id| format!("  in use by {id}"));
    let parts = [size, service, holder].into_iter().flatten();
    format!("{}{}", volume.name, parts.collect::<String>())
}

fn secret(secret: &SecretInfo) -> String {
    let rotated = if secret.externally_rotated {
        ", rotated by others"
    } else {
        ""
    };
    format!(
        "{}  version {}, {}{rotated}",
        secret.name,
        secret.version,
        secret.updated_at.format("%Y-%m-%d %H:%M UTC")
    )
}

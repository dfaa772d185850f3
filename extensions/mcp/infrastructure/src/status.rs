//! `status`: what serves now.

use management_api::types::{Capabilities, Deployment, TenantStatus};
use mcp_common::{Platform, Reply, ToolError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::history::summary;

/// Arguments of `status`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StatusArguments {
    /// The tenant; the configured one, or the only one, when absent.
    #[schemars(length(min = 1, max = 100))]
    tenant: Option<String>,
}

/// State of a tenant.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct StatusReport {
    /// The tenant.
    pub tenant: String,
    /// Address of the platform.
    pub platform_url: String,
    /// What the tenant does.
    pub state: TenantStatus,
    /// What the platform offers beyond the contract; null when it knows the contract only.
    pub platform: Option<Capabilities>,
}

pub(crate) async fn report(
    platform: &Platform,
    arguments: StatusArguments,
) -> Result<Reply<StatusReport>, ToolError> {
    platform
        .call(move |connection| {
            let tenant = connection.tenant(arguments.tenant)?;
            let report = StatusReport {
                state: connection.client.status(&tenant)?,
                platform: connection.client.capabilities()?,
                platform_url: connection.client.base_url().to_owned(),
                tenant,
            };
            Ok(Reply::new(describe(&report), report))
        })
        .await
}

fn describe(report: &StatusReport) -> String {
    let state = &report.state;
    let mut lines = vec![format!("{} is {}", report.tenant, state.status)];
    lines.extend(
        state
            .message
            .as_ref()
            .map(|text| format!("message  {text}")),
    );
    lines.extend(state.app_url.as_ref().map(|url| format!("url      {url}")));
    let line = |name: &str, deployment: &Deployment| format!("{name}  {}", summary(deployment));
    lines.extend(state.live.as_ref().map(|live| line("live   ", live)));
    lines.extend(
        state
            .running
            .as_ref()
            .map(|running| line("running", running)),
    );
    lines.push(match &report.platform {
        Some(platform) => format!(
            "platform {} {} at {}, engine {}",
            platform.product, platform.version, report.platform_url, platform.engine.name
        ),
        None => format!("platform {} (contract only)", report.platform_url),
    });
    lines.join("\n")
}

//! `rollback`: restores an earlier release.

use management_api::types::RollbackRequest;
use mcp_common::{Platform, Reply, ToolError, bounded};
use rmcp::RoleServer;
use rmcp::service::RequestContext;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::deploy::{check_timeout, idempotency_key};
use crate::follow::{self, Begun, Outcome};

/// Arguments of `rollback`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RollbackArguments {
    /// The tenant; the configured one, or the only one, when absent.
    #[schemars(length(min = 1, max = 100))]
    tenant: Option<String>,
    /// Number or tag of the deployment to restore; the last good one before the live one when
    /// absent.
    #[schemars(length(min = 1, max = 128))]
    to: Option<String>,
    /// Seconds that the platform gives the rollout before it undoes it; its default when absent.
    #[schemars(range(min = 1, max = 86_400))]
    timeout_seconds: Option<u64>,
    /// Seconds to wait for the outcome; 0 answers at once.
    #[serde(default)]
    #[schemars(range(min = 0, max = 600))]
    wait_seconds: u64,
}

pub(crate) async fn rollback(
    platform: &Platform,
    arguments: RollbackArguments,
    context: &RequestContext<RoleServer>,
) -> Result<Reply<Outcome>, ToolError> {
    let wait = follow::wait(arguments.wait_seconds)?;
    if let Some(to) = &arguments.to {
        bounded("to", to, 128)?;
    }
    check_timeout(arguments.timeout_seconds)?;
    let begun = platform
        .call(move |connection| {
            let tenant = connection.tenant(arguments.tenant)?;
            let request = RollbackRequest {
                to: arguments.to,
                timeout_seconds: arguments.timeout_seconds,
            };
            let key = idempotency_key()?;
            let answer = connection.client.rollback(&tenant, &request, &key)?;
            Ok(Begun { tenant, answer })
        })
        .await?;
    follow::outcome(platform, begun, wait, context).await
}

//! `list_deployments` and `show_deployment`.

use management_api::types::Deployment;
use mcp_common::{Platform, Reply, ToolError, bounded};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const MAX_LIMIT: usize = 200;

/// Arguments of `list_deployments`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListArguments {
    /// The tenant; the configured one, or the only one, when absent.
    #[schemars(length(min = 1, max = 100))]
    tenant: Option<String>,
    /// Only deployments in this state: `succeeded`, `failed`, `rolled_back`, …
    #[schemars(length(min = 1, max = 40))]
    state: Option<String>,
    /// How many at most.
    #[serde(default = "twenty")]
    #[schemars(range(min = 1, max = 200))]
    limit: usize,
}

fn twenty() -> usize {
    20
}

/// Arguments of `show_deployment`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShowArguments {
    /// The tenant; the configured one, or the only one, when absent.
    #[schemars(length(min = 1, max = 100))]
    tenant: Option<String>,
    /// Number of the deployment, as `list_deployments` says.
    #[schemars(range(min = 1))]
    number: u64,
}

/// Deployments of a tenant.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct History {
    /// The tenant.
    pub tenant: String,
    /// How many match.
    pub matched: usize,
    /// The newest of them, newest first.
    pub deployments: Vec<Deployment>,
}

pub(crate) async fn list(
    platform: &Platform,
    arguments: ListArguments,
) -> Result<Reply<History>, ToolError> {
    if !(1..=MAX_LIMIT).contains(&arguments.limit) {
        let why = format!("is not within 1 to {MAX_LIMIT}");
        return Err(ToolError::argument("limit", why));
    }
    if let Some(state) = &arguments.state {
        bounded("state", state, 40)?;
    }
    platform
        .call(move |connection| {
            let tenant = connection.tenant(arguments.tenant)?;
            let all = connection.client.deployments(&tenant)?;
            let mut deployments = all.ok_or_else(no_history)?;
            if let Some(state) = &arguments.state {
                deployments.retain(|deployment| deployment.state == *state);
            }
            let matched = deployments.len();
            deployments.truncate(arguments.limit);
            let history = History {
                tenant,
                matched,
                deployments,
            };
            Ok(Reply::new(describe(&history), history))
        })
        .await
}

pub(crate) async fn show(
    platform: &Platform,
    arguments: ShowArguments,
) -> Result<Reply<Deployment>, ToolError> {
    if arguments.number == 0 {
        return Err(ToolError::argument(
            "number",
            "is 0: deployments count from 1",
        ));
    }
    platform
        .call(move |connection| {
            let tenant = connection.tenant(arguments.tenant)?;
            let deployment = connection.client.deployment(&tenant, arguments.number)?;
            Ok(Reply::new(details(&deployment), deployment))
        })
        .await
}

fn no_history() -> ToolError {
    ToolError::new("this platform keeps no history").next("ask for the present with `status`")
}

fn describe(history: &History) -> String {
    let shown = history.deployments.len();
    let mut lines = vec![format!(
        "{shown} of {} deployments of {}",
        history.matched, history.tenant
    )];
    lines.extend(history.deployments.iter().map(summary));
    lines.join("\n")
}

/// One line a deployment.
pub(crate) fn summary(deployment: &Deployment) -> String {
    let live = if deployment.live { " (live)" } else { "" };
    let kind = match (deployment.kind.as_str(), deployment.restores) {
        ("rollback", Some(number)) => format!("rollback to #{number}"),
        (kind, _) => kind.to_owned(),
    };
    format!(
        "#{} {}{live}  {}  {kind} by {} at {}",
        deployment.number,
        deployment.state,
        deployment.image,
        deployment.actor,
        deployment.created_at.format("%Y-%m-%d %H:%M:%S UTC"),
    )
}

fn details(deployment: &Deployment) -> String {
    let mut lines = vec![
        summary(deployment),
        format!("digest    {}", deployment.digest),
        format!("strategy  {}", deployment.strategy),
    ];
    lines.extend(
        deployment
            .previous
            .map(|number| format!("before    #{number}")),
    );
    lines.extend(deployment.source.as_ref().map(|source| {
        let dirty = if source.dirty {
            " with uncommitted changes"
        } else {
            ""
        };
        format!("source    {}{dirty}", source.git_sha)
    }));
    lines.extend(
        deployment
            .app_url
            .as_ref()
            .map(|url| format!("url       {url}")),
    );
    lines.extend(deployment.failure.as_ref().map(failure));
    lines.join("\n")
}

/// Why a deployment failed, with the application's last lines.
pub(crate) fn failure(failure: &management_api::types::Failure) -> String {
    let mut lines = vec![format!("failure   {}: {}", failure.code, failure.message)];
    lines.extend(failure.exit_code.map(|code| format!("exit code {code}")));
    lines.extend(failure.signal.map(|signal| format!("signal    {signal}")));
    if !failure.log_tail.is_empty() {
        lines.push("the application's last lines:".to_owned());
        lines.extend(failure.log_tail.iter().map(|line| format!("  {line}")));
    }
    lines.join("\n")
}

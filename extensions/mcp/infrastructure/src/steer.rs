//! `promote` and `abort`: a word to the deployment that is being made now.

use management_api::types::{Deployment, is_final};
use mcp_common::{Platform, Reply, ToolError};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::history::summary;

/// Arguments of `promote` and `abort`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SteerArguments {
    /// The tenant; the configured one, or the only one, when absent.
    #[schemars(length(min = 1, max = 100))]
    tenant: Option<String>,
    /// Number of the deployment, as `status` says: so that no other one is meant that has begun meanwhile.
    #[schemars(range(min = 1))]
    number: u64,
}

/// What is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// Go on to the next step.
    Promote,
    /// Undo everything, or: it is settled.
    Abort,
}

pub(crate) async fn say(
    platform: &Platform,
    arguments: SteerArguments,
    word: Word,
) -> Result<Reply<Deployment>, ToolError> {
    if arguments.number == 0 {
        return Err(
            ToolError::argument("number", "is 0: deployments count from 1")
                .next("`status` says which one is being made"),
        );
    }
    platform
        .call(move |connection| {
            let tenant = connection.tenant(arguments.tenant)?;
            let (client, number) = (&connection.client, arguments.number);
            match word {
                Word::Promote => client.promote(&tenant, number)?,
                Word::Abort => client.abort(&tenant, number)?,
            }
            let deployment = client.deployment(&tenant, number)?;
            Ok(Reply::new(describe(&deployment, word), deployment))
        })
        .await
}

fn describe(deployment: &Deployment, word: Word) -> String {
    let what = match word {
        Word::Promote => "goes on",
        // An operator said so of one that could not be undone.
        Word::Abort if is_final(&deployment.state) => "is settled",
        Word::Abort => "is being undone",
    };
    format!(
        "deployment {} {what}; look with `show_deployment`\n{}",
        deployment.number,
        summary(deployment)
    )
}

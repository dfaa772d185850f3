//! `systemprompt-infrastructure`: an MCP server for the deployments of a systemprompt platform.
//!
//! | tool | does |
//! | --- | --- |
//! | `status` | what serves now, what is being deployed, what the platform offers |
//! | `list_deployments` | the history of a tenant |
//! | `show_deployment` | one deployment, with the reason where it failed |
//! | `deploy_image` | deploys an image that is already in the registry; can wait for the outcome |
//! | `rollback` | restores an earlier release; can wait for the outcome |
//! | `promote` | lets a deployment that is being watched go on |
//! | `abort` | undoes the one that is being made |
//! | `logs` | what the application wrote |
//! | `list_volumes` | what services keep |
//! | `list_secrets` | names and versions; values are told by nobody |
//!
//! It speaks to the Management API of `SYSTEMPROMPT_API_URL` with `SYSTEMPROMPT_API_TOKEN`, or to
//! the project's local platform (`.systemprompt/local/`, found from the working directory
//! upwards). A call is about the tenant it names, else `SYSTEMPROMPT_TENANT_ID`, else the only
//! one the token can see. It builds nothing and pushes nothing: that is `cargo xtask deploy`.
//!
//! Speaks MCP over standard input and output, or streamable HTTP with `--http 127.0.0.1:5011`.

mod deploy;
mod follow;
mod history;
mod kept;
mod logs;
mod rollback;
mod server;
mod status;
mod steer;

use clap::Parser;
use mcp_common::ServeArguments;

/// MCP server: deployments of a systemprompt platform
#[derive(Parser)]
#[command(name = "systemprompt-infrastructure", version)]
struct Arguments {
    #[command(flatten)]
    serve: ServeArguments,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    Ok(mcp_common::run(
        &arguments.serve,
        server::Infrastructure::new(),
    )?)
}

//! `systemprompt-admin`: an MCP server for the tenants and API tokens of a systemprompt platform.
//!
//! | tool | does |
//! | --- | --- |
//! | `list_tenants` | the tenants that the token can see |
//! | `create_tenant` | makes a tenant |
//! | `delete_tenant` | stops and removes a tenant; needs its id a second time as `confirm` |
//! | `list_tokens` | the platform's API tokens, without their secret part |
//! | `create_token` | makes a token; its secret part is in this one answer |
//! | `revoke_token` | ends a token |
//!
//! It needs an operator's token: `SYSTEMPROMPT_API_TOKEN` with `SYSTEMPROMPT_API_URL`, or the
//! project's local platform (`.systemprompt/local/`, found from the working directory upwards).
//! Give it only to clients that ask their user before they call a tool.
//!
//! Speaks MCP over standard input and output, or streamable HTTP with `--http 127.0.0.1:5012`.

mod server;
mod tenants;
mod tokens;

use clap::Parser;
use mcp_common::ServeArguments;

/// MCP server: tenants and API tokens of a systemprompt platform
#[derive(Parser)]
#[command(name = "systemprompt-admin", version)]
struct Arguments {
    #[command(flatten)]
    serve: ServeArguments,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    Ok(mcp_common::run(&arguments.serve, server::Admin::new())?)
}

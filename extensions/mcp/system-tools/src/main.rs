//! `system-tools`: an MCP server with facts about the host it runs on.
//!
//! | tool | answers |
//! | --- | --- |
//! | `host_info` | kernel, operating system, uptime, load, processors, memory, one file system |
//! | `processes` | the processes that use most memory or processor time |
//! | `process` | one process: command line, state, memory, limits, open files |
//! | `ports` | listening TCP sockets and who owns them |
//!
//! Everything is read from `/proc`, `/etc` and `statvfs`; nothing is ever changed, started or
//! signalled, and no environment variable of a process is shown. Command lines are shown with
//! what looks like a secret taken out. What the server's user may not read is left out and said
//! to be missing.
//!
//! Speaks MCP over standard input and output, or streamable HTTP with `--http 127.0.0.1:5010`.

mod disk;
mod host;
mod ports;
mod process;
mod processes;
mod procfs;
mod redact;
mod server;
mod text;
mod users;

use clap::Parser;
use mcp_common::ServeArguments;

/// MCP server: facts about this host and its processes, read only
#[derive(Parser)]
#[command(name = "system-tools", version)]
struct Arguments {
    #[command(flatten)]
    serve: ServeArguments,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    Ok(mcp_common::run(
        &arguments.serve,
        server::SystemTools::new(),
    )?)
}

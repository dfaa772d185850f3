//! The arguments that every server takes.

use std::net::SocketAddr;

use clap::{Args, ValueEnum};

/// How the server is reached. Without arguments: standard input and output.
#[derive(Debug, Clone, Default, Args)]
pub struct ServeArguments {
    /// Serve streamable HTTP on this address (endpoint /mcp) instead of standard input and output
    ///
    /// Port 0 picks a free port; the URL is printed on standard output. With
    /// `SYSTEMPROMPT_MCP_TOKEN` set, every request must carry it as a bearer token.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub http: Option<SocketAddr>,

    /// Allow an address that other machines can reach, without TLS
    #[arg(long, requires = "http")]
    pub insecure: bool,

    /// Answer requests for this host name too (`name` or `name:port`); repeatable
    #[arg(long, value_name = "HOST", requires = "http")]
    pub allow_host: Vec<String>,

    /// Answer browser pages of this origin too (`https://name:port`); repeatable
    #[arg(long, value_name = "ORIGIN", requires = "http")]
    pub allow_origin: Vec<String>,

    /// How much is told on standard error
    #[arg(long, value_enum, default_value_t, env = "SYSTEMPROMPT_LOG")]
    pub log: LogLevel,
}

/// How much is told on standard error. There is nothing below `info`: the SDK's finer levels
/// print whole messages, and some answers hold tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Failures only.
    Error,
    /// What may need attention.
    #[default]
    Warn,
    /// Starts, stops and connections too.
    Info,
}

impl From<LogLevel> for tracing::Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
        }
    }
}

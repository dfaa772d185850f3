//! What the MCP servers share: how they are reached, how they answer, how they get at the
//! Management API.
//!
//! A server is a `ServerHandler` of the SDK and a `main` of three lines: it parses its arguments,
//! makes its service and hands both to [`run`]. This crate defines no tool and knows no server.

mod arguments;
mod http;
mod platform;
mod reply;
mod run;
mod settings;
mod stdio;

pub use arguments::{LogLevel, ServeArguments};
pub use platform::{CallError, Connection, Platform};
pub use reply::{Reply, ToolError, bounded, output_schema};
pub use run::{ServeError, run};
pub use settings::{Origin, Settings, SettingsError};

/// Runs work that blocks (files, `/proc`) away from the threads that serve connections.
pub async fn blocking<T, F>(job: F) -> Result<T, ToolError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, ToolError> + Send + 'static,
{
    match tokio::task::spawn_blocking(job).await {
        Ok(result) => result,
        Err(error) => Err(ToolError::new(format!("the tool broke off: {error}"))),
    }
}

//! The transport over standard input and output: one client, the parent process.

use std::io::IsTerminal as _;

use rmcp::service::{QuitReason, ServerInitializeError};
use rmcp::{ServerHandler, ServiceExt as _};
use tokio_util::sync::CancellationToken;

use crate::ServeError;

pub(crate) async fn serve<S>(service: S, stop: CancellationToken) -> Result<(), ServeError>
where
    S: ServerHandler + Send + Sync + 'static,
{
    if std::io::stdin().is_terminal() {
        tracing::warn!(
            "waiting for an MCP client on standard input; start this program from one, \
             or use --http 127.0.0.1:0"
        );
    }
    let running = match service
        .serve_with_ct(rmcp::transport::stdio_pipes(), stop)
        .await
    {
        Ok(running) => running,
        // The client went away before it had said anything: nobody is left to be told.
        Err(ServerInitializeError::ConnectionClosed(_) | ServerInitializeError::Cancelled) => {
            return Ok(());
        }
        Err(error) => return Err(ServeError::Handshake(Box::new(error))),
    };
    match running.waiting().await {
        Ok(QuitReason::JoinError(error)) | Err(error) => Err(ServeError::Task(error)),
        Ok(reason) => {
            tracing::info!(?reason, "the connection ended");
            Ok(())
        }
    }
}

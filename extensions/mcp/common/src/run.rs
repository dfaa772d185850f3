//! Running a server: logging, the choice of the transport, and the end.

use std::io::{self, IsTerminal as _};
use std::net::SocketAddr;
use std::time::Duration;

use rmcp::ServerHandler;
use rmcp::service::ServerInitializeError;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{ServeArguments, http, stdio};

/// How long calls that are under way may take after the end was asked for.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// Why a server could not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The runtime or the signal handlers could not be set up.
    #[error("cannot start the server")]
    Start(#[source] io::Error),
    /// The address is reachable from other machines, and nobody said that this is wanted.
    #[error(
        "{0} can be reached from other machines: use a loopback address such as 127.0.0.1:{port}, \
         or pass --insecure", port = .0.port()
    )]
    NotLoopback(SocketAddr),
    /// `SYSTEMPROMPT_MCP_TOKEN` is set to nothing that could be sent.
    #[error(
        "SYSTEMPROMPT_MCP_TOKEN is set but is empty or not printable ASCII: \
         unset it, or set it to the token that clients must send"
    )]
    UnusableToken,
    /// The address could not be bound.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The HTTP server broke off.
    #[error("the http server broke off")]
    Http(#[source] io::Error),
    /// The first messages on standard input were not those of an MCP client.
    #[error("no MCP client on standard input")]
    Handshake(#[source] Box<ServerInitializeError>),
    /// The task that served the connection panicked.
    #[error("the connection's task broke off")]
    Task(#[source] tokio::task::JoinError),
}

/// Serves until the client goes away (standard input ends) or the process is asked to stop
/// (SIGTERM, SIGINT); both are a normal end.
pub fn run<S>(arguments: &ServeArguments, service: S) -> Result<(), ServeError>
where
    S: ServerHandler + Clone + Send + Sync + 'static,
{
    log_to_stderr(arguments);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(ServeError::Start)?;
    let served = runtime.block_on(serve(arguments, service));
    // Dropping the runtime would wait for every blocking call, however long it takes.
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

async fn serve<S>(arguments: &ServeArguments, service: S) -> Result<(), ServeError>
where
    S: ServerHandler + Clone + Send + Sync + 'static,
{
    let stop = CancellationToken::new();
    let signals = tokio::spawn(stop_on_signal(
        signal(SignalKind::terminate()).map_err(ServeError::Start)?,
        signal(SignalKind::interrupt()).map_err(ServeError::Start)?,
        stop.clone(),
    ));
    let served = match arguments.http {
        Some(address) => http::serve(service, address, arguments, stop).await,
        None => stdio::serve(service, stop).await,
    };
    signals.abort();
    served
}

async fn stop_on_signal(mut terminate: Signal, mut interrupt: Signal, stop: CancellationToken) {
    tokio::select! {
        _ = terminate.recv() => tracing::info!("asked to stop by SIGTERM"),
        _ = interrupt.recv() => tracing::info!("asked to stop by SIGINT"),
    }
    stop.cancel();
}

/// Standard output belongs to the protocol.
fn log_to_stderr(arguments: &ServeArguments) {
    // A second call in one process (tests) keeps the first subscriber.
    let _ = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_max_level(tracing::Level::from(arguments.log))
        .with_target(false)
        .try_init();
}

//! Accepting clients and serving their connections until they, or the proxy, are done.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::forward::{Client, Forwarder};
use crate::relay::relay;
use crate::settings::Settings;

/// How long to let things settle when the machine has no more descriptors for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// At most how often unused connections to the instance are looked for.
const SWEEP: Duration = Duration::from_secs(1);
/// How often an HTTP/2 client is asked whether it still lives.
const HTTP2_PING: Duration = Duration::from_secs(30);

/// What the clients of a proxy speak.
#[derive(Clone)]
pub(crate) enum Front {
    Http,
    Tls(TlsAcceptor),
    /// Anything.
    Tcp,
}

impl Front {
    fn scheme(&self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tls(_) => "https",
            Self::Tcp => "tcp",
        }
    }
}

/// How far the proxy is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Accepts and serves.
    Running,
    /// Accepts nothing more and finishes what it has.
    Finishing,
    /// Ends everything.
    Closed,
}

/// The proxy's phase, as its tasks see it. As long as one exists, a task is running.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    phase: watch::Receiver<Phase>,
}

impl Stop {
    pub(crate) fn new(phase: watch::Receiver<Phase>) -> Self {
        Self { phase }
    }

    /// Returns once the proxy has come to `phase`, or is gone altogether.
    async fn reached(&mut self, phase: Phase) {
        // An error means that the last handle was dropped: the end of every phase.
        let _ = self.phase.wait_for(|now| *now >= phase).await;
    }

    async fn finishing(&mut self) {
        self.reached(Phase::Finishing).await;
    }

    pub(crate) async fn closed(&mut self) {
        self.reached(Phase::Closed).await;
    }
}

/// Accepts connections until the proxy stops.
pub(crate) async fn accept(
    listener: TcpListener,
    front: Front,
    forwarder: Arc<Forwarder>,
    mut stop: Stop,
) {
    let protocols = Arc::new(protocols(&forwarder.settings));
    let places = forwarder.settings.max_connections;
    let places = Arc::new(Semaphore::new(places.clamp(1, Semaphore::MAX_PERMITS)));
    let mut sweep = tokio::time::interval(forwarder.settings.idle_timeout.max(SWEEP));
    loop {
        let accepted = tokio::select! {
            accepted = next(&listener, &places) => accepted,
            _ = sweep.tick() => {
                forwarder.table.expire();
                continue;
            }
            () = stop.finishing() => return,
        };
        match accepted {
            Ok((stream, address, place)) => {
                forwarder.counters.connected();
                let client = Client {
                    address,
                    scheme: front.scheme(),
                    stop: stop.clone(),
                };
                let (protocols, forwarder) = (Arc::clone(&protocols), Arc::clone(&forwarder));
                let serving = greet(stream, front.clone(), client, protocols, forwarder);
                tokio::spawn(async move {
                    serving.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection; waiting a moment");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The next connection, once there is a place for it.
async fn next(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await;
    let place = place.map_err(io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    Ok((stream, address, place))
}

fn protocols(settings: &Settings) -> auto::Builder<TokioExecutor> {
    let head = settings.max_header_bytes.max(8192);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_read_timeout)
        .max_buf_size(head as usize)
        .max_headers(settings.max_headers);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HTTP2_PING)
        .max_concurrent_streams(settings.max_concurrent_streams)
        .max_header_list_size(head);
    builder
}

/// Agrees on TLS with the client, where there is any, and serves it.
async fn greet(
    stream: TcpStream,
    front: Front,
    client: Client,
    protocols: Arc<auto::Builder<TokioExecutor>>,
    forwarder: Arc<Forwarder>,
) {
    if stream.set_nodelay(true).is_err() {
        return; // the client has already left
    }
    let tls = match front {
        Front::Http => return serve(stream, client, protocols, forwarder).await,
        Front::Tcp => return relay(stream, client, forwarder).await,
        Front::Tls(tls) => tls,
    };
    let address = client.address;
    let mut stop = client.stop.clone();
    let limit = forwarder.settings.handshake_timeout;
    let agreed = tokio::select! {
        agreed = tokio::time::timeout(limit, tls.accept(stream)) => agreed,
        () = stop.finishing() => return,
    };
    match agreed {
        Ok(Ok(stream)) => serve(stream, client, protocols, forwarder).await,
        Ok(Err(error)) => tracing::debug!(client = %address, %error, "TLS was not agreed on"),
        Err(_) => tracing::debug!(client = %address, "TLS was not agreed on in time"),
    }
}

async fn serve<S>(
    stream: S,
    client: Client,
    protocols: Arc<auto::Builder<TokioExecutor>>,
    forwarder: Arc<Forwarder>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let address = client.address;
    let mut stop = client.stop.clone();
    let first_request = forwarder.settings.header_read_timeout;
    let greeted = AtomicBool::new(false);
    let service = service_fn(|request: Request<Incoming>| {
        greeted.store(true, Ordering::Relaxed);
        let (forwarder, client) = (Arc::clone(&forwarder), client.clone());
        async move { Ok::<_, Infallible>(forwarder.answer(&client, request).await) }
    });
    let io = TokioIo::new(stream);
    let mut connection = pin!(protocols.serve_connection_with_upgrades(io, service));
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = silent(&greeted, first_request) => return,
        () = stop.finishing() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                outcome = connection.as_mut() => outcome,
                () = stop.closed() => return,
            }
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(client = %address, %error, "connection ended");
    }
}

/// Returns if no request has come within `limit` of connecting. hyper's own time-out begins when
/// it knows which protocol is spoken, which takes a byte that a silent client never sends.
async fn silent(greeted: &AtomicBool, limit: Duration) {
    tokio::time::sleep(limit).await;
    if greeted.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

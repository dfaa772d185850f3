//! Accepting connections: bounded in number, patient for a bounded time, closed gracefully.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// How long a client may take to send the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// Connections at once; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 1024;
/// Bytes of one request's head.
const MAX_HEAD: usize = 64 * 1024;
/// After the process has run out of file descriptors, accepting at once again would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The address that a request came from, among its extensions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// A bound listener.
pub(crate) struct Listener {
    inner: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Listens on the first of `addresses` that can be had.
    pub(crate) async fn bind(addresses: &[SocketAddr]) -> io::Result<Self> {
        let inner = TcpListener::bind(addresses).await?;
        let address = inner.local_addr()?;
        Ok(Self { inner, address })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`, then lets requests end for at most `grace`.
    pub(crate) async fn serve(self, router: Router, stop: CancellationToken, grace: Duration) {
        let graceful = GracefulShutdown::new();
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                accepted = self.accept(&places) => accepted,
                () = stop.cancelled() => break,
            };
            match accepted {
                Ok(accepted) => connection(accepted, router.clone(), &graceful),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.inner);
        if tokio::time::timeout(grace, graceful.shutdown())
            .await
            .is_err()
        {
            tracing::warn!("some requests were cut off by the end of the server");
        }
    }

    async fn accept(&self, places: &Arc<Semaphore>) -> io::Result<Accepted> {
        let place = Arc::clone(places).acquire_owned().await;
        let place = place.map_err(io::Error::other)?;
        let (stream, peer) = self.inner.accept().await?;
        // Answers are small and awaited: no waiting for more to send.
        stream.set_nodelay(true)?;
        Ok(Accepted {
            stream,
            peer,
            place,
        })
    }
}

/// A connection, and its place among those that may be at once.
struct Accepted {
    stream: TcpStream,
    peer: SocketAddr,
    place: OwnedSemaphorePermit,
}

fn connection(accepted: Accepted, router: Router, graceful: &GracefulShutdown) {
    let Accepted {
        stream,
        peer,
        place,
    } = accepted;
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HEADER_TIMEOUT)
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
        .max_concurrent_streams(128);
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        router.call(request)
    });
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let serving = graceful.watch(serving.into_owned());
    tokio::spawn(async move {
        // A client that goes away is its own business.
        if let Err(error) = serving.await {
            tracing::trace!(error, "a connection ended early");
        }
        drop(place);
    });
}

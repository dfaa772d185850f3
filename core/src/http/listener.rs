//! Accepting connections: bounded in number, patient for a bounded time, closed gracefully.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, Request, header};
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::idle::{Answer, Idle, Patience};
use super::origin::X_FORWARDED_PROTO;

/// How long a client may take to send the head of a request; with HTTP/1.1 also how long a connection may be idle between two.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long it may be idle with HTTP/2, and take no part of an answer.
const PATIENCE: Patience = Patience {
    first: HEADER_TIMEOUT,
    later: Duration::from_secs(30),
    answer: Duration::from_secs(30),
};
/// Requests of one connection at once, with HTTP/2.
const STREAMS: u32 = 32;
/// How long it may take to agree on TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
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

/// What all connections are served with.
#[derive(Clone)]
struct Serving {
    router: Router,
    tls: Option<TlsAcceptor>,
    /// Where the server listens.
    address: SocketAddr,
    stop: CancellationToken,
}

impl Listener {
    /// Listens on the first of `addresses` that can be had.
    pub(crate) async fn bind(addresses: &[SocketAddr]) -> io::Result<Self> {
        let inner = TcpListener::bind(addresses).await?;
        let address = inner.local_addr()?;
        Ok(Self { inner, address })
    }

    /// Another one at the same address, for what is served before or after.
    pub(crate) fn again(&self) -> io::Result<Self> {
        let descriptor = self.inner.as_fd().try_clone_to_owned()?;
        Ok(Self {
            inner: TcpListener::from_std(descriptor.into())?,
            address: self.address,
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`, then lets requests end for at most `grace`. Of more than `connections` at once, the further
    /// ones wait in the kernel's queue.
    pub(crate) async fn serve(
        self,
        router: Router,
        tls: Option<TlsAcceptor>,
        connections: usize,
        stop: CancellationToken,
        grace: Duration,
    ) {
        let graceful = GracefulShutdown::new();
        let places = Arc::new(Semaphore::new(connections.clamp(1, Semaphore::MAX_PERMITS)));
        let serving = Serving {
            router,
            tls,
            address: self.address,
            stop: stop.clone(),
        };
        loop {
            let accepted = tokio::select! {
                accepted = self.accept(&places) => accepted,
                () = stop.cancelled() => break,
            };
            match accepted {
                Ok((stream, peer, place)) => {
                    let serving = serving.clone();
                    tokio::spawn(serving.connection(stream, peer, graceful.watcher(), place));
                }
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

    async fn accept(
        &self,
        places: &Arc<Semaphore>,
    ) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        let place = Arc::clone(places).acquire_owned().await;
        let place = place.map_err(io::Error::other)?;
        let (stream, peer) = self.inner.accept().await?;
        // Answers are small and awaited: no waiting for more to send.
        stream.set_nodelay(true)?;
        Ok((stream, peer, place))
    }
}

impl Serving {
    /// Serves one connection to its end. Its place is free only then.
    async fn connection(
        self,
        stream: TcpStream,
        peer: SocketAddr,
        watcher: Watcher,
        _place: OwnedSemaphorePermit,
    ) {
        let Some(tls) = self.tls.clone() else {
            return self.requests(stream, peer, watcher).await;
        };
        let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream));
        let agreed = tokio::select! {
            agreed = handshake => agreed,
            () = self.stop.cancelled() => return,
        };
        match agreed {
            Ok(Ok(stream)) => self.requests(stream, peer, watcher).await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS was not agreed on"),
            Err(_) => tracing::debug!(%peer, "TLS was not agreed on in time"),
        }
    }

    async fn requests<S>(self, stream: S, peer: SocketAddr, watcher: Watcher)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let idle = Idle::new();
        let requests = Arc::clone(&idle);
        let inner = TowerToHyperService::new(self.router);
        let (address, secure) = (self.address, self.tls.is_some());
        let service = service_fn(move |mut request: Request<Incoming>| {
            let in_flight = requests.begin();
            complete(&mut request, address, secure);
            request.extensions_mut().insert(Peer(peer));
            let answer = inner.call(request);
            async move {
                let answer = answer.await?;
                Ok::<_, Infallible>(answer.map(|body| Answer::new(body, in_flight)))
            }
        });
        let builder = protocols();
        let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let serving = watcher.watch(serving.into_owned());
        tokio::select! {
            // A client that goes away is its own business.
            ended = serving => if let Err(error) = ended {
                tracing::trace!(error, "a connection ended early");
            },
            () = idle.over(PATIENCE) => {}
        }
    }
}

/// What handlers rely on: a host, which HTTP/2 has in the address, and the scheme.
fn complete(request: &mut Request<Incoming>, address: SocketAddr, secure: bool) {
    if !request.headers().contains_key(header::HOST) {
        let authority = request.uri().authority().map(ToString::to_string);
        let host = authority.unwrap_or_else(|| address.to_string());
        if let Ok(host) = HeaderValue::try_from(host) {
            request.headers_mut().insert(header::HOST, host);
        }
    }
    if secure {
        let proto = HeaderValue::from_static("https");
        request.headers_mut().insert(X_FORWARDED_PROTO, proto);
    }
}

fn protocols() -> Builder<TokioExecutor> {
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
        .max_concurrent_streams(STREAMS);
    builder
}

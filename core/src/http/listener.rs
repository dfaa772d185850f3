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
use proxy::{Answer, Door, Guest, Idle, Patience, agree};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::origin::X_FORWARDED_PROTO;
use crate::sockets::Sockets;

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
    pub(crate) async fn bind(sockets: &Sockets, addresses: &[SocketAddr]) -> io::Result<Self> {
        let mut found = Err(io::ErrorKind::InvalidInput.into());
        for address in addresses {
            found = sockets.listen(*address).await;
            if found.is_ok() {
                break;
            }
        }
        let inner = found?;
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
        let serving = Serving {
            router,
            tls,
            address: self.address,
            stop: stop.clone(),
        };
        let door = Door::new(self.inner, connections);
        loop {
            let guest = tokio::select! {
                guest = door.next() => guest,
                () = stop.cancelled() => break,
            };
            tokio::spawn(serving.clone().connection(guest, graceful.watcher()));
        }
        drop(door);
        if tokio::time::timeout(grace, graceful.shutdown())
            .await
            .is_err()
        {
            tracing::warn!("some requests were cut off by the end of the server");
        }
    }
}

impl Serving {
    /// Serves one connection to its end. Its place is free only then.
    async fn connection(self, guest: Guest, watcher: Watcher) {
        let Guest {
            stream,
            address: peer,
            place: _place,
        } = guest;
        let Some(tls) = self.tls.clone() else {
            return self.requests(stream, peer, watcher).await;
        };
        let agreed = tokio::select! {
            agreed = agree(&tls, stream, peer, HANDSHAKE_TIMEOUT) => agreed,
            () = self.stop.cancelled() => return,
        };
        if let Some(stream) = agreed {
            self.requests(stream, peer, watcher).await;
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

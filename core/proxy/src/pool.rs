//! Connections to one instance.
//!
//! The pool belongs to one route and is closed when that is retired: from then on connections still
//! serve the requests that hold them, and none is kept afterwards, so an instance that is told to
//! stop does not wait for idle connections of ours.
//!
//! A connection is driven by whoever holds it, in the same task that serves the client: a request
//! then costs no hand-over between tasks, and so no wake-up of another thread. Only where the two
//! directions must not wait for each other (uploads, tunnels) it gets a task of its own.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::coop;

use crate::body::Upload;
use crate::plain::PlainLine;
use crate::settings::Settings;
use crate::shelf::Shelf;

/// Why there is no connection to the instance.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("cannot connect to the instance at {address}")]
    Refused {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("connecting to the instance at {address} took longer than {limit:?}")]
    TimedOut {
        address: SocketAddr,
        limit: Duration,
    },
    #[error("cannot speak HTTP with the instance at {address}")]
    Handshake {
        address: SocketAddr,
        #[source]
        source: hyper::Error,
    },
}

/// Whether a connection that has served a request before will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    Any,
    New,
}

/// hyper's connection, whose type has no public name.
type Wire = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// One connection: where requests go in, and the work of moving their bytes.
struct Line {
    sender: SendRequest<Upload>,
    /// Absent when the connection has a task of its own, or is over.
    wire: Option<Wire>,
}

impl fmt::Debug for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Line")
            .field("driven", &self.wire.is_some())
            .finish_non_exhaustive()
    }
}

impl Line {
    /// Moves what can be moved now.
    fn drive(&mut self, context: &mut Context<'_>) {
        if let Some(wire) = &mut self.wire
            && let Poll::Ready(end) = wire.as_mut().poll(context)
        {
            self.wire = None;
            if let Err(error) = end {
                tracing::debug!(%error, "connection to the instance ended");
            }
        }
    }

    /// Gives the connection a task of its own.
    fn detach(&mut self) {
        if let Some(wire) = self.wire.take() {
            tokio::spawn(async move {
                if let Err(error) = wire.await {
                    tracing::debug!(%error, "connection to the instance ended");
                }
            });
        }
    }

    fn is_ready(&mut self, context: &mut Context<'_>) -> bool {
        self.drive(context);
        self.sender.is_ready()
    }
}

/// The connections to one instance.
#[derive(Debug)]
pub(crate) struct Pool {
    address: SocketAddr,
    connect_timeout: Duration,
    idle_timeout: Duration,
    protocol: http1::Builder,
    /// For plain requests.
    plain: Shelf<PlainLine>,
    /// For all others.
    lines: Shelf<Line>,
}

impl Pool {
    pub(crate) fn new(address: SocketAddr, settings: &Settings) -> Self {
        let mut protocol = http1::Builder::new();
        protocol.max_headers(settings.max_headers);
        protocol.max_header_size(settings.max_header_bytes.max(8192) as usize);
        Self {
            address,
            connect_timeout: settings.connect_timeout,
            idle_timeout: settings.idle_timeout,
            protocol,
            plain: Shelf::new(settings.max_idle_connections, settings.idle_timeout),
            lines: Shelf::new(settings.max_idle_connections, settings.idle_timeout),
        }
    }

    /// A connection that is ready for one request.
    pub(crate) async fn lease(
        self: &Arc<Self>,
        freshness: Freshness,
    ) -> Result<Lease, ConnectError> {
        let idle = match freshness {
            Freshness::Any => {
                let take = |context: &mut Context<'_>| {
                    Poll::Ready(self.lines.take(|line| line.is_ready(context)))
                };
                coop::unconstrained(poll_fn(take)).await
            }
            Freshness::New => None,
        };
        let line = match idle {
            Some(line) => line,
            None => self.connect().await?,
        };
        Ok(Lease {
            line,
            pool: Arc::clone(self),
        })
    }

    /// A connection that is ready for one plain request, if one is unused.
    pub(crate) async fn take_plain(&self) -> Option<PlainLine> {
        let take =
            |context: &mut Context<'_>| Poll::Ready(self.plain.take(|line| line.is_ready(context)));
        // A task that has had its turn would be told of nothing that the instance has said meanwhile.
        coop::unconstrained(poll_fn(take)).await
    }

    /// A new connection for plain requests.
    pub(crate) async fn new_plain(&self) -> Result<PlainLine, ConnectError> {
        Ok(PlainLine::new(self.open().await?))
    }

    /// Makes a connection that has served a plain request free for another one.
    pub(crate) fn keep_plain(&self, line: PlainLine) {
        self.plain.keep(line);
    }

    /// Drops the unused connections and keeps none from now on.
    pub(crate) fn close(&self) {
        self.plain.close();
        self.lines.close();
    }

    /// Drops the connections that have been unused for too long.
    pub(crate) fn expire(&self) {
        self.plain.expire();
        self.lines.expire();
    }

    async fn open(&self) -> Result<TcpStream, ConnectError> {
        let address = self.address;
        let connecting = TcpStream::connect(address);
        tokio::time::timeout(self.connect_timeout, connecting)
            .await
            .map_err(|_| ConnectError::TimedOut {
                address,
                limit: self.connect_timeout,
            })?
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            .map_err(|source| ConnectError::Refused { address, source })
    }

    async fn connect(&self) -> Result<Line, ConnectError> {
        let address = self.address;
        let stream = self.open().await?;
        let (sender, connection) = self
            .protocol
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| ConnectError::Handshake { address, source })?;
        Ok(Line {
            sender,
            wire: Some(Box::pin(connection.with_upgrades())),
        })
    }
}

/// A connection held by one request. Dropping it closes the connection: only a request that has
/// read its whole answer may give it back.
#[derive(Debug)]
pub(crate) struct Lease {
    line: Line,
    pool: Arc<Pool>,
}

impl Lease {
    /// Sends the request and waits for the head of the answer. The body of the answer comes only
    /// while somebody calls [`Lease::drive`].
    pub(crate) async fn send(
        &mut self,
        request: Request<Upload>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Upload>>> {
        if !matches!(request.body(), Upload::Empty) {
            // An upload goes on while nobody reads the answer yet.
            self.line.detach();
        }
        let line = &mut self.line;
        let mut sending = pin!(line.sender.try_send_request(request));
        poll_fn(|context| {
            line.drive(context);
            sending.as_mut().poll(context)
        })
        .await
    }

    /// Moves what can be moved now.
    pub(crate) fn drive(&mut self, context: &mut Context<'_>) {
        self.line.drive(context);
    }

    /// Lets the connection run by itself until it is over.
    pub(crate) fn detach(mut self) {
        self.line.detach();
    }

    /// Makes the connection free for another request.
    pub(crate) fn give_back(self, context: &mut Context<'_>) {
        let Self { mut line, pool } = self;
        if line.is_ready(context) {
            pool.lines.keep(line);
        } else if !line.sender.is_closed() {
            // The answer has been read but hyper has not yet turned the connection around, or the
            // request is still being uploaded.
            line.detach();
            tokio::spawn(async move {
                let ready = tokio::time::timeout(pool.idle_timeout, line.sender.ready()).await;
                if matches!(ready, Ok(Ok(()))) {
                    pool.lines.keep(line);
                }
            });
        }
    }
}

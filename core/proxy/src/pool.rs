//! Connections to one instance.
//!
//! The pool belongs to one route and is closed with it: from then on connections still serve the
//! requests that hold them, and none is kept afterwards, so an instance that is told to stop does
//! not wait for idle connections of ours.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::body::Upload;
use crate::settings::Settings;

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

/// The connections to one instance.
#[derive(Debug)]
pub(crate) struct Pool {
    address: SocketAddr,
    connect_timeout: Duration,
    idle_timeout: Duration,
    max_idle: usize,
    protocol: http1::Builder,
    idle: Mutex<Idle>,
}

#[derive(Debug, Default)]
struct Idle {
    closed: bool,
    /// The longest unused first; taken from the back, so that a quiet time shrinks the pool.
    connections: VecDeque<(SendRequest<Upload>, Instant)>,
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
            max_idle: settings.max_idle_connections,
            protocol,
            idle: Mutex::default(),
        }
    }

    /// A connection that is ready for one request.
    pub(crate) async fn lease(
        self: &Arc<Self>,
        freshness: Freshness,
    ) -> Result<Lease, ConnectError> {
        let idle = match freshness {
            Freshness::Any => self.take_idle(),
            Freshness::New => None,
        };
        let sender = match idle {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        Ok(Lease {
            sender,
            pool: Arc::clone(self),
        })
    }

    /// Drops the unused connections and keeps none from now on.
    pub(crate) fn close(&self) {
        let mut idle = self.lock();
        idle.closed = true;
        let unused = std::mem::take(&mut idle.connections);
        drop(idle);
        drop(unused);
    }

    fn take_idle(&self) -> Option<SendRequest<Upload>> {
        let mut idle = self.lock();
        while let Some((sender, since)) = idle.connections.pop_back() {
            if sender.is_ready() && since.elapsed() < self.idle_timeout {
                return Some(sender);
            }
        }
        None
    }

    fn keep(&self, sender: SendRequest<Upload>) {
        let mut idle = self.lock();
        while idle
            .connections
            .front()
            .is_some_and(|(_, since)| since.elapsed() > self.idle_timeout)
        {
            idle.connections.pop_front();
        }
        if !idle.closed && idle.connections.len() < self.max_idle {
            idle.connections.push_back((sender, Instant::now()));
        }
    }

    async fn connect(&self) -> Result<SendRequest<Upload>, ConnectError> {
        let address = self.address;
        let connecting = TcpStream::connect(address);
        let stream = tokio::time::timeout(self.connect_timeout, connecting)
            .await
            .map_err(|_| ConnectError::TimedOut {
                address,
                limit: self.connect_timeout,
            })?
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            .map_err(|source| ConnectError::Refused { address, source })?;
        let (sender, connection) = self
            .protocol
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| ConnectError::Handshake { address, source })?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%address, %error, "connection to the instance ended");
            }
        });
        Ok(sender)
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection held by one request. Dropping it closes the connection: only a request that has
/// read its whole answer may give it back.
#[derive(Debug)]
pub(crate) struct Lease {
    sender: SendRequest<Upload>,
    pool: Arc<Pool>,
}

impl Lease {
    pub(crate) fn sender(&mut self) -> &mut SendRequest<Upload> {
        &mut self.sender
    }

    /// Makes the connection free for another request.
    pub(crate) fn give_back(self) {
        let Self { mut sender, pool } = self;
        if sender.is_ready() {
            pool.keep(sender);
        } else if !sender.is_closed() {
            // The answer has been read but hyper has not yet turned the connection around, or the
            // request is still being uploaded.
            tokio::spawn(async move {
                let ready = tokio::time::timeout(pool.idle_timeout, sender.ready()).await;
                if matches!(ready, Ok(Ok(()))) {
                    pool.keep(sender);
                }
            });
        }
    }
}

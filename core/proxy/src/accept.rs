//! What comes before the first request of a connection: a place for it, the connection, and TLS. Every listener of a
//! server accepts in this way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long to let things settle when the machine has no more descriptors for a connection: trying again at once would
/// only spin.
const PAUSE: Duration = Duration::from_millis(50);

/// A listener with so many places for connections; the further ones wait in the kernel's queue.
#[derive(Debug)]
pub struct Door {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

/// A connection, and its place, which is free when this is dropped.
#[derive(Debug)]
pub struct Guest {
    /// The connection.
    pub stream: TcpStream,
    /// Where it comes from.
    pub address: SocketAddr,
    /// To be kept as long as the connection.
    pub place: OwnedSemaphorePermit,
}

impl Door {
    /// At least one place, however few are asked for.
    #[must_use]
    pub fn new(listener: TcpListener, places: usize) -> Self {
        // What is sent is awaited: no waiting for more to send. The connections have it from their listener.
        if let Err(error) = SockRef::from(&listener).set_tcp_nodelay(true) {
            tracing::warn!(%error, "small answers may be late: the kernel does not take TCP_NODELAY");
        }
        let places = places.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            listener,
            places: Arc::new(Semaphore::new(places)),
        }
    }

    /// The next connection, once there is a place for it. Nothing is lost when this is dropped before it returns.
    pub async fn next(&self) -> Guest {
        loop {
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
                // Nobody closes it.
                return std::future::pending().await;
            };
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    return Guest {
                        stream,
                        address,
                        place,
                    };
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection; waiting a moment");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Agrees on TLS with a client, if it does so within `limit`.
pub async fn agree<S: AsyncRead + AsyncWrite + Unpin>(
    tls: &TlsAcceptor,
    stream: S,
    client: SocketAddr,
    limit: Duration,
) -> Option<TlsStream<S>> {
    match tokio::time::timeout(limit, tls.accept(stream)).await {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => tracing::debug!(%client, %error, "TLS was not agreed on"),
        Err(_) => tracing::debug!(%client, "TLS was not agreed on in time"),
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_does_not_wait_for_more_to_send() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let door = Door::new(listener, 1);
        let _client = TcpStream::connect(address).await.unwrap();
        assert!(door.next().await.stream.nodelay().unwrap());
    }
}

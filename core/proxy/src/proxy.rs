//! The handle that a rollout holds.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::forward::Forwarder;
use crate::listener::{self, Phase, Stop};
use crate::route::{Retired, Route, Table, Target};
use crate::settings::Settings;
use crate::stats::{Counters, Stats};

/// A listener with one route. Clones are handles to the same proxy; when the last one is dropped,
/// the listener and all its connections are closed.
#[derive(Clone, Debug)]
pub struct Proxy {
    forwarder: Arc<Forwarder>,
    address: SocketAddr,
    phase: Arc<watch::Sender<Phase>>,
}

impl Proxy {
    /// Listens on `address` (port 0 for any) and accepts clients at once. Until the first
    /// [`Proxy::switch`] they are answered 503 with `no_release`.
    pub async fn bind(address: SocketAddr, settings: Settings) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let counters = Arc::new(Counters::default());
        let table = Table::new(Arc::clone(&counters));
        let forwarder = Arc::new(Forwarder {
            table,
            settings,
            counters,
        });
        let (phase, stop) = watch::channel(Phase::Running);
        tokio::spawn(listener::accept(
            listener,
            Arc::clone(&forwarder),
            Stop::new(stop),
        ));
        Ok(Self {
            forwarder,
            address,
            phase: Arc::new(phase),
        })
    }

    /// Where the proxy listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Sends every request that starts from now on to `target`, or answers it 503 when there is
    /// none. Returns the route that served before; requests that had chosen it stay with it.
    #[must_use = "the retired route tells when its instance may be stopped"]
    pub fn switch(&self, target: Option<Target>) -> Option<Retired> {
        let next = target.map(|target| Arc::new(Route::new(target, &self.forwarder.settings)));
        self.forwarder.table.switch(next)
    }

    /// The instance that gets the traffic now.
    #[must_use]
    pub fn target(&self) -> Option<Target> {
        self.forwarder.table.target()
    }

    /// The counters since the proxy was bound.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.forwarder.counters.read()
    }

    /// Stops accepting, lets requests and tunnels end for at most `grace`, then closes the rest.
    /// Returns when no task of the proxy is left. A second call only shortens the first.
    pub async fn shutdown(&self, grace: Duration) {
        self.advance(Phase::Finishing);
        if tokio::time::timeout(grace, self.phase.closed())
            .await
            .is_err()
        {
            self.advance(Phase::Closed);
            self.phase.closed().await;
        }
    }

    fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let later = phase > *now;
            *now = phase.max(*now);
            later
        });
    }
}

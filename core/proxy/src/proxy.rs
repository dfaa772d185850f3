//! The handle that a rollout holds.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::forward::Forwarder;
use crate::listener::{self, Front, Phase, Stop};
use crate::measures::Measures;
use crate::route::{Retired, Target};
use crate::rules::Rule;
use crate::settings::Settings;
use crate::split::{Group, Share};
use crate::stats::{Counters, Stats};
use crate::table::Table;

/// A listener with the instances behind it. Clones are handles to the same proxy; when the last one is dropped,
/// the listener and all its connections are closed.
#[derive(Clone, Debug)]
pub struct Proxy {
    forwarder: Arc<Forwarder>,
    address: SocketAddr,
    phase: Arc<watch::Sender<Phase>>,
}

impl Proxy {
    /// Listens on `address` (port 0 for any) and accepts clients at once. Until the first
    /// [`Proxy::direct`] they are answered 503 with `no_release`.
    pub async fn bind(address: SocketAddr, settings: Settings) -> io::Result<Self> {
        Self::bind_with(address, settings, Front::Http).await
    }

    /// [`Proxy::bind`] for clients that speak TLS, which ends here: instances are spoken to in the clear. HTTP/1.1 and
    /// HTTP/2 are told apart by what the acceptor agrees on with the client.
    pub async fn bind_tls(
        address: SocketAddr,
        settings: Settings,
        tls: TlsAcceptor,
    ) -> io::Result<Self> {
        Self::bind_with(address, settings, Front::Tls(tls)).await
    }

    /// [`Proxy::bind`] for clients that speak anything: each connection is handed to an instance as it is, and counts as one
    /// request. Without an instance it is closed.
    pub async fn bind_tcp(address: SocketAddr, settings: Settings) -> io::Result<Self> {
        Self::bind_with(address, settings, Front::Tcp).await
    }

    async fn bind_with(address: SocketAddr, settings: Settings, front: Front) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let counters = Arc::new(Counters::default());
        let table = Table::new(Arc::clone(&counters), &settings);
        let forwarder = Arc::new(Forwarder {
            table,
            settings,
            counters,
        });
        let (phase, stop) = watch::channel(Phase::Running);
        tokio::spawn(listener::accept(
            listener,
            front,
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

    /// Divides the requests that start from now on among `shares`: each gets its weight's part, in
    /// which its instances take turns, the one with the fewest requests in flight first. Shares
    /// without targets or with weight 0 get nothing; if none is left, clients are answered 503 with
    /// `no_release`.
    ///
    /// An instance that was there before, in whichever share, keeps its connections, its count and
    /// its measures. The ones that are in no share any more are returned; requests that had chosen
    /// them stay with them, and each drains by itself. An instance in a share of weight 0 is still
    /// there: it is retired when it is left out.
    #[must_use = "a retired instance tells when it may be stopped"]
    pub fn direct(&self, shares: &[Share]) -> Vec<Retired> {
        self.divide(&[Group::only(shares)], &[Group::all()])
    }

    /// [`Proxy::direct`] where requests of different hosts and paths go different ways: the first rule that fits names the
    /// group among whose shares they are divided. Those that no rule fits are answered 404 with `no_route`; without any rule
    /// there is no release. An instance may be in several groups. Requests of a group that is [awaited](Group::awaited) wait
    /// until a later call gives it an instance, or awaits none any more.
    #[must_use = "a retired instance tells when it may be stopped"]
    pub fn divide(&self, groups: &[Group], rules: &[Rule]) -> Vec<Retired> {
        self.forwarder
            .table
            .direct(groups, rules, &self.forwarder.settings)
    }

    /// The instances that get traffic now, in the order in which the shares name them.
    #[must_use]
    pub fn targets(&self) -> Vec<Target> {
        self.forwarder.table.serving(|route| route.target().clone())
    }

    /// What was measured of each instance that gets traffic now, since it first got some; in the
    /// order of [`Proxy::targets`].
    #[must_use]
    pub fn measures(&self) -> Vec<(Target, Measures)> {
        self.forwarder
            .table
            .serving(|route| (route.target().clone(), route.measures()))
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

//! The handle that a rollout holds.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

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
    /// Until it is accepted from.
    closed: Arc<Mutex<Option<Closed>>>,
}

/// A listener from which nobody is accepted yet.
#[derive(Debug)]
struct Closed {
    listener: TcpListener,
    front: Front,
}

impl Proxy {
    /// Listens on `address` (port 0 for any) and accepts clients, which speak HTTP, at once. Until the first
    /// [`Proxy::direct`] they are answered 503 with `no_release`.
    pub async fn bind(address: SocketAddr, settings: Settings) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let proxy = Self::on(listener, Front::Http, settings)?;
        proxy.open();
        Ok(proxy)
    }

    /// Accepts the clients of a listener from the first [`Proxy::direct`] or [`Proxy::divide`] on. Who has connected before
    /// waits in the kernel's queue until it is known where the requests go.
    pub fn on(listener: TcpListener, front: Front, settings: Settings) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let counters = Arc::new(Counters::default());
        let table = Table::new(Arc::clone(&counters), &settings);
        let forwarder = Arc::new(Forwarder {
            table,
            settings,
            counters,
        });
        let phase = watch::Sender::new(Phase::Running);
        Ok(Self {
            forwarder,
            address,
            phase: Arc::new(phase),
            closed: Arc::new(Mutex::new(Some(Closed { listener, front }))),
        })
    }

    fn open(&self) {
        if let Some(Closed { listener, front }) = self.take_closed() {
            tokio::spawn(listener::accept(
                listener,
                front,
                Arc::clone(&self.forwarder),
                Stop::new(self.phase.subscribe()),
            ));
        }
    }

    fn take_closed(&self) -> Option<Closed> {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        closed.take()
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
        let settings = &self.forwarder.settings;
        let retired = self.forwarder.table.direct(groups, rules, settings);
        self.open();
        retired
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
        drop(self.take_closed());
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

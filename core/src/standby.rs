//! Which of several servers acts: one leads, by a lease in the database; the others stand by until that ends.
//!
//! Whoever leads renews its lease at a third of its length. Where that does not go well until the lease is over, or where
//! another has taken it, the server ends at once: it announces nothing, starts nothing and forwards nothing any more. What
//! it still tries to write, the database refuses ([`crate::store`]).

use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::chain;
use crate::data_dir::DataDir;
use crate::http::{Listener, standby_router};
use crate::sockets::Sockets;
use crate::store::{Candidate, Claim, DatabaseServer, Lead, Leader, Store, StoreError};

/// Connections of those who ask a server that stands by.
const CONNECTIONS: usize = 256;
/// For their requests, when it begins to lead.
const GRACE: Duration = Duration::from_secs(1);
/// Between two tries, where the database does not answer.
const PAUSE: Duration = Duration::from_secs(1);
/// For a command. It gives the lease back; one that is killed keeps servers waiting.
const COMMAND: Duration = Duration::from_mins(10);
/// A lease that has ended is asked for once more: nobody may have wanted it.
const LAST_TRY: Duration = Duration::from_secs(1);

/// Who leads, as far as this server knows.
#[derive(Clone, Default)]
pub(crate) struct Known(Arc<RwLock<Option<Leader>>>);

impl Known {
    pub(crate) fn leader(&self) -> Option<Leader> {
        let leader = self.0.read().unwrap_or_else(PoisonError::into_inner);
        leader.clone()
    }

    fn set(&self, leader: Option<Leader>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = leader;
    }
}

/// The answers of a server that does not lead.
struct Answering {
    end: CancellationToken,
    task: JoinHandle<()>,
}

impl Answering {
    fn begin(listener: &Listener, tls: Option<TlsAcceptor>, known: Known) -> io::Result<Self> {
        let end = CancellationToken::new();
        let router = standby_router(known);
        let serving = listener
            .again()?
            .serve(router, tls, CONNECTIONS, end.clone(), GRACE);
        let task = tokio::spawn(serving);
        Ok(Self { end, task })
    }

    async fn end(self) {
        self.end.cancel();
        // Its own errors were logged.
        let _ = self.task.await;
    }
}

/// A server on its way to lead.
pub(crate) struct Standby<'a> {
    listener: &'a Listener,
    sockets: &'a Sockets,
    tls: Option<TlsAcceptor>,
    known: Known,
    answering: Option<Answering>,
}

impl<'a> Standby<'a> {
    pub(crate) fn new(
        listener: &'a Listener,
        sockets: &'a Sockets,
        tls: Option<TlsAcceptor>,
    ) -> Self {
        Self {
            listener,
            sockets,
            tls,
            known: Known::default(),
            answering: None,
        }
    }

    /// Returns when this server leads, since when it does. Until then it answers that another one does, or that it is not known who.
    /// `seen` is done once, as soon as it is certain that another one leads.
    pub(crate) async fn wait_to_lead(
        mut self,
        lead: &Lead,
        seen: impl AsyncFnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Instant> {
        let mut seen = Some(seen);
        let mut waited = false;
        let since = loop {
            let asked = Instant::now();
            let pause = match claim(lead).await {
                Ok(Claim::Leads) => break asked,
                Ok(Claim::Stands(leader)) => {
                    if let Some(seen) = seen.take() {
                        seen().await?;
                        tracing::info!(leader = leader.address, "another server leads");
                    }
                    // It may be given back before its end.
                    let pause = leader.left.min(lead.length() / 3);
                    self.known.set(Some(leader));
                    pause
                }
                Err(error) if error.may_pass() => {
                    tracing::warn!(error = %chain(&error), "cannot ask who leads");
                    self.known.set(None);
                    PAUSE
                }
                Err(error) => return Err(error.into()),
            };
            waited = true;
            self.answer()?;
            sleep(pause).await;
        };
        if let Some(answering) = self.answering.take() {
            answering.end().await;
        }
        if waited {
            tracing::info!("this server leads from now on");
        }
        Ok(since)
    }

    /// Waits for the database, which may come later than its servers; answers that it is not known who leads.
    pub(crate) async fn connect(
        &mut self,
        database: &DatabaseServer,
        candidate: Candidate,
    ) -> anyhow::Result<(Store, Lead)> {
        loop {
            match connect(database, candidate.clone()).await {
                Ok(connected) => return Ok(connected),
                Err(error) if error.may_pass() => {
                    tracing::warn!(error = %chain(&error), "waiting for the database");
                    self.answer()?;
                    sleep(PAUSE).await;
                }
                Err(error) => return Err(error).context("cannot open the state database"),
            }
        }
    }

    fn answer(&mut self) -> anyhow::Result<()> {
        if self.answering.is_none() {
            let begun = Answering::begin(self.listener, self.tls.clone(), self.known.clone());
            self.answering = Some(begun.context("cannot listen twice")?);
            // Nobody knows how long it takes, and tenants may be served elsewhere: their clients are not to wait here.
            self.sockets.forget_left();
        }
        Ok(())
    }
}

/// Why a server leads no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Lost {
    /// Another has taken over.
    #[error("another server has taken over: this one ends, and stands by when it is started again")]
    Taken,
    /// Another may have, and cannot be asked for.
    #[error(
        "the lease could not be renewed, because the database does not answer: the server ends, and leads again when it is \
         started and nobody else does"
    )]
    Expired,
}

/// Renews the lease, which this server has `since` then, for as long as it can be.
pub(crate) async fn keep(lead: &Lead, since: Instant) -> Lost {
    let mut until = since + lead.length();
    let mut next = since + lead.length() / 3;
    loop {
        sleep_until(next).await;
        let begun = Instant::now();
        let renewing = in_time(lead, Lead::renew);
        match timeout_at(until.max(begun + LAST_TRY), renewing).await {
            Ok(Ok(())) => {
                until = begun + lead.length();
                next = begun + lead.length() / 3;
                continue;
            }
            Ok(Err(StoreError::NotLeading)) => {
                lead.forsake();
                return Lost::Taken;
            }
            Ok(Err(error)) => {
                tracing::warn!(error = %chain(&error), "the lease was not renewed");
            }
            Err(_) => tracing::warn!("the lease was not renewed in time"),
        }
        next = Instant::now() + PAUSE.min(lead.length() / 3);
        if Instant::now() >= until {
            lead.forsake();
            return Lost::Expired;
        }
    }
}

/// Gives the lease back, so that nobody has to wait for its end.
pub(crate) async fn give_back(lead: &Lead) {
    if let Err(error) = in_time(lead, Lead::give_back).await {
        tracing::warn!(error = %chain(&error), "the lease was not given back; it ends by itself");
    }
}

/// The store of servers that have one database, and the right to write to it, which is not taken yet.
async fn connect(
    database: &DatabaseServer,
    candidate: Candidate,
) -> Result<(Store, Lead), StoreError> {
    let database = database.clone();
    let connecting = tokio::task::spawn_blocking(move || {
        let store = Store::connect(&database)?;
        let lead = Lead::of(&store, &database, candidate)?;
        Ok((store, lead))
    });
    connecting.await.map_err(|_| StoreError::Stopped)?
}

/// The same for a command, which works where no server does: it has the right, for longer than it takes.
pub(crate) async fn connect_to_lead(
    database: &DatabaseServer,
    data: &DataDir,
    command: &str,
) -> anyhow::Result<(Store, Lead)> {
    let candidate = Candidate {
        id: data.server_id()?,
        address: command.to_owned(),
        lease: COMMAND,
    };
    let connected = connect(database, candidate).await;
    let (store, lead) = connected.context("cannot open the state database")?;
    match claim(&lead).await? {
        Claim::Leads => {
            let migrated = store.migrate().await;
            migrated.context("cannot open the state database")?;
            Ok((store, lead))
        }
        Claim::Stands(leader) => anyhow::bail!(
            "{} leads: stop all servers of this database first; after one that was killed, wait {} s",
            leader.address,
            leader.left.as_secs() + 1
        ),
    }
}

async fn claim(lead: &Lead) -> Result<Claim, StoreError> {
    in_time(lead, Lead::claim).await
}

async fn in_time<T: Send + 'static>(
    lead: &Lead,
    work: fn(&Lead) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let lead = lead.clone();
    let working = tokio::task::spawn_blocking(move || work(&lead));
    working.await.map_err(|_| StoreError::Stopped)?
}

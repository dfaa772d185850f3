//! Who leads, where several servers have one database: a lease with a token that counts up.
//!
//! Each write begins by locking the row of the leader and comparing its token. So there is one writer at a time, of all
//! servers, as in the embedded database, and everything that is checked in a transaction holds until it is committed. And
//! whoever has lost the lease, because it was paused for instance, writes nothing, however late it comes.
//!
//! A lease ends by the database's clock; those of the servers do not count. The embedded database has no lease: there the
//! data folder's lock says who works on it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::sql::{Connection, Mode, Row, Transaction, params};
use super::{DatabaseServer, Store, StoreError, migrations};

/// Milliseconds since the epoch.
const NOW: &str = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)";

/// The token that a store writes with; 0 where it does not lead.
#[derive(Debug, Clone, Default)]
pub(super) struct Fence(Arc<AtomicI64>);

impl Fence {
    /// One transaction, alone, and only of who leads.
    pub(super) fn write<T>(
        &self,
        connection: &mut Connection,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let transaction = connection.begin(Mode::Write)?;
        self.check(&transaction)?;
        let value = work(&transaction)?;
        transaction.commit()?;
        Ok(value)
    }

    /// Waits for the writer before; refused where another leads.
    fn check(&self, transaction: &Transaction<'_>) -> Result<(), StoreError> {
        if !transaction.is_postgres() {
            return Ok(());
        }
        let token = lock(transaction)?.token;
        if token == 0 || token != self.0.load(Ordering::Acquire) {
            return Err(StoreError::NotLeading);
        }
        Ok(())
    }
}

/// Who wants to lead.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    /// Of this data folder, and of no other server.
    pub(crate) id: String,
    /// For people.
    pub(crate) address: String,
    /// How long a lease lasts.
    pub(crate) lease: Duration,
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leader {
    /// Its address.
    pub(crate) address: String,
    /// How long its lease still lasts.
    pub(crate) left: Duration,
}

/// What became of a try to lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It leads now.
    Leads,
    /// Another does.
    Stands(Leader),
}

/// The lease of one server, on a connection of its own: no other work keeps it from being renewed.
#[derive(Clone)]
pub(crate) struct Lead {
    connection: Arc<Mutex<Connection>>,
    fence: Fence,
    candidate: Candidate,
}

impl Lead {
    /// For the server that has this store.
    pub(crate) fn of(
        store: &Store,
        server: &DatabaseServer,
        candidate: Candidate,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            connection: Arc::new(Mutex::new(Connection::connect(server)?)),
            fence: store.fence.clone(),
            candidate,
        })
    }

    /// Takes the lease where it is free, or this very server's from before: whoever had that is dead, as the lock of the
    /// data folder says. Blocks.
    pub(crate) fn claim(&self) -> Result<Claim, StoreError> {
        let mut connection = self.lock();
        let transaction = connection.begin(Mode::Write)?;
        migrations::refuse_newer(&transaction)?;
        let row = lock(&transaction)?;
        if row.left > 0 && row.server != self.candidate.id {
            return Ok(Claim::Stands(Leader {
                address: row.address,
                left: Duration::from_millis(row.left.unsigned_abs()),
            }));
        }
        let token = row.token + 1;
        transaction.execute(
            &format!("UPDATE leader SET token = ?1, server = ?2, address = ?3, until = {NOW} + ?4"),
            params![
                token,
                self.candidate.id,
                self.candidate.address,
                self.millis()
            ],
        )?;
        transaction.commit()?;
        self.fence.0.store(token, Ordering::Release);
        Ok(Claim::Leads)
    }

    /// Makes the lease last for its whole length again. Blocks.
    pub(crate) fn renew(&self) -> Result<(), StoreError> {
        self.fence.write(&mut self.lock(), |transaction| {
            let sql = format!("UPDATE leader SET until = {NOW} + ?1");
            transaction.execute(&sql, params![self.millis()])?;
            Ok(())
        })
    }

    /// Gives the lease back, so that another server need not wait for its end. Blocks.
    pub(crate) fn give_back(&self) -> Result<(), StoreError> {
        let given = self.fence.write(&mut self.lock(), |transaction| {
            transaction.execute("UPDATE leader SET until = 0", &[])?;
            Ok(())
        });
        self.fence.0.store(0, Ordering::Release);
        given
    }

    /// From now on, nothing is written with this lease.
    pub(crate) fn forsake(&self) {
        self.fence.0.store(0, Ordering::Release);
    }

    /// How long a lease lasts.
    pub(crate) fn length(&self) -> Duration {
        self.candidate.lease
    }

    fn millis(&self) -> i64 {
        i64::try_from(self.candidate.lease.as_millis()).unwrap_or(i64::MAX)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one row there is.
struct Held {
    token: i64,
    server: String,
    address: String,
    /// Milliseconds; less than nothing where it is over.
    left: i64,
}

fn lock(transaction: &Transaction<'_>) -> Result<Held, StoreError> {
    let sql = format!("SELECT token, server, address, until - {NOW} FROM leader FOR UPDATE");
    transaction.one(&sql, &[], |row: &Row| {
        Ok(Held {
            token: row.get(0)?,
            server: row.get(1)?,
            address: row.get(2)?,
            left: row.get(3)?,
        })
    })
}

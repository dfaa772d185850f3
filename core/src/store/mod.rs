//! The database: everything that must outlive the process.
//!
//! SQLite in WAL mode with one writer and one reader connection. Each method of [`Store`] is one
//! transaction, durable when it returns, so that callers can write their intent before they act.
//! The store decides nothing about deployments: it refuses what its constraints refuse.

mod audit;
mod deployments;
mod error;
mod events;
mod idempotency;
mod migrations;
mod releases;
mod secrets;
mod snapshot;
mod tenants;
mod tokens;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use rusqlite::{Connection, Transaction, TransactionBehavior};

pub(crate) use audit::{Action, Actor, AuditRow, Entry, Head};
#[cfg(test)]
pub(crate) use deployments::fixtures as deployment_fixtures;
pub(crate) use deployments::{Advance, DeploymentRow, NewDeployment, StoredAnswer};
pub(crate) use error::StoreError;
pub(crate) use idempotency::{Begun, IdempotencyKey};
pub(crate) use releases::ReleaseUse;
pub(crate) use secrets::{Change as SecretChange, KeptSecrets};
pub(crate) use snapshot::Snapshot;
pub(crate) use tenants::TenantRow;
pub(crate) use tokens::{TokenKind, TokenRow};

/// How long one connection waits for the other's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// A handle that is cheap to clone.
#[derive(Clone)]
pub(crate) struct Store {
    writer: Arc<Mutex<Connection>>,
    reader: Arc<Mutex<Connection>>,
}

impl Store {
    /// Opens the file, creates it where it is missing and brings its schema up to date.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let mut writer = connect(path)?;
        migrations::apply(&mut writer)?;
        let reader = connect(path)?;
        reader.pragma_update(None, "query_only", true)?;
        Ok(Self {
            writer: Arc::new(Mutex::new(writer)),
            reader: Arc::new(Mutex::new(reader)),
        })
    }

    /// Runs `work` in one immediate transaction, durable when this returns `Ok`.
    async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        on_blocking_thread(&self.writer, move |connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })
        .await
    }

    /// Runs `work` on one consistent snapshot.
    async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        on_blocking_thread(&self.reader, move |connection| {
            work(&connection.transaction()?)
        })
        .await
    }

    /// [`read`](Self::read) on a thread that may block.
    fn read_blocking<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut connection = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        work(&connection.transaction()?)
    }

    /// Whether the database answers.
    pub(crate) async fn ping(&self) -> Result<(), StoreError> {
        self.read(|transaction| Ok(transaction.query_row("SELECT 1", [], |_| Ok(()))?))
            .await
    }
}

async fn on_blocking_thread<T, F>(
    connection: &Arc<Mutex<Connection>>,
    work: F,
) -> Result<T, StoreError>
where
    T: Send + 'static,
    F: FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
{
    let connection = Arc::clone(connection);
    tokio::task::spawn_blocking(move || {
        // A panic under the lock has rolled its transaction back: the connection is still good.
        let mut guard = connection.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut guard)
    })
    .await
    .map_err(|_| StoreError::Stopped)?
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // FULL: a state that was answered to a client must survive the loss of power.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// The present moment, cut to what the database keeps.
pub(crate) fn now() -> DateTime<Utc> {
    from_millis(Utc::now().timestamp_millis())
}

fn from_millis(millis: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(millis).unwrap_or_default()
}

/// Numbers that this store wrote itself and that only count up from zero.
fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
pub(crate) mod fixtures {
    use super::*;

    /// A store in a folder that vanishes with the returned guard.
    pub(crate) fn store() -> (Store, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state.db")).unwrap();
        (store, folder)
    }
}

//! The database: everything that must outlive the process.
//!
//! SQLite in WAL mode or PostgreSQL ([`sql`]), with one writer and one reader connection. Each method of [`Store`] is one
//! transaction, durable when it returns, so that callers can write their intent before they act. There is one writer at a
//! time, of all servers ([`lease`]). The store decides nothing about deployments: it refuses what its constraints refuse.

mod audit;
#[cfg(test)]
mod cluster;
mod deployments;
mod error;
mod events;
mod idempotency;
mod lease;
mod migrations;
#[cfg(test)]
mod real_postgres;
mod releases;
mod secrets;
mod services;
mod snapshot;
mod sql;
mod tenants;
mod tokens;
mod transfer;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};

pub(crate) use audit::{Action, Actor, AuditRow, Entry, Head};
#[cfg(test)]
pub(crate) use deployments::fixtures as deployment_fixtures;
pub(crate) use deployments::{Advance, DeploymentRow, NewDeployment, StoredAnswer};
pub(crate) use error::StoreError;
pub(crate) use idempotency::{Begun, IdempotencyKey};
pub(crate) use lease::{Candidate, Claim, Lead, Leader};
pub(crate) use releases::ReleaseUse;
pub(crate) use secrets::{Change as SecretChange, KeptSecrets, SealedSecret};
pub(crate) use snapshot::Snapshot;
pub(crate) use sql::{DatabaseUrl, Server as DatabaseServer, SqlError, UrlError};
pub(crate) use tenants::TenantRow;
pub(crate) use tokens::{TokenKind, TokenRow};

use lease::Fence;
use sql::{Connection, Mode, Transaction};

/// A handle that is cheap to clone.
#[derive(Clone)]
pub(crate) struct Store {
    writer: Arc<Mutex<Connection>>,
    reader: Arc<Mutex<Connection>>,
    /// What keeps one that does not lead any more from writing.
    fence: Fence,
}

impl Store {
    /// Opens the file, creates it where it is missing and brings its schema up to date.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let mut writer = Connection::open(path)?;
        migrations::apply(&mut writer, &Fence::default())?;
        let reader = Connection::open_reader(path)?;
        Ok(Self::of(writer, reader))
    }

    /// Connects to a database of PostgreSQL. It can be read when it has a schema, and written to by who leads.
    pub(crate) fn connect(server: &DatabaseServer) -> Result<Self, StoreError> {
        let mut writer = Connection::connect(server)?;
        migrations::prepare(&mut writer)?;
        Ok(Self::of(writer, Connection::connect(server)?))
    }

    fn of(writer: Connection, reader: Connection) -> Self {
        Self {
            writer: Arc::new(Mutex::new(writer)),
            reader: Arc::new(Mutex::new(reader)),
            fence: Fence::default(),
        }
    }

    /// Brings the schema up to date. Whoever leads does, so that no other one works with a schema it does not know.
    pub(crate) async fn migrate(&self) -> Result<(), StoreError> {
        let fence = self.fence.clone();
        on_blocking_thread(&self.writer, move |connection| {
            migrations::apply(connection, &fence)
        })
        .await
    }

    /// Runs `work` in one transaction, alone, durable when this returns `Ok`.
    async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let fence = self.fence.clone();
        on_blocking_thread(&self.writer, move |connection| {
            fence.write(connection, work)
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
            work(&connection.begin(Mode::Read)?)
        })
        .await
    }

    /// [`read`](Self::read) on a thread that may block.
    fn read_blocking<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut connection = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        work(&connection.begin(Mode::Read)?)
    }

    /// Brings all that was written into the one file, which may be copied then: a server that ends leaves no log beside it that
    /// somebody could forget.
    pub(crate) async fn settle(&self) -> Result<(), StoreError> {
        on_blocking_thread(&self.writer, |connection| Ok(connection.settle()?)).await
    }

    /// Whether the database answers.
    pub(crate) async fn ping(&self) -> Result<(), StoreError> {
        self.read(|transaction| transaction.one("SELECT 1", &[], |_| Ok(())))
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
    use std::ops::Deref;
    use std::time::Duration;

    use secrecy::SecretString;

    use super::cluster::Cluster;
    use super::sql::params;
    use super::*;

    /// A store in a folder that vanishes with the returned guard.
    pub(crate) fn store() -> (Store, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state.db")).unwrap();
        (store, folder)
    }

    /// A store in a PostgreSQL of its own, which leads.
    pub(crate) struct Postgres {
        pub(crate) store: Store,
        pub(crate) lead: Lead,
        pub(crate) server: DatabaseServer,
        // Last: it goes when nobody speaks to it any more.
        pub(crate) cluster: Cluster,
    }

    impl Deref for Postgres {
        type Target = Store;

        fn deref(&self) -> &Store {
            &self.store
        }
    }

    impl Postgres {
        /// Another one with the same lease: two connections that write.
        pub(crate) async fn beside(&self) -> Store {
            let (store, _) = connect(&self.server, "a").await;
            Store {
                fence: self.store.fence.clone(),
                ..store
            }
        }

        /// Another one, when all that was there is gone.
        pub(crate) async fn fresh(&self) -> Store {
            let server = self.server.clone();
            let emptied = tokio::task::spawn_blocking(move || {
                let mut connection = Connection::connect(&server).unwrap();
                let transaction = connection.begin(Mode::Write).unwrap();
                let sql = "DROP SCHEMA public CASCADE; CREATE SCHEMA public";
                transaction.batch(sql).unwrap();
                transaction.commit().unwrap();
            });
            emptied.await.unwrap();
            let (store, lead) = connect(&self.server, "a").await;
            lead_with(&store, lead).await;
            store
        }
    }

    pub(crate) fn server(url: &str) -> DatabaseServer {
        let url = DatabaseUrl::parse(&SecretString::from(url)).unwrap();
        DatabaseServer::of(&url).unwrap()
    }

    pub(crate) fn candidate(id: &str) -> Candidate {
        Candidate {
            id: id.to_owned(),
            address: format!("http://{id}"),
            lease: Duration::from_mins(1),
        }
    }

    /// A store and its lease, not taken yet. On a thread that may block.
    pub(crate) async fn connect(server: &DatabaseServer, id: &str) -> (Store, Lead) {
        let (server, id) = (server.clone(), id.to_owned());
        let connecting = tokio::task::spawn_blocking(move || {
            let store = Store::connect(&server).unwrap();
            let lead = Lead::of(&store, &server, candidate(&id)).unwrap();
            (store, lead)
        });
        connecting.await.unwrap()
    }

    pub(crate) async fn postgres() -> Postgres {
        let cluster = Cluster::start();
        let server = server(&cluster.url());
        let (store, lead) = connect(&server, "a").await;
        lead_with(&store, lead.clone()).await;
        Postgres {
            store,
            lead,
            server,
            cluster,
        }
    }

    async fn lead_with(store: &Store, lead: Lead) {
        let claim = tokio::task::spawn_blocking(move || lead.claim().unwrap());
        assert_eq!(claim.await.unwrap(), Claim::Leads);
        store.migrate().await.unwrap();
    }

    /// As if the clock had gone on.
    pub(crate) async fn make_keys_older(store: &Store, millis: i64) {
        let older = store.write(move |transaction| {
            let sql = "UPDATE idempotency SET created_at = created_at - ?1";
            Ok(transaction.execute(sql, params![millis])?)
        });
        older.await.unwrap();
    }

    /// Runs each test with either database.
    macro_rules! with_each_database {
        ($($test:ident),* $(,)?) => {
            mod embedded {
                $(
                    #[tokio::test]
                    async fn $test() {
                        let (store, _folder) = $crate::store::fixtures::store();
                        super::$test(&store).await;
                    }
                )*
            }

            mod real_postgres {
                $(
                    #[tokio::test]
                    async fn $test() {
                        let postgres = $crate::store::fixtures::postgres().await;
                        super::$test(&postgres.store).await;
                    }
                )*
            }
        };
    }
    pub(crate) use with_each_database;
}

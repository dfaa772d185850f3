//! PostgreSQL: a connection that is made anew when it is lost, and transactions on it.
//!
//! Callers block, as they do with the embedded database. What travels does so on a thread of its own, so that neither a
//! busy server nor the lack of a runtime holds it up. Nothing is waited for without a bound.

mod values;

use std::cell::Cell;
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use tokio::runtime::{Builder, Runtime};
use tokio::task::AbortHandle;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::error::Severity;
use tokio_postgres::{Client, Config, NoTls};

use super::tls::Encrypted;
use super::url::{DatabaseUrl, UrlError};
use super::{Mode, Row, SqlError, Value};
use values::{decoded, numbered, typed};

/// SQLSTATE of a disk without room.
pub(super) const DISK_FULL: &str = "53100";
/// Of a uniqueness rule that refused a row.
pub(super) const UNIQUE_VIOLATION: &str = "23505";
/// Of text with a NUL character.
pub(super) const REFUSED_TEXT: &str = "22021";
/// SQLSTATE of who is not let in, and of a database that is not there: no wait helps.
const REFUSALS: [&str; 2] = ["28", "3D"];
/// For a connection, and with encryption and login.
const CONNECT: Duration = Duration::from_secs(5);
const LOGIN: Duration = Duration::from_secs(10);
/// For any answer: longer than the database itself takes to give a writing statement up.
const ANSWER: Duration = Duration::from_secs(15);
/// How long a lost connection is made anew for, before whoever waits is told.
const RECONNECT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A server that stands still in the middle of a transaction is not waited for: the database ends it.
const BEGIN_WRITE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
    SET LOCAL statement_timeout = '10s'; SET LOCAL idle_in_transaction_session_timeout = '5s'";
/// Whoever reads the whole audit log takes a while.
const BEGIN_READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
    SET LOCAL statement_timeout = '300s'; SET LOCAL idle_in_transaction_session_timeout = '60s'";

/// What drives all connections.
static NETWORK: LazyLock<std::io::Result<Runtime>> = LazyLock::new(|| {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).thread_name("postgresql");
    builder.enable_all().build()
});

/// A database server, and how to speak to it.
#[derive(Clone)]
pub(crate) struct Server {
    config: Arc<Config>,
    tls: Option<Encrypted>,
    /// Without the password.
    name: Arc<str>,
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl Server {
    /// Reads the certificates that the connection is checked with.
    pub(crate) fn of(url: &DatabaseUrl) -> Result<Self, UrlError> {
        let mut config = url.config()?;
        config
            .connect_timeout(CONNECT)
            .tcp_user_timeout(ANSWER)
            .keepalives_idle(ANSWER)
            .target_session_attrs(TargetSessionAttrs::ReadWrite);
        if config.get_application_name().is_none() {
            config.application_name("systemprompt");
        }
        let tls = match config.get_ssl_mode() {
            SslMode::Require => Some(Encrypted::new(url.root_certificates())?),
            _ => None,
        };
        Ok(Self {
            config: Arc::new(config),
            tls,
            name: url.to_string().into(),
        })
    }
}

/// A connection, or the place of one.
pub(in super::super) struct Connection {
    server: Server,
    live: Option<Live>,
    /// When it could not be had.
    missed: Option<Instant>,
}

struct Live {
    client: Client,
    driver: AbortHandle,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    pub(super) fn open(server: &Server) -> Result<Self, SqlError> {
        let live = Live::connect(server)?;
        Ok(Self {
            server: server.clone(),
            live: Some(live),
            missed: None,
        })
    }

    /// Begins a transaction, on a new connection where the one before is gone: nothing was asked of either yet.
    pub(super) fn begin(&mut self, mode: Mode) -> Result<Transaction<'_>, SqlError> {
        let sql = match mode {
            Mode::Write => BEGIN_WRITE,
            Mode::Read => BEGIN_READ,
        };
        self.batch(sql)?;
        Ok(Transaction {
            connection: self,
            state: Cell::new(Standing::Good),
        })
    }

    /// Runs statements of which the first can be asked for twice.
    pub(super) fn batch(&mut self, sql: &str) -> Result<(), SqlError> {
        // Whoever has waited for somebody else's tries makes one of his own.
        let recently = |at: Instant| at.elapsed() < LONGEST_PAUSE;
        let mut until = Instant::now();
        if !self.missed.take().is_some_and(recently) {
            until += RECONNECT;
        }
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.try_batch(sql) {
                Err(error @ SqlError::Lost { .. }) => error,
                other => return other,
            };
            self.live = None;
            if Instant::now() + pause > until {
                self.missed = Some(Instant::now());
                return Err(error);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn try_batch(&mut self, sql: &str) -> Result<(), SqlError> {
        let live = match &self.live {
            Some(live) if !live.client.is_closed() => live,
            _ => self.live.insert(Live::connect(&self.server)?),
        };
        wait(live.client.batch_execute(sql))
    }
}

impl Live {
    fn connect(server: &Server) -> Result<Self, SqlError> {
        let connecting = async {
            match server.tls.clone() {
                None => {
                    let (client, connection) = server.config.connect(NoTls).await?;
                    let encoding = connection.parameter("server_encoding").map(str::to_owned);
                    Ok((client, encoding, tokio::spawn(connection).abort_handle()))
                }
                Some(tls) => {
                    let (client, connection) = server.config.connect(tls).await?;
                    let encoding = connection.parameter("server_encoding").map(str::to_owned);
                    Ok((client, encoding, tokio::spawn(connection).abort_handle()))
                }
            }
        };
        let connected = within(LOGIN, connecting).map_err(|error| match error {
            SqlError::Lost { message } => SqlError::Lost {
                message: format!("{server} cannot be reached ({message})"),
            },
            SqlError::Postgres { message, code } => SqlError::Postgres {
                message: format!("{server} lets nobody in ({message})"),
                code,
            },
            other => other,
        });
        let (client, encoding, driver) = connected?;
        let live = Self { client, driver };
        match encoding.as_deref() {
            Some("UTF8") => Ok(live),
            other => Err(SqlError::Postgres {
                message: format!(
                    "the database {server} has the encoding {}: make one with ENCODING 'UTF8'",
                    other.unwrap_or("unknown")
                ),
                code: None,
            }),
        }
    }
}

/// How a transaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Good,
    /// The database does nothing more in it, and calls a commit of it a success.
    Failed,
    /// So has the connection.
    Lost,
    Over,
}

pub(in super::super) struct Transaction<'a> {
    connection: &'a mut Connection,
    state: Cell<Standing>,
}

impl Transaction<'_> {
    pub(super) fn commit(self) -> Result<(), SqlError> {
        if self.state.get() != Standing::Good {
            return Err(SqlError::Postgres {
                message: "a statement of the transaction has failed".to_owned(),
                code: None,
            });
        }
        self.ask(self.client()?.batch_execute("COMMIT"))?;
        self.state.set(Standing::Over);
        Ok(())
    }

    pub(super) fn execute(&self, sql: &str, parameters: &[Value]) -> Result<usize, SqlError> {
        let sql = numbered(sql);
        let client = self.client()?;
        let parameters: Vec<_> = typed(parameters).collect();
        let changed = self.ask(client.execute_typed(&sql, &parameters))?;
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }

    pub(super) fn batch(&self, sql: &str) -> Result<(), SqlError> {
        self.ask(self.client()?.batch_execute(sql))
    }

    pub(super) fn each<E: From<SqlError>>(
        &self,
        sql: &str,
        parameters: &[Value],
        take: &mut impl FnMut(&Row) -> Result<(), E>,
    ) -> Result<(), E> {
        let sql = numbered(sql);
        let asked = self.client()?.query_typed_raw(&sql, typed(parameters));
        let mut rows = pin!(self.ask(asked)?);
        while let Some(row) = self.ask(rows.try_next())? {
            take(&decoded(&row)?)?;
        }
        Ok(())
    }

    fn client(&self) -> Result<&Client, SqlError> {
        let live = self.connection.live.as_ref();
        live.map(|live| &live.client).ok_or_else(|| lost("closed"))
    }

    fn ask<T>(
        &self,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, SqlError> {
        let answer = wait(answer);
        match &answer {
            Ok(_) => {}
            Err(SqlError::Lost { .. }) => self.state.set(Standing::Lost),
            Err(_) => self.state.set(Standing::Failed),
        }
        answer
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        let is_undone = match self.state.get() {
            Standing::Over => true,
            Standing::Lost => false,
            Standing::Good | Standing::Failed => {
                let rollback = self.client().map(|client| client.batch_execute("ROLLBACK"));
                rollback.and_then(wait).is_ok()
            }
        };
        if !is_undone {
            // The database undoes what was on a connection that ends.
            self.connection.live = None;
        }
    }
}

fn wait<T>(answer: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, SqlError> {
    within(ANSWER, answer)
}

fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, SqlError> {
    let network = NETWORK.as_ref().map_err(|error| lost(&error.to_string()))?;
    match network.block_on(async { tokio::time::timeout(limit, answer).await }) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(failure(&error)),
        Err(_) => Err(lost("no answer in time")),
    }
}

fn lost(message: &str) -> SqlError {
    SqlError::Lost {
        message: message.to_owned(),
    }
}

/// What the database says has neither values nor passwords in it; its details, which have values, are left out.
fn failure(error: &tokio_postgres::Error) -> SqlError {
    let Some(said) = error.as_db_error() else {
        let cause = std::error::Error::source(error);
        let cause = cause.map_or_else(|| error.to_string(), ToString::to_string);
        return lost(&cause);
    };
    let code = said.code().code();
    let is_over = matches!(
        said.parsed_severity(),
        Some(Severity::Fatal | Severity::Panic)
    );
    if is_over && !REFUSALS.iter().any(|class| code.starts_with(class)) {
        return lost(said.message());
    }
    SqlError::Postgres {
        message: said.message().to_owned(),
        code: Some(code.to_owned()),
    }
}

//! What the store uses of a database, with the two databases that there are. The SQL is written once, in words that both
//! understand; what they do not share is here: how a connection is made and kept, how a transaction begins, how values
//! and errors are called.
//!
//! Parameters are `?1`, `?2` and so on. Numbers are 64 bits wide, a truth value is read from what either has for it.

mod postgres;
mod sqlite;
mod tls;
mod url;
mod value;

use std::path::Path;

use super::StoreError;

pub(crate) use postgres::Server;
pub(crate) use url::{DatabaseUrl, UrlError};
pub(super) use value::{Row, Value, params};

/// A database refused or failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SqlError {
    /// The embedded one.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// The one behind a connection.
    #[error("PostgreSQL: {message}")]
    Postgres {
        /// What it said.
        message: String,
        /// SQLSTATE, where it is the database that speaks.
        code: Option<String>,
    },
    /// No answer in time, or the connection is gone. What was written may be there or not.
    #[error("the connection to PostgreSQL was lost: {message}")]
    Lost {
        /// What happened.
        message: String,
    },
    /// A column holds another kind of value than it should.
    #[error("column {index} holds {found}, not {wanted}")]
    Column {
        /// Its place in the row.
        index: usize,
        /// What was wanted.
        wanted: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// Exactly one row was wanted.
    #[error("there is no such row")]
    NoRow,
}

impl SqlError {
    /// Whether text was refused for a character in it.
    pub(crate) fn is_refused_text(&self) -> bool {
        matches!(self, Self::Postgres { code, .. } if code.as_deref() == Some(postgres::REFUSED_TEXT))
    }

    /// Whether the disk that the database is on has no room.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Sqlite(error) => sqlite::is_full(error),
            Self::Postgres { code, .. } => code.as_deref() == Some(postgres::DISK_FULL),
            _ => false,
        }
    }

    /// Whether a uniqueness rule refused a row.
    pub(super) fn is_unique_violation(&self) -> bool {
        match self {
            Self::Sqlite(error) => sqlite::is_unique_violation(error),
            Self::Postgres { code, .. } => code.as_deref() == Some(postgres::UNIQUE_VIOLATION),
            _ => false,
        }
    }
}

/// One connection to a database.
pub(super) enum Connection {
    Sqlite(rusqlite::Connection),
    Postgres(postgres::Connection),
}

/// What a transaction may do, and what it is protected from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// One at a time, of all servers.
    Write,
    /// On one consistent state.
    Read,
}

impl Connection {
    /// Opens a file, and makes it where it is missing.
    pub(super) fn open(path: &Path) -> Result<Self, SqlError> {
        Ok(Self::Sqlite(sqlite::open(path)?))
    }

    /// Opens a file that somebody else here writes to.
    pub(super) fn open_reader(path: &Path) -> Result<Self, SqlError> {
        let connection = sqlite::open(path)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(Self::Sqlite(connection))
    }

    /// Opens a file that nothing is written to.
    pub(super) fn open_read_only(path: &Path) -> Result<Self, SqlError> {
        Ok(Self::Sqlite(sqlite::open_read_only(path)?))
    }

    /// Connects to a server.
    pub(super) fn connect(server: &Server) -> Result<Self, SqlError> {
        Ok(Self::Postgres(postgres::Connection::open(server)?))
    }

    /// Copies a file as it is at this moment; false where there is none.
    pub(super) fn copy_file(&self, to: &Path) -> Result<bool, SqlError> {
        let Self::Sqlite(connection) = self else {
            return Ok(false);
        };
        connection.execute("VACUUM INTO ?1", [to.to_string_lossy()])?;
        Ok(true)
    }

    /// Leaves all that was written in one file.
    pub(super) fn settle(&self) -> Result<(), SqlError> {
        match self {
            Self::Sqlite(connection) => sqlite::empty_log(connection),
            Self::Postgres(_) => Ok(()),
        }
    }

    /// Leaves one file, without a log beside it.
    pub(super) fn close_file(self) -> Result<(), SqlError> {
        match self {
            Self::Sqlite(connection) => {
                connection.pragma_update(None, "journal_mode", "DELETE")?;
                Ok(connection.close().map_err(|(_, error)| error)?)
            }
            Self::Postgres(_) => Ok(()),
        }
    }

    pub(super) fn begin(&mut self, mode: Mode) -> Result<Transaction<'_>, SqlError> {
        match self {
            Self::Sqlite(connection) => Ok(Transaction::Sqlite(sqlite::begin(connection, mode)?)),
            Self::Postgres(connection) => Ok(Transaction::Postgres(connection.begin(mode)?)),
        }
    }

    /// Sees to it that what was overwritten by the next transaction cannot be found in the files.
    pub(super) fn begin_erasing(&mut self) -> Result<(), SqlError> {
        match self {
            Self::Sqlite(connection) => {
                Ok(connection.pragma_update(None, "secure_delete", true)?)
            }
            Self::Postgres(_) => Ok(()),
        }
    }

    /// The same, after that transaction, which was about the one `table`.
    pub(super) fn end_erasing(&mut self, table: &str) -> Result<(), SqlError> {
        match self {
            Self::Sqlite(connection) => sqlite::empty_log(connection),
            // Its own log holds on to it, until it is written over.
            Self::Postgres(connection) => connection.batch(&format!("VACUUM FULL {table}")),
        }
    }
}

/// A transaction. It is undone where it is not committed.
pub(super) enum Transaction<'a> {
    Sqlite(rusqlite::Transaction<'a>),
    Postgres(postgres::Transaction<'a>),
}

impl Transaction<'_> {
    pub(super) fn commit(self) -> Result<(), SqlError> {
        match self {
            Self::Sqlite(transaction) => Ok(transaction.commit()?),
            Self::Postgres(transaction) => transaction.commit(),
        }
    }

    /// Runs one statement; says how many rows it changed.
    pub(super) fn execute(&self, sql: &str, parameters: &[Value]) -> Result<usize, SqlError> {
        match self {
            Self::Sqlite(transaction) => sqlite::execute(transaction, sql, parameters),
            Self::Postgres(transaction) => transaction.execute(sql, parameters),
        }
    }

    /// Runs statements without parameters.
    pub(super) fn batch(&self, sql: &str) -> Result<(), SqlError> {
        match self {
            Self::Sqlite(transaction) => Ok(transaction.execute_batch(sql)?),
            Self::Postgres(transaction) => transaction.batch(sql),
        }
    }

    /// Hands over one row after the other, never all of them at once.
    pub(super) fn each<E: From<SqlError>>(
        &self,
        sql: &str,
        parameters: &[Value],
        mut take: impl FnMut(&Row) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            Self::Sqlite(transaction) => sqlite::each(transaction, sql, parameters, &mut take),
            Self::Postgres(transaction) => transaction.each(sql, parameters, &mut take),
        }
    }

    /// All rows.
    pub(super) fn all<T>(
        &self,
        sql: &str,
        parameters: &[Value],
        read: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let mut all = Vec::new();
        self.each(sql, parameters, |row| {
            all.push(read(row)?);
            Ok::<_, StoreError>(())
        })?;
        Ok(all)
    }

    /// The first row, if there is any.
    pub(super) fn optional<T>(
        &self,
        sql: &str,
        parameters: &[Value],
        read: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        Ok(self.all(sql, parameters, read)?.into_iter().next())
    }

    /// The first row.
    pub(super) fn one<T>(
        &self,
        sql: &str,
        parameters: &[Value],
        read: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let first = self.optional(sql, parameters, read)?;
        first.ok_or(StoreError::Database(SqlError::NoRow))
    }

    /// The names of a table's columns.
    pub(super) fn columns(&self, table: &str) -> Result<Vec<String>, StoreError> {
        let sql = if self.is_postgres() {
            "SELECT CAST(column_name AS TEXT) FROM information_schema.columns
             WHERE table_schema = current_schema() AND table_name = ?1 ORDER BY ordinal_position"
        } else {
            "SELECT name FROM pragma_table_info(?1)"
        };
        self.all(sql, params![table], |row| Ok(row.get(0)?))
    }

    /// Looks at references to other rows when the transaction is committed, not before.
    pub(super) fn defer_references(&self) -> Result<(), SqlError> {
        self.batch(if self.is_postgres() {
            "SET CONSTRAINTS ALL DEFERRED"
        } else {
            "PRAGMA defer_foreign_keys = ON"
        })
    }

    /// Lets the numbers that a table gives its rows go on behind those that it has.
    pub(super) fn continue_numbers(&self, table: &str, column: &str) -> Result<(), SqlError> {
        if !self.is_postgres() {
            return Ok(());
        }
        self.batch(&format!(
            "SELECT setval(pg_get_serial_sequence('{table}', '{column}'),
               COALESCE((SELECT MAX({column}) FROM {table}), 0) + 1, FALSE)"
        ))
    }

    /// Whether this is the database behind a connection, for the few things that only one of the two has.
    pub(super) fn is_postgres(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }
}

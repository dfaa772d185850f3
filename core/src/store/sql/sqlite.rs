//! The embedded database: a file in WAL mode.

use std::path::Path;
use std::time::Duration;

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, ffi, params_from_iter};

use super::value::Kind;
use super::{Mode, Row, SqlError, Value};

/// How long one connection waits for the other's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn open(path: &Path) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // FULL: a state that was answered to a client must survive the loss of power.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

pub(super) fn open_read_only(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

pub(super) fn begin(
    connection: &mut Connection,
    mode: Mode,
) -> Result<Transaction<'_>, rusqlite::Error> {
    let behavior = match mode {
        Mode::Write => TransactionBehavior::Immediate,
        Mode::Read => TransactionBehavior::Deferred,
    };
    connection.transaction_with_behavior(behavior)
}

pub(super) fn execute(
    connection: &Connection,
    sql: &str,
    parameters: &[Value],
) -> Result<usize, SqlError> {
    let mut statement = connection.prepare_cached(sql)?;
    Ok(statement.execute(params_from_iter(parameters))?)
}

pub(super) fn each<E: From<SqlError>>(
    connection: &Connection,
    sql: &str,
    parameters: &[Value],
    take: &mut impl FnMut(&Row) -> Result<(), E>,
) -> Result<(), E> {
    let mut statement = connection.prepare_cached(sql).map_err(SqlError::from)?;
    let columns = statement.column_count();
    let rows = statement.query(params_from_iter(parameters));
    let mut rows = rows.map_err(SqlError::from)?;
    while let Some(row) = rows.next().map_err(SqlError::from)? {
        let values = (0..columns).map(|index| Ok(value(row.get_ref(index)?)));
        let values: Result<_, rusqlite::Error> = values.collect();
        take(&Row::new(values.map_err(SqlError::from)?))?;
    }
    Ok(())
}

/// Writes what is in the log into the file, and empties the log.
pub(super) fn empty_log(connection: &Connection) -> Result<(), SqlError> {
    Ok(connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
}

pub(super) fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
}

pub(super) fn is_unique_violation(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error().map(|e| e.extended_code),
        Some(ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY)
    )
}

/// The tables are strict: what is no number, text or bytes in them, somebody put there by force.
fn value(found: ValueRef<'_>) -> Value {
    match found {
        ValueRef::Null => Value::Null(Kind::Text),
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Text(number.to_string()),
        ValueRef::Text(text) => String::from_utf8(text.to_vec())
            .map_or_else(|error| Value::Bytes(error.into_bytes()), Value::Text),
        ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec()),
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null(_) => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

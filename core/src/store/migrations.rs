//! Forward-only schema migrations. A file, once released, is never edited: a change is a new file.

use super::StoreError;
use super::lease::Fence;
use super::sql::{Connection, Mode, Transaction, params};

/// A change of the schema, in the words of each database.
struct Migration {
    sqlite: &'static str,
    postgres: &'static str,
}

macro_rules! migration {
    ($name:literal) => {
        Migration {
            sqlite: include_str!(concat!("migrations/", $name)),
            postgres: include_str!(concat!("migrations/postgres/", $name)),
        }
    };
}

/// Position in this list + 1 is the schema version.
const MIGRATIONS: &[Migration] = &[
    migration!("0001_initial.sql"),
    migration!("0002_strategies.sql"),
    migration!("0003_secrets.sql"),
    migration!("0004_audit.sql"),
    migration!("0005_credentials.sql"),
    migration!("0006_resources.sql"),
    migration!("0007_stand_in.sql"),
    migration!("0008_restart.sql"),
    migration!("0009_services.sql"),
    migration!("0010_turns.sql"),
];

/// What PostgreSQL needs before there is a schema.
const SERVER: &str = include_str!("migrations/postgres/0000_server.sql");
/// Of the lock that servers which start at once wait for; a number that nobody else has a reason to choose.
const LOCK: &str = "SELECT pg_advisory_xact_lock(6020116148)";

/// The latest version that this server knows.
fn known() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// Sees to it that a database of PostgreSQL can say its version and who leads. Refused where it is newer.
pub(super) fn prepare(connection: &mut Connection) -> Result<(), StoreError> {
    let transaction = connection.begin(Mode::Write)?;
    transaction.batch(LOCK)?;
    let is_there = transaction.one(
        "SELECT to_regclass('schema_version') IS NOT NULL",
        &[],
        |row| Ok(row.get(0)?),
    );
    if is_there? {
        return refuse_newer(&transaction);
    }
    transaction.batch(SERVER)?;
    Ok(transaction.commit()?)
}

/// Brings the schema to the latest version, each step in a transaction with its version number.
pub(super) fn apply(connection: &mut Connection, fence: &Fence) -> Result<(), StoreError> {
    for (index, migration) in (1..).zip(MIGRATIONS) {
        fence.write(connection, |transaction| {
            let found = version(transaction)?;
            refuse(found)?;
            if found >= index {
                return Ok(());
            }
            transaction.batch(if transaction.is_postgres() {
                migration.postgres
            } else {
                migration.sqlite
            })?;
            set_version(transaction, index)
        })?;
    }
    Ok(())
}

/// Refuses a database of a newer server.
pub(super) fn refuse_newer(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    refuse(version(transaction)?)
}

fn refuse(found: i64) -> Result<(), StoreError> {
    match known() {
        known if found > known => Err(StoreError::TooNew { found, known }),
        _ => Ok(()),
    }
}

/// Refuses a database of another schema than this server's.
pub(super) fn check_is_current(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    let (found, known) = (version(transaction)?, known());
    refuse(found)?;
    if found < known {
        return Err(StoreError::TooOld { found, known });
    }
    Ok(())
}

fn version(transaction: &Transaction<'_>) -> Result<i64, StoreError> {
    let sql = if transaction.is_postgres() {
        "SELECT version FROM schema_version"
    } else {
        "PRAGMA user_version"
    };
    transaction.one(sql, &[], |row| Ok(row.get(0)?))
}

fn set_version(transaction: &Transaction<'_>, version: i64) -> Result<(), StoreError> {
    if transaction.is_postgres() {
        transaction.execute("UPDATE schema_version SET version = ?1", params![version])?;
        return Ok(());
    }
    Ok(transaction.batch(&format!("PRAGMA user_version = {version}"))?)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn memory() -> Connection {
        Connection::open(Path::new(":memory:")).unwrap()
    }

    fn version_of(connection: &mut Connection) -> i64 {
        version(&connection.begin(Mode::Read).unwrap()).unwrap()
    }

    #[test]
    fn migrations_apply_once() {
        let mut connection = memory();
        apply(&mut connection, &Fence::default()).unwrap();
        apply(&mut connection, &Fence::default()).unwrap();
        assert_eq!(version_of(&mut connection), known());
    }

    #[test]
    fn a_file_of_a_newer_server_is_refused() {
        let mut connection = memory();
        let transaction = connection.begin(Mode::Write).unwrap();
        set_version(&transaction, 999).unwrap();
        transaction.commit().unwrap();
        assert!(matches!(
            apply(&mut connection, &Fence::default()),
            Err(StoreError::TooNew { found: 999, .. })
        ));
    }
}

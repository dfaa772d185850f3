//! Forward-only schema migrations. A file, once released, is never edited: a change is a new file.

use rusqlite::{Connection, TransactionBehavior};

use super::StoreError;

/// Position in this list + 1 is the schema version.
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_initial.sql"),
    include_str!("migrations/0002_strategies.sql"),
    include_str!("migrations/0003_secrets.sql"),
    include_str!("migrations/0004_audit.sql"),
    include_str!("migrations/0005_credentials.sql"),
    include_str!("migrations/0006_resources.sql"),
    include_str!("migrations/0007_stand_in.sql"),
    include_str!("migrations/0008_restart.sql"),
];

/// Brings the schema to the latest version, each step in a transaction with its version number.
pub(super) fn apply(connection: &mut Connection) -> Result<(), StoreError> {
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let found = version(connection)?;
    if found > known {
        return Err(StoreError::TooNew { found, known });
    }
    for (index, sql) in (1..).zip(MIGRATIONS) {
        if index <= found {
            continue;
        }
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", index)?;
        transaction.commit()?;
    }
    Ok(())
}

/// Refuses a database of another schema than this server's.
pub(super) fn check_is_current(connection: &Connection) -> Result<(), StoreError> {
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    match version(connection)? {
        found if found > known => Err(StoreError::TooNew { found, known }),
        found if found < known => Err(StoreError::TooOld { found, known }),
        _ => Ok(()),
    }
}

fn version(connection: &Connection) -> Result<i64, StoreError> {
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_apply_once() {
        let mut connection = Connection::open_in_memory().unwrap();
        apply(&mut connection).unwrap();
        apply(&mut connection).unwrap();
        assert_eq!(
            version(&connection).unwrap(),
            i64::try_from(MIGRATIONS.len()).unwrap()
        );
    }

    #[test]
    fn a_file_of_a_newer_server_is_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.pragma_update(None, "user_version", 999).unwrap();
        assert!(matches!(
            apply(&mut connection),
            Err(StoreError::TooNew { found: 999, .. })
        ));
    }
}

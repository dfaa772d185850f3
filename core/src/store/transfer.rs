//! All rows of one database into another, of whichever kind each of them is.
//!
//! A backup holds a file of the embedded database whatever the server has: so each can be made of the other.

use std::path::Path;

use super::sql::{Connection, Mode, Transaction, Value};
use super::{Store, StoreError, lease, migrations};

/// Every table, those that others refer to first, with the order in which its rows have to be written.
const TABLES: [(&str, &str); 9] = [
    ("tenants", "id"),
    ("releases", "id"),
    ("deployments", "tenant, number"),
    ("events", "tenant, number, seq"),
    ("tokens", "id"),
    ("secrets", "tenant, name, version"),
    ("service_ports", "tenant, service"),
    ("idempotency", "scope, key"),
    ("audit", "seq"),
];
/// In one statement: each answer takes its way.
const ROWS: usize = 100;

impl Store {
    /// Copies the rows of a file of the embedded database. Refused where there are any.
    pub(crate) async fn fill_from(&self, file: &Path) -> Result<(), StoreError> {
        let file = file.to_owned();
        self.write(move |transaction| {
            check_is_empty(transaction)?;
            let mut source = Connection::open_read_only(&file)?;
            let source = source.begin(Mode::Read)?;
            migrations::check_is_current(&source)?;
            copy(&source, transaction)
        })
        .await
    }

    /// Whether there is a place for the state of another server.
    pub(crate) async fn refuse_unless_empty(&self) -> Result<(), StoreError> {
        self.read(check_is_empty).await
    }
}

/// Writes all rows into a file of the embedded database that is empty or not there.
pub(super) fn copy_to_file(source: &Transaction<'_>, file: &Path) -> Result<(), StoreError> {
    let mut connection = Connection::open(file)?;
    migrations::apply(&mut connection, &lease::Fence::default())?;
    let transaction = connection.begin(Mode::Write)?;
    copy(source, &transaction)?;
    transaction.commit()?;
    // One file is to be copied, not its log too.
    Ok(connection.close_file()?)
}

fn check_is_empty(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    let sql = "SELECT NOT EXISTS (SELECT 1 FROM tenants) AND NOT EXISTS (SELECT 1 FROM audit)";
    if transaction.one(sql, &[], |row| Ok(row.get(0)?))? {
        return Ok(());
    }
    Err(StoreError::NotEmpty)
}

fn copy(source: &Transaction<'_>, target: &Transaction<'_>) -> Result<(), StoreError> {
    // Tokens refer to tokens that come later.
    target.defer_references()?;
    for (table, order) in TABLES {
        let columns = source.columns(table)?;
        let names = columns.join(", ");
        let mut rows = Rows {
            table,
            names: &names,
            waiting: Vec::with_capacity(ROWS),
        };
        let sql = format!("SELECT {names} FROM {table} ORDER BY {order}");
        source.each(&sql, &[], |row| {
            rows.waiting.push(row.values().to_vec());
            if rows.waiting.len() == ROWS {
                rows.write(target)?;
            }
            Ok::<_, StoreError>(())
        })?;
        rows.write(target)?;
    }
    Ok(target.continue_numbers("releases", "id")?)
}

/// Rows on their way.
struct Rows<'a> {
    table: &'a str,
    names: &'a str,
    waiting: Vec<Vec<Value>>,
}

impl Rows<'_> {
    fn write(&mut self, target: &Transaction<'_>) -> Result<(), StoreError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let mut parameters = Vec::new();
        let mut rows = Vec::new();
        for row in self.waiting.drain(..) {
            let mut places = Vec::new();
            for value in row {
                // Where there is nothing, it does not matter of which kind it is.
                if let Value::Null(_) = value {
                    places.push("NULL".to_owned());
                    continue;
                }
                parameters.push(value);
                places.push(format!("?{}", parameters.len()));
            }
            rows.push(format!("({})", places.join(", ")));
        }
        let Self { table, names, .. } = self;
        let sql = format!("INSERT INTO {table} ({names}) VALUES {}", rows.join(", "));
        target.execute(&sql, &parameters)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures;
    use super::*;

    async fn schema(store: &Store) -> Vec<(&'static str, Vec<String>)> {
        let read = |transaction: &Transaction<'_>| {
            let tables = TABLES.into_iter().map(|(table, _)| {
                let mut columns = transaction.columns(table)?;
                columns.sort();
                Ok((table, columns))
            });
            tables.collect()
        };
        store.read(read).await.unwrap()
    }

    #[tokio::test]
    async fn every_table_is_copied() {
        let (store, _folder) = fixtures::store();
        let sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'
             ORDER BY name";
        let there =
            store.read(|transaction| transaction.all(sql, &[], |row| Ok(row.get::<String>(0)?)));
        let mut listed = TABLES.map(|(table, _)| table);
        listed.sort_unstable();
        assert_eq!(there.await.unwrap(), listed);
    }

    #[tokio::test]
    async fn real_postgres_has_the_same_tables_with_the_same_columns() {
        let (embedded, _folder) = fixtures::store();
        let postgres = fixtures::postgres().await;
        assert_eq!(schema(&embedded).await, schema(&postgres).await);
    }
}

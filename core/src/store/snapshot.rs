//! The database as commands read it: beside a running server, or a copy of it. Nothing is written.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::audit::{self, Broken, Head};
use super::releases::{self, ReleaseUse};
use super::secrets::{self, SealedSecret};
use super::{BUSY_TIMEOUT, DeploymentRow, StoreError, deployments, migrations};

/// A database that is only read.
pub(crate) struct Snapshot {
    connection: Connection,
}

impl Snapshot {
    /// Opens the database of a server of this very version.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        migrations::check_is_current(&connection)?;
        Ok(Self { connection })
    }

    /// Looks at every row of the audit log; see [`audit::check`].
    pub(crate) fn check_chain(&self, expected: Option<Head>) -> Result<Head, Broken> {
        audit::check(&self.connection, expected)
    }

    /// The deployments that serve, by tenant.
    pub(crate) fn live(&self) -> Result<Vec<DeploymentRow>, StoreError> {
        let transaction = self.connection.unchecked_transaction()?;
        deployments::live(&transaction)
    }

    /// What the audit log says that a deployment deploys: the fingerprint of its release. Deployments from before there
    /// was a log have none.
    pub(crate) fn audited_release(
        &self,
        row: &DeploymentRow,
    ) -> Result<Option<String>, StoreError> {
        let transaction = self.connection.unchecked_transaction()?;
        audit::release_of(&transaction, &row.tenant, row.number)
    }

    /// Every release of a tenant that was not deleted, and who uses it.
    pub(crate) fn releases(&self) -> Result<Vec<ReleaseUse>, StoreError> {
        let transaction = self.connection.unchecked_transaction()?;
        releases::in_use(&transaction)
    }

    /// Some version of some secret, to try a key with.
    pub(crate) fn any_secret(&self) -> Result<Option<SealedSecret>, StoreError> {
        let transaction = self.connection.unchecked_transaction()?;
        secrets::any(&transaction)
    }

    /// What is wrong with the pages of a database, as SQLite's own check says; nothing where it is sound.
    pub(crate) fn damage(path: &Path) -> Result<Option<String>, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        let told: String =
            connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        Ok((told != "ok").then_some(told))
    }

    /// Writes the database, as it is at this moment, into a file that is empty or not there. A server may write meanwhile.
    pub(crate) fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        let path = path.to_string_lossy();
        self.connection.execute("VACUUM INTO ?1", [path])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt as _;

    use super::super::fixtures::store;
    use super::*;

    #[test]
    fn damage_to_a_page_is_found() {
        let (store, folder) = store();
        drop(store);
        let copy = folder.path().join("copy");
        let mut names = std::fs::read_dir(folder.path()).unwrap();
        let database = names.find_map(|entry| {
            let path = entry.unwrap().path();
            path.extension().is_some_and(|e| e == "db").then_some(path)
        });
        let snapshot = Snapshot::open(&database.unwrap()).unwrap();
        snapshot.copy_to(&copy).unwrap();
        assert_eq!(Snapshot::damage(&copy).unwrap(), None);
        let file = File::options().write(true).open(&copy).unwrap();
        let length = file.metadata().unwrap().len();
        // The type of a page is its first byte; none of them has this one.
        file.write_all_at(&[0xff; 64], length / 2 / 4096 * 4096)
            .unwrap();
        assert!(!matches!(Snapshot::damage(&copy), Ok(None)));
    }
}

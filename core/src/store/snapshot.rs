//! The database as commands read it: beside a running server, or a copy of it. Nothing is written.

use std::cell::RefCell;
use std::path::Path;

use super::audit::{self, Broken, Head};
use super::releases::{self, ReleaseUse};
use super::secrets::{self, SealedSecret};
use super::sql::{Connection, Mode, Transaction};
use super::{DatabaseServer, DeploymentRow, StoreError, deployments, migrations, transfer};

/// A database that is only read.
pub(crate) struct Snapshot {
    /// Each question is a transaction, and asks one at a time.
    connection: RefCell<Connection>,
}

impl Snapshot {
    /// Opens the database of a server of this very version.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        Self::of(Connection::open_read_only(path)?)
    }

    /// Connects to the database of servers of this very version.
    pub(crate) fn connect(server: &DatabaseServer) -> Result<Self, StoreError> {
        Self::of(Connection::connect(server)?)
    }

    fn of(connection: Connection) -> Result<Self, StoreError> {
        let connection = RefCell::new(connection);
        let snapshot = Self { connection };
        snapshot.read(migrations::check_is_current)?;
        Ok(snapshot)
    }

    fn read<T, E: From<StoreError>>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut connection = self.connection.borrow_mut();
        let transaction = connection.begin(Mode::Read);
        work(&transaction.map_err(StoreError::from)?)
    }

    /// Looks at every row of the audit log; see [`audit::check`].
    pub(crate) fn check_chain(&self, expected: Option<Head>) -> Result<Head, Broken> {
        self.read(|transaction| audit::check(transaction, expected))
    }

    /// The deployments that serve, by tenant.
    pub(crate) fn live(&self) -> Result<Vec<DeploymentRow>, StoreError> {
        self.read(deployments::live)
    }

    /// What the audit log says that a deployment deploys: the fingerprint of its release. Deployments from before there
    /// was a log have none.
    pub(crate) fn audited_release(
        &self,
        row: &DeploymentRow,
    ) -> Result<Option<String>, StoreError> {
        self.read(|transaction| audit::release_of(transaction, &row.tenant, row.number))
    }

    /// Every release of a tenant that was not deleted, and who uses it.
    pub(crate) fn releases(&self) -> Result<Vec<ReleaseUse>, StoreError> {
        self.read(releases::in_use)
    }

    /// Some version of some secret, to try a key with.
    pub(crate) fn any_secret(&self) -> Result<Option<SealedSecret>, StoreError> {
        self.read(secrets::any)
    }

    /// What is wrong with the pages of a database, as SQLite's own check says; nothing where it is sound.
    pub(crate) fn damage(path: &Path) -> Result<Option<String>, StoreError> {
        let mut connection = Connection::open_read_only(path)?;
        let transaction = connection.begin(Mode::Read)?;
        let check = "PRAGMA integrity_check(1)";
        let told: String = transaction.one(check, &[], |row| Ok(row.get(0)?))?;
        Ok((told != "ok").then_some(told))
    }

    /// Writes the database, as it is at this moment, into a file of SQLite that is empty or not there. A server may write meanwhile.
    pub(crate) fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        let mut connection = self.connection.borrow_mut();
        if connection.copy_file(path)? {
            return Ok(());
        }
        transfer::copy_to_file(&connection.begin(Mode::Read)?, path)
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

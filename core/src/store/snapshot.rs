//! The database as commands read it: beside a running server, or a copy of it. Nothing is written.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::audit::{self, Broken, Head};
use super::releases::{self, ReleaseUse};
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

    /// Writes the database, as it is at this moment, into a file that is empty or not there. A server may write meanwhile.
    pub(crate) fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        let path = path.to_string_lossy();
        self.connection.execute("VACUUM INTO ?1", [path])?;
        Ok(())
    }
}

//! What can go wrong in the database.

use super::sql::SqlError;

/// Errors of every operation of the store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The database refused or failed.
    #[error("the state database failed")]
    Database(#[from] SqlError),
    /// A record in a JSON column cannot be read or written.
    #[error("a record in the state database cannot be read")]
    Record(#[from] serde_json::Error),
    /// A newer server has written the file; an older one must not guess what it means.
    #[error("the state database has schema {found}, this server knows {known}: run a newer server")]
    TooNew {
        /// Version in the file.
        found: i64,
        /// Latest version this server knows.
        known: i64,
    },
    /// An older server has written the file, and what only reads must not change it.
    #[error(
        "the state database has schema {found}, this program knows {known}: start this server on it once"
    )]
    TooOld {
        /// Version in the file.
        found: i64,
        /// Latest version this server knows.
        known: i64,
    },
    /// A column holds a word this server does not know.
    #[error("the state database holds an unknown {what} {value:?}")]
    UnknownWord {
        /// Which vocabulary.
        what: &'static str,
        /// The word.
        value: String,
    },
    /// The tenant's id or port is taken.
    #[error("a tenant {id:?} exists or has existed")]
    TenantTaken {
        /// The id.
        id: String,
    },
    /// No such tenant, or it was deleted.
    #[error("there is no tenant {id:?}")]
    NoTenant {
        /// The id.
        id: String,
    },
    /// Another deployment of the tenant has not come to its end.
    #[error("deployment {number} is in progress")]
    InProgress {
        /// Its number.
        number: u64,
    },
    /// The deployment is no longer in the state that the caller acted on.
    #[error("deployment {number} is in state {found}, not {expected}")]
    Stale {
        /// Its number.
        number: u64,
        /// What the caller believed.
        expected: String,
        /// What is true.
        found: String,
    },
    /// A release names a version of a secret that is not there.
    #[error("version {version} of the secret {name} is not there any more")]
    NoSecret {
        /// Its name.
        name: String,
        /// The version.
        version: u64,
    },
    /// The system gave no random bytes.
    #[error("the secret {name} cannot be sealed")]
    Unsealed {
        /// Its name.
        name: String,
    },
    /// No port is free for another tenant's URL.
    #[error("no port is free for another tenant")]
    NoPort,
    /// There is a state already, which nothing is mixed with.
    #[error("the database holds the state of a server already: name one that is empty")]
    NotEmpty,
    /// Another server leads, or none does: this one writes nothing.
    #[error("this server does not lead: another one has taken over, or its lease was given back")]
    NotLeading,
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopped,
}

impl StoreError {
    /// Whether it may be otherwise in a moment, without anybody's help.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Database(SqlError::Lost { .. }))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use management_api::error::code;

    use super::super::{Actor, TenantRow, fixtures};
    use crate::http::ApiError;

    #[tokio::test]
    async fn a_full_disk_is_told_as_what_it_is_and_passes() {
        let (store, _folder) = fixtures::store();
        let pages = async |most: &'static str| {
            let limit = format!("PRAGMA max_page_count = {most}");
            let set = store.write(move |transaction| Ok(transaction.batch(&limit)?));
            set.await.unwrap();
        };
        let big = || TenantRow {
            id: "shop".to_owned(),
            name: "x".repeat(100_000),
            port: 20_000,
            live: None,
            stand_in: None,
        };
        // No more than there are.
        pages("1").await;
        let full = store.create_tenant(big(), &Actor::server()).await;
        let refused = ApiError::from(full.unwrap_err());
        assert_eq!(
            (refused.status, refused.code),
            (StatusCode::INSUFFICIENT_STORAGE, code::DISK_FULL)
        );
        pages("1000000").await;
        let again = store.create_tenant(big(), &Actor::server()).await;
        again.unwrap();
    }
}

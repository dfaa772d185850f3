//! The chain of the audit log: what a row's hash is over, and where a chain is broken.

use sha2::{Digest as _, Sha256};

use super::super::sql::{Row, SqlError, Transaction, params};
use super::super::{StoreError, signed, unsigned};
use crate::hex;

/// A SHA-256.
pub(crate) type Hash = [u8; 32];

/// What the first row follows.
pub(super) const GENESIS: Hash = [0; 32];

/// In the order that [`read`] reads.
pub(super) const COLUMNS: &str =
    "seq, at, action, tenant, deployment, actor, token, role, address, details, previous, hash";

/// Tells this encoding from every other use of the same hash, and from a later one.
const ENCODING: &[u8] = b"systemprompt audit 1";

/// One row as it stands in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) seq: u64,
    pub(crate) at: i64,
    pub(crate) action: String,
    pub(crate) tenant: Option<String>,
    pub(crate) deployment: Option<u64>,
    pub(crate) actor: String,
    pub(crate) token: Option<String>,
    pub(crate) role: Option<String>,
    pub(crate) address: Option<String>,
    pub(crate) details: String,
    pub(crate) previous: Hash,
    pub(crate) hash: Hash,
}

impl Sealed {
    /// The hash that a row with this content has. Each field is its length and its bytes, one that is absent is told
    /// from an empty one: no two rows have the same encoding.
    pub(super) fn due(&self) -> Hash {
        let mut hash = Sha256::new();
        field(&mut hash, Some(ENCODING));
        field(&mut hash, Some(&self.previous));
        field(&mut hash, Some(&self.seq.to_le_bytes()));
        field(&mut hash, Some(&self.at.to_le_bytes()));
        field(&mut hash, Some(self.action.as_bytes()));
        field(&mut hash, self.tenant.as_ref().map(String::as_bytes));
        let deployment = self.deployment.map(u64::to_le_bytes);
        field(&mut hash, deployment.as_ref().map(<[u8; 8]>::as_slice));
        field(&mut hash, Some(self.actor.as_bytes()));
        for text in [&self.token, &self.role, &self.address] {
            field(&mut hash, text.as_ref().map(String::as_bytes));
        }
        field(&mut hash, Some(self.details.as_bytes()));
        hash.finalize().into()
    }
}

/// Where a chain ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// How many rows there are.
    pub(crate) count: u64,
    /// The hash of the last one.
    pub(crate) hash: Hash,
}

impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.count, hex::encode(&self.hash))
    }
}

impl std::str::FromStr for Head {
    type Err = NoHead;

    fn from_str(text: &str) -> Result<Self, NoHead> {
        let (count, hash) = text.split_once(':').ok_or(NoHead)?;
        let hash = hex::decode(hash).ok_or(NoHead)?;
        Ok(Self {
            count: count.parse().map_err(|_| NoHead)?,
            hash: hash.try_into().map_err(|_| NoHead)?,
        })
    }
}

/// Text that names no end of a chain.
#[derive(Debug, thiserror::Error)]
#[error("it is COUNT:HASH, as `systemprompt verify` prints it")]
pub(crate) struct NoHead;

impl From<SqlError> for Broken {
    fn from(error: SqlError) -> Self {
        Self::Store(error.into())
    }
}

/// The first row that is not as it was written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A row, or several, are not there any more.
    #[error("row {seq} of the audit log was removed")]
    Removed { seq: u64 },
    /// Its content has another hash.
    #[error("row {seq} of the audit log was changed")]
    Changed { seq: u64 },
    /// It names another row before it than the one that is there.
    #[error("row {seq} of the audit log does not follow the one before it: it was put in or moved")]
    Moved { seq: u64 },
    /// Not as long as somebody knows it to have been.
    #[error("the audit log was cut: it had {expected} rows, now it has {found}")]
    Cut { expected: u64, found: u64 },
    /// Whole in itself, and yet not what it was.
    #[error("the audit log was written anew: row {seq} had another hash")]
    Rewritten { seq: u64 },
}

/// Looks at every row; says where the chain ends, or the first that is not as it was written. What was cut off at the
/// end, or written anew with all that follows, can be told by an end of before only.
pub(crate) fn check(transaction: &Transaction<'_>, expected: Option<Head>) -> Result<Head, Broken> {
    let mut head = Head {
        count: 0,
        hash: GENESIS,
    };
    if let Some(Head { count: 0, hash }) = expected
        && hash != GENESIS
    {
        return Err(Broken::Rewritten { seq: 0 });
    }
    let sql = format!("SELECT {COLUMNS} FROM audit ORDER BY seq");
    transaction.each(&sql, &[], |row| {
        let seq = unsigned(row.get(0)?);
        // Of a hash of another length, or text that is none, the content was changed too.
        let row = read(row).map_err(|_| Broken::Changed { seq })?;
        let next = head.count + 1;
        if row.seq != next {
            return Err(Broken::Removed { seq: next });
        }
        if row.due() != row.hash {
            return Err(Broken::Changed { seq });
        }
        if row.previous != head.hash {
            return Err(Broken::Moved { seq });
        }
        head = Head {
            count: seq,
            hash: row.hash,
        };
        if let Some(known) = expected
            && known.count == seq
            && known.hash != row.hash
        {
            return Err(Broken::Rewritten { seq });
        }
        Ok(())
    })?;
    match expected {
        Some(known) if known.count > head.count => Err(Broken::Cut {
            expected: known.count,
            found: head.count,
        }),
        _ => Ok(head),
    }
}

pub(super) fn insert(transaction: &Transaction<'_>, row: &Sealed) -> Result<(), StoreError> {
    let sql =
        format!("INSERT INTO audit ({COLUMNS}) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12)");
    let parameters = params![
        signed(row.seq),
        row.at,
        row.action,
        row.tenant,
        row.deployment.map(signed),
        row.actor,
        row.token,
        row.role,
        row.address,
        row.details,
        row.previous,
        row.hash,
    ];
    transaction.execute(&sql, parameters)?;
    Ok(())
}

pub(super) fn read(row: &Row) -> Result<Sealed, SqlError> {
    Ok(Sealed {
        seq: unsigned(row.get(0)?),
        at: row.get(1)?,
        action: row.get(2)?,
        tenant: row.get(3)?,
        deployment: row.get::<Option<i64>>(4)?.map(unsigned),
        actor: row.get(5)?,
        token: row.get(6)?,
        role: row.get(7)?,
        address: row.get(8)?,
        details: row.get(9)?,
        previous: row.get(10)?,
        hash: row.get(11)?,
    })
}

fn field(hash: &mut Sha256, bytes: Option<&[u8]>) {
    match bytes {
        None => hash.update([0]),
        Some(bytes) => {
            hash.update([1]);
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::store::audit::{Action, Actor, Entry, append};
    use crate::store::fixtures::{postgres, store, with_each_database};

    with_each_database!(
        a_row_that_is_whole_in_itself_but_follows_another_is_named,
        the_database_refuses_what_is_no_continuation,
    );

    /// Five rows, then `sql` with the triggers off, as whoever holds the file can have it.
    async fn after(sql: &'static str) -> Result<Head, Broken> {
        after_expecting(sql, |_| None).await
    }

    async fn after_expecting(
        sql: &'static str,
        expected: impl Fn(Head) -> Option<Head> + Send + 'static,
    ) -> Result<Head, Broken> {
        let (store, _folder) = store();
        let outcome = store.write(move |transaction| {
            for name in ["a", "b", "c", "d", "e"] {
                let details = serde_json::json!({ "name": name });
                let entry = Entry::of(Action::TenantCreate, Some(name), details);
                append(transaction, &Actor::named("ci"), &entry)?;
            }
            let before = check(transaction, None).map_err(|_| StoreError::Stopped)?;
            for trigger in [
                "continues",
                "is_append_only_update",
                "is_append_only_delete",
            ] {
                transaction.batch(&format!("DROP TRIGGER audit_{trigger}"))?;
            }
            transaction.batch(sql)?;
            Ok(check(transaction, expected(before)))
        });
        outcome.await.unwrap()
    }

    #[tokio::test]
    async fn a_chain_that_nobody_touched_is_whole() {
        let head = after("").await.unwrap();
        assert_eq!(head.count, 5);
        assert_eq!(head.to_string().parse::<Head>().unwrap(), head);
        assert!(after_expecting("", Some).await.is_ok());
    }

    #[tokio::test]
    async fn the_first_row_that_is_not_as_it_was_written_is_named() {
        const PUT_IN: &str = "
            UPDATE audit SET seq = -seq WHERE seq > 2;
            UPDATE audit SET seq = 1 - seq WHERE seq < 0;
            INSERT INTO audit SELECT 3, at, action, tenant, deployment, actor, token, role,
              address, details, previous, hash FROM audit WHERE seq = 2;";
        const EXCHANGED: &str = "
            UPDATE audit SET seq = 99 WHERE seq = 2; UPDATE audit SET seq = 2 WHERE seq = 3;
            UPDATE audit SET seq = 3 WHERE seq = 99;";
        for (sql, told) in [
            (
                "UPDATE audit SET actor = 'x' WHERE seq = 3",
                "row 3 of the audit log was changed",
            ),
            (
                "UPDATE audit SET tenant = NULL WHERE seq = 1",
                "row 1 of the audit log was changed",
            ),
            (
                "UPDATE audit SET token = '' WHERE seq = 4",
                "row 4 of the audit log was changed",
            ),
            (
                "UPDATE audit SET hash = x'00' WHERE seq = 5",
                "row 5 of the audit log was changed",
            ),
            (
                "DELETE FROM audit WHERE seq = 2",
                "row 2 of the audit log was removed",
            ),
            (
                "DELETE FROM audit WHERE seq = 1",
                "row 1 of the audit log was removed",
            ),
            (PUT_IN, "row 3 of the audit log was changed"),
            (EXCHANGED, "row 2 of the audit log was changed"),
        ] {
            let broken = after(sql).await.unwrap_err().to_string();
            assert!(broken.starts_with(told), "{sql}: {broken}");
        }
    }

    async fn a_row_that_is_whole_in_itself_but_follows_another_is_named(store: &Store) {
        let forge = |transaction: &Transaction<'_>| {
            for name in ["a", "b"] {
                let entry = Entry::of(Action::TenantCreate, None, serde_json::json!({ "n": name }));
                append(transaction, &Actor::server(), &entry)?;
            }
            transaction.batch(if transaction.is_postgres() {
                "DROP TRIGGER audit_continues ON audit"
            } else {
                "DROP TRIGGER audit_continues"
            })?;
            let sql = format!("SELECT {COLUMNS} FROM audit WHERE seq = 2");
            let mut forged = transaction.one(&sql, &[], |row| Ok(read(row)?))?;
            forged.seq = 3;
            forged.hash = forged.due();
            insert(transaction, &forged)?;
            Ok(check(transaction, None).unwrap_err().to_string())
        };
        let broken = store.write(forge).await.unwrap();
        assert!(
            broken.starts_with("row 3 of the audit log does not follow"),
            "{broken}"
        );
    }

    #[tokio::test]
    async fn what_the_chain_itself_cannot_tell_a_known_end_tells() {
        const CUT: &str = "DELETE FROM audit WHERE seq > 3";
        assert_eq!(after(CUT).await.unwrap().count, 3);
        let cut = after_expecting(CUT, Some).await;
        assert!(matches!(
            cut,
            Err(Broken::Cut {
                expected: 5,
                found: 3
            })
        ));
        let other = |head| Some(Head { count: 2, ..head });
        let rewritten = after_expecting("", other).await;
        assert!(matches!(rewritten, Err(Broken::Rewritten { seq: 2 })));
    }

    async fn the_database_refuses_what_is_no_continuation(store: &Store) {
        let entry = || Entry::of(Action::TenantCreate, None, serde_json::json!({}));
        store.audit(&Actor::server(), entry()).await.unwrap();
        store.audit(&Actor::server(), entry()).await.unwrap();
        for sql in [
            "UPDATE audit SET actor = 'x'",
            "DELETE FROM audit WHERE seq = 2",
            "INSERT OR REPLACE INTO audit SELECT 2, at, 'x', tenant, deployment, actor, token,
               role, address, details, previous, hash FROM audit WHERE seq = 2",
            "INSERT INTO audit SELECT 3, at, action, tenant, deployment, actor, token, role,
               address, details, previous, hash FROM audit WHERE seq = 2",
        ] {
            let refused = store.write(move |transaction| Ok(transaction.execute(sql, &[])?));
            assert!(refused.await.is_err(), "{sql}");
        }
    }

    #[tokio::test]
    async fn writers_side_by_side_make_one_chain() {
        let (store, folder) = store();
        let other = Store::open(&folder.path().join("state.db")).unwrap();
        side_by_side(store, other).await;
    }

    #[tokio::test]
    async fn real_postgres_writers_side_by_side_make_one_chain() {
        let postgres = postgres().await;
        let other = postgres.beside().await;
        side_by_side(postgres.store.clone(), other).await;
    }

    async fn side_by_side(store: Store, other: Store) {
        let writers = (0..8).map(|number| {
            let store = if number % 2 == 0 {
                store.clone()
            } else {
                other.clone()
            };
            tokio::spawn(async move {
                for _ in 0..5 {
                    let entry = Entry::of(Action::TenantCreate, None, serde_json::json!({}));
                    store
                        .audit(&Actor::named(&number.to_string()), entry)
                        .await
                        .unwrap();
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
        let head = store
            .read(|transaction| Ok(check(transaction, None).unwrap()))
            .await;
        assert_eq!(head.unwrap().count, 40);
    }
}

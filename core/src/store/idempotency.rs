//! Idempotency keys: what was answered to a request that may come again.

use super::deployments::StoredAnswer;
use super::sql::{Transaction, params};
use super::{Store, StoreError, now};

/// How long an answer can be asked for again.
const KEPT_MILLIS: i64 = 24 * 60 * 60 * 1000;

/// A key within the scope that it is unique in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdempotencyKey {
    /// Tenant, operation and caller: the same key of another one is another key.
    pub(crate) scope: String,
    /// As the client sent it.
    pub(crate) key: String,
    /// SHA-256 of the request's body.
    pub(crate) body_hash: Vec<u8>,
}

/// What is known about a key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    /// It is new, and now in flight.
    New,
    /// The first request has not been answered.
    InFlight,
    /// It was used with another body.
    Mismatch,
    /// It was answered with this.
    Replay(StoredAnswer),
}

impl Store {
    /// Claims a key, or says what became of it.
    pub(crate) async fn claim_key(&self, key: IdempotencyKey) -> Result<Begun, StoreError> {
        self.write(move |transaction| {
            let at = now().timestamp_millis();
            transaction.execute(
                "DELETE FROM idempotency WHERE created_at < ?1",
                params![at - KEPT_MILLIS],
            )?;
            if let Some(begun) = lookup(transaction, &key)? {
                return Ok(begun);
            }
            transaction.execute(
                "INSERT INTO idempotency (scope, key, body_hash, created_at)
                 VALUES (?1, ?2, ?3, ?4)",
                params![key.scope, key.key, key.body_hash, at],
            )?;
            Ok(Begun::New)
        })
        .await
    }

    /// Records the answer to a key that was claimed.
    pub(crate) async fn finish_key(
        &self,
        key: IdempotencyKey,
        answer: StoredAnswer,
    ) -> Result<(), StoreError> {
        self.write(move |transaction| finish(transaction, &key, &answer))
            .await
    }

    /// Forgets a key whose request was refused: nothing was done, so it may be sent again.
    pub(crate) async fn release_key(&self, key: IdempotencyKey) -> Result<(), StoreError> {
        self.write(move |transaction| {
            transaction.execute(
                "DELETE FROM idempotency WHERE scope = ?1 AND key = ?2 AND status IS NULL",
                params![key.scope, key.key],
            )?;
            Ok(())
        })
        .await
    }

    /// Forgets the keys that were in flight when the last server died. A deployment and its answer
    /// are written together, so an unanswered key means that nothing was begun.
    pub(crate) async fn release_keys_in_flight(&self) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.execute("DELETE FROM idempotency WHERE status IS NULL", &[])?;
            Ok(())
        })
        .await
    }
}

/// Records an answer within the transaction of what it tells about, also when the key was given
/// back meanwhile because its client hung up.
pub(super) fn finish(
    transaction: &Transaction<'_>,
    key: &IdempotencyKey,
    answer: &StoredAnswer,
) -> Result<(), StoreError> {
    transaction.execute(
        "INSERT INTO idempotency (scope, key, body_hash, status, location, answer, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (scope, key) DO UPDATE
         SET status = excluded.status, location = excluded.location, answer = excluded.answer",
        params![
            key.scope,
            key.key,
            key.body_hash,
            answer.status,
            answer.location,
            answer.body,
            now().timestamp_millis(),
        ],
    )?;
    Ok(())
}

fn lookup(
    transaction: &Transaction<'_>,
    key: &IdempotencyKey,
) -> Result<Option<Begun>, StoreError> {
    type Found = (Vec<u8>, Option<u16>, Option<String>, Option<String>);
    let sql = "SELECT body_hash, status, location, answer FROM idempotency
         WHERE scope = ?1 AND key = ?2";
    let found: Option<Found> = transaction.optional(sql, params![key.scope, key.key], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
    })?;
    Ok(found.map(|(body_hash, status, location, answer)| {
        match (body_hash == key.body_hash, status, answer) {
            (false, ..) => Begun::Mismatch,
            (true, Some(status), Some(body)) => Begun::Replay(StoredAnswer {
                status,
                location,
                body,
            }),
            (true, ..) => Begun::InFlight,
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::with_each_database;
    use super::*;

    with_each_database!(
        a_key_is_new_then_in_flight_then_replayed,
        a_refused_request_gives_its_key_back,
    );

    fn key(body: u8) -> IdempotencyKey {
        IdempotencyKey {
            scope: "a deploy".into(),
            key: "k".into(),
            body_hash: vec![body; 32],
        }
    }

    fn answer() -> StoredAnswer {
        StoredAnswer {
            status: 202,
            location: Some("/there".into()),
            body: "{}".into(),
        }
    }

    async fn a_key_is_new_then_in_flight_then_replayed(store: &Store) {
        assert_eq!(store.claim_key(key(1)).await.unwrap(), Begun::New);
        assert_eq!(store.claim_key(key(1)).await.unwrap(), Begun::InFlight);
        store.finish_key(key(1), answer()).await.unwrap();
        assert_eq!(
            store.claim_key(key(1)).await.unwrap(),
            Begun::Replay(answer())
        );
        assert_eq!(store.claim_key(key(2)).await.unwrap(), Begun::Mismatch);
    }

    async fn a_refused_request_gives_its_key_back(store: &Store) {
        store.claim_key(key(1)).await.unwrap();
        store.release_key(key(1)).await.unwrap();
        assert_eq!(store.claim_key(key(2)).await.unwrap(), Begun::New);
        store.release_keys_in_flight().await.unwrap();
        assert_eq!(store.claim_key(key(1)).await.unwrap(), Begun::New);
    }
}

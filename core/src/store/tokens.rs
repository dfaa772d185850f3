//! Tokens: hashes only.

use chrono::{DateTime, Utc};
use management_api::types::Role;
use serde_json::json;

use super::audit::{self, Action, Actor, Entry};
use super::sql::{Row, Transaction, params};
use super::{Store, StoreError, from_millis, now, tenants};

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// Made at first start and kept in the data folder.
    Bootstrap,
    /// Made through the API.
    Api,
    /// Made by the token exchange, short-lived.
    Session,
}

impl TokenKind {
    /// The word in the database.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Bootstrap => "bootstrap",
            Self::Api => "api",
            Self::Session => "session",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Bootstrap, Self::Api, Self::Session]
            .into_iter()
            .find(|kind| kind.as_str() == word)
    }
}

/// One token, its secret part as a hash.
#[derive(Debug, Clone)]
pub(crate) struct TokenRow {
    /// Public part of the token.
    pub(crate) id: String,
    /// SHA-256 of the secret part.
    pub(crate) hash: Vec<u8>,
    /// What it is for.
    pub(crate) kind: TokenKind,
    /// Shown in the history as the actor.
    pub(crate) name: String,
    /// What it may do.
    pub(crate) role: Role,
    /// The one tenant it is for.
    pub(crate) tenant: Option<String>,
    /// The token it was derived from.
    pub(crate) parent: Option<String>,
    /// When it was made.
    pub(crate) created_at: DateTime<Utc>,
    /// When it ends.
    pub(crate) expires_at: Option<DateTime<Utc>>,
}

/// A token in the place of another.
#[derive(Debug)]
pub(crate) struct Replaced<T> {
    /// Id of the old one.
    pub(crate) old: String,
    /// The new one.
    pub(crate) token: TokenRow,
    /// What came with it.
    pub(crate) extra: T,
}

const COLUMNS: &str = "id, hash, kind, name, role, tenant, parent, created_at, expires_at";

impl Store {
    /// Adds a token, and removes the derived ones that have ended: nothing refers to them. A derived one can do nothing
    /// that its parent cannot, and what it does is put down to that: only those that people have are in the audit log.
    pub(crate) async fn add_token(&self, token: TokenRow, by: &Actor) -> Result<(), StoreError> {
        let by = by.clone();
        self.write(move |transaction| {
            if matches!(token.kind, TokenKind::Bootstrap | TokenKind::Api) {
                audit::append(transaction, &by, &Entry::token(&token))?;
            }
            transaction.execute(
                "DELETE FROM tokens WHERE expires_at < ?1 AND kind = 'session'",
                params![now().timestamp_millis()],
            )?;
            insert(transaction, &token)
        })
        .await
    }

    /// A token that is neither revoked nor over, and whose parent is neither.
    pub(crate) async fn valid_token(&self, id: &str) -> Result<Option<TokenRow>, StoreError> {
        let id = id.to_owned();
        self.read(move |transaction| valid(transaction, &id)).await
    }

    /// [`valid_token`](Self::valid_token) on a thread that may block.
    pub(crate) fn valid_token_blocking(&self, id: &str) -> Result<Option<TokenRow>, StoreError> {
        self.read_blocking(|transaction| valid(transaction, id))
    }

    /// The tokens that people made and that have not ended, oldest first.
    pub(crate) async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError> {
        self.read(|transaction| {
            let sql = format!(
                "SELECT {COLUMNS} FROM tokens
                 WHERE kind IN ('bootstrap', 'api') AND revoked_at IS NULL
                   AND (expires_at IS NULL OR expires_at > ?1)
                 ORDER BY created_at, id",
            );
            transaction.all(&sql, params![now().timestamp_millis()], read)
        })
        .await
    }

    /// Makes the tokens of a tenant that people made anew, each with what `renew` makes of it; the old ones end at `end`.
    /// Those that were replaced before are left as they are.
    pub(crate) async fn replace_tokens<T: Send + 'static>(
        &self,
        tenant: &str,
        end: DateTime<Utc>,
        by: &Actor,
        renew: impl Fn(&TokenRow) -> (TokenRow, T) + Send + 'static,
    ) -> Result<Vec<Replaced<T>>, StoreError> {
        let (tenant, by) = (tenant.to_owned(), by.clone());
        self.write(move |transaction| {
            if tenants::find(transaction, &tenant)?.is_none() {
                return Err(StoreError::NoTenant { id: tenant });
            }
            let mut replaced = Vec::new();
            for old in replaceable(transaction, &tenant)? {
                let (token, extra) = renew(&old);
                insert(transaction, &token)?;
                transaction.execute(
                    "UPDATE tokens SET replaced_by = ?2,
                       expires_at = CASE WHEN expires_at < ?3 THEN expires_at ELSE ?3 END
                     WHERE id = ?1",
                    params![old.id, token.id, end.timestamp_millis()],
                )?;
                audit::append(
                    transaction,
                    &by,
                    &Entry::token(&token).replacing(&old.id, end),
                )?;
                replaced.push(Replaced {
                    old: old.id,
                    token,
                    extra,
                });
            }
            Ok(replaced)
        })
        .await
    }

    /// Ends a token; those derived from it end with it. False when there is none.
    pub(crate) async fn revoke_token(&self, id: &str, by: &Actor) -> Result<bool, StoreError> {
        let (id, by) = (id.to_owned(), by.clone());
        self.write(move |transaction| {
            let revoked = revoke(transaction, "id = ?2", &id, &by)?;
            Ok(revoked > 0)
        })
        .await
    }

    /// Ends every token that was made at an earlier first start.
    pub(crate) async fn revoke_bootstrap_tokens(&self) -> Result<(), StoreError> {
        self.write(|transaction| {
            let bootstrap = TokenKind::Bootstrap.as_str();
            revoke(transaction, "kind = ?2", bootstrap, &Actor::server()).map(drop)
        })
        .await
    }
}

/// Ends the tokens that meet a condition on `value`; says how many.
pub(super) fn revoke(
    transaction: &Transaction<'_>,
    condition: &str,
    value: &str,
    by: &Actor,
) -> Result<usize, StoreError> {
    type Revoked = (String, String, String, Option<String>);
    let sql = format!(
        "UPDATE tokens SET revoked_at = ?1 WHERE {condition} AND revoked_at IS NULL
         RETURNING id, kind, name, tenant",
    );
    let parameters = params![now().timestamp_millis(), value];
    let revoked: Vec<Revoked> = transaction.all(&sql, parameters, |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
    })?;
    for (id, kind, name, tenant) in &revoked {
        let kind = TokenKind::parse(kind);
        if matches!(kind, Some(TokenKind::Bootstrap | TokenKind::Api)) {
            let details = json!({ "id": id, "name": name });
            let entry = Entry::of(Action::TokenRevoke, tenant.as_deref(), details);
            audit::append(transaction, by, &entry)?;
        }
    }
    Ok(revoked.len())
}

fn insert(transaction: &Transaction<'_>, token: &TokenRow) -> Result<(), StoreError> {
    transaction.execute(
        &format!("INSERT INTO tokens ({COLUMNS}) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9)"),
        params![
            token.id,
            token.hash,
            token.kind.as_str(),
            token.name,
            role_word(token.role),
            token.tenant,
            token.parent,
            token.created_at.timestamp_millis(),
            token.expires_at.map(|at| at.timestamp_millis()),
        ],
    )?;
    Ok(())
}

fn replaceable(transaction: &Transaction<'_>, tenant: &str) -> Result<Vec<TokenRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM tokens
         WHERE kind = 'api' AND tenant = ?1 AND revoked_at IS NULL AND replaced_by IS NULL
           AND (expires_at IS NULL OR expires_at > ?2)
         ORDER BY created_at, id",
    );
    transaction.all(&sql, params![tenant, now().timestamp_millis()], read)
}

fn valid(transaction: &Transaction<'_>, id: &str) -> Result<Option<TokenRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM tokens t
         WHERE t.id = ?1 AND t.revoked_at IS NULL
           AND (t.expires_at IS NULL OR t.expires_at > ?2)
           AND NOT EXISTS (
             SELECT 1 FROM tokens p WHERE p.id = t.parent
               AND (p.revoked_at IS NOT NULL OR p.expires_at <= ?2))",
    );
    transaction.optional(&sql, params![id, now().timestamp_millis()], read)
}

fn read(row: &Row) -> Result<TokenRow, StoreError> {
    let word = |index, what| -> Result<_, StoreError> {
        let value: String = row.get(index)?;
        let unknown = StoreError::UnknownWord {
            what,
            value: value.clone(),
        };
        Ok((value, unknown))
    };
    let (kind, unknown_kind) = word(2, "token kind")?;
    let (role, unknown_role) = word(4, "role")?;
    Ok(TokenRow {
        id: row.get(0)?,
        hash: row.get(1)?,
        kind: TokenKind::parse(&kind).ok_or(unknown_kind)?,
        name: row.get(3)?,
        role: parse_role(&role).ok_or(unknown_role)?,
        tenant: row.get(5)?,
        parent: row.get(6)?,
        created_at: from_millis(row.get(7)?),
        expires_at: row.get::<Option<i64>>(8)?.map(from_millis),
    })
}

pub(super) fn role_word(role: Role) -> &'static str {
    match role {
        Role::Operator => "operator",
        Role::Deployer => "deployer",
        Role::Reader => "reader",
    }
}

fn parse_role(word: &str) -> Option<Role> {
    [Role::Operator, Role::Deployer, Role::Reader]
        .into_iter()
        .find(|role| role_word(*role) == word)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::with_each_database;
    use super::*;

    with_each_database!(
        a_derived_token_ends_with_its_parent,
        a_token_that_has_ended_is_not_valid,
    );

    fn token(id: &str, kind: TokenKind, parent: Option<&str>) -> TokenRow {
        TokenRow {
            id: id.into(),
            hash: vec![7; 32],
            kind,
            name: "ci".into(),
            role: Role::Operator,
            tenant: None,
            parent: parent.map(Into::into),
            created_at: now(),
            expires_at: None,
        }
    }

    async fn a_derived_token_ends_with_its_parent(store: &Store) {
        store
            .add_token(token("p", TokenKind::Api, None), &Actor::named("ci"))
            .await
            .unwrap();
        store
            .add_token(
                token("c", TokenKind::Session, Some("p")),
                &Actor::named("ci"),
            )
            .await
            .unwrap();
        assert!(store.valid_token("c").await.unwrap().is_some());
        assert!(store.revoke_token("p", &Actor::named("ci")).await.unwrap());
        assert!(store.valid_token("c").await.unwrap().is_none());
        assert!(!store.revoke_token("p", &Actor::named("ci")).await.unwrap());
    }

    async fn a_token_that_has_ended_is_not_valid(store: &Store) {
        let mut ended = token("e", TokenKind::Api, None);
        ended.expires_at = Some(now() - chrono::TimeDelta::seconds(1));
        store.add_token(ended, &Actor::named("ci")).await.unwrap();
        assert!(store.valid_token("e").await.unwrap().is_none());
        assert!(store.tokens().await.unwrap().is_empty());
    }
}

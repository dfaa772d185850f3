//! Tokens: hashes only.

use chrono::{DateTime, Utc};
use management_api::types::Role;
use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde_json::json;

use super::audit::{self, Action, Actor, Entry};
use super::{Store, StoreError, from_millis, now};

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// Made at first start and kept in the data folder.
    Bootstrap,
    /// Made through the API.
    Api,
    /// Made by the token exchange, short-lived.
    Session,
    /// For one repository of the registry, short-lived.
    Registry,
}

impl TokenKind {
    /// The word in the database.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Bootstrap => "bootstrap",
            Self::Api => "api",
            Self::Session => "session",
            Self::Registry => "registry",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Bootstrap, Self::Api, Self::Session, Self::Registry]
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
                "DELETE FROM tokens WHERE expires_at < ?1 AND kind IN ('session', 'registry')",
                [now().timestamp_millis()],
            )?;
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
            let mut statement = transaction.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM tokens
                 WHERE kind IN ('bootstrap', 'api') AND revoked_at IS NULL
                   AND (expires_at IS NULL OR expires_at > ?1)
                 ORDER BY created_at, id",
            ))?;
            let rows = statement.query_map([now().timestamp_millis()], raw)?;
            rows.map(|row| row?.into_row()).collect()
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
    let mut statement = transaction.prepare_cached(&format!(
        "UPDATE tokens SET revoked_at = ?1 WHERE {condition} AND revoked_at IS NULL
         RETURNING id, kind, name, tenant",
    ))?;
    let rows = statement.query_map(params![now().timestamp_millis(), value], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
    })?;
    let revoked = rows.collect::<Result<Vec<Revoked>, _>>()?;
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

fn valid(transaction: &Transaction<'_>, id: &str) -> Result<Option<TokenRow>, StoreError> {
    let mut statement = transaction.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM tokens t
         WHERE t.id = ?1 AND t.revoked_at IS NULL
           AND (t.expires_at IS NULL OR t.expires_at > ?2)
           AND NOT EXISTS (
             SELECT 1 FROM tokens p WHERE p.id = t.parent
               AND (p.revoked_at IS NOT NULL OR p.expires_at <= ?2))",
    ))?;
    let found = statement
        .query_row(params![id, now().timestamp_millis()], raw)
        .optional()?;
    found.map(RawToken::into_row).transpose()
}

/// A row before its words are understood.
struct RawToken {
    kind: String,
    role: String,
    row: TokenRow,
}

impl RawToken {
    fn into_row(self) -> Result<TokenRow, StoreError> {
        let unknown = |what, value: &str| StoreError::UnknownWord {
            what,
            value: value.to_owned(),
        };
        Ok(TokenRow {
            kind: TokenKind::parse(&self.kind).ok_or_else(|| unknown("token kind", &self.kind))?,
            role: parse_role(&self.role).ok_or_else(|| unknown("role", &self.role))?,
            ..self.row
        })
    }
}

fn raw(row: &Row<'_>) -> rusqlite::Result<RawToken> {
    Ok(RawToken {
        kind: row.get(2)?,
        role: row.get(4)?,
        row: TokenRow {
            id: row.get(0)?,
            hash: row.get(1)?,
            kind: TokenKind::Api,
            name: row.get(3)?,
            role: Role::Reader,
            tenant: row.get(5)?,
            parent: row.get(6)?,
            created_at: from_millis(row.get(7)?),
            expires_at: row.get::<_, Option<i64>>(8)?.map(from_millis),
        },
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
    use super::super::fixtures::store;
    use super::*;

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

    #[tokio::test]
    async fn a_derived_token_ends_with_its_parent() {
        let (store, _folder) = store();
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

    #[tokio::test]
    async fn a_token_that_has_ended_is_not_valid() {
        let (store, _folder) = store();
        let mut ended = token("e", TokenKind::Api, None);
        ended.expires_at = Some(now() - chrono::TimeDelta::seconds(1));
        store.add_token(ended, &Actor::named("ci")).await.unwrap();
        assert!(store.valid_token("e").await.unwrap().is_none());
        assert!(store.tokens().await.unwrap().is_empty());
    }
}

//! Tokens: how they are made, read from a request and compared.
//!
//! A token is `sp_ID_SECRET`. The database knows the id and the SHA-256 of the secret; the secret
//! has 256 bits, so a plain hash is as good as a slow one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use management_api::types::Role;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use super::Identity;
use crate::hex;
use crate::store::{Actor, Store, StoreError, TokenKind, TokenRow, now};

const PREFIX: &str = "sp_";

/// What a new token is to be.
#[derive(Debug, Clone)]
pub(crate) struct Issue {
    pub(crate) kind: TokenKind,
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) tenant: Option<String>,
    /// The token it is derived from.
    pub(crate) parent: Option<String>,
    /// Seconds until it ends.
    pub(crate) expires_in: Option<u64>,
    /// Who makes it.
    pub(crate) by: Actor,
}

/// Makes a token and stores its hash.
pub(crate) async fn issue(
    store: &Store,
    wanted: Issue,
) -> Result<(TokenRow, SecretString), StoreError> {
    let id = hex::encode(&random::<8>());
    let secret = hex::encode(&random::<32>());
    let created_at = now();
    let lifetime =
        |seconds: u64| chrono::TimeDelta::seconds(seconds.try_into().unwrap_or(i64::MAX / 1000));
    let row = TokenRow {
        hash: hash(&secret),
        kind: wanted.kind,
        name: wanted.name,
        role: wanted.role,
        tenant: wanted.tenant,
        parent: wanted.parent,
        created_at,
        expires_at: wanted
            .expires_in
            .and_then(|seconds| created_at.checked_add_signed(lifetime(seconds))),
        id,
    };
    store.add_token(row.clone(), &wanted.by).await?;
    let text = format!("{PREFIX}{}_{secret}", row.id);
    Ok((row, SecretString::from(text)))
}

/// Who a token belongs to; `None` when it is unknown, revoked or over.
pub(crate) async fn authenticate(
    store: &Store,
    token: &SecretString,
) -> Result<Option<Identity>, StoreError> {
    let Some((id, secret)) = split(token.expose_secret()) else {
        return Ok(None);
    };
    let Some(row) = store.valid_token(id).await? else {
        return Ok(None);
    };
    Ok(verified(row, secret))
}

/// Who a row belongs to, when `secret` is its secret.
pub(super) fn verified(row: TokenRow, secret: &str) -> Option<Identity> {
    let same: bool = hash(secret).ct_eq(&row.hash).into();
    same.then(|| Identity {
        root_token: row.parent.unwrap_or(row.id),
        name: row.name,
        role: row.role,
        tenant: row.tenant,
        registry_only: row.kind == TokenKind::Registry,
    })
}

/// The token of an `Authorization: Bearer …` header.
pub(crate) fn bearer(header: &str) -> Option<SecretString> {
    scheme(header, "bearer").map(SecretString::from)
}

/// The password of an `Authorization: Basic …` header; the user name means nothing here.
pub(crate) fn basic_password(header: &str) -> Option<SecretString> {
    let decoded = BASE64.decode(scheme(header, "basic")?).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (_, password) = text.split_once(':')?;
    Some(SecretString::from(password))
}

fn scheme<'a>(header: &'a str, wanted: &str) -> Option<&'a str> {
    let (scheme, rest) = header.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case(wanted).then(|| rest.trim())
}

/// Id and secret of a token.
pub(super) fn split(token: &str) -> Option<(&str, &str)> {
    token.strip_prefix(PREFIX)?.split_once('_')
}

fn hash(secret: &str) -> Vec<u8> {
    Sha256::digest(secret.as_bytes()).to_vec()
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixtures::store;

    fn wanted() -> Issue {
        Issue {
            kind: TokenKind::Api,
            name: "ci".into(),
            role: Role::Operator,
            tenant: None,
            parent: None,
            expires_in: Some(60),
            by: Actor::server(),
        }
    }

    #[tokio::test]
    async fn only_the_whole_token_is_recognised() {
        let (store, _folder) = store();
        let (row, token) = issue(&store, wanted()).await.unwrap();
        let found = authenticate(&store, &token).await.unwrap().unwrap();
        assert_eq!(
            (found.name.as_str(), found.root_token),
            ("ci", row.id.clone())
        );
        let text = token.expose_secret();
        let (id, secret) = split(text).unwrap();
        for wrong in [
            format!(
                "sp_{id}_{}",
                secret.replace(|c: char| c.is_ascii_digit(), "a")
            ),
            format!("sp_{id}_"),
            format!("sp_{secret}"),
            text[..text.len() - 1].to_owned(),
            String::new(),
        ] {
            let found = authenticate(&store, &SecretString::from(wrong.clone())).await;
            assert_eq!(found.unwrap(), None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn the_database_holds_no_secret() {
        let (store, folder) = store();
        let (_, token) = issue(&store, wanted()).await.unwrap();
        let (_, secret) = split(token.expose_secret()).unwrap();
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            let found = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
            assert!(!found);
        }
    }

    #[test]
    fn headers() {
        let read = |secret: Option<SecretString>| secret.map(|s| s.expose_secret().to_owned());
        assert_eq!(read(bearer("Bearer abc")).as_deref(), Some("abc"));
        assert_eq!(read(bearer("bearer  abc ")).as_deref(), Some("abc"));
        assert_eq!(read(bearer("Basic abc")), None);
        let basic = format!("Basic {}", BASE64.encode("x:pa:ss"));
        assert_eq!(read(basic_password(&basic)).as_deref(), Some("pa:ss"));
        assert_eq!(read(basic_password("Basic ///")), None);
    }
}

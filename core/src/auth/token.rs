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
    /// Seconds until it ends; what no calendar holds counts as a thousand years.
    pub(crate) expires_in: Option<u64>,
}

fn lifetime(seconds: u64) -> chrono::TimeDelta {
    const LONGEST: i64 = 1000 * 365 * 24 * 60 * 60;
    let seconds = i64::try_from(seconds).unwrap_or(LONGEST).min(LONGEST);
    chrono::TimeDelta::seconds(seconds)
}

/// Makes a token and stores its hash.
pub(crate) async fn issue(
    store: &Store,
    wanted: Issue,
    by: &Actor,
) -> Result<(TokenRow, SecretString), StoreError> {
    let (row, token) = make(wanted);
    store.add_token(row.clone(), by).await?;
    Ok((row, token))
}

/// A token like another one, for as long as that was made for.
pub(crate) fn renewed(old: &TokenRow) -> (TokenRow, SecretString) {
    let life = old.expires_at.map(|end| end - old.created_at);
    make(Issue {
        kind: old.kind,
        name: old.name.clone(),
        role: old.role,
        tenant: old.tenant.clone(),
        parent: old.parent.clone(),
        expires_in: life.map(|life| u64::try_from(life.num_seconds()).unwrap_or(0)),
    })
}

fn make(wanted: Issue) -> (TokenRow, SecretString) {
    let id = hex::encode(&random::<8>());
    let secret = hex::encode(&random::<32>());
    let created_at = now();
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
            .map(|seconds| created_at + lifetime(seconds)),
        id,
    };
    let text = format!("{PREFIX}{}_{secret}", row.id);
    (row, SecretString::from(text))
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
    same.then(|| row.into())
}

impl From<TokenRow> for Identity {
    fn from(row: TokenRow) -> Self {
        Self {
            root_token: row.parent.unwrap_or(row.id),
            name: row.name,
            role: row.role,
            tenant: row.tenant,
        }
    }
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

/// What of a token is no secret, where it looks like one.
pub(crate) fn public_part(token: &str) -> Option<&str> {
    let (id, _) = split(token)?;
    let is_id = id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then_some(id)
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
    use crate::store::fixtures::{store, with_each_database};

    with_each_database!(only_the_whole_token_is_recognised,);

    fn wanted() -> Issue {
        Issue {
            kind: TokenKind::Api,
            name: "ci".into(),
            role: Role::Operator,
            tenant: None,
            parent: None,
            expires_in: Some(60),
        }
    }

    async fn only_the_whole_token_is_recognised(store: &Store) {
        let (row, token) = issue(store, wanted(), &Actor::server()).await.unwrap();
        let found = authenticate(store, &token).await.unwrap().unwrap();
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
            let found = authenticate(store, &SecretString::from(wrong.clone())).await;
            assert_eq!(found.unwrap(), None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn the_database_holds_no_secret() {
        let (store, folder) = store();
        let (_, token) = issue(&store, wanted(), &Actor::server()).await.unwrap();
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

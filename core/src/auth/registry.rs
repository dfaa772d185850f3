//! Who may do what in the registry: a tenant's repository has the tenant's name.
//!
//! Credentials are a platform token, or a registry token (see [`super::jwt`]) that was got with one. A registry token
//! holds no longer than the platform token behind it, which is looked up with every request.

use std::fmt::Write as _;

use axum::http::{HeaderMap, header};
use management_api::types::Role;
use registry::{Action, Authorize, Decision};
use secrecy::{ExposeSecret, SecretString};

use super::jwt::{Claims, Grant, SERVICE, Signer};
use super::token::{basic_password, bearer, split, verified};
use super::{Identity, Permission};
use crate::http::Origin;
use crate::store::{Store, StoreError, now};

/// How long a token of the token endpoint holds: the clients get new ones by themselves.
const ACCESS_SECONDS: u64 = 5 * 60;
/// How long the credentials of the control plane's route hold: enough for a large push over a slow line.
const PUSH_SECONDS: u64 = 60 * 60;
/// A token names at most so many repositories.
pub(crate) const MAX_SCOPES: usize = 64;

/// Whoever shows credentials that hold.
pub(crate) struct Bearer {
    /// Of the platform token, or of the one behind the registry token.
    identity: Identity,
    /// What the registry token says, if it is one.
    claims: Option<Claims>,
}

impl Bearer {
    /// Id of the token that people made.
    pub(crate) fn root_token(&self) -> &str {
        &self.identity.root_token
    }
}

/// Whom the server's own tokens were got with. No platform token has this id.
const SERVER: &str = "server";

/// A registry token that was just made.
pub(crate) struct RegistryToken {
    pub(crate) token: SecretString,
    /// Seconds until it ends.
    pub(crate) expires_in: u64,
    pub(crate) issued_at: chrono::DateTime<chrono::Utc>,
}

/// Answers the registry's questions, and hands out its tokens.
pub(crate) struct RegistryAccess {
    store: Store,
    signer: Signer,
}

impl RegistryAccess {
    pub(crate) fn new(store: Store, signer: Signer) -> Self {
        Self { store, signer }
    }

    /// Whose credentials these are: a platform token or a registry token. Blocks.
    pub(crate) fn identify(&self, token: &SecretString) -> Result<Option<Bearer>, StoreError> {
        let text = token.expose_secret();
        if let Some((id, secret)) = split(text) {
            let row = self.store.valid_token_blocking(id)?;
            let identity = row.and_then(|row| verified(row, secret));
            return Ok(identity.map(|identity| Bearer {
                identity,
                claims: None,
            }));
        }
        let Some(claims) = self.signer.read(text, now().timestamp()) else {
            return Ok(None);
        };
        if let Some(identity) = own(&claims) {
            return Ok(Some(Bearer {
                identity,
                claims: Some(claims),
            }));
        }
        let row = self.store.valid_token_blocking(&claims.root_token)?;
        Ok(row.map(|row| Bearer {
            identity: row.into(),
            claims: Some(claims),
        }))
    }

    /// A token for those of the scopes that the bearer may have; the others are left out, as the specification has it.
    /// Blocks.
    pub(crate) fn issue(
        &self,
        bearer: &Bearer,
        scopes: &[Scope],
    ) -> Result<RegistryToken, StoreError> {
        let mut access = Vec::new();
        for scope in scopes {
            let actions = self.granted(bearer, scope)?;
            if !actions.is_empty() {
                access.push(Grant {
                    kind: "repository".to_owned(),
                    name: scope.repository.clone(),
                    actions,
                });
            }
        }
        let left = bearer
            .claims
            .as_ref()
            .map_or(ACCESS_SECONDS, |claims| claims.remaining(now().timestamp()));
        Ok(self.sign(
            &bearer.identity.root_token,
            access,
            ACCESS_SECONDS.min(left),
        ))
    }

    /// Credentials to push to this repository and to pull from it; the caller has seen to it that that may be.
    pub(crate) fn issue_for_push(&self, root_token: &str, repository: &str) -> RegistryToken {
        let grant = Grant {
            kind: "repository".to_owned(),
            name: repository.to_owned(),
            actions: ["pull", "push", "delete"].map(str::to_owned).to_vec(),
        };
        self.sign(root_token, vec![grant], PUSH_SECONDS)
    }

    /// For the engine of this server, to pull from this repository and nothing else.
    pub(crate) fn issue_for_engine(&self, repository: &str) -> RegistryToken {
        let grant = Grant {
            kind: "repository".to_owned(),
            name: repository.to_owned(),
            actions: vec!["pull".to_owned()],
        };
        self.sign(SERVER, vec![grant], ACCESS_SECONDS)
    }

    fn sign(&self, root_token: &str, access: Vec<Grant>, expires_in: u64) -> RegistryToken {
        let issued_at = now();
        RegistryToken {
            token: self
                .signer
                .sign(root_token, access, issued_at.timestamp(), expires_in),
            expires_in,
            issued_at,
        }
    }

    fn granted(&self, bearer: &Bearer, scope: &Scope) -> Result<Vec<String>, StoreError> {
        let wanted = |action: &&str| scope.actions.iter().any(|a| a == *action || a == "*");
        let may = |action: &&str| {
            let named = bearer.claims.as_ref();
            named.is_none_or(|claims| claims.allow(&scope.repository, action))
                && bearer.identity.may(permission(action), &scope.repository)
        };
        // A repository without a tenant would belong to nobody and never be deployed.
        if self.store.tenant_blocking(&scope.repository)?.is_none() {
            return Ok(Vec::new());
        }
        let actions = ["pull", "push", "delete"].into_iter();
        Ok(actions
            .filter(wanted)
            .filter(may)
            .map(str::to_owned)
            .collect())
    }

    fn decide(
        &self,
        headers: &HeaderMap,
        repository: Option<&str>,
        action: Action,
    ) -> Result<Decision, StoreError> {
        let sent = headers.get(header::AUTHORIZATION);
        let sent = sent.and_then(|value| value.to_str().ok());
        let challenge = |error| Decision::Challenge(challenge(headers, repository, action, error));
        let token = sent.and_then(|text| bearer(text).or_else(|| basic_password(text)));
        let Some(token) = token else {
            return Ok(challenge(None));
        };
        let Some(bearer) = self.identify(&token)? else {
            return Ok(challenge(Some("invalid_token")));
        };
        let Some(repository) = repository else {
            return Ok(Decision::Allow);
        };
        let action = word(action);
        let may = bearer.identity.may(permission(action), repository)
            && self.store.tenant_blocking(repository)?.is_some();
        let named = bearer.claims.as_ref();
        let named = named.is_none_or(|claims| claims.allow(repository, action));
        Ok(match (may, named) {
            (false, _) => Decision::Deny,
            // With the same credentials the client gets a token that names it.
            (true, false) => challenge(Some("insufficient_scope")),
            (true, true) => Decision::Allow,
        })
    }
}

impl Authorize for RegistryAccess {
    fn authorize(&self, headers: &HeaderMap, repository: Option<&str>, action: Action) -> Decision {
        self.decide(headers, repository, action)
            .unwrap_or_else(|error| {
                tracing::error!(error = %crate::chain(&error), "the registry refuses a request");
                Decision::Deny
            })
    }
}

/// Who the engine of this server is: somebody who may look at the one tenant whose image it pulls.
fn own(claims: &Claims) -> Option<Identity> {
    let [grant] = claims.access.as_slice() else {
        return None;
    };
    (claims.root_token == SERVER).then(|| Identity {
        root_token: SERVER.to_owned(),
        name: SERVER.to_owned(),
        role: Role::Reader,
        tenant: Some(grant.name.clone()),
    })
}

/// What a client wants a token for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scope {
    repository: String,
    actions: Vec<String>,
}

impl Scope {
    /// `repository:NAME:ACTION,ACTION`; nothing for other kinds of things, of which this registry has none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        // A class may follow the kind, as in `repository(plugin)`.
        if kind.split('(').next() != Some("repository") {
            return None;
        }
        let (repository, actions) = rest.rsplit_once(':')?;
        Some(Self {
            repository: repository.to_owned(),
            actions: actions.split(',').map(str::to_owned).collect(),
        })
    }
}

fn word(action: Action) -> &'static str {
    match action {
        Action::Pull => "pull",
        Action::Push => "push",
        Action::Delete => "delete",
    }
}

fn permission(action: &str) -> Permission {
    match action {
        "pull" => Permission::Look,
        _ => Permission::Deploy,
    }
}

/// Where to get a token, and for what (`docs/spec/auth/token.md` of the distribution project).
fn challenge(
    headers: &HeaderMap,
    repository: Option<&str>,
    action: Action,
    error: Option<&str>,
) -> String {
    let realm = Origin::of(headers).url(management_api::paths::TOKEN);
    let mut text = format!("Bearer realm=\"{realm}\",service=\"{SERVICE}\"");
    if let Some(repository) = repository {
        let actions = match action {
            Action::Pull => "pull",
            Action::Push => "pull,push",
            Action::Delete => "pull,push,delete",
        };
        let _ = write!(text, ",scope=\"repository:{repository}:{actions}\"");
    }
    if let Some(error) = error {
        let _ = write!(text, ",error=\"{error}\"");
    }
    text
}

//! Docker token authentication and Basic: which `Authorization` a request to the registry carries.
//!
//! Source: the distribution project's `docs/spec/auth/token.md`. With credentials at hand, Basic is
//! offered with the first request: a registry that takes it answers at once, one with tokens
//! answers with its challenge, which the first request would have met anyway.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use ureq::http::Method;
use url::Url;

use super::challenge::{self, Challenge};
use super::error::{CallSite, ClientError};
use super::options::Credentials;
use super::transport::Exchange;
use crate::reference::Repository;

/// The specification's default life of a token.
const DEFAULT_LIFE: Duration = Duration::from_mins(1);
/// Nothing is believed to last longer, so that times can be added up without overflow.
const LONGEST_LIFE: Duration = Duration::from_hours(24);
/// A token this close to its end is renewed first: clocks differ and requests take time.
const MARGIN: Duration = Duration::from_secs(5);
/// Tokens are a few kilobytes; more is no token.
const TOKEN_LIMIT: u64 = 1024 * 1024;

/// Shorter passwords would be found in ordinary words.
const SHORTEST_REDACTED: usize = 4;

/// What may be done with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Access {
    Pull,
    Push,
}

/// Access to one repository, as a token names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scope {
    repository: Repository,
    access: Access,
}

impl Scope {
    pub(super) fn pull(repository: &Repository) -> Self {
        Self {
            repository: repository.clone(),
            access: Access::Pull,
        }
    }

    pub(super) fn push(repository: &Repository) -> Self {
        Self {
            repository: repository.clone(),
            access: Access::Push,
        }
    }

    fn covers(&self, other: &Self) -> bool {
        self.repository == other.repository && self.access >= other.access
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let actions = match self.access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        write!(f, "repository:{}:{actions}", self.repository)
    }
}

/// The value of an `Authorization` header.
#[derive(Debug, Clone)]
pub(super) enum Authorization {
    Basic(SecretString),
    Bearer(Arc<Token>),
}

impl Authorization {
    pub(super) fn header(&self) -> SecretString {
        match self {
            Self::Basic(encoded) => format!("Basic {}", encoded.expose_secret()).into(),
            Self::Bearer(token) => format!("Bearer {}", token.text.expose_secret()).into(),
        }
    }

    /// Notes that the registry has answered a request that carried it.
    pub(super) fn accepted(&self) {
        if let Self::Bearer(token) = self {
            token.accepted.store(true, Ordering::Relaxed);
        }
    }
}

/// A token, and whether the registry has ever taken it: one that was taken and then is not has
/// ended, one that never was will not be.
#[derive(Debug)]
pub(super) struct Token {
    text: SecretString,
    accepted: AtomicBool,
}

impl Token {
    fn new(text: SecretString) -> Self {
        Self {
            text,
            accepted: AtomicBool::new(false),
        }
    }
}

/// A request that was answered with 401.
pub(super) struct Refused<'a> {
    pub(super) authorization: Option<&'a Authorization>,
    pub(super) sent_at: Instant,
    /// How often it was refused before this time.
    pub(super) before: usize,
}

impl Refused<'_> {
    /// Whether another token promises anything. Of many uploads that share a token, some use it up
    /// before the others come to it, so that the first refusals say little.
    fn may_have_ended(&self) -> bool {
        match self.authorization {
            Some(Authorization::Bearer(token)) => {
                self.before < 2 || token.accepted.load(Ordering::Relaxed)
            }
            _ => true,
        }
    }
}

/// Knows the credentials and the tokens got with them.
#[derive(Debug)]
pub(super) struct Authenticator {
    credentials: Option<Credentials>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    scheme: Scheme,
    tokens: Vec<CachedToken>,
}

#[derive(Debug, Clone)]
enum Scheme {
    Unknown,
    Basic,
    Bearer(TokenServer),
}

#[derive(Debug, Clone)]
struct TokenServer {
    realm: Url,
    service: Option<String>,
}

#[derive(Debug)]
struct CachedToken {
    scopes: Vec<Scope>,
    token: Arc<Token>,
    got_at: Instant,
    renew_at: Instant,
}

/// A token server's answer. Either name is in use for the token.
#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<SecretString>,
    access_token: Option<SecretString>,
    expires_in: Option<u64>,
}

impl Authenticator {
    pub(super) fn new(credentials: Option<Credentials>) -> Self {
        let state = State {
            scheme: Scheme::Unknown,
            tokens: Vec::new(),
        };
        Self {
            credentials,
            state: Mutex::new(state),
        }
    }

    /// What a request for these scopes is to carry, as far as is known.
    pub(super) fn authorization(
        &self,
        exchange: &Exchange,
        scopes: &[Scope],
    ) -> Result<Option<Authorization>, ClientError> {
        // Held while a token is fetched: of four uploads that need the same token, one fetches it.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.scheme.clone() {
            Scheme::Unknown | Scheme::Basic => Ok(self.basic()),
            Scheme::Bearer(server) => self.token(&mut state, exchange, &server, scopes).map(Some),
        }
    }

    /// After a 401: what to try instead; none when there is nothing better.
    pub(super) fn after_refusal(
        &self,
        exchange: &Exchange,
        scopes: &[Scope],
        challenges: &[Challenge],
        refused: &Refused<'_>,
    ) -> Result<Option<Authorization>, ClientError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = token_server(challenges) {
            if !refused.may_have_ended() {
                return Ok(None);
            }
            state.scheme = Scheme::Bearer(server.clone());
            // Tokens tend to end together. One that another thread has got since is fresh.
            state.tokens.retain(|kept| kept.got_at > refused.sent_at);
            return self.token(&mut state, exchange, &server, scopes).map(Some);
        }
        let offered = challenges
            .iter()
            .any(|challenge| challenge.scheme == "basic");
        if offered {
            state.scheme = Scheme::Basic;
        }
        match refused.authorization {
            Some(Authorization::Basic(_)) => Ok(None),
            _ if offered => Ok(self.basic()),
            _ => Ok(None),
        }
    }

    /// Takes the password out of what a server said, because a person or a log will read it.
    pub(super) fn redact(&self, mut error: ClientError) -> ClientError {
        if let (Some(known), Some(answer)) = (&self.credentials, error.answer_mut()) {
            let password = known.password.expose_secret();
            if password.len() >= SHORTEST_REDACTED {
                answer.message = answer.message.replace(password, "***");
            }
        }
        error
    }

    fn basic(&self) -> Option<Authorization> {
        let known = self.credentials.as_ref()?;
        let pair = format!("{}:{}", known.username, known.password.expose_secret());
        Some(Authorization::Basic(STANDARD.encode(pair).into()))
    }

    fn token(
        &self,
        state: &mut State,
        exchange: &Exchange,
        server: &TokenServer,
        scopes: &[Scope],
    ) -> Result<Authorization, ClientError> {
        let now = Instant::now();
        state.tokens.retain(|kept| kept.renew_at > now);
        if let Some(kept) = state
            .tokens
            .iter()
            .find(|kept| covers_all(&kept.scopes, scopes))
        {
            return Ok(Authorization::Bearer(Arc::clone(&kept.token)));
        }
        let (token, life) = self.fetch(exchange, server, scopes)?;
        let token = Arc::new(Token::new(token));
        let got_at = Instant::now();
        let renew_at = got_at + life.saturating_sub(MARGIN.min(life / 4));
        state.tokens.push(CachedToken {
            scopes: scopes.to_vec(),
            token: Arc::clone(&token),
            got_at,
            renew_at,
        });
        Ok(Authorization::Bearer(token))
    }

    fn fetch(
        &self,
        exchange: &Exchange,
        server: &TokenServer,
        scopes: &[Scope],
    ) -> Result<(SecretString, Duration), ClientError> {
        let url = self.token_url(server, scopes);
        let site = CallSite::new("get a registry token", &Method::GET, &url);
        // The password goes to the realm: the registry it belongs to has named it, but only a
        // protected connection keeps it between the two.
        exchange.check_scheme(&site, &url)?;
        let body = exchange
            .get_token(&site, &url, self.basic().as_ref(), TOKEN_LIMIT)
            .map_err(|error| self.redact(error))?;
        let protocol = |detail: &str| ClientError::Protocol {
            site: Box::new(site.clone()),
            detail: detail.to_owned(),
        };
        let answer: TokenAnswer = serde_json::from_slice(&body)
            .map_err(|_| protocol("the token server did not send a token document"))?;
        let token = answer.token.or(answer.access_token);
        let token = token.filter(|token| is_header_text(token.expose_secret()));
        let life = answer.expires_in.filter(|seconds| *seconds > 0);
        let life = life
            .map_or(DEFAULT_LIFE, Duration::from_secs)
            .min(LONGEST_LIFE);
        Ok((
            token.ok_or_else(|| protocol("the token server sent no token"))?,
            life,
        ))
    }

    fn token_url(&self, server: &TokenServer, scopes: &[Scope]) -> Url {
        let mut url = server.realm.clone();
        let mut query = url.query_pairs_mut();
        if let Some(service) = &server.service {
            query.append_pair("service", service);
        }
        for scope in scopes {
            query.append_pair("scope", &scope.to_string());
        }
        if let Some(known) = &self.credentials {
            query.append_pair("account", &known.username);
        }
        drop(query);
        url
    }
}

/// The challenges of all `WWW-Authenticate` headers of an answer.
pub(super) fn challenges(headers: &ureq::http::HeaderMap) -> Vec<Challenge> {
    let values = headers.get_all("www-authenticate").iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(challenge::parse)
        .collect()
}

fn token_server(challenges: &[Challenge]) -> Option<TokenServer> {
    let bearer = challenges
        .iter()
        .find(|challenge| challenge.scheme == "bearer")?;
    let realm = Url::parse(bearer.parameter("realm")?).ok()?;
    Some(TokenServer {
        realm,
        service: bearer.parameter("service").map(str::to_owned),
    })
}

fn covers_all(granted: &[Scope], wanted: &[Scope]) -> bool {
    wanted
        .iter()
        .all(|scope| granted.iter().any(|granted| granted.covers(scope)))
}

fn is_header_text(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::super::error::Answer;
    use super::*;

    fn repository(name: &str) -> Repository {
        name.parse().unwrap()
    }

    #[test]
    fn a_wider_token_serves_a_narrower_wish() {
        let push = Scope::push(&repository("a"));
        let pull = Scope::pull(&repository("a"));
        let other = Scope::pull(&repository("b"));
        assert!(covers_all(
            &[push.clone(), other.clone()],
            std::slice::from_ref(&pull)
        ));
        assert!(!covers_all(
            std::slice::from_ref(&pull),
            std::slice::from_ref(&push)
        ));
        assert!(!covers_all(&[push], &[pull, other]));
    }

    #[test]
    fn the_token_request_names_service_scopes_and_account() {
        let credentials = Credentials {
            username: "u ser".to_owned(),
            password: "pw".into(),
        };
        let authenticator = Authenticator::new(Some(credentials));
        let header = r#"Bearer realm="https://auth.io/token?x=1",service="r.io""#;
        let server = token_server(&challenge::parse(header)).unwrap();
        let scopes = [
            Scope::push(&repository("a/b")),
            Scope::pull(&repository("c")),
        ];
        let url = authenticator.token_url(&server, &scopes);
        assert_eq!(
            url.as_str(),
            "https://auth.io/token?x=1&service=r.io&scope=repository%3Aa%2Fb%3Apull%2Cpush\
             &scope=repository%3Ac%3Apull&account=u+ser"
        );
    }

    #[test]
    fn neither_password_nor_token_prints() {
        let credentials = Credentials {
            username: "u".to_owned(),
            password: "hunter2".into(),
        };
        let authenticator = Authenticator::new(Some(credentials));
        let text = format!(
            "{authenticator:?} {:?}",
            authenticator.basic().unwrap().header()
        );
        assert!(
            !text.contains("hunter2") && !text.contains(&STANDARD.encode("u:hunter2")),
            "{text}"
        );
        let site = CallSite {
            call: "push",
            target: String::new(),
        };
        let message = "no hunter2 here".to_owned();
        let answer = Answer {
            status: 403,
            code: None,
            message,
        };
        let error = authenticator.redact(ClientError::from_answer(site, answer, None));
        assert_eq!(error.answer().unwrap().message, "no *** here");
    }
}

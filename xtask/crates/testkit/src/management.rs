//! A double of the Management API, written from its public contract.
//!
//! It is stricter than a real server where strictness finds mistakes of a client: a deployment
//! request with a field that this variant does not know is refused, and so is a token exchange that
//! misses a parameter of RFC 8693.

mod answers;
mod identity;

pub use identity::token_that_ends;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::fault::Rule;
use crate::http::{Request, Response};
use crate::server::{Exchange, Server};

/// The tenant that every variant knows.
pub const TENANT: &str = "tn-7f3a";
/// Its application id, which is also its repository where the server names none.
pub const APP_ID: &str = "sp-ten-abc123";
/// The repository that servers name in their registry token.
pub const REPOSITORY: &str = "tenants/sp-ten-abc123";
/// The tag that [`Variant::ServerTag`] issues first; the number grows with each token.
pub const FIRST_SERVER_TAG: &str = "release-1";

/// Which of the servers in the field is imitated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// As in the seed document: `password`, `repository`, no tag, `url`.
    SeedEra,
    /// The server issues `repository` and `tag`, and tenant calls need an exchanged token.
    ServerTag,
    /// `token`, no repository, `app_url`, the operator's token as it is.
    Current,
    /// As [`Variant::Current`], and it announces that it runs releases of several services: what nobody in the field does yet
    /// but our own platform, which has a registry of its own.
    Services,
}

impl Variant {
    /// All of the field.
    pub const ALL: [Self; 3] = [Self::SeedEra, Self::ServerTag, Self::Current];

    /// The repository that a client must push to.
    #[must_use]
    pub fn repository(self) -> &'static str {
        match self {
            Self::Current | Self::Services => APP_ID,
            Self::SeedEra | Self::ServerTag => REPOSITORY,
        }
    }

    fn default_statuses(self) -> &'static [&'static str] {
        match self {
            Self::SeedEra => &["deploying", "ready"],
            Self::ServerTag => &["pending", "deploying", "active"],
            Self::Current | Self::Services => &["deploying", "deployed"],
        }
    }
}

/// The registry that this server's tokens are for.
#[derive(Debug, Clone)]
pub struct RegistryAccess {
    /// `host:port`.
    pub registry: String,
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
}

/// Whether the registry holds an image: `registry/repository:tag` or `…@digest`.
pub type ImageExists = dyn Fn(&str) -> bool + Send + Sync;

/// A running double, with a second server that stands for the deployed application.
pub struct ManagementApi {
    api: Server,
    app: Server,
    core: Arc<Core>,
}

/// What the handler of requests sees.
struct Core {
    variant: Variant,
    registry: RegistryAccess,
    image_exists: Box<ImageExists>,
    operator_token: String,
    app_url: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    statuses: Vec<(String, Option<String>)>,
    /// Position in `statuses`; `None` before the first deployment.
    position: Option<usize>,
    images: Vec<String>,
    requests: Vec<Value>,
    exchanged: Vec<String>,
    exchanges: usize,
    tags: usize,
    secrets: Vec<Value>,
}

impl ManagementApi {
    /// Starts a variant whose images live in `registry`.
    #[must_use]
    pub fn start(
        variant: Variant,
        registry: RegistryAccess,
        image_exists: Box<ImageExists>,
    ) -> Self {
        let app = Server::start(Box::new(|_| {
            Response::json(200, &json!({"status": "healthy"}))
        }));
        let core = Arc::new(Core {
            variant,
            registry,
            image_exists,
            operator_token: identity::operator_token(),
            app_url: app.url(),
            state: Mutex::default(),
        });
        let handler = Arc::clone(&core);
        let api = Server::start(Box::new(move |request| handler.answer(request)));
        let double = Self { api, app, core };
        double.statuses(variant.default_statuses());
        double
    }

    /// Its base URL.
    #[must_use]
    pub fn url(&self) -> String {
        self.api.url()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.api.address()
    }

    /// The operator's token: a JWT that is valid for an hour.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.core.operator_token
    }

    /// Where the deployed application answers.
    #[must_use]
    pub fn app_url(&self) -> &str {
        &self.core.app_url
    }

    /// The deployed application, for fault rules and for what it was asked.
    #[must_use]
    pub fn app(&self) -> &Server {
        &self.app
    }

    /// The variant that runs.
    #[must_use]
    pub fn variant(&self) -> Variant {
        self.core.variant
    }

    /// Adds a fault rule to the API.
    pub fn inject(&self, rule: Rule) {
        self.api.inject(rule);
    }

    /// Removes every fault rule of the API.
    pub fn heal(&self) {
        self.api.heal();
    }

    /// What a deployment's status will be, call after call; the last one stays for ever.
    pub fn statuses(&self, statuses: &[&str]) {
        self.core.lock().statuses = statuses
            .iter()
            .map(|status| ((*status).to_owned(), None))
            .collect();
    }

    /// A deployment that ends in `status` with a message.
    pub fn ends_in(&self, status: &str, message: &str) {
        self.core.lock().statuses = vec![
            ("deploying".to_owned(), None),
            (status.to_owned(), Some(message.to_owned())),
        ];
    }

    /// The images whose deployment was accepted, in order.
    #[must_use]
    pub fn deployed(&self) -> Vec<String> {
        self.core.lock().images.clone()
    }

    /// How many token exchanges were granted.
    #[must_use]
    pub fn granted_exchanges(&self) -> usize {
        self.core.lock().exchanges
    }

    /// Makes every exchanged token invalid, as a server does that restarts.
    pub fn revoke_exchanged(&self) {
        self.core.lock().exchanged.clear();
    }

    /// The bodies that set secrets.
    #[must_use]
    pub fn secrets(&self) -> Vec<Value> {
        self.core.lock().secrets.clone()
    }

    /// All that was asked, in order.
    #[must_use]
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.api.exchanges()
    }

    /// How often a method and a path were asked.
    #[must_use]
    pub fn count(&self, method: &str, path: &str) -> usize {
        self.api.count(method, path)
    }

    /// The bodies of the requests to deploy that were accepted.
    #[must_use]
    pub fn requests(&self) -> Vec<Value> {
        self.core.lock().requests.clone()
    }

    /// Forgets requests and deployments, keeps variant and statuses.
    pub fn forget(&self) {
        self.api.forget();
        self.app.forget();
        let mut state = self.core.lock();
        state.images.clear();
        state.requests.clear();
        state.position = None;
    }

    /// All values that must never be seen: the operator's token, the registry's password, and
    /// every token that an exchange has granted.
    #[must_use]
    pub fn secret_values(&self) -> Vec<String> {
        let mut values = vec![
            self.core.operator_token.clone(),
            self.core.registry.password.clone(),
        ];
        values.extend(self.core.lock().exchanged.iter().cloned());
        values
    }
}

impl Core {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: &Request) -> Response {
        let path = request.path().trim_matches('/').to_owned();
        let segments: Vec<_> = path.split('/').collect();
        match (request.method.as_str(), segments.as_slice()) {
            ("GET", ["api", "v1", "health"]) => Response::json(200, &json!({"status": "healthy"})),
            ("POST", ["api", "v1", "core", "oauth", "token"]) => self.exchange(request),
            ("GET", ["api", "v1", "capabilities"]) => self.capabilities(),
            ("GET", ["api", "v1", "auth", "me"]) => self.as_operator(request, Self::me),
            ("GET", ["api", "v1", "tenants"]) => self.as_operator(request, |_| Self::tenants()),
            (method, ["api", "v1", "tenants", tenant, rest @ ..]) => {
                self.tenant_call(method, tenant, rest, request)
            }
            _ => self.not_found(),
        }
    }
}

#[cfg(test)]
mod tests;

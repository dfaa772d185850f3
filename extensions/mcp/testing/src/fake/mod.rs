//! A Management API in the test's own process, written from the contract.
//!
//! It deploys nothing: what becomes of a deployment is said by the image's name. One that holds
//! `missing` is not in the registry, one that holds `broken` never becomes healthy and is rolled
//! back, one that holds `slow` never ends; every other one succeeds after a few looks at it.

mod deployments;
mod tenants;
mod world;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use management_api::error::{ErrorBody, code};
use management_api::types::{Capabilities, Data, Role};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::Variables;
use world::World;

/// The token that may do everything.
pub const OPERATOR: &str = "operator-0123456789";
/// The token that may only look.
pub const READER: &str = "reader-0123456789";

/// A running fake; ends when dropped.
pub struct FakePlatform {
    /// Its address.
    pub url: String,
    world: Shared,
    server: JoinHandle<()>,
}

type Shared = Arc<Mutex<World>>;
type Answer<T> = Result<Json<Data<T>>, Refusal>;

/// Which generation of the Management API the fake is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// The embedded platform: everything.
    Ours,
    /// The contract only: no history, no rollback, no log, no tokens.
    Contract,
}

impl FakePlatform {
    /// Starts one with the tenant `acme`.
    pub async fn start(generation: Generation) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind a port");
        let address = listener
            .local_addr()
            .expect("the address of a bound socket");
        let world = Shared::default();
        lock(&world).keeps_history = generation == Generation::Ours;
        let router = router(generation, Arc::clone(&world));
        let server = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("serve the fake");
        });
        Self {
            url: format!("http://{address}"),
            world,
            server,
        }
    }

    /// Environment variables that lead a server here, as the operator.
    #[must_use]
    pub fn variables(&self) -> [(&str, &str); 2] {
        self.variables_with(OPERATOR)
    }

    /// Environment variables that lead a server here, with another token.
    #[must_use]
    pub fn variables_with<'a>(&'a self, token: &'a str) -> [(&'a str, &'a str); 2] {
        [
            ("SYSTEMPROMPT_API_URL", &self.url),
            ("SYSTEMPROMPT_API_TOKEN", token),
        ]
    }

    /// Adds a tenant.
    pub fn add_tenant(&self, id: &str) {
        lock(&self.world).add_tenant(id, id);
    }

    /// Every mutation that was carried out, in order: `POST /path`.
    #[must_use]
    pub fn mutations(&self) -> Vec<String> {
        lock(&self.world).mutations.clone()
    }
}

impl Drop for FakePlatform {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// `variables` with one more; for tests that say which tenant is meant.
#[must_use]
pub fn with<'a>(variables: Variables<'a>, more: (&'a str, &'a str)) -> Vec<(&'a str, &'a str)> {
    [variables, &[more]].concat()
}

struct Refusal(StatusCode, &'static str, String);

impl axum::response::IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(ErrorBody::new(self.1, self.2))).into_response()
    }
}

fn refuse<T>(status: u16, code: &'static str, message: impl Into<String>) -> Result<T, Refusal> {
    let status = StatusCode::from_u16(status).expect("a valid status");
    Err(Refusal(status, code, message.into()))
}

#[expect(clippy::unnecessary_wraps, reason = "every handler answers a result")]
fn data<T>(value: T) -> Answer<T> {
    Ok(Json(Data { data: value }))
}

fn lock(world: &Shared) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

fn router(generation: Generation, world: Shared) -> Router {
    let contract = Router::new()
        .route("/api/v1/tenants", get(tenants::list).post(tenants::create))
        .route("/api/v1/tenants/{id}", delete(tenants::remove))
        .route("/api/v1/tenants/{id}/deploy", post(deployments::deploy))
        .route("/api/v1/tenants/{id}/status", get(deployments::status));
    let ours = Router::new()
        .route("/api/v1/capabilities", get(capabilities))
        .route("/api/v1/tenants/{id}/deployments", get(deployments::list))
        .route(
            "/api/v1/tenants/{id}/deployments/{number}",
            get(deployments::show),
        )
        .route("/api/v1/tenants/{id}/rollback", post(deployments::rollback))
        .route(
            "/api/v1/tenants/{id}/deployments/{number}/promote",
            post(deployments::promote),
        )
        .route(
            "/api/v1/tenants/{id}/deployments/{number}/abort",
            post(deployments::abort),
        )
        .route("/api/v1/tenants/{id}/volumes", get(deployments::volumes))
        .route("/api/v1/tenants/{id}/secrets", get(deployments::secrets))
        .route("/api/v1/tenants/{id}/logs", get(deployments::logs))
        .route(
            "/api/v1/tokens",
            get(tenants::tokens).post(tenants::create_token),
        )
        .route("/api/v1/tokens/{id}", delete(tenants::revoke_token));
    let routes = match generation {
        Generation::Ours => contract.merge(ours),
        Generation::Contract => contract,
    };
    routes
        .layer(middleware::from_fn_with_state(Arc::clone(&world), guard))
        .with_state(world)
}

/// Who calls, what they may do, and a record of what was done.
async fn guard(State(world): State<Shared>, request: Request, next: Next) -> Response {
    let call = format!("{} {}", request.method(), request.uri().path());
    let reads = request.method() == Method::GET;
    let sent = request.headers().get(header::AUTHORIZATION);
    let token = sent.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let refusal = match token.and_then(|token| lock(&world).role(token)) {
        Some(Role::Operator) => None,
        Some(_) if reads => None,
        Some(_) => Some((
            StatusCode::FORBIDDEN,
            code::FORBIDDEN,
            "a reader may only look",
        )),
        None => Some((
            StatusCode::UNAUTHORIZED,
            code::UNAUTHORIZED,
            "unknown token",
        )),
    };
    if let Some((status, code, message)) = refusal {
        return Refusal(status, code, message.to_owned()).into_response();
    }
    let response = next.run(request).await;
    if !reads && response.status().is_success() {
        lock(&world).mutations.push(call);
    }
    response
}

async fn capabilities() -> Answer<Capabilities> {
    let capabilities = json!({
        "product": "systemprompt",
        "version": "0.0.0-fake",
        "features": ["history", "rollback", "logs", "idempotency", "secrets", "volumes"],
        "strategies": ["rolling"],
        "engine": {"name": "fake", "notes": []},
    });
    data(serde_json::from_value(capabilities).expect("capabilities"))
}

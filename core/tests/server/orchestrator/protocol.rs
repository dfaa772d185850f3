//! What it is asked, and what it answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};

use super::World;
use super::tenant::Tenant;

/// A release that is wanted.
#[derive(Clone, Deserialize)]
pub(super) struct Wanted {
    pub(super) turn: u64,
    pub(super) deployment: u64,
    pub(super) restart: bool,
    pub(super) services: Vec<Service>,
}

/// A command that is to run once.
#[derive(Deserialize)]
pub(super) struct Task {
    pub(super) turn: u64,
    pub(super) deployment: u64,
    pub(super) service: Service,
}

#[derive(Clone, Deserialize)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) image: Image,
    pub(super) command: Option<Vec<String>>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) replicas: usize,
    pub(super) resources: Resources,
    pub(super) health: Health,
    pub(super) routes: Vec<Route>,
}

#[derive(Clone, Deserialize)]
pub(super) struct Image {
    pub(super) reference: String,
    pub(super) tls: bool,
    pub(super) token: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Resources {
    pub(super) memory_bytes: Option<u64>,
    pub(super) cpu_millis: Option<u32>,
    pub(super) pids: Option<u32>,
    pub(super) read_only: bool,
    pub(super) best_effort: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Health {
    pub(super) probe: Probe,
    pub(super) interval_ms: u64,
    pub(super) timeout_ms: u64,
    pub(super) start_period_ms: u64,
    pub(super) retries: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum Probe {
    Http { path: String, status: u16 },
    Tcp,
    Process,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Route {
    pub(super) host: Option<String>,
    pub(super) path: String,
}

impl Service {
    /// The same for two only where the instances of the one do for the other.
    pub(super) fn key(&self) -> String {
        let Self {
            image,
            command,
            env,
            resources,
            health,
            ..
        } = self;
        // The registry may have moved meanwhile.
        let (_, image) = image.reference.split_once('@').unwrap();
        format!("{image} {command:?} {env:?} {resources:?} {health:?}")
    }
}

pub(super) fn router(world: &Arc<World>) -> Router {
    Router::new()
        .route("/v1/engine", get(about))
        .route("/v1/tenants/{tenant}", axum::routing::delete(remove))
        .route("/v1/tenants/{tenant}/place", put(place))
        .route("/v1/tenants/{tenant}/release", put(apply).get(observe))
        .route("/v1/tenants/{tenant}/run", post(run))
        .route("/v1/tenants/{tenant}/logs", get(logs))
        .with_state(Arc::clone(world))
}

async fn about() -> Json<Value> {
    Json(json!({
        "protocol": 1,
        "name": "orchestrator of the tests",
        "notes": ["it replaces instances one by one"],
        "enforces": ["memory", "cpu", "pids", "read_only"],
        "of a later version": true,
    }))
}

async fn place(
    State(world): State<Arc<World>>,
    Path(tenant): Path<String>,
    Json(wanted): Json<Value>,
) -> Json<Value> {
    let services: Vec<String> = serde_json::from_value(wanted["services"].clone()).unwrap();
    let known = world.tenants.lock().unwrap().get(&tenant).cloned();
    let found = if let Some(found) = known {
        found
    } else {
        let new = Tenant::new(&world, &tenant).await;
        let mut tenants = world.tenants.lock().unwrap();
        Arc::clone(tenants.entry(tenant).or_insert(new))
    };
    Json(found.place(services).await)
}

async fn apply(
    State(world): State<Arc<World>>,
    Path(tenant): Path<String>,
    Json(wanted): Json<Wanted>,
) -> Response {
    match tenant_of(&world, &tenant) {
        Ok(tenant) => match tenant.want(wanted).await {
            Ok(()) => StatusCode::NO_CONTENT.into_response(),
            Err(turn) => outdated(turn),
        },
        Err(missing) => missing,
    }
}

async fn observe(State(world): State<Arc<World>>, Path(tenant): Path<String>) -> Response {
    let known = tenant_of(&world, &tenant);
    match known.map(|tenant| tenant.observed()) {
        Ok(Some(observed)) => Json(observed).into_response(),
        Ok(None) => refusal(StatusCode::NOT_FOUND, "not_found", "nothing is wanted"),
        Err(missing) => missing,
    }
}

async fn run(
    State(world): State<Arc<World>>,
    Path(tenant): Path<String>,
    Json(task): Json<Task>,
) -> Response {
    let tenant = match tenant_of(&world, &tenant) {
        Ok(tenant) => tenant,
        Err(missing) => return missing,
    };
    match tenant.run_once(task).await {
        Ok(ran) => Json(ran).into_response(),
        Err(Some(turn)) => outdated(turn),
        Err(None) => refusal(
            StatusCode::UNPROCESSABLE_ENTITY,
            "image_not_found",
            "the image is not there",
        ),
    }
}

async fn remove(State(world): State<Arc<World>>, Path(tenant): Path<String>) -> StatusCode {
    let known = world.tenants.lock().unwrap().remove(&tenant);
    if let Some(tenant) = known {
        tenant.end().await;
    }
    StatusCode::NO_CONTENT
}

async fn logs(
    State(world): State<Arc<World>>,
    Path(tenant): Path<String>,
    Query(query): Query<BTreeMap<String, usize>>,
) -> Response {
    let tenant = match tenant_of(&world, &tenant) {
        Ok(tenant) => tenant,
        Err(missing) => return missing,
    };
    let after = query.get("after").copied().unwrap_or_default();
    let lines = stream::unfold(after, move |read| {
        let tenant = Arc::clone(&tenant);
        async move {
            let lines = tenant.lines.behind(read).await;
            let bytes = Bytes::from(lines.concat());
            Some((Ok::<_, std::io::Error>(bytes), read + lines.len()))
        }
    });
    Body::from_stream(lines).into_response()
}

fn tenant_of(world: &World, tenant: &str) -> Result<Arc<Tenant>, Response> {
    let tenants = world.tenants.lock().unwrap();
    let missing = || refusal(StatusCode::NOT_FOUND, "not_found", "no such tenant");
    tenants.get(tenant).cloned().ok_or_else(missing)
}

fn outdated(turn: u64) -> Response {
    let message = format!("it has turn {turn}");
    refusal(StatusCode::CONFLICT, "outdated", &message)
}

fn refusal(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(json!({ "code": code, "message": message }))).into_response()
}

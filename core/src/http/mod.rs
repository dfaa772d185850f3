//! The Management API over HTTP: routes, their guards, and the listener.
//!
//! Handlers translate between the wire and the platform; they decide nothing about deployments.

mod api;
mod audit;
mod collect;
mod dashboard;
mod deploy;
mod error;
mod events;
mod extract;
mod fallback;
mod guard;
mod history;
mod idempotency;
mod limit;
mod listener;
mod logs;
mod openapi;
mod operations;
mod registry_guard;
mod registry_token;
mod routes;
mod secrets;
mod standby;
mod tenants;
mod tokens;
mod unknown;
mod volumes;
mod wire;

pub(crate) use api::router;
pub(crate) use error::ApiError;
pub(crate) use limit::Limiter;
pub(crate) use listener::Listener;
pub(crate) use standby::standby_router;

/// The largest body of a request to the API. The registry has its own limits.
const MAX_BODY: usize = 1024 * 1024;

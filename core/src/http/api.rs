//! The whole application: API, registry, dashboard and what answers everything else.

use std::any::Any;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse as _, Response};
use tower_http::catch_panic::CatchPanicLayer;

use super::registry_guard::RegistryGuard;
use super::{ApiError, dashboard, fallback, guard, limit, routes};
use crate::platform::App;

/// Puts everything together. `web` is the folder of the dashboard.
pub(crate) fn router(app: &App, web: Option<&Path>) -> Router {
    let mut api = Router::new();
    for route in routes::table() {
        let (path, handler) = route.into_router(app);
        api = api.route(path, handler);
    }
    let access = Arc::new(RegistryGuard(App::clone(app)));
    let limits = registry::Limits {
        blob: app.settings.limits.max_upload_bytes,
        ..registry::Limits::default()
    };
    let registry = registry::router_with(Arc::clone(&app.images), access, limits);
    let api = api
        .method_not_allowed_fallback(fallback::method_not_allowed)
        .merge(dashboard::router(web))
        .fallback(fallback::not_found)
        .with_state(App::clone(app))
        .merge(registry);
    caught(api)
        .layer(from_fn_with_state(App::clone(app), limit::limit))
        .layer(from_fn_with_state(App::clone(app), guard::observe))
}

/// With an answer to whoever meets a fault.
fn caught(router: Router) -> Router {
    router.layer(CatchPanicLayer::custom(panicked))
}

/// A fault of ours is answered as every other refusal, and not by a closed connection. Where it happened is on standard
/// error already.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    tracing::error!("a request met a fault of the server");
    ApiError::fault().into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{Request, StatusCode};
    use axum::routing::get;
    use http_body_util::BodyExt as _;
    use hyper::service::Service as _;
    use hyper_util::service::TowerToHyperService;

    use super::*;

    #[tokio::test]
    async fn a_fault_in_a_handler_is_answered_in_the_contracts_shape() {
        async fn fails() -> &'static str {
            panic!("a fault for the test")
        }
        let router = Router::new().route("/", get(fails));
        let service = TowerToHyperService::new(caught(router));
        let answer = service.call(Request::new(Body::empty())).await.unwrap();
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["error"]["code"], "internal");
    }
}

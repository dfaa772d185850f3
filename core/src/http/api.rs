//! The whole application: API, registry, dashboard and what answers everything else.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;

use super::{dashboard, fallback, guard, limit, routes};
use crate::platform::App;

/// Puts everything together. `web` is the folder of the dashboard.
pub(crate) fn router(app: &App, web: Option<&Path>) -> Router {
    let mut api = Router::new();
    for route in routes::table() {
        let (path, handler) = route.into_router(app);
        api = api.route(path, handler);
    }
    let access = Arc::clone(&app.registry) as Arc<dyn registry::Authorize>;
    let limits = registry::Limits {
        blob: app.settings.limits.max_upload_bytes,
        ..registry::Limits::default()
    };
    let registry = registry::router_with(Arc::clone(&app.images), access, limits);
    api.method_not_allowed_fallback(fallback::method_not_allowed)
        .merge(dashboard::router(web))
        .fallback(fallback::not_found)
        .with_state(App::clone(app))
        .merge(registry)
        .layer(from_fn_with_state(App::clone(app), limit::limit))
        .layer(from_fn_with_state(App::clone(app), guard::observe))
}

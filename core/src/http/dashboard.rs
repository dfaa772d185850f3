//! The dashboard: static files, no secrets, nothing from elsewhere.

use std::path::Path;

use axum::Router;
use axum::handler::HandlerWithoutStateExt;
use axum::http::{HeaderValue, header};
use axum::middleware::map_response;
use axum::response::{Html, Response};
use axum::routing::get;
use tower_http::services::{ServeDir, ServeFile};

use super::fallback;
use crate::platform::App;

/// First segments of the paths that the server itself answers.
const RESERVED: [&str; 6] = ["api", "v2", "token", "healthz", "readyz", "metrics"];

/// Scripts, styles and requests of this very origin only; no frames, no plug-ins, no inline code.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; \
    form-action 'self'; frame-ancestors 'none'";

const PLAIN: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>systemprompt</title>\
    <h1>systemprompt</h1><p>The platform is running. Its interface is described at \
    <a href=/api/v1/openapi.json>/api/v1/openapi.json</a>.\n";

/// The files of `web` at `/`; a short page where there are none.
pub(super) fn router(web: Option<&Path>) -> Router<App> {
    let router = match web.filter(|folder| folder.join("index.html").is_file()) {
        Some(folder) => files(folder),
        None => Router::new().route("/", get(async || Html(PLAIN))),
    };
    router.layer(map_response(async |mut response: Response| {
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(POLICY),
        );
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        headers.insert(
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }))
}

/// A route for each entry of the folder rather than a wildcard at the root: what is not a file of
/// the dashboard is answered as everywhere else, in the contract's error shape.
fn files(folder: &Path) -> Router<App> {
    let mut router = Router::new().route_service("/", ServeFile::new(folder.join("index.html")));
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !is_plain(&name) || RESERVED.contains(&name.as_str()) {
            tracing::warn!(
                name,
                "a file of the dashboard is not served: its name is reserved"
            );
            continue;
        }
        let path = entry.path();
        router = if path.is_dir() {
            let missing = fallback::not_found.into_service();
            router.nest_service(&format!("/{name}"), ServeDir::new(path).fallback(missing))
        } else {
            router.route_service(&format!("/{name}"), ServeFile::new(path))
        };
    }
    router
}

/// Neither hidden nor with a meaning in a route's path.
fn is_plain(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !name.starts_with('.') && name.chars().all(allowed)
}

//! The streamable HTTP transport, for clients that are not the parent process.
//!
//! Every request stands alone (no sessions), so a restart of the server is not noticed and
//! nothing grows with the number of clients. A web page must not reach a server on loopback
//! through the user's browser: requests with a foreign `Host` (DNS rebinding) or a foreign
//! `Origin` are refused, as the specification of the transport demands. There is no TLS here.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use rmcp::ServerHandler;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::run::GRACE;
use crate::{ServeArguments, ServeError};

/// Environment variable with the bearer token that clients must send.
const TOKEN: &str = "SYSTEMPROMPT_MCP_TOKEN";
/// No request of these servers is longer.
const MAX_BODY: usize = 1024 * 1024;

pub(crate) async fn serve<S>(
    service: S,
    address: SocketAddr,
    arguments: &ServeArguments,
    stop: CancellationToken,
) -> Result<(), ServeError>
where
    S: ServerHandler + Clone + Send + Sync + 'static,
{
    if !address.ip().is_loopback() && !arguments.insecure {
        return Err(ServeError::NotLoopback(address));
    }
    let token = required_token()?;
    let listen = |source| ServeError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let local = listener.local_addr().map_err(listen)?;
    let router = router(service, configuration(local, arguments, &stop), token);
    announce(local);
    serve_until(listener, router, stop).await
}

/// Ends when the server does, at the latest [`GRACE`] after `stop`.
async fn serve_until(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let server =
        axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        ended = server.into_future() => ended.map_err(ServeError::Http),
        () = overdue => {
            tracing::warn!("connections were still open after {} s", GRACE.as_secs());
            Ok(())
        }
    }
}

fn router<S>(
    service: S,
    configuration: StreamableHttpServerConfig,
    token: Option<SecretString>,
) -> Router
where
    S: ServerHandler + Clone + Send + Sync + 'static,
{
    let endpoint = StreamableHttpService::new(
        move || Ok(service.clone()),
        Arc::new(NeverSessionManager::default()),
        configuration,
    );
    Router::new()
        .route_service("/mcp", endpoint)
        .layer(middleware::from_fn_with_state(
            Arc::new(token),
            require_token,
        ))
}

fn configuration(
    local: SocketAddr,
    arguments: &ServeArguments,
    stop: &CancellationToken,
) -> StreamableHttpServerConfig {
    let loopback = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let hosts = loopback
        .into_iter()
        .chain([local.ip().to_string()])
        .chain(arguments.allow_host.iter().cloned());
    StreamableHttpServerConfig::default()
        .with_allowed_hosts(hosts)
        .with_allowed_origins(origins(local, arguments))
        .enforce_origin_validation()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_max_request_body_bytes(MAX_BODY)
        .with_cancellation_token(stop.child_token())
}

/// A page on another port of this machine is another application's: only our own port counts.
fn origins(local: SocketAddr, arguments: &ServeArguments) -> Vec<String> {
    let port = local.port();
    ["localhost", "127.0.0.1", "[::1]"]
        .iter()
        .map(|host| format!("http://{host}:{port}"))
        .chain(arguments.allow_origin.iter().cloned())
        .collect()
}

fn required_token() -> Result<Option<SecretString>, ServeError> {
    let Some(value) = std::env::var_os(TOKEN) else {
        tracing::warn!("{TOKEN} is not set: whoever reaches this address can call every tool");
        return Ok(None);
    };
    let token = value.into_string().unwrap_or_default();
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(ServeError::UnusableToken);
    }
    Ok(Some(token.into()))
}

async fn require_token(
    State(token): State<Arc<Option<SecretString>>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(token) = token.as_ref() else {
        return next.run(request).await;
    };
    if bearer(request.headers()).is_some_and(|sent| same(sent, token)) {
        return next.run(request).await;
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"mcp\"")];
    let text = format!("send the token of {TOKEN} as `Authorization: Bearer …`\n");
    (StatusCode::UNAUTHORIZED, challenge, text).into_response()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn same(sent: &str, token: &SecretString) -> bool {
    sent.as_bytes()
        .ct_eq(token.expose_secret().as_bytes())
        .into()
}

/// The URL is the result of starting the server, so it goes to standard output. Whoever started
/// it may have closed that again, which is no reason to stop.
fn announce(local: SocketAddr) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "http://{local}/mcp").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authorization(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        headers
    }

    #[test]
    fn the_bearer_token_is_read_in_any_spelling_of_the_scheme() {
        assert_eq!(bearer(&authorization("Bearer abc")), Some("abc"));
        assert_eq!(bearer(&authorization("bearer  abc ")), Some("abc"));
        assert_eq!(bearer(&authorization("Basic abc")), None);
        assert_eq!(bearer(&authorization("abc")), None);
        assert_eq!(bearer(&HeaderMap::new()), None);
    }

    #[test]
    fn tokens_are_the_same_only_when_they_are() {
        let token = SecretString::from("s3cret");
        assert!(same("s3cret", &token));
        assert!(!same("s3cre", &token));
        assert!(!same("", &token));
    }
}

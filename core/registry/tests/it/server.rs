//! Starts this crate's server on a free port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use axum::Router;
use axum::serve::ListenerExt as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci::Store;
use registry::{Action, Authorize, Caller, Decision, Limits, router_with};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// The user of most tests; `bob` is another tenant, `reader` may only pull from `alice`.
pub(crate) const ALICE: (&str, &str) = ("alice", "correct horse");
pub(crate) const BOB: (&str, &str) = ("anything", "bob-token");
pub(crate) const READER: (&str, &str) = ("anything", "reader-token");

/// Tokens as passwords, each for the repositories below one name.
pub(crate) struct Tenants;

impl Authorize for Tenants {
    fn authorize(&self, caller: &Caller, repository: Option<&str>, action: Action) -> Decision {
        let header = caller.headers.get("authorization");
        let header = header.and_then(|value| value.to_str().ok());
        let (tenant, may_push) = match header.and_then(password).as_deref() {
            Some("correct horse") => ("alice", true),
            Some("bob-token") => ("bob", true),
            Some("reader-token") => ("alice", false),
            _ => return Decision::Challenge("Basic realm=\"test\"".to_owned()),
        };
        let own = repository.is_none_or(|name| name.split('/').next() == Some(tenant));
        if own && (may_push || action == Action::Pull) {
            Decision::Allow
        } else {
            Decision::Deny
        }
    }
}

fn password(header: &str) -> Option<String> {
    let decoded = STANDARD.decode(header.strip_prefix("Basic ")?).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    text.split_once(':')
        .map(|(_, password)| password.to_owned())
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) folder: Arc<TempDir>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with(Limits::default(), |router| router)
    }

    /// With limits, and with layers around the router.
    pub(crate) fn with(limits: Limits, wrap: impl FnOnce(Router) -> Router) -> Self {
        Self::at(
            Arc::new(tempfile::tempdir().unwrap()),
            Arc::new(Tenants),
            limits,
            wrap,
        )
    }

    /// Over an existing folder, as after a restart.
    pub(crate) fn at(
        folder: Arc<TempDir>,
        authorize: Arc<dyn Authorize>,
        limits: Limits,
        wrap: impl FnOnce(Router) -> Router,
    ) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Self::on(listener, folder, authorize, limits, wrap)
    }

    /// On a port that something had to know beforehand.
    pub(crate) fn on(
        listener: std::net::TcpListener,
        folder: Arc<TempDir>,
        authorize: Arc<dyn Authorize>,
        limits: Limits,
        wrap: impl FnOnce(Router) -> Router,
    ) -> Self {
        let store = Arc::new(Store::open(folder.path()).unwrap());
        let router = wrap(router_with(store, authorize, limits));
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || serve(listener, router, stopped));
        Self {
            address,
            folder,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/v2/{path}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in the server thread has been printed already.
            let _ = thread.join();
        }
    }
}

fn serve(listener: std::net::TcpListener, router: Router, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        // As the real server does: an answer's last segment waits for nothing.
        let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
        // Without grace: a client's idle connection must not hold up the end of a test.
        tokio::select! {
            served = axum::serve(listener, router).into_future() => served.unwrap(),
            _ = stopped => {}
        }
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
}

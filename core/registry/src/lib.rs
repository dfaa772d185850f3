//! An OCI Distribution 1.1 server over a store on disk, as a router for axum.
//!
//! Who may do what is decided by an [`Authorize`] given to it: this crate knows neither tenants nor
//! tokens. Blobs stream in both directions through bounded buffers; uploads lie in files, so that
//! they go on after a broken connection or a restart. There is no catalogue of repositories, because
//! it would tell one tenant of the others.

mod authorize;
mod blobs;
mod body;
mod dispatch;
mod error;
mod manifests;
mod referrers;
mod route;
mod session;
mod tags;
mod uploads;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::any;
use oci::{Digest, Repository, Store};

pub use authorize::{Action, Authorize, Caller, Decision, Needed};
pub use error::too_many_requests;

use error::RegistryError;
use session::Sessions;

/// What the server takes from clients at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of one blob.
    pub blob: u64,
    /// Bytes of one manifest.
    pub manifest: u64,
    /// Without a byte of a request body.
    pub idle: Duration,
    /// Uploads begun and not finished.
    pub uploads: usize,
    /// The same of one repository: whoever pushes to one keeps nobody from pushing to another.
    pub uploads_of_repository: usize,
    /// An upload nobody has continued for this long is thrown away.
    pub upload_life: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            blob: 16 * 1024 * 1024 * 1024,
            manifest: 4 * 1024 * 1024,
            idle: Duration::from_mins(1),
            uploads: 512,
            uploads_of_repository: 64,
            upload_life: Duration::from_hours(24),
        }
    }
}

/// The server's routes, all under `/v2`, with the default limits.
pub fn router(store: Arc<Store>, authorize: Arc<dyn Authorize>) -> Router {
    router_with(store, authorize, Limits::default())
}

/// The server's routes with limits of one's own.
pub fn router_with(store: Arc<Store>, authorize: Arc<dyn Authorize>, limits: Limits) -> Router {
    let sessions = Sessions::open(store.root(), limits);
    let registry = Arc::new(Registry {
        store,
        authorize,
        limits,
        sessions,
    });
    Router::new()
        .route("/v2", any(dispatch::check))
        .route("/v2/", any(dispatch::check))
        .route("/v2/{*path}", any(dispatch::dispatch))
        .with_state(registry)
}

/// What every request works with.
struct Registry {
    store: Arc<Store>,
    authorize: Arc<dyn Authorize>,
    limits: Limits,
    sessions: Sessions,
}

impl Registry {
    /// Removes a manifest or a blob, unless an image that is needed needs it.
    fn remove<T>(
        &self,
        repository: &Repository,
        digest: &Digest,
        remove: impl FnOnce() -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let needed = self.authorize.needed(repository.as_str());
        let Needed { images, hold } = needed.ok_or(RegistryError::TooManyRequests)?;
        if self.store.closure(repository, images)?.contains(digest) {
            return Err(RegistryError::Needed);
        }
        let removed = remove();
        drop(hold);
        removed
    }
}

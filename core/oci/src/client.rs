//! A blocking client of one registry: OCI Distribution 1.1 with Docker's token authentication.
//!
//! A client may be shared by threads. It knows nothing of image references with a registry in them,
//! of credential files or of platforms: its caller has decided all that.

mod auth;
mod blobs;
mod body;
mod challenge;
mod chunks;
mod connection;
mod counters;
mod error;
mod manifests;
mod options;
mod referrers;
mod retry;
mod transport;
mod upload;

pub(crate) use blobs::Mounted;
pub use body::{BlobSource, StoredBlob};
pub use counters::Counters;
pub use error::{Answer, CallSite, ClientError};
pub use manifests::{ReceivedManifest, TagOrDigest};
pub use options::{
    BlobState, ClientOptions, Credentials, Interrupt, PlainHttp, Progress, ProgressHook,
    RetryPolicy, Timeouts,
};

use chunks::Chunks;
use retry::Patience;
use transport::Transport;

/// A client of one registry.
#[derive(Debug)]
pub struct Client {
    transport: Transport,
    chunks: Chunks,
}

impl Client {
    /// A client of `registry`, `host` or `host:port`. Nothing is sent yet.
    pub fn new(registry: &str, options: ClientOptions) -> Result<Self, ClientError> {
        Ok(Self {
            transport: Transport::new(registry, options)?,
            chunks: Chunks::of(registry),
        })
    }

    /// What the client has done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.transport.meter().read()
    }

    /// Tells whoever wants to know how a blob comes along.
    pub(crate) fn tell(&self, progress: Progress) {
        if let Some(hook) = &self.transport.options().progress {
            hook(progress);
        }
    }

    fn patience(&self) -> Patience<'_> {
        Patience::new(self.transport.options())
    }
}

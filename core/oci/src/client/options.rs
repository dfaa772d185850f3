//! What a caller may decide about a registry client.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use crate::digest::Digest;
use crate::reference::is_loopback_registry;

/// A name and a password or token for one registry.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The user's name; registries with tokens often ignore it.
    pub username: String,
    /// The password or token.
    pub password: SecretString,
}

/// Time limits. None of them bounds a transfer that makes progress.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// To look up, connect and shake hands.
    pub connect: Duration,
    /// Without a byte read or written; also how long an answer may take to begin.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            idle: Duration::from_mins(1),
        }
    }
}

/// How long to keep trying what may work the next time.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    /// Tries altogether, the first included.
    pub attempts: u32,
    /// No new try begins later than this after the first.
    pub total: Duration,
    /// The pause after the first failure; it doubles with each further one.
    pub first_pause: Duration,
    /// The longest pause we choose. A server's `Retry-After` may be longer, within `total`.
    pub longest_pause: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 5,
            total: Duration::from_mins(5),
            first_pause: Duration::from_millis(250),
            longest_pause: Duration::from_secs(10),
        }
    }
}

/// Where plain HTTP is acceptable.
#[derive(Debug, Clone)]
pub struct PlainHttp {
    /// For registries on this machine.
    pub loopback: bool,
    /// For these registries too, `host` or `host:port`, exactly as named.
    pub registries: Vec<String>,
}

impl Default for PlainHttp {
    fn default() -> Self {
        Self {
            loopback: true,
            registries: Vec::new(),
        }
    }
}

impl PlainHttp {
    /// Whether `registry` (`host` or `host:port`) may be spoken to without TLS.
    #[must_use]
    pub fn allows(&self, registry: &str) -> bool {
        (self.loopback && is_loopback_registry(registry))
            || self.registries.iter().any(|named| named == registry)
    }
}

/// Where a blob stands on its way to the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobState {
    /// The repository has it.
    Exists,
    /// It was mounted from another repository.
    Mounted,
    /// It was written into the registry's own store when it was made.
    Placed,
    /// It is being sent.
    Sending,
    /// It has been sent.
    Sent,
}

/// How a blob of a push comes along. `sent` starts anew when an upload must.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The blob.
    pub digest: Digest,
    /// Where it stands.
    pub state: BlobState,
    /// Bytes sent so far.
    pub sent: u64,
    /// The blob's length in bytes.
    pub total: u64,
}

/// Is told about every part of an upload and about every blob that is done with, from the thread
/// that sends it.
pub type ProgressHook = Arc<dyn Fn(Progress) + Send + Sync>;

/// Says that the caller wants no more of it; asked often, from any thread.
pub type Interrupt = Arc<dyn Fn() -> bool + Send + Sync>;

/// Everything a client needs besides the registry's name.
#[derive(Clone)]
pub struct ClientOptions {
    /// None means anonymous.
    pub credentials: Option<Credentials>,
    /// Time limits.
    pub timeouts: Timeouts,
    /// Patience.
    pub retry: RetryPolicy,
    /// Where plain HTTP is acceptable.
    pub plain_http: PlainHttp,
    /// A PEM file of root certificates that replaces the built-in ones, as `SSL_CERT_FILE` does.
    pub root_certificates: Option<PathBuf>,
    /// PEM files of certificates that are believed besides those.
    pub further_certificates: Vec<PathBuf>,
    /// How the client names itself.
    pub user_agent: String,
    /// Is told how uploads come along.
    pub progress: Option<ProgressHook>,
    /// Ends what is under way with [`ClientError::Interrupted`](super::ClientError::Interrupted).
    pub interrupt: Option<Interrupt>,
}

impl ClientOptions {
    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupt.as_ref().is_some_and(|interrupt| interrupt())
    }
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            credentials: None,
            timeouts: Timeouts::default(),
            retry: RetryPolicy::default(),
            plain_http: PlainHttp::default(),
            root_certificates: trust::from_environment(),
            further_certificates: Vec::new(),
            user_agent: concat!("systemprompt-oci/", env!("CARGO_PKG_VERSION")).to_owned(),
            progress: None,
            interrupt: None,
        }
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions")
            .field("credentials", &self.credentials)
            .field("timeouts", &self.timeouts)
            .field("retry", &self.retry)
            .field("plain_http", &self.plain_http)
            .field("root_certificates", &self.root_certificates)
            .field("further_certificates", &self.further_certificates)
            .field("user_agent", &self.user_agent)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_loopback_and_the_named() {
        let mut policy = PlainHttp::default();
        assert!(policy.allows("localhost:5000"));
        assert!(!policy.allows("registry.example.com"));
        policy.registries.push("registry.example.com".to_owned());
        assert!(policy.allows("registry.example.com"));
        assert!(!policy.allows("registry.example.com:5000"));
        policy.loopback = false;
        assert!(!policy.allows("127.0.0.1:5000"));
    }

    #[test]
    fn a_password_does_not_print() {
        let options = ClientOptions {
            credentials: Some(Credentials {
                username: "u".to_owned(),
                password: "hunter2".into(),
            }),
            ..ClientOptions::default()
        };
        assert!(!format!("{options:?}").contains("hunter2"));
    }
}

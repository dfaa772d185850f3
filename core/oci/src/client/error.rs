//! What can go wrong between this client and a registry, and whether trying again may help.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use crate::digest::Digest;
use crate::manifest::ParseManifestError;
use crate::store::StoreError;

/// Which call, on what. The target is an address without its query, which may hold session state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallSite {
    /// The operation: `upload blob` for instance.
    pub call: &'static str,
    /// Method and address.
    pub target: String,
}

impl fmt::Display for CallSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} ({})", self.call, self.target)
    }
}

/// What the registry said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The first error's code, `MANIFEST_UNKNOWN` for instance.
    pub code: Option<String>,
    /// The first error's message, or the beginning of whatever else was said.
    pub message: String,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}", self.status)?;
        match (&self.code, self.message.as_str()) {
            (Some(code), "") => write!(f, " {code}"),
            (Some(code), message) => write!(f, " {code}: {message}"),
            (None, "") => Ok(()),
            (None, message) => write!(f, ": {message}"),
        }
    }
}

/// Why a registry operation failed. No variant ever holds a credential.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Transient: no connection, or it broke.
    #[error("{site}: the connection failed")]
    Unreachable {
        /// Where.
        site: Box<CallSite>,
        /// The cause.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// Transient: nothing came or went for too long.
    #[error("{site}: timed out")]
    TimedOut {
        /// Where.
        site: Box<CallSite>,
        /// The cause.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// Transient: too many requests.
    #[error("{site}: the registry asks for patience, {answer}")]
    Throttled {
        /// Where.
        site: Box<CallSite>,
        /// What was said.
        answer: Box<Answer>,
        /// How long the registry wants us to wait.
        retry_after: Option<Duration>,
    },
    /// Transient: the registry has a problem of its own.
    #[error("{site}: the registry failed, {answer}")]
    Unavailable {
        /// Where.
        site: Box<CallSite>,
        /// What was said.
        answer: Box<Answer>,
        /// How long the registry wants us to wait.
        retry_after: Option<Duration>,
    },
    /// Credentials are missing or wrong.
    #[error("{site}: the registry wants other credentials, {answer}")]
    Unauthorized {
        /// Where.
        site: Box<CallSite>,
        /// What was said.
        answer: Box<Answer>,
    },
    /// The credentials are right but do not allow this.
    #[error("{site}: the registry denies it, {answer}")]
    Denied {
        /// Where.
        site: Box<CallSite>,
        /// What was said.
        answer: Box<Answer>,
    },
    /// There is no such thing.
    #[error("{site}: the registry has no such thing, {answer}")]
    NotFound {
        /// Where.
        site: Box<CallSite>,
        /// What was said.
        answer: Box<Answer>,
    },
    /// The registry does not accept the request.
    #[error("{site}: the registry refuses it, {answer}")]
    Refused {
        /// Where.
        site: Box<CallSite>,
        /// What was said.
        answer: Box<Answer>,
    },
    /// The registry's answer does not follow the protocol.
    #[error("{site}: unexpected answer, {detail}")]
    Protocol {
        /// Where.
        site: Box<CallSite>,
        /// What is wrong with it.
        detail: String,
    },
    /// The server's certificate does not convince.
    #[error("{site}: no trusted connection")]
    Untrusted {
        /// Where.
        site: Box<CallSite>,
        /// The cause.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// Plain HTTP where it is not acceptable.
    #[error("{site}: plain HTTP is only for registries on this machine, or named as insecure")]
    Insecure {
        /// Where.
        site: Box<CallSite>,
    },
    /// Content is not what its digest says.
    #[error("{site}: received content with digest {actual}, expected {expected}")]
    DigestMismatch {
        /// Where.
        site: Box<CallSite>,
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// A received manifest cannot be read.
    #[error("{site}: received a manifest that cannot be used")]
    Manifest {
        /// Where.
        site: Box<CallSite>,
        /// The cause.
        #[source]
        source: ParseManifestError,
    },
    /// The blob to send cannot be read, or is shorter than it must be.
    #[error("cannot read blob {digest} to send it")]
    Source {
        /// The blob.
        digest: Digest,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The image names a blob that neither the registry has nor the caller brought.
    #[error("nobody has blob {digest}, which the image needs")]
    NoSource {
        /// The blob.
        digest: Digest,
    },
    /// What was received cannot be written down.
    #[error("cannot write down blob {digest}")]
    Sink {
        /// The blob.
        digest: Digest,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// What was received cannot be stored.
    #[error("cannot store blob {digest}")]
    Store {
        /// The blob.
        digest: Digest,
        /// The cause.
        #[source]
        source: StoreError,
    },
    /// The registry's name makes no address.
    #[error("`{registry}` is not a registry, expected host or host:port")]
    Registry {
        /// The name.
        registry: String,
    },
    /// The caller wanted no more of it.
    #[error("interrupted")]
    Interrupted,
    /// The root certificates cannot be used.
    #[error("cannot use the root certificates")]
    RootCertificates(#[from] trust::TrustError),
}

impl ClientError {
    /// Whether the same call may work the next time.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::TimedOut { .. }
                | Self::Throttled { .. }
                | Self::Unavailable { .. }
        )
    }

    /// What the registry said, if it did.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer> {
        match self {
            Self::Throttled { answer, .. }
            | Self::Unavailable { answer, .. }
            | Self::Unauthorized { answer, .. }
            | Self::Denied { answer, .. }
            | Self::NotFound { answer, .. }
            | Self::Refused { answer, .. } => Some(answer),
            _ => None,
        }
    }

    /// How long the registry wants us to wait, if it said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Throttled { retry_after, .. } | Self::Unavailable { retry_after, .. } => {
                *retry_after
            }
            _ => None,
        }
    }

    pub(super) fn answer_mut(&mut self) -> Option<&mut Answer> {
        match self {
            Self::Throttled { answer, .. }
            | Self::Unavailable { answer, .. }
            | Self::Unauthorized { answer, .. }
            | Self::Denied { answer, .. }
            | Self::NotFound { answer, .. }
            | Self::Refused { answer, .. } => Some(answer),
            _ => None,
        }
    }

    pub(crate) fn has_code(&self, code: &str) -> bool {
        self.answer()
            .is_some_and(|answer| answer.code.as_deref() == Some(code))
    }

    pub(super) fn has_status(&self, status: u16) -> bool {
        self.answer().is_some_and(|answer| answer.status == status)
    }

    /// The variant for an HTTP status that is not a success.
    pub(super) fn from_answer(
        site: CallSite,
        answer: Answer,
        retry_after: Option<Duration>,
    ) -> Self {
        let (site, answer) = (Box::new(site), Box::new(answer));
        match answer.status {
            401 => Self::Unauthorized { site, answer },
            403 => Self::Denied { site, answer },
            404 => Self::NotFound { site, answer },
            429 => Self::Throttled {
                site,
                answer,
                retry_after,
            },
            408 | 500.. => Self::Unavailable {
                site,
                answer,
                retry_after,
            },
            300..=399 => Self::Protocol {
                site,
                detail: format!("an unusable redirect, {answer}"),
            },
            _ => Self::Refused { site, answer },
        }
    }

    /// The variant for a failure below HTTP.
    pub(super) fn from_transport(site: CallSite, error: ureq::Error) -> Self {
        let site = Box::new(site);
        match error {
            ureq::Error::Timeout(_) => Self::TimedOut {
                site,
                source: error.into(),
            },
            ureq::Error::Io(cause) => Self::from_io(site, cause),
            ureq::Error::Tls(_) | ureq::Error::Rustls(_) | ureq::Error::Pem(_) => Self::Untrusted {
                site,
                source: error.into(),
            },
            ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => Self::Unreachable {
                site,
                source: error.into(),
            },
            other => Self::Protocol {
                site,
                detail: other.to_string(),
            },
        }
    }

    /// The variant for a failed read or write on a connection.
    pub(super) fn from_io(site: Box<CallSite>, cause: io::Error) -> Self {
        match cause.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::TimedOut {
                site,
                source: cause.into(),
            },
            // rustls reports a certificate it does not believe this way.
            io::ErrorKind::InvalidData => Self::Untrusted {
                site,
                source: cause.into(),
            },
            _ => Self::Unreachable {
                site,
                source: cause.into(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: u16) -> ClientError {
        let site = CallSite {
            call: "push",
            target: "PUT https://r.io/v2/".to_owned(),
        };
        let answer = Answer {
            status,
            code: Some("X".to_owned()),
            message: "why".to_owned(),
        };
        ClientError::from_answer(site, answer, None)
    }

    #[test]
    fn the_status_tells_whether_to_try_again() {
        for status in [408, 429, 500, 502, 503, 504] {
            assert!(error(status).is_transient(), "{status}");
        }
        for status in [301, 400, 401, 403, 404, 405, 413, 416] {
            assert!(!error(status).is_transient(), "{status}");
        }
    }

    #[test]
    fn the_text_names_call_target_and_answer() {
        assert_eq!(
            error(403).to_string(),
            "cannot push (PUT https://r.io/v2/): the registry denies it, status 403 X: why"
        );
    }
}

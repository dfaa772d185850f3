//! Why a call of the Management API failed.

use std::time::Duration;

/// Why a call of the Management API failed. No variant holds a token.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The configured address cannot be used.
    #[error("the address {url:?} cannot be used: {why}")]
    BadAddress {
        /// As configured.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// 401: the token is unknown, expired or of another kind.
    #[error("{call}: not authorised (401): {message}")]
    Unauthorized {
        /// Method and path.
        call: String,
        /// The server's words.
        message: String,
    },
    /// 403: the token is not for this.
    #[error("{call}: forbidden (403): {message}")]
    Forbidden {
        /// Method and path.
        call: String,
        /// The server's words.
        message: String,
    },
    /// 404, with the server's own code when it sent one.
    #[error("{call}: not found (404): {message}")]
    NotFound {
        /// Method and path.
        call: String,
        /// The server's stable code, or an empty string.
        code: String,
        /// The server's words.
        message: String,
    },
    /// Another 4xx, or a 3xx (redirects are not followed).
    #[error("{call}: refused ({status}): {message}")]
    Refused {
        /// Method and path.
        call: String,
        /// HTTP status.
        status: u16,
        /// The server's stable code, or an empty string.
        code: String,
        /// The server's words.
        message: String,
    },
    /// 429 to the end of the retry budget.
    #[error("{call}: too many requests (429) after {tries} tries: {message}")]
    RateLimited {
        /// Method and path.
        call: String,
        /// How often it was tried.
        tries: u32,
        /// The server's words.
        message: String,
    },
    /// 5xx to the end of the retry budget.
    #[error("{call}: the server failed ({status}) after {tries} tries: {message}")]
    Server {
        /// Method and path.
        call: String,
        /// HTTP status.
        status: u16,
        /// How often it was tried.
        tries: u32,
        /// The server's words.
        message: String,
    },
    /// The server could not be reached, or the connection broke, to the end of the retry budget.
    #[error("{call}: no answer from {host} after {tries} tries")]
    Transport {
        /// Method and path.
        call: String,
        /// Host and port.
        host: String,
        /// How often it was tried.
        tries: u32,
        /// What the network said.
        #[source]
        source: Box<ureq::Error>,
    },
    /// The server's certificate comes from nobody who is believed.
    #[error("{call}: the certificate of {host} is not believed")]
    Untrusted {
        /// Method and path.
        call: String,
        /// Host and port.
        host: String,
        /// What is wrong with it.
        #[source]
        source: Box<ureq::Error>,
    },
    /// The certificates that are to be believed too cannot be used.
    #[error("cannot use the certificates")]
    Certificates(#[from] trust::TrustError),
    /// No answer in time.
    #[error("{call}: no answer from {host} within {} s", limit.as_secs())]
    Timeout {
        /// Method and path.
        call: String,
        /// Host and port.
        host: String,
        /// The limit that passed.
        limit: Duration,
    },
    /// A mutation was sent, and nobody knows whether it was carried out.
    #[error("{call}: it is unknown whether the request was carried out ({what})")]
    OutcomeUnknown {
        /// Method and path.
        call: String,
        /// What happened instead of an answer.
        what: String,
    },
    /// An answer that is not what the contract says.
    #[error("{call}: the answer is not what the contract says: {why}; it begins {snippet:?}")]
    Malformed {
        /// Method and path.
        call: String,
        /// What the reader found.
        why: String,
        /// Its first 500 characters.
        snippet: String,
    },
    /// An event stream broke off.
    #[error("{call}: the event stream broke off")]
    Stream {
        /// Method and path.
        call: String,
        /// What the network said.
        #[source]
        source: std::io::Error,
    },
}

impl ApiError {
    /// The server's stable code, when it sent one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::NotFound { code, .. } | Self::Refused { code, .. } if !code.is_empty() => {
                Some(code)
            }
            _ => None,
        }
    }

    /// Whether the same call may well work a little later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::RateLimited { .. }
                | Self::Server { .. }
                | Self::Transport { .. }
                | Self::Timeout { .. }
                | Self::Stream { .. }
        )
    }
}

//! Requests that get no answer from an instance: why, and what the client is told.

use std::time::Duration;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};

use crate::pool::ConnectError;

/// What hyper, the kernel or the reader of an answer said.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why the proxy answers itself. The text is for the log; clients get [`Failure::message`], which
/// says nothing about addresses inside.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("no instance is serving")]
    NoRelease,
    #[error("no service is routed here")]
    NoRoute,
    #[error("{0}")]
    BadRequest(&'static str),
    #[error("the method is not supported by the proxy")]
    Method,
    #[error("no connection to the instance")]
    Connect(#[from] ConnectError),
    #[error("the instance closed the connection before it answered")]
    Closed(#[source] Cause),
    #[error("the answer of the instance is not valid HTTP")]
    BadAnswer(#[source] Cause),
    #[error("the instance switched to a protocol that was not asked for")]
    BadUpgrade,
    #[error("the instance did not answer within {0:?}")]
    AnswerTimeout(Duration),
    #[error("the client went away while it was sending its request")]
    ClientGone(#[source] Cause),
}

impl Failure {
    /// What an error of the exchange with the instance means.
    pub(crate) fn of_exchange(error: hyper::Error) -> Self {
        if error.is_user() || error.is_body_write_aborted() {
            Self::ClientGone(error.into())
        } else if error.is_parse() {
            Self::BadAnswer(error.into())
        } else {
            Self::Closed(error.into())
        }
    }

    /// Whether another connection may do better: the instance has not said a byte.
    pub(crate) fn is_worth_a_retry(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Closed(_))
    }

    /// Whether the instance is to blame: it has had its chance to answer, and did not.
    pub(crate) fn is_of_the_instance(&self) -> bool {
        match self {
            Self::NoRelease
            | Self::NoRoute
            | Self::BadRequest(_)
            | Self::Method
            | Self::ClientGone(_) => false,
            Self::Connect(_)
            | Self::Closed(_)
            | Self::BadAnswer(_)
            | Self::BadUpgrade
            | Self::AnswerTimeout(_) => true,
        }
    }

    pub(crate) fn response(&self) -> Response<String> {
        let (status, code) = self.status();
        let message = self.message();
        let body = format!(r#"{{"error":{{"code":"{code}","message":"{message}"}}}}"#);
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if matches!(self, Self::NoRelease) {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("2"));
        }
        response
    }

    fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Self::NoRelease => (StatusCode::SERVICE_UNAVAILABLE, "no_release"),
            Self::NoRoute => (StatusCode::NOT_FOUND, "no_route"),
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "bad_request"),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "method_not_supported"),
            Self::Connect(ConnectError::TimedOut { .. }) => {
                (StatusCode::GATEWAY_TIMEOUT, "instance_connect_timeout")
            }
            Self::Connect(_) => (StatusCode::BAD_GATEWAY, "instance_unreachable"),
            Self::Closed(_) => (StatusCode::BAD_GATEWAY, "instance_closed"),
            Self::BadAnswer(_) | Self::BadUpgrade => {
                (StatusCode::BAD_GATEWAY, "instance_bad_answer")
            }
            Self::AnswerTimeout(_) => (StatusCode::GATEWAY_TIMEOUT, "instance_timeout"),
            Self::ClientGone(_) => (StatusCode::BAD_REQUEST, "client_gone"),
        }
    }

    fn message(&self) -> &'static str {
        match self {
            Self::NoRelease => "no release is serving here yet; deploy one, or try again shortly",
            Self::NoRoute => {
                "no service of the release has a route for this host and path; see its `routes`"
            }
            Self::BadRequest(reason) => reason,
            Self::Method => "CONNECT is not supported; send the request to the application itself",
            Self::Connect(ConnectError::TimedOut { .. }) => {
                "the application did not accept a connection in time; see its logs"
            }
            Self::Connect(_) => "the application does not accept connections; see its logs",
            Self::Closed(_) => {
                "the application closed the connection before it answered; see its logs"
            }
            Self::BadAnswer(_) | Self::BadUpgrade => {
                "the application sent an answer that is not valid HTTP; see its logs"
            }
            Self::AnswerTimeout(_) => "the application did not answer in time; see its logs",
            Self::ClientGone(_) => "the request ended before its body was complete; send it again",
        }
    }
}

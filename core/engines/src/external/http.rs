//! HTTP over the socket: one request a connection. What is sent may hold secrets, and is in no error.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::wire::Refusal;
use crate::error::EngineError;

/// The largest answer that is read.
const MAX_ANSWER: usize = 4 << 20;
/// For the head of an answer, and for a whole one where nothing else is said.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How much of an answer that nobody understands is told.
const TOLD: usize = 300;

/// Whoever listens at a socket.
#[derive(Clone)]
pub(super) struct Client {
    socket: PathBuf,
}

/// An answer that was read.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    body: Bytes,
}

/// An answer that goes on for as long as there is something to say. Who drops it hangs up.
pub(super) struct Open {
    pub(super) body: Incoming,
    _connection: AbortOnDrop,
}

/// What is asked, in words for people.
#[derive(Debug, Clone, Copy)]
pub(super) struct Action(pub(super) &'static str);

impl Action {
    pub(super) fn failed(self, reason: &(impl ToString + ?Sized)) -> EngineError {
        EngineError::External {
            action: self.0,
            reason: reason.to_string(),
        }
    }
}

impl Client {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks, and reads the whole answer; waits as long as `patience` says, for ever where it says nothing.
    pub(super) async fn ask(
        &self,
        action: Action,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        patience: Option<Duration>,
    ) -> Result<Answer, EngineError> {
        let asked = async {
            let (response, _connection) = self.send(action, method, path, body).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect();
            let body = body
                .await
                .map_err(|error| action.failed(&error))?
                .to_bytes();
            Ok(Answer { status, body })
        };
        match patience {
            None => asked.await,
            Some(limit) => timeout(limit, asked)
                .await
                .map_err(|_| action.failed(&format!("no answer within {} s", limit.as_secs())))?,
        }
    }

    /// Asks for something that goes on.
    pub(super) async fn open(&self, action: Action, path: &str) -> Result<Open, EngineError> {
        let sent = timeout(PATIENCE, self.send(action, Method::GET, path, None)).await;
        let sent = sent.map_err(|_| action.failed("no answer in time"))?;
        let (response, connection) = sent?;
        if response.status() != StatusCode::OK {
            return Err(action.failed(&format!("it answers {}", response.status())));
        }
        Ok(Open {
            body: response.into_body(),
            _connection: connection,
        })
    }

    async fn send(
        &self,
        action: Action,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<(Response<Incoming>, AbortOnDrop), EngineError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| {
            action.failed(&format!(
                "nobody answers at `{}`: {error}",
                self.socket.display()
            ))
        })?;
        let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.map_err(|error| action.failed(&error))?;
        let connection = AbortOnDrop(tokio::spawn(connection).abort_handle());
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "engine")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::<Bytes>::from(body.unwrap_or_default()))
            .map_err(|error| action.failed(&error))?;
        let response = sender.send_request(request).await;
        Ok((response.map_err(|error| action.failed(&error))?, connection))
    }
}

impl Answer {
    /// What it says, where it is one of those that say it.
    pub(super) fn read<T: DeserializeOwned>(self, action: Action) -> Result<T, EngineError> {
        let answer = self.check(action)?;
        serde_json::from_slice(&answer.body)
            .map_err(|error| action.failed(&format!("the answer is not understood: {error}")))
    }

    /// Refuses what is no success, in the words of the other side.
    pub(super) fn check(self, action: Action) -> Result<Self, EngineError> {
        if self.status.is_success() {
            return Ok(self);
        }
        let said = match self.refusal() {
            Some(refusal) => refusal.message,
            None => String::from_utf8_lossy(&self.body[..self.body.len().min(TOLD)]).into_owned(),
        };
        Err(action.failed(&format!("{}: {said}", self.status)))
    }

    /// Why it is refused, if it says so as it should.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        serde_json::from_slice(&self.body).ok()
    }
}

/// The body of a request.
pub(super) fn body(action: Action, value: &impl Serialize) -> Result<Option<Vec<u8>>, EngineError> {
    let text = serde_json::to_vec(value).map_err(|error| action.failed(&error))?;
    Ok(Some(text))
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

//! One call: sending, trying again, reading the answer.

use std::io::Read;
use std::time::{Duration, Instant, SystemTime};

use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{ApiError, Client};
use crate::error::ErrorBody;
use crate::paths;
use crate::types::ExchangedToken;

/// No answer of this API is longer.
const MAX_ANSWER: u64 = 8 * 1024 * 1024;
/// How much of an unreadable answer is shown.
const SNIPPET: usize = 500;
/// Tries of one call, however much time is left.
const MAX_TRIES: u32 = 6;

/// When a call may be sent a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// Reads, and mutations that carry a key which the server honours.
    Always,
    /// Mutations that may have been carried out: only where the server surely did not.
    WhenRefused,
    /// One try.
    Never,
}

pub(super) struct Call {
    method: http::Method,
    path: String,
    body: Option<Vec<u8>>,
    tenant: bool,
    key: Option<String>,
    after: Option<u64>,
    retry: Retry,
}

impl Call {
    fn new(method: http::Method, path: impl Into<String>, retry: Retry) -> Self {
        Self {
            method,
            path: path.into(),
            body: None,
            tenant: false,
            key: None,
            after: None,
            retry,
        }
    }

    pub(super) fn get(path: impl Into<String>) -> Self {
        Self::new(http::Method::GET, path, Retry::Always)
    }

    pub(super) fn post(path: impl Into<String>) -> Self {
        Self::new(http::Method::POST, path, Retry::WhenRefused)
    }

    /// The same again has the effect of one.
    pub(super) fn put(path: impl Into<String>) -> Self {
        Self::new(http::Method::PUT, path, Retry::Always)
    }

    pub(super) fn delete(path: impl Into<String>) -> Self {
        Self::new(http::Method::DELETE, path, Retry::WhenRefused)
    }

    pub(super) fn json(mut self, body: &impl Serialize) -> Self {
        // The wire types have string keys and no failing serialiser.
        self.body = Some(serde_json::to_vec(body).unwrap_or_default());
        self
    }

    pub(super) fn for_tenant(mut self) -> Self {
        self.tenant = true;
        self
    }

    pub(super) fn key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    pub(super) fn after(mut self, event: u64) -> Self {
        self.after = (event > 0).then_some(event);
        self
    }

    pub(super) fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    pub(super) fn once(self) -> Self {
        self.retry(Retry::Never)
    }

    /// Method and path, as errors name the call. The query stays out: it may hold user input.
    pub(super) fn name(&self) -> String {
        let path = self.path.split('?').next().unwrap_or_default();
        format!("{} {path}", self.method)
    }

    fn request(&self, base: &url::Url, token: &SecretString) -> http::request::Builder {
        let url = format!("{}{}", base.as_str().trim_end_matches('/'), self.path);
        let mut request = http::Request::builder()
            .method(self.method.clone())
            .uri(url)
            .header("accept", "application/json")
            .header("authorization", format!("Bearer {}", token.expose_secret()));
        if self.body.is_some() {
            request = request.header("content-type", "application/json");
        }
        if let Some(key) = &self.key {
            request = request.header("idempotency-key", key);
        }
        if let Some(after) = self.after {
            request = request.header("last-event-id", after.to_string());
        }
        request
    }
}

type Response = http::Response<ureq::Body>;

impl Client {
    pub(super) fn read<T: DeserializeOwned>(&self, call: &Call) -> Result<T, ApiError> {
        let text = self.send(call)?;
        serde_json::from_str(&text).map_err(|e| match &call.key {
            // It was accepted, whatever was to be said about it.
            Some(_) => ApiError::OutcomeUnknown {
                call: call.name(),
                what: format!("the answer cannot be read: {e}"),
            },
            None => ApiError::Malformed {
                call: call.name(),
                why: e.to_string(),
                snippet: snippet(&text),
            },
        })
    }

    /// Sends a call, within its retry budget, and returns the text of a 2xx answer.
    pub(super) fn send(&self, call: &Call) -> Result<String, ApiError> {
        let response = self.open(call, |token| self.dispatch(call, token))?;
        read_text(call, response)
    }

    /// Opens a stream: no limit on its whole, but on every silence in it.
    pub(super) fn open_stream(
        &self,
        call: &Call,
        limit: Duration,
    ) -> Result<(String, ureq::BodyReader<'static>), ApiError> {
        let response = self.open(call, |token| {
            let request = call.request(&self.base, token).body(())?;
            let request = self
                .agent
                .configure_request(request)
                .timeout_global(Some(limit))
                .timeout_per_read(Some(Duration::from_secs(30)))
                .build();
            self.agent.run(request)
        })?;
        Ok((call.name(), response.into_body().into_reader()))
    }

    fn dispatch(&self, call: &Call, token: &SecretString) -> Result<Response, ureq::Error> {
        let request = call.request(&self.base, token);
        match &call.body {
            Some(body) => self.agent.run(request.body(body.as_slice())?),
            None => self.agent.run(request.body(())?),
        }
    }

    fn open(
        &self,
        call: &Call,
        send: impl Fn(&SecretString) -> Result<Response, ureq::Error>,
    ) -> Result<Response, ApiError> {
        match self.try_within_budget(call, &send) {
            Err(ApiError::Unauthorized {
                call: name,
                message,
            }) if call.tenant && self.authenticator.can_try_otherwise() => {
                // Either the exchanged token has ended, or this server wants one. A server
                // without an exchange leaves the first refusal standing.
                match self.exchange() {
                    Ok(()) => self.try_within_budget(call, &send),
                    Err(_) => Err(ApiError::Unauthorized {
                        call: name,
                        message,
                    }),
                }
            }
            other => other,
        }
    }

    fn try_within_budget(
        &self,
        call: &Call,
        send: &impl Fn(&SecretString) -> Result<Response, ureq::Error>,
    ) -> Result<Response, ApiError> {
        let token = self.token_for(call)?;
        let give_up = Instant::now() + self.retry_for;
        let mut tries = 0;
        loop {
            tries += 1;
            let answer = self.classify(call, send(&token), tries);
            let Err(Failed {
                error,
                again: Some(Again { pause }),
            }) = answer
            else {
                return answer.map_err(|failed| failed.error);
            };
            let wait = pause.unwrap_or_else(|| backoff(tries));
            if tries >= MAX_TRIES || Instant::now() + wait > give_up {
                return Err(error);
            }
            std::thread::sleep(wait);
        }
    }

    fn classify(
        &self,
        call: &Call,
        answer: Result<Response, ureq::Error>,
        tries: u32,
    ) -> Result<Response, Failed> {
        let response = match answer {
            Ok(response) => response,
            Err(error) => return Err(self.no_answer(call, error, tries)),
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let pause = retry_after(&response);
        let status = response.status().as_u16();
        let error = refusal(call, response, tries);
        let again = match (call.retry, status) {
            (Retry::Never, _) => false,
            // 429 and 503 say that the server did nothing; the others leave it open.
            (_, 429 | 503) | (Retry::Always, 500 | 502 | 504) => true,
            _ => false,
        };
        if call.retry == Retry::WhenRefused
            && matches!(status, 500 | 502 | 504)
            && call.key.is_some()
        {
            return Err(Failed::finally(ApiError::OutcomeUnknown {
                call: call.name(),
                what: format!("the server answered {status}: {}", message_of(&error)),
            }));
        }
        Err(Failed {
            error,
            again: again.then_some(Again { pause }),
        })
    }

    fn no_answer(&self, call: &Call, error: ureq::Error, tries: u32) -> Failed {
        if is_untrusted(&error) {
            // Nothing was said to a stranger, and the next try meets the same one.
            return Failed::finally(ApiError::Untrusted {
                call: call.name(),
                host: self.host(),
                source: Box::new(error),
            });
        }
        let unsent = was_not_sent(&error);
        if call.retry == Retry::WhenRefused && !unsent && call.key.is_some() {
            return Failed::finally(ApiError::OutcomeUnknown {
                call: call.name(),
                what: error.to_string(),
            });
        }
        let again = call.retry == Retry::Always || (call.retry == Retry::WhenRefused && unsent);
        let timed_out = matches!(error, ureq::Error::Timeout(_));
        let host = self.host();
        let error = match error {
            ureq::Error::Timeout(kind) => ApiError::Timeout {
                call: call.name(),
                host,
                limit: match kind {
                    ureq::Timeout::Connect | ureq::Timeout::Resolve => {
                        self.agent.config().timeouts().connect.unwrap_or_default()
                    }
                    _ => self.agent.config().timeouts().global.unwrap_or_default(),
                },
            },
            error => ApiError::Transport {
                call: call.name(),
                host,
                tries,
                source: Box::new(error),
            },
        };
        Failed {
            error,
            // A silence of 30 s has used up the patience that retries draw on.
            again: (again && !timed_out).then_some(Again { pause: None }),
        }
    }

    fn host(&self) -> String {
        let host = self.base.host_str().unwrap_or_default();
        match self.base.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }

    fn token_for(&self, call: &Call) -> Result<SecretString, ApiError> {
        if !call.tenant || !self.authenticator.exchanges() {
            return Ok(self.authenticator.own_token().clone());
        }
        if self.authenticator.exchanged().is_none() {
            self.exchange()?;
        }
        // A server may issue tokens that live shorter than the margin: use what it gave.
        Ok(self
            .authenticator
            .exchanged()
            .unwrap_or_else(|| self.authenticator.own_token().clone()))
    }

    /// `POST /api/v1/core/oauth/token` as contracts.md has it.
    fn exchange(&self) -> Result<(), ApiError> {
        let call = Call::post(paths::TOKEN_EXCHANGE);
        let form = url::form_urlencoded::Serializer::new(String::new())
            .append_pair(
                "grant_type",
                "urn:ietf:params:oauth:grant-type:token-exchange",
            )
            .append_pair(
                "subject_token",
                self.authenticator.own_token().expose_secret(),
            )
            .append_pair(
                "subject_token_type",
                "urn:ietf:params:oauth:token-type:access_token",
            )
            .append_pair("resource", self.base_url())
            .append_pair("client_id", "sp_web")
            .finish();
        let url = format!("{}{}", self.base_url(), paths::TOKEN_EXCHANGE);
        let answer = self
            .agent
            .post(url)
            .content_type("application/x-www-form-urlencoded")
            .send(form.as_str());
        let response = self.classify(&call, answer, 1).map_err(|f| f.error)?;
        let text = read_text(&call, response)?;
        // The answer holds a token: an error must not quote it.
        let token: ExchangedToken =
            serde_json::from_str(&text).map_err(|e| ApiError::Malformed {
                call: call.name(),
                why: e.to_string(),
                snippet: String::new(),
            })?;
        let lifetime = Duration::from_secs(token.expires_in.unwrap_or(300));
        self.authenticator.keep(token.access_token, lifetime);
        Ok(())
    }
}

/// A failed try: why, and whether another may help.
struct Failed {
    error: ApiError,
    again: Option<Again>,
}

/// Another try, after the pause that the server asked for or one of our own.
struct Again {
    pause: Option<Duration>,
}

impl Failed {
    fn finally(error: ApiError) -> Self {
        Self { error, again: None }
    }
}

fn read_text(call: &Call, response: Response) -> Result<String, ApiError> {
    let mut bytes = Vec::new();
    response
        .into_body()
        .into_reader()
        .take(MAX_ANSWER)
        .read_to_end(&mut bytes)
        .map_err(|source| {
            if call.key.is_some() {
                ApiError::OutcomeUnknown {
                    call: call.name(),
                    what: format!("the answer broke off: {source}"),
                }
            } else {
                ApiError::Stream {
                    call: call.name(),
                    source,
                }
            }
        })?;
    String::from_utf8(bytes).map_err(|e| ApiError::Malformed {
        call: call.name(),
        why: "it is not UTF-8".to_owned(),
        snippet: snippet(&String::from_utf8_lossy(e.as_bytes())),
    })
}

fn refusal(call: &Call, response: Response, tries: u32) -> ApiError {
    let status = response.status().as_u16();
    let text = read_text(call, response).unwrap_or_default();
    let (code, message) = match serde_json::from_str::<ErrorBody>(&text) {
        Ok(body) => (body.error.code, body.error.message),
        Err(_) => (String::new(), snippet(&text)),
    };
    let call = call.name();
    match status {
        401 => ApiError::Unauthorized { call, message },
        403 => ApiError::Forbidden { call, message },
        404 => ApiError::NotFound {
            call,
            code,
            message,
        },
        429 => ApiError::RateLimited {
            call,
            tries,
            message,
        },
        500.. => ApiError::Server {
            call,
            status,
            tries,
            message,
        },
        _ => ApiError::Refused {
            call,
            status,
            code,
            message,
        },
    }
}

fn message_of(error: &ApiError) -> String {
    match error {
        ApiError::Server { message, .. } => message.clone(),
        other => other.to_string(),
    }
}

/// Whether the server showed a certificate that is not believed, or none that can be read. What rustls
/// refuses in the handshake comes as invalid data.
fn is_untrusted(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => true,
        ureq::Error::Io(cause) => cause.kind() == std::io::ErrorKind::InvalidData,
        _ => false,
    }
}

/// Whether the connection failed before anything of the request left this machine.
fn was_not_sent(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => true,
        ureq::Error::Io(io) => io.kind() == std::io::ErrorKind::ConnectionRefused,
        ureq::Error::Timeout(kind) => {
            matches!(kind, ureq::Timeout::Connect | ureq::Timeout::Resolve)
        }
        _ => false,
    }
}

/// `Retry-After` in seconds; the form with a date is rare enough to be left to the backoff.
fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get("retry-after")?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// 100 ms, doubled with every try up to 5 s, of which a half is drawn by lot.
fn backoff(tries: u32) -> Duration {
    let full = Duration::from_millis(100 << tries.min(6)).min(Duration::from_secs(5));
    let lot = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |now| now.subsec_nanos() % 1000);
    full / 2 + full / 2 * lot / 1000
}

fn snippet(text: &str) -> String {
    text.chars().take(SNIPPET).collect()
}

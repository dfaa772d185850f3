//! One request: choose the instance, send, try once more where that is safe, hand on the answer.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::upgrade::OnUpgrade;

use crate::activity::Activity;
use crate::body::{Download, Upload};
use crate::failure::Failure;
use crate::headers;
use crate::listener::Stop;
use crate::pool::{Freshness, Lease};
use crate::route::Flight;
use crate::rules::Asked;
use crate::settings::Settings;
use crate::shared::Shared;
use crate::stats::Counters;
use crate::table::{Choice, Table};
use crate::tunnel::Tunnel;

/// Why a request is forwarded to nobody that has waited.
const GONE: &str = "the connection was closed while the request was waiting";

/// What forwards the requests of all connections of one proxy.
#[derive(Debug)]
pub(crate) struct Forwarder {
    pub(crate) table: Table,
    pub(crate) settings: Settings,
    pub(crate) counters: Arc<Counters>,
}

/// The connection that a request came over.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    /// How the client calls the proxy: `http` or `https`.
    pub(crate) scheme: &'static str,
    pub(crate) stop: Stop,
    /// By which its end is noticed while nobody reads from it. Absent as long as nothing of it waits.
    pub(crate) line: Option<Shared>,
}

/// An upgrade that the client has asked for.
struct Upgrade {
    protocol: HeaderValue,
    client: OnUpgrade,
}

/// An answer and the connection it comes over.
struct Exchange {
    response: Response<Incoming>,
    lease: Lease,
}

/// An exchange that came to nothing, with the request if it can be sent again.
struct Missed {
    failure: Failure,
    request: Option<Request<Upload>>,
}

/// What of a request survives sending it: everything, when it has no body.
struct Replay {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Client {
    async fn gone(&self) {
        match &self.line {
            Some(line) => line.gone().await,
            None => std::future::pending().await,
        }
    }
}

impl Forwarder {
    /// Answers one request; failures become answers too.
    pub(crate) async fn answer(
        &self,
        client: &Client,
        request: Request<Incoming>,
    ) -> Response<Download> {
        let started = Instant::now();
        self.counters.requested();
        let response = match self.forward(client, request, started).await {
            Ok(response) => response,
            Err(failure) => self.answer_failure(client, &failure).map(Download::own),
        };
        self.counters.answered(response.status(), started.elapsed());
        response
    }

    pub(crate) fn answer_failure(&self, client: &Client, failure: &Failure) -> Response<String> {
        let cause = std::error::Error::source(failure).map(ToString::to_string);
        tracing::debug!(client = %client.address, cause, "request not forwarded: {failure}");
        self.counters.failed();
        failure.response()
    }

    async fn forward(
        &self,
        client: &Client,
        mut request: Request<Incoming>,
        started: Instant,
    ) -> Result<Response<Download>, Failure> {
        if request.method() == Method::CONNECT {
            return Err(Failure::Method);
        }
        let host = headers::requested_host(&request)?;
        let upgrade = headers::requested_upgrade(&request).map(|protocol| Upgrade {
            protocol,
            client: hyper::upgrade::on(&mut request),
        });
        let asked = Asked {
            // One that is no text is no name that a rule could have.
            host: host.as_ref().and_then(|host| host.to_str().ok()),
            path: request.uri().path(),
        };
        let flight = match self.table.choose(started, asked)? {
            Choice::Instance(flight) => flight,
            Choice::Awaited => {
                let come = self.table.wait(asked, self.settings.answer_timeout);
                tokio::select! {
                    biased;
                    // What it has given up is done by nobody.
                    () = client.gone() => return Err(Failure::ClientGone(GONE.into())),
                    come = come => come?,
                }
            }
        };
        let activity = Arc::new(Activity::new());
        let (mut head, body) = request.into_parts();
        headers::rewrite_request(
            &mut head.headers,
            host.as_ref(),
            flight.target().address,
            client,
            self.settings.forwarded,
        );
        if let Some(upgrade) = &upgrade {
            headers::set_upgrade(&mut head.headers, upgrade.protocol.clone());
        }
        let request = outgoing(head, Upload::new(body, &activity, &self.counters));
        let (exchange, flight) = self.exchange(flight, request, &activity).await?;
        self.finish(client, exchange, flight, upgrade).await
    }

    /// Sends the request, a second time if the first connection failed before the instance had said
    /// a byte: to another instance if one serves by then. The second attempt is the last, so it
    /// risks no connection that has been waiting.
    async fn exchange(
        &self,
        flight: Flight,
        request: Request<Upload>,
        activity: &Activity,
    ) -> Result<(Exchange, Flight), Failure> {
        let missed = match self.send(&flight, request, activity, Freshness::Any).await {
            Ok(exchange) => return Ok((exchange, flight)),
            Err(missed) => missed,
        };
        let Some(request) = missed.request.filter(|_| missed.failure.is_worth_a_retry()) else {
            return Err(missed.failure);
        };
        tracing::debug!(
            target_id = flight.target().id,
            "trying again: {}",
            missed.failure
        );
        self.counters.retried();
        let flight = self.table.choose_again(flight).ok_or(Failure::NoRelease)?;
        match self.send(&flight, request, activity, Freshness::New).await {
            Ok(exchange) => Ok((exchange, flight)),
            Err(missed) => Err(missed.failure),
        }
    }

    /// One attempt. That it came to nothing is noted here, that it was answered only once the
    /// answer is known to be one.
    async fn send(
        &self,
        flight: &Flight,
        request: Request<Upload>,
        activity: &Activity,
        freshness: Freshness,
    ) -> Result<Exchange, Missed> {
        let sent = self.attempt(flight, request, activity, freshness).await;
        sent.inspect_err(|missed| {
            if missed.failure.is_of_the_instance() {
                flight.failed();
            }
        })
    }

    async fn attempt(
        &self,
        flight: &Flight,
        request: Request<Upload>,
        activity: &Activity,
        freshness: Freshness,
    ) -> Result<Exchange, Missed> {
        let mut lease = match flight.pool().lease(freshness).await {
            Ok(lease) => lease,
            Err(error) => {
                return Err(Missed {
                    failure: error.into(),
                    request: Some(request),
                });
            }
        };
        activity.touch();
        let replay = Replay::of(&request);
        let sending = lease.send(request);
        match within(self.settings.answer_timeout, activity, sending).await {
            Some(Ok(response)) => Ok(Exchange { response, lease }),
            Some(Err(error)) => Err(Missed::sending(error, replay)),
            None => Err(Missed {
                failure: Failure::AnswerTimeout(self.settings.answer_timeout),
                request: None,
            }),
        }
    }

    async fn finish(
        &self,
        client: &Client,
        exchange: Exchange,
        flight: Flight,
        upgrade: Option<Upgrade>,
    ) -> Result<Response<Download>, Failure> {
        let Exchange {
            mut response,
            lease,
        } = exchange;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(upgrade) = upgrade else {
                flight.failed();
                return Err(Failure::BadUpgrade);
            };
            flight.answered(response.status());
            lease.detach();
            let instance = hyper::upgrade::on(&mut response);
            let protocol = response.headers().get(http::header::UPGRADE).cloned();
            Tunnel {
                client: upgrade.client,
                instance,
                flight,
                counters: Arc::clone(&self.counters),
                idle_timeout: self.settings.tunnel_idle_timeout,
                stop: client.stop.clone(),
            }
            .start();
            return Ok(switched(response, protocol.unwrap_or(upgrade.protocol)));
        }
        flight.answered(response.status());
        let (mut head, body) = response.into_parts();
        headers::remove_hop_by_hop(&mut head.headers);
        head.version = Version::HTTP_11;
        let body = Download::instance(body, lease, flight, &self.counters).await;
        Ok(Response::from_parts(head, body))
    }
}

impl Missed {
    fn sending(mut error: TrySendError<Request<Upload>>, replay: Option<Replay>) -> Self {
        let unsent = error.take_message();
        let failure = Failure::of_exchange(error.into_error());
        Self {
            failure,
            request: unsent.or_else(|| replay.map(Replay::request)),
        }
    }
}

impl Replay {
    /// Only a request that does no harm when it arrives twice (RFC 9110 section 9.2.2), and only
    /// without a body: that is gone once it has been read.
    fn of(request: &Request<Upload>) -> Option<Self> {
        let repeatable =
            request.method().is_idempotent() && matches!(request.body(), Upload::Empty);
        repeatable.then(|| Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
        })
    }

    fn request(self) -> Request<Upload> {
        let mut request = Request::new(Upload::Empty);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        request
    }
}

/// The proxy's own request: HTTP/1.1 with the target in origin form.
fn outgoing(head: Parts, body: Upload) -> Request<Upload> {
    let mut request = Request::new(body);
    *request.method_mut() = head.method;
    *request.headers_mut() = head.headers;
    *request.uri_mut() = match head.uri.path_and_query() {
        Some(path) if head.uri.authority().is_some() => Uri::from(path.clone()),
        _ => head.uri,
    };
    request
}

/// The answer of `sending`, unless nothing has moved for `limit`. An upload that goes on counts as
/// moving, however long it takes.
async fn within<T>(
    limit: Duration,
    activity: &Activity,
    sending: impl Future<Output = T>,
) -> Option<T> {
    let mut sending = pin!(sending);
    loop {
        let wait = activity.remaining(limit);
        if wait.is_zero() {
            return None;
        }
        if let Ok(answer) = tokio::time::timeout(wait, sending.as_mut()).await {
            return Some(answer);
        }
    }
}

fn switched(response: Response<Incoming>, protocol: HeaderValue) -> Response<Download> {
    let (mut head, _) = response.into_parts();
    headers::remove_hop_by_hop(&mut head.headers);
    headers::set_upgrade(&mut head.headers, protocol);
    head.extensions.clear();
    Response::from_parts(head, Download::own(""))
}

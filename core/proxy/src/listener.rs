//! Accepting clients and serving their connections until they, or the proxy, are done.

use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::coop;
use tokio_rustls::TlsAcceptor;

use crate::accept::{Door, Guest, agree};
use crate::forward::{Client, Forwarder};
use crate::idle::{Answer, Idle};
use crate::plain::{self, ClientStream, Served};
use crate::relay::relay;
use crate::settings::Settings;
use crate::shared::Shared;

/// At most how often unused connections to the instance are looked for.
const SWEEP: Duration = Duration::from_secs(1);
/// How often an HTTP/2 client is asked whether it still lives.
const HTTP2_PING: Duration = Duration::from_secs(30);

/// What the clients of a proxy speak.
#[derive(Clone)]
pub enum Front {
    /// HTTP/1.1 and HTTP/2 in the clear.
    Http,
    /// The same over TLS, which ends at the proxy: instances are spoken to in the clear. What the acceptor agrees on with
    /// the client tells the versions apart.
    Tls(TlsAcceptor),
    /// Anything: each connection is handed to an instance as it is, and counts as one request. Without an instance it is
    /// closed.
    Tcp,
}

impl fmt::Debug for Front {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.scheme())
    }
}

impl Front {
    fn scheme(&self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tls(_) => "https",
            Self::Tcp => "tcp",
        }
    }
}

/// How far the proxy is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Accepts and serves.
    Running,
    /// Accepts nothing more and finishes what it has.
    Finishing,
    /// Ends everything.
    Closed,
}

/// The proxy's phase, as its tasks see it. As long as one exists, a task is running.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    phase: watch::Receiver<Phase>,
}

impl Stop {
    pub(crate) fn new(phase: watch::Receiver<Phase>) -> Self {
        Self { phase }
    }

    /// The phase now; [`Stop::has_changed`] tells of later ones.
    pub(crate) fn now(&mut self) -> Phase {
        match self.phase.has_changed() {
            Ok(_) => *self.phase.borrow_and_update(),
            // The last handle was dropped.
            Err(_) => Phase::Closed,
        }
    }

    /// Whether the phase may be another one than [`Stop::now`] has said. Costs next to nothing.
    pub(crate) fn has_changed(&self) -> bool {
        self.phase.has_changed().unwrap_or(true)
    }

    /// Returns once the phase may be another one than [`Stop::now`] has said.
    pub(crate) async fn changed(mut self) {
        // An error means that the last handle was dropped.
        let _ = self.phase.changed().await;
    }

    /// Returns once the proxy has come to `phase`, or is gone altogether.
    async fn reached(&mut self, phase: Phase) {
        // An error means that the last handle was dropped: the end of every phase.
        let _ = self.phase.wait_for(|now| *now >= phase).await;
    }

    async fn finishing(&mut self) {
        self.reached(Phase::Finishing).await;
    }

    pub(crate) async fn closed(&mut self) {
        self.reached(Phase::Closed).await;
    }
}

/// What every connection of a listener is served with.
struct Serving {
    front: Front,
    protocols: auto::Builder<TokioExecutor>,
    forwarder: Arc<Forwarder>,
}

/// Accepts connections until the proxy stops.
pub(crate) async fn accept(
    listener: TcpListener,
    front: Front,
    forwarder: Arc<Forwarder>,
    stop: Stop,
) {
    let door = Door::new(listener, forwarder.settings.max_connections);
    let mut sweep = tokio::time::interval(forwarder.settings.idle_timeout.max(SWEEP));
    let serving = Arc::new(Serving {
        front,
        protocols: protocols(&forwarder.settings),
        forwarder,
    });
    let mut watched = stop.clone();
    let mut finishing = pin!(watched.finishing());
    loop {
        // The others are asked when nobody is waiting, or once the door has had its turn; then they must not need one.
        let guest = tokio::select! {
            biased;
            guest = door.next() => guest,
            _ = coop::unconstrained(sweep.tick()) => {
                serving.forwarder.table.expire();
                continue;
            }
            () = coop::unconstrained(&mut finishing) => return,
        };
        serving.forwarder.counters.connected();
        // On the heap: a task is moved several times before and after it runs.
        tokio::spawn(Box::pin(greet(guest, stop.clone(), Arc::clone(&serving))));
    }
}

fn protocols(settings: &Settings) -> auto::Builder<TokioExecutor> {
    let head = settings.max_header_bytes.max(8192);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_read_timeout)
        .max_buf_size(head as usize)
        .max_headers(settings.max_headers);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HTTP2_PING)
        .max_concurrent_streams(settings.max_concurrent_streams)
        .max_header_list_size(head);
    builder
}

/// Agrees on TLS with the client, where there is any, and serves it. Its place is free only then.
async fn greet(guest: Guest, stop: Stop, serving: Arc<Serving>) {
    let Guest {
        stream,
        address,
        place: _place,
    } = guest;
    let client = Client {
        address,
        scheme: serving.front.scheme(),
        stop,
        line: None,
    };
    // On the heap is all that only some connections need: a task is as large as the largest part of it, and is moved.
    match &serving.front {
        Front::Http => serve(stream, client, &serving).await,
        Front::Tcp => Box::pin(relay(stream, client, Arc::clone(&serving.forwarder))).await,
        Front::Tls(tls) => Box::pin(serve_tls(tls, stream, client, &serving)).await,
    }
}

async fn serve_tls(tls: &TlsAcceptor, stream: TcpStream, client: Client, serving: &Serving) {
    let mut stop = client.stop.clone();
    let limit = serving.forwarder.settings.handshake_timeout;
    let agreed = tokio::select! {
        agreed = agree(tls, Shared::new(stream), client.address, limit) => agreed,
        () = stop.finishing() => return,
    };
    if let Some(stream) = agreed {
        serve(stream, client, serving).await;
    }
}

/// Serves a connection: as long as its requests are plain, here, and then with hyper.
async fn serve<S>(stream: S, client: Client, serving: &Serving)
where
    S: ClientStream,
{
    let mut connection = plain::Connection::new(stream, client, Arc::clone(&serving.forwarder));
    if connection.serve().await == Served::All {
        return;
    }
    let (stream, client, forwarder) = connection.hand_over();
    Box::pin(serve_all(stream, client, &serving.protocols, forwarder)).await;
}

/// Serves a connection with whatever comes over it.
async fn serve_all<S>(
    stream: S,
    client: Client,
    protocols: &auto::Builder<TokioExecutor>,
    forwarder: Arc<Forwarder>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let address = client.address;
    let mut stop = client.stop.clone();
    let patience = forwarder.settings.patience();
    let idle = Idle::new();
    let service = service_fn(|request: Request<Incoming>| {
        let in_flight = idle.begin();
        let (forwarder, client) = (Arc::clone(&forwarder), client.clone());
        async move {
            let answer = forwarder.answer(&client, request).await;
            Ok::<_, Infallible>(answer.map(|body| Answer::new(body, in_flight)))
        }
    });
    let io = TokioIo::new(stream);
    let mut connection = pin!(protocols.serve_connection_with_upgrades(io, service));
    // A request that it was handed over with has begun, also when the proxy is ending already.
    let begun = poll_fn(|context| Poll::Ready(connection.as_mut().poll(context))).await;
    let outcome = match begun {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = idle.over(patience) => return,
            () = stop.finishing() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    outcome = connection.as_mut() => outcome,
                    () = stop.closed() => return,
                }
            }
        },
    };
    if let Err(error) = outcome {
        tracing::debug!(client = %address, %error, "connection ended");
    }
}

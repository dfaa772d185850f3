//! Instances and clients for the tests.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proxy::{Measures, Proxy, Retired, Settings, Share, Target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

pub(crate) const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
/// Bounds every wait for something that should happen.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) type TestBody = UnsyncBoxBody<Bytes, Infallible>;

pub(crate) fn text(content: impl Into<Bytes>) -> TestBody {
    Full::new(content.into()).boxed_unsync()
}

/// A body fed by the test.
pub(crate) struct Feed(mpsc::Receiver<Bytes>);

pub(crate) fn feed(depth: usize) -> (mpsc::Sender<Bytes>, TestBody) {
    let (sender, receiver) = mpsc::channel(depth);
    (sender, Feed(receiver).boxed_unsync())
}

impl Body for Feed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(context)
            .map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// An instance of an application. Dropping it is a kill: listener and connections go at once.
pub(crate) struct Instance {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Instance {
    pub(crate) async fn start<F, R>(handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
        R: Future<Output = Response<TestBody>> + Send + 'static,
    {
        let listener = TcpListener::bind(LOOPBACK).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let handler = handler.clone();
                connections.spawn(serve(stream, handler));
            }
        });
        Self { address, task }
    }

    /// An instance that answers every request with `name`.
    pub(crate) async fn named(name: &'static str) -> Self {
        Self::start(move |_| async move { Response::new(text(name)) }).await
    }

    pub(crate) fn target(&self, id: &str) -> Target {
        Target {
            id: id.to_owned(),
            address: self.address,
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve<F, R>(stream: TcpStream, handler: F)
where
    F: Fn(Request<Incoming>) -> R + Send + 'static,
    R: Future<Output = Response<TestBody>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = handler(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

/// An instance at the level of bytes: `script` gets every connection it accepts.
pub(crate) async fn raw_instance<F, R>(script: F) -> Instance
where
    F: Fn(TcpStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(LOOPBACK).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(script(stream));
        }
    });
    Instance { address, task }
}

/// An instance that is dead: nothing listens at its address, and nobody else gets it.
pub(crate) struct Dead(TcpSocket);

impl Dead {
    pub(crate) fn new() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(LOOPBACK).expect("a free port");
        Self(socket)
    }

    pub(crate) fn target(&self, id: &str) -> Target {
        Target {
            id: id.to_owned(),
            address: self.0.local_addr().expect("an address"),
        }
    }
}

pub(crate) async fn proxy() -> Proxy {
    proxy_with(Settings::default()).await
}

pub(crate) async fn proxy_with(settings: Settings) -> Proxy {
    Proxy::bind(LOOPBACK, settings)
        .await
        .expect("the proxy listens")
}

/// A proxy with one instance behind it.
pub(crate) async fn proxy_to(instance: &Instance) -> Proxy {
    let proxy = proxy().await;
    assert!(switch(&proxy, instance.target("one")).is_none());
    proxy
}

pub(crate) fn share(targets: impl Into<Vec<Target>>, weight: u32) -> Share {
    Share {
        targets: targets.into(),
        weight,
    }
}

/// What was measured of the instance `id`, which gets traffic.
pub(crate) fn measures(proxy: &Proxy, id: &str) -> Measures {
    let all = proxy.measures().into_iter();
    let mut found = all.filter(|(target, _)| target.id == id);
    let (_, measures) = found.next().expect("it gets traffic");
    measures
}

/// Sends all traffic to one instance; returns the one that served before, if there was one.
pub(crate) fn switch(proxy: &Proxy, target: Target) -> Option<Retired> {
    only(proxy.direct(&[share([target], 1)]))
}

/// Leaves no instance; returns the one that served before, if there was one.
pub(crate) fn withdraw(proxy: &Proxy) -> Option<Retired> {
    only(proxy.direct(&[]))
}

fn only(mut retired: Vec<Retired>) -> Option<Retired> {
    assert!(retired.len() <= 1, "{retired:?}");
    retired.pop()
}

/// A keep-alive connection of a client.
pub(crate) struct Connection(SendRequest<TestBody>);

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address)
            .await
            .expect("the proxy accepts");
        let io = TokioIo::new(stream);
        let (sender, connection) = hyper::client::conn::http1::handshake(io)
            .await
            .expect("a connection");
        tokio::spawn(connection.with_upgrades());
        Self(sender)
    }

    pub(crate) async fn send(
        &mut self,
        request: Request<TestBody>,
    ) -> hyper::Result<Response<Incoming>> {
        self.0.ready().await?;
        self.0.send_request(request).await
    }

    pub(crate) async fn get(&mut self, path: &str) -> hyper::Result<Response<Incoming>> {
        self.send(get(path)).await
    }
}

pub(crate) fn get(path: &str) -> Request<TestBody> {
    Request::get(path)
        .header("host", "tenant.test")
        .body(text(""))
        .expect("a request")
}

pub(crate) fn post(path: &str, body: TestBody) -> Request<TestBody> {
    Request::post(path)
        .header("host", "tenant.test")
        .body(body)
        .expect("a request")
}

pub(crate) async fn fetch(address: SocketAddr, path: &str) -> Response<Incoming> {
    Connection::open(address)
        .await
        .get(path)
        .await
        .expect("an answer")
}

pub(crate) async fn body(response: Response<Incoming>) -> String {
    let bytes = response
        .into_body()
        .collect()
        .await
        .expect("a whole body")
        .to_bytes();
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// Sends bytes as they are and reads until the other side closes.
pub(crate) async fn raw(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address)
        .await
        .expect("the proxy accepts");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    tokio::time::timeout(SOON, reading)
        .await
        .expect("closed in time")
        .expect("read");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads from a raw connection until `end` has come.
pub(crate) async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(end) {
        let read = tokio::time::timeout(SOON, stream.read_buf(&mut seen)).await;
        let count = read.expect("more in time").expect("read");
        assert_ne!(
            count,
            0,
            "closed after {:?}",
            String::from_utf8_lossy(&seen)
        );
    }
    String::from_utf8_lossy(&seen).into_owned()
}

/// Polls until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < SOON, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

//! Registries and connections that fail: what the client makes of it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use http::{Method, StatusCode, header};
use oci::{ClientError, Descriptor, media_type};
use registry::Limits;
use socket2::{Domain, Socket, Type};

use crate::image::{TestImage, client, noise, options, repository, tag};
use crate::server::{ALICE, Server, Tenants};

/// Forwards connections, and cuts each that has carried as many bytes as the next of its budgets.
struct Cutter {
    address: SocketAddr,
    cuts: Arc<AtomicUsize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

impl Cutter {
    fn start(upstream: &str, direction: Direction, budgets: &[usize]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let upstream: SocketAddr = upstream.parse().unwrap();
        let budgets = Arc::new(Mutex::new(budgets.to_vec()));
        let cuts = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&cuts);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(upstream)) else {
                    return;
                };
                let (budgets, cuts) = (Arc::clone(&budgets), Arc::clone(&counted));
                let (up, down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let limited = (Arc::clone(&budgets), Arc::clone(&cuts));
                let (for_up, for_down) = match direction {
                    Direction::Up => (Some(limited), None),
                    Direction::Down => (None, Some(limited)),
                };
                std::thread::spawn(move || forward(up, server, for_up.as_ref()));
                std::thread::spawn(move || forward(down, client, for_down.as_ref()));
            }
        });
        Self { address, cuts }
    }
}

type Budgets = (Arc<Mutex<Vec<usize>>>, Arc<AtomicUsize>);

fn forward(mut from: TcpStream, mut to: TcpStream, limited: Option<&Budgets>) {
    let mut buffer = vec![0; 64 * 1024];
    let mut carried = 0;
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        carried += count;
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
        if let Some((budgets, cuts)) = limited {
            let mut budgets = budgets.lock().unwrap();
            if budgets.first().is_some_and(|budget| carried >= *budget) {
                budgets.remove(0);
                cuts.fetch_add(1, Ordering::SeqCst);
                break;
            }
        }
    }
    // The other direction ends with it; either socket may be gone already.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

const BROKEN_SIZE: usize = 24 * 1024 * 1024;

/// An upload whose connection breaks twice arrives whole. Returns how many bytes were sent for it.
pub(crate) fn broken_upload(upstream: &str) -> u64 {
    let cutter = Cutter::start(upstream, Direction::Up, &[6 * 1024 * 1024, 9 * 1024 * 1024]);
    let client = client(&cutter.address.to_string(), Some(ALICE));
    let bytes = noise(60, BROKEN_SIZE);
    let descriptor = Descriptor::of(media_type::OCI_LAYER, &bytes);
    let name = repository("alice/broken");
    client.push_blob(&name, &descriptor, &bytes).unwrap();
    assert_eq!(cutter.cuts.load(Ordering::SeqCst), 2);
    let mut copy = Vec::new();
    client.get_blob(&name, &descriptor, &mut copy).unwrap();
    assert!(copy == bytes);
    client.counters().bytes_sent
}

#[test]
fn a_broken_upload_goes_on_where_it_broke() {
    let server = Server::start();
    let sent = broken_upload(&server.host());
    // What is lost is what the sockets in between held when the connection was cut.
    assert!(sent < 2 * BROKEN_SIZE as u64, "{sent} bytes sent");
}

#[test]
fn a_broken_download_goes_on_where_it_broke() {
    const SIZE: usize = 24 * 1024 * 1024;
    let server = Server::start();
    let bytes = noise(61, SIZE);
    let descriptor = Descriptor::of(media_type::OCI_LAYER, &bytes);
    let name = repository("alice/app");
    client(&server.host(), Some(ALICE))
        .push_blob(&name, &descriptor, &bytes)
        .unwrap();
    let cutter = Cutter::start(
        &server.host(),
        Direction::Down,
        &[5 * 1024 * 1024, 7 * 1024 * 1024],
    );
    let client = client(&cutter.address.to_string(), Some(ALICE));
    let mut copy = Vec::new();
    client.get_blob(&name, &descriptor, &mut copy).unwrap();
    assert!(copy == bytes);
    assert_eq!(cutter.cuts.load(Ordering::SeqCst), 2);
    assert_eq!(client.counters().requests, 3);
    assert!(client.counters().bytes_received < SIZE as u64 + 1024 * 1024);
}

/// A blob whose reader, half-way, ends the server and starts another one on the same port and folder.
struct Restarting {
    bytes: Vec<u8>,
    first: Mutex<Option<Server>>,
    second: Mutex<Option<Server>>,
}

impl Restarting {
    fn restart(&self) {
        let Some(first) = self.first.lock().unwrap().take() else {
            return;
        };
        let (address, folder) = (first.address, Arc::clone(&first.folder));
        drop(first);
        let listener = TcpListener::bind(address).unwrap();
        let limits = Limits::default();
        let second = Server::on(listener, folder, Arc::new(Tenants), limits, |router| router);
        *self.second.lock().unwrap() = Some(second);
    }
}

struct RestartingReader<'a> {
    source: &'a Restarting,
    at: usize,
}

impl Read for RestartingReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.at > self.source.bytes.len() / 2 {
            self.source.restart();
        }
        let mut rest = &self.source.bytes[self.at..];
        let count = rest.read(buffer)?;
        self.at += count;
        Ok(count)
    }
}

impl oci::BlobSource for Restarting {
    fn open_at(&self, offset: u64) -> std::io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(RestartingReader {
            source: self,
            at: usize::try_from(offset).unwrap(),
        }))
    }
}

#[test]
fn an_upload_goes_on_after_the_server_was_restarted() {
    const SIZE: usize = 8 * 1024 * 1024;
    let server = Server::start();
    let client = client(&server.host(), Some(ALICE));
    let bytes = noise(62, SIZE);
    let descriptor = Descriptor::of(media_type::OCI_LAYER, &bytes);
    let first = Mutex::new(Some(server));
    let source = Restarting {
        bytes,
        first,
        second: Mutex::new(None),
    };
    let name = repository("alice/restarted");
    client.push_blob(&name, &descriptor, &source).unwrap();
    assert!(source.second.lock().unwrap().is_some());
    assert!(client.blob_exists(&name, &descriptor.digest).unwrap());
    let sent = client.counters().bytes_sent;
    assert!(
        sent < SIZE as u64 * 3 / 2 + 1024 * 1024,
        "{sent} bytes sent for {SIZE}"
    );
}

/// Answers the first `count` requests of a method with `answer` instead of passing them on.
fn failing_first(router: Router, method: Method, count: usize, answer: fn() -> Response) -> Router {
    let left = Arc::new(AtomicUsize::new(count));
    router.layer(middleware::from_fn(move |request: Request, next: Next| {
        let (left, method) = (Arc::clone(&left), method.clone());
        async move {
            let take = |left: usize| left.checked_sub(1);
            if *request.method() == method
                && left
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
                    .is_ok()
            {
                return answer();
            }
            next.run(request).await
        }
    }))
}

#[test]
fn a_registry_that_asks_for_patience_gets_it() {
    let busy = || (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "1")]).into_response();
    let server = Server::with(Limits::default(), |router| {
        failing_first(router, Method::HEAD, 1, busy)
    });
    let client = client(&server.host(), Some(ALICE));
    let started = Instant::now();
    assert_eq!(
        client
            .manifest_exists(&repository("alice/app"), &tag("v1"))
            .unwrap(),
        None
    );
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_eq!(client.counters().requests, 2);
}

#[test]
fn failures_of_the_registry_pass_in_every_phase() {
    let failed = || StatusCode::SERVICE_UNAVAILABLE.into_response();
    for method in [Method::HEAD, Method::POST, Method::PUT] {
        let wrap = |router| failing_first(router, method, 2, failed);
        let server = Server::with(Limits::default(), wrap);
        let client = client(&server.host(), Some(ALICE));
        let pushed = TestImage::new(63, &[100_000, 10]).push(&client, "alice/app", "v1");
        assert_eq!(pushed.uploaded, 3);
    }
}

#[test]
fn patience_ends() {
    let failed = || StatusCode::BAD_GATEWAY.into_response();
    let wrap = |router| failing_first(router, Method::HEAD, usize::MAX, failed);
    let server = Server::with(Limits::default(), wrap);
    let client = client(&server.host(), Some(ALICE));
    let error = client
        .manifest_exists(&repository("alice/app"), &tag("v1"))
        .unwrap_err();
    assert!(matches!(error, ClientError::Unavailable { .. }), "{error}");
    assert!(error.is_transient());
    assert_eq!(client.counters().requests, 5);
}

#[test]
fn nobody_listening_is_transient() {
    // Bound, so that nobody else has it, and nobody listens.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let client = client(&address.to_string(), Some(ALICE));
    let error = client
        .manifest_exists(&repository("alice/app"), &tag("v1"))
        .unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    assert_eq!(client.counters().requests, 5);
}

#[test]
fn a_silent_registry_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut options = options(Some(ALICE));
    options.timeouts.idle = Duration::from_millis(200);
    options.retry.attempts = 2;
    let client = oci::Client::new(&address, options).unwrap();
    let error = client
        .manifest_exists(&repository("alice/app"), &tag("v1"))
        .unwrap_err();
    assert!(matches!(error, ClientError::TimedOut { .. }), "{error}");
}

/// A proxy in front that takes no body above a size, as nginx does.
#[test]
fn a_bounded_request_size_makes_chunks() {
    const LIMIT: u64 = 1_500_000;
    let bounded = |request: Request, next: Next| async move {
        let length = request.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > LIMIT) {
            return StatusCode::PAYLOAD_TOO_LARGE.into_response();
        }
        next.run(request).await
    };
    let wrap = |router: Router| router.layer(middleware::from_fn(bounded));
    let server = Server::with(Limits::default(), wrap);
    let client = client(&server.host(), Some(ALICE));
    let bytes = noise(64, 10_000_000);
    let descriptor = Descriptor::of(media_type::OCI_LAYER, &bytes);
    client
        .push_blob(&repository("alice/app"), &descriptor, &bytes)
        .unwrap();
    assert!(
        client
            .blob_exists(&repository("alice/app"), &descriptor.digest)
            .unwrap()
    );
    // The refusals came before the bodies: nothing was sent in vain.
    assert_eq!(client.counters().bytes_sent, 10_000_000);

    let strict = |_: Request, _: Next| async { StatusCode::PAYLOAD_TOO_LARGE.into_response() };
    let wrap = |router: Router| router.layer(middleware::from_fn(strict));
    let server = Server::with(Limits::default(), wrap);
    let client = self::client(&server.host(), Some(ALICE));
    let error = client
        .push_blob(&repository("alice/app"), &descriptor, &bytes)
        .unwrap_err();
    assert!(matches!(error, ClientError::Refused { .. }), "{error}");
}

/// A server that refuses a body before it came, on a connection that it keeps: the answer counts at once.
#[test]
fn a_refusal_is_heard_on_a_connection_that_stays() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = std::thread::spawn(move || {
        let mut held = Vec::new();
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut head = vec![0; 4096];
            let count = connection.read(&mut head).unwrap();
            let denied: &[u8] = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n";
            let begun: &[u8] = b"HTTP/1.1 202 Accepted\r\nlocation: /v2/a/blobs/uploads/1\r\n\
                content-length: 0\r\nconnection: close\r\n\r\n";
            let is_put = head[..count].starts_with(b"PUT");
            connection
                .write_all(if is_put { denied } else { begun })
                .unwrap();
            held.push(connection);
            if is_put {
                return held;
            }
        }
        held
    });
    let client = client(&address, None);
    let bytes = noise(69, 100_000);
    let descriptor = Descriptor::of(media_type::OCI_LAYER, &bytes);
    let started = Instant::now();
    let error = client
        .push_blob(&repository("a"), &descriptor, &bytes)
        .unwrap_err();
    assert!(matches!(error, ClientError::Denied { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(10));
    drop(serving.join().unwrap());
}

/// Where blobs lie elsewhere, the registry redirects; the other host must not see the credentials.
#[test]
fn a_redirect_takes_no_credentials_along() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let bytes = noise(65, 100_000);
    let descriptor = Descriptor::of(media_type::OCI_LAYER, &bytes);
    let (record, content) = (Arc::clone(&seen), bytes.clone());
    let elsewhere = Server::with(Limits::default(), move |_| {
        Router::new().fallback(move |request: Request| {
            let authorization = request.headers().get(header::AUTHORIZATION).cloned();
            record.lock().unwrap().push(authorization);
            async move { Body::from(content) }
        })
    });
    let target = format!("http://{}/elsewhere", elsewhere.address);
    let redirecting = Server::with(Limits::default(), move |_| {
        Router::new().fallback(move || async move {
            (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, target)])
        })
    });
    let client = client(&redirecting.host(), Some(ALICE));
    let mut copy = Vec::new();
    client
        .get_blob(&repository("alice/app"), &descriptor, &mut copy)
        .unwrap();
    assert!(copy == bytes);
    assert_eq!(*seen.lock().unwrap(), [None]);
}

/// The same for an upload that goes on at another host.
#[test]
fn an_upload_elsewhere_takes_no_credentials_along() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&seen);
    let elsewhere = Server::with(Limits::default(), move |_| {
        Router::new().fallback(move |request: Request| {
            let authorization = request.headers().get(header::AUTHORIZATION).cloned();
            record.lock().unwrap().push(authorization);
            async { StatusCode::CREATED }
        })
    });
    let target = format!("http://{}/upload?session=1", elsewhere.address);
    let pointing = Server::with(Limits::default(), move |_| {
        Router::new()
            .fallback(move || async move { (StatusCode::ACCEPTED, [(header::LOCATION, target)]) })
    });
    let client = client(&pointing.host(), Some(ALICE));
    let bytes = noise(66, 1000);
    let descriptor = Descriptor::of(media_type::OCI_LAYER, &bytes);
    client
        .push_blob(&repository("alice/app"), &descriptor, &bytes)
        .unwrap();
    assert_eq!(*seen.lock().unwrap(), [None]);
}

#[test]
fn plain_http_elsewhere_is_refused() {
    let answer = (
        StatusCode::TEMPORARY_REDIRECT,
        [(header::LOCATION, "http://192.0.2.1/blob")],
    );
    let server = Server::with(Limits::default(), move |_| {
        Router::new().fallback(move || async move { answer })
    });
    let client = client(&server.host(), Some(ALICE));
    let descriptor = Descriptor::of(media_type::OCI_LAYER, b"x");
    let got = client.get_blob(&repository("alice/app"), &descriptor, &mut Vec::new());
    assert!(matches!(got.unwrap_err(), ClientError::Insecure { .. }));
    let refused = oci::Client::new("192.0.2.1:5000", options(None)).unwrap();
    drop(refused);
}

#[test]
fn content_that_is_not_what_it_should_be_is_refused() {
    let server = Server::with(Limits::default(), |_| {
        Router::new().fallback(async || "forged!")
    });
    let client = client(&server.host(), Some(ALICE));
    let name = repository("alice/app");
    for expected in [&b"genuine"[..], b"a longer one", b"short"] {
        let mut options = options(None);
        options.retry.attempts = 2;
        let descriptor = Descriptor::of(media_type::OCI_LAYER, expected);
        assert!(
            client
                .get_blob(&name, &descriptor, &mut Vec::new())
                .is_err()
        );
    }
    let descriptor = Descriptor::of(media_type::OCI_LAYER, b"genuine");
    let error = client
        .get_blob(&name, &descriptor, &mut Vec::new())
        .unwrap_err();
    assert!(
        matches!(error, ClientError::DigestMismatch { .. }),
        "{error}"
    );
    let error = client.get_manifest(&name, &descriptor.digest).unwrap_err();
    assert!(
        matches!(error, ClientError::DigestMismatch { .. }),
        "{error}"
    );
}

#[test]
fn an_interruption_ends_an_upload_and_a_pause() {
    use std::sync::atomic::AtomicBool;
    let server = Server::start();
    let interrupted = Arc::new(AtomicBool::new(false));
    let (asked, told) = (Arc::clone(&interrupted), Arc::clone(&interrupted));
    let options = oci::ClientOptions {
        interrupt: Some(Arc::new(move || asked.load(Ordering::SeqCst))),
        progress: Some(Arc::new(move |progress| {
            told.fetch_or(progress.sent > 1_000_000, Ordering::SeqCst);
        })),
        ..options(Some(ALICE))
    };
    let client = oci::Client::new(&server.host(), options).unwrap();
    let bytes = noise(67, 20_000_000);
    let descriptor = Descriptor::of(media_type::OCI_LAYER, &bytes);
    let error = client
        .push_blob(&repository("alice/app"), &descriptor, &bytes)
        .unwrap_err();
    assert!(matches!(error, ClientError::Interrupted), "{error}");
    assert!(client.counters().bytes_sent < 5_000_000);

    let failed = || {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            [(header::RETRY_AFTER, "200")],
        )
            .into_response()
    };
    let wrap = |router| failing_first(router, Method::HEAD, usize::MAX, failed);
    let server = Server::with(Limits::default(), wrap);
    let started = Instant::now();
    let options = oci::ClientOptions {
        interrupt: Some(Arc::new(move || {
            started.elapsed() > Duration::from_millis(300)
        })),
        ..self::options(Some(ALICE))
    };
    let client = oci::Client::new(&server.host(), options).unwrap();
    let error = client
        .manifest_exists(&repository("alice/app"), &tag("v1"))
        .unwrap_err();
    assert!(matches!(error, ClientError::Interrupted), "{error}");
    assert!(started.elapsed() < Duration::from_secs(20));
}

/// Between the look and the manifest, the registry cleaned up a blob that it had said it had.
#[test]
fn a_blob_that_vanishes_is_sent_again() {
    let server = Server::start();
    let client = client(&server.host(), Some(ALICE));
    let image = TestImage::new(68, &[1000, 2000]);
    let name = repository("alice/app");
    let (descriptor, bytes) = &image.blobs[0];
    client.push_blob(&name, descriptor, bytes).unwrap();

    let store = oci::Store::open(server.folder.path()).unwrap();
    let digest = descriptor.digest;
    let vanishing = Vanishing {
        bytes: image.blobs[1].1.clone(),
        vanish: Box::new(move || {
            store.unlink(&repository("alice/app"), &digest).unwrap();
        }),
    };
    let mut sources = image.sources();
    sources.insert(image.blobs[1].0.digest, Box::new(vanishing));
    let tag = tag("v1");
    let push = oci::ImagePush {
        repository: &name,
        manifest: &image.manifest,
        sources: &sources,
        tag: Some(&tag),
        mount_from: &[],
        known: &oci::Known::new(),
        store: None,
        ahead: None,
    };
    let pushed = oci::push_image(&client, &push).unwrap();
    assert_eq!(
        client.manifest_exists(&name, &tag).unwrap().unwrap().digest,
        pushed.digest
    );
}

/// A blob whose first reading takes another blob away.
struct Vanishing {
    bytes: Vec<u8>,
    vanish: Box<dyn Fn() + Send + Sync>,
}

impl oci::BlobSource for Vanishing {
    fn open_at(&self, offset: u64) -> std::io::Result<Box<dyn Read + '_>> {
        (self.vanish)();
        self.bytes.open_at(offset)
    }
}

/// A client that stops sending holds neither the connection nor the upload; what came is kept.
#[test]
fn a_body_that_stalls_is_given_up() {
    let limits = Limits {
        idle: Duration::from_millis(200),
        ..Limits::default()
    };
    let server = Server::with(limits, |router| router);
    let mut connection = TcpStream::connect(server.address).unwrap();
    connection
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut ask = |text: String| {
        let authorization = "Basic YWxpY2U6Y29ycmVjdCBob3JzZQ==";
        let text = text.replace('\n', "\r\n");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let host = "host: test";
        write!(
            connection,
            "{head}\r\n{host}\r\nauthorization: {authorization}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = vec![0; 4096];
        let count = connection.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..count]).into_owned()
    };
    let begun = ask("POST /v2/alice/app/blobs/uploads/ HTTP/1.1\ncontent-length: 0\n\n".to_owned());
    let location = begun
        .lines()
        .find_map(|line| line.strip_prefix("location: "))
        .unwrap()
        .to_owned();
    let stalled = ask(format!(
        "PATCH {location} HTTP/1.1\ncontent-length: 100\n\nhalf of it"
    ));
    assert!(stalled.starts_with("HTTP/1.1 408"), "{stalled}");
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build();
    let status = config
        .new_agent()
        .get(format!("http://{}{location}", server.address))
        .header("authorization", "Basic YWxpY2U6Y29ycmVjdCBob3JzZQ==")
        .call()
        .unwrap();
    assert_eq!(status.headers()["range"], "0-9");
}

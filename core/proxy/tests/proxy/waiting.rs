//! Requests for which there is no instance, but one is on its way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, StatusCode};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use proxy::{Group, Proxy, Retired, Rule, Settings, Share};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::support::{
    Connection, Instance, SOON, body, eventually, fetch, get, post, proxy, proxy_with, raw, share,
    text,
};

/// Gives all requests to these shares; `awaited`: or to one that is on its way.
fn direct(proxy: &Proxy, shares: Vec<Share>, awaited: bool) -> Vec<Retired> {
    let group = Group {
        name: "app".to_owned(),
        shares,
        awaited,
    };
    let rule = Rule {
        host: None,
        prefix: "/".to_owned(),
        group: "app".to_owned(),
    };
    proxy.divide(&[group], &[rule])
}

/// A proxy whose instance is on its way.
async fn waiting(settings: Settings) -> Proxy {
    let proxy = proxy_with(settings).await;
    assert!(direct(&proxy, Vec::new(), true).is_empty());
    proxy
}

fn ask(proxy: &Proxy, path: &'static str) -> JoinHandle<(StatusCode, String)> {
    let address = proxy.local_addr();
    tokio::spawn(async move {
        let response = fetch(address, path).await;
        (response.status(), body(response).await)
    })
}

async fn all_wait(proxy: &Proxy, count: u64) {
    eventually("they wait", || proxy.stats().waiting == count).await;
}

async fn answer<T>(asked: JoinHandle<T>) -> T {
    let asked = tokio::time::timeout(SOON, asked).await;
    asked.expect("an answer in time").expect("an answer")
}

/// An instance that repeats what it is sent.
async fn mirror() -> Instance {
    Instance::start(|request| async move {
        let path = request.uri().path().to_owned();
        let bytes = http_body_util::BodyExt::collect(request.into_body()).await;
        let bytes = bytes.expect("a body").to_bytes();
        http::Response::new(text([path.as_bytes(), b" ", &bytes].concat()))
    })
    .await
}

#[tokio::test]
async fn requests_of_every_kind_wait_for_the_instance_and_reach_it() {
    let old = mirror().await;
    let proxy = proxy().await;
    assert!(direct(&proxy, vec![share([old.target("old")], 1)], false).is_empty());
    // One that has been served before, and stays open.
    let mut kept = Connection::open(proxy.local_addr()).await;
    let before = kept.get("/before").await.expect("an answer");
    assert_eq!(body(before).await, "/before ");
    assert_eq!(direct(&proxy, Vec::new(), true).len(), 1);
    let plain = ask(&proxy, "/plain");
    let posted = tokio::spawn(async move {
        let response = kept.send(post("/posted", text("once"))).await;
        let first = body(response.expect("an answer")).await;
        let response = kept.get("/after").await.expect("an answer");
        (first, body(response).await)
    });
    let stream = TcpStream::connect(proxy.local_addr()).await;
    let io = TokioIo::new(stream.expect("the proxy accepts"));
    let (client, connection) = http2::handshake(TokioExecutor::new(), io)
        .await
        .expect("a connection");
    tokio::spawn(connection);
    let streams = ["/one", "/two"].map(|path| {
        let mut client = client.clone();
        tokio::spawn(async move {
            let request = Request::get(format!("http://shop.test{path}"));
            let request = request.body(text("")).expect("a request");
            body(client.send_request(request).await.expect("an answer")).await
        })
    });
    all_wait(&proxy, 4).await;
    assert_eq!(proxy.stats().in_flight, 0);
    let new = mirror().await;
    let waited = Duration::from_millis(100);
    tokio::time::sleep(waited).await;
    assert!(direct(&proxy, vec![share([new.target("new")], 1)], true).is_empty());
    assert_eq!(answer(plain).await, (StatusCode::OK, "/plain ".into()));
    let (first, after) = answer(posted).await;
    assert_eq!((&*first, &*after), ("/posted once", "/after "));
    for (asked, path) in streams.into_iter().zip(["/one ", "/two "]) {
        assert_eq!(answer(asked).await, path);
    }
    let stats = proxy.stats();
    assert_eq!((stats.waiting, stats.failures, stats.requests), (0, 0, 6));
    // The time of waiting is the clients', and not the instance's.
    let (_, measures) = proxy.measures().remove(0);
    assert_eq!(measures.latency.count, 5);
    assert!(stats.latency.sum >= measures.latency.sum + 4 * waited);
}

#[tokio::test]
async fn they_are_told_when_nobody_comes_any_more() {
    let proxy = waiting(Settings::default()).await;
    let asked = ask(&proxy, "/");
    all_wait(&proxy, 1).await;
    // Something else has changed: it is still on its way.
    assert!(direct(&proxy, Vec::new(), true).is_empty());
    assert_eq!(proxy.stats().waiting, 1);
    assert!(direct(&proxy, Vec::new(), false).is_empty());
    let (status, text) = answer(asked).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(text.contains("no_release"), "{text}");
    let again = ask(&proxy, "/");
    assert_eq!(answer(again).await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn they_wait_no_longer_than_for_an_answer() {
    let proxy = waiting(Settings {
        answer_timeout: Duration::from_millis(50),
        ..Settings::default()
    })
    .await;
    let asked = ask(&proxy, "/");
    assert_eq!(answer(asked).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(proxy.stats().waiting, 0);
}

#[tokio::test]
async fn only_so_many_wait_and_whoever_goes_away_makes_room() {
    let proxy = waiting(Settings {
        max_waiting: 2,
        ..Settings::default()
    })
    .await;
    let first = ask(&proxy, "/");
    let mut gone = Connection::open(proxy.local_addr()).await;
    let impatient = tokio::spawn(async move { gone.send(get("/gone")).await });
    all_wait(&proxy, 2).await;
    let third = ask(&proxy, "/");
    assert_eq!(answer(third).await.0, StatusCode::SERVICE_UNAVAILABLE);
    impatient.abort();
    all_wait(&proxy, 1).await;
    let fourth = ask(&proxy, "/");
    all_wait(&proxy, 2).await;
    let instance = Instance::named("it").await;
    assert!(direct(&proxy, vec![share([instance.target("it")], 1)], true).is_empty());
    for asked in [first, fourth] {
        assert_eq!(answer(asked).await, (StatusCode::OK, "it".into()));
    }
}

/// What the instance has been asked.
fn counting() -> (Arc<AtomicUsize>, impl Fn() -> usize) {
    let asked = Arc::new(AtomicUsize::new(0));
    let read = Arc::clone(&asked);
    (asked, move || read.load(Ordering::Relaxed))
}

#[tokio::test]
async fn what_a_client_has_given_up_is_done_by_nobody_whatever_of_its_body_has_come() {
    let proxy = waiting(Settings::default()).await;
    let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 30000\r\n\r\n";
    let mut clients = Vec::new();
    for sent in [0, 5, 30_000] {
        let stream = TcpStream::connect(proxy.local_addr()).await;
        let mut stream = stream.expect("the proxy accepts");
        stream.write_all(head.as_bytes()).await.expect("it is sent");
        clients.push(stream);
        all_wait(&proxy, clients.len() as u64).await;
        let stream = clients.last_mut().expect("the client");
        stream
            .write_all(&vec![b'x'; sent])
            .await
            .expect("it is sent");
    }
    // One is still there.
    let patient = tokio::spawn(raw(
        proxy.local_addr(),
        "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx",
    ));
    all_wait(&proxy, 4).await;
    drop(clients);
    all_wait(&proxy, 1).await;
    let (asked, count) = counting();
    let instance = Instance::start(move |_| {
        asked.fetch_add(1, Ordering::Relaxed);
        async { http::Response::new(text("it")) }
    })
    .await;
    assert!(direct(&proxy, vec![share([instance.target("it")], 1)], true).is_empty());
    assert!(answer(patient).await.ends_with("it"));
    assert_eq!(count(), 1);
}

#[tokio::test]
async fn where_it_goes_is_up_to_the_routes_of_what_has_come() {
    let proxy = waiting(Settings::default()).await;
    let (first, second) = (ask(&proxy, "/"), ask(&proxy, "/gone"));
    all_wait(&proxy, 2).await;
    let [inside, public] = ["inside", "public"].map(Instance::named);
    let (inside, public) = (inside.await, public.await);
    let groups = [("app", &inside), ("web", &public)].map(|(name, instance)| Group {
        name: name.to_owned(),
        shares: vec![share([instance.target(name)], 1)],
        awaited: name == "app",
    });
    // What they waited for is there, and not for them any more.
    let rule = |prefix: &str, group: &str| Rule {
        host: Some("tenant.test".to_owned()),
        prefix: prefix.to_owned(),
        group: group.to_owned(),
    };
    let rules = [rule("/", "web"), rule("/gone", "nobody")];
    assert!(proxy.divide(&groups, &rules).is_empty());
    assert_eq!(answer(first).await, (StatusCode::OK, "public".into()));
    assert_eq!(answer(second).await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn the_end_of_the_proxy_is_the_end_of_waiting() {
    let proxy = waiting(Settings::default()).await;
    let address = proxy.local_addr();
    let asked = tokio::spawn(async move {
        let mut connection = Connection::open(address).await;
        connection.get("/").await.is_err()
    });
    all_wait(&proxy, 1).await;
    let ended = tokio::time::timeout(SOON, proxy.shutdown(Duration::ZERO)).await;
    assert!(ended.is_ok());
    assert!(answer(asked).await, "there was no answer");
}

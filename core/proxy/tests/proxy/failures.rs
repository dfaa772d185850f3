//! Instances that are absent, dead, slow or wrong, and what clients are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use proxy::{Settings, Target};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{
    Connection, Dead, Instance, LOOPBACK, body, eventually, fetch, post, proxy, proxy_to,
    proxy_with, raw, raw_instance, read_until, switch, text,
};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// An instance that closes its first `count` connections after reading a request head, and serves
/// on later ones.
async fn failing_first(count: usize) -> (Instance, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&requests);
    let instance = raw_instance(move |mut stream| {
        let seen = Arc::clone(&seen);
        async move {
            read_until(&mut stream, "\r\n\r\n").await;
            if seen.fetch_add(1, Ordering::SeqCst) >= count {
                stream.write_all(OK.as_bytes()).await.expect("sent");
                let _ = stream.readable().await;
            }
        }
    })
    .await;
    (instance, requests)
}

async fn assert_error(response: http::Response<hyper::body::Incoming>, status: u16, code: &str) {
    assert_eq!(response.status(), status);
    assert_eq!(response.headers()["content-type"], "application/json");
    let body = body(response).await;
    assert!(
        body.starts_with(&format!(r#"{{"error":{{"code":"{code}","message":""#)),
        "{body}"
    );
    assert!(body.ends_with(r#""}}"#), "{body}");
    assert!(
        !body.contains("127.0.0.1"),
        "addresses inside are nobody's business: {body}"
    );
}

#[tokio::test]
async fn without_a_release_clients_are_told_to_come_back() {
    let proxy = proxy().await;
    let response = fetch(proxy.local_addr(), "/").await;
    assert_eq!(response.headers()["retry-after"], "2");
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert_error(response, 503, "no_release").await;
    let stats = proxy.stats();
    assert_eq!((stats.requests, stats.failures, stats.in_flight), (1, 1, 0));
}

#[tokio::test]
async fn a_dead_instance_is_named_and_tried_twice() {
    let proxy = proxy().await;
    let dead = Dead::new();
    assert!(switch(&proxy, dead.target("dead")).is_none());
    assert_error(
        fetch(proxy.local_addr(), "/").await,
        502,
        "instance_unreachable",
    )
    .await;
    let mut connection = Connection::open(proxy.local_addr()).await;
    let response = connection
        .send(post("/", text("body")))
        .await
        .expect("an answer");
    assert_error(response, 502, "instance_unreachable").await;
    assert_eq!(proxy.stats().retries, 2);
    assert_eq!(proxy.stats().in_flight, 0);
}

#[tokio::test]
async fn an_idempotent_request_is_sent_again_when_its_connection_closes() {
    let (instance, requests) = failing_first(1).await;
    let proxy = proxy_to(&instance).await;
    let response = fetch(proxy.local_addr(), "/").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(body(response).await, "ok");
    assert_eq!(
        (requests.load(Ordering::SeqCst), proxy.stats().retries),
        (2, 1)
    );
}

#[tokio::test]
async fn it_is_sent_again_once_only() {
    let (instance, requests) = failing_first(usize::MAX).await;
    let proxy = proxy_to(&instance).await;
    assert_error(fetch(proxy.local_addr(), "/").await, 502, "instance_closed").await;
    assert_eq!(requests.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_post_that_may_have_arrived_is_not_sent_again() {
    let (instance, requests) = failing_first(1).await;
    let proxy = proxy_to(&instance).await;
    let mut connection = Connection::open(proxy.local_addr()).await;
    let response = connection
        .send(post("/", text("")))
        .await
        .expect("an answer");
    assert_error(response, 502, "instance_closed").await;
    assert_eq!(
        (requests.load(Ordering::SeqCst), proxy.stats().retries),
        (1, 0)
    );
}

#[tokio::test]
async fn the_second_attempt_goes_to_whatever_serves_by_then() {
    let other = Instance::named("other").await;
    let held = Arc::new(tokio::sync::Notify::new());
    let release = Arc::clone(&held);
    let holding = raw_instance(move |mut stream| {
        let release = Arc::clone(&release);
        async move {
            read_until(&mut stream, "\r\n\r\n").await;
            release.notified().await;
        }
    })
    .await;
    let proxy = proxy_to(&holding).await;
    let address = proxy.local_addr();
    let request = tokio::spawn(async move { body(fetch(address, "/").await).await });
    eventually("the request is held", || proxy.stats().in_flight == 1).await;
    let _ = switch(&proxy, other.target("other"));
    held.notify_one();
    assert_eq!(request.await.expect("no panic"), "other");
}

#[tokio::test]
async fn a_kept_connection_that_the_instance_has_closed_costs_no_request() {
    let instance = raw_instance(|mut stream| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        // Announces nothing and closes after the answer: the proxy keeps the connection.
        stream.write_all(OK.as_bytes()).await.expect("sent");
    })
    .await;
    let proxy = proxy_to(&instance).await;
    let mut connection = Connection::open(proxy.local_addr()).await;
    for _ in 0..200 {
        let response = connection.get("/").await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(body(response).await, "ok");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_named_and_not_asked_for_again() {
    let instance = raw_instance(|mut stream| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        stream
            .write_all(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
            .await
            .expect("sent");
    })
    .await;
    let proxy = proxy_to(&instance).await;
    assert_error(
        fetch(proxy.local_addr(), "/").await,
        502,
        "instance_bad_answer",
    )
    .await;
    assert_eq!(proxy.stats().retries, 0);
}

#[tokio::test]
async fn an_instance_that_does_not_answer_is_given_up() {
    let instance = Instance::start(|_| std::future::pending()).await;
    let settings = Settings {
        answer_timeout: Duration::from_millis(100),
        ..Settings::default()
    };
    let proxy = proxy_with(settings).await;
    assert!(switch(&proxy, instance.target("one")).is_none());
    assert_error(
        fetch(proxy.local_addr(), "/").await,
        504,
        "instance_timeout",
    )
    .await;
    assert_eq!(proxy.stats().in_flight, 0);
}

#[tokio::test]
async fn an_instance_that_does_not_accept_is_given_up() {
    // A queue of one that nobody empties: further connections get no answer to their SYN.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind(LOOPBACK).expect("a free port");
    let listener = socket.listen(1).expect("listens");
    let address = listener.local_addr().expect("an address");
    let mut queued = Vec::new();
    let brief = Duration::from_millis(200);
    while let Ok(Ok(stream)) =
        tokio::time::timeout(brief, tokio::net::TcpStream::connect(address)).await
    {
        queued.push(stream);
    }
    let settings = Settings {
        connect_timeout: brief,
        ..Settings::default()
    };
    let proxy = proxy_with(settings).await;
    let full = Target {
        id: "full".to_owned(),
        address,
    };
    assert!(switch(&proxy, full).is_none());
    assert_error(
        fetch(proxy.local_addr(), "/").await,
        504,
        "instance_connect_timeout",
    )
    .await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_passed_off_as_whole() {
    use http_body_util::BodyExt;
    let kill = Arc::new(tokio::sync::Notify::new());
    let killed = Arc::clone(&kill);
    let instance = raw_instance(move |mut stream| {
        let killed = Arc::clone(&killed);
        async move {
            read_until(&mut stream, "\r\n\r\n").await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf";
            stream.write_all(answer).await.expect("sent");
            killed.notified().await;
        }
    })
    .await;
    let proxy = proxy_to(&instance).await;
    let response = fetch(proxy.local_addr(), "/").await;
    assert_eq!(response.status(), StatusCode::OK);
    kill.notify_one();
    let collected = response.into_body().collect().await;
    assert!(collected.is_err(), "the client sees the break");
    eventually("the request has ended", || proxy.stats().in_flight == 0).await;
}

#[tokio::test]
async fn more_clients_than_there_are_places_wait_for_one() {
    let proxy = proxy_with(Settings {
        max_connections: 1,
        ..Settings::default()
    })
    .await;
    let address = proxy.local_addr();
    let held = TcpStream::connect(address).await.expect("a connection");
    let asking = raw(
        address,
        "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    );
    let mut asking = std::pin::pin!(asking);
    let early = tokio::time::timeout(Duration::from_millis(300), asking.as_mut()).await;
    assert!(early.is_err(), "{early:?}");
    drop(held);
    assert!(asking.await.starts_with("HTTP/1.1 503 "));
}

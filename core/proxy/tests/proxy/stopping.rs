//! The end of the proxy, and of clients that never begin.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use proxy::{Front, Proxy, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::support::{
    Connection, Instance, LOOPBACK, SOON, body, eventually, feed, fetch, get, proxy_to, proxy_with,
    switch, text,
};

async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    tokio::time::timeout(SOON, stream.read_to_end(&mut rest))
        .await
        .is_ok()
}

#[tokio::test]
async fn nobody_is_accepted_before_it_is_known_where_requests_go() {
    let listener = TcpListener::bind(LOOPBACK).await.expect("a port");
    let proxy = Proxy::on(listener, Front::Http, Settings::default()).expect("it has an address");
    let address = proxy.local_addr();
    let early = tokio::spawn(async move { body(fetch(address, "/").await).await });
    let mut first = TcpStream::connect(address).await.expect("it is queued");
    assert_eq!(proxy.stats().connections, 0);
    let instance = Instance::named("it").await;
    assert!(switch(&proxy, instance.target("it")).is_none());
    let answered = tokio::time::timeout(SOON, early).await;
    assert_eq!(answered.expect("in time").expect("no panic"), "it");
    // One that never gets that far closes what has come.
    proxy.shutdown(Duration::ZERO).await;
    assert!(is_closed(&mut first).await);
    let listener = TcpListener::bind(LOOPBACK).await.expect("a port");
    let proxy = Proxy::on(listener, Front::Http, Settings::default()).expect("it has an address");
    let mut never = TcpStream::connect(proxy.local_addr())
        .await
        .expect("it is queued");
    proxy.shutdown(SOON).await;
    assert!(is_closed(&mut never).await);
}

#[tokio::test]
async fn who_has_just_connected_may_still_ask() {
    let instance = Instance::named("it").await;
    let proxy = proxy_to(&instance).await;
    let address = proxy.local_addr();
    let mut silent = TcpStream::connect(address).await.expect("accepted");
    let mut late = TcpStream::connect(address).await.expect("accepted");
    eventually("both are in", || proxy.stats().connections == 2).await;
    let stopping = tokio::spawn(async move { proxy.shutdown(SOON).await });
    eventually("nothing new is accepted", || {
        std::net::TcpStream::connect(address).is_err()
    })
    .await;
    let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    late.write_all(request).await.expect("sent");
    let mut answer = String::new();
    let read = tokio::time::timeout(SOON, late.read_to_string(&mut answer)).await;
    read.expect("an end in time").expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert!(is_closed(&mut silent).await);
    let ended = tokio::time::timeout(SOON, stopping).await;
    ended.expect("it ends").expect("no panic");
}

#[tokio::test]
async fn a_shutdown_lets_requests_end() {
    let (feeds, mut receiver) = mpsc::channel(1);
    let instance = Instance::start(move |_| {
        let feeds = feeds.clone();
        async move {
            let (sender, body) = feed(1);
            feeds.send(sender).await.expect("the test listens");
            Response::new(body)
        }
    })
    .await;
    let proxy = proxy_to(&instance).await;
    let address = proxy.local_addr();
    let mut idle = TcpStream::connect(address).await.expect("accepted");
    let response = fetch(address, "/").await;
    let feed = receiver.recv().await.expect("a request");

    let stopping = tokio::spawn(async move { proxy.shutdown(SOON).await });
    assert!(is_closed(&mut idle).await, "idle connections go first");
    assert!(
        TcpStream::connect(address).await.is_err(),
        "nothing new is accepted"
    );
    assert!(!stopping.is_finished());
    feed.send(Bytes::from_static(b"whole"))
        .await
        .expect("taken");
    drop(feed);
    assert_eq!(body(response).await, "whole");
    tokio::time::timeout(SOON, stopping)
        .await
        .expect("it ends")
        .expect("no panic");
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_ever() {
    let instance = Instance::start(|_| std::future::pending()).await;
    let proxy = proxy_to(&instance).await;
    let mut connection = Connection::open(proxy.local_addr()).await;
    let request = tokio::spawn(async move { connection.send(get("/")).await.map(drop) });
    eventually("the request is in flight", || proxy.stats().in_flight == 1).await;
    let stopping = proxy.shutdown(Duration::from_millis(20));
    tokio::time::timeout(SOON, stopping).await.expect("it ends");
    assert!(request.await.expect("no panic").is_err());
    assert_eq!(proxy.stats().in_flight, 0);
}

#[tokio::test]
async fn dropping_the_last_handle_closes_everything() {
    let instance = Instance::named("one").await;
    let proxy = proxy_to(&instance).await;
    let address = proxy.local_addr();
    let other_handle = proxy.clone();
    drop(proxy);
    let mut connection = Connection::open(address).await;
    assert_eq!(
        body(connection.get("/").await.expect("an answer")).await,
        "one"
    );
    let mut idle = TcpStream::connect(address).await.expect("accepted");
    drop(other_handle);
    assert!(is_closed(&mut idle).await);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn clients_that_never_send_a_head_are_cut_off() {
    let instance = Instance::start(|_| async { Response::new(text("one")) }).await;
    let settings = Settings {
        header_read_timeout: Duration::from_millis(100),
        ..Settings::default()
    };
    let proxy = proxy_with(settings).await;
    assert!(switch(&proxy, instance.target("one")).is_none());
    for beginning in [
        "",
        "P",
        "GET / HTTP/1.1\r\nhost: a\r\n",
        "PRI * HTTP/2.0\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(proxy.local_addr())
            .await
            .expect("accepted");
        stream.write_all(beginning.as_bytes()).await.expect("sent");
        assert!(is_closed(&mut stream).await, "after {beginning:?}");
    }
    assert_eq!(proxy.stats().requests, 0);
}

//! What counts as in flight, and for how long.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use crate::support::{
    Connection, Instance, SOON, TestBody, body, eventually, feed, fetch, get, measures, post,
    proxy_to, text, withdraw,
};

/// An instance whose answers are fed by the test, one feed a request.
async fn fed_instance() -> (Instance, mpsc::Receiver<mpsc::Sender<Bytes>>) {
    let (feeds, receiver) = mpsc::channel(8);
    let instance = Instance::start(move |_| {
        let feeds = feeds.clone();
        async move {
            let (sender, body): (_, TestBody) = feed(1);
            feeds.send(sender).await.expect("the test listens");
            Response::new(body)
        }
    })
    .await;
    (instance, receiver)
}

#[tokio::test]
async fn a_drain_waits_for_a_slow_download() {
    let (instance, mut feeds) = fed_instance().await;
    let proxy = proxy_to(&instance).await;
    let response = fetch(proxy.local_addr(), "/slow").await;
    let feed = feeds.recv().await.expect("a request");
    feed.send(Bytes::from_static(b"first "))
        .await
        .expect("taken");

    let retired = withdraw(&proxy).expect("the first");
    assert_eq!(retired.in_flight(), 1);
    assert!(
        !retired.drained(Duration::from_millis(50)).await,
        "the download still runs"
    );

    feed.send(Bytes::from_static(b"last")).await.expect("taken");
    drop(feed);
    assert_eq!(body(response).await, "first last");
    assert!(retired.drained(SOON).await);
    assert_eq!(proxy.stats().in_flight, 0);
}

#[tokio::test]
async fn a_client_that_aborts_its_download_frees_the_instance() {
    let (instance, mut feeds) = fed_instance().await;
    let proxy = proxy_to(&instance).await;
    let mut connection = Connection::open(proxy.local_addr()).await;
    let mut response = connection.get("/events").await.expect("an answer");
    let feed = feeds.recv().await.expect("a request");
    feed.send(Bytes::from_static(b"data: 1\n\n"))
        .await
        .expect("taken");
    let first = response.frame().await.expect("a frame").expect("no error");
    assert_eq!(first.into_data().expect("data"), "data: 1\n\n");
    assert_eq!(proxy.stats().in_flight, 1);

    drop((response, connection));
    eventually("the request has ended", || proxy.stats().in_flight == 0).await;
    let closed = tokio::time::timeout(SOON, feed.closed()).await;
    assert!(closed.is_ok(), "the instance learns of it too");
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_frees_the_instance_without_blame() {
    let (arrived, mut arrivals) = mpsc::channel(1);
    let instance = Instance::start(move |_| {
        let arrived = arrived.clone();
        async move {
            arrived.send(()).await.expect("the test listens");
            std::future::pending().await
        }
    })
    .await;
    let proxy = proxy_to(&instance).await;
    let mut connection = Connection::open(proxy.local_addr()).await;
    let request = tokio::spawn(async move { connection.send(get("/")).await.map(drop) });
    arrivals.recv().await.expect("a request");
    assert_eq!(proxy.stats().in_flight, 1);
    request.abort();
    eventually("the request has ended", || proxy.stats().in_flight == 0).await;
    let measures = measures(&proxy, "one");
    assert_eq!((measures.failures, measures.latency.count), (0, 0));
}

#[tokio::test]
async fn a_client_that_aborts_its_upload_frees_the_instance() {
    let instance = Instance::start(|request| async move {
        let _ = request.into_body().collect().await;
        Response::new(text("done"))
    })
    .await;
    let proxy = proxy_to(&instance).await;
    let (upload, upload_body) = feed(1);
    let mut connection = Connection::open(proxy.local_addr()).await;
    let request =
        tokio::spawn(async move { connection.send(post("/", upload_body)).await.map(drop) });
    upload
        .send(Bytes::from_static(b"some"))
        .await
        .expect("taken");
    eventually("bytes arrive", || proxy.stats().bytes_in == 4).await;
    assert_eq!(proxy.stats().in_flight, 1);
    request.abort();
    eventually("the request has ended", || proxy.stats().in_flight == 0).await;
}

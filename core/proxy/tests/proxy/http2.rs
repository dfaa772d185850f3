//! Clients that speak HTTP/2 without TLS.

use http::{Request, Response, Version};
use http_body_util::BodyExt;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::support::{
    Instance, SOON, TestBody, body, eventually, feed, proxy, proxy_to, share, text,
};

async fn open(address: std::net::SocketAddr) -> SendRequest<TestBody> {
    let stream = TcpStream::connect(address)
        .await
        .expect("the proxy accepts");
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .expect("a connection");
    tokio::spawn(connection);
    sender
}

fn request(path: &str) -> http::request::Builder {
    Request::builder().uri(format!("http://shop.test{path}"))
}

/// An instance that answers with what HTTP/1.1 it was asked in, and the request's body.
async fn mirror() -> Instance {
    Instance::start(|request| async move {
        assert_eq!(request.version(), Version::HTTP_11);
        let header = |name| {
            let values = request.headers().get_all(name).iter();
            values
                .map(|value| value.to_str().expect("text"))
                .collect::<Vec<_>>()
                .join("|")
        };
        let head = format!("{} {} {}", request.uri(), header("host"), header("cookie"));
        let bytes = request
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        let mut response = Response::new(text([head.as_bytes(), b" ", &bytes].concat()));
        let connection = http::HeaderValue::from_static("close");
        response.headers_mut().insert("connection", connection);
        response
    })
    .await
}

#[tokio::test]
async fn requests_share_a_connection_and_reach_the_instance_as_http1() {
    let instance = mirror().await;
    let proxy = proxy_to(&instance).await;
    let client = open(proxy.local_addr()).await;
    let answers = (0..20).map(|number| {
        let mut client = client.clone();
        tokio::spawn(async move {
            let request = request(&format!("/{number}"))
                .method("POST")
                .header("cookie", "a=1")
                .header("cookie", "b=2")
                .body(text(format!("body {number}")))
                .expect("a request");
            body(client.send_request(request).await.expect("an answer")).await
        })
    });
    for (number, answer) in answers.collect::<Vec<_>>().into_iter().enumerate() {
        let expected = format!("/{number} shop.test a=1; b=2 body {number}");
        assert_eq!(answer.await.expect("no panic"), expected);
    }
    let stats = proxy.stats();
    assert_eq!(
        (stats.connections, stats.requests, stats.responses.success),
        (1, 20, 20)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_streams_of_one_connection_are_divided_by_weight() {
    let (stable, canary) = (
        Instance::named("stable").await,
        Instance::named("canary").await,
    );
    let proxy = proxy().await;
    let shares = [
        share([stable.target("stable")], 95),
        share([canary.target("canary")], 5),
    ];
    assert!(proxy.direct(&shares).is_empty());
    let client = open(proxy.local_addr()).await;
    let answers = (0..100).map(|_| {
        let mut client = client.clone();
        tokio::spawn(async move {
            let request = request("/").body(text("")).expect("a request");
            body(client.send_request(request).await.expect("an answer")).await
        })
    });
    let mut canaries = 0;
    for answer in answers.collect::<Vec<_>>() {
        canaries += u32::from(answer.await.expect("no panic") == "canary");
    }
    assert_eq!((proxy.stats().connections, canaries), (1, 5));
}

#[tokio::test]
async fn a_stream_that_the_client_resets_frees_the_instance() {
    let (feeds, mut receiver) = tokio::sync::mpsc::channel(1);
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
    let mut client = open(proxy.local_addr()).await;
    let request = request("/events").body(text("")).expect("a request");
    let response = client.send_request(request).await.expect("an answer");
    let feed = receiver.recv().await.expect("a request");
    assert_eq!(proxy.stats().in_flight, 1);
    drop(response);
    eventually("the request has ended", || proxy.stats().in_flight == 0).await;
    assert!(tokio::time::timeout(SOON, feed.closed()).await.is_ok());
    drop(client);
}

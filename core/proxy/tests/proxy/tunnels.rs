//! Upgraded connections.

use std::time::Duration;

use http::header::{CONNECTION, UPGRADE};
use http::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use proxy::Settings;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, split};
use tokio::net::TcpStream;

use crate::support::{
    Instance, SOON, eventually, measures, proxy_to, proxy_with, raw, raw_instance, read_until,
    switch, text, withdraw,
};

const HANDSHAKE: &str = "GET /socket HTTP/1.1\r\nhost: tenant.test\r\n\
    connection: keep-alive, Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: x\r\n\r\n";

/// An instance that accepts every upgrade and echoes.
async fn echo() -> Instance {
    Instance::start(|mut request| async move {
        if !request.headers().contains_key(UPGRADE) {
            return Response::new(text("no upgrade asked for"));
        }
        tokio::spawn(async move {
            let upgraded = hyper::upgrade::on(&mut request).await.expect("upgraded");
            let (mut reader, mut writer) = split(TokioIo::new(upgraded));
            let _ = copy(&mut reader, &mut writer).await;
            let _ = writer.shutdown().await;
        });
        Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header("sec-websocket-accept", "y")
            .body(text(""))
            .expect("a response")
    })
    .await
}

async fn open(address: std::net::SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address)
        .await
        .expect("the proxy accepts");
    stream.write_all(HANDSHAKE.as_bytes()).await.expect("sent");
    let head = read_until(&mut stream, "\r\n\r\n")
        .await
        .to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(
        head.contains("upgrade: websocket") && head.contains("connection: upgrade"),
        "{head}"
    );
    assert!(head.contains("sec-websocket-accept: y"), "{head}");
    stream
}

#[tokio::test]
async fn an_upgrade_is_a_tunnel_and_in_flight_until_it_is_closed() {
    let instance = echo().await;
    let proxy = proxy_to(&instance).await;
    let mut stream = open(proxy.local_addr()).await;
    stream.write_all(b"hello").await.expect("sent");
    assert_eq!(read_until(&mut stream, "hello").await, "hello");
    assert_eq!(measures(&proxy, "one").responses.informational, 1);

    let retired = withdraw(&proxy).expect("the first");
    assert!(!retired.drained(Duration::from_millis(30)).await);
    stream.write_all(b"still here").await.expect("sent");
    assert_eq!(read_until(&mut stream, "here").await, "still here");
    let stats = proxy.stats();
    assert_eq!(
        (
            stats.tunnels,
            stats.in_flight,
            stats.responses.informational
        ),
        (1, 1, 1)
    );
    assert_eq!((stats.bytes_in, stats.bytes_out), (15, 15));

    stream.shutdown().await.expect("closed");
    let mut rest = Vec::new();
    stream
        .read_to_end(&mut rest)
        .await
        .expect("the other side closes too");
    assert!(rest.is_empty());
    assert!(retired.drained(SOON).await);
    assert_eq!(proxy.stats().tunnels, 0);
}

#[tokio::test]
async fn a_tunnel_ends_when_its_instance_dies() {
    let instance = raw_instance(|mut stream| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
            upgrade: websocket\r\nsec-websocket-accept: y\r\n\r\nbye";
        stream.write_all(answer.as_bytes()).await.expect("sent");
    })
    .await;
    let proxy = proxy_to(&instance).await;
    let answer = raw(proxy.local_addr(), HANDSHAKE).await;
    assert!(
        answer.ends_with("\r\n\r\nbye"),
        "bytes sent with the head arrive: {answer}"
    );
    eventually("the tunnel is gone", || proxy.stats().in_flight == 0).await;
}

#[tokio::test]
async fn a_silent_tunnel_is_closed() {
    let instance = echo().await;
    let settings = Settings {
        tunnel_idle_timeout: Duration::from_millis(100),
        ..Settings::default()
    };
    let proxy = proxy_with(settings).await;
    assert!(switch(&proxy, instance.target("one")).is_none());
    let mut stream = open(proxy.local_addr()).await;
    let mut rest = Vec::new();
    let end = tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await;
    assert!(end.is_ok(), "closed by the proxy");
    eventually("the tunnel is gone", || proxy.stats().in_flight == 0).await;
}

#[tokio::test]
async fn an_upgrade_that_the_instance_declines_is_an_ordinary_answer() {
    let instance = Instance::named("plain").await;
    let proxy = proxy_to(&instance).await;
    let request = HANDSHAKE.replace("keep-alive, ", "close, ");
    let answer = raw(proxy.local_addr(), &request).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("plain"),
        "{answer}"
    );
}

#[tokio::test]
async fn an_upgrade_to_http2_is_not_passed_on() {
    let instance = echo().await;
    let proxy = proxy_to(&instance).await;
    let request = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close, upgrade, http2-settings\r\n\
        upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n";
    let answer = raw(proxy.local_addr(), request).await;
    assert!(answer.ends_with("no upgrade asked for"), "{answer}");
}

#[tokio::test]
async fn a_switch_of_protocols_that_nobody_asked_for_is_an_error() {
    let instance = raw_instance(|mut stream| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
            upgrade: websocket\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.expect("sent");
        read_until(&mut stream, "never").await;
    })
    .await;
    let proxy = proxy_to(&instance).await;
    let request = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let answer = raw(proxy.local_addr(), request).await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert!(
        answer.contains(r#""code":"instance_bad_answer""#),
        "{answer}"
    );
    let measures = measures(&proxy, "one");
    assert_eq!((measures.failures, measures.latency.count), (1, 0));
}

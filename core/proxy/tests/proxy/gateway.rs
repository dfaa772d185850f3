//! Headers on their way through.

use http::Response;
use proxy::{Forwarded, Settings};

use crate::support::{Instance, proxy_to, proxy_with, raw, raw_instance, read_until, switch, text};

/// An instance that answers with the head it has received, a line a header.
async fn mirror() -> Instance {
    Instance::start(|request| async move {
        let mut lines = vec![format!("{} {}", request.method(), request.uri())];
        for (name, value) in request.headers() {
            lines.push(format!("{name}: {}", value.to_str().expect("text")));
        }
        Response::new(text(lines.join("\n")))
    })
    .await
}

/// The lines that an instance receives for the head `request`.
async fn received(request: &str) -> Vec<String> {
    let instance = mirror().await;
    lines(&raw(proxy_to(&instance).await.local_addr(), request).await)
}

fn lines(answer: &str) -> Vec<String> {
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
    body.lines().map(str::to_owned).collect()
}

fn has(lines: &[String], line: &str) -> bool {
    lines.iter().any(|other| other == line)
}

fn names(lines: &[String], name: &str) -> bool {
    lines
        .iter()
        .any(|line| line.starts_with(&format!("{name}:")))
}

#[tokio::test]
async fn headers_of_the_connection_stay_on_it() {
    let lines = received(
        "GET /a?b=c HTTP/1.1\r\nhost: shop.test:8080\r\nconnection: close, X-Private\r\n\
         x-private: 1\r\nkeep-alive: timeout=5\r\nproxy-connection: keep-alive\r\n\
         proxy-authorization: Basic eDp5\r\nte: gzip, trailers\r\nupgrade: websocket\r\n\
         expect: 100-continue\r\naccept: text/html\r\nx-public: 2\r\n\r\n",
    )
    .await;
    assert_eq!(lines[0], "GET /a?b=c");
    for gone in [
        "connection",
        "x-private",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "upgrade",
        "expect",
    ] {
        assert!(!names(&lines, gone), "{gone} in {lines:?}");
    }
    for kept in [
        "host: shop.test:8080",
        "accept: text/html",
        "x-public: 2",
        "te: trailers",
    ] {
        assert!(has(&lines, kept), "{kept} not in {lines:?}");
    }
}

#[tokio::test]
async fn the_instance_learns_who_asked_and_for_what() {
    let lines = received(
        "GET / HTTP/1.1\r\nhost: shop.test\r\nconnection: close, x-forwarded-for, host\r\n\r\n",
    )
    .await;
    for line in [
        "host: shop.test",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-host: shop.test",
        "x-forwarded-proto: http",
    ] {
        assert!(has(&lines, line), "{line} not in {lines:?}");
    }
}

const CLAIMS: &str = "GET / HTTP/1.1\r\nhost: shop.test\r\nconnection: close\r\n\
    x-forwarded-for: 10.0.0.1\r\nx-forwarded-for: 10.0.0.2\r\nx-forwarded-proto: https\r\n\
    x-forwarded-host: public.test\r\nforwarded: for=10.0.0.1\r\n\r\n";

#[tokio::test]
async fn claims_of_clients_are_replaced() {
    let lines = received(CLAIMS).await;
    assert!(has(&lines, "x-forwarded-for: 127.0.0.1"), "{lines:?}");
    assert!(has(&lines, "x-forwarded-proto: http"), "{lines:?}");
    assert!(has(&lines, "x-forwarded-host: shop.test"), "{lines:?}");
    assert!(!names(&lines, "forwarded"), "{lines:?}");
}

#[tokio::test]
async fn behind_a_proxy_they_are_extended() {
    let instance = mirror().await;
    let settings = Settings {
        forwarded: Forwarded::Append,
        ..Settings::default()
    };
    let proxy = proxy_with(settings).await;
    assert!(switch(&proxy, instance.target("one")).is_none());
    let lines = lines(&raw(proxy.local_addr(), CLAIMS).await);
    assert!(
        has(&lines, "x-forwarded-for: 10.0.0.1, 10.0.0.2, 127.0.0.1"),
        "{lines:?}"
    );
    assert!(has(&lines, "x-forwarded-proto: https"), "{lines:?}");
    assert!(has(&lines, "x-forwarded-host: public.test"), "{lines:?}");
    assert!(has(&lines, "forwarded: for=10.0.0.1"), "{lines:?}");
}

#[tokio::test]
async fn an_absolute_target_names_the_host() {
    let lines = received(
        "GET http://real.test/path HTTP/1.1\r\nhost: other.test\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(lines[0], "GET /path");
    assert!(has(&lines, "host: real.test"), "{lines:?}");
}

#[tokio::test]
async fn old_clients_without_a_host_are_served() {
    let lines = received_by_old_client().await;
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("host: 127.0.0.1:")),
        "{lines:?}"
    );
}

async fn received_by_old_client() -> Vec<String> {
    let instance = mirror().await;
    let proxy = proxy_to(&instance).await;
    let answer = raw(proxy.local_addr(), "GET / HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
    assert!(!answer.contains("transfer-encoding"), "{answer}");
    lines(&answer.replacen("HTTP/1.0", "HTTP/1.1", 1))
}

#[tokio::test]
async fn requests_with_an_unclear_host_are_refused() {
    let instance = mirror().await;
    let proxy = proxy_to(&instance).await;
    for head in [
        "GET / HTTP/1.1\r\nconnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n",
        "GET http://user@a/ HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    ] {
        let answer = raw(proxy.local_addr(), head).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{head}: {answer}");
    }
    let connect = "CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\nconnection: close\r\n\r\n";
    let answer = raw(proxy.local_addr(), connect).await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}

#[tokio::test]
async fn headers_of_the_instance_connection_do_not_reach_the_client() {
    let instance = raw_instance(|mut stream| async move {
        use tokio::io::AsyncWriteExt;
        read_until(&mut stream, "\r\n\r\n").await;
        let answer = "HTTP/1.1 201 Created\r\nconnection: close, x-private\r\nx-private: 1\r\n\
            keep-alive: timeout=5\r\nproxy-authenticate: Basic\r\nset-cookie: a=1\r\n\
            set-cookie: b=2\r\nserver: instance\r\ntransfer-encoding: chunked\r\n\r\n\
            3\r\nabc\r\n0\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.expect("sent");
    })
    .await;
    let proxy = proxy_to(&instance).await;
    let request = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let answer = raw(proxy.local_addr(), request).await.to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 201 "), "{answer}");
    for gone in ["x-private", "keep-alive", "proxy-authenticate"] {
        assert!(!answer.contains(gone), "{gone} in {answer}");
    }
    for kept in [
        "set-cookie: a=1",
        "set-cookie: b=2",
        "server: instance",
        "connection: close",
    ] {
        assert!(answer.contains(kept), "{kept} not in {answer}");
    }
}

#[tokio::test]
async fn trailers_pass_when_both_sides_want_them() {
    let instance = raw_instance(|mut stream| async move {
        use tokio::io::AsyncWriteExt;
        read_until(&mut stream, "\r\n\r\n").await;
        let answer = "HTTP/1.1 200 OK\r\ntrailer: checksum\r\ntransfer-encoding: chunked\r\n\r\n\
            3\r\nabc\r\n0\r\nchecksum: 42\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.expect("sent");
    })
    .await;
    let proxy = proxy_to(&instance).await;
    let request = "GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: close, te\r\n\r\n";
    let answer = raw(proxy.local_addr(), request).await.to_ascii_lowercase();
    assert!(answer.contains("0\r\nchecksum: 42\r\n"), "{answer}");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let instance = mirror().await;
    let settings = Settings {
        max_header_bytes: 8192,
        ..Settings::default()
    };
    let proxy = proxy_with(settings).await;
    assert!(switch(&proxy, instance.target("one")).is_none());
    let padding = "x".repeat(20_000);
    let head = format!("GET / HTTP/1.1\r\nhost: a\r\nx-padding: {padding}\r\n\r\n");
    let mut stream = tokio::net::TcpStream::connect(proxy.local_addr())
        .await
        .expect("accepted");
    let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await;
    let answer = read_until(&mut stream, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert_eq!(proxy.stats().requests, 0);
}

/// A trace goes on behind the proxy as it came, with what others have put beside it.
#[tokio::test]
async fn the_context_of_a_trace_is_passed_on() {
    let parent = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let state = "tracestate: vendor=value";
    let request =
        format!("GET / HTTP/1.1\r\nhost: a\r\n{parent}\r\n{state}\r\nconnection: close\r\n\r\n");
    let lines = received(&request).await;
    assert!(has(&lines, parent) && has(&lines, state), "{lines:?}");
}

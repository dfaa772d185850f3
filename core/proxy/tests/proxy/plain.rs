//! Plain requests, which are handed on as they came: byte for byte, and held against what hyper reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use proxy::{Proxy, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{
    Instance, SOON, eventually, measures, proxy_to, proxy_with, raw, raw_instance, read_until,
    switch, withdraw,
};

const GET: &str = "GET /x HTTP/1.1\r\nhost: tenant.test\r\n\r\n";
const LAST: &str = "GET /last HTTP/1.1\r\nhost: tenant.test\r\nconnection: close\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ndate: d\r\ncontent-length: 2\r\n\r\nok";
const CLOSING: &str =
    "HTTP/1.1 200 OK\r\ndate: d\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";

/// An instance that answers each head of a request with `answer`, and counts its connections.
async fn answering(answer: impl Into<Bytes>) -> (Instance, Arc<AtomicUsize>) {
    let (answer, connections) = (answer.into(), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&connections);
    let instance = raw_instance(move |mut stream| {
        seen.fetch_add(1, Ordering::SeqCst);
        let answer = answer.clone();
        async move {
            while has_asked(&mut stream).await {
                if stream.write_all(&answer).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    (instance, connections)
}

async fn has_asked(stream: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if !matches!(stream.read_buf(&mut head).await, Ok(1..)) {
            return false;
        }
    }
    true
}

/// What a client gets of an instance that says `answer` and closes.
async fn through(answer: &str) -> String {
    let answer = answer.to_owned();
    let instance = raw_instance(move |mut stream| {
        let answer = answer.clone();
        async move {
            has_asked(&mut stream).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await;
    raw(proxy_to(&instance).await.local_addr(), LAST).await
}

async fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.local_addr()).await;
    stream.expect("the proxy accepts")
}

#[tokio::test]
async fn requests_that_come_at_once_are_answered_in_order() {
    let (instance, connections) = answering(OK).await;
    let proxy = proxy_to(&instance).await;
    let answers = raw(proxy.local_addr(), &format!("{GET}{GET}{LAST}")).await;
    assert_eq!(answers, format!("{OK}{OK}{CLOSING}"));
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    assert_eq!(proxy.stats().bytes_out, 6);
}

#[tokio::test]
async fn a_connection_goes_on_with_whatever_comes() {
    let (instance, _) = answering("HTTP/1.1 204 No Content\r\ndate: d\r\n\r\n").await;
    let proxy = proxy_to(&instance).await;
    let upload = "POST /x HTTP/1.1\r\nhost: tenant.test\r\ncontent-length: 4\r\n\r\n\r\n\r\n";
    for cut in 0..GET.len() + upload.len() {
        let all = format!("{GET}{upload}{GET}{LAST}");
        let mut stream = connect(&proxy).await;
        stream
            .write_all(&all.as_bytes()[..cut])
            .await
            .expect("sent");
        stream.flush().await.expect("sent");
        stream
            .write_all(&all.as_bytes()[cut..])
            .await
            .expect("sent");
        let mut answers = String::new();
        let reading = stream.read_to_string(&mut answers);
        tokio::time::timeout(SOON, reading)
            .await
            .expect("the end")
            .expect("text");
        assert_eq!(
            answers.matches("HTTP/1.1 204 ").count(),
            4,
            "cut at {cut}: {answers}"
        );
    }
    eventually("nothing is in flight", || proxy.stats().in_flight == 0).await;
}

#[tokio::test]
async fn chunks_and_trailers_come_through_as_they_are() {
    let body = "5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nx-sum: 7\r\n\r\n";
    let head = "HTTP/1.1 200 OK\r\ndate: d\r\n";
    let answer = format!("{head}transfer-encoding: chunked\r\n\r\n{body}");
    let (instance, connections) = answering(answer.clone()).await;
    let proxy = proxy_to(&instance).await;
    let got = raw(proxy.local_addr(), &format!("{GET}{LAST}")).await;
    let last = format!("{head}transfer-encoding: chunked\r\nconnection: close\r\n\r\n{body}");
    assert_eq!(got, format!("{answer}{last}"));
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    assert_eq!(proxy.stats().bytes_out, 12, "the content");
}

#[tokio::test]
async fn a_body_that_ends_with_its_connection_gets_an_end_of_its_own() {
    let got = through("HTTP/1.0 200 OK\r\ndate: d\r\n\r\nto the end").await;
    let expected = "HTTP/1.1 200 OK\r\ndate: d\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n\
                    a\r\nto the end\r\n0\r\n\r\n";
    assert_eq!(got, expected);
}

#[tokio::test]
async fn what_is_cut_off_is_not_shown_as_whole() {
    for answer in [
        "HTTP/1.1 200 OK\r\ndate: d\r\ncontent-length: 9\r\n\r\ncut",
        "HTTP/1.1 200 OK\r\ndate: d\r\ntransfer-encoding: chunked\r\n\r\n9\r\ncut",
        "HTTP/1.1 200 OK\r\ndate: d\r\ntransfer-encoding: chunked\r\n\r\n3\r\ncut\r\n",
    ] {
        let got = through(answer).await;
        assert!(got.starts_with("HTTP/1.1 200 OK\r\n"), "{got}");
        assert!(!got.ends_with("0\r\n\r\n"), "{got}");
    }
}

#[tokio::test]
async fn an_answer_that_is_none_is_told_from_one_that_is_missing() {
    for (answer, code) in [
        ("", "instance_closed"),
        ("HTTP/1.1 2", "instance_bad_answer"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            "instance_bad_answer",
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
            "instance_bad_answer",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\ncut!\r\n0\r\n\r\n",
            "instance_bad_answer",
        ),
        ("SSH-2.0-OpenSSH_9.2p1\r\n", "instance_bad_answer"),
    ] {
        let got = through(answer).await;
        assert!(
            got.starts_with("HTTP/1.1 502 Bad Gateway\r\n"),
            "{answer:?}: {got}"
        );
        assert!(
            got.contains(&format!(r#""code":"{code}""#)),
            "{answer:?}: {got}"
        );
    }
    let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(1 << 20));
    let got = through(&endless).await;
    assert!(got.contains(r#""code":"instance_bad_answer""#), "{got}");
    let interim = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n";
    let got = through(&format!("{interim}HTTP/1.1 100 Continue\r\n\r\n{OK}")).await;
    assert_eq!(got, CLOSING);
    let got = through(&interim.repeat(100)).await;
    assert!(got.contains(r#""code":"instance_bad_answer""#), "{got}");
}

#[tokio::test]
async fn a_connection_with_something_left_on_it_is_not_used_again() {
    for answer in [
        format!("{OK}more"),
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok".to_owned(),
        "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
            .to_owned(),
    ] {
        let (instance, connections) = answering(answer.clone()).await;
        let proxy = proxy_to(&instance).await;
        let got = raw(proxy.local_addr(), &format!("{GET}{GET}{LAST}")).await;
        assert_eq!(got.matches("HTTP/1.1 200 OK").count(), 3, "{got}");
        assert!(!got.contains("more"), "{got}");
        assert_eq!(connections.load(Ordering::SeqCst), 3, "{answer}");
    }
}

#[tokio::test]
async fn the_head_of_an_answer_is_all_that_a_head_request_gets() {
    let head = "HTTP/1.1 200 OK\r\ndate: d\r\ncontent-length: 2\r\n\r\n";
    let (instance, connections) = answering(head).await;
    let proxy = proxy_to(&instance).await;
    let ask = GET.replace("GET", "HEAD");
    let got = raw(
        proxy.local_addr(),
        &format!("{ask}{ask}{}", LAST.replace("GET", "HEAD")),
    )
    .await;
    assert_eq!(got.matches(head.trim_end()).count(), 3, "{got}");
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    assert!(withdraw(&proxy).is_some());
    let got = raw(proxy.local_addr(), &LAST.replace("GET", "HEAD")).await;
    assert!(
        got.starts_with("HTTP/1.1 503 ") && got.ends_with("\r\n\r\n"),
        "{got}"
    );
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_while_nothing_comes() {
    let left = Arc::new(AtomicUsize::new(0));
    let gone = Arc::clone(&left);
    let instance = raw_instance(move |mut stream| {
        let gone = Arc::clone(&gone);
        async move {
            has_asked(&mut stream).await;
            // Half of them have begun to answer.
            if gone.load(Ordering::SeqCst) % 2 == 1 {
                let _ = stream.write_all(&OK.as_bytes()[..OK.len() - 1]).await;
            }
            let _ = stream.read(&mut [0]).await;
            gone.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let proxy = proxy_to(&instance).await;
    for ended in 1..=4 {
        let mut stream = connect(&proxy).await;
        stream.write_all(GET.as_bytes()).await.expect("sent");
        eventually("it is in flight", || proxy.stats().in_flight == 1).await;
        drop(stream);
        eventually("the instance is told", || {
            left.load(Ordering::SeqCst) == ended
        })
        .await;
        eventually("it is over", || proxy.stats().in_flight == 0).await;
    }
    assert_eq!(
        measures(&proxy, "one").failures,
        0,
        "nobody has waited in vain"
    );
}

#[tokio::test]
async fn a_client_that_sends_ahead_without_end_is_not_read_without_end() {
    let instance = raw_instance(|mut stream| async move {
        has_asked(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let proxy = proxy_to(&instance).await;
    let mut stream = connect(&proxy).await;
    stream.write_all(GET.as_bytes()).await.expect("sent");
    let piece = GET.repeat(1000);
    let mut taken = 0;
    // The kernel's buffers and the proxy's are full at some time.
    while let Ok(written) =
        tokio::time::timeout(Duration::from_secs(1), stream.write(piece.as_bytes())).await
    {
        taken += written.expect("it is not closed");
        assert!(taken < 64 << 20, "{taken} bytes were taken");
    }
    assert_eq!(proxy.stats().requests, 1);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_given_up() {
    let body = "x".repeat(64 << 20);
    let length = body.len();
    let (instance, _) = answering(format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}"
    ))
    .await;
    let proxy = proxy_with(Settings {
        take_timeout: Duration::from_millis(100),
        ..Settings::default()
    })
    .await;
    assert!(switch(&proxy, instance.target("one")).is_none());
    let mut stream = connect(&proxy).await;
    stream.write_all(GET.as_bytes()).await.expect("sent");
    eventually("it has begun", || proxy.stats().bytes_out > 0).await;
    eventually("it is over", || proxy.stats().in_flight == 0).await;
    assert!(proxy.stats().bytes_out < length as u64);
}

#[tokio::test]
async fn an_instance_that_says_nothing_is_given_up() {
    let instance = raw_instance(|mut stream| async move {
        has_asked(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200").await;
        std::future::pending::<()>().await;
    })
    .await;
    let proxy = proxy_with(Settings {
        answer_timeout: Duration::from_millis(100),
        ..Settings::default()
    })
    .await;
    assert!(switch(&proxy, instance.target("one")).is_none());
    let mut stream = connect(&proxy).await;
    for _ in 0..2 {
        stream.write_all(GET.as_bytes()).await.expect("sent");
        let got = read_until(&mut stream, r#""}}"#).await;
        assert!(got.starts_with("HTTP/1.1 504 Gateway Timeout\r\n"), "{got}");
    }
    assert_eq!(measures(&proxy, "one").failures, 2);
}

#[tokio::test]
async fn the_end_of_the_proxy_is_told_with_the_last_answer() {
    let instance = raw_instance(|mut stream| async move {
        while has_asked(&mut stream).await {
            stream.write_all(OK.as_bytes()).await.expect("sent");
        }
    })
    .await;
    let proxy = proxy_to(&instance).await;
    let mut stream = connect(&proxy).await;
    stream
        .write_all(&GET.as_bytes()[..GET.len() - 1])
        .await
        .expect("sent");
    let mut other = connect(&proxy).await;
    other.write_all(GET.as_bytes()).await.expect("sent");
    assert_eq!(read_until(&mut other, "ok").await, OK);
    let stopping = tokio::spawn(async move { proxy.shutdown(SOON).await });
    let mut rest = String::new();
    let idle = tokio::time::timeout(SOON, other.read_to_string(&mut rest)).await;
    assert!(matches!(idle, Ok(Ok(0))), "nothing more than the end");
    stream.write_all(b"\n").await.expect("sent");
    let answered = tokio::time::timeout(SOON, stream.read_to_string(&mut rest)).await;
    answered.expect("the end").expect("text");
    assert_eq!(rest, CLOSING);
    let ended = tokio::time::timeout(SOON, stopping).await;
    ended.expect("it ends").expect("no panic");
}

#[tokio::test]
async fn a_request_that_was_not_sent_to_its_end_leaves_no_connection_behind() {
    let connections = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&connections);
    let instance = raw_instance(move |mut stream| {
        let is_first = seen.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            // The first one answers what it has not read.
            while is_first || has_asked(&mut stream).await {
                stream.write_all(OK.as_bytes()).await.expect("sent");
                if is_first {
                    break;
                }
            }
            while has_asked(&mut stream).await {
                let _ = stream.write_all(OK.replace("ok", "no").as_bytes()).await;
            }
        }
    })
    .await;
    let proxy = proxy_with(Settings {
        max_header_bytes: 64 << 20,
        ..Settings::default()
    })
    .await;
    assert!(switch(&proxy, instance.target("one")).is_none());
    let mut stream = connect(&proxy).await;
    // More than the kernel takes of it.
    let long = format!(
        "GET /x HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n",
        "y".repeat(32 << 20)
    );
    stream.write_all(long.as_bytes()).await.expect("sent");
    assert_eq!(read_until(&mut stream, "ok").await, OK);
    stream.write_all(GET.as_bytes()).await.expect("sent");
    assert_eq!(read_until(&mut stream, "\r\n\r\nok").await, OK);
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_answer_that_comes_drop_by_drop_is_given_up() {
    for drop in ["y", "y\r\nx: "] {
        let instance = raw_instance(move |mut stream| async move {
            has_asked(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await;
            for _ in 0..100 {
                if stream.write_all(drop.as_bytes()).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let _ = stream.write_all(b"\r\ncontent-length: 0\r\n\r\n").await;
        })
        .await;
        let proxy = proxy_with(Settings {
            answer_timeout: Duration::from_millis(300),
            ..Settings::default()
        })
        .await;
        assert!(switch(&proxy, instance.target("one")).is_none());
        let got = raw(proxy.local_addr(), LAST).await;
        assert!(got.starts_with("HTTP/1.1 504 Gateway Timeout\r\n"), "{got}");
    }
}

/// Begins to end a proxy, and returns when its connections have noticed.
async fn stop(proxy: Proxy) -> tokio::task::JoinHandle<()> {
    let mut idle = connect(&proxy).await;
    idle.write_all(GET.as_bytes()).await.expect("sent");
    read_until(&mut idle, "ok").await;
    let stopping = tokio::spawn(async move { proxy.shutdown(SOON).await });
    let ended = tokio::time::timeout(SOON, idle.read(&mut [0])).await;
    assert!(matches!(ended, Ok(Ok(0))), "{ended:?}");
    stopping
}

#[tokio::test]
async fn an_answer_that_is_waited_for_tells_of_the_end_that_has_come_meanwhile() {
    let go = Arc::new(tokio::sync::Notify::new());
    let gone = Arc::clone(&go);
    let instance = raw_instance(move |mut stream| {
        let go = Arc::clone(&gone);
        async move {
            let mut head = Vec::new();
            while let Ok(1..) = stream.read_buf(&mut head).await {
                if head.ends_with(b"\r\n\r\n") {
                    if head.starts_with(b"GET /last") {
                        go.notified().await;
                    }
                    stream.write_all(OK.as_bytes()).await.expect("sent");
                    head.clear();
                }
            }
        }
    })
    .await;
    let proxy = proxy_to(&instance).await;
    let mut stream = connect(&proxy).await;
    let slow = GET.replace("/x", "/last");
    stream.write_all(slow.as_bytes()).await.expect("sent");
    eventually("it is in flight", || proxy.stats().in_flight == 1).await;
    let stopping = stop(proxy).await;
    stream.write_all(GET.as_bytes()).await.expect("sent");
    go.notify_one();
    let mut rest = String::new();
    let answered = tokio::time::timeout(SOON, stream.read_to_string(&mut rest)).await;
    assert!(answered.is_ok(), "the end");
    assert_eq!(rest, CLOSING);
    let ended = tokio::time::timeout(SOON, stopping).await;
    ended.expect("it ends").expect("no panic");
}

#[tokio::test]
async fn a_request_that_has_begun_is_answered_at_the_end_of_the_proxy_too() {
    let (instance, _) = answering(OK).await;
    let proxy = proxy_to(&instance).await;
    let mut streams = Vec::new();
    for _ in 0..32 {
        let mut stream = connect(&proxy).await;
        stream.write_all(GET.as_bytes()).await.expect("sent");
        read_until(&mut stream, "ok").await;
        stream.write_all(b"POST").await.expect("sent");
        streams.push(stream);
    }
    // What was sent has been read once another connection has had its answer.
    let stopping = stop(proxy).await;
    for mut stream in streams {
        let rest = b" /x HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(rest).await.expect("sent");
        let mut answer = String::new();
        let reading = stream.read_to_string(&mut answer);
        let read = tokio::time::timeout(SOON, reading).await;
        read.expect("the end").expect("text");
        assert!(answer.ends_with("\r\n\r\nok"), "{answer:?}");
    }
    let ended = tokio::time::timeout(SOON, stopping).await;
    ended.expect("it ends").expect("no panic");
}

#[tokio::test]
async fn one_length_is_said_once() {
    let got =
        through("HTTP/1.1 200 OK\r\ndate: d\r\ncontent-length: 2\r\nContent-Length: 2\r\n\r\nok")
            .await;
    assert_eq!(got, CLOSING);
}

/// What hyper makes of an answer to a GET request: the status and the whole body.
async fn as_hyper_reads(bytes: Vec<u8>) -> Option<(u16, Bytes)> {
    let (mut server, client) = tokio::io::duplex(1 << 20);
    let answering = async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            server.read_buf(&mut head).await.ok()?;
        }
        server.write_all(&bytes).await.ok()
    };
    let asking = async move {
        let made = hyper::client::conn::http1::handshake(TokioIo::new(client)).await;
        let (mut sender, connection) = made.ok()?;
        let request = http::Request::get("/").body(Empty::<Bytes>::new()).ok()?;
        let read = async move {
            let response = sender.send_request(request).await.ok()?;
            let status = response.status().as_u16();
            Some((
                status,
                response.into_body().collect().await.ok()?.to_bytes(),
            ))
        };
        tokio::join!(read, connection).0
    };
    tokio::join!(asking, answering).0
}

#[test]
fn no_answer_is_read_otherwise_than_hyper_reads_it() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let answer = Arc::new(std::sync::Mutex::new(Vec::new()));
    let said = Arc::clone(&answer);
    let (proxy, _instance) = runtime.block_on(async move {
        let instance = raw_instance(move |mut stream| {
            let said = said.lock().expect("a lock").clone();
            async move {
                has_asked(&mut stream).await;
                let _ = stream.write_all(&said).await;
            }
        })
        .await;
        (proxy_to(&instance).await, instance)
    });
    let seeds = [
        "HTTP/1.1 200 OK\r\ndate: d\r\ncontent-length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x\r\n\r\n2;a=b\r\nhe\r\n0003\r\nllo\r\n0\r\nx: y\r\n\r\n",
        "HTTP/1.0 404 Not Found\r\nserver: x\r\n\r\nto the end",
        "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nconnection: close, x-mine\r\nx-mine: 1\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n",
    ];
    let words = [
        "\r\n",
        "\n",
        "\r",
        "content-length: ",
        "transfer-encoding: ",
        "chunked",
        "gzip, chunked",
        "0\r\n\r\n",
        "HTTP/1.1 ",
        "HTTP/1.0 ",
        "204",
        "304",
        "100",
        ";",
        ",",
        ": ",
        "\t",
        "\0",
        "connection: close\r\n",
        "ffffffffffffffff",
        "+5",
        "5,5",
    ];
    fuzzing::fuzz_cases(1500, &seeds, &words, |bytes| {
        *answer.lock().expect("a lock") = bytes.to_vec();
        runtime.block_on(async {
            let direct = as_hyper_reads(bytes.to_vec()).await;
            let mut stream = connect(&proxy).await;
            stream.write_all(LAST.as_bytes()).await.expect("sent");
            let mut got = Vec::new();
            let reading = stream.read_to_end(&mut got);
            let read = tokio::time::timeout(SOON, reading).await;
            // A connection that is reset has not brought a whole answer.
            let ended = read.expect("an end").is_ok();
            let through = as_hyper_reads(got.clone()).await.filter(|_| ended);
            let is_refused =
                matches!(&through, Some((502, body)) if body.starts_with(b"{\"error\""));
            assert!(
                through.is_none() || is_refused || through == direct,
                "read as {direct:?}, and through the proxy as {through:?}: {}",
                got.escape_ascii(),
            );
        });
    });
    assert_eq!(proxy.stats().in_flight, 0);
}

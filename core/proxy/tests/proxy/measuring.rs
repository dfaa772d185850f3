//! What is known of each instance by itself.

use std::time::Duration;

use http::{Response, StatusCode};
use proxy::{Classes, Settings};
use tokio::io::AsyncWriteExt;

use crate::support::{
    Connection, Instance, body, eventually, fetch, get, measures, post, proxy, proxy_to,
    proxy_with, raw_instance, read_until, share, switch, text,
};

/// An instance that answers with the status that the path names.
async fn obedient() -> Instance {
    Instance::start(|request| async move {
        let status = request.uri().path().trim_start_matches('/');
        let mut response = Response::new(text("ok"));
        *response.status_mut() = status.parse().expect("a status");
        response
    })
    .await
}

#[tokio::test]
async fn answers_count_by_class_on_the_instance_that_gave_them() {
    let (bad, good) = (obedient().await, Instance::named("good").await);
    let proxy = proxy().await;
    let shares = [
        share([bad.target("bad")], 1),
        share([good.target("good")], 1),
    ];
    assert!(proxy.direct(&shares).is_empty());
    let mut connection = Connection::open(proxy.local_addr()).await;
    for path in ["/200", "/302", "/404", "/410", "/500", "/503"] {
        for _ in &shares {
            body(connection.get(path).await.expect("an answer")).await;
        }
    }
    let bad = measures(&proxy, "bad");
    let classes = Classes {
        informational: 0,
        success: 1,
        redirection: 1,
        client_error: 2,
        server_error: 2,
    };
    assert_eq!((bad.responses, bad.failures), (classes, 0));
    assert_eq!(bad.latency.count, 6);
    let good = measures(&proxy, "good");
    assert_eq!((good.responses.success, good.failures), (6, 0));
    let stats = proxy.stats();
    assert_eq!(stats.responses.success, 7);
    let bounds = |histogram: &proxy::Histogram| {
        let buckets = histogram.buckets.iter();
        buckets
            .map(|bucket| bucket.le.to_bits())
            .collect::<Vec<_>>()
    };
    assert_eq!(bounds(&good.latency), bounds(&stats.latency));
    assert!(good.latency.sum + bad.latency.sum <= stats.latency.sum);
}

#[tokio::test]
async fn an_instance_that_takes_its_time_is_seen() {
    const PAUSE: Duration = Duration::from_millis(120);
    let slow = Instance::start(|_| async {
        tokio::time::sleep(PAUSE).await;
        Response::new(text("slow"))
    })
    .await;
    let quick = Instance::named("quick").await;
    let proxy = proxy().await;
    let shares = [
        share([slow.target("slow")], 1),
        share([quick.target("quick")], 1),
    ];
    assert!(proxy.direct(&shares).is_empty());
    for name in ["slow", "quick"] {
        assert_eq!(body(fetch(proxy.local_addr(), "/").await).await, name);
    }
    let (slow, quick) = (measures(&proxy, "slow"), measures(&proxy, "quick"));
    assert_eq!((slow.latency.count, quick.latency.count), (1, 1));
    assert!(slow.latency.sum >= PAUSE);
    let below = slow
        .latency
        .buckets
        .iter()
        .filter(|bucket| bucket.le < 0.12);
    assert_eq!(below.map(|bucket| bucket.count).sum::<u64>(), 0);
    // The whole proxy has seen no more than the two together and its own work.
    assert!(quick.latency.sum + slow.latency.sum <= proxy.stats().latency.sum);
}

#[tokio::test]
async fn time_lost_on_another_instance_is_not_its_own() {
    const PAUSE: Duration = Duration::from_millis(120);
    let dying = raw_instance(|mut stream| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        tokio::time::sleep(PAUSE).await;
    })
    .await;
    let other = Instance::named("other").await;
    let proxy = proxy().await;
    let targets = [dying.target("dying"), other.target("other")];
    assert!(proxy.direct(&[share(targets, 1)]).is_empty());
    assert_eq!(body(fetch(proxy.local_addr(), "/").await).await, "other");
    let (dying, other) = (measures(&proxy, "dying"), measures(&proxy, "other"));
    assert_eq!((dying.failures, dying.latency.count), (1, 0));
    assert_eq!((other.failures, other.latency.count), (0, 1));
    assert!(other.latency.sum + PAUSE <= proxy.stats().latency.sum);
}

/// Fails with each request in the way that its path names.
async fn failing() -> Instance {
    raw_instance(|mut stream| async move {
        let head = read_until(&mut stream, "\r\n\r\n").await;
        if head.contains(" /nonsense ") {
            let nonsense = b"SSH-2.0-OpenSSH_9.2\r\n\r\n";
            stream.write_all(nonsense).await.expect("sent");
        } else if head.contains(" /silence ") {
            let _ = read_until(&mut stream, "never").await;
        }
    })
    .await
}

#[tokio::test]
async fn every_kind_of_no_answer_is_a_failure() {
    let instance = failing().await;
    let settings = Settings {
        answer_timeout: Duration::from_millis(500),
        ..Settings::default()
    };
    let proxy = proxy_with(settings).await;
    assert!(switch(&proxy, instance.target("one")).is_none());
    let mut connection = Connection::open(proxy.local_addr()).await;
    for (path, status, failures) in [
        ("/close", StatusCode::BAD_GATEWAY, 1),
        ("/nonsense", StatusCode::BAD_GATEWAY, 2),
        ("/silence", StatusCode::GATEWAY_TIMEOUT, 3),
    ] {
        let request = post(path, text("body"));
        let response = connection.send(request).await.expect("an answer");
        assert_eq!(response.status(), status, "{path}");
        body(response).await;
        assert_eq!(measures(&proxy, "one").failures, failures, "{path}");
    }
    // A second attempt at the same instance is its second failure.
    assert_eq!(fetch(proxy.local_addr(), "/close").await.status(), 502);
    let measures = measures(&proxy, "one");
    assert_eq!(measures.failures, 5);
    assert_eq!(
        (measures.responses, measures.latency.count),
        (Classes::default(), 0)
    );
}

#[tokio::test]
async fn a_client_that_has_waited_in_vain_is_held_against_it() {
    let instance = Instance::start(|_| std::future::pending()).await;
    let proxy = proxy_to(&instance).await;
    let mut connection = Connection::open(proxy.local_addr()).await;
    // A good while longer than counts as in vain: it takes a moment to arrive.
    let patience = std::time::Duration::from_secs(4);
    let answer = tokio::time::timeout(patience, connection.send(get("/"))).await;
    assert!(answer.is_err(), "it never answers");
    drop(connection);
    eventually("the request has ended", || proxy.stats().in_flight == 0).await;
    let measures = measures(&proxy, "one");
    assert_eq!((measures.failures, measures.latency.count), (1, 0));
}

#[tokio::test]
async fn what_the_proxy_answers_itself_is_nobodys_answer() {
    let proxy = proxy_to(&Instance::named("one").await).await;
    let head = "CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\nconnection: close\r\n\r\n";
    let answer = crate::support::raw(proxy.local_addr(), head).await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    let measures = measures(&proxy, "one");
    assert_eq!(
        (measures.responses, measures.failures),
        (Classes::default(), 0)
    );
}

//! Connections to the instance: used again, and not kept for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use proxy::Settings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Barrier;

use crate::support::{
    Connection, Instance, body, eventually, get, post, proxy, proxy_to, proxy_with, raw_instance,
    share, switch, text, withdraw,
};

/// How many connections an instance has, and has had.
#[derive(Default)]
struct Count {
    open: AtomicUsize,
    ever: AtomicUsize,
}

/// Answers every request, which has to arrive in one piece, and counts its connections.
async fn counting() -> (Instance, Arc<Count>) {
    counting_together(1).await
}

/// The same, with answers only for so many requests at once.
async fn counting_together(requests: usize) -> (Instance, Arc<Count>) {
    let count = Arc::new(Count::default());
    let together = Arc::new(Barrier::new(requests));
    let counter = Arc::clone(&count);
    let instance = raw_instance(move |mut stream| {
        let (count, together) = (Arc::clone(&counter), Arc::clone(&together));
        async move {
            count.open.fetch_add(1, Ordering::SeqCst);
            count.ever.fetch_add(1, Ordering::SeqCst);
            let mut buffer = [0; 4096];
            while let Ok(1..) = stream.read(&mut buffer).await {
                together.wait().await;
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                stream.write_all(answer).await.expect("sent");
            }
            count.open.fetch_sub(1, Ordering::SeqCst);
        }
    })
    .await;
    (instance, count)
}

#[tokio::test]
async fn one_connection_of_each_kind_serves_one_client_after_another() {
    let (instance, count) = counting().await;
    let proxy = proxy_to(&instance).await;
    for _ in 0..10 {
        let mut connection = Connection::open(proxy.local_addr()).await;
        for request in [get("/"), get("/"), post("/", text(""))] {
            let response = connection.send(request).await.expect("an answer");
            assert_eq!(body(response).await, "ok");
        }
    }
    // One for plain requests, and one for all others.
    assert_eq!(count.ever.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_all_threads_use_the_same_connections_in_turn() {
    let (instance, count) = counting().await;
    let proxy = proxy_to(&instance).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Connection::open(proxy.local_addr()).await);
    }
    for _ in 0..3 {
        for connection in &mut clients {
            for request in [get("/"), post("/", text(""))] {
                let response = connection.send(request).await.expect("an answer");
                assert_eq!(body(response).await, "ok");
            }
        }
    }
    // One for plain requests at first; after its first other one a client's connection has only such.
    assert_eq!(count.ever.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn no_more_connections_are_kept_unused_than_are_allowed() {
    let (instance, count) = counting_together(6).await;
    let settings = Settings {
        max_idle_connections: 2,
        ..Settings::default()
    };
    let proxy = proxy_with(settings).await;
    assert!(switch(&proxy, instance.target("one")).is_none());
    let asking = (0..6).map(|_| {
        let address = proxy.local_addr();
        tokio::spawn(async move {
            let mut connection = Connection::open(address).await;
            body(connection.get("/").await.expect("an answer")).await
        })
    });
    for asked in asking.collect::<Vec<_>>() {
        assert_eq!(asked.await.expect("no panic"), "ok");
    }
    assert_eq!(count.ever.load(Ordering::SeqCst), 6);
    eventually("the others are closed", || {
        count.open.load(Ordering::SeqCst) == 2
    })
    .await;
}

#[tokio::test]
async fn answers_without_a_body_give_their_connection_back_too() {
    let instance = Instance::start(|_| async { http::Response::new(text("")) }).await;
    let proxy = proxy_to(&instance).await;
    let mut connection = Connection::open(proxy.local_addr()).await;
    for method in ["HEAD", "GET", "DELETE", "OPTIONS"] {
        let mut request = get("/");
        *request.method_mut() = method.parse().expect("a method");
        let response = connection.send(request).await.expect("an answer");
        assert_eq!(body(response).await, "");
    }
    assert_eq!(proxy.stats().responses.success, 4);
}

#[tokio::test]
async fn a_retired_instance_keeps_no_idle_connection() {
    let (instance, count) = counting().await;
    let proxy = proxy_to(&instance).await;
    let mut connection = Connection::open(proxy.local_addr()).await;
    assert_eq!(
        body(connection.get("/").await.expect("an answer")).await,
        "ok"
    );
    assert_eq!(count.open.load(Ordering::SeqCst), 1);
    let retired = withdraw(&proxy).expect("the first");
    eventually("the connection is closed", || {
        count.open.load(Ordering::SeqCst) == 0
    })
    .await;
    assert_eq!(retired.in_flight(), 0);
}

#[tokio::test]
async fn an_unused_connection_is_closed_without_further_traffic() {
    let (instance, count) = counting().await;
    let settings = Settings {
        idle_timeout: Duration::from_millis(100),
        ..Settings::default()
    };
    let proxy = proxy_with(settings).await;
    assert!(switch(&proxy, instance.target("one")).is_none());
    let mut connection = Connection::open(proxy.local_addr()).await;
    assert_eq!(
        body(connection.get("/").await.expect("an answer")).await,
        "ok"
    );
    eventually("the connection is closed", || {
        count.open.load(Ordering::SeqCst) == 0
    })
    .await;
    assert_eq!(
        body(connection.get("/").await.expect("an answer")).await,
        "ok"
    );
    assert_eq!(count.ever.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_instance_that_stays_keeps_its_connections() {
    let ((one, count), two) = (counting().await, Instance::named("two").await);
    let proxy = proxy().await;
    let mut connection = Connection::open(proxy.local_addr()).await;
    for shares in [
        &[share([one.target("one")], 1)][..],
        &[
            share([one.target("one")], 100),
            share([two.target("two")], 1),
        ],
        // Resting is staying: it gets nothing, and goes on as what it was.
        &[share([one.target("one")], 0), share([two.target("two")], 1)],
        &[share([two.target("two"), one.target("one")], 5)],
    ] {
        assert!(proxy.direct(shares).is_empty(), "{shares:?}");
        for _ in 0..4 {
            let response = connection.get("/").await.expect("an answer");
            assert!(["ok", "two"].contains(&body(response).await.as_str()));
        }
    }
    assert_eq!(count.ever.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn unused_connections_of_every_instance_are_closed() {
    let instances = [counting().await, counting().await, counting().await];
    let settings = Settings {
        idle_timeout: Duration::from_millis(100),
        ..Settings::default()
    };
    let proxy = proxy_with(settings).await;
    let targets = instances.each_ref().map(|(one, _)| one.target("one"));
    assert!(proxy.direct(&[share(targets.clone(), 1)]).is_empty());
    let mut connection = Connection::open(proxy.local_addr()).await;
    for _ in &instances {
        let response = connection.get("/").await.expect("an answer");
        assert_eq!(body(response).await, "ok");
    }
    let [first, resting @ ..] = targets;
    let shares = [share([first], 1), share(resting, 0)];
    assert!(proxy.direct(&shares).is_empty());
    for (_, count) in &instances {
        assert_eq!(count.ever.load(Ordering::SeqCst), 1);
        eventually("the connection is closed", || {
            count.open.load(Ordering::SeqCst) == 0
        })
        .await;
    }
}

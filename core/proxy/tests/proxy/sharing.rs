//! Several instances behind one listener, and each gets its part.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use http::{Response, StatusCode};
use proxy::Proxy;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::support::{
    Connection, Dead, Instance, SOON, body, eventually, feed, fetch, get, measures, post, proxy,
    share, text,
};

/// Who answered how many of `count` requests, one after another over a few connections.
async fn answers(proxy: &Proxy, count: usize) -> BTreeMap<String, usize> {
    let mut connections = Vec::new();
    for _ in 0..4 {
        connections.push(Connection::open(proxy.local_addr()).await);
    }
    let mut answers = BTreeMap::new();
    for number in 0..count {
        let connection = &mut connections[number % 4];
        let response = connection.get("/").await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
        *answers.entry(body(response).await).or_default() += 1;
    }
    answers
}

fn counts<const N: usize>(counts: [(&str, usize); N]) -> BTreeMap<String, usize> {
    let counts = counts.into_iter();
    counts
        .map(|(name, count)| (name.to_owned(), count))
        .collect()
}

#[tokio::test]
async fn each_share_gets_exactly_its_weights_part() {
    let (old, new) = (Instance::named("old").await, Instance::named("new").await);
    let proxy = proxy().await;
    for (old_weight, new_weight) in [(90, 10), (99, 1), (1, 3), (50, 50)] {
        let shares = [
            share([old.target("old")], old_weight),
            share([new.target("new")], new_weight),
        ];
        assert!(proxy.direct(&shares).is_empty());
        let whole = old_weight + new_weight;
        let part = |weight: u32| (100 * weight / whole) as usize;
        let expected = counts([("old", part(old_weight)), ("new", part(new_weight))]);
        assert_eq!(answers(&proxy, 100).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_at_the_same_time_do_not_blur_the_parts() {
    let (old, new) = (Instance::named("old").await, Instance::named("new").await);
    let proxy = proxy().await;
    let shares = [
        share([old.target("old")], 90),
        share([new.target("new")], 10),
    ];
    assert!(proxy.direct(&shares).is_empty());
    let mut clients = JoinSet::new();
    for _ in 0..10 {
        let proxy = proxy.clone();
        clients.spawn(async move { answers(&proxy, 50).await });
    }
    let mut total = BTreeMap::new();
    while let Some(client) = clients.join_next().await {
        for (name, count) in client.expect("no panic") {
            *total.entry(name).or_default() += count;
        }
    }
    assert_eq!(total, counts([("old", 450), ("new", 50)]));
}

#[tokio::test]
async fn the_instances_of_a_share_divide_its_part() {
    let instances = [
        Instance::named("one").await,
        Instance::named("two").await,
        Instance::named("three").await,
        Instance::named("canary").await,
    ];
    let [one, two, three, canary] = &instances;
    let proxy = proxy().await;
    let stable = [one.target("one"), two.target("two"), three.target("three")];
    let shares = [share(stable, 9), share([canary.target("canary")], 1)];
    assert!(proxy.direct(&shares).is_empty());
    let ids: Vec<_> = proxy
        .targets()
        .into_iter()
        .map(|target| target.id)
        .collect();
    assert_eq!(ids, ["one", "two", "three", "canary"]);
    let expected = counts([("one", 30), ("two", 30), ("three", 30), ("canary", 10)]);
    assert_eq!(answers(&proxy, 100).await, expected);
}

/// An instance that answers `name`, at `/slow` only at the end of what the test feeds it.
async fn slow(name: &'static str) -> (Instance, mpsc::Receiver<mpsc::Sender<Bytes>>) {
    let (feeds, receiver) = mpsc::channel(8);
    let instance = Instance::start(move |request| {
        let feeds = feeds.clone();
        async move {
            if request.uri().path() != "/slow" {
                return Response::new(text(name));
            }
            let (sender, body) = feed(1);
            feeds.send(sender).await.expect("the test listens");
            Response::new(body)
        }
    })
    .await;
    (instance, receiver)
}

#[tokio::test]
async fn a_busy_instance_is_passed_over() {
    let ((one, mut feeds), two) = (slow("one").await, Instance::named("two").await);
    let proxy = proxy().await;
    let targets = [one.target("one"), two.target("two")];
    assert!(proxy.direct(&[share(targets, 1)]).is_empty());
    let response = fetch(proxy.local_addr(), "/slow").await;
    let feed = feeds.recv().await.expect("a request");
    assert_eq!(answers(&proxy, 20).await, counts([("two", 20)]));
    drop(feed);
    assert_eq!(body(response).await, "");
    eventually("the request has ended", || proxy.stats().in_flight == 0).await;
    assert_eq!(
        answers(&proxy, 20).await,
        counts([("one", 10), ("two", 10)])
    );
}

#[tokio::test]
async fn a_removed_instance_drains_while_the_others_go_on() {
    let (one, mut feeds) = slow("one").await;
    let (two, three) = (Instance::named("two").await, Instance::named("three").await);
    let proxy = proxy().await;
    let replicas = [one.target("one"), two.target("two")];
    assert!(proxy.direct(&[share(replicas, 1)]).is_empty());
    let response = fetch(proxy.local_addr(), "/slow").await;
    let feed = feeds.recv().await.expect("a request");

    let replicas = [two.target("two"), three.target("three")];
    let retired = proxy.direct(&[share(replicas.clone(), 1)]);
    let [retired] = &retired[..] else {
        panic!("one instance is gone: {retired:?}");
    };
    assert_eq!(retired.target(), &one.target("one"));
    assert_eq!(proxy.targets(), replicas);
    let expected = counts([("two", 10), ("three", 10)]);
    assert_eq!(answers(&proxy, 20).await, expected);
    assert_eq!(retired.in_flight(), 1);

    feed.send(Bytes::from_static(b"whole"))
        .await
        .expect("taken");
    drop(feed);
    assert_eq!(body(response).await, "whole");
    assert!(retired.drained(SOON).await);
    assert_eq!(measures(&proxy, "two").responses.success, 10);
}

#[tokio::test]
async fn an_id_at_another_address_is_another_instance() {
    let (before, after) = (
        Instance::named("before").await,
        Instance::named("after").await,
    );
    let other = Instance::named("other").await;
    let proxy = proxy().await;
    let shares = |app: &Instance| [share([app.target("app"), other.target("other")], 1)];
    assert!(proxy.direct(&shares(&before)).is_empty());
    let expected = counts([("before", 5), ("other", 5)]);
    assert_eq!(answers(&proxy, 10).await, expected);
    let retired = proxy.direct(&shares(&after));
    assert_eq!(retired.len(), 1);
    assert_eq!(retired[0].target(), &before.target("app"));
    assert_eq!(measures(&proxy, "app").latency.count, 0, "nothing yet");
    let expected = counts([("after", 5), ("other", 5)]);
    assert_eq!(answers(&proxy, 10).await, expected);
    assert_eq!(measures(&proxy, "app").latency.count, 5);
    assert_eq!(measures(&proxy, "other").latency.count, 10);
}

#[tokio::test]
async fn shares_that_can_get_nothing_leave_no_release() {
    let one = Instance::named("one").await;
    let proxy = proxy().await;
    let shares = [share([], 5), share([one.target("one")], 0)];
    assert!(proxy.direct(&shares).is_empty());
    assert!(proxy.targets().is_empty() && proxy.measures().is_empty());
    let response = fetch(proxy.local_addr(), "/").await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(body(response).await.contains("no_release"));
    let shares = [share([], 5), share([one.target("one")], 1)];
    assert!(proxy.direct(&shares).is_empty());
    assert_eq!(answers(&proxy, 3).await, counts([("one", 3)]));
}

#[tokio::test]
async fn a_dead_instance_in_a_share_costs_no_request() {
    let (one, two) = (Instance::named("one").await, Instance::named("two").await);
    let canary = Instance::named("canary").await;
    let proxy = proxy().await;
    let dead = Dead::new();
    let replicas = [dead.target("dead"), one.target("one"), two.target("two")];
    let shares = [share(replicas, 3), share([canary.target("canary")], 1)];
    assert!(proxy.direct(&shares).is_empty());
    let answers = answers(&proxy, 100).await;
    assert_eq!(answers["canary"], 25, "it takes over nothing: {answers:?}");
    let retries = proxy.stats().retries;
    assert!(retries > 0, "the dead one has had its turns");
    // What was never sent can be sent elsewhere, whatever it is.
    let mut connection = Connection::open(proxy.local_addr()).await;
    for _ in 0..8 {
        let response = connection.send(post("/", text("body"))).await;
        assert_eq!(response.expect("an answer").status(), StatusCode::OK);
    }
    let stats = proxy.stats();
    assert_eq!((stats.responses.success, stats.failures), (108, 0));
    let measured = measures(&proxy, "dead");
    assert_eq!(
        (measured.failures, measured.latency.count),
        (stats.retries, 0)
    );
    assert!(stats.retries > retries);
    assert_eq!(measures(&proxy, "one").failures, 0);
}

#[tokio::test]
async fn a_share_whose_only_instance_is_dead_is_answered_by_another() {
    let (stable, dead) = (Instance::named("stable").await, Dead::new());
    let proxy = proxy().await;
    let shares = [
        share([stable.target("stable")], 3),
        share([dead.target("canary")], 1),
    ];
    assert!(proxy.direct(&shares).is_empty());
    assert_eq!(answers(&proxy, 40).await, counts([("stable", 40)]));
    let canary = measures(&proxy, "canary");
    assert_eq!((canary.failures, canary.latency.count), (10, 0));
    let stable = measures(&proxy, "stable");
    assert_eq!((stable.failures, stable.responses.success), (0, 40));
}

/// A client that asks until it is told to stop; none of its requests may fail.
async fn client(address: SocketAddr, served: Arc<AtomicU64>, done: Arc<AtomicBool>) {
    let mut connection = Connection::open(address).await;
    while !done.load(Ordering::SeqCst) {
        let response = connection.send(get("/")).await.expect("no request fails");
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(body(response).await, "ok");
        served.fetch_add(1, Ordering::SeqCst);
    }
}

/// Keeps clients busy while `rollout` goes on; its argument waits until they have asked some more.
async fn under_load<R>(proxy: &Proxy, rollout: impl FnOnce(Arc<AtomicU64>) -> R)
where
    R: Future<Output = ()>,
{
    let (served, done) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let (served, done) = (Arc::clone(&served), Arc::clone(&done));
        clients.spawn(client(proxy.local_addr(), served, done));
    }
    rollout(Arc::clone(&served)).await;
    done.store(true, Ordering::SeqCst);
    while let Some(client) = clients.join_next().await {
        client.expect("no client failed");
    }
    let stats = proxy.stats();
    assert_eq!(stats.responses.success, stats.requests);
}

async fn more(served: &AtomicU64) {
    let enough = served.load(Ordering::SeqCst) + 50;
    eventually("traffic flows", || served.load(Ordering::SeqCst) >= enough).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replicas_are_replaced_one_by_one_and_no_request_fails() {
    let proxy = proxy().await;
    let mut replicas = Vec::new();
    for number in 0..3 {
        replicas.push((Instance::named("ok").await, number));
    }
    let shares = |replicas: &[(Instance, i32)]| {
        let targets = replicas.iter();
        let targets = targets.map(|(instance, number)| instance.target(&number.to_string()));
        [share(targets.collect::<Vec<_>>(), 1)]
    };
    assert!(proxy.direct(&shares(&replicas)).is_empty());
    under_load(&proxy, async |served| {
        for number in 3..18 {
            more(&served).await;
            replicas.push((Instance::named("ok").await, number));
            let (old, _) = replicas.remove(0);
            let retired = proxy.direct(&shares(&replicas));
            assert_eq!(retired.len(), 1);
            assert!(retired[0].drained(SOON).await);
            drop(old);
        }
    })
    .await;
    assert_eq!((proxy.stats().failures, proxy.stats().retries), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_is_killed_under_load_and_no_get_fails() {
    let proxy = proxy().await;
    let (one, two) = (Instance::named("ok").await, Instance::named("ok").await);
    let victim = Instance::named("ok").await;
    let targets = [
        victim.target("victim"),
        one.target("one"),
        two.target("two"),
    ];
    assert!(proxy.direct(&[share(targets, 1)]).is_empty());
    under_load(&proxy, async |served| {
        more(&served).await;
        drop(victim);
        eventually("its death is noticed", || {
            measures(&proxy, "victim").failures > 0
        })
        .await;
        more(&served).await;
    })
    .await;
    assert_eq!(proxy.stats().failures, 0);
}

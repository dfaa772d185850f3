//! Traffic moves from instance to instance and no request notices.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use http::{Response, StatusCode};
use tokio::task::JoinSet;

use crate::support::{Connection, Instance, SOON, body, eventually, get, proxy, switch, text};

const SWITCHES: u64 = 50;
const CLIENTS_OF_EACH_KIND: usize = 8;

/// What the clients of a load test share.
#[derive(Default)]
struct Load {
    /// The newest generation that was surely live before a request began.
    live: AtomicU64,
    served: AtomicU64,
    done: AtomicBool,
}

impl Load {
    async fn request(&self, connection: &mut Connection) {
        let at_least = self.live.load(Ordering::SeqCst);
        let response = connection.send(get("/")).await.expect("no request fails");
        assert_eq!(response.status(), StatusCode::OK);
        let generation: u64 = body(response).await.parse().expect("a generation");
        assert!(
            generation >= at_least,
            "went to {generation} after the switch to {at_least}"
        );
        self.served.fetch_add(1, Ordering::SeqCst);
    }

    async fn keep_alive(self: Arc<Self>, address: SocketAddr) {
        let mut connection = Connection::open(address).await;
        while !self.done.load(Ordering::SeqCst) {
            self.request(&mut connection).await;
        }
    }

    async fn fresh(self: Arc<Self>, address: SocketAddr) {
        while !self.done.load(Ordering::SeqCst) {
            self.request(&mut Connection::open(address).await).await;
        }
    }
}

async fn generation(number: u64) -> Instance {
    Instance::start(move |_| async move { Response::new(text(number.to_string())) }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_request_fails_or_goes_back_over_fifty_switches() {
    let proxy = proxy().await;
    let mut instance = generation(0).await;
    assert!(switch(&proxy, instance.target("0")).is_none());
    let load = Arc::new(Load::default());
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS_OF_EACH_KIND {
        clients.spawn(Arc::clone(&load).keep_alive(proxy.local_addr()));
        clients.spawn(Arc::clone(&load).fresh(proxy.local_addr()));
    }
    for number in 1..=SWITCHES {
        let enough = load.served.load(Ordering::SeqCst) + 20;
        eventually("traffic flows", || {
            load.served.load(Ordering::SeqCst) >= enough
        })
        .await;
        let next = generation(number).await;
        let retired = switch(&proxy, next.target(&number.to_string())).expect("the one before");
        load.live.store(number, Ordering::SeqCst);
        assert!(retired.drained(SOON).await);
        drop(std::mem::replace(&mut instance, next));
    }
    load.done.store(true, Ordering::SeqCst);
    while let Some(client) = clients.join_next().await {
        client.expect("no client failed");
    }
    let stats = proxy.stats();
    assert_eq!(stats.responses.success, stats.requests);
    assert_eq!(stats.failures, 0);
    assert_eq!(stats.latency.count, stats.requests);
}

#[tokio::test]
async fn a_keep_alive_connection_follows_the_switch() {
    let (one, two) = (Instance::named("one").await, Instance::named("two").await);
    let proxy = proxy().await;
    assert!(switch(&proxy, one.target("one")).is_none());
    let mut connection = Connection::open(proxy.local_addr()).await;
    assert_eq!(
        body(connection.get("/").await.expect("an answer")).await,
        "one"
    );
    let retired = switch(&proxy, two.target("two")).expect("the first");
    assert_eq!(retired.target().id, "one");
    assert_eq!(proxy.targets(), [two.target("two")]);
    assert_eq!(
        body(connection.get("/").await.expect("an answer")).await,
        "two"
    );
}

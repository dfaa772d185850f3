//! Requests of different hosts and paths that go different ways, and connections that are no requests.

use std::time::Duration;

use http::{Response, StatusCode, header};
use proxy::{Front, Group, Proxy, Rule, Settings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{
    Connection, Dead, Instance, LOOPBACK, SOON, body, eventually, get, proxy, raw_instance,
    read_until, share, text,
};

fn group(name: &str, instance: &Instance) -> Group {
    Group {
        name: name.to_owned(),
        shares: vec![share([instance.target(name)], 1)],
        awaited: false,
    }
}

fn rule(host: Option<&str>, prefix: &str, group: &str) -> Rule {
    Rule {
        host: host.map(str::to_owned),
        prefix: prefix.to_owned(),
        group: group.to_owned(),
    }
}

async fn ask(proxy: &Proxy, host: &str, path: &str) -> (StatusCode, String) {
    let mut request = get(path);
    let name = host.parse().expect("a header");
    request.headers_mut().insert(header::HOST, name);
    let mut connection = Connection::open(proxy.local_addr()).await;
    let response = connection.send(request).await.expect("an answer");
    (response.status(), body(response).await)
}

#[tokio::test]
async fn host_and_path_choose_the_group() {
    let (web, api) = (Instance::named("web").await, Instance::named("api").await);
    let proxy = proxy().await;
    let groups = [group("web", &web), group("api", &api)];
    let rules = [
        rule(None, "/web", "web"),
        rule(None, "/web/api", "api"),
        rule(Some("*.example.com"), "/", "api"),
    ];
    assert!(proxy.divide(&groups, &rules).is_empty());
    for (host, path, expected) in [
        ("a", "/web", "web"),
        ("a", "/web/x?y=/api", "web"),
        ("a", "/web/api/x", "api"),
        ("shop.example.com:443", "/web", "api"),
    ] {
        let answer = ask(&proxy, host, path).await;
        assert_eq!(answer, (StatusCode::OK, expected.into()), "{host} {path}");
    }
    let (status, text) = ask(&proxy, "a", "/").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(text.contains("no_route"), "{text}");
}

#[tokio::test]
async fn a_group_without_instances_takes_nothing_from_the_others() {
    let web = Instance::named("web").await;
    let proxy = proxy().await;
    let empty = Group {
        name: "api".to_owned(),
        shares: Vec::new(),
        awaited: false,
    };
    let rules = [rule(None, "/", "web"), rule(None, "/api", "api")];
    assert!(
        proxy
            .divide(&[group("web", &web), empty], &rules)
            .is_empty()
    );
    let (status, text) = ask(&proxy, "a", "/api").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(text.contains("no_release"), "{text}");
    assert_eq!(ask(&proxy, "a", "/").await.0, StatusCode::OK);
    // Nobody is there at all: that is no mistake of whoever asks.
    assert_eq!(proxy.divide(&[], &[]).len(), 1);
    assert!(ask(&proxy, "a", "/").await.1.contains("no_release"));
}

#[tokio::test]
async fn a_second_attempt_stays_in_its_group() {
    let (alive, dead) = (Instance::named("alive").await, Dead::new());
    let proxy = proxy().await;
    let both = Group {
        name: "both".to_owned(),
        shares: vec![share([dead.target("dead"), alive.target("alive")], 1)],
        awaited: false,
    };
    let other = Instance::named("other").await;
    let rules = [rule(None, "/both", "both"), rule(None, "/", "other")];
    assert!(
        proxy
            .divide(&[both, group("other", &other)], &rules)
            .is_empty()
    );
    for _ in 0..4 {
        let answer = ask(&proxy, "a", "/both").await;
        assert_eq!(answer, (StatusCode::OK, "alive".into()));
    }
    assert!(proxy.stats().retries > 0);
}

#[tokio::test]
async fn an_instance_in_two_groups_is_one() {
    let web = Instance::start(|_| async { Response::new(text("web")) }).await;
    let proxy = proxy().await;
    let groups = ["one", "two"].map(|name| Group {
        name: name.to_owned(),
        shares: vec![share([web.target("web")], 1)],
        awaited: false,
    });
    let rules = [rule(None, "/", "one"), rule(None, "/two", "two")];
    assert!(proxy.divide(&groups, &rules).is_empty());
    assert_eq!(ask(&proxy, "a", "/two").await.0, StatusCode::OK);
    assert_eq!(ask(&proxy, "a", "/").await.0, StatusCode::OK);
    assert_eq!(proxy.measures().len(), 1);
    assert_eq!(proxy.divide(&[], &[]).len(), 1);
}

/// Repeats what it is told, behind its name.
async fn echo(name: &'static str) -> Instance {
    raw_instance(move |mut stream: TcpStream| async move {
        let mut bytes = [0; 64];
        let _ = stream.write_all(name.as_bytes()).await;
        while let Ok(read @ 1..) = stream.read(&mut bytes).await {
            if stream.write_all(&bytes[..read]).await.is_err() {
                return;
            }
        }
    })
    .await
}

async fn tcp_proxy() -> Proxy {
    let listener = TcpListener::bind(LOOPBACK).await.expect("a port");
    let proxy = Proxy::on(listener, Front::Tcp, Settings::default()).expect("it has an address");
    assert!(proxy.direct(&[]).is_empty());
    proxy
}

#[tokio::test]
async fn connections_are_handed_on_as_they_are_and_stay_where_they_are() {
    let (old, new) = (echo("old ").await, echo("new ").await);
    let proxy = tcp_proxy().await;
    assert!(proxy.direct(&[share([old.target("old")], 1)]).is_empty());
    let mut first = TcpStream::connect(proxy.local_addr())
        .await
        .expect("a connection");
    assert_eq!(read_until(&mut first, "old ").await, "old ");
    let retired = proxy.direct(&[share([new.target("new")], 1)]).remove(0);
    assert_eq!(retired.in_flight(), 1);
    first.write_all(b"\0 ping\n").await.expect("it is open");
    assert_eq!(read_until(&mut first, "\n").await, "\0 ping\n");
    let mut second = TcpStream::connect(proxy.local_addr())
        .await
        .expect("a connection");
    assert_eq!(read_until(&mut second, "new ").await, "new ");
    drop(first);
    assert!(retired.drained(SOON).await);
    proxy.shutdown(Duration::ZERO).await;
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(SOON, second.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the connection ends with the proxy");
}

#[tokio::test]
async fn a_connection_that_nobody_takes_is_closed_and_another_instance_asked_first() {
    let (alive, dead) = (echo("alive ").await, Dead::new());
    let proxy = tcp_proxy().await;
    let mut rest = Vec::new();
    let mut refused = TcpStream::connect(proxy.local_addr())
        .await
        .expect("a connection");
    let ended = tokio::time::timeout(SOON, refused.read_to_end(&mut rest)).await;
    assert!(ended.is_ok() && rest.is_empty());
    let shares = [share([dead.target("dead"), alive.target("alive")], 1)];
    assert!(proxy.direct(&shares).is_empty());
    for _ in 0..2 {
        let mut stream = TcpStream::connect(proxy.local_addr())
            .await
            .expect("a connection");
        assert_eq!(read_until(&mut stream, "alive ").await, "alive ");
    }
    eventually("one was asked in vain", || proxy.stats().retries > 0).await;
}

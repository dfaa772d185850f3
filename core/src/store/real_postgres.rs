//! What only PostgreSQL has: a connection that can be lost, several servers, and a lease of which one has it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use secrecy::SecretString;
use serde_json::json;

use super::cluster::Cluster;
use super::deployments::fixtures::{begin, request, tenant};
use super::fixtures::{Postgres, candidate, connect, postgres, server};
use super::sql::{Connection, Mode, SqlError};
use super::{
    Action, Actor, Begun, Candidate, Claim, DatabaseServer, DatabaseUrl, Entry, IdempotencyKey,
    Lead, Snapshot, Store, StoreError, UrlError,
};
use crate::deployments::capsule_fixture as capsule;

/// For everything that is waited for.
const BOUND: Duration = Duration::from_mins(1);

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

async fn claim(lead: &Lead) -> Result<Claim, StoreError> {
    let lead = lead.clone();
    blocking(move || lead.claim()).await
}

async fn write(store: &Store) -> Result<(), StoreError> {
    let entry = Entry::of(Action::TenantCreate, None, json!({}));
    store.audit(&Actor::server(), entry).await
}

/// A lease that is over soon.
async fn with_lease(postgres: &Postgres, id: &str, lease: Duration) -> (Store, Lead) {
    let (server, id) = (postgres.server.clone(), id.to_owned());
    blocking(move || {
        let store = Store::connect(&server).unwrap();
        let candidate = Candidate {
            lease,
            ..candidate(&id)
        };
        let lead = Lead::of(&store, &server, candidate).unwrap();
        (store, lead)
    })
    .await
}

async fn claimed(lead: &Lead) {
    let begun = Instant::now();
    while claim(lead).await.unwrap() != Claim::Leads {
        assert!(begun.elapsed() < BOUND, "the lease does not end");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn one_leads_and_nobody_else_writes() {
    let first = postgres().await;
    let (second, lead) = connect(&first.server, "b").await;
    let Claim::Stands(leader) = claim(&lead).await.unwrap() else {
        panic!("two lead");
    };
    assert_eq!(leader.address, "http://a");
    assert!(leader.left > Duration::from_secs(30) && leader.left <= Duration::from_mins(1));
    assert!(matches!(write(&second).await, Err(StoreError::NotLeading)));
    assert!(second.tenants().await.unwrap().is_empty());
    let given = first.lead.clone();
    blocking(move || given.give_back()).await.unwrap();
    assert!(matches!(write(&first).await, Err(StoreError::NotLeading)));
    assert_eq!(claim(&lead).await.unwrap(), Claim::Leads);
    write(&second).await.unwrap();
    assert!(matches!(write(&first).await, Err(StoreError::NotLeading)));
}

#[tokio::test]
async fn whoever_was_away_when_its_lease_ended_writes_nothing() {
    let postgres = postgres().await;
    let lead = postgres.lead.clone();
    blocking(move || lead.give_back()).await.unwrap();
    let (first, lead) = with_lease(&postgres, "b", Duration::from_millis(200)).await;
    assert_eq!(claim(&lead).await.unwrap(), Claim::Leads);
    tenant(&first).await;
    let (second, other) = with_lease(&postgres, "c", Duration::from_mins(1)).await;
    claimed(&other).await;
    let row = begin(&second, capsule('a')).await;
    assert_eq!(row.number, 1);
    let renewed = blocking(move || lead.renew()).await;
    assert!(matches!(renewed, Err(StoreError::NotLeading)));
    assert!(matches!(write(&first).await, Err(StoreError::NotLeading)));
    // What it reads is what the other one has written.
    assert!(first.deployment("a", 1).await.unwrap().is_some());
}

#[tokio::test]
async fn a_lease_that_nobody_wanted_is_renewed_after_its_end() {
    let postgres = postgres().await;
    let lead = postgres.lead.clone();
    blocking(move || lead.give_back()).await.unwrap();
    let (store, lead) = with_lease(&postgres, "b", Duration::from_millis(1)).await;
    assert_eq!(claim(&lead).await.unwrap(), Claim::Leads);
    blocking(move || lead.renew()).await.unwrap();
    write(&store).await.unwrap();
}

#[tokio::test]
async fn the_same_server_does_not_wait_for_its_own_lease() {
    let first = postgres().await;
    let (again, lead) = connect(&first.server, "a").await;
    assert_eq!(claim(&lead).await.unwrap(), Claim::Leads);
    write(&again).await.unwrap();
    assert!(matches!(write(&first).await, Err(StoreError::NotLeading)));
}

#[tokio::test]
async fn whoever_stops_in_the_middle_of_a_write_holds_nobody_up_for_long() {
    let postgres = postgres().await;
    let (other, lead) = with_lease(&postgres, "b", Duration::from_mins(1)).await;
    let server = postgres.server.clone();
    let given = postgres.lead.clone();
    blocking(move || given.give_back()).await.unwrap();
    let mut connection = blocking(move || Connection::connect(&server).unwrap()).await;
    let (begun, has_begun) = std::sync::mpsc::channel();
    let (go_on, told) = std::sync::mpsc::channel();
    let paused = tokio::task::spawn_blocking(move || {
        let transaction = connection.begin(Mode::Write).unwrap();
        transaction
            .batch("UPDATE leader SET address = 'paused'")
            .unwrap();
        begun.send(()).unwrap();
        told.recv().unwrap();
        transaction.commit()
    });
    blocking(move || has_begun.recv()).await.unwrap();
    assert_eq!(claim(&lead).await.unwrap(), Claim::Leads);
    write(&other).await.unwrap();
    go_on.send(()).unwrap();
    assert!(matches!(paused.await.unwrap(), Err(SqlError::Lost { .. })));
}

#[tokio::test]
async fn a_lost_connection_is_made_anew() {
    let mut postgres = postgres().await;
    write(&postgres).await.unwrap();
    postgres.cluster.stop();
    let refused = write(&postgres).await;
    assert!(
        matches!(&refused, Err(StoreError::Database(SqlError::Lost { .. }))),
        "{refused:?}"
    );
    assert!(postgres.ping().await.is_err());
    postgres.cluster.run();
    write(&postgres).await.unwrap();
    postgres.ping().await.unwrap();
    let head = postgres.check_chain(None).await.unwrap();
    assert_eq!(head.count, 2);
}

#[tokio::test]
async fn a_failed_statement_is_not_committed() {
    let postgres = postgres().await;
    tenant(&postgres).await;
    let outcome = postgres.write(|transaction| {
        transaction.batch("UPDATE tenants SET name = 'other'")?;
        let failed = transaction.batch("SELECT no_such_column");
        assert!(failed.is_err());
        Ok(())
    });
    assert!(outcome.await.is_err());
    assert_eq!(postgres.tenants().await.unwrap()[0].name, "a");
}

#[tokio::test]
async fn servers_that_start_at_once_make_one_schema() {
    let cluster = Cluster::start();
    let server = server(&cluster.url());
    let starting = (0..4).map(|number| {
        let server = server.clone();
        tokio::spawn(async move { connect(&server, &number.to_string()).await })
    });
    let mut leads = 0;
    for started in starting.collect::<Vec<_>>() {
        let (store, lead) = started.await.unwrap();
        if claim(&lead).await.unwrap() == Claim::Leads {
            leads += 1;
            store.migrate().await.unwrap();
            store.migrate().await.unwrap();
            write(&store).await.unwrap();
        }
    }
    assert_eq!(leads, 1);
}

#[tokio::test]
async fn a_database_of_a_newer_server_is_refused() {
    let postgres = postgres().await;
    let newer = postgres
        .write(|transaction| Ok(transaction.batch("UPDATE schema_version SET version = 999")?));
    newer.await.unwrap();
    let server = postgres.server.clone();
    let refused = blocking(move || Store::connect(&server).err()).await;
    assert!(matches!(
        refused,
        Some(StoreError::TooNew { found: 999, .. })
    ));
    // Nor does one that was there before take over.
    let refused = claim(&postgres.lead).await;
    assert!(matches!(
        refused,
        Err(StoreError::TooNew { found: 999, .. })
    ));
    let server = postgres.server.clone();
    let refused = blocking(move || Snapshot::connect(&server).err()).await;
    assert!(matches!(refused, Some(StoreError::TooNew { .. })));
}

#[tokio::test]
async fn what_was_written_cannot_be_emptied() {
    let postgres = postgres().await;
    tenant(&postgres).await;
    begin(&postgres, capsule('a')).await;
    for sql in [
        "TRUNCATE events",
        "TRUNCATE audit",
        "DELETE FROM audit",
        "UPDATE audit SET actor = 'x'",
        "DELETE FROM events",
    ] {
        let refused = postgres
            .write(move |transaction| Ok(transaction.batch(sql)?))
            .await
            .unwrap_err();
        let told = crate::chain(&refused);
        assert!(told.contains("append-only"), "{sql}: {told}");
    }
}

#[tokio::test]
async fn a_copy_is_the_same_wherever_it_goes() {
    let postgres = postgres().await;
    tenant(&postgres).await;
    let row = begin(&postgres, capsule('a')).await;
    let head = postgres.check_chain(None).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("copy.db");
    let (server, to) = (postgres.server.clone(), file.clone());
    blocking(move || Snapshot::connect(&server).unwrap().copy_to(&to).unwrap()).await;
    let copied = Store::open(&file).unwrap();
    assert_eq!(copied.check_chain(Some(head)).await.unwrap(), head);
    let found = copied.deployment("a", row.number).await.unwrap().unwrap();
    assert_eq!(found.capsule, row.capsule);
    assert!(matches!(
        postgres.fill_from(&file).await,
        Err(StoreError::NotEmpty)
    ));
    drop(copied);
    let other = super::fixtures::postgres().await;
    other.fill_from(&file).await.unwrap();
    assert_eq!(other.check_chain(Some(head)).await.unwrap(), head);
    // And it goes on from there.
    let walked = [
        crate::deployments::State::RollingBack,
        crate::deployments::State::Failed,
    ];
    super::deployments::fixtures::walk(&other, &row, &walked).await;
    let next = begin(&other, capsule('b')).await;
    assert_eq!(next.number, 2);
    assert_ne!(next.release_id, row.release_id);
}

#[tokio::test]
async fn of_requests_that_come_at_once_to_several_connections_one_is_first() {
    let postgres = postgres().await;
    tenant(&postgres).await;
    let mut begun = Vec::new();
    for number in 0..4 {
        let store = postgres.beside().await;
        begun.push(tokio::spawn(async move {
            let key = IdempotencyKey {
                scope: "a deploy".into(),
                key: "k".into(),
                body_hash: vec![1; 32],
            };
            let claimed = store.claim_key(key).await.unwrap();
            let digit = char::from(b'a' + number);
            let asked = request(capsule(digit));
            let deployed = store.begin_deployment(asked, |_| unreachable!()).await;
            (claimed == Begun::New, deployed)
        }));
    }
    let (mut keys, mut deployments) = (0, 0);
    for one in begun {
        let (is_new, deployed) = one.await.unwrap();
        keys += u32::from(is_new);
        match deployed {
            Ok(row) => {
                assert_eq!(row.number, 1);
                deployments += 1;
            }
            Err(StoreError::InProgress { number }) => assert_eq!(number, 1),
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!((keys, deployments), (1, 1));
}

#[test]
fn a_database_that_says_nothing_is_not_waited_for_without_end() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let begun = Instant::now();
    let told = failure(&format!("postgresql://u:hidden@127.0.0.1:{port}/d"));
    assert!(begun.elapsed() < BOUND);
    assert!(
        told.contains("no answer in time") && !told.contains("hidden"),
        "{told}"
    );
}

fn failure(url: &str) -> String {
    let url = DatabaseUrl::parse(&SecretString::from(url)).unwrap();
    let server = DatabaseServer::of(&url).unwrap();
    let refused = Store::connect(&server).err().expect("it was let in");
    format!("{} {refused:?}", crate::chain(&refused))
}

#[test]
fn a_wrong_password_is_refused_and_not_told() {
    let cluster = Cluster::start();
    let url = cluster.tcp_url("127.0.0.1");
    let wrong = url.replace("let-the-tests-in", "no-such-password");
    let told = failure(&wrong);
    assert!(told.contains("password authentication failed"), "{told}");
    assert!(!told.contains("no-such-password"), "{told}");
}

fn certificate(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("registry/tests/it/certificates")
        .join(name)
}

#[test]
fn encryption_is_checked_down_to_the_name() {
    let cluster = Cluster::start_encrypted(&certificate("server.pem"), &certificate("server.key"));
    let authority = certificate("authority.pem");
    let with = |host: &str, roots: Option<&Path>, mode: &str| {
        let roots = roots.map_or(String::new(), |path| {
            format!("&sslrootcert={}", path.display())
        });
        format!("{}?sslmode={mode}{roots}", cluster.tcp_url(host))
    };
    for mode in ["verify-full", "require"] {
        let url = with("localhost", Some(&authority), mode);
        Store::connect(&server(&url)).unwrap();
        // An authority that nobody knows.
        let told = failure(&with("localhost", None, mode));
        assert!(told.contains("UnknownIssuer"), "{told}");
    }
    // Another name than the certificate's.
    let told = failure(&with("127.0.0.2", Some(&authority), "verify-full"));
    assert!(told.contains("not valid for name"), "{told}");
    assert!(!told.contains("let-the-tests-in"), "{told}");
    let missing = format!(
        "{}?sslrootcert=/no/such/file",
        cluster.tcp_url("db.example")
    );
    let url = DatabaseUrl::parse(&SecretString::from(missing)).unwrap();
    let refused = DatabaseServer::of(&url).err().unwrap();
    assert!(matches!(refused, UrlError::Certificate { .. }), "{refused}");
}

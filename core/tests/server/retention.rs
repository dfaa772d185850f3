//! What is kept, what goes, and what a rollback says to what has gone.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use management_api::types::{CollectRequest, Collection, RollbackRequest};

use crate::audit::{outcome, program};
use crate::harness::{Server, key, until};
use crate::image::{self, push};
use crate::secrets::set;

fn with_releases(count: u32) -> Server {
    with("interval_seconds = 0\n", count)
}

/// Deploys this many releases, each with a secret of its own.
fn with(settings: &str, count: u32) -> Server {
    let window = "[retention]\nreleases_kept = 2\nimage_days_kept = 0\n";
    let server = Server::start_with(&format!("{window}{settings}"));
    for number in 1..=count {
        let version = format!("v{number}");
        set(&server, &[("TOKEN", &version)]);
        push(&server, "local", &version, &[("VERSION", &version)]);
        assert_eq!(server.deploy_and_wait(&version).state, "succeeded");
    }
    server
}

/// Everything in a store looks as if nobody had asked for it for days.
fn make_old(folder: &Path) {
    let long_ago = SystemTime::now() - Duration::from_hours(48);
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            make_old(&path);
        } else if let Ok(file) = File::open(&path) {
            // Else a collection has taken it meanwhile.
            file.set_modified(long_ago).unwrap();
        }
    }
}

/// The deployments' own times too.
fn make_deployments_old(server: &Server) {
    let database = rusqlite::Connection::open(server.data().join("state.db")).unwrap();
    database.busy_timeout(Duration::from_secs(30)).unwrap();
    let days = 2 * 24 * 60 * 60 * 1000;
    database
        .execute(
            "UPDATE deployments SET created_at = created_at - ?1",
            [days],
        )
        .unwrap();
}

fn grow_old(server: &Server) {
    make_old(&server.data().join("registry"));
    make_deployments_old(server);
}

fn collect(server: &Server, dry_run: bool) -> Collection {
    server
        .client()
        .collect(&CollectRequest { dry_run })
        .unwrap()
}

fn gone(server: &Server) -> Vec<u64> {
    let history = server.client().deployments("local").unwrap().unwrap();
    let gone = history.iter().filter(|deployment| deployment.gone);
    gone.map(|deployment| deployment.number).collect()
}

fn roll_back(server: &Server, to: Option<&str>) -> Result<u64, String> {
    let request = RollbackRequest {
        to: to.map(str::to_owned),
        timeout_seconds: None,
    };
    let answer = server.client().rollback("local", &request, &key());
    let answer = answer.map_err(|error| format!("{error:?}"))?;
    Ok(answer.deployment.unwrap())
}

#[test]
fn what_is_beyond_the_window_goes_and_says_so() {
    let server = with_releases(4);
    let unpacked = || {
        fs::read_dir(server.data().join("engine/images"))
            .unwrap()
            .count()
    };
    assert_eq!(unpacked(), 4);
    assert_eq!(collect(&server, false).manifests, 0, "all of it is new");
    grow_old(&server);
    let planned = collect(&server, true);
    assert_eq!(gone(&server), Vec::<u64>::new(), "nothing was removed");
    let done = collect(&server, false);
    let released: Vec<u64> = done
        .releases
        .iter()
        .map(|release| release.deployment)
        .collect();
    assert_eq!((planned.dry_run, done.dry_run), (true, false));
    assert_eq!(released, [1, 2]);
    assert_eq!(planned.releases, done.releases);
    assert_eq!(
        (
            planned.manifests,
            planned.blobs,
            planned.bytes,
            planned.secret_versions
        ),
        (done.manifests, done.blobs, done.bytes, done.secret_versions)
    );
    // Manifest and configuration of two; the layer is everybody's. Two old values.
    assert_eq!(
        (done.manifests, done.blobs, done.secret_versions),
        (2, 4, 2)
    );
    assert_eq!(unpacked(), 2);
    assert!(done.unpacked_bytes.unwrap() > 0);
    assert_eq!(gone(&server), [2, 1]);
    let refused = roll_back(&server, Some("1")).unwrap_err();
    assert!(
        refused.contains("release_gone") && refused.contains("410"),
        "{refused}"
    );
    assert_eq!(
        server.wait(roll_back(&server, None).unwrap()).state,
        "succeeded"
    );
    assert_eq!(server.version().as_deref(), Some("v3"));
    let again = collect(&server, false);
    assert_eq!((again.manifests, again.blobs), (0, 0));
    let rows = server.client().audit(None, None, 1000).unwrap().unwrap();
    let rows: Vec<_> = rows
        .iter()
        .filter(|row| row.action.starts_with("retention."))
        .map(|row| (row.action.as_str(), row.actor.as_str()))
        .collect();
    assert_eq!(
        rows,
        [
            ("retention.collected", "operator"),
            ("retention.collect", "operator")
        ]
    );
}

/// The look that one deployment waits for in vain, because its server ends, the next one's first deployment takes.
#[test]
fn what_falls_out_of_the_window_goes_when_a_deployment_ends_and_a_rollback_finds_the_rest() {
    let images = |server: &Server| -> BTreeSet<String> {
        let images = fs::read_dir(server.data().join("engine/images")).unwrap();
        let names = images.map(|image| image.unwrap().file_name().into_string().unwrap());
        names
            .map(|name| name.replace("sha256-", "sha256:"))
            .collect()
    };
    let server = Server::start_with("[limits]\nmax_deployments_kept = 2\n");
    let release = |server: &Server, version: &str| {
        let digest = push(server, "local", version, &[("VERSION", version)]);
        assert_eq!(server.deploy_and_wait(version).state, "succeeded");
        digest
    };
    let all = ["v1", "v2", "v3"].map(|version| release(&server, version));
    // The first deployment has had its look; the next one is half a minute away, or was just now.
    let found = images(&server);
    assert!(all[1..].iter().all(|image| found.contains(image)));
    let server = server.kill_and_restart();
    let newest = release(&server, "v4");
    let kept = BTreeSet::from([all[2].clone(), newest]);
    until("the others go", || (images(&server) == kept).then_some(()));
    let number = roll_back(&server, None).unwrap();
    assert_eq!(server.wait(number).state, "succeeded");
    assert_eq!(server.version().as_deref(), Some("v3"));
    assert_eq!(images(&server), kept);
}

#[test]
fn what_serves_outlives_its_unpacked_image_and_a_pushed_one_comes_back() {
    let server = with_releases(3);
    grow_old(&server);
    collect(&server, false);
    let server = server.kill_and_restart();
    until("the live release serves again", || {
        server.version().filter(|version| version == "v3")
    });
    assert_eq!(gone(&server), [1]);
    push(&server, "local", "v1", &[("VERSION", "v1")]);
    // Its secret is still gone: the old release does not come back with the image.
    assert_eq!(gone(&server), [1]);
    assert!(roll_back(&server, Some("1")).is_err());
    assert_eq!(server.deploy_and_wait("v1").state, "succeeded");
    assert_eq!(server.version().as_deref(), Some("v1"));
}

#[test]
fn what_is_being_deployed_is_kept_and_a_push_goes_on() {
    let server = with_releases(2);
    push(
        &server,
        "local",
        "slow",
        &[("MODE", "unhealthy"), ("VERSION", "slow")],
    );
    let request = server.patient_request("slow");
    let number = server.deploy(&request).deployment.unwrap();
    server.wait_for(number, |deployment| deployment.state == "provisioned");
    grow_old(&server);
    push(&server, "local", "new", &[("VERSION", "new")]);
    assert_eq!(collect(&server, false).manifests, 0);
    assert_eq!(gone(&server), Vec::<u64>::new());
    server.client().abort("local", number).unwrap();
    server.wait(number);
    assert_eq!(collect(&server, false).releases.len(), 1, "it never served");
    assert_eq!(server.deploy_and_wait("new").state, "succeeded");
}

#[test]
fn pushes_and_deployments_beside_collections_lose_nothing() {
    let server = with_releases(2);
    make_deployments_old(&server);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let collecting = scope.spawn(|| {
            let mut manifests = 0;
            while !over.load(Ordering::Relaxed) {
                manifests += collect(&server, false).manifests;
            }
            manifests
        });
        // Each comes again after it was beyond the window, while what is left of it is being removed.
        for round in 0..12 {
            let version = format!("v{}", round % 4);
            make_old(&server.data().join("registry"));
            make_deployments_old(&server);
            push(&server, "local", &version, &[("VERSION", &version)]);
            let done = server.deploy_and_wait(&version);
            assert_eq!(done.state, "succeeded", "{done:?}");
            assert_eq!(server.version(), Some(version));
        }
        over.store(true, Ordering::Relaxed);
        assert!(collecting.join().unwrap() > 2, "nothing was removed");
    });
    outcome(&program(&["verify"], server.data())).unwrap();
}

#[test]
fn what_a_push_was_told_is_there_stays_until_it_has_ended() {
    let server = with_releases(3);
    let registry = image::registry(&server, "local");
    registry.upload(b"of a push that goes on");
    let blob = format!("blobs/{}", image::digest(b"of a push that goes on"));
    grow_old(&server);
    assert!(registry.has(&blob) && registry.has("manifests/v1"));
    assert_eq!(collect(&server, false).blobs, 0);
    assert!(registry.has(&blob));
    assert_eq!(server.deploy_and_wait("v1").state, "succeeded");
    // Nobody has asked for them since.
    grow_old(&server);
    assert!(collect(&server, false).blobs > 0);
    assert!(!registry.has(&blob) && registry.has("manifests/v1"));
}

#[test]
fn nothing_is_collected_while_the_store_is_held() {
    let server = with_releases(3);
    grow_old(&server);
    let store = oci::Store::existing(server.data().join("registry")).unwrap();
    let hold = store.hold(Duration::ZERO).unwrap();
    let request = CollectRequest { dry_run: false };
    let refused = format!("{:?}", server.client().collect(&request).unwrap_err());
    assert!(
        refused.contains("conflict") && refused.contains("backup"),
        "{refused}"
    );
    assert_eq!(gone(&server), Vec::<u64>::new());
    drop(hold);
    assert_eq!(collect(&server, false).releases.len(), 1);
}

#[test]
fn the_server_collects_by_itself() {
    let server = with("interval_seconds = 1\n", 3);
    grow_old(&server);
    until("it was collected", || (gone(&server) == [1]).then_some(()));
    let rows = server.client().audit(None, None, 1000).unwrap().unwrap();
    let row = rows
        .iter()
        .find(|row| row.action == "retention.collect")
        .unwrap();
    assert_eq!((row.actor.as_str(), row.token.as_ref()), ("server", None));
}

#[test]
fn what_serves_is_kept_where_its_repository_has_lost_it() {
    let server = with_releases(1);
    let registry = server.data().join("registry/repositories/local");
    for links in ["_manifests", "_blobs", "_tags"] {
        fs::remove_dir_all(registry.join(links)).unwrap();
    }
    assert_eq!(gone(&server), [1]);
    grow_old(&server);
    let done = collect(&server, false);
    assert_eq!((done.manifests, done.blobs), (0, 0));
    assert_eq!(gone(&server), Vec::<u64>::new(), "its links are back");
    // And without a collection, a backup brings them back.
    fs::remove_dir_all(registry.join("_manifests")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("backup");
    let arguments = ["backup", "--to", to.to_str().unwrap()];
    outcome(&program(&arguments, server.data())).unwrap();
    assert_eq!(gone(&server), Vec::<u64>::new());
}

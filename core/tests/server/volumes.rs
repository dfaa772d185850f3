//! Volumes: what is written there outlives instances, releases and the server, and no two instances ever have one.
//!
//! The application takes a lock in its directory and ends with 8 where somebody else has it: two at once would be told.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use management_api::client::ApiError;
use management_api::types::{
    CanaryStep, CollectRequest, DeployRequest, HealthCheck, Restart, Role, RollbackRequest,
    RolloutSettings, Service, VolumeInfo,
};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::harness::{Server, agent, get, key, strict_health, until};
use crate::image::{layer_with, push, registry};
use crate::load::Load;
use crate::services::{
    deploy, env, interface, lines, names, processes, server, service, service_of, services,
    succeeds,
};

const DATA: &str = "/var/lib/data";

fn with_volume(mut service: Service) -> Service {
    service.env.insert("DATA".to_owned(), DATA.to_owned());
    service.volumes = env(&[("data", DATA)]);
    service
}

/// An application in front of a database that keeps lines, and a service that has nothing to do with either.
fn shop(server: &Server, version: &str) -> DeployRequest {
    let mut request = server.request("it");
    request.env = env(&[("VERSION", version)]);
    request.depends_on = names(&["db"]);
    request.services = BTreeMap::from([
        ("db".to_owned(), with_volume(interface(server, version))),
        ("side".to_owned(), interface(server, version)),
    ]);
    request
}

fn strategy(mut request: DeployRequest, strategy: &str) -> DeployRequest {
    request.strategy = Some(strategy.to_owned());
    if strategy == "canary" {
        request.rollout = RolloutSettings {
            steps: Some(vec![CanaryStep {
                weight: 50,
                pause_ms: Some(100),
            }]),
            ..RolloutSettings::default()
        };
        let analysis = json!({ "max_p95_ratio": 1000.0, "max_p95_ms": 60_000 });
        request.rollout.analysis = serde_json::from_value(analysis).unwrap();
    }
    request
}

/// The address of a service, for others.
fn inside(server: &Server, name: &str) -> String {
    services(server)[name].internal_url.clone().unwrap()
}

fn write(server: &Server, text: &str) {
    let written = get(&format!("{}/write/{text}", inside(server, "db")));
    assert_eq!(written.as_deref(), Some("written"));
}

/// The lines that are kept, once the database answers, in version `version`.
fn kept(server: &Server, version: &str) -> Vec<String> {
    let address = inside(server, "db");
    until("the database answers", || {
        let found = get(&format!("{address}/version"))?;
        (found == version).then_some(())
    });
    let lines = get(&format!("{address}/lines")).unwrap();
    lines.lines().map(str::to_owned).collect()
}

/// No two instances have been in the volume.
fn nobody_met_another(server: &Server) {
    let met = lines(server, "db").into_iter();
    let met: Vec<_> = met.filter(|l| l.line.contains("somebody else")).collect();
    assert!(met.is_empty(), "{met:?}");
}

/// Runs `work`, and sees to it that there never are records of two instances of the database.
fn with_one_database(server: &Server, work: impl FnOnce()) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watching = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let ids = server.instances().into_keys();
                let ids: Vec<_> = ids.filter(|id| service_of(id) == "db").collect();
                assert!(ids.len() <= 1, "{ids:?}");
            }
        });
        work();
        done.store(true, Ordering::Relaxed);
        watching.join().unwrap();
    });
}

/// Kills the program of a service, and waits for the next one.
pub(crate) fn kill_instance(server: &Server, service: &str) {
    let all = server.instances().into_iter();
    let mut all = all.filter(|(id, _)| service_of(id) == service);
    let pid = all.next().unwrap().1["program"]["pid"].clone();
    let killed = Command::new("kill")
        .args(["-KILL", &pid.to_string()])
        .status();
    assert!(killed.unwrap().success());
    until("another one takes its place", || {
        let all = server.instances();
        let mut now = all.iter().filter(|(id, _)| service_of(id) == service);
        now.any(|(_, record)| record["program"].is_object() && record["program"]["pid"] != pid)
            .then_some(())
    });
}

#[test]
pub(crate) fn what_is_written_outlives_instances_releases_and_the_server() {
    let server = server();
    succeeds(&server, &shop(&server, "one"));
    assert_eq!(
        get(&format!("{}/lines", inside(&server, "db"))).unwrap(),
        "No such file or directory (os error 2)"
    );
    write(&server, "first");
    let side = processes(&server)["side"].clone();
    with_one_database(&server, || {
        for (version, how) in [
            ("two", "rolling"),
            ("three", "blue-green"),
            ("four", "canary"),
            ("five", "recreate"),
        ] {
            let mut request = strategy(shop(&server, version), how);
            request
                .services
                .insert("side".to_owned(), interface(&server, "one"));
            succeeds(&server, &request);
            write(&server, version);
        }
    });
    let all = ["first", "two", "three", "four", "five"];
    assert_eq!(kept(&server, "five"), all);
    assert_eq!(processes(&server)["side"], side, "it has not changed");
    // An instance that is killed comes back to its data.
    kill_instance(&server, "db");
    assert_eq!(kept(&server, "five"), all);
    // What has not changed runs on, volumes or not.
    let before = processes(&server)["db"].clone();
    let mut request = shop(&server, "five");
    request.env = env(&[("VERSION", "six")]);
    succeeds(&server, &request);
    assert_eq!(processes(&server)["db"], before);
    let server = server.kill_and_restart();
    assert_eq!(processes(&server)["db"], before);
    write(&server, "six");
    // A rollback brings back the release, and not what it had written.
    let back = RollbackRequest {
        to: Some("1".to_owned()),
        ..RollbackRequest::default()
    };
    let answer = server.client().rollback("local", &back, &key()).unwrap();
    let done = server.wait(answer.deployment.unwrap());
    assert_eq!(done.state, "succeeded", "{done:?}");
    assert_eq!(kept(&server, "one").last().map(String::as_str), Some("six"));
    nobody_met_another(&server);
}

#[test]
pub(crate) fn a_failure_brings_the_old_one_back_with_its_data() {
    let server = server();
    succeeds(&server, &shop(&server, "one"));
    write(&server, "first");
    let before = processes(&server);
    for how in ["rolling", "blue-green", "canary", "recreate"] {
        // What depends on the database is looked at with the new one in place.
        let mut bad = strategy(shop(&server, "two"), how);
        bad.env.insert("MODE".to_owned(), "exit".to_owned());
        let done = deploy(&server, &bad);
        assert_eq!(done.state, "rolled_back", "{how}: {done:?}");
        assert!(done.failure.unwrap().message.starts_with("app: "));
        assert_eq!(kept(&server, "one"), ["first"], "{how}");
        // The new one itself.
        let mut bad = strategy(shop(&server, "two"), how);
        let db = bad.services.get_mut("db").unwrap();
        db.env.insert("MODE".to_owned(), "exit".to_owned());
        let done = deploy(&server, &bad);
        assert_eq!(done.state, "rolled_back", "{how}: {done:?}");
        assert!(done.failure.unwrap().message.starts_with("db: "));
        assert_eq!(kept(&server, "one"), ["first"], "{how}");
        until("the application serves", || {
            (server.version().as_deref() == Some("one")).then_some(())
        });
    }
    // What has nothing to do with it fails before it is touched.
    let now = processes(&server);
    assert_ne!(now["db"], before["db"]);
    let mut bad = shop(&server, "two");
    let side = bad.services.get_mut("side").unwrap();
    side.env.insert("MODE".to_owned(), "exit".to_owned());
    assert_eq!(deploy(&server, &bad).state, "rolled_back");
    assert_eq!(processes(&server)["db"], now["db"]);
    nobody_met_another(&server);
}

/// The application itself is not in what is deployed: it runs on, and does not get along with the new database.
#[test]
pub(crate) fn what_runs_on_and_depends_on_it_is_asked_too() {
    let server = Server::start_with("restore_seconds = 5\n");
    push(&server, "local", "it", &[]);
    let mut first = shop(&server, "one");
    first.env.insert("REFUSES".to_owned(), "two".to_owned());
    let check = json!({
        "kind": "command", "command": ["/app", "ask"], "interval_ms": 200, "timeout_ms": 2000, "start_period_ms": 2000,
        "retries": 3,
    });
    first.health = Some(serde_json::from_value(check).unwrap());
    succeeds(&server, &first);
    write(&server, "first");
    let with_database = |version: &str| {
        let mut request = first.clone();
        let db = request.services.get_mut("db").unwrap();
        db.env.insert("VERSION".to_owned(), version.to_owned());
        request
    };
    let done = deploy(&server, &with_database("two"));
    assert_eq!(done.state, "rolled_back", "{done:?}");
    let told = done.failure.unwrap().message;
    assert!(told.starts_with("app: it runs on"), "{told}");
    assert_eq!(kept(&server, "one"), ["first"]);
    until("the application serves", || {
        (server.version().as_deref() == Some("one")).then_some(())
    });
    succeeds(&server, &with_database("three"));
    assert_eq!(kept(&server, "three"), ["first"]);
    until("the application serves", || {
        (server.version().as_deref() == Some("one")).then_some(())
    });
}

/// A release of one service, which is the application itself.
#[test]
pub(crate) fn an_application_with_a_volume_is_replaced_and_comes_back() {
    let server = server();
    let with = |version: &str| {
        let mut request = server.request("it");
        request.env = env(&[("VERSION", version), ("DATA", DATA)]);
        request.volumes = env(&[("data", DATA)]);
        request
    };
    succeeds(&server, &with("one"));
    let url = server.app_url();
    let write = |text: &str| get(&format!("{url}/write/{text}")).unwrap();
    assert_eq!(write("first"), "written");
    // While the volume has nobody, whoever asks waits.
    let load = Load::start(&server);
    succeeds(&server, &with("two"));
    assert_eq!(server.version().as_deref(), Some("two"));
    assert_eq!(write("second"), "written");
    let mut bad = with("three");
    bad.env.insert("MODE".to_owned(), "unhealthy".to_owned());
    bad.health = Some(strict_health());
    assert_eq!(deploy(&server, &bad).state, "rolled_back");
    until("the old one serves", || {
        (server.version().as_deref() == Some("two")).then_some(())
    });
    assert!(load.stop() > 0);
    assert_eq!(get(&format!("{url}/lines")).unwrap(), "first\nsecond\n");
}

/// A volume goes from one service to another with the release.
#[test]
pub(crate) fn a_volume_changes_its_service() {
    let server = server();
    succeeds(&server, &shop(&server, "one"));
    write(&server, "first");
    let mut request = shop(&server, "two");
    let db = request.services.remove("db").unwrap();
    request.services.insert("base".to_owned(), db);
    // It stays, without its volume.
    request
        .services
        .insert("db".to_owned(), interface(&server, "two"));
    request.depends_on = names(&["base", "db"]);
    succeeds(&server, &request);
    let found = get(&format!("{}/lines", inside(&server, "base"))).unwrap();
    assert_eq!(found, "first\n");
    let mut bad = shop(&server, "three");
    bad.env.insert("MODE".to_owned(), "exit".to_owned());
    assert_eq!(deploy(&server, &bad).state, "rolled_back");
    until("the one before is back", || {
        get(&format!("{}/lines", inside(&server, "base"))).filter(|found| found == "first\n")
    });
    let version = get(&format!("{}/version", inside(&server, "db")));
    assert_eq!(version.as_deref(), Some("two"));
}

/// Where there is no room beside the old one it makes room, and finishes its requests, before anything is started: a volume that
/// it has waits for it all the same.
#[test]
fn a_volume_waits_for_whoever_made_room_and_finishes_its_requests() {
    const CHUNKS: usize = 60;
    let server = server();
    let tight = |mut request: DeployRequest| {
        request.strategy = Some("rolling".to_owned());
        request.rollout.max_surge = Some(0);
        request.rollout.max_unavailable = Some(1);
        request
    };
    let mut first = server.request("it");
    first.env = env(&[("VERSION", "one"), ("DATA", DATA)]);
    first.volumes = env(&[("data", DATA)]);
    first.services = BTreeMap::from([("db".to_owned(), interface(&server, "one"))]);
    succeeds(&server, &first);
    let url = server.app_url();
    assert_eq!(
        get(&format!("{url}/write/first")).as_deref(),
        Some("written")
    );
    let mut second = server.request("it");
    second.env = env(&[("VERSION", "two")]);
    let db = with_volume(interface(&server, "two"));
    second.services = BTreeMap::from([("db".to_owned(), db)]);
    let mut bad = second.clone();
    let db = bad.services.get_mut("db").unwrap();
    db.env.insert("MODE".to_owned(), "exit".to_owned());
    assert_eq!(deploy(&server, &tight(bad)).state, "rolled_back");
    assert_eq!(server.version().as_deref(), Some("one"));
    // It is on its way when this returns, and takes longer than a start.
    let download = agent().get(format!("{url}/download/{CHUNKS}")).call();
    let mut download = download.unwrap();
    let reading = thread::spawn(move || download.body_mut().read_to_vec().unwrap().len());
    succeeds(&server, &tight(second));
    assert_eq!(reading.join().unwrap(), CHUNKS * 64 * 1024);
    assert_eq!(kept(&server, "two"), ["first"]);
    assert_eq!(server.version().as_deref(), Some("two"));
    nobody_met_another(&server);
}

/// The server dies at every record, and while a volume has nobody: one release serves, one database has the volume.
fn dies_at_every_record(how: &str, also: &[&str], records: usize) {
    let server = server();
    succeeds(&server, &shop(&server, "one"));
    write(&server, "first");
    let mut server = server;
    let points = (1..).map(|record: usize| record.to_string());
    let also = also.iter().map(|point| (*point).to_owned());
    for (deaths, point) in also.chain(points).enumerate() {
        server = server.restart_with(&[("SYSTEMPROMPT_DIE_AT", &point)]);
        assert_eq!(kept(&server, "one"), ["first"]);
        let request = strategy(shop(&server, "two"), how);
        let died = server.dies_deploying(&request);
        server = server.restart_with(&[]);
        let last = server.last_deployment();
        let what = format!("{how} died at {point}: {last:?}");
        assert!(last.finished_at.is_some(), "{what}");
        let version = match last.state.as_str() {
            "succeeded" => "two",
            "rolled_back" => "one",
            _ => panic!("{what}"),
        };
        assert_eq!(kept(&server, version), ["first"], "{what}");
        until("the application serves", || {
            (server.version().as_deref() == Some(version)).then_some(())
        });
        until("nothing else is left", || {
            (server.instances().len() == 3).then_some(())
        });
        if !died {
            assert!(deaths > records, "{what}");
            nobody_met_another(&server);
            return;
        }
        let mut back = shop(&server, "one");
        back.force = true;
        succeeds(&server, &back);
    }
}

#[test]
pub(crate) fn rolling_dies_at_every_record() {
    dies_at_every_record("rolling", &["volumes-freed"], 6);
}

#[test]
pub(crate) fn recreate_dies_at_every_record() {
    dies_at_every_record("recreate", &[], 4);
}

#[test]
fn blue_green_dies_at_every_record() {
    dies_at_every_record("blue-green", &["volumes-freed"], 6);
}

#[test]
fn canary_dies_at_every_record() {
    dies_at_every_record("canary", &["volumes-freed"], 6);
}

/// An image with something at the volume's path, and its user.
fn push_with_data(server: &Server, tag: &str) {
    let layer = layer_with(|archive| {
        let mut add = |path: &str, kind: tar::EntryType, mode: u32, text: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_size(text.len() as u64);
            header.set_mtime(0);
            header.set_uid(1001);
            header.set_gid(1002);
            archive.append_data(&mut header, path, text).unwrap();
        };
        add("var/lib/data/", tar::EntryType::Directory, 0o750, b"");
        add(
            "var/lib/data/given",
            tar::EntryType::Regular,
            0o640,
            b"by the image",
        );
    });
    let about = json!({ "User": "1001:1002" });
    registry(server, "local").push_made(tag, &layer, &[], &about);
}

#[test]
pub(crate) fn a_volume_begins_with_what_the_image_has_there() {
    let server = Server::start();
    push_with_data(&server, "given");
    let mut request = server.request("given");
    request.env = env(&[("DATA", DATA)]);
    request.volumes = env(&[("data", DATA)]);
    // Nothing else can be written to.
    request.resources.read_only = true;
    succeeds(&server, &request);
    let url = server.app_url();
    let about = |name: &str| get(&format!("{url}/about/{name}")).unwrap();
    assert_eq!(about("."), "1001:1002 750 ");
    assert_eq!(about("given"), "1001:1002 640 by the image");
    assert_eq!(get(&format!("{url}/write/x")).unwrap(), "written");
    // What is there is not given once more.
    push(&server, "local", "it", &[]);
    let mut request = server.request("it");
    request.env = env(&[("DATA", DATA)]);
    request.volumes = env(&[("data", DATA)]);
    succeeds(&server, &request);
    assert_eq!(about("given"), "1001:1002 640 by the image");
    assert_eq!(get(&format!("{url}/lines")).unwrap(), "x\n");
}

#[test]
pub(crate) fn a_path_that_the_image_does_not_have_is_made_also_in_a_root_that_is_closed() {
    let server = server();
    let mut request = server.request("it");
    request.env = env(&[("DATA", "/srv/new/place")]);
    request.volumes = env(&[("data", "/srv/new/place")]);
    request.resources.read_only = true;
    succeeds(&server, &request);
    let url = server.app_url();
    assert_eq!(get(&format!("{url}/write/x")).unwrap(), "written");
    request.force = true;
    succeeds(&server, &request);
    assert_eq!(get(&format!("{url}/lines")).unwrap(), "x\n");
}

/// What the new database has written, the old one cannot read.
#[test]
pub(crate) fn where_the_old_one_cannot_read_its_data_any_more_the_new_one_stands_in() {
    let server = Server::start_with("restore_seconds = 1\n");
    push(&server, "local", "it", &[]);
    let mut first = shop(&server, "one");
    let db = first.services.get_mut("db").unwrap();
    db.env.insert("STOPS_AT".to_owned(), "later".to_owned());
    succeeds(&server, &first);
    write(&server, "first");
    let mut second = shop(&server, "two");
    second.strategy = Some("blue-green".to_owned());
    second.rollout.bake_ms = Some(60_000);
    let number = server.deploy(&second).deployment.unwrap();
    server.wait_for(number, |deployment| deployment.state == "shifting");
    assert_eq!(kept(&server, "two"), ["first"]);
    write(&server, "later");
    server.client().abort("local", number).unwrap();
    assert_eq!(server.wait(number).state, "needs_operator");
    let stands_in = |server: &Server| {
        assert_eq!(kept(server, "two"), ["first", "later"]);
        until("the new application serves", || {
            (server.version().as_deref() == Some("two")).then_some(())
        });
    };
    stands_in(&server);
    let server = server.kill_and_restart();
    stands_in(&server);
    server.client().abort("local", number).unwrap();
    succeeds(&server, &shop(&server, "three"));
    assert_eq!(kept(&server, "three"), ["first", "later"]);
    until("nothing else is left", || {
        (server.instances().len() == 3).then_some(())
    });
    nobody_met_another(&server);
}

fn listed(server: &Server, tenant: &str) -> Vec<VolumeInfo> {
    server.client().volumes(tenant).unwrap().unwrap()
}

fn refused(outcome: Result<(), ApiError>, with: &str) -> String {
    let told = outcome.unwrap_err().to_string();
    assert!(told.contains(with), "{told}");
    told
}

#[test]
pub(crate) fn a_volume_is_removed_by_request_when_nothing_has_it() {
    let server = server();
    succeeds(&server, &shop(&server, "one"));
    write(&server, "first");
    let [volume] = &listed(&server, "local")[..] else {
        panic!("{:?}", listed(&server, "local"));
    };
    assert_eq!(
        (volume.name.as_str(), volume.service.as_deref()),
        ("data", Some("db"))
    );
    let id = volume.in_use_by.clone().unwrap();
    assert_eq!(services(&server)["db"].instances, [id]);
    assert!(volume.created_at.is_some(), "{volume:?}");
    let client = server.client();
    let told = refused(client.remove_volume("local", "data"), "(409)");
    assert!(told.contains("of the service db"), "{told}");
    refused(client.remove_volume("local", "other"), "(404)");
    // Nobody can make again what is in it: no pipeline removes that.
    let deployer = server.issue(Role::Deployer, Some("local")).token;
    let deployer = server.client_with(deployer.expose_secret());
    assert_eq!(deployer.volumes("local").unwrap().unwrap().len(), 1);
    refused(deployer.remove_volume("local", "data"), "(403)");
    // It stays when no release has it any more, until somebody says so.
    succeeds(&server, &server.request("it"));
    until("its instance is gone", || {
        (server.instances().len() == 1).then_some(())
    });
    let [volume] = &listed(&server, "local")[..] else {
        panic!("{:?}", listed(&server, "local"));
    };
    assert_eq!((&volume.service, &volume.in_use_by), (&None, &None));
    if let Some(bytes) = volume.bytes {
        let told = get(&format!("{}/metrics", server.url)).unwrap();
        let line = format!(r#"systemprompt_volume_bytes{{tenant="local",volume="data"}} {bytes}"#);
        assert!(told.contains(&line), "{told}");
    }
    client.collect(&CollectRequest::default()).unwrap();
    assert_eq!(listed(&server, "local").len(), 1);
    client.remove_volume("local", "data").unwrap();
    assert!(listed(&server, "local").is_empty());
    refused(client.remove_volume("local", "data"), "(404)");
    let audit = client.audit(Some("local"), None, 10).unwrap().unwrap();
    let rows: Vec<_> = audit
        .iter()
        .filter(|row| row.action == "volume.remove")
        .collect();
    assert_eq!(rows.len(), 1, "{audit:?}");
    assert_eq!(rows[0].details["volume"], "data");
    // The next one begins anew.
    succeeds(&server, &shop(&server, "two"));
    assert!(
        get(&format!("{}/lines", inside(&server, "db")))
            .unwrap()
            .contains("No such file")
    );
}

#[test]
pub(crate) fn volumes_of_a_deleted_tenant_stay_until_somebody_removes_them() {
    let server = Server::start();
    server.create_tenants(&["shop"]);
    push(&server, "shop", "it", &[]);
    let mut request = server.request("it");
    request.image = server.image("shop", "it");
    request.volumes = env(&[("data", DATA)]);
    let client = server.client();
    let answer = client.deploy("shop", &request, &key(), false).unwrap();
    until("it serves", || {
        let done = client.deployment("shop", answer.deployment.unwrap());
        (done.unwrap().state == "succeeded").then_some(())
    });
    client.delete_tenant("shop").unwrap();
    let left = listed(&server, "shop");
    assert_eq!(left.len(), 1, "{left:?}");
    until("nobody has it", || {
        client.remove_volume("shop", "data").ok()
    });
    assert!(
        client
            .volumes("shop")
            .unwrap()
            .is_none_or(|left| left.is_empty())
    );
}

#[test]
fn where_nothing_can_be_mounted_volumes_are_refused() {
    let server = Server::start_without_isolation();
    push(&server, "local", "it", &[]);
    let mut request = server.request("it");
    request.volumes = env(&[("data", DATA)]);
    let refused = server.client().deploy("local", &request, &key(), false);
    let told = refused.unwrap_err().to_string();
    assert!(told.contains("can have no volumes"), "{told}");
    assert!(told.contains("isolation is switched off"), "{told}");
}

/// A job takes a volume over from a service, and is not started again when it has done its work.
#[test]
pub(crate) fn a_job_may_have_a_volume() {
    let server = server();
    succeeds(&server, &shop(&server, "one"));
    write(&server, "first");
    let mut request = shop(&server, "two");
    request.depends_on = Vec::new();
    let check: Value = json!({
        "kind": "process", "interval_ms": 200, "timeout_ms": 1000, "start_period_ms": 300, "retries": 1,
    });
    let health: HealthCheck = serde_json::from_value(check).unwrap();
    let job = Service {
        command: names(&["print"]),
        restart: Restart::OnFailure,
        health: Some(health),
        ..with_volume(service(&server, "two"))
    };
    request.services.insert("db".to_owned(), job);
    succeeds(&server, &request);
    assert_eq!(services(&server)["db"].state, "done");
    succeeds(&server, &shop(&server, "three"));
    assert_eq!(kept(&server, "three"), ["first"]);
}

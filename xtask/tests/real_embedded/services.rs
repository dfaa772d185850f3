//! A release of four services from one `deploy.toml`: a page, an interface with a binary of its own, a worker in the image of
//! the page, and a database whose finished image comes from a registry of CNCF's distribution.

use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use testkit::base::{BaseImage, Files, push_index};
use testkit::process::run;
use testkit::{DockerRegistry, FaultProxy};

use crate::machine::{Machine, get, summary};

const SERVICE: &str = include_str!("shop/service.rs.txt");
const DATABASE: &str = include_str!("shop/database.rs.txt");

const CONFIGURATION: &str = r#"
[resources]
memory = "256M"
best_effort = true

[services.app]
depends_on = ["api"]

[services.api]
binary = "shop-api"
routes = ["/api"]
depends_on = ["db"]
env.DB = "${services.db.INTERNAL_HOST}:${services.db.INTERNAL_PORT}"
health.interval = "1s"

[services.worker]
command = ["work"]
depends_on = ["db"]
env.DB = "${services.db.INTERNAL_HOST}:${services.db.INTERNAL_PORT}"

[services.db]
image = "DATABASE"
protocol = "tcp"
command = ["/db", "${PORT}"]
volumes = { data = "/data" }
"#;

struct Shop {
    machine: Machine,
    registry: DockerRegistry,
    /// Stands before the registry of the database, and counts.
    proxy: FaultProxy,
}

impl Shop {
    fn new() -> Self {
        let machine = Machine::new();
        let registry = DockerRegistry::open();
        let proxy = FaultProxy::before(registry.address());
        let workspace = &machine.workspace;
        let reference = format!("{}/library/db:1", proxy.host());
        workspace.write(
            ".systemprompt/deploy.toml",
            &CONFIGURATION.replace("DATABASE", &reference),
        );
        workspace.write("core/src/main.rs", SERVICE);
        workspace.write(
            "shop/api/src/main.rs",
            &SERVICE.replace("\"one\"", "\"api one\""),
        );
        workspace.write(
            "shop/api/Cargo.toml",
            "[package]\nname = \"shop-api\"\nversion = \"0.1.0\"\nedition = \"2024\"\n",
        );
        workspace.edit(
            "Cargo.toml",
            "\"extensions/mcp/*\"",
            "\"extensions/mcp/*\", \"shop/*\"",
        );
        workspace.commit_everything("open a shop");
        Self {
            machine,
            registry,
            proxy,
        }
    }

    fn publish_database(&self) -> String {
        publish_database(&self.registry)
    }

    fn config(&self, from: &str, to: &str) {
        let workspace = &self.machine.workspace;
        workspace.edit(".systemprompt/deploy.toml", from, to);
        workspace.commit_everything("change the services");
    }
}

/// The database: a program that needs nothing but `/data`.
pub(crate) fn database_program() -> Vec<u8> {
    static PROGRAM: OnceLock<Vec<u8>> = OnceLock::new();
    let compiled = || {
        let folder = tempfile::tempdir().unwrap();
        let (source, program) = (folder.path().join("db.rs"), folder.path().join("db"));
        std::fs::write(&source, DATABASE).unwrap();
        let mut rustc = Command::new("rustc");
        rustc.args(["-O", "-Ctarget-feature=+crt-static", "-o"]);
        run(rustc.arg(&program).arg(&source), Duration::from_mins(2)).expect_success();
        std::fs::read(&program).unwrap()
    };
    PROGRAM.get_or_init(compiled).clone()
}

/// Puts the database's image into a registry, for this machine and another one. The digest of this machine's.
pub(crate) fn publish_database(registry: &DockerRegistry) -> String {
    let program = database_program();
    let image = || {
        let files = Files::default().file("db", program.clone());
        BaseImage::default().layer(&files)
    };
    let ours = image();
    let both = [image().for_architecture("s390x"), ours.clone()];
    push_index(registry, "library/db", "1", &both);
    let (index, _) = registry.manifest("library/db", "1");
    let entries = index["manifests"].as_array().unwrap().iter();
    let ours = entries
        .filter(|entry| entry["platform"]["architecture"] == ours.architecture())
        .find_map(|entry| entry["digest"].as_str());
    ours.unwrap().to_owned()
}

/// What a report says of a service.
fn service<'a>(report: &'a Value, name: &str) -> &'a Value {
    let services = report["services"].as_array().unwrap();
    let found = services.iter().find(|service| service["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {report:#}"))
}

/// The deployments that have started the services, by name.
fn started_by(report: &Value) -> Vec<(String, u64)> {
    let services = report["services"].as_array().unwrap().iter();
    services
        .map(|service| {
            let name = service["name"].as_str().unwrap().to_owned();
            (name, service["deployment"].as_u64().unwrap())
        })
        .collect()
}

fn named(expected: [(&str, u64); 4]) -> Vec<(String, u64)> {
    expected
        .map(|(name, number)| (name.to_owned(), number))
        .into()
}

fn body(url: &Value, path: &str) -> String {
    let (status, body) = get(&format!("{}{path}", url.as_str().unwrap())).unwrap();
    assert_eq!(status, 200, "{body}");
    body
}

#[test]
fn four_services_from_one_command() {
    let shop = Shop::new();
    let digest = shop.publish_database();
    let machine = &shop.machine;

    let planned = machine.xtask(&["deploy", "--dry-run"]);
    planned.expect_success();
    for line in [
        "limits       256M of memory, as far as the platform can enforce them\n",
        "service      api: routes /api\n  image      binary shop-api as api-deploy-",
        "service      db: tcp for the other services\n  image      a copy of ",
        "  volume     data at /data\n",
        "service      worker: listens nowhere\n  image      that of app\n  command    work\n  after      db\n",
        "order        db, api, worker, app\n",
    ] {
        assert!(planned.stdout.contains(line), "{line:?} in {planned}");
    }
    assert!(shop.proxy.exchanges().is_empty(), "a dry run asks nobody");

    let first = machine.deploy_well();
    let url = &first["url"];
    assert_eq!(
        started_by(&first),
        named([("api", 1), ("app", 1), ("db", 1), ("worker", 1)])
    );
    for (name, state) in [
        ("app", "serving"),
        ("api", "serving"),
        ("db", "serving"),
        ("worker", "serving"),
    ] {
        assert_eq!(service(&first, name)["state"], state, "{first:#}");
    }
    assert_eq!(body(url, "/"), "one / ");
    assert_eq!(body(url, "/api/x"), "api one /api/x ");
    let database = body(url, "/api/db");
    assert!(
        database.starts_with("the database of process "),
        "{database}"
    );

    // A copy is the same image, of the right platform, and pinned.
    assert_eq!(service(&first, "db")["digest"], digest);
    assert!(
        machine
            .workspace
            .read(".systemprompt/deploy.lock")
            .contains(&digest)
    );
    let tag = first["tag"].as_str().unwrap();
    let image = |name: &str| service(&first, name)["image"].as_str().unwrap().to_owned();
    assert!(image("api").ends_with(&format!(":api-{tag}")), "{first:#}");
    assert!(image("db").ends_with(&format!(":db-{tag}")), "{first:#}");
    assert_eq!(service(&first, "worker")["digest"], first["digest"]);

    let log = machine.xtask(&["logs", "--service", "worker"]);
    log.expect_success();
    assert!(
        log.stdout.contains("it says the database of process "),
        "{log}"
    );
    assert!(!log.stdout.contains("listening"), "{log}");
    let status = machine.xtask(&["status"]);
    status.expect_success();
    for line in ["SERVICE", "worker", "(for the other services)"] {
        assert!(status.stdout.contains(line), "{status}");
    }
}

#[test]
fn what_has_not_changed_is_neither_sent_nor_started_again() {
    let shop = Shop::new();
    shop.publish_database();
    let machine = &shop.machine;
    let first = machine.deploy_well();
    let database = body(&first["url"], "/api/db");

    // Its registry is needed no more.
    shop.proxy.forget();
    let second = machine.deploy_well();
    assert_eq!(second["status"], "unchanged", "{second:#}");
    assert_eq!(first["tag"], second["tag"]);
    assert!(
        summary(&second, "push")
            .contains("and 2 images of services are there, nothing sent (3 requests)"),
        "{second:#}"
    );
    assert!(shop.proxy.exchanges().is_empty());

    machine
        .workspace
        .edit("shop/api/src/main.rs", "\"api one\"", "\"api two\"");
    machine.workspace.commit_everything("another interface");
    let third = machine.deploy_well();
    assert_eq!(third["status"], "succeeded", "{third:#}");
    assert_eq!(
        started_by(&third),
        named([("api", 2), ("app", 1), ("db", 1), ("worker", 1)])
    );
    assert_eq!(body(&third["url"], "/api/x"), "api two /api/x ");
    assert_eq!(body(&third["url"], "/api/db"), database, "the same process");
    assert_ne!(first["tag"], third["tag"], "a tag stands for a release");
    assert_eq!(
        service(&first, "db")["digest"],
        service(&third, "db")["digest"]
    );

    // Started anew, it finds what it has written.
    shop.config("volumes = {", "env.LEVEL = \"2\"\nvolumes = {");
    let fourth = machine.deploy_well();
    assert_eq!(service(&fourth, "db")["deployment"], 3);
    assert!(body(&fourth["url"], "/api/db").ends_with(", start 2"));
    let database = body(&fourth["url"], "/api/db");
    machine
        .workspace
        .edit("shop/api/src/main.rs", "\"api two\"", "\"api three\"");
    machine.workspace.commit_everything("a third interface");
    machine.deploy_well();

    let back = machine.xtask(&["rollback", "--output", "json"]);
    back.expect_success();
    assert_eq!(body(&third["url"], "/api/x"), "api two /api/x ");
    assert_eq!(body(&third["url"], "/api/db"), database);
    assert_eq!(service(&back.json(), "api")["deployment"], 5);
}

#[test]
fn one_that_fails_returns_all_and_is_named() {
    let shop = Shop::new();
    shop.publish_database();
    let machine = &shop.machine;
    let first = machine.deploy_well();
    machine
        .workspace
        .edit("core/src/main.rs", "\"one\"", "\"two\"");
    shop.config(
        "command = [\"work\"]",
        "command = [\"fail\"]\nrestart = \"never\"\nenv.WORK_TOKEN = \"swordfish-of-the-worker\"",
    );
    let (code, second) = machine.deploy(&[]);
    assert_eq!(
        (code, &second["status"]),
        (8, &Value::from("rolled_back")),
        "{second:#}"
    );
    let details = second["error"]["details"].as_str().unwrap();
    assert!(details.contains("worker: "), "{details}");
    let logs = machine.xtask(&["logs", "--service", "worker"]);
    for told in [&second.to_string(), &logs.stdout] {
        assert!(
            told.contains("nothing to work on with [redacted]"),
            "{told}"
        );
    }
    assert_eq!(body(&first["url"], "/"), "one / ");
    let status = machine.xtask(&["status", "--output", "json"]);
    assert_eq!(
        started_by(&status.json()),
        named([("api", 1), ("app", 1), ("db", 1), ("worker", 1)])
    );
}

#[test]
fn a_secret_that_is_not_there_is_found_before_the_build() {
    let shop = Shop::new();
    shop.publish_database();
    let machine = &shop.machine;
    machine.xtask(&["local", "up"]).expect_success();
    shop.config(
        "routes = [\"/api\"]",
        "routes = [\"/api\"]\nsecrets = { PASSWORD = \"API_PASSWORD\" }",
    );
    let (_, refused) = machine.deploy(&[]);
    assert_eq!(refused["error"]["code"], "secret_missing", "{refused:#}");
    assert_eq!(refused["steps"], serde_json::json!([]));
    let set = machine.workspace.start_xtask(
        env!("CARGO_BIN_EXE_xtask"),
        &["secrets", "set", "--from-env", "API_PASSWORD"],
        &[("API_PASSWORD", "hunter2")],
    );
    set.wait(Duration::from_mins(1)).expect_success();
    let report = machine.deploy_well();
    assert_eq!(body(&report["url"], "/api/x"), "api one /api/x hunter2");
    assert!(!report.to_string().contains("hunter2"));
}

//! An `aramb.toml` on the embedded platform: a build that is a package of Cargo's, three services that run it, and a database
//! whose finished image comes from a registry of CNCF's distribution.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::Value;
use testkit::process::Finished;
use testkit::{DockerRegistry, FaultProxy};

use crate::machine::{Machine, get};
use crate::services::{database_program, publish_database};

const SERVICE: &str = include_str!("shop/service.rs.txt");
const PASSWORD: &str = "hunter2-of-the-api$HOME";

const FILE: &str = r#"
applicationID = "shop"

[[services]]
uniqueIdentifier = 103
name = "web"
type = "frontend"
[services.configuration.settings]
image = "${101.outputs.IMAGE_URL}"
publicNet = true
commandPort = 3000
[[services.configuration.vars]]
key = "OTHER"
value = "https://${102.outputs.PUBLIC_URL}/v1"

[[services]]
uniqueIdentifier = 102
name = "backend-api"
type = "backend"
[services.configuration.settings]
image = "${101.outputs.IMAGE_URL}"
cmd = "shop-api"
commandPort = 8080
publicNet = true
cpu = "500m"
memory = "256Mi"
[[services.configuration.vars]]
key = "DB"
value = "${100.outputs.PRIVATE_URL}:6379"
[[services.configuration.vars]]
key = "OTHER"
value = "${103.outputs.PUBLIC_URL}"
[[services.configuration.vars]]
key = "PORT"
value = "8080"
[[services.configuration.secrets]]
key = "PASSWORD"
value = "hunter2-of-the-api$HOME"

[[services]]
uniqueIdentifier = 104
name = "Night_Worker"
type = "backend"
[services.configuration.settings]
image = "${101.outputs.IMAGE_URL}"
cmd = "shop-api work"
[[services.configuration.vars]]
key = "LEVEL"
value = "1"
[[services.configuration.secrets]]
key = "DB"
value = "${100.outputs.PRIVATE_URL}:6379"

[[services]]
uniqueIdentifier = 101
name = "api-build"
type = "build"
[services.configuration.settings]
buildPath = "./shop/api"

[[services]]
uniqueIdentifier = 106
name = "page-build"
type = "build"
[services.configuration.settings]
buildPath = "page"

[[services]]
uniqueIdentifier = 105
name = "page"
type = "backend"
[services.configuration.settings]
image = "${106.outputs.IMAGE_URL}"
cmd = "$PORT"
commandPort = 5000

[[services]]
uniqueIdentifier = 100
name = "store"
type = "redis"
[services.configuration.settings]
image = "DATABASE"
cmd = "/db $PORT"
"#;

struct Shop {
    machine: Machine,
    _registry: DockerRegistry,
    proxy: FaultProxy,
}

impl Shop {
    fn new() -> Self {
        Self::on(Machine::new())
    }

    fn on(machine: Machine) -> Self {
        let registry = DockerRegistry::open();
        publish_database(&registry);
        let proxy = FaultProxy::before(registry.address());
        let reference = format!("{}/library/db:1", proxy.host());
        let workspace = &machine.workspace;
        workspace.write("aramb.toml", &FILE.replace("DATABASE", &reference));
        workspace.write(
            "shop/api/src/main.rs",
            &SERVICE.replace(
                "\"/api/db\" =>",
                "\"/other\" => variable(\"OTHER\"),\n        \"/api/db\" =>",
            ),
        );
        // Nothing of a project of ours, and no package of the workspace that is here.
        fs::remove_dir_all(workspace.root().join(".systemprompt")).unwrap();
        workspace.write(
            "shop/api/Cargo.toml",
            "[package]\nname = \"shop-api\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[workspace]\n",
        );
        // What the file of the folder above does not see.
        workspace.write(
            "page/Dockerfile",
            "FROM scratch\nCOPY bin/ /\nWORKDIR /data\nENTRYPOINT [\"/page\"]\n",
        );
        workspace.write("page/bin/page", "");
        let page = workspace.root().join("page/bin/page");
        fs::write(&page, database_program()).unwrap();
        fs::set_permissions(&page, fs::Permissions::from_mode(0o755)).unwrap();
        workspace.commit_everything("open a shop");
        Self {
            machine,
            _registry: registry,
            proxy,
        }
    }

    /// Deploys the file; nothing of what is printed holds a secret.
    fn deploy(&self, more: &[&str]) -> Finished {
        let finished = self
            .machine
            .xtask(&[&["deploy", "--output", "json"], more].concat());
        assert!(!finished.to_string().contains("hunter2"), "{finished}");
        finished
    }

    fn deploy_well(&self, more: &[&str]) -> Value {
        let finished = self.deploy(more);
        finished.expect_success();
        finished.json()
    }

    fn edit(&self, path: &str, from: &str, to: &str) {
        self.machine.workspace.edit(path, from, to);
        self.machine.workspace.commit_everything("change the shop");
    }

    /// The services that run, by their names on the platform.
    fn services(&self) -> BTreeMap<String, Value> {
        let status = self.machine.xtask(&["status", "--output", "json"]);
        status.expect_success();
        let report = status.json();
        let services = report["services"].as_array().unwrap().iter();
        services
            .map(|service| {
                (
                    service["name"].as_str().unwrap().to_owned(),
                    service.clone(),
                )
            })
            .collect()
    }

    /// The deployments that have started them.
    fn started_by(&self) -> BTreeMap<String, u64> {
        let services = self.services().into_iter();
        services
            .map(|(name, service)| (name, service["deployment"].as_u64().unwrap()))
            .collect()
    }
}

fn started(expected: [(&str, u64); 4]) -> BTreeMap<String, u64> {
    let page = [("page".to_owned(), 1)];
    let expected = expected
        .map(|(name, number)| (name.to_owned(), number))
        .into_iter();
    expected.chain(page).collect()
}

/// `GET` at an address, for a host.
fn ask(address: &str, host: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    body.to_owned()
}

#[test]
fn a_file_is_one_release_of_the_embedded_platform() {
    let shop = Shop::new();
    let report = shop.deploy_well(&[]);
    let deployed = &report["deployments"];
    let services = ["store", "Night_Worker", "page", "backend-api", "web"];
    for list in [&deployed["services"], &deployed["successful"]] {
        let list = list.as_array().unwrap();
        assert_eq!(list.len(), services.len(), "{report:#}");
        assert!(
            services
                .iter()
                .all(|name| list.contains(&Value::from(*name))),
            "{report:#}"
        );
    }
    let build = &report["builds"]["backend"][0];
    assert_eq!(build["docker_repo"], "local/api-build", "{report:#}");
    let image = format!(
        "/local:api-build-{}@sha256:",
        shop.machine.workspace.commit_id()
    );
    assert!(
        build["image"].as_str().unwrap().contains(&image),
        "{report:#}"
    );
    let api = deployed["backend_outputs"]["PUBLIC_URL"].as_str().unwrap();
    let address = api.strip_prefix("http://").unwrap();
    let port = address.rsplit_once(':').unwrap().1;
    let web = format!("http://web.localhost:{port}");
    let running = shop.services();
    let output = |name: &str, output: &str| running[name][output].as_str().map(str::to_owned);
    assert_eq!(output("app", "public_url").as_deref(), Some(api));
    assert_eq!(output("web", "public_url").as_ref(), Some(&web));
    assert_eq!(output("night-worker", "internal_url"), None);
    let store = output("store", "internal_url").unwrap();
    assert!(store.starts_with("tcp://127.0.0.1:"), "{store}");
    let page = output("page", "internal_url").unwrap();
    // The program of that image speaks no HTTP, and its address does.
    let said = get(&page);
    assert!(said.is_err() || said.unwrap().0 == 502);

    // One gets everything, the other has a host; each knows where the other is.
    let (host, web_host) = (address, format!("web.localhost:{port}"));
    assert_eq!(ask(address, host, "/x"), format!("one /x {PASSWORD}"));
    assert_eq!(ask(address, host, "/other"), web);
    assert_eq!(ask(address, &web_host, "/other"), format!("{api}/v1"));
    assert!(ask(address, host, "/api/db").starts_with("the database of process "));
    let log = shop.machine.xtask(&["logs", "--service", "night-worker"]);
    log.expect_success();
    assert!(
        log.stdout.contains("it says the database of process "),
        "{log}"
    );
    assert_eq!(
        shop.started_by(),
        started([("app", 1), ("web", 1), ("night-worker", 1), ("store", 1)])
    );

    // The same once more changes nothing, and asks nobody for the database.
    shop.proxy.forget();
    shop.deploy_well(&[]);
    assert!(shop.proxy.exchanges().is_empty());
    assert_eq!(shop.started_by()["app"], 1);

    // Only what is selected has the new image; what a deployment of it ends with is called as in the file.
    shop.edit("shop/api/src/main.rs", "\"one\"", "\"two\"");
    shop.deploy_well(&["--services", "Night_Worker"]);
    assert_eq!(
        shop.started_by(),
        started([("app", 1), ("web", 1), ("night-worker", 2), ("store", 1)])
    );
    assert_eq!(ask(address, host, "/x"), format!("one /x {PASSWORD}"));
    shop.edit("aramb.toml", "shop-api work", "shop-api fail");
    let failed = shop.deploy(&["--policy", "guarded"]);
    assert_eq!(failed.code(), 8, "{failed}");
    let error = &failed.json()["error"];
    assert_eq!(error["code"], "release_rolled_back", "{failed}");
    assert_eq!(failed.json()["status"], "rolled_back", "{failed}");
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("Night_Worker: "),
        "{failed}"
    );
    assert_eq!(ask(address, host, "/x"), format!("one /x {PASSWORD}"));

    // Another service is to get all requests: a part of the release cannot stay what it is.
    let file = shop.machine.workspace.read("aramb.toml");
    let other = file.replacen(
        "commandPort = 8080\npublicNet = true",
        "commandPort = 8080",
        1,
    );
    assert_ne!(other, file);
    shop.machine.workspace.write("aramb.toml", &other);
    let refused = shop.deploy(&["--services", "Night_Worker"]);
    assert_eq!(refused.code(), 1, "{refused}");
    assert_eq!(
        refused.json()["error"]["code"],
        "public_service_moved",
        "{refused}"
    );
    shop.machine.workspace.write("aramb.toml", &file);

    // All of it, with the data of the first.
    shop.edit("aramb.toml", "shop-api fail", "shop-api work");
    shop.deploy_well(&[]);
    assert_eq!(ask(address, host, "/x"), format!("two /x {PASSWORD}"));
}

#[test]
fn what_the_platform_cannot_do_is_told_before_anything_is_done() {
    let shop = Shop::new();
    let file = shop.machine.workspace.read("aramb.toml");
    for (from, to, code, words) in [
        (
            "type = \"frontend\"",
            "type = \"template\"",
            "type_not_offered",
            "`web` is of the type template",
        ),
        (
            "cpu = \"500m\"",
            "cpu = \"many\"",
            "cpu_invalid",
            "cpu of `backend-api`: `many`",
        ),
        (
            "buildPath = \"page\"",
            "buildPath = \"shop\"",
            "build_source_missing",
            "Build failed for page-build",
        ),
        (
            "cmd = \"shop-api\"",
            "cmd = \"npm start\"",
            "command_not_offered",
            "`npm start`",
        ),
    ] {
        shop.machine
            .workspace
            .write("aramb.toml", &file.replacen(from, to, 1));
        let refused = shop.deploy(&[]);
        assert_eq!(refused.code(), 1, "{refused}");
        let error = &refused.json()["error"];
        assert_eq!(error["code"], code, "{refused}");
        assert!(
            error["message"].as_str().unwrap().contains(words),
            "{refused}"
        );
    }
    assert!(
        !shop.machine.workspace.exists("target/release"),
        "nothing is built"
    );
    assert!(!shop.machine.workspace.exists(".systemprompt"));
    shop.machine.workspace.write("aramb.toml", &file);
    let dry = shop.deploy(&["--dry-run"]);
    dry.expect_success();
    assert!(!shop.machine.workspace.exists(".systemprompt"), "{dry}");
    // For the machine, which removes its platform.
    shop.machine
        .workspace
        .write(".systemprompt/deploy.toml", "");
}

#[test]
fn the_same_file_deploys_to_a_platform_elsewhere() {
    let elsewhere = Machine::new();
    elsewhere.xtask(&["local", "up"]).expect_success();
    let url = elsewhere.server_file()["url"].as_str().unwrap().to_owned();
    let token = elsewhere.workspace.read(".systemprompt/local/token");
    let shop = Shop::on(Machine::of(&url, token.trim(), "local"));
    let report = shop.deploy_well(&["-e", "production"]);
    let api = report["deployments"]["backend_outputs"]["PUBLIC_URL"].clone();
    let address = api.as_str().unwrap().strip_prefix("http://").unwrap();
    assert_eq!(ask(address, address, "/x"), format!("one /x {PASSWORD}"));
    let status = elsewhere.xtask(&["status", "--output", "json"]);
    let services = status.json()["services"].as_array().unwrap().len();
    assert_eq!(services, 5, "{status}");
    assert!(!shop.machine.workspace.exists(".systemprompt/local"));
}

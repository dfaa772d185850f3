//! An `aramb.toml` on the embedded platform: a build that is a package of Cargo's, three services that run it, and a database
//! whose finished image comes from a registry of CNCF's distribution.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use deploy_config::aramb::parse;
use deploy_config::{Overrides, Settings};
use deploy_pipeline::aramb::{Build, ControlPlane, Deployment, Flow, OwnPlatform, Waited};
use deploy_pipeline::events::{Event, Reporter};
use deploy_pipeline::interrupt::Interrupts;
use deploy_pipeline::redact::{Redacting, Redactor};
use deploy_plan::aramb::{FlowError, Wanted, select};
use deploy_plan::plan::Request;
use testkit::{DockerRegistry, FaultProxy};

use crate::machine::{Machine, server};
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

/// What was told, cleaned as a terminal's lines are.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Reporter for Told {
    fn event(&self, event: Event) {
        self.0.lock().unwrap().push(format!("{event:?}"));
    }
}

struct Shop {
    machine: Machine,
    _registry: DockerRegistry,
    proxy: FaultProxy,
    told: Arc<Told>,
}

impl Shop {
    fn new() -> Self {
        let machine = Machine::new();
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
            told: Arc::default(),
        }
    }

    /// Builds, deploys and waits as the flow does: everything, or the services of these names.
    fn deploy(&self, only: &[&str]) -> Result<Waited, FlowError> {
        let root = self.machine.workspace.root();
        let toml = parse(
            Path::new("aramb.toml"),
            &self.machine.workspace.read("aramb.toml"),
        );
        assert!(toml.diagnostics.is_empty(), "{:?}", toml.diagnostics);
        let variables: BTreeMap<String, String> = [
            (
                "SYSTEMPROMPT_LOCAL_SERVER".to_owned(),
                server().to_str().unwrap().to_owned(),
            ),
            ("PATH".to_owned(), std::env::var("PATH").unwrap()),
        ]
        .into();
        let settings = Settings::load(root, &Overrides::new(variables.clone())).unwrap();
        let (redactor, interrupts) = (Redactor::default(), Interrupts::default());
        let told = Arc::clone(&self.told);
        let shared = move |event| told.event(event);
        let mut platform =
            OwnPlatform::new(settings, variables, Arc::new(shared), &Request::default());
        let clean = Redacting {
            redactor: &redactor,
            sink: self.told.as_ref(),
        };
        let flow = Flow {
            reporter: &clean,
            redactor: &redactor,
            interrupts: &interrupts,
            folder: root,
            file: &toml.file,
            graph: &toml.graph,
            timeout: Duration::from_mins(1),
            is_patient: false,
        };
        let names = only.iter().map(|name| (*name).to_owned()).collect();
        let wanted = if only.is_empty() {
            Wanted::All
        } else {
            Wanted::Services(names)
        };
        let selection = select(&toml.file, &toml.graph, &wanted).unwrap();
        let missing = platform.missing(&flow, &selection);
        assert!(missing.is_empty(), "{missing:?}");
        platform.reach(&flow)?;
        let application = platform.application(&flow)?;
        let builds = selection.builds.iter().map(|&service| Build {
            service,
            repository: format!("{}/{}", application.slug, toml.file.services[service].name),
            tag: self.machine.workspace.commit_id(),
            push: false,
        });
        let built = platform.build(&flow, &builds.collect::<Vec<_>>())?;
        let images = built
            .into_iter()
            .map(|built| (built.service, built.image))
            .collect();
        let deployment = Deployment {
            services: &selection.services,
            is_everything: selection.is_everything,
            images: &images,
        };
        platform.deploy(&flow, &deployment)?;
        Ok(platform.wait(&flow, &selection.services))
    }

    fn edit(&self, path: &str, from: &str, to: &str) {
        self.machine.workspace.edit(path, from, to);
        self.machine.workspace.commit_everything("change the shop");
    }

    /// The deployments that have started the services, by their names on the platform.
    fn started_by(&self) -> BTreeMap<String, u64> {
        let status = self.machine.xtask(&["status", "--output", "json"]);
        status.expect_success();
        let report = status.json();
        let services = report["services"].as_array().unwrap().iter();
        services
            .map(|service| {
                let name = service["name"].as_str().unwrap().to_owned();
                (name, service["deployment"].as_u64().unwrap())
            })
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
    let waited = shop.deploy(&[]).unwrap();
    assert_eq!(waited.error, None);
    assert!(waited.services.iter().all(|service| service.is_healthy));
    assert_eq!(waited.services.len(), 5, "{waited:?}");
    let output = |at: usize, name: &str| {
        let mut services = waited.services.iter();
        let service = services.find(|service| service.service == at).unwrap();
        service.outputs.get(name).cloned().unwrap_or_default()
    };
    // In the order of the file: web, backend-api, the worker, a build, another one, the page, the store.
    let api = output(1, "PUBLIC_URL");
    let address = api.strip_prefix("http://").unwrap();
    let port = address.rsplit_once(':').unwrap().1;
    let web = format!("http://web.localhost:{port}");
    assert_eq!(output(0, "PUBLIC_URL"), web);
    assert_eq!(output(2, "PUBLIC_URL"), "");
    assert!(output(6, "INTERNAL_URL").starts_with("tcp://127.0.0.1:"));

    let page = output(5, "INTERNAL_URL");
    let mut said = String::new();
    let mut stream = TcpStream::connect(page.trim_start_matches("http://")).unwrap();
    // The program of that image speaks no HTTP, and the address does.
    write!(stream, "GET / HTTP/1.0\r\n\r\n").unwrap();
    stream.read_to_string(&mut said).unwrap();
    assert!(
        said.starts_with("HTTP/1.1 502 ") || said.starts_with("HTTP/1.0 502 "),
        "{said}"
    );

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
    let told = shop.told.0.lock().unwrap().join("\n");
    assert!(!told.contains("hunter2"), "{told}");

    // The same once more changes nothing, and asks nobody for the database.
    shop.proxy.forget();
    shop.deploy(&[]).unwrap();
    assert!(shop.proxy.exchanges().is_empty());
    assert_eq!(shop.started_by()["app"], 1);

    // Only what is selected has the new image; what a deployment of it ends with is called as in the file.
    shop.edit("shop/api/src/main.rs", "\"one\"", "\"two\"");
    shop.deploy(&["Night_Worker"]).unwrap();
    assert_eq!(
        shop.started_by(),
        started([("app", 1), ("web", 1), ("night-worker", 2), ("store", 1)])
    );
    assert_eq!(ask(address, host, "/x"), format!("one /x {PASSWORD}"));
    shop.edit("aramb.toml", "shop-api work", "shop-api fail");
    let failed = shop.deploy(&[]).unwrap().error.unwrap();
    assert_eq!(failed.code, "release_rolled_back", "{failed:?}");
    assert!(failed.message.contains("Night_Worker: "), "{failed:?}");
    assert_eq!(ask(address, host, "/x"), format!("one /x {PASSWORD}"));

    // All of it, with the data of the first.
    shop.edit("aramb.toml", "shop-api fail", "shop-api work");
    let waited = shop.deploy(&[]).unwrap();
    assert_eq!(waited.error, None);
    assert_eq!(ask(address, host, "/x"), format!("two /x {PASSWORD}"));
}

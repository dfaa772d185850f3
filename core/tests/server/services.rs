//! Several services in one release: their order, their addresses and routes, and that they change together or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use management_api::client::{ApiError, LogQuery};
use management_api::types::{
    AnalysisSettings, CanaryStep, DeployRequest, Deployment, HealthCheck, Protocol, Restart,
    RollbackRequest, RolloutSettings, Route, Service, ServiceStatus,
};
use serde_json::Value;

use crate::harness::{Server, agent, get, health, key, until};
use crate::image::push;

/// A server that has the image that all services here are of.
pub(crate) fn server() -> Server {
    let server = Server::start();
    push(&server, "local", "it", &[]);
    server
}

pub(crate) fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    pairs.collect()
}

pub(crate) fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn at(host: Option<&str>, path: &str) -> Route {
    Route {
        host: host.map(str::to_owned),
        path: path.to_owned(),
    }
}

pub(crate) fn service(server: &Server, version: &str) -> Service {
    Service {
        image: server.image("local", "it"),
        env: env(&[("VERSION", version)]),
        ..Service::default()
    }
}

/// One that others ask.
pub(crate) fn interface(server: &Server, version: &str) -> Service {
    Service {
        protocol: Some(Protocol::Http),
        health: Some(health()),
        ..service(server, version)
    }
}

/// One that listens nowhere.
fn worker(server: &Server, version: &str) -> Service {
    let mut worker = service(server, version);
    worker.env.insert("MODE".to_owned(), "worker".to_owned());
    worker.health = Some(running());
    worker
}

/// A program has proved itself when it has run for a moment.
fn running() -> HealthCheck {
    let check = serde_json::json!({
        "kind": "process", "interval_ms": 200, "timeout_ms": 1000, "start_period_ms": 300, "retries": 1,
    });
    serde_json::from_value(check).unwrap()
}

/// An application with an interface and a worker behind it, all of one version.
pub(crate) fn shop(server: &Server, version: &str) -> DeployRequest {
    let mut request = server.request("it");
    request.env = env(&[("VERSION", version)]);
    request.depends_on = names(&["api"]);
    let mut worker = worker(server, version);
    worker.depends_on = names(&["api"]);
    request.services = BTreeMap::from([
        ("api".to_owned(), interface(server, version)),
        ("worker".to_owned(), worker),
    ]);
    request
}

pub(crate) fn deploy(server: &Server, request: &DeployRequest) -> Deployment {
    let number = server.deploy(request).deployment.unwrap();
    server.wait(number)
}

pub(crate) fn succeeds(server: &Server, request: &DeployRequest) -> u64 {
    let done = deploy(server, request);
    assert_eq!(done.state, "succeeded", "{done:?}");
    done.number
}

pub(crate) fn services(server: &Server) -> BTreeMap<String, ServiceStatus> {
    let services = server.client().status("local").unwrap().services;
    let services = services.into_iter();
    services.map(|s| (s.name.clone(), s)).collect()
}

/// The process of each instance, by the name of its service.
pub(crate) fn processes(server: &Server) -> BTreeMap<String, BTreeSet<String>> {
    let mut processes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (id, record) in server.instances() {
        if record["program"].is_object() {
            let program: &Value = &record["program"];
            let found = processes.entry(service_of(&id)).or_default();
            found.insert(program.to_string());
        }
    }
    processes
}

/// The service that an instance's name says.
pub(crate) fn service_of(id: &str) -> String {
    let rest = id.strip_prefix("local--").unwrap_or("app-0-0");
    let mut parts = rest.rsplitn(3, '-');
    parts.nth(2).unwrap().to_owned()
}

/// What the application finds at the address of the interface.
fn asked_inside(server: &Server) -> Option<String> {
    get(&format!("{}/ask/API_INTERNAL_URL", server.app_url()))
}

fn variable(server: &Server, name: &str) -> String {
    get(&format!("{}/env/{name}", server.app_url())).unwrap()
}

pub(crate) fn lines(server: &Server, service: &str) -> Vec<management_api::types::LogLine> {
    let query = LogQuery {
        service: Some(service.to_owned()),
        ..LogQuery::default()
    };
    server.client().logs("local", &query).unwrap()
}

#[test]
pub(crate) fn a_job_that_has_ended_keeps_nobody_from_anything() {
    let server = server();
    let mut request = server.request("it");
    request.env = env(&[("VERSION", "one")]);
    request.depends_on = names(&["job"]);
    let job = Service {
        command: names(&["print"]),
        restart: Restart::OnFailure,
        health: Some(running()),
        ..service(&server, "one")
    };
    request.services = BTreeMap::from([("job".to_owned(), job)]);
    let first = succeeds(&server, &request);
    let one_serves = || (server.version().as_deref() == Some("one")).then_some(());
    until("the application serves", one_serves);
    assert_eq!(services(&server)["job"].state, "done");
    assert_eq!(server.client().status("local").unwrap().status, "deployed");
    // A release that fails is undone, and nobody waits for the old job.
    let mut bad = request.clone();
    bad.env = env(&[("VERSION", "two"), ("MODE", "exit")]);
    assert_eq!(deploy(&server, &bad).state, "rolled_back");
    until("the old release serves on", one_serves);
    // What depends on it is started again without it.
    let ended = agent().post(format!("{}/exit/3", server.app_url()));
    assert_eq!(ended.send_empty().unwrap().status(), 502);
    until("the application serves again", one_serves);
    // The next server does not run it a second time.
    let server = server.kill_and_restart();
    until("the next server serves", || {
        (server.version().as_deref() == Some("one")).then_some(())
    });
    assert_eq!(services(&server)["job"].state, "done");
    let lines = server.client().logs("local", &LogQuery::default()).unwrap();
    let of_first = lines.iter().filter(|line| line.deployment == first);
    let runs = of_first.filter(|line| line.line.starts_with("running print"));
    assert_eq!(runs.count(), 1);
}

#[test]
pub(crate) fn they_start_behind_what_they_depend_on_and_find_each_other() {
    let server = server();
    let mut request = shop(&server, "one");
    let api = request.services.get_mut("api").unwrap();
    api.env
        .extend(env(&[("MODE", "slow"), ("START_MS", "700")]));
    // It may name what it does not wait for.
    api.env.insert(
        "BACK".to_owned(),
        "<${services.app.INTERNAL_URL}>".to_owned(),
    );
    let number = succeeds(&server, &request);
    assert_eq!(server.version().as_deref(), Some("one"));
    assert_eq!(asked_inside(&server).as_deref(), Some("one"));
    let status = services(&server);
    assert_eq!(status.keys().collect::<Vec<_>>(), ["api", "app", "worker"]);
    for (name, service) in &status {
        assert_eq!(service.state, "serving", "{name}");
        assert_eq!((service.deployment, service.instances.len()), (number, 1));
    }
    let (app, api) = (&status["app"], &status["api"]);
    assert_eq!(app.public_url.as_deref(), Some(&*server.app_url()));
    assert_eq!(variable(&server, "PUBLIC_URL"), server.app_url());
    let address = api.internal_url.clone().unwrap();
    assert_eq!(variable(&server, "API_INTERNAL_URL"), address);
    assert_eq!(api.public_url, None);
    let back = get(&format!("{address}/env/BACK")).unwrap();
    assert_eq!(back, format!("<{}>", app.internal_url.as_deref().unwrap()));
    let own = get(&format!("{address}/env/INTERNAL_URL")).unwrap();
    assert_eq!(own, address);
    let worker = &status["worker"];
    assert_eq!((&worker.internal_url, &worker.public_url), (&None, &None));
    // Each has a log of its own, and the order is in them.
    let ready = lines(&server, "api");
    let ready = ready.iter().find(|line| line.line.contains("listening"));
    let ready = ready.unwrap().at;
    for other in ["app", "worker"] {
        let begun = lines(&server, other);
        assert!(begun[0].at >= ready, "{begun:?}");
        let named = begun
            .iter()
            .all(|line| line.service.as_deref().unwrap_or("app") == other);
        assert!(named, "{begun:?}");
    }
    let deployed = server.client().deployment("local", number).unwrap();
    let others: Vec<_> = deployed.services.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(others, ["api", "worker"]);
}

#[test]
pub(crate) fn one_fails_and_all_return() {
    let server = server();
    succeeds(&server, &shop(&server, "one"));
    let before = processes(&server);
    for strategy in ["rolling", "blue-green"] {
        let mut bad = shop(&server, "two");
        bad.strategy = Some(strategy.to_owned());
        let worker = bad.services.get_mut("worker").unwrap();
        worker.env.insert("MODE".to_owned(), "exit".to_owned());
        let done = deploy(&server, &bad);
        assert_eq!(done.state, "rolled_back", "{done:?}");
        let failure = done.failure.unwrap();
        assert_eq!(failure.code, "exited");
        assert!(failure.message.starts_with("worker: "), "{failure:?}");
        // The order of two streams is nobody's.
        let told = failure
            .log_tail
            .iter()
            .any(|line| line == "fatal: told to end");
        assert!(told, "{failure:?}");
        assert_eq!(server.version().as_deref(), Some("one"));
        assert_eq!(asked_inside(&server).as_deref(), Some("one"));
        assert_eq!(processes(&server), before, "{strategy}");
    }
}

#[test]
pub(crate) fn a_new_service_that_fails_leaves_nothing_of_itself() {
    let server = server();
    succeeds(&server, &server.request("it"));
    let before = processes(&server);
    let mut bad = shop(&server, "two");
    bad.env.insert("MODE".to_owned(), "exit".to_owned());
    assert_eq!(deploy(&server, &bad).state, "rolled_back");
    assert_eq!(processes(&server), before);
    // The first of its kind has nothing to return to.
    let server = self::server();
    assert_eq!(deploy(&server, &bad_of(&server)).state, "failed");
    assert!(processes(&server).is_empty());
    assert!(services(&server).is_empty());
}

fn bad_of(server: &Server) -> DeployRequest {
    let mut bad = shop(server, "one");
    bad.env.insert("MODE".to_owned(), "exit".to_owned());
    bad
}

#[test]
pub(crate) fn what_has_not_changed_runs_on_through_deployments_restarts_and_rollbacks() {
    let server = server();
    let first = succeeds(&server, &shop(&server, "one"));
    let before = processes(&server);
    let mut request = shop(&server, "one");
    let worker = request.services.get_mut("worker").unwrap();
    worker.env.insert("VERSION".to_owned(), "two".to_owned());
    let second = succeeds(&server, &request);
    let after = processes(&server);
    assert_eq!(after["app"], before["app"]);
    assert_eq!(after["api"], before["api"]);
    assert!(after["worker"].is_disjoint(&before["worker"]), "{after:?}");
    assert_eq!(services(&server)["api"].deployment, first);
    assert_eq!(services(&server)["worker"].deployment, second);
    // The same request changes nothing.
    assert!(server.deploy(&request).unchanged);
    // The next server knows them again, and keeps them running.
    let server = server.kill_and_restart();
    assert_eq!(processes(&server), after);
    assert_eq!(
        asked_inside(&server).as_deref(),
        Some("one"),
        "{}",
        server.log()
    );
    let address = services(&server)["api"].internal_url.clone().unwrap();
    get(&format!("{address}/exit/5"));
    until("the interface serves again", || {
        let now = processes(&server);
        (now.get("api")
            .is_some_and(|now| !now.is_empty() && *now != after["api"]))
        .then_some(())?;
        asked_inside(&server).filter(|version| version == "one")
    });
    let after = processes(&server);
    assert_eq!(after["app"], before["app"]);
    // A rollback is a deployment like any other.
    let answer = server
        .client()
        .rollback("local", &RollbackRequest::default(), &key())
        .unwrap();
    let done = server.wait(answer.deployment.unwrap());
    assert_eq!(
        (done.state.as_str(), done.restores),
        ("succeeded", Some(first))
    );
    let back = processes(&server);
    assert_eq!((&back["app"], &back["api"]), (&after["app"], &after["api"]));
    assert!(back["worker"].is_disjoint(&after["worker"]));
    assert_eq!(
        lines(&server, "worker").last().unwrap().deployment,
        done.number
    );
    // Whoever insists gets new ones.
    let mut again = shop(&server, "one");
    again.force = true;
    succeeds(&server, &again);
    let new = processes(&server);
    for name in ["app", "api", "worker"] {
        assert!(new[name].is_disjoint(&back[name]), "{name}");
    }
}

#[test]
pub(crate) fn requests_go_by_host_and_path() {
    let server = server();
    let mut request = server.request("it");
    request.env = env(&[("VERSION", "web")]);
    request.routes = Some(vec![at(None, "/version"), at(Some("*.example.com"), "/")]);
    let routed = |version: &str, routes: Vec<Route>| Service {
        routes,
        health: Some(health()),
        ..service(&server, version)
    };
    let api = routed(
        "api",
        vec![at(None, "/env"), at(Some("API.example.com"), "/")],
    );
    request.services.insert("api".to_owned(), api);
    succeeds(&server, &request);
    let url = server.app_url();
    let ask = |host: &str, path: &str| {
        let mut answer = agent()
            .get(format!("{url}{path}"))
            .header("host", host)
            .call()
            .unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        (answer.status().as_u16(), text)
    };
    for (host, path, version) in [
        ("anything", "/version", "web"),
        ("shop.example.com:80", "/env/VERSION", "web"),
        ("api.example.com", "/version", "api"),
        ("anything", "/env/VERSION", "api"),
    ] {
        assert_eq!(ask(host, path), (200, version.to_owned()), "{host} {path}");
    }
    let (status, text) = ask("anything", "/versions");
    assert_eq!(status, 404);
    assert!(text.contains("no_route"), "{text}");
    let api = services(&server)["api"].public_url.clone();
    assert_eq!(api, Some(format!("{url}/env")));
    // Routes are part of the release: they move with it, and are there after a restart.
    let server = server.kill_and_restart();
    assert_eq!(get(&format!("{url}/env/VERSION")).as_deref(), Some("api"));
    // The registry has another address than before.
    request.image = server.image("local", "it");
    request.services.clear();
    succeeds(&server, &request);
    assert_eq!(get(&format!("{url}/env/VERSION")), None);
}

#[test]
pub(crate) fn what_makes_no_sense_is_refused_before_anything_happens() {
    let server = server();
    let refused = |change: &dyn Fn(&mut DeployRequest)| {
        let mut request = shop(&server, "one");
        change(&mut request);
        let outcome = server.client().deploy("local", &request, &key(), false);
        outcome.unwrap_err()
    };
    let circle = refused(&|request| {
        let api = request.services.get_mut("api").unwrap();
        api.depends_on = names(&["worker"]);
    });
    let ApiError::Refused {
        status, message, ..
    } = circle
    else {
        panic!("{circle}");
    };
    assert_eq!(status, 422);
    assert!(message.contains("api -> worker -> api"), "{message}");
    let image = refused(&|request| {
        let api = request.services.get_mut("api").unwrap();
        api.image = "elsewhere".to_owned();
    });
    assert!(image.to_string().contains("services.api: "), "{image}");
    assert_eq!(
        server.client().deployments("local").unwrap().unwrap().len(),
        0
    );
}

#[test]
pub(crate) fn where_two_must_not_run_at_once_no_worker_does() {
    let server = server();
    succeeds(&server, &shop(&server, "one"));
    let before = processes(&server);
    let mut request = shop(&server, "one");
    request.strategy = Some("recreate".to_owned());
    let worker = request.services.get_mut("worker").unwrap();
    worker.env.insert("VERSION".to_owned(), "two".to_owned());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watching = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let workers = server.instances().into_keys();
                let workers: Vec<_> = workers.filter(|id| service_of(id) == "worker").collect();
                assert!(workers.len() <= 1, "{workers:?}");
            }
        });
        succeeds(&server, &request);
        // One that fails returns, and is alone then too.
        let worker = request.services.get_mut("worker").unwrap();
        worker.env.insert("MODE".to_owned(), "exit".to_owned());
        let failed = deploy(&server, &request);
        assert_eq!(failed.state, "rolled_back", "{failed:?}");
        done.store(true, Ordering::Relaxed);
        watching.join().unwrap();
    });
    let after = processes(&server);
    assert_eq!(
        (&after["app"], &after["api"]),
        (&before["app"], &before["api"])
    );
    assert_eq!(services(&server)["worker"].state, "serving");
}

#[test]
pub(crate) fn a_connection_to_a_database_outlives_a_deployment_that_does_not_change_it() {
    let server = server();
    let with = |version: &str| {
        let mut request = server.request("it");
        request.env = env(&[("VERSION", version)]);
        request.depends_on = names(&["db"]);
        let db = Service {
            protocol: Some(Protocol::Tcp),
            // As for images that read no variable.
            command: Vec::new(),
            ..service(&server, "db")
        };
        request.services.insert("db".to_owned(), db);
        request
    };
    succeeds(&server, &with("one"));
    let url = services(&server)["db"].internal_url.clone().unwrap();
    let address = url.strip_prefix("tcp://").unwrap();
    assert_eq!(variable(&server, "DB_INTERNAL_URL"), url);
    let stream = TcpStream::connect(address).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut ask = |mut stream: &TcpStream| {
        stream
            .write_all(b"GET /version HTTP/1.1\r\nhost: db\r\n\r\n")
            .unwrap();
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            assert_ne!(reader.read_line(&mut line).unwrap(), 0, "it is open");
        }
        let mut body = [0; 2];
        std::io::Read::read_exact(&mut reader, &mut body).unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    };
    assert_eq!(ask(&stream), "db");
    succeeds(&server, &with("two"));
    assert_eq!(server.version().as_deref(), Some("two"));
    assert_eq!(ask(&stream), "db");
    let again = services(&server)["db"].internal_url.clone().unwrap();
    assert_eq!(again, url, "the address stays");
}

#[test]
pub(crate) fn a_canary_judges_each_service_by_itself() {
    let server = server();
    let with = |version: &str| {
        let mut request = shop(&server, version);
        let api = request.services.get_mut("api").unwrap();
        api.routes = vec![at(None, "/env")];
        request
    };
    succeeds(&server, &with("one"));
    let before = processes(&server);
    let mut canary = with("two");
    canary.strategy = Some("canary".to_owned());
    canary.rollout = RolloutSettings {
        steps: Some(vec![CanaryStep {
            weight: 50,
            pause_ms: Some(60_000),
        }]),
        analysis: Some(AnalysisSettings {
            min_requests: Some(4),
            synthetic: Some(false),
            ..AnalysisSettings::default()
        }),
        ..RolloutSettings::default()
    };
    let api = canary.services.get_mut("api").unwrap();
    api.env.insert("MODE".to_owned(), "faulty".to_owned());
    let number = server.deploy(&canary).deployment.unwrap();
    let url = server.app_url();
    // A hundred good answers of the one do not hide the bad ones of the other.
    let done = until("it is undone", || {
        (0..10).for_each(|_| drop(get(&format!("{url}/version"))));
        drop(get(&format!("{url}/env/VERSION")));
        let now = server.client().deployment("local", number).unwrap();
        now.finished_at.is_some().then_some(now)
    });
    assert_eq!(done.state, "rolled_back", "{done:?}");
    assert_eq!(done.failure.unwrap().code, "analysis_failed");
    assert_eq!(processes(&server), before);
    for _ in 0..6 {
        assert_eq!(server.version().as_deref(), Some("one"));
        assert_eq!(get(&format!("{url}/env/VERSION")).as_deref(), Some("one"));
    }
}

#[test]
pub(crate) fn a_service_finds_the_secrets_that_it_names_and_no_others() {
    let server = server();
    let secrets = serde_json::from_value(serde_json::json!({
        "secrets": { "DB_PASSWORD": "s3cret", "OTHER": "0ther" },
    }));
    server
        .client()
        .change_secrets("local", &secrets.unwrap())
        .unwrap();
    let mut request = shop(&server, "one");
    let api = request.services.get_mut("api").unwrap();
    api.secrets = env(&[("PASSWORD", "DB_PASSWORD")]);
    succeeds(&server, &request);
    let address = services(&server)["api"].internal_url.clone().unwrap();
    let found = |name: &str| get(&format!("{address}/env/{name}")).unwrap();
    assert_eq!(found("PASSWORD"), "s3cret");
    assert_eq!(
        (found("DB_PASSWORD"), found("OTHER")),
        (String::new(), String::new())
    );
    assert_eq!(variable(&server, "OTHER"), "0ther");
}

#[test]
pub(crate) fn a_secret_in_a_value_is_put_in_at_the_start_and_shown_nowhere() {
    let server = server();
    let set = |value: &str| {
        let secrets = serde_json::json!({ "secrets": { "DB_PASSWORD": value } });
        let secrets = serde_json::from_value(secrets).unwrap();
        server.client().change_secrets("local", &secrets).unwrap();
    };
    set("s3cret-${services.api.INTERNAL_PORT}");
    let url = "shop:${secrets.DB_PASSWORD}@${services.api.INTERNAL_HOST}";
    let with = |version: &str| {
        let mut request = shop(&server, version);
        request.env.insert("URL".to_owned(), url.to_owned());
        let worker = request.services.get_mut("worker").unwrap();
        worker.env.insert("URL".to_owned(), url.to_owned());
        request
    };
    let first = succeeds(&server, &with("one"));
    let filled = "shop:s3cret-${services.api.INTERNAL_PORT}@127.0.0.1";
    let found = variable(&server, "URL");
    let (begin, _) = filled.split_once('@').unwrap();
    assert_eq!(
        found.split_once('@').unwrap().0,
        begin,
        "not looked at again"
    );
    // Whoever does not name it is left alone when it changes.
    let before = processes(&server);
    set("changed");
    succeeds(&server, &with("one"));
    let after = processes(&server);
    assert_eq!(after["api"], before["api"]);
    for name in ["app", "worker"] {
        assert!(after[name].is_disjoint(&before[name]), "{name}");
    }
    assert!(variable(&server, "URL").starts_with("shop:changed@"));
    let back = RollbackRequest {
        to: Some(first.to_string()),
        ..RollbackRequest::default()
    };
    let answer = server.client().rollback("local", &back, &key()).unwrap();
    assert_eq!(server.wait(answer.deployment.unwrap()).state, "succeeded");
    assert_eq!(
        variable(&server, "URL"),
        found,
        "the version of the release"
    );
    // A single service has it as well, and a name that is not there is refused.
    let mut alone = server.request("it");
    alone.env = env(&[("URL", "<${secrets.DB_PASSWORD}>")]);
    succeeds(&server, &alone);
    assert_eq!(variable(&server, "URL"), "<changed>");
    alone.env = env(&[("URL", "<${secrets.OTHER}>")]);
    let refused = server.client().deploy("local", &alone, &key(), false);
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("no secret \"OTHER\""), "{refused}");
    // Nothing that is kept or told has it.
    let told = [
        serde_json::json!(server.client().deployments("local").unwrap()).to_string(),
        serde_json::json!(server.client().status("local").unwrap()).to_string(),
        serde_json::json!(server.client().audit(None, None, 100).unwrap()).to_string(),
        server.log(),
    ];
    for text in told {
        assert!(
            !text.contains("s3cret-") && !text.contains("<changed>"),
            "{text}"
        );
    }
    let grep = std::process::Command::new("grep")
        .args(["-rlF", "-e", "s3cret-", "-e", "<changed>"])
        .arg(server.data())
        .output()
        .unwrap();
    let files = String::from_utf8_lossy(&grep.stdout);
    assert_eq!(files, "", "files with a secret in clear");
}

#[test]
pub(crate) fn with_a_tenant_go_all_of_its_services() {
    let server = server();
    server.create_tenants(&["shop"]);
    push(&server, "shop", "it", &[]);
    let mut request = shop(&server, "one");
    request.image = server.image("shop", "it");
    for service in request.services.values_mut() {
        service.image = server.image("shop", "it");
    }
    let answer = server
        .client()
        .deploy("shop", &request, &key(), false)
        .unwrap();
    let client = server.client();
    until("it serves", || {
        let done = client.deployment("shop", answer.deployment.unwrap());
        (done.unwrap().state == "succeeded").then_some(())
    });
    let status = client.status("shop").unwrap();
    let api = status.services.iter().find(|s| s.name == "api").unwrap();
    let address = api.internal_url.clone().unwrap();
    assert!(get(&format!("{address}/health")).is_some());
    client.delete_tenant("shop").unwrap();
    until("nothing of it runs", || {
        server.instances().is_empty().then_some(())
    });
    assert!(TcpStream::connect(address.strip_prefix("http://").unwrap()).is_err());
}

#[test]
pub(crate) fn a_release_command_finds_what_the_application_depends_on() {
    let server = server();
    let mut request = server.request("it");
    request.depends_on = names(&["db"]);
    request.release_command = names(&["ask"]);
    let db = Service {
        protocol: Some(Protocol::Tcp),
        ..service(&server, "ready")
    };
    request.services.insert("db".to_owned(), db);
    succeeds(&server, &request);
    let said = lines(&server, "app");
    let found = said.iter().any(|l| l.line == "the database is ready");
    assert!(found, "{said:?}");
    // One that fails leaves nothing of what was started for it.
    let before = processes(&server);
    request.release_command = names(&["fail"]);
    let more = interface(&server, "two");
    request.services.insert("more".to_owned(), more);
    request.depends_on = names(&["db", "more"]);
    let failed = deploy(&server, &request);
    assert_eq!(failed.state, "rolled_back");
    assert_eq!(failed.failure.unwrap().code, "release_command_failed");
    assert_eq!(processes(&server), before);
}

/// What the old application cannot start without is gone.
#[test]
pub(crate) fn what_stands_in_has_the_services_that_were_carried_over() {
    let server = Server::start_with("restore_seconds = 1\n");
    push(&server, "local", "it", &[]);
    let database = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = database.local_addr().unwrap();
    let mut first = shop(&server, "one");
    first.env.insert("NEEDS".to_owned(), address.to_string());
    succeeds(&server, &first);
    let before = processes(&server);
    let mut second = shop(&server, "one");
    second.env.insert("VERSION".to_owned(), "two".to_owned());
    second.strategy = Some("canary".to_owned());
    second.rollout = RolloutSettings {
        steps: Some(vec![CanaryStep {
            weight: 50,
            pause_ms: None,
        }]),
        ..RolloutSettings::default()
    };
    let number = server.deploy(&second).deployment.unwrap();
    server.wait_for(number, |deployment| deployment.state == "paused");
    drop(database);
    let url = server.app_url();
    let is_two = |server: &Server| {
        let all = (0..8).all(|_| server.version().as_deref() == Some("two"));
        all.then_some(())
    };
    until("the old application has ended", || {
        for _ in 0..2 {
            let _ = agent().get(format!("{url}/exit-of/one")).call();
        }
        is_two(&server)
    });
    server.client().abort("local", number).unwrap();
    assert_eq!(server.wait(number).state, "needs_operator");
    let stands_in = |server: &Server| {
        is_two(server)?;
        let status = services(server);
        let all = ["api", "app", "worker"].map(|name| status[name].state == "serving");
        assert_eq!(asked_inside(server).as_deref(), Some("one"));
        let now = processes(server);
        assert_eq!(
            (&now["api"], &now["worker"]),
            (&before["api"], &before["worker"])
        );
        (all == [true; 3]).then_some(())
    };
    until("the new one stands in", || stands_in(&server));
    let server = server.kill_and_restart();
    until("it does after a restart", || stands_in(&server));
    // The next release takes over from both.
    let client = server.client();
    client.abort("local", number).unwrap();
    let mut third = shop(&server, "one");
    third.env.insert("VERSION".to_owned(), "three".to_owned());
    succeeds(&server, &third);
    assert_eq!(server.version().as_deref(), Some("three"));
    let now = processes(&server);
    assert_eq!(
        (&now["api"], &now["worker"]),
        (&before["api"], &before["worker"])
    );
    until("nothing else is left", || {
        (server.instances().len() == 3).then_some(())
    });
}

/// The server dies at every record; whatever had been written, one release serves, with all of its services.
fn dies_at_every_record(strategy: &str, records: u32) {
    let server = server();
    succeeds(&server, &shop(&server, "one"));
    let mut server = server;
    for record in 1.. {
        let wanted = record.to_string();
        server = server.restart_with(&[("SYSTEMPROMPT_DIE_AT", &wanted)]);
        until("the first release serves", || serves(&server, "one"));
        let mut request = shop(&server, "two");
        request.strategy = Some(strategy.to_owned());
        let died = server.dies_deploying(&request);
        server = server.restart_with(&[]);
        let last = server.last_deployment();
        let what = format!("{strategy} died at record {record}: {last:?}");
        assert!(last.finished_at.is_some(), "{what}");
        let version = match last.state.as_str() {
            "succeeded" => "two",
            "rolled_back" => "one",
            _ => panic!("{what}"),
        };
        until("one release serves", || serves(&server, version));
        until("nothing else is left", || {
            (server.instances().len() == 3).then_some(())
        });
        if !died {
            assert!(record > records, "{what}");
            return;
        }
        let mut back = shop(&server, "one");
        back.force = true;
        succeeds(&server, &back);
    }
}

/// Whether everything that is asked is of this version, and the worker too.
pub(crate) fn serves(server: &Server, version: &str) -> Option<()> {
    let outside = (0..4).all(|_| server.version().as_deref() == Some(version));
    let inside = (0..4).all(|_| asked_inside(server).as_deref() == Some(version));
    let status = services(server).remove("worker")?;
    let [id] = &status.instances[..] else {
        return None;
    };
    let started: u64 = id.rsplit('-').nth(1)?.parse().ok()?;
    let mut said = lines(server, "worker");
    said.retain(|line| line.deployment == started);
    let worker = said.last()?.line.ends_with(&format!("version {version}"));
    (outside && inside && worker).then_some(())
}

#[test]
pub(crate) fn rolling_dies_at_every_record() {
    dies_at_every_record("rolling", 5);
}

#[test]
pub(crate) fn recreate_dies_at_every_record() {
    dies_at_every_record("recreate", 5);
}

/// For another engine: one that replaces instances by itself has fewer records.
pub(crate) fn a_server_of_an_orchestrator_dies_at_every_record() {
    dies_at_every_record("rolling", 3);
}

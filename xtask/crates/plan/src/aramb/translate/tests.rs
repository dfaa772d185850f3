//! Files of services, and what becomes of them.

use super::super::ServiceType::{
    ArambAgent, Backend, Build, Frontend, Mongodb, Postgres, Redis, Template,
};
use super::super::graph::tests::{file, service};
use super::super::{Id, ServiceSettings, ServiceType, Value, Variable};
use super::*;
use crate::config::Restart;

fn value(text: &str) -> Value {
    Value {
        text: text.to_owned(),
        span: 0..0,
    }
}

fn variables(pairs: &[(&str, &str)]) -> Vec<Variable> {
    let pairs = pairs.iter().map(|(key, text)| Variable {
        key: (*key).to_owned(),
        value: value(text),
    });
    pairs.collect()
}

/// A service under construction.
fn one(id: Id, kind: ServiceType, name: &str, settings: &[(&str, &str)]) -> Service {
    let mut one = service(id, kind, &[]);
    name.clone_into(&mut one.name);
    let mut said = ServiceSettings::default();
    for (key, text) in settings {
        let text_of = Some(value(text));
        match *key {
            "image" => said.image = text_of,
            "cmd" => said.cmd = text_of,
            "cpu" => said.cpu = text_of,
            "memory" => said.memory = text_of,
            "restartPolicy" => said.restart_policy = text_of,
            "staticPath" => said.static_path = text_of,
            "commandPort" => said.command_port = text.parse().ok(),
            "publicNet" => said.public_net = text.parse().ok(),
            other => panic!("{other}"),
        }
    }
    one.settings = said;
    one
}

fn with(mut service: Service, vars: &[(&str, &str)], secrets: &[(&str, &str)]) -> Service {
    service.vars = variables(vars);
    service.secrets = variables(secrets);
    service
}

fn api(settings: &[(&str, &str)]) -> Service {
    let usual = [
        ("image", "${101.outputs.IMAGE_URL}"),
        ("commandPort", "8080"),
        ("publicNet", "true"),
    ];
    one(102, Backend, "api", &[&usual[..], settings].concat())
}

fn db() -> Service {
    one(100, Postgres, "db", &[("image", "postgres:15")])
}

fn build() -> Service {
    one(101, Build, "api-build", &[])
}

struct Asked {
    file: ArambFile,
    only: Option<BTreeSet<usize>>,
    programs: BTreeMap<usize, String>,
}

impl Asked {
    fn of(services: Vec<Service>) -> Self {
        Self {
            file: file(services),
            only: None,
            programs: BTreeMap::new(),
        }
    }

    fn translated(&self) -> Result<Translated, Vec<Fault>> {
        let runs = |position: &usize| self.file.services[*position].kind != Build;
        let all = (0..self.file.services.len()).filter(runs).collect();
        let images = (0..self.file.services.len()).map(|at| (at, format!("shop/build-{at}:abc")));
        translate(&Wanted {
            file: &self.file,
            graph: &Graph::of(&self.file),
            names: &Names::of(&self.file)?,
            services: self.only.as_ref().unwrap_or(&all),
            images: &images.collect(),
            programs: &self.programs,
            host: "localhost",
        })
    }

    fn config(&self) -> Config {
        let mut config = Config {
            control_plane: config::ControlPlane::Embedded,
            ..Config::default()
        };
        self.translated().unwrap().apply(&mut config);
        config
    }
}

fn config(services: Vec<Service>) -> Config {
    Asked::of(services).config()
}

fn refused(services: Vec<Service>) -> Vec<(&'static str, String)> {
    let faults = Asked::of(services).translated().unwrap_err();
    let faults = faults.into_iter().map(|fault| (fault.code, fault.message));
    faults.collect()
}

fn other<'a>(config: &'a Config, name: &str) -> &'a config::Service {
    &config.services.others[&name.parse().unwrap()]
}

#[test]
fn a_backend_with_a_database() {
    let asked = Asked::of(vec![
        db(),
        build(),
        with(
            api(&[
                ("cpu", "500m"),
                ("memory", "256Mi"),
                ("restartPolicy", "on-failure"),
            ]),
            &[("DATABASE_HOST", "${100.outputs.PRIVATE_URL}")],
            &[],
        ),
    ]);
    assert_eq!(asked.translated().unwrap().builds, [(2, 1)].into());
    let config = asked.config();
    let app = config.services.app.as_ref().unwrap();
    assert_eq!(app.depends_on, ["db"]);
    assert_eq!((&app.image, &app.routes), (&None, &None));
    assert_eq!(
        config.env.get("DATABASE_HOST"),
        Some("${services.db.INTERNAL_HOST}")
    );
    assert_eq!(config.health.kind, HealthKind::Tcp);
    assert_eq!(config.deploy.restart, Restart::OnFailure);
    assert_eq!(config.resources.cpus.millis(), Some(500));
    assert!(config.resources.best_effort, "on this machine");
    let db = other(&config, "db");
    assert_eq!(db.image.as_deref(), Some("postgres:15"));
    assert_eq!(db.command, ["postgres", "-p", "${PORT}"]);
    assert_eq!(db.protocol, Protocol::Tcp);
    assert_eq!(db.volumes["db"], "/var/lib/postgresql/data");
    assert_eq!(db.health, None, "as its image says");
}

#[test]
fn what_the_project_says_of_services_does_not_count() {
    let mut config = Config::default();
    config.deploy.release_command = vec!["migrate".to_owned()];
    config.deploy.replicas = 3;
    config
        .services
        .others
        .insert("old".parse().unwrap(), config::Service::default());
    config.env = [("OLD".to_owned(), "1".to_owned())].into_iter().collect();
    config.deploy.strategy = config::Strategy::Recreate;
    let asked = Asked::of(vec![build(), api(&[])]);
    asked.translated().unwrap().apply(&mut config);
    assert_eq!(config.deploy.replicas, 1);
    assert!(config.deploy.release_command.is_empty() && config.env.is_empty());
    assert!(config.services.others.is_empty());
    assert_eq!(config.deploy.strategy, config::Strategy::Recreate);
}

#[test]
fn databases_have_their_command_and_their_folder() {
    for (kind, image, command, folder) in [
        (
            Postgres,
            "postgres:15",
            "postgres -p ${PORT}",
            "/var/lib/postgresql/data",
        ),
        (
            Postgres,
            "postgres:18-alpine",
            "postgres -p ${PORT}",
            "/var/lib/postgresql",
        ),
        (
            Postgres,
            "r:5000/postgres",
            "postgres -p ${PORT}",
            "/var/lib/postgresql",
        ),
        (Redis, "redis:7", "redis-server --port ${PORT}", "/data"),
        (
            Mongodb,
            "mongo:7",
            "mongod --port ${PORT} --bind_ip_all",
            "/data/db",
        ),
    ] {
        let store = one(100, kind, "store", &[("image", image)]);
        let config = config(vec![store, build(), api(&[])]);
        let store = other(&config, "store");
        assert_eq!(store.command.join(" "), command);
        assert_eq!(store.volumes["store"], folder, "{image}");
    }
    let said = one(
        100,
        Redis,
        "store",
        &[
            ("image", "redis:7"),
            ("cmd", "redis-server --port $PORT --save 60 1"),
        ],
    );
    let config = config(vec![said, build(), api(&[])]);
    assert_eq!(
        other(&config, "store").command.join(" "),
        "redis-server --port ${PORT} --save 60 1"
    );
}

#[test]
fn one_public_service_gets_everything_and_others_a_host() {
    let web = one(
        103,
        Frontend,
        "Web_UI",
        &[("image", "nginx:1"), ("publicNet", "true")],
    );
    let worker = one(
        104,
        Backend,
        "worker",
        &[("image", "${101.outputs.IMAGE_URL}")],
    );
    let config = config(vec![web, build(), api(&[]), worker]);
    assert_eq!(config.services.app.as_ref().unwrap().routes, None);
    let routes = &other(&config, "web-ui").routes;
    assert_eq!(routes[0].to_string(), "web-ui.localhost");
    let worker = other(&config, "worker");
    assert_eq!((worker.protocol, &worker.health), (Protocol::None, &None));
    let private = one(102, Backend, "api", &[("image", "nginx:1")]);
    let config = super::tests::config(vec![private]);
    assert_eq!(
        config.services.app.as_ref().unwrap().routes,
        Some(Vec::new())
    );
    assert_eq!(
        config.services.app.as_ref().unwrap().image.as_deref(),
        Some("nginx:1")
    );
    assert_eq!(config.health.kind, HealthKind::Process);
}

/// The value of `KEY` of a service that has it, beside a database and a public backend with these vars and secrets.
fn translated(key: &str, text: &str, is_secret: bool) -> Result<(String, Vec<String>), String> {
    let own = [(key, text)];
    let (vars, secrets) = if is_secret {
        (&[][..], &own[..])
    } else {
        (&own[..], &[][..])
    };
    let asked = Asked::of(vec![
        with(db(), &[("USER", "shop")], &[("PASSWORD", "p$w")]),
        build(),
        with(
            api(&[]),
            &[
                ("LEVEL", "info"),
                ("PORT", "8080"),
                ("DB", "${100.vars.USER}@${100.outputs.PRIVATE_URL}"),
            ],
            &[("KEY", "k:${100.secrets.PASSWORD}")],
        ),
        with(
            one(103, Backend, "worker", &[("image", "nginx:1")]),
            vars,
            secrets,
        ),
        one(104, Redis, "cache", &[("image", "redis:7")]),
    ]);
    let translated = asked
        .translated()
        .map_err(|faults| faults[0].message.clone())?;
    let mut config = Config::default();
    translated.apply(&mut config);
    let value = other(&config, "worker").env.get(key).unwrap().to_owned();
    let named = translated.secrets.0.iter();
    let named = named.filter(|(name, _)| value.contains(name.as_str()));
    let named = named.map(|(name, text)| format!("{name}={text}")).collect();
    Ok((value, named))
}

#[test]
fn values() {
    for (key, text, expected) in [
        ("A", "", ""),
        ("A", "plain $HOME ${HOME} $$ é", "plain $HOME ${HOME} $$ é"),
        ("A", "${102.vars.LEVEL}!", "info!"),
        ("A", "${101.outputs.IMAGE_URL}", "shop/build-1:abc"),
        (
            "A",
            "${102.outputs.PRIVATE_URL}",
            "${services.app.INTERNAL_URL}",
        ),
        (
            "A",
            "${102.outputs.INTERNAL_URL}/v1",
            "${services.app.INTERNAL_URL}/v1",
        ),
        (
            "A",
            "${102.outputs.PUBLIC_URL}/v1",
            "${services.app.PUBLIC_URL}/v1",
        ),
        (
            "A",
            "https://${102.outputs.PUBLIC_URL}/v1",
            "${services.app.PUBLIC_URL}/v1",
        ),
        (
            "A",
            "http://${102.outputs.PUBLIC_URL}:80/v1",
            "${services.app.PUBLIC_URL}/v1",
        ),
        (
            "A",
            "http://${102.outputs.PRIVATE_URL}/v1",
            "http://${services.app.INTERNAL_HOST}:${services.app.INTERNAL_PORT}/v1",
        ),
        (
            "A",
            "ws://${102.outputs.PRIVATE_URL}:8080/v1",
            "ws://${services.app.INTERNAL_HOST}:${services.app.INTERNAL_PORT}/v1",
        ),
        (
            "A",
            "postgres://u:pw@${100.outputs.PRIVATE_URL}:5432/shop",
            "postgres://u:pw@${services.db.INTERNAL_HOST}:${services.db.INTERNAL_PORT}/shop",
        ),
        (
            "A",
            "${100.vars.USER}:x@${100.outputs.PRIVATE_URL}/shop",
            "shop:x@${services.db.INTERNAL_HOST}:${services.db.INTERNAL_PORT}/shop",
        ),
        (
            "A",
            "${100.outputs.PRIVATE_URL}:5432",
            "${services.db.INTERNAL_HOST}:${services.db.INTERNAL_PORT}",
        ),
        (
            "A",
            "${100.outputs.PRIVATE_URL}",
            "postgres://${services.db.INTERNAL_HOST}:${services.db.INTERNAL_PORT}",
        ),
        (
            "A",
            "${104.outputs.PRIVATE_URL}",
            "redis://${services.cache.INTERNAL_HOST}:${services.cache.INTERNAL_PORT}",
        ),
        (
            "DB_HOST",
            "${100.outputs.PRIVATE_URL}",
            "${services.db.INTERNAL_HOST}",
        ),
        (
            "PGHOSTADDR",
            "${102.outputs.PRIVATE_URL}",
            "${services.app.INTERNAL_URL}",
        ),
        (
            "A",
            "${102.vars.DB}",
            "shop@${services.db.INTERNAL_HOST}:${services.db.INTERNAL_PORT}",
        ),
        ("A", "h:${102.vars.PORT}", "h:${services.app.INTERNAL_PORT}"),
        (
            "A",
            "${102.outputs.PUBLIC_URL},${100.outputs.PRIVATE_URL}:1,2",
            "${services.app.PUBLIC_URL},${services.db.INTERNAL_HOST}:${services.db.INTERNAL_PORT},2",
        ),
    ] {
        let (value, secrets) = translated(key, text, false).unwrap();
        assert_eq!((value.as_str(), secrets), (expected, Vec::new()), "{text}");
    }
}

#[test]
fn secrets_are_named_and_kept() {
    for (text, is_secret, expected, kept) in [
        (
            "hunter2",
            true,
            "${secrets.WORKER__A}",
            &["WORKER__A=hunter2"][..],
        ),
        ("", true, "", &[]),
        (
            "${100.secrets.PASSWORD}",
            true,
            "${secrets.DB__PASSWORD}",
            &["DB__PASSWORD=p$w"],
        ),
        (
            "${100.secrets.PASSWORD}",
            false,
            "${secrets.DB__PASSWORD}",
            &["DB__PASSWORD=p$w"],
        ),
        (
            "${102.secrets.KEY}",
            false,
            "${secrets.API__KEY}",
            &["API__KEY=k:p$w"],
        ),
        (
            "u:${100.secrets.PASSWORD}@h",
            false,
            "u:${secrets.DB__PASSWORD}@h",
            &["DB__PASSWORD=p$w"],
        ),
        (
            "u:${100.secrets.PASSWORD}@h",
            true,
            "${secrets.WORKER__A}",
            &["WORKER__A=u:p$w@h"],
        ),
        (
            "${100.vars.USER}",
            true,
            "${secrets.WORKER__A}",
            &["WORKER__A=shop"],
        ),
        (
            "postgres://u:pw@${100.outputs.PRIVATE_URL}:5432/shop",
            true,
            "${secrets.WORKER__1__A}${services.db.INTERNAL_HOST}:${services.db.INTERNAL_PORT}${secrets.WORKER__2__A}",
            &["WORKER__1__A=postgres://u:pw@", "WORKER__2__A=/shop"],
        ),
        (
            "postgres://u:${100.secrets.PASSWORD}@${100.outputs.PRIVATE_URL}:5432",
            false,
            "postgres://u:${secrets.DB__PASSWORD}@${services.db.INTERNAL_HOST}:${services.db.INTERNAL_PORT}",
            &["DB__PASSWORD=p$w"],
        ),
        (
            "redis://${104.outputs.PRIVATE_URL}",
            true,
            "redis://${services.cache.INTERNAL_HOST}:${services.cache.INTERNAL_PORT}",
            &[],
        ),
        // What would mean something to the platform comes out as it is.
        (
            "x ${secrets.Y} ${services.z.PORT}",
            false,
            "${secrets.WORKER__1__A}",
            &["WORKER__1__A=x ${secrets.Y} ${services.z.PORT}"],
        ),
        (
            "https://${102.outputs.PUBLIC_URL}",
            true,
            "${services.app.PUBLIC_URL}",
            &[],
        ),
    ] {
        let (value, secrets) = translated("A", text, is_secret).unwrap();
        assert_eq!(value, expected, "{text}");
        assert_eq!(secrets, kept, "{text}");
    }
}

#[test]
fn values_that_cannot_be() {
    for (text, expected) in [
        (
            "${101.outputs.PRIVATE_URL}",
            "A of `worker` holds an address of `api-build`, which does not run",
        ),
        (
            "${103.outputs.PUBLIC_URL}",
            "A of `worker` holds the public URL of `worker`, which has no `publicNet = true`",
        ),
        (
            "wss://${102.outputs.PUBLIC_URL}",
            "A of `worker` holds the public URL of `api` inside of another URL, and it has a scheme of its own",
        ),
        (
            "${102.vars.NONE}",
            "A of `worker` names NONE of `api`, which has none",
        ),
        (
            "${199.vars.A}",
            "A of `worker` names service 199, which is not there",
        ),
        (
            "${103.vars.A}",
            "A of `worker` goes through more than 64 variables",
        ),
    ] {
        assert_eq!(translated("A", text, false).unwrap_err(), expected);
    }
}

#[test]
fn doubling_ends() {
    let texts: Vec<(String, String)> = (0..60)
        .map(|number| {
            let next = number + 1;
            (
                format!("V{number}"),
                format!("${{102.vars.V{next}}}${{102.vars.V{next}}}"),
            )
        })
        .chain([("V60".to_owned(), String::new())])
        .collect();
    let texts: Vec<_> = texts
        .iter()
        .map(|(key, text)| (key.as_str(), text.as_str()))
        .collect();
    let faults = refused(vec![build(), with(api(&[]), &texts, &[])]);
    assert!(faults[0].1.contains("becomes longer than"), "{faults:?}");
}

#[test]
fn debugging_shows_no_secret() {
    let asked = Asked::of(vec![build(), with(api(&[]), &[], &[("KEY", "hunter2")])]);
    let shown = format!("{:?}", asked.translated().unwrap());
    assert!(
        !shown.contains("hunter2") && shown.contains("API__KEY"),
        "{shown}"
    );
}

#[test]
fn services_may_name_each_other() {
    let web = with(
        one(
            103,
            Frontend,
            "web",
            &[("image", "nginx:1"), ("publicNet", "true")],
        ),
        &[("API", "${102.outputs.PUBLIC_URL}")],
        &[],
    );
    let api = with(api(&[]), &[("WEB", "${103.outputs.PUBLIC_URL}")], &[]);
    let config = config(vec![web, build(), api]);
    assert_eq!(config.env.get("WEB"), Some("${services.web.PUBLIC_URL}"));
    let web = other(&config, "web");
    assert_eq!(web.env.get("API"), Some("${services.app.PUBLIC_URL}"));
    assert_eq!(web.depends_on, ["app"]);
    assert!(config.services.app.as_ref().unwrap().depends_on.is_empty());
}

#[test]
fn commands() {
    let command = |cmd: &str, program: Option<&str>| {
        let mut asked = Asked::of(vec![build(), api(&[("cmd", cmd)])]);
        asked.programs = program
            .map(|program| (0, program.to_owned()))
            .into_iter()
            .collect();
        asked
            .translated()
            .map(|translated| translated.app.command.join("|"))
            .map_err(|faults| faults[0].code)
    };
    assert_eq!(command("npm start", None), Ok("npm|start".to_owned()));
    assert_eq!(command("a && b", None), Ok("sh|-c|a && b".to_owned()));
    assert_eq!(command(" ", None), Ok(String::new()));
    assert_eq!(
        command("shop-api serve $PORT", Some("shop-api")),
        Ok("serve|${PORT}".to_owned())
    );
    assert_eq!(
        command("./bin/shop-api", Some("shop-api")),
        Ok(String::new())
    );
    assert_eq!(
        command("npm start", Some("shop-api")),
        Err("command_not_offered")
    );
    assert_eq!(
        command("shop-api && x", Some("shop-api")),
        Err("command_not_offered")
    );
    assert_eq!(
        command("x ${102.outputs.PUBLIC_URL}", None),
        Err("reference_not_offered")
    );
}

#[test]
fn what_the_platform_does_not_have_is_told_at_once() {
    let bad = with(
        api(&[
            ("cpu", "many"),
            ("memory", "512"),
            ("restartPolicy", "maybe"),
            ("image", "no image!"),
        ]),
        &[("A-B", "1"), ("OK", "${101.outputs.PUBLIC_URL}")],
        &[],
    );
    let codes: Vec<_> = refused(vec![build(), bad])
        .into_iter()
        .map(|(code, _)| code)
        .collect();
    assert_eq!(
        codes,
        [
            "image_invalid",
            "restart_policy_unknown",
            "variable_invalid",
            "reference_not_offered",
            "cpu_invalid",
            "memory_invalid"
        ]
    );
    let faults = refused(vec![
        one(
            100,
            Postgres,
            "db",
            &[("image", "postgres:15"), ("publicNet", "true")],
        ),
        one(101, ArambAgent, "agent", &[]),
        one(102, Template, "template", &[]),
        one(103, Frontend, "web", &[("staticPath", "dist")]),
    ]);
    let codes: Vec<_> = faults.into_iter().map(|(code, _)| code).collect();
    assert_eq!(
        codes,
        [
            "public_not_offered",
            "type_not_offered",
            "type_not_offered",
            "static_not_offered"
        ]
    );
    assert_eq!(refused(vec![db()])[0].0, "app_missing");
}

#[test]
fn ports_of_the_file_are_told_to_be_others() {
    let asked = Asked::of(vec![build(), with(api(&[]), &[("PORT", "8080")], &[])]);
    let translated = asked.translated().unwrap();
    assert_eq!(translated.notes.len(), 1);
    assert_eq!(asked.config().env.get("PORT"), None);
}

#[test]
fn only_what_runs_can_be_named() {
    let worker = with(
        one(103, Backend, "worker", &[("image", "nginx:1")]),
        &[("API", "${102.outputs.PRIVATE_URL}")],
        &[],
    );
    let mut asked = Asked::of(vec![build(), api(&[]), worker, db()]);
    asked.only = Some([2, 3].into());
    let faults = asked.translated().unwrap_err();
    assert_eq!(faults[0].code, "service_not_live");
    asked.only = Some([1, 3].into());
    let config = asked.config();
    assert_eq!(config.services.others.len(), 1);
    // Alone, it finds where it is in `PUBLIC_URL`; in values nothing is replaced.
    let own = with(api(&[]), &[("URL", "${102.outputs.PUBLIC_URL}")], &[]);
    assert_eq!(refused(vec![build(), own])[0].0, "reference_not_offered");
}

//! The services of a release: sections whose names the file chooses, below a section with keys of its own.

use super::*;

const SHOP: &str = r#"
[services.app]
depends_on = ["api"]
routes = []

[services.api]
binary = "shop-api"
routes = ["/api/", "API.example.com/v1"]
secrets = { PGPASSWORD = "DB_PASSWORD" }
env.LEVEL = "info"

[services.api.health]
path = "/health"

[services.worker]

[environments.production.services.api]
replicas = 3
resources.memory = "1G"

[environments.production.services.mailer]
image = "registry.example.com/mailer:2"
"#;

#[test]
fn each_environment_has_its_own() {
    insta::assert_snapshot!(check_file(SHOP), @r#"
    control_plane = "embedded"  # default of environment local
    image.base = "host"  # default of environment local
    image.sbom = false  # default of environment local
    image.provenance = false  # default of environment local
    services.app.depends_on = ["api"]  # .systemprompt/deploy.toml:3
    services.app.routes = []  # .systemprompt/deploy.toml:4
    services.api.binary = "shop-api"  # .systemprompt/deploy.toml:7
    services.api.routes = ["/api/","API.example.com/v1"]  # .systemprompt/deploy.toml:8
    services.api.env.LEVEL = "info"  # .systemprompt/deploy.toml:10
    services.api.secrets.PGPASSWORD = "DB_PASSWORD"  # .systemprompt/deploy.toml:9
    services.api.health.path = "/health"  # .systemprompt/deploy.toml:13
    "#);
    insta::assert_snapshot!(Case {
        file: Some(SHOP),
        environment: Some("production"),
        variables: &[
            ("SYSTEMPROMPT_SERVICES_API_REPLICAS", "5"),
            ("SYSTEMPROMPT_SERVICES_MAILER_ENV_LEVEL", "warn"),
            ("SYSTEMPROMPT_SERVICES_STRANGER_REPLICAS", "2"),
        ],
        ..Case::default()
    }
    .check(), @r#"
    environment = "production"  # flag --environment
    control_plane = "management-api"  # default of environment production
    services.app.depends_on = ["api"]  # .systemprompt/deploy.toml:3
    services.app.routes = []  # .systemprompt/deploy.toml:4
    services.api.binary = "shop-api"  # .systemprompt/deploy.toml:7
    services.api.routes = ["/api/","API.example.com/v1"]  # .systemprompt/deploy.toml:8
    services.api.replicas = 5  # variable SYSTEMPROMPT_SERVICES_API_REPLICAS
    services.api.env.LEVEL = "info"  # .systemprompt/deploy.toml:10
    services.api.secrets.PGPASSWORD = "DB_PASSWORD"  # .systemprompt/deploy.toml:9
    services.api.resources.memory = "1G"  # .systemprompt/deploy.toml:19
    services.api.health.path = "/health"  # .systemprompt/deploy.toml:13
    services.mailer.image = "registry.example.com/mailer:2"  # .systemprompt/deploy.toml:22
    services.mailer.env.LEVEL = "warn"  # variable SYSTEMPROMPT_SERVICES_MAILER_ENV_LEVEL
    "#);
}

#[test]
fn one_that_says_nothing_is_there_with_its_defaults() {
    let settings = Case {
        file: Some(SHOP),
        ..Case::default()
    };
    let settings = settings.resolve().unwrap();
    let names: Vec<_> = settings.config.services.others.keys().collect();
    assert_eq!(
        names.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
        ["api", "worker"]
    );
    let lines = settings.explain().into_iter();
    let lines = lines.filter(|explained| explained.key.starts_with("services.worker"));
    let lines: Vec<_> = lines
        .map(|explained| {
            format!(
                "{} = {}  # {}",
                explained.key, explained.value, explained.origin
            )
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    services.worker.binary = ""  # default
    services.worker.dockerfile = ""  # default
    services.worker.image = ""  # default
    services.worker.command = []  # default
    services.worker.depends_on = []  # default
    services.worker.routes = []  # default
    services.worker.protocol = "none"  # default
    services.worker.replicas = 1  # default
    services.worker.restart = "always"  # default
    services.worker.resources.memory = ""  # default
    services.worker.resources.cpus = 0  # default
    services.worker.resources.pids = 0  # default
    services.worker.resources.read_only = false  # default
    services.worker.resources.best_effort = false  # default
    services.worker.liveness.kind = "none"  # default
    services.worker.liveness.command = []  # default
    services.worker.liveness.path = "/livez"  # default
    services.worker.liveness.interval = "30s"  # default
    services.worker.liveness.timeout = "5s"  # default
    services.worker.liveness.retries = 3  # default
    services.worker.liveness.status = 200  # default
    "#);
}

#[test]
fn everything_wrong_is_said_at_once_with_its_line() {
    insta::assert_snapshot!(check_file(
        r#"
[services]
api = "shop-api"
[services.app]
replicas = 2
dependson = ["db"]
[services.Db]
image = "postgres 16"
[services.db]
imgae = "postgres:16"
image = "postgres 16"
protocol = "udp"
replicas = 0
routes = ["api"]
secrets = { PGPASSWORD = "hunter-2", "1A" = "B" }
[services.db.health]
kind = "grpc"
[environments.production.services.db]
strategy = "canary"
"#
    ), @r#"
    `services.api`: expected a section, found text
     --> .systemprompt/deploy.toml:3:7
      |
    3 | api = "shop-api"
      |       ^^^^^^^^^^
      help: write it as [services.api], with its keys below

    unknown key `replicas` in [services.app]
     --> .systemprompt/deploy.toml:5:1
      |
    5 | replicas = 2
      | ^^^^^^^^
      help: `replicas` is a key of [deploy]

    unknown key `dependson` in [services.app]
     --> .systemprompt/deploy.toml:6:1
      |
    6 | dependson = ["db"]
      | ^^^^^^^^^
      help: did you mean `depends_on`?

    `Db` is no name of a service: a lower-case letter, then at most 29 lower-case letters, digits and single dashes between them
     --> .systemprompt/deploy.toml:7:11
      |
    7 | [services.Db]
      |           ^^

    unknown key `imgae` in [services.db]
      --> .systemprompt/deploy.toml:10:1
       |
    10 | imgae = "postgres:16"
       | ^^^^^
      help: did you mean `image`?

    `services.db.image`: `postgres 16` is no image reference: write it as in `docker.io/library/postgres:16`
      --> .systemprompt/deploy.toml:11:9
       |
    11 | image = "postgres 16"
       |         ^^^^^^^^^^^^^

    `services.db.protocol`: expected one of none, http, tcp, found `udp`
      --> .systemprompt/deploy.toml:12:12
       |
    12 | protocol = "udp"
       |            ^^^^^

    `services.db.replicas`: expected a number from 1 to 100, found 0
      --> .systemprompt/deploy.toml:13:12
       |
    13 | replicas = 0
       |            ^

    `services.db.routes`: `api` is no route: write a path as in `/api`, a host as in `api.example.com` or `*.example.com`, or both as in `api.example.com/v1`
      --> .systemprompt/deploy.toml:14:10
       |
    14 | routes = ["api"]
       |          ^^^^^^^

    `services.db.secrets.PGPASSWORD`: what PGPASSWORD is given is no name of a secret: letters, digits and `_`, no digit first; the secret itself is kept by `cargo xtask secrets set NAME`
      --> .systemprompt/deploy.toml:15:26
       |
    15 | secrets = [redacted]
       |                     ^

    `1A` is no name of a variable: letters, digits and `_`, no digit first
      --> .systemprompt/deploy.toml:15:38
       |
    15 | secrets = [redacted]
       |                     ^

    `services.db.health.kind`: expected one of auto, http, tcp, command, image, process, found `grpc`
      --> .systemprompt/deploy.toml:17:8
       |
    17 | kind = "grpc"
       |        ^^^^^^

    unknown key `strategy` in [environments.production.services.db]
      --> .systemprompt/deploy.toml:19:1
       |
    19 | strategy = "canary"
       | ^^^^^^^^
      help: `strategy` is a key of [environments.production.deploy]
    "#);
    insta::assert_snapshot!(Case {
        file: Some("[services.api]\n"),
        variables: &[("SYSTEMPROMPT_SERVICES_API_REPLICAS", "many")],
        ..Case::default()
    }
    .check(), @r"variable SYSTEMPROMPT_SERVICES_API_REPLICAS: expected a whole number, found `many`");
}

#[test]
fn volumes_have_names_and_places() {
    insta::assert_snapshot!(check_file(
        r#"
[services.db]
volumes = { Data = "/data", data = "data", more = "/more", root = "/" }
"#
    ), @r#"
    `Data` is no name of a volume: a lower-case letter, then at most 29 lower-case letters, digits and single dashes between them
     --> .systemprompt/deploy.toml:3:13
      |
    3 | volumes = { Data = "/data", data = "data", more = "/more", root = "/" }
      |             ^^^^

    `services.db.volumes.data`: `data` is no place for a volume: an absolute path below `/`
     --> .systemprompt/deploy.toml:3:36
      |
    3 | volumes = { Data = "/data", data = "data", more = "/more", root = "/" }
      |                                    ^^^^^^

    `services.db.volumes.root`: `/` is no place for a volume: an absolute path below `/`
     --> .systemprompt/deploy.toml:3:67
      |
    3 | volumes = { Data = "/data", data = "data", more = "/more", root = "/" }
      |                                                                   ^^^
    "#);
}

#[test]
fn a_variable_that_means_two_keys_is_refused() {
    insta::assert_snapshot!(Case {
        file: Some("[services.api]\n[services.api-env]\n"),
        variables: &[
            ("SYSTEMPROMPT_SERVICES_API_ENV_BINARY", "shop-api"),
            ("SYSTEMPROMPT_SERVICES_API_BINARY", "shop-api"),
        ],
        ..Case::default()
    }
    .check(), @r"
    variable SYSTEMPROMPT_SERVICES_API_ENV_BINARY: it means both `services.api.env.BINARY` and `services.api-env.binary`
      help: set them in .systemprompt/deploy.toml, or give one of the services another name
    ");
}

#[test]
fn a_volume_is_at_no_place_of_the_system() {
    for path in ["/proc", "//sys/fs", "/dev/shm", "/data/../etc", "/./data"] {
        let said = check_file(&format!("[services.db.volumes]\ndata = \"{path}\"\n"));
        assert!(
            said.contains("is no place for a volume: it is not"),
            "{said}"
        );
    }
    let sound = check_file("[services.db.volumes]\ndata = \"/var/lib/..data/dev\"\n");
    assert!(sound.contains("services.db.volumes.data"), "{sound}");
    assert!(!sound.contains("no place"), "{sound}");
}

/// Where the name of a secret belongs, people write the secret itself, in every way that TOML has.
#[test]
fn a_secret_in_the_place_of_its_name_is_not_shown() {
    for wrong in [
        "[services.db.secrets]\nDATABASE_URL = \"hunter 2\"\n",
        "[services.db.secrets]\n# which is\n\nPIN = 2222222\n",
        "[services.db.secrets]\nPIN = hunter 2\n",
        "[services.db]\nsecrets.PIN = \"hunter 2\"\n",
        "[services.db]\nsecrets . \"PIN\" = \"hunter 2\"\n",
        "[services]\ndb = { image = \"db:1\", secrets.PIN = \"hunter 2\" }\n",
        "[environments.production.services.db.secrets]\nPIN = \"hunter 2\"\n",
    ] {
        let said = check_file(wrong);
        assert!(said.contains(" --> .systemprompt/deploy.toml:"), "{said}");
        assert!(!said.contains("hunter") && !said.contains("2222"), "{said}");
    }
    let other = check_file("[services.db.secrets]\nA = \"B\"\n[services.db.env]\nLEVEL = 5\n");
    assert!(other.contains("4 | LEVEL = 5"), "{other}");
}

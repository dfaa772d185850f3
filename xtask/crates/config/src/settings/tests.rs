//! Text in, values with origins or errors out.

mod refused;
mod services;

use std::path::Path;

use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// What the layers say; a field left out says nothing.
#[derive(Clone, Default)]
struct Case<'a> {
    file: Option<&'a str>,
    environment: Option<&'a str>,
    variables: &'a [(&'a str, &'a str)],
    flags: &'a [(&'a str, &'a str)],
}

impl Case<'_> {
    fn resolve(&self) -> Result<Settings, SettingsError> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut overrides = Overrides::new(self.variables.iter().map(owned));
        if let Some(name) = self.environment {
            overrides.environment("--environment", name);
        }
        for (key, value) in self.flags {
            let flag = format!("--{}", key.rsplit('.').next().unwrap_or(key));
            overrides.set(flag, *key, *value);
        }
        Settings::resolve(Path::new("/project"), self.file, &overrides)
    }

    /// Every value that is not a plain default, or the errors.
    fn check(&self) -> String {
        match self.resolve() {
            Ok(settings) => said(&settings).join("\n"),
            Err(error) => error.to_string(),
        }
    }
}

fn said(settings: &Settings) -> Vec<String> {
    settings
        .explain()
        .into_iter()
        .filter(|explained| explained.origin != Origin::Default)
        .map(|Explained { key, value, origin }| format!("{key} = {value}  # {origin}"))
        .collect()
}

fn check_file(file: &str) -> String {
    Case {
        file: Some(file),
        ..Case::default()
    }
    .check()
}

#[test]
fn no_file_at_all() {
    let settings = Case::default().resolve().unwrap();
    assert_eq!(settings.environment.as_str(), "local");
    assert_eq!(settings.environment_origin, Origin::Default);
    insta::assert_snapshot!(said(&settings).join("\n"), @r#"
    control_plane = "embedded"  # default of environment local
    image.base = "host"  # default of environment local
    image.sbom = false  # default of environment local
    image.provenance = false  # default of environment local
    "#);
    let names: Vec<_> = settings
        .environments
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(names, ["local", "production", "sandbox"]);
}

#[test]
fn every_key_has_a_default() {
    let explained = Case::default().resolve().unwrap().explain();
    let lines = explained
        .into_iter()
        .map(|Explained { key, value, .. }| format!("{key} = {value}"));
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"), @r#"
    environment = "local"
    control_plane = "embedded"
    build.profile = "release"
    build.locked = false
    build.packages = []
    build.manifests = []
    build.web = "core/web"
    image.dockerfile = ".systemprompt/Dockerfile"
    image.context = "."
    image.base = "host"
    image.platform = ""
    image.check_libraries = true
    image.builder = "auto"
    image.compression = "auto"
    image.compression_level = 0
    image.repository = ""
    image.allow_secrets = []
    image.sbom = false
    image.provenance = false
    image.signing_key_file = ""
    deploy.strategy = "rolling"
    deploy.release_command = []
    deploy.replicas = 1
    deploy.restart = "always"
    deploy.timeout = "5m"
    deploy.require_clean = false
    deploy.require_env = []
    deploy.wait = true
    rollout.max_surge = 1
    rollout.max_unavailable = 0
    rollout.batch_pause = "0s"
    rollout.bake = "0s"
    rollout.keep_warm = "5m"
    rollout.steps = ["10% 30s","50% 30s"]
    analysis.min_requests = 20
    analysis.max_error_percent = 5
    analysis.max_p95 = "1s"
    analysis.max_p95_ratio = 3
    analysis.log_patterns = []
    analysis.synthetic = true
    resources.memory = ""
    resources.cpus = 0
    resources.pids = 0
    resources.read_only = false
    resources.best_effort = false
    health.kind = "http"
    health.command = []
    health.path = "/api/v1/health"
    health.interval = "30s"
    health.timeout = "5s"
    health.start_period = "1m"
    health.retries = 3
    health.status = 200
    health.body = ""
    liveness.kind = "none"
    liveness.command = []
    liveness.path = "/livez"
    liveness.interval = "30s"
    liveness.timeout = "5s"
    liveness.retries = 3
    liveness.status = 200
    api.url = "https://api.systemprompt.io"
    api.tenant_id = ""
    api.auth = "auto"
    api.insecure_registries = []
    api.ca_file = ""
    api.registry_ca_file = ""
    local.server = ""
    local.listen = ""
    local.insecure = false
    "#);
}

#[test]
fn the_builtin_environments() {
    let sandbox = Case {
        environment: Some("sandbox"),
        ..Case::default()
    };
    insta::assert_snapshot!(sandbox.check(), @r#"
    environment = "sandbox"  # flag --environment
    control_plane = "management-api"  # default of environment sandbox
    api.url = "https://api-sandbox.systemprompt.io"  # default of environment sandbox
    "#);
    let production = Case {
        environment: Some("production"),
        file: Some("[api]\nurl = \"https://platform.example.org\"\n"),
        ..Case::default()
    };
    insta::assert_snapshot!(production.check(), @r#"
    environment = "production"  # flag --environment
    control_plane = "management-api"  # default of environment production
    api.url = "https://platform.example.org"  # .systemprompt/deploy.toml:2
    "#);
}

const LAYERS: &str = r#"
default_environment = "staging"
[deploy]
timeout = "1m"
strategy = "canary"
require_env = ["A", "B"]
[env]
LOG = "info"
API_TOKEN = "hunter2"
DATABASE_URL = "postgres://u:hunter2@db/app"
[environments.staging]
api.url = "https://staging.example.org/"
[environments.staging.deploy]
strategy = "recreate"
require_env = []
[environments.staging.env]
LOG = "debug"
[environments.other.deploy]
wait = false
"#;

#[test]
fn layers() {
    insta::assert_snapshot!(check_file(LAYERS), @r#"
    environment = "staging"  # .systemprompt/deploy.toml:2
    deploy.strategy = "recreate"  # .systemprompt/deploy.toml:14
    deploy.timeout = "1m"  # .systemprompt/deploy.toml:4
    deploy.require_env = []  # .systemprompt/deploy.toml:15
    api.url = "https://staging.example.org/"  # .systemprompt/deploy.toml:12
    env.API_TOKEN = "[redacted]"  # .systemprompt/deploy.toml:9
    env.DATABASE_URL = "postgres://[redacted]@db/app"  # .systemprompt/deploy.toml:10
    env.LOG = "debug"  # .systemprompt/deploy.toml:17
    "#);
    let case = Case {
        file: Some(LAYERS),
        environment: Some("other"),
        variables: &[
            ("SYSTEMPROMPT_ENVIRONMENT", "staging"),
            ("SYSTEMPROMPT_DEPLOY_TIMEOUT", "2m"),
            ("SYSTEMPROMPT_TENANT_ID", "ten-1"),
            ("SYSTEMPROMPT_ENV_LOG", "trace"),
            ("SYSTEMPROMPT_SOMETHING", "else"),
        ],
        flags: &[("deploy.timeout", "3m"), ("build.packages", "a,b")],
    };
    insta::assert_snapshot!(case.check(), @r#"
    environment = "other"  # flag --environment
    build.packages = ["a","b"]  # flag --packages
    deploy.strategy = "canary"  # .systemprompt/deploy.toml:5
    deploy.timeout = "3m"  # flag --timeout
    deploy.require_env = ["A","B"]  # .systemprompt/deploy.toml:6
    deploy.wait = false  # .systemprompt/deploy.toml:19
    api.tenant_id = "ten-1"  # variable SYSTEMPROMPT_TENANT_ID
    env.API_TOKEN = "[redacted]"  # .systemprompt/deploy.toml:9
    env.DATABASE_URL = "postgres://[redacted]@db/app"  # .systemprompt/deploy.toml:10
    env.LOG = "trace"  # variable SYSTEMPROMPT_ENV_LOG
    "#);
}

#[test]
fn values_are_typed() {
    let settings = Case {
        file: Some(LAYERS),
        ..Case::default()
    }
    .resolve()
    .unwrap();
    assert_eq!(settings.config.deploy.timeout.as_millis(), 60_000);
    assert_eq!(
        settings.config.api.url.as_str(),
        "https://staging.example.org"
    );
    assert_eq!(settings.config.env.get("API_TOKEN"), Some("hunter2"));
    assert_eq!(
        settings.origin("deploy.timeout").unwrap().to_string(),
        ".systemprompt/deploy.toml:4"
    );
    assert_eq!(settings.origin("deploy"), None);
    assert!(!format!("{settings:?}").contains("hunter2"));
}

#[test]
fn an_environment_can_take_a_value_back() {
    let file = "api.tenant_id = \"ten-1\"\nenvironments.local.api.tenant_id = \"\"\n";
    let case = Case {
        file: Some(file),
        ..Case::default()
    };
    assert_eq!(case.resolve().unwrap().config.api.tenant_id, None);
}

#[test]
fn the_variable_chooses_the_environment() {
    let case = Case {
        variables: &[("SYSTEMPROMPT_ENVIRONMENT", "production")],
        ..Case::default()
    };
    insta::assert_snapshot!(case.check(), @r#"
    environment = "production"  # variable SYSTEMPROMPT_ENVIRONMENT
    control_plane = "management-api"  # default of environment production
    "#);
}

#[test]
fn an_empty_section_makes_an_environment() {
    let case = Case {
        file: Some("[environments.staging]\n"),
        environment: Some("staging"),
        ..Case::default()
    };
    assert_eq!(
        case.check(),
        r#"environment = "staging"  # flag --environment"#
    );
}

#[test]
fn unknown_environments() {
    let case = |environment, file| Case {
        file,
        environment,
        ..Case::default()
    };
    insta::assert_snapshot!(case(Some("prodution"), None).check(), @r"
    flag --environment: unknown environment `prodution`
      help: did you mean `production`?
    ");
    insta::assert_snapshot!(case(Some("staging"), None).check(), @r"
    flag --environment: unknown environment `staging`
      help: known are local, production, sandbox; another is made by a section [environments.staging] in .systemprompt/deploy.toml
    ");
    insta::assert_snapshot!(case(None, Some("default_environment = \"staging\"")).check(), @r#"
    unknown environment `staging`
     --> .systemprompt/deploy.toml:1:23
      |
    1 | default_environment = "staging"
      |                       ^^^^^^^^^
      help: known are local, production, sandbox; another is made by a section [environments.staging] in .systemprompt/deploy.toml
    "#);
}

#[test]
fn no_secret_is_in_an_error() {
    let text = check_file(
        "[env]\nAPI_TOKEN = [\"hunter2\"]\nDATABASE_URL = [\"postgres://u:hunter2@db\"]\n\
         A_KEY = \"hunter2\n",
    );
    assert!(!text.contains("hunter2"), "{text}");
    let text = check_file("[env]\nAPI_TOKEN = [\"hunter2\"]\nB_SECRET = 12345\n");
    assert!(
        text.contains("API_TOKEN") && text.contains("B_SECRET"),
        "{text}"
    );
    assert!(
        !text.contains("hunter2") && !text.contains("12345"),
        "{text}"
    );
}

#[test]
fn all_sources_are_judged_at_once() {
    let case = Case {
        file: Some("[deploy]\ntimout = \"5m\"\n"),
        environment: Some("nowhere"),
        variables: &[
            ("SYSTEMPROMPT_DEPLOY_TIMEOUT", "soon"),
            ("SYSTEMPROMPT_ENV_1A", "x"),
        ],
        flags: &[
            ("deploy.strategy", "big-bang"),
            ("deploy.timout", "5m"),
            ("health.path", "x"),
        ],
    };
    insta::assert_snapshot!(case.check(), @r#"
    unknown key `timout` in [deploy]
     --> .systemprompt/deploy.toml:2:1
      |
    2 | timout = "5m"
      | ^^^^^^
      help: did you mean `timeout`?

    variable SYSTEMPROMPT_DEPLOY_TIMEOUT: `soon` is not a length of time: write whole numbers with d, h, m, s or ms, the longest unit first, as in `30s`, `1500ms` or `1h30m`

    variable SYSTEMPROMPT_ENV_1A: `1A` is no name of a variable: letters, digits and `_`, no digit first

    flag --strategy: expected one of rolling, blue-green, canary, recreate, found `big-bang`

    flag --timout: unknown key `deploy.timout`
      help: did you mean `deploy.timeout`?

    flag --path: expected a path that begins with `/` and holds no space

    flag --environment: unknown environment `nowhere`
      help: known are local, production, sandbox; another is made by a section [environments.nowhere] in .systemprompt/deploy.toml
    "#);
}

#[test]
fn options_may_be_typed() {
    let mut overrides = Overrides::default();
    overrides
        .set("--no-wait", "deploy.wait", false)
        .set("--retries", "health.retries", 7)
        .set("-p", "build.packages", vec!["a", "b"])
        .set_some("--timeout", "deploy.timeout", None::<&str>)
        .set("--set", "deploy.locked", true);
    let error = Settings::resolve(Path::new("/"), None, &overrides).unwrap_err();
    assert_eq!(error.to_string(), "flag --set: unknown key `deploy.locked`");
    overrides.flags.pop();
    let settings = Settings::resolve(Path::new("/"), None, &overrides).unwrap();
    assert!(!settings.config.deploy.wait);
    assert_eq!(settings.config.health.retries, 7);
    assert_eq!(settings.config.build.packages, ["a", "b"]);
}

#[test]
fn a_file_that_cannot_be_read() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join(project::DEPLOY_TOML)).unwrap();
    let error = Settings::load(root.path(), &Overrides::default()).unwrap_err();
    assert!(matches!(error, SettingsError::Read { .. }), "{error}");
}

#[test]
fn the_committed_file_loads() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    for environment in ["local", "sandbox", "production"] {
        let mut overrides = Overrides::default();
        overrides.environment("--environment", environment);
        let settings = Settings::load(&root, &overrides).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(settings.environment.as_str(), environment);
        assert!(root.join(&settings.config.image.dockerfile).exists());
    }
}

/// The layers that can set a key, weakest first.
const SOURCES: usize = 4;

/// For each source, whether it sets the key; the value it gives says which it is.
fn layered(key: &str, says: [bool; SOURCES]) -> Result<Settings, SettingsError> {
    let [section, name] = [key.split('.').next(), key.split('.').next_back()].map(Option::unwrap);
    let general = format!("[{section}]\n{name} = \"v0\"\n");
    let environment = format!("[environments.local.{section}]\n{name} = \"v1\"\n");
    let file: String = [says[0].then_some(general), says[1].then_some(environment)]
        .into_iter()
        .flatten()
        .collect();
    let variable = (crate::variable_of(key), "v2".to_owned());
    let mut overrides = Overrides::new(says[2].then_some(variable));
    overrides.set_some("--flag", key, says[3].then_some("v3"));
    Settings::resolve(Path::new("/"), Some(&file), &overrides)
}

proptest! {
    #[test]
    fn the_strongest_layer_wins(
        key in prop::sample::select(vec!["api.tenant_id", "image.repository", "env.LOG", "build.profile"]),
        says: [bool; SOURCES],
    ) {
        let settings = layered(key, says).unwrap();
        let strongest = says.iter().rposition(|said| *said);
        let found = settings.explain().into_iter().find(|explained| explained.key == key);
        match (strongest, found) {
            (Some(layer), Some(found)) => {
                prop_assert_eq!(found.value, Value::from(format!("v{layer}")));
                let expected = match layer {
                    3 => Origin::Flag("--flag".to_owned()),
                    2 => Origin::Variable(crate::variable_of(key)),
                    _ => Origin::File {
                        path: project::DEPLOY_TOML.into(),
                        line: if layer == 1 && says[0] { 4 } else { 2 },
                    },
                };
                prop_assert_eq!(found.origin, expected);
            }
            (None, Some(found)) => prop_assert_eq!(found.origin, Origin::Default),
            (None, None) => prop_assert_eq!(key, "env.LOG"),
            (Some(_), None) => prop_assert!(false, "{} has no value", key),
        }
    }

    #[test]
    fn no_file_panics(text in "[\\[\\]a-z=\"'.,{}#\n\t 0-9é_-]{0,80}") {
        let overrides = Overrides::default();
        if let Err(error) = Settings::resolve(Path::new("/"), Some(&text), &overrides) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn no_change_of_the_committed_file_panics(at in 0_usize..4000, with in "[\\[\\]=\"'.\n x-]{0,3}") {
        let mut text = include_str!("../../../../../.systemprompt/deploy.toml").to_owned();
        let mut at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        text.insert_str(at, &with);
        let _ = Settings::resolve(Path::new("/"), Some(&text), &Overrides::default());
    }
}

#[test]
fn limits_are_read_from_files_and_variables() {
    let case = Case {
        file: Some("[resources]\nmemory = \"512M\"\ncpus = 1.5\npids = 256\n"),
        variables: &[
            ("SYSTEMPROMPT_RESOURCES_CPUS", "2"),
            ("SYSTEMPROMPT_RESOURCES_READ_ONLY", "true"),
        ],
        ..Case::default()
    };
    let resources = case.resolve().unwrap().config.resources;
    assert_eq!(
        resources.memory.map(deploy_plan::config::Memory::bytes),
        Some(512 << 20)
    );
    assert_eq!(resources.cpus.millis(), Some(2000));
    assert_eq!((resources.pids, resources.read_only), (256, true));
    let half = check_file("[resources]\ncpus = 0.5\n");
    assert!(half.contains("resources.cpus = 0.5"), "{half}");
    let none = check_file("[resources]\ncpus = 2\nmemory = \"\"\n");
    assert!(none.contains("resources.cpus = 2.0 "), "{none}");
}

#[test]
fn limits_that_are_none_are_refused_with_the_form() {
    for (file, expected) in [
        ("memory = \"512\"", "as in `512M`"),
        ("memory = 512", "expected text in quotes, found a number"),
        ("cpus = -1", "as in 1.5"),
        ("cpus = nan", "`nan` is no number that can be handled"),
        ("cpus = \"1\"", "expected a number"),
        ("pids = 1.5", "expected a whole number, found a fraction"),
    ] {
        let refused = check_file(&format!("[resources]\n{file}\n"));
        assert!(refused.contains(expected), "{file}: {refused}");
    }
}

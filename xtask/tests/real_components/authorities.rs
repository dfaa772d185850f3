//! A registry and a Management API whose certificates come from a private authority.

use std::fs;

use testkit::base::{BaseImage, Files};
use testkit::management::Variant;
use testkit::{Authority, Finished, Secured, Tunnel};

use crate::world::{World, assert_failed};

/// What the registry is called; a proxy of the environment leads to it.
const REGISTRY: &str = "registry.test:8443";

/// A project whose Management API and registry speak TLS.
struct Private {
    world: World,
    authority: Authority,
    api: Secured,
    tunnel: Tunnel,
    // Behind the tunnel.
    _registry: Secured,
}

impl Private {
    fn new() -> Self {
        let world = World::with_registry_named(Variant::Current, REGISTRY);
        let authority = Authority::new();
        let registry = Secured::before(world.proxy.address(), &authority);
        let api = Secured::before(world.api.address(), &authority);
        fs::copy(
            authority.certificate(),
            world.workspace.root().join("authority.pem"),
        )
        .unwrap();
        Self {
            tunnel: Tunnel::to(registry.address()),
            world,
            authority,
            api,
            _registry: registry,
        }
    }

    /// A deployment with these keys of the configuration.
    fn deploy(&self, keys: &[(&str, &str)]) -> Finished {
        let (api, proxy) = (self.api.url(), self.tunnel.url());
        let common = [
            ("SYSTEMPROMPT_API_URL", api.as_str()),
            ("HTTPS_PROXY", proxy.as_str()),
            ("NO_PROXY", "127.0.0.1,localhost"),
        ];
        let variables = [&common[..], keys].concat();
        let deploy = ["deploy", "-e", "production", "--output", "json"];
        self.world.run_with(&deploy, &variables)
    }

    /// Whether anything but a question came to the registry.
    fn sent_nothing(&self) -> bool {
        let exchanges = self.world.proxy.exchanges();
        exchanges
            .iter()
            .all(|e| matches!(e.request.method.as_str(), "GET" | "HEAD"))
    }
}

const API: (&str, &str) = ("SYSTEMPROMPT_API_CA_FILE", "authority.pem");
const REGISTRIES: (&str, &str) = ("SYSTEMPROMPT_API_REGISTRY_CA_FILE", "authority.pem");

#[test]
fn what_the_settings_name_is_believed() {
    let private = Private::new();
    let deployed = private.deploy(&[API, REGISTRIES]);
    deployed.expect_success();
    let tag = deployed.json()["tag"].as_str().unwrap().to_owned();
    assert!(private.world.has_tag(&tag));
    let targets = private.tunnel.targets();
    assert!(
        targets.iter().all(|target| target == REGISTRY),
        "{targets:?}"
    );
    private.world.assert_nothing_leaked();
}

/// The certificates of the settings are believed besides those of the variable.
#[test]
fn the_variable_and_the_settings_count_both() {
    let private = Private::new();
    let stranger = Authority::new();
    let own = stranger.certificate();
    let variable = ("SSL_CERT_FILE", own.to_str().unwrap());
    let failed = private.deploy(&[API, variable]);
    assert_failed(&failed, 6, "push", "registry_untrusted");
    private
        .deploy(&[API, REGISTRIES, variable])
        .expect_success();
    let own = private.authority.certificate();
    let variable = ("SSL_CERT_FILE", own.to_str().unwrap());
    private.world.change_a_file("changed");
    private.deploy(&[variable]).expect_success();
}

#[test]
fn without_them_the_failure_names_the_setting() {
    let private = Private::new();
    let failed = assert_failed(&private.deploy(&[REGISTRIES]), 1, "token", "api_untrusted");
    assert!(
        failed.resolution.contains("api.ca_file"),
        "{}",
        failed.resolution
    );
    // Not one word was said to a stranger.
    assert!(private.world.api.exchanges().is_empty());
    let failed = assert_failed(&private.deploy(&[API]), 6, "push", "registry_untrusted");
    for part in ["api.registry_ca_file", "SSL_CERT_FILE"] {
        assert!(failed.resolution.contains(part), "{}", failed.resolution);
    }
    assert!(private.world.proxy.exchanges().is_empty());
}

#[test]
fn a_file_that_cannot_be_used_is_found_before_anything_is_built() {
    let private = Private::new();
    let workspace = &private.world.workspace;
    let key = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIGQ=\n-----END PRIVATE KEY-----\n";
    workspace.write("key.pem", key);
    workspace.write("text.pem", "no certificate");
    workspace.write(
        "broken.pem",
        "-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n",
    );
    let files = [
        ("nowhere.pem", "ca_file_missing", "cannot read"),
        ("text.pem", "ca_file_invalid", "is not in PEM"),
        ("broken.pem", "ca_file_invalid", "is broken PEM"),
        ("key.pem", "ca_file_invalid", "holds no certificate"),
    ];
    for (file, code, words) in files {
        for (variable, setting) in [
            (API.0, "api.ca_file"),
            (REGISTRIES.0, "api.registry_ca_file"),
        ] {
            let other = if variable == API.0 { REGISTRIES } else { API };
            let finished = private.deploy(&[other, (variable, file)]);
            let failed = assert_failed(&finished, 3, "preflight", code);
            assert!(failed.others.is_empty(), "{finished}");
            assert!(failed.details.starts_with(setting), "{finished}");
            assert!(failed.details.contains(words), "{finished}");
            assert!(failed.resolution.contains(setting), "{finished}");
            assert!(!finished.stderr.contains("Compiling"), "{finished}");
        }
    }
    assert!(private.sent_nothing());
}

#[test]
fn a_base_image_and_its_pin_come_from_there_too() {
    let private = Private::new();
    let world = &private.world;
    let files = Files::default().file("etc/motd", "hello");
    BaseImage::default()
        .layer(&files)
        .push(&world.registry, "base", "1");
    let from = format!("FROM {REGISTRY}/base:1");
    world
        .workspace
        .edit(".systemprompt/Dockerfile", "FROM scratch", &from);
    let proxy = private.tunnel.url();
    let lock = |keys: &[(&str, &str)]| {
        let variables = [&[("HTTPS_PROXY", proxy.as_str())], keys].concat();
        world.run_with(&["lock", "-e", "production"], &variables)
    };
    // The registry wants a password for which nobody is logged in: but it was believed.
    lock(&[]).expect_stderr("api.registry_ca_file");
    lock(&[REGISTRIES]).expect_stderr("docker login");
    lock(&[(REGISTRIES.0, "nowhere.pem")]).expect_stderr("api.registry_ca_file: cannot read");
}

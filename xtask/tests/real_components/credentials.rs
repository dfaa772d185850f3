//! Credentials for the registries of base images: Docker's configuration and its credential helpers.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use testkit::base::{BaseImage, Files};
use testkit::management::Variant;
use testkit::{DockerRegistry, Finished, Tunnel, Watch};

use crate::world::{World, assert_failed};

const USER: &str = "reader";
const PASSWORD: &str = "the-password-of-the-base-registry";

/// A project on a base from a registry that wants a password.
struct Guarded {
    world: World,
    registry: DockerRegistry,
}

impl Guarded {
    fn new() -> Self {
        let registry = DockerRegistry::with_password(USER, PASSWORD);
        let files = Files::default().file("etc/motd", "hello");
        BaseImage::default()
            .layer(&files)
            .push(&registry, "base", "1");
        let world = World::new(Variant::Current);
        let from = format!("FROM {}/base:1", registry.host());
        let dockerfile = ".systemprompt/Dockerfile";
        world.workspace.edit(dockerfile, "FROM scratch", &from);
        Self { world, registry }
    }

    /// Writes `~/.docker/config.json`.
    fn configure(&self, text: &str) {
        let folder = self.world.workspace.home().join(".docker");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("config.json"), text).unwrap();
    }

    /// Makes a helper `docker-credential-test`, a shell script.
    fn help(&self, script: &str) {
        self.configure(r#"{"credsStore": "test"}"#);
        let folder = self.world.workspace.home().join("bin");
        fs::create_dir_all(&folder).unwrap();
        let program = folder.join("docker-credential-test");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn deploy(&self) -> Finished {
        self.deploy_with(&[])
    }

    fn deploy_with(&self, more: &[(&str, &str)]) -> Finished {
        let own = self.world.workspace.home().join("bin");
        let path = format!("{}:{}", own.display(), std::env::var("PATH").unwrap());
        let deploy = ["deploy", "-e", "production", "--output", "json"];
        let variables = [&[("PATH", path.as_str())], more].concat();
        self.world.run_with(&deploy, &variables)
    }
}

#[test]
fn a_base_behind_a_password_is_read_with_the_configuration_of_docker() {
    let guarded = Guarded::new();
    let refused = guarded.deploy();
    let failed = assert_failed(&refused, 4, "image", "base_unauthorized");
    assert!(
        failed.resolution.contains("docker login"),
        "{}",
        failed.resolution
    );
    let pair = guarded.registry.encoded_credentials();
    let host = guarded.registry.host();
    guarded.configure(&format!(
        r#"{{"auths": {{"{host}": {{"auth": "{pair}"}}}}}}"#
    ));
    let watch = Watch::over([PASSWORD.to_owned()])
        .allowing(guarded.world.workspace.home().join(".docker/config.json"));
    let deployed = guarded.deploy();
    deployed.expect_success();
    watch.assert_none(
        [deployed.stdout.as_str(), deployed.stderr.as_str()],
        &[guarded.world.workspace.everything()],
    );
}

#[test]
fn the_variable_with_the_configuration_goes_before_the_file() {
    let guarded = Guarded::new();
    let host = guarded.registry.host();
    let pair = guarded.registry.encoded_credentials();
    let document = format!(r#"{{"auths": {{"{host}": {{"auth": "{pair}"}}}}}}"#);
    // What is in the file would be refused.
    guarded.configure(&document.replace(&pair, "bm9ib2R5Om5vdGhpbmc="));
    let watch = Watch::over([PASSWORD.to_owned(), pair]);
    let deployed = guarded.deploy_with(&[("DOCKER_AUTH_CONFIG", &document)]);
    deployed.expect_success();
    watch.assert_none(
        [deployed.stdout.as_str(), deployed.stderr.as_str()],
        &[guarded.world.workspace.everything()],
    );
}

#[test]
fn a_variable_that_cannot_be_read_is_named_without_what_is_in_it() {
    let guarded = Guarded::new();
    let watch = Watch::over([PASSWORD.to_owned()]);
    let text = format!(
        r#"{{"auths": {{"{}": {PASSWORD}}}}}"#,
        guarded.registry.host()
    );
    let refused = guarded.deploy_with(&[("DOCKER_AUTH_CONFIG", &text)]);
    let failed = assert_failed(&refused, 4, "image", "base_unauthorized");
    let words = "DOCKER_AUTH_CONFIG is not a configuration of Docker: line 1";
    assert!(failed.details.contains(words), "{}", failed.details);
    watch.assert_none(
        [refused.stdout.as_str(), refused.stderr.as_str()],
        &[guarded.world.workspace.everything()],
    );
}

#[test]
fn a_helper_is_asked_once_and_only_when_the_registry_is_needed() {
    let guarded = Guarded::new();
    let asked = guarded.world.workspace.home().join("asked");
    guarded.help(&format!(
        "read host; echo \"$1 $host\" >> {}; printf '{{\"Username\":\"%s\",\"Secret\":\"%s\"}}' {USER} {PASSWORD}",
        asked.display()
    ));
    let watch = Watch::over([PASSWORD.to_owned()]).allowing(
        guarded
            .world
            .workspace
            .home()
            .join("bin/docker-credential-test"),
    );
    let deployed = guarded.deploy();
    deployed.expect_success();
    let expected = format!("get {}\n", guarded.registry.host());
    assert_eq!(fs::read_to_string(&asked).unwrap(), expected);
    guarded.world.change_a_file("changed");
    guarded.deploy().expect_success();
    assert_eq!(fs::read_to_string(&asked).unwrap(), expected);
    watch.assert_none(
        [deployed.stdout.as_str(), deployed.stderr.as_str()],
        &[guarded.world.workspace.everything()],
    );
}

#[test]
fn a_helper_that_fails_is_named_when_the_registry_refuses() {
    let guarded = Guarded::new();
    guarded.help("cat > /dev/null; echo 'the keychain is locked'; exit 2");
    let refused = guarded.deploy();
    let failed = assert_failed(&refused, 4, "image", "base_unauthorized");
    for part in ["docker-credential-test", "the keychain is locked"] {
        assert!(failed.details.contains(part), "{}", failed.details);
    }
    refused.expect_stderr("is asked without credentials");
}

#[test]
fn a_helper_that_hangs_is_ended() {
    let guarded = Guarded::new();
    let pid = guarded.world.workspace.home().join("pid");
    guarded.help(&format!("echo $$ > {}; sleep 600", pid.display()));
    let refused = guarded.deploy();
    let failed = assert_failed(&refused, 4, "image", "base_unauthorized");
    assert!(
        failed.details.contains("did not answer within 10 s"),
        "{}",
        failed.details
    );
    let helper = fs::read_to_string(&pid).unwrap();
    assert!(!fs::exists(format!("/proc/{}", helper.trim())).unwrap());
}

#[test]
fn a_proxy_of_the_environment_leads_to_the_registry_of_a_base() {
    let registry = DockerRegistry::open();
    let files = Files::default().file("etc/motd", "hello");
    BaseImage::default()
        .layer(&files)
        .push(&registry, "base", "1");
    let tunnel = Tunnel::to(registry.address());
    let world = World::new(Variant::Current);
    world.workspace.edit(
        ".systemprompt/Dockerfile",
        "FROM scratch",
        "FROM registry.test:8080/base:1",
    );
    let deploy = ["deploy", "-e", "production", "--output", "json"];
    let proxied = |proxy: &str| {
        let variables = [
            ("HTTP_PROXY", proxy),
            ("NO_PROXY", "127.0.0.1,localhost"),
            ("SYSTEMPROMPT_API_INSECURE_REGISTRIES", "registry.test:8080"),
        ];
        world.run_with(&deploy, &variables)
    };
    proxied(&tunnel.url()).expect_success();
    let targets = tunnel.targets();
    assert!(!targets.is_empty(), "the proxy was not used");
    // Neither the API nor the registry on this machine were looked for through it.
    assert!(
        targets.iter().all(|target| target == "registry.test:8080"),
        "{targets:?}"
    );
}

/// However it is written, and wherever it is repeated.
#[test]
fn a_password_in_the_name_of_an_image_is_repeated_nowhere() {
    let world = World::new(Variant::Current);
    let workspace = &world.workspace;
    let (dockerfile, deploy_toml) = (".systemprompt/Dockerfile", ".systemprompt/deploy.toml");
    workspace.edit(dockerfile, "FROM scratch", "FROM debian:12");
    let sound = [dockerfile, deploy_toml].map(|file| workspace.read(file));
    for name in [
        "https://ada:hunter2@registry.example/team/app:1",
        "ada:hunter2@registry.example/team/app:1",
        "ada:hun@ter2@registry.example/team/app:1",
        "https://hunter2@registry.example/app",
    ] {
        let is_shown = |finished: &Finished| {
            let said = finished.to_string();
            let said = said.replace(&finished.command, "");
            said.contains("hunter2") || said.contains("ter2")
        };
        for (file, text) in [dockerfile, deploy_toml].iter().zip(&sound) {
            workspace.write(file, text);
        }
        for command in [
            &["lock", "--update", name][..],
            &["deploy", "-e", "production", "--base", name],
            &["deploy", "-e", "production", "--base", name, "-o", "json"],
            &["deploy", "-e", "production", "--base", name, "--dry-run"],
            &["deploy", "-e", "production", "--tag", name],
        ] {
            let finished = world.run(command);
            assert_ne!(finished.code(), 0, "{finished}");
            assert!(!is_shown(&finished), "{finished}");
        }
        workspace.edit(dockerfile, "FROM debian:12", &format!("FROM {name}"));
        let service = format!("[services.db]\nimage = \"{name}\"\nprotocol = \"tcp\"\n");
        let image = format!("[image]\nrepository = \"{name}\"\n");
        workspace.write(deploy_toml, &format!("{}\n{image}\n{service}", sound[1]));
        for command in [
            &["deploy", "-e", "production"][..],
            &["deploy", "-e", "production", "-o", "yaml"],
            &["deploy", "-e", "production", "--dry-run"],
            &["doctor", "-e", "production"],
            &["config", "show", "--origin"],
            &["config", "show", "-o", "json"],
            &["lock"],
        ] {
            let finished = world.run(command);
            assert!(!is_shown(&finished), "{finished}");
        }
        let invalid = world.run(&["lock"]);
        invalid
            .expect_code(3)
            .expect_stderr("[redacted]@registry.example/");
        invalid.expect_stderr("a name of an image carries no user");
        invalid.expect_stderr("docker login");
    }
}

#[test]
fn a_password_in_an_address_without_a_scheme_is_repeated_nowhere() {
    let world = World::new(Variant::Current);
    for address in [
        "ada:hunter2@registry.example:5000/name",
        "ada:hunter2@registry.example:5000",
        "ada:hunter2@registry.example",
        "ada:hun@ter2@registry/name",
    ] {
        let host = &address[address.rfind('@').unwrap()..];
        let shown = format!("[redacted]{host}");
        let insecure = [("SYSTEMPROMPT_API_INSECURE_REGISTRIES", address)];
        let registry = world.run_with(&["config", "show"], &insecure);
        assert!(registry.stdout.contains(&shown), "{registry}");
        let locked = world.run(&["lock", "--update", address]);
        locked.expect_code(3).expect_stderr(&shown);
        let tagged = world.run(&["deploy", "-e", "production", "--tag", address]);
        tagged.expect_stderr(&shown);
        let server = world.run_with(&["status"], &[("SYSTEMPROMPT_API_URL", address)]);
        for finished in [&registry, &locked, &tagged, &server] {
            let said = [finished.stdout.as_str(), &finished.stderr].concat();
            assert!(!said.contains("hun") && !said.contains("ter2"), "{said}");
        }
    }
}

//! What an image gets that a real Docker Engine builds: the look for secrets before its push, and
//! its papers after it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use testkit::base::{BaseImage, Files, loader, own_libraries};
use testkit::management::Variant;
use testkit::{DockerEngine, DockerRegistry, Fault, Finished, Rule};

use crate::papers::{KEY, Keys, document, documents, signatures};
use crate::world::{World, assert_failed};

const DOCKERFILE: &str = ".systemprompt/Dockerfile";
/// Puts the beginning back that `services/half.txt` has lost: what a build fetches or makes is in
/// no context.
const RUN: &str = "RUN while IFS= read -r line; do case \"$line\" in @*) line=\"-----${line#@}\";; \
     esac; echo \"$line\"; done < /app/services/half.txt > /app/run.pem";

/// A project whose Dockerfile only an engine can carry out.
struct Project {
    world: World,
    engine: DockerEngine,
    /// With which `docker` finds it.
    variables: Vec<(&'static str, String)>,
    keys: Keys,
    /// Of the base image.
    digest: String,
    base: String,
    _registry: DockerRegistry,
}

impl Project {
    /// On a base with a shell, and with a key: the layers of bases are left to who made them.
    fn new() -> Self {
        let engine = DockerEngine::get();
        let world = World::new(Variant::Current);
        let keys = Keys::new();
        let registry = DockerRegistry::open();
        let digest = BaseImage::default()
            .layer(&shell())
            .layer(&Files::default().file("etc/base.pem", keys.private()))
            .push(&registry, "base", "1");
        let base = format!("{}/base:1", registry.host());
        let from = format!("FROM {base}");
        world.workspace.edit(DOCKERFILE, "FROM scratch", &from);
        let half = keys.private().replace("-----BEGIN", "@BEGIN");
        world.workspace.write("services/half.txt", &half);
        world
            .workspace
            .edit(DOCKERFILE, "\nENV HOST", &format!("{RUN}\n\nENV HOST"));
        Self {
            world,
            variables: vec![("DOCKER_HOST", engine.host().to_owned())],
            engine,
            keys,
            digest,
            base,
            _registry: registry,
        }
    }

    /// The same with `BuildKit`, which keeps base images to itself.
    fn with_buildkit() -> Self {
        let (engine, variables) = DockerEngine::newer();
        let project = Self::new();
        // The tests' engine has no network to give.
        let offline = "RUN --network=none while";
        let workspace = &project.world.workspace;
        workspace.edit(DOCKERFILE, "RUN while", offline);
        Self {
            engine,
            variables: variables.to_vec(),
            ..project
        }
    }

    fn deploy(&self, more: &[(&str, &str)]) -> Finished {
        let engine = self.variables.iter();
        let engine: Vec<_> = engine
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        self.world
            .run_with(&crate::docker::DEPLOY, &[&engine, more].concat())
    }

    /// Takes the images out of the engine, which other tests use as well.
    fn end(self) {
        let (host, repository) = (self.world.proxy.host(), self.world.variant.repository());
        let built = format!("{host}/{repository}:built");
        for image in [&built, &self.base] {
            // Not every engine has both.
            self.engine.docker(["image", "rm", "--force", image]);
        }
        self.world.assert_nothing_leaked();
    }
}

/// `/bin/sh` of this machine with what it needs.
fn shell() -> Files {
    let mut files = Files::default();
    for path in ["/bin/sh", loader()] {
        files = files.of_this_machine(std::path::Path::new(path));
    }
    let libraries = own_libraries();
    let needed = libraries.iter().filter(|path| path.ends_with("libc.so.6"));
    needed.fold(files, |files, path| files.of_this_machine(path))
}

#[test]
fn a_key_that_a_command_makes_is_found_before_the_push() {
    let project = Project::new();
    let finished = project.deploy(&[]);
    let failed = assert_failed(&finished, 3, "image", "secret_in_image");
    let found = "the image would hold secrets:\n/app/run.pem: private key in line 1";
    assert_eq!(failed.details, found, "{finished}");
    let advice = "image.allow_secrets = [\"/app/run.pem\"]";
    assert!(failed.resolution.contains(advice), "{}", failed.resolution);
    let line = project.keys.private().lines().nth(1).unwrap().to_owned();
    for text in [&finished.stdout, &finished.stderr] {
        assert!(!text.contains(&line), "{finished}");
    }
    let sent = project.world.proxy.exchanges();
    assert!(sent.is_empty(), "something was sent");
    assert!(project.world.api.deployed().is_empty());
    project.end();
}

#[test]
fn with_buildkit_the_base_is_known_by_the_lock() {
    let project = Project::with_buildkit();
    let finished = project.deploy(&[]);
    let failed = assert_failed(&finished, 3, "image", "secret_in_image");
    for found in ["/etc/base.pem: private key", "/app/run.pem: private key"] {
        assert!(failed.details.contains(found), "{finished}");
    }
    let lock = ["lock", "-e", "production"];
    project.world.run(&lock).expect_success();
    let finished = project.deploy(&[]);
    let failed = assert_failed(&finished, 3, "image", "secret_in_image");
    assert!(!failed.details.contains("base.pem"), "{finished}");
    assert!(project.world.proxy.exchanges().is_empty());

    let allowed = ("SYSTEMPROMPT_IMAGE_ALLOW_SECRETS", "/app/run.pem");
    let deployed = project.deploy(&[allowed]);
    deployed.expect_success();
    let digest = deployed.json()["digest"].as_str().unwrap().to_owned();
    let statement = document(&project.world, &digest, "application/vnd.in-toto+json");
    let statement = serde_json::from_slice(&statement).unwrap();
    assert_is_about_docker(&project, &statement, &digest);
    project.end();
}

#[test]
fn what_docker_has_pushed_is_described_and_signed() {
    let project = Project::new();
    let (world, keys) = (&project.world, &project.keys);
    let private = keys.private();
    let allowed = ("SYSTEMPROMPT_IMAGE_ALLOW_SECRETS", "/app/*.pem");
    let signed = project.deploy(&[allowed, (KEY, &private)]);
    signed.expect_success();
    for missing in ["not attached", "has no papers", "no list of parts"] {
        assert!(!signed.stderr.contains(missing), "{signed}");
    }
    let digest = signed.json()["digest"].as_str().unwrap().to_owned();
    let repository = world.variant.repository();
    assert_eq!(world.registry.manifest(repository, "built").1, digest);
    assert!(keys.have_signed(world, "built"));
    assert!(!Keys::new().have_signed(world, "built"));

    let sbom = document(world, &digest, "application/vnd.cyclonedx+json");
    let sbom: Value = serde_json::from_slice(&sbom).unwrap();
    let components = sbom["components"].as_array().unwrap();
    assert!(components.iter().any(|c| c["name"] == "systemprompt"));
    let statement = statement(&document(
        world,
        &digest,
        "application/vnd.dsse.envelope.v1+json",
    ));
    assert_is_about_docker(&project, &statement, &digest);

    // Nothing tells whether an earlier run has sent the papers: they are sent again. The list and the
    // signature are there once, and another push is another statement.
    project.deploy(&[allowed, (KEY, &private)]).expect_success();
    assert_eq!(signatures(world, "built").len(), 1);
    assert_eq!(documents(world, &digest).len(), 3);
    project.end();
}

/// The message of an envelope.
fn statement(envelope: &[u8]) -> Value {
    let envelope: Value = serde_json::from_slice(envelope).unwrap();
    let payload = STANDARD.decode(envelope["payload"].as_str().unwrap());
    serde_json::from_slice(&payload.unwrap()).unwrap()
}

#[track_caller]
fn assert_is_about_docker(project: &Project, statement: &Value, digest: &str) {
    let subject = &statement["subject"][0]["digest"]["sha256"];
    assert_eq!(subject, digest.strip_prefix("sha256:").unwrap());
    let predicate = &statement["predicate"];
    let builder = &predicate["runDetails"]["builder"];
    assert!(builder["id"].as_str().unwrap().ends_with("#docker"));
    let version = ["version", "--format", "{{.Server.Version}}"];
    let version = project.engine.docker(version).stdout;
    assert_eq!(builder["version"]["docker"], version.trim());
    let build = &predicate["buildDefinition"];
    assert_eq!(build["externalParameters"]["builder"], "docker");
    let materials = build["resolvedDependencies"].as_array().unwrap();
    let base = materials
        .iter()
        .find(|known| known["name"] == *project.base);
    let base = base.unwrap_or_else(|| panic!("no {} in {materials:?}", project.base));
    let expected = project.digest.strip_prefix("sha256:").unwrap();
    assert_eq!(base["digest"]["sha256"], expected);
}

#[test]
fn what_cannot_be_signed_is_not_deployed_and_what_cannot_be_described_is() {
    let project = Project::new();
    let (world, private) = (&project.world, project.keys.private());
    let plain = [
        ("SYSTEMPROMPT_IMAGE_ALLOW_SECRETS", "/app/run.pem"),
        ("SYSTEMPROMPT_IMAGE_SBOM", "false"),
        ("SYSTEMPROMPT_IMAGE_PROVENANCE", "false"),
    ];
    // Docker puts the first manifest, we the second.
    let refused = Rule::on("PUT", "/v2/*/manifests/*", Fault::Status(403)).nth(2);
    world.proxy.inject(refused);
    let finished = project.deploy(&[&plain[..], &[(KEY, &private)]].concat());
    world.proxy.heal();
    let failed = assert_failed(&finished, 6, "push", "signature_not_sent");
    assert!(failed.resolution.contains("not deployed"), "{finished}");
    assert!(world.has_tag("built") && world.api.deployed().is_empty());

    // Docker pushes without a look at manifests; we look for what it has pushed.
    let refused = Rule::on("HEAD", "/v2/*/manifests/*", Fault::Status(403));
    world.proxy.inject(refused);
    let finished = project.deploy(&plain[..1]);
    world.proxy.heal();
    finished.expect_success();
    let warning = "warning: the image has no papers";
    assert!(finished.stderr.contains(warning), "{finished}");
    project.end();
}

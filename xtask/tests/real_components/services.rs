//! The images of several services in a registry of somebody else: copies of finished ones, and what is asked for it.

use serde_json::Value;
use testkit::base::{BaseImage, Files, push_index};
use testkit::management::Variant;
use testkit::workspace::Layout;
use testkit::{DockerEngine, DockerRegistry, Fault, FaultProxy, Finished, Rule};

use crate::docker;
use crate::papers::{KEY, Keys, documents};
use crate::world::{World, assert_failed, failed};

const DATABASE: &str = "library/db";

/// A finished image of two layers.
fn database() -> BaseImage {
    BaseImage::default()
        .layer(&Files::default().file("etc/db.conf", "port = 1\n"))
        .plain_layer(&Files::default().file("db", vec![7; 100_000]))
}

/// A project with a worker in the image of `app`, one with a binary of its own, and a database from `registry`.
fn shop(registry: &str) -> Layout {
    Layout::configured(&format!(
        "[services.worker]\ncommand = [\"work\"]\nhealth.retries = 5\n\
         [services.tools]\nbinary = \"system-tools\"\nprotocol = \"http\"\nreplicas = 2\n\
         resources.memory = \"64M\"\n\
         [services.db]\nimage = \"{registry}/{DATABASE}:1\"\nprotocol = \"tcp\"\n\
         secrets = {{ PASSWORD = \"DB_PASSWORD\" }}\nhealth.interval = \"2s\"\n\
         volumes = {{ data = \"/var/lib/db\" }}\n"
    ))
}

fn digest_in(registry: &DockerRegistry, repository: &str, reference: &str) -> String {
    let (bytes, _) = registry.manifest_bytes(repository, reference);
    testkit::base::digest(&bytes)
}

/// The methods and paths of blobs and manifests that a registry was asked for.
fn asked(proxy: &FaultProxy, method: &str) -> usize {
    let exchanges = proxy.exchanges();
    exchanges
        .iter()
        .filter(|e| e.request.method == method)
        .count()
}

fn tag(finished: &Finished) -> String {
    finished.json()["tag"].as_str().unwrap().to_owned()
}

#[test]
fn a_finished_image_goes_from_registry_to_registry_as_it_is() {
    let source = DockerRegistry::open();
    let before = FaultProxy::before(source.address());
    let world = World::laid_out(Variant::Services, &shop(&before.host()));
    let ours = database();
    push_index(
        &source,
        DATABASE,
        "1",
        &[ours.clone().for_architecture("s390x"), ours.clone()],
    );
    let wanted = digest_in(&source, DATABASE, &format!("for-{}", ours.architecture()));

    let deployed = world.deploy(&[]);
    deployed.expect_success().expect_stderr("is pinned to");
    let repository = world.variant.repository();
    let copy = format!("db-{}", tag(&deployed));
    assert_eq!(digest_in(&world.registry, repository, &copy), wanted);
    for layer in ours.layer_digests() {
        let (there, here) = (
            source.blob(DATABASE, &layer),
            world.registry.blob(repository, &layer),
        );
        assert_eq!(there, here);
    }

    let request = world.api.requests().pop().unwrap();
    let image = |name: &str| {
        request["services"][name]["image"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(image("worker"), request["image"].as_str().unwrap());
    assert!(image("tools").ends_with(&format!(":tools-{}", tag(&deployed))));
    assert!(image("db").ends_with(&format!(":{copy}")));
    let health = &request["services"]["worker"]["health"];
    let said = [
        &health["kind"],
        &health["retries"],
        &health["start_period_ms"],
    ];
    assert_eq!(said, [&Value::from("process"), &5.into(), &2000.into()]);
    let db = &request["services"]["db"];
    assert_eq!(db["digest"], Value::from(wanted.as_str()));
    assert_eq!(db["secrets"]["PASSWORD"], "DB_PASSWORD");
    assert_eq!(db["volumes"]["data"], "/var/lib/db");
    assert_eq!(
        (&db["health"]["kind"], &db["health"]["interval_ms"]),
        (&"tcp".into(), &2000.into())
    );
    let tools = &request["services"]["tools"];
    assert_eq!(
        (&tools["replicas"], &tools["resources"]["memory_bytes"]),
        (&2.into(), &(64 << 20).into())
    );
    assert_eq!(
        tools["health"],
        Value::Null,
        "the platform knows what it speaks"
    );

    // With the same tag, nothing is sent: a look at each of the three images, whose source is asked nothing.
    before.forget();
    world.proxy.forget();
    let again = world.deploy(&["--tag", &tag(&deployed)]);
    again.expect_success().expect_stderr("nothing sent");
    assert!(before.exchanges().is_empty());
    let heads = world.proxy.exchanges();
    let manifests = heads
        .iter()
        .filter(|e| e.request.path().contains("/manifests/"));
    assert_eq!(manifests.count(), 3, "{again}");
    assert_eq!(asked(&world.proxy, "PUT") + asked(&world.proxy, "POST"), 0);

    // Without a push, all have to be there.
    let there = world.deploy(&["--skip-push", "--tag", &tag(&deployed)]);
    there
        .expect_success()
        .expect_stderr("and 2 images of services");
    let failed = assert_failed(
        &world.deploy(&["--skip-push", "--tag", &copy]),
        6,
        "push",
        "tag_not_found",
    );
    assert!(
        failed.resolution.contains("all its services"),
        "{}",
        failed.resolution
    );
    assert!(
        failed.details.contains("services.db: ") || failed.details.contains("services.tools: ")
    );
    world.assert_nothing_leaked();
}

#[test]
fn app_may_be_a_finished_image_alone() {
    let source = DockerRegistry::open();
    let world = World::laid_out(
        Variant::Services,
        &Layout::configured(&format!(
            "[services.app]\nimage = \"{}/{DATABASE}:1\"\n",
            source.host()
        )),
    );
    let image = database();
    push_index(&source, DATABASE, "1", std::slice::from_ref(&image));
    let wanted = digest_in(&source, DATABASE, &format!("for-{}", image.architecture()));
    let planned = world.run(&["deploy", "-e", "production", "--dry-run"]);
    planned.expect_success();
    assert!(
        planned.stdout.contains("image        a copy of "),
        "{planned}"
    );
    let deployed = world.deploy(&[]);
    deployed.expect_success();
    let request = world.api.requests().pop().unwrap();
    assert_eq!(request["digest"], Value::from(wanted.as_str()));
    let (repository, tag) = (world.variant.repository(), tag(&deployed));
    assert_eq!(digest_in(&world.registry, repository, &tag), wanted);
    assert!(
        !world.workspace.exists("target/release"),
        "nothing is built"
    );
    world.assert_nothing_leaked();
}

#[test]
fn within_a_registry_its_layers_are_mounted() {
    let world = World::open(Variant::Services, &Layout::default());
    let ours = database();
    push_index(&world.registry, DATABASE, "1", std::slice::from_ref(&ours));
    world.workspace.write(
        ".systemprompt/deploy.toml",
        &shop(&world.proxy.host()).configuration,
    );
    world.deploy(&[]).expect_success();
    let put = world.blobs_put();
    for layer in ours.layer_digests() {
        assert!(!put.contains(&layer), "{layer} was sent");
    }
}

#[test]
fn a_finished_image_that_is_not_there_is_told_with_its_service() {
    let source = DockerRegistry::open();
    let world = World::laid_out(Variant::Services, &shop(&source.host()));
    let failed = assert_failed(&world.deploy(&[]), 3, "preflight", "base_not_found");
    assert!(
        !world.workspace.exists("target/release"),
        "nothing is built"
    );
    assert!(
        failed.details.starts_with("services.db: "),
        "{}",
        failed.details
    );
    assert!(world.api.requests().is_empty());
    // As CI has it: nobody has pinned it.
    let image = database();
    push_index(&source, DATABASE, "1", std::slice::from_ref(&image));
    assert_failed(
        &world.deploy(&["--locked"]),
        3,
        "preflight",
        "base_not_locked",
    );
    let locked = world.run(&["lock", "-e", "production"]);
    locked.expect_success();
    assert!(locked.stdout.contains("library/db:1"), "{locked}");
    world.deploy(&["--locked"]).expect_success();
    // What a service stands on is no pin that nobody needs.
    let kept = world.run(&["lock"]);
    kept.expect_success();
    assert!(
        world
            .workspace
            .read(".systemprompt/deploy.lock")
            .contains("library/db:1")
    );
}

/// What has a tag already keeps it until all images of the release are there, and a failure tells which have moved.
#[test]
fn the_tags_of_a_release_move_together() {
    let source = DockerRegistry::open();
    let world = World::laid_out(Variant::Services, &shop(&source.host()));
    push_index(&source, DATABASE, "1", &[database()]);
    world.deploy(&["--tag", "v1"]).expect_success();
    let repository = world.variant.repository();
    let tags =
        || ["v1", "tools-v1", "db-v1"].map(|tag| digest_in(&world.registry, repository, tag));
    let before = tags();

    // Two of three images change.
    world.change_a_file("two");
    let newer = database().layer(&Files::default().file("etc/newer", "2"));
    push_index(&source, DATABASE, "1", std::slice::from_ref(&newer));
    world
        .run(&["lock", "-e", "production", "--update"])
        .expect_success();
    let newer = digest_in(&source, DATABASE, &format!("for-{}", newer.architecture()));
    let again = || world.deploy(&["--skip-build", "--tag", "v1"]);
    let refuse = |manifest: &str| {
        let path = format!("/v2/*/manifests/{manifest}");
        world
            .proxy
            .inject(Rule::on("PUT", &path, Fault::Status(403)).always());
    };

    world.api.forget();
    refuse(&newer);
    let finished = again();
    world.proxy.heal();
    let nothing_moved = failed(&finished);
    assert!(
        nothing_moved.details.starts_with("services.db: "),
        "{finished}"
    );
    assert!(!nothing_moved.details.contains("these tags"), "{finished}");
    assert_eq!(tags(), before, "{finished}");

    refuse("v1");
    let finished = again();
    world.proxy.heal();
    let half = failed(&finished).details;
    assert!(
        half.contains("these tags mean the new images: db-v1;"),
        "{finished}"
    );
    assert!(
        half.ends_with("these mean what they did before: v1"),
        "{finished}"
    );
    assert_eq!(
        tags(),
        [before[0].clone(), before[1].clone(), newer.clone()]
    );
    assert!(world.api.deployed().is_empty(), "{finished}");

    again()
        .expect_success()
        .expect_stderr("1 tag of the release set");
    let after = tags();
    assert_ne!(after[0], before[0]);
    assert_eq!(after[1..], [before[1].clone(), newer]);
    let request = world.api.requests().pop().unwrap();
    assert_eq!(request["digest"], Value::from(after[0].as_str()));
    assert_eq!(
        request["services"]["db"]["digest"],
        Value::from(after[2].as_str())
    );

    // Releases are named, and not what is beside them.
    let unknown = world.deploy(&["--skip-push", "--tag", "v9"]);
    let unknown = assert_failed(&unknown, 6, "push", "tag_not_found");
    assert!(
        unknown.details.ends_with("the latest releases are v1"),
        "{}",
        unknown.details
    );
}

#[test]
fn what_is_made_has_its_papers_and_a_copy_only_a_signature() {
    let source = DockerRegistry::open();
    let world = World::laid_out(Variant::Services, &shop(&source.host()));
    let image = database();
    push_index(&source, DATABASE, "1", std::slice::from_ref(&image));
    let keys = Keys::new();
    let deployed = world.run_with(
        &["deploy", "-e", "production", "--output", "json"],
        &[(KEY, &keys.private())],
    );
    deployed.expect_success();
    let tag = tag(&deployed);
    for tag in [tag.clone(), format!("tools-{tag}"), format!("db-{tag}")] {
        assert!(keys.have_signed(&world, &tag), "{tag}: {deployed}");
    }
    let of = |name: &str| {
        let repository = world.variant.repository();
        digest_in(&world.registry, repository, &format!("{name}-{tag}"))
    };
    let papers = documents(&world, &of("tools"));
    assert_eq!(papers.len(), 2, "a list of parts and a provenance");
    assert!(
        !world.has_tag(&of("db").replace(':', "-")),
        "a copy has none"
    );
}

#[test]
fn an_own_dockerfile_is_built_as_that_of_app_is() {
    let engine = DockerEngine::get();
    let world = World::laid_out(
        Variant::Services,
        &Layout::configured(
            "[services.admin]\ndockerfile = \"admin/Dockerfile\"\nprotocol = \"http\"\n\
             [services.tools]\nbinary = \"system-tools\"\nprotocol = \"http\"\n",
        ),
    );
    world.workspace.write(
        "admin/Dockerfile",
        "FROM scratch\nCOPY services/ /app/services/\nCOPY target/release/systemprompt-admin /app/bin/mcp/\n\
         ENTRYPOINT [\"/app/bin/mcp/systemprompt-admin\"]\n",
    );
    let native = world.deploy(&["--builder", "native", "--tag", "native"]);
    native.expect_success();
    let repository = world.variant.repository();
    let layers = |tag: &str| {
        let (manifest, _) = world.registry.manifest(repository, tag);
        let layers = manifest["layers"].as_array().unwrap().iter();
        layers
            .map(|layer| layer["digest"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let of_app = layers("native");
    let shared = layers("admin-native")
        .into_iter()
        .filter(|layer| of_app.contains(layer));
    assert_eq!(
        shared.count(),
        2,
        "the same folder and the same program are the same layers"
    );

    let built = world.run_with(&docker::DEPLOY, &[("DOCKER_HOST", engine.host())]);
    built.expect_success();
    let request = world.api.requests().pop().unwrap();
    for (name, tag) in [("admin", "admin-built"), ("tools", "tools-built")] {
        let digest = digest_in(&world.registry, repository, tag);
        assert_eq!(request["services"][name]["digest"], Value::from(digest));
    }
    assert_eq!(
        layers("tools-built"),
        layers("tools-native"),
        "nobody but us makes that one"
    );
    assert_ne!(layers("admin-built"), layers("admin-native"));
}

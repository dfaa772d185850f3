//! Images that stand on an image of a registry: what is asked of that registry and when, what is
//! pinned, and what is refused before anything is sent.

use serde_json::Value;
use testkit::base::{BaseImage, Files, library_offering, loader, own_libraries, push_index};
use testkit::management::Variant;
use testkit::workspace::Layout;
use testkit::{DockerRegistry, FaultProxy, Finished};

use crate::papers::document;
use crate::world::{World, assert_failed};

/// A deployment onto a base image from a registry of its own.
struct Based {
    world: World,
    registry: DockerRegistry,
    /// Stands before the registry of the base, and counts.
    proxy: FaultProxy,
}

const LOCK: &str = ".systemprompt/deploy.lock";
const DOCKERFILE: &str = ".systemprompt/Dockerfile";

impl Based {
    fn new(layout: &Layout) -> Self {
        let registry = DockerRegistry::open();
        let proxy = FaultProxy::before(registry.address());
        let world = World::laid_out(Variant::Current, layout);
        world.workspace.edit(
            DOCKERFILE,
            "FROM scratch",
            &format!("FROM {}/base:1", proxy.host()),
        );
        Self {
            world,
            registry,
            proxy,
        }
    }

    /// With programs that run on nothing.
    fn with_static_programs() -> Self {
        Self::new(&Layout::default())
    }

    /// With programs that need a C library.
    fn with_dynamic_programs() -> Self {
        Self::new(&Layout::linked_dynamically())
    }

    fn reference(&self) -> String {
        format!("{}/base:1", self.proxy.host())
    }

    /// How often a blob was fetched from the registry of the base.
    fn fetched(&self, blob: &str) -> usize {
        let exchanges = self.proxy.exchanges();
        let gets = exchanges
            .iter()
            .filter(|e| e.request.method == "GET" && e.request.path().ends_with(blob));
        gets.count()
    }

    /// The layers of the image that was deployed last.
    fn layers(&self, finished: &Finished) -> Vec<String> {
        let report = finished.json();
        let tag = report["tag"].as_str().expect("a tag");
        let repository = self.world.variant.repository();
        let (manifest, _) = self.world.registry.manifest(repository, tag);
        let layers = manifest["layers"].as_array().expect("layers");
        let digests = layers.iter().map(|layer| layer["digest"].as_str().unwrap());
        digests.map(str::to_owned).collect()
    }

    /// Whether anything was sent to where the image goes.
    fn sent_nothing(&self) -> bool {
        let exchanges = self.world.proxy.exchanges();
        exchanges
            .iter()
            .all(|e| matches!(e.request.method.as_str(), "GET" | "HEAD"))
    }
}

/// A small base without libraries.
fn plain(name: &str) -> BaseImage {
    BaseImage::default()
        .layer(
            &Files::default()
                .file("etc/os-release", format!("NAME={name}\n"))
                .file(
                    "etc/passwd",
                    "root:x:0:0::/root:/bin/sh\napp:x:1234:1235::/:\n",
                )
                .file("etc/group", "root:x:0:\nstaff:x:50:\n"),
        )
        .plain_layer(&Files::default().file("etc/motd", name.as_bytes()))
}

/// A base with the loader and the libraries of this machine.
fn furnished() -> BaseImage {
    BaseImage::default().layer(&libraries())
}

fn libraries() -> Files {
    let mut files = Files::default().of_this_machine(std::path::Path::new(loader()));
    for library in own_libraries() {
        files = files.of_this_machine(&library);
    }
    files
}

/// A base with a loader, and a C library that offers only old versions of its symbols.
fn old() -> BaseImage {
    let versions = ["GLIBC_2.2.5", "GLIBC_2.3", "GLIBC_2.9", "GLIBC_2.17"];
    let libc = library_offering("libc.so.6", &versions);
    let gcc = library_offering("libgcc_s.so.1", &["GCC_3.0", "GCC_3.3", "GCC_4.2.0"]);
    let files = Files::default()
        .file(
            "usr/lib/old/ld-2.17.so",
            library_offering("ld-linux.so", &["GLIBC_2.3"]),
        )
        .link(loader().trim_start_matches('/'), "/usr/lib/old/ld-2.17.so")
        .file("usr/lib/old/libc-2.17.so", libc)
        .link("usr/lib/old/libc.so.6", "libc-2.17.so")
        .file("usr/lib/old/libgcc_s.so.1", gcc);
    BaseImage::default().layer(&files)
}

#[test]
fn a_base_is_pinned_and_then_its_registry_is_needed_no_more() {
    let Based {
        world,
        registry,
        proxy,
    } = &Based::with_static_programs();
    let first = plain("one");
    let digest = first.push(registry, "base", "1");
    let based = |finished: &Finished, base: &BaseImage| {
        let report = finished.json();
        let tag = report["tag"].as_str().unwrap().to_owned();
        let (manifest, _) = world.registry.manifest(world.variant.repository(), &tag);
        let layers = manifest["layers"].as_array().unwrap();
        let found: Vec<_> = layers
            .iter()
            .take(2)
            .map(|l| l["digest"].as_str())
            .collect();
        let digests = base.layer_digests();
        let wanted: Vec<_> = digests.iter().map(|d| Some(d.as_str())).collect();
        assert_eq!(found, wanted, "{finished}");
    };

    let planned = world.run(&["deploy", "-e", "production", "--dry-run"]);
    planned.expect_success();
    assert!(
        planned.stdout.contains("it would be looked up and pinned"),
        "{planned}"
    );
    assert!(proxy.exchanges().is_empty() && !world.workspace.exists(LOCK));

    let deployed = world.deploy(&[]);
    deployed.expect_success().expect_stderr("is pinned to");
    let image = deployed.json()["digest"].as_str().unwrap().to_owned();
    let statement = document(world, &image, "application/vnd.in-toto+json");
    let statement: Value = serde_json::from_slice(&statement).unwrap();
    let build = &statement["predicate"]["buildDefinition"];
    assert_eq!(build["externalParameters"]["builder"], "native");
    let materials = build["resolvedDependencies"].as_array().unwrap();
    let base = materials.last().unwrap();
    assert_eq!(base["name"], format!("{}/base:1", proxy.host()));
    assert_eq!(
        base["digest"]["sha256"],
        digest.strip_prefix("sha256:").unwrap()
    );
    based(&deployed, &first);
    let lock = world.workspace.read(LOCK);
    assert!(
        lock.contains(&digest) && lock.contains(&proxy.host()),
        "{lock}"
    );

    // The tag moves; the lock does not.
    let second = plain("two");
    let newer = second.push(registry, "base", "1");
    proxy.forget();
    world.change_a_file("changed");
    let again = world.deploy(&[]);
    again.expect_success();
    based(&again, &first);
    assert!(
        proxy.exchanges().is_empty(),
        "the registry of the base was asked"
    );
    let planned = world.run(&["deploy", "-e", "production", "--dry-run"]);
    planned.expect_success();
    assert!(
        planned.stdout.contains(&format!("pinned to {digest}")),
        "{planned}"
    );

    // Only what asks for it moves it.
    let kept = world.run(&["lock", "-e", "production"]);
    assert!(kept.expect_success().stdout.contains("unchanged"), "{kept}");
    let unknown = world.run(&["lock", "--update", "elsewhere:1", "-e", "production"]);
    unknown
        .expect_code(3)
        .expect_stderr("is none of the base images");
    let moved = world.run(&["lock", "--update", "-e", "production"]);
    assert!(moved.expect_success().stdout.contains(&newer), "{moved}");
    let third = world.deploy(&[]);
    based(third.expect_success(), &second);
    assert!(world.workspace.left_behind().is_empty());
}

#[test]
fn a_known_base_is_deployed_with_its_registry_gone() {
    let Based {
        world,
        registry,
        proxy,
    } = Based::with_static_programs();
    plain("one").push(&registry, "base", "1");
    world.deploy(&[]).expect_success();
    drop((registry, proxy));
    world.change_a_file("changed");
    world.deploy(&[]).expect_success();
}

#[test]
fn layers_that_the_target_has_are_not_fetched() {
    let based = Based::with_static_programs();
    let base = plain("one");
    base.push(&based.registry, "base", "1");
    // Another image on the same base was pushed from elsewhere.
    let repository = based.world.variant.repository();
    base.push(&based.world.registry, repository, "other");
    let deployed = based.world.deploy(&[]);
    deployed.expect_success();
    for layer in base.layer_digests() {
        assert_eq!(based.fetched(&layer), 0, "{layer}");
    }
    assert_eq!(based.layers(&deployed)[..2], base.layer_digests());
}

#[test]
fn what_has_to_be_fetched_says_which_base_it_belongs_to_when_it_cannot() {
    let Based {
        world,
        registry,
        proxy,
    } = Based::with_static_programs();
    plain("one").push(&registry, "base", "1");
    let planned = world.run(&["lock", "-e", "production"]);
    planned.expect_success();
    drop((registry, proxy));
    let failed = assert_failed(&world.deploy(&[]), 1, "push", "base_unreachable");
    assert!(
        failed.details.contains("/base@sha256:"),
        "{}",
        failed.details
    );
}

#[test]
fn with_locked_a_base_must_be_in_the_lock() {
    let based = Based::with_static_programs();
    plain("one").push(&based.registry, "base", "1");
    let refused = based.world.deploy(&["--locked"]);
    let failed = assert_failed(&refused, 3, "image", "base_not_locked");
    assert!(
        failed.details.contains(&based.reference()),
        "{}",
        failed.details
    );
    assert!(!based.world.workspace.exists(LOCK) && based.sent_nothing());
    based
        .world
        .run(&["lock", "-e", "production"])
        .expect_success();
    based.world.deploy(&["--locked"]).expect_success();
    based
        .world
        .workspace
        .edit(LOCK, "version = 1", "<<<<<<< HEAD");
    let broken = based.world.deploy(&[]);
    assert_failed(&broken, 3, "image", "lock_invalid");
}

#[test]
fn a_pin_that_no_environment_needs_is_dropped() {
    let based = Based::with_static_programs();
    let world = &based.world;
    for tag in ["1", "2", "3"] {
        plain(tag).push(&based.registry, "base", tag);
    }
    let named = |tag: &str| format!("{}/base:{tag}", based.proxy.host());
    let pinned = |tag: &str| world.workspace.read(LOCK).contains(&named(tag));
    let lock = |arguments: &[&str]| world.run(&[&["lock"], arguments].concat());
    lock(&["-e", "production"]).expect_success();
    let first = world.workspace.read(LOCK);
    let platform = first.split_once("platform = \"").unwrap().1;
    let platform = platform.split_once('"').unwrap().0;
    world.workspace.write(
        ".systemprompt/deploy.toml",
        &format!(
            "[environments.sandbox.image]\nbase = \"{}\"\n\n[environments.local.image]\n\
             base = \"{}\"\nplatform = \"{platform}\"\n",
            named("2"),
            named("3")
        ),
    );
    for environment in ["sandbox", "local"] {
        lock(&["-e", environment]).expect_success();
    }
    assert!(pinned("1") && pinned("2") && pinned("3"));
    // Another machine has a pin of its own where none are named, and where others are, none.
    let text = world.workspace.read(LOCK);
    let entries = text.split_once("\n[[base]]").unwrap().1;
    let foreign = entries.replace(platform, "linux/riscv64");
    world
        .workspace
        .write(LOCK, &format!("{text}\n[[base]]{foreign}"));
    let count = |text: &str, words: &str| text.matches(words).count();
    let dropped = lock(&[]);
    assert_eq!(
        count(&dropped.expect_success().stdout, "dropped"),
        1,
        "{dropped}"
    );
    assert_eq!(count(&world.workspace.read(LOCK), "linux/riscv64"), 2);

    // Production stands on nothing now, the others on what they did. One environment does not speak
    // for the others.
    let from = format!("FROM {}", named("1"));
    world.workspace.edit(DOCKERFILE, &from, "FROM scratch");
    lock(&["-e", "production"]).expect_success();
    assert!(pinned("1") && pinned("2") && pinned("3"));
    // Neither does a variable that is set just now.
    let unset = [("SYSTEMPROMPT_IMAGE_BASE", "scratch")];
    let dropped = world.run_with(&["lock", "--output", "json"], &unset);
    let document = dropped.expect_success().json();
    let gone = |entry: &&serde_json::Value| entry["digest"].is_null();
    let gone: Vec<_> = document.as_array().unwrap().iter().filter(gone).collect();
    assert_eq!(gone.len(), 2, "{dropped}");
    for entry in gone {
        assert_eq!(entry["reference"].as_str(), Some(named("1").as_str()));
        assert!(entry["before"].is_string(), "{dropped}");
    }
    assert!(!pinned("1") && pinned("2") && pinned("3"));
    let again = lock(&[]);
    assert!(
        !again.expect_success().stdout.contains("dropped"),
        "{again}"
    );
}

#[test]
fn no_pin_is_dropped_while_a_dockerfile_cannot_be_read() {
    let based = Based::with_static_programs();
    let world = &based.world;
    plain("one").push(&based.registry, "base", "1");
    world.run(&["lock", "-e", "production"]).expect_success();
    let before = world.workspace.read(LOCK);
    world.workspace.edit(DOCKERFILE, "FROM", "FORM");
    let kept = world.run(&["lock"]);
    kept.expect_success()
        .expect_stderr("no pin is dropped: environment");
    assert_eq!(world.workspace.read(LOCK), before);
}

#[test]
fn a_digest_in_the_name_needs_no_pin() {
    let based = Based::with_static_programs();
    let digest = plain("one").push(&based.registry, "base", "1");
    let name = format!("base@{digest}");
    based.world.workspace.edit(DOCKERFILE, "base:1", &name);
    based.world.deploy(&["--locked"]).expect_success();
    assert!(!based.world.workspace.exists(LOCK));
    based.proxy.forget();
    based.world.change_a_file("changed");
    based.world.deploy(&[]).expect_success();
    assert!(based.proxy.exchanges().is_empty());
}

#[test]
fn the_image_for_the_right_machines_is_chosen_or_none() {
    let based = Based::with_static_programs();
    let foreign = plain("foreign").for_architecture("s390x");
    let own = plain("own");
    push_index(
        &based.registry,
        "base",
        "1",
        &[foreign.clone(), own.clone()],
    );
    let deployed = based.world.deploy(&[]);
    assert_eq!(
        based.layers(deployed.expect_success())[..2],
        own.layer_digests()
    );
    let asked = |platform: &str| {
        let deploy = ["deploy", "-e", "production", "--output", "json"];
        let variable = ("SYSTEMPROMPT_IMAGE_PLATFORM", platform);
        based.world.run_with(&deploy, &[variable])
    };
    let failed = assert_failed(&asked("linux/riscv64"), 3, "image", "base_platform_missing");
    let offered = format!("linux/s390x, linux/{}", own.architecture());
    assert!(failed.details.contains(&offered), "{}", failed.details);
    // The base would do; the programs are for this machine.
    let failed = assert_failed(&asked("linux/s390x"), 5, "image", "image_failed");
    assert!(
        failed.details.contains("is built for"),
        "{}",
        failed.details
    );
    // No index: only the configuration says what it is for.
    foreign.push(&based.registry, "base", "2");
    based.world.workspace.edit(DOCKERFILE, "base:1", "base:2");
    let alone = based.world.deploy(&[]);
    let failed = assert_failed(&alone, 3, "image", "base_platform_missing");
    assert!(
        failed.details.contains("is for linux/s390x"),
        "{}",
        failed.details
    );
}

#[test]
fn owners_are_named_by_the_users_of_the_base() {
    let based = Based::with_static_programs();
    let base = plain("one");
    base.push(&based.registry, "base", "1");
    based.world.workspace.edit(
        DOCKERFILE,
        "COPY services/ ",
        "COPY --chown=app:staff services/ ",
    );
    let planned = based.world.deploy(&["--dry-run"]);
    planned.expect_success();
    assert!(based.proxy.exchanges().is_empty());
    let deployed = based.world.deploy(&[]);
    deployed.expect_success();
    let report = deployed.json();
    let tree = testkit::image::Tree::of_registry(
        &based.world.registry,
        based.world.variant.repository(),
        report["tag"].as_str().unwrap(),
    );
    let owner = tree.get("/app/services/app.yaml").map(|node| node.owner);
    assert_eq!(owner, Some((1234, 50)), "{}", tree.listing());
    for layer in base.layer_digests() {
        assert_eq!(based.fetched(&layer), 1);
    }
    // Looking once is enough, also when the layers have been swept since.
    std::fs::remove_dir_all(based.world.workspace.root().join(".systemprompt/cache/oci")).unwrap();
    based.proxy.forget();
    based.world.deploy(&[]).expect_success();
    assert!(based.proxy.exchanges().is_empty());
    based
        .world
        .workspace
        .edit(DOCKERFILE, "app:staff", "nobody");
    assert_failed(&based.world.deploy(&[]), 3, "image", "image_unplannable");
}

#[test]
fn programs_that_the_base_can_run_are_deployed() {
    let based = Based::with_dynamic_programs();
    furnished().push(&based.registry, "base", "1");
    based.world.deploy(&[]).expect_success();
}

#[test]
fn a_c_library_that_is_too_old_is_an_error_before_anything_is_sent() {
    let based = Based::with_dynamic_programs();
    old().push(&based.registry, "base", "1");
    let failed = assert_failed(&based.world.deploy(&[]), 5, "image", "base_incompatible");
    for part in [
        "/app/bin/mcp/system-tools needs GLIBC_2.",
        " of libc.so.6 (for ",
        "which offers GLIBC_2.17 at most",
        &based.reference(),
    ] {
        assert!(failed.details.contains(part), "{part}: {}", failed.details);
    }
    for way in ["newer base", "--base host", "older system", "musl"] {
        assert!(failed.resolution.contains(way), "{}", failed.resolution);
    }
    assert!(based.sent_nothing());
    let deploy = ["deploy", "-e", "production", "--output", "json"];
    let unchecked = ("SYSTEMPROMPT_IMAGE_CHECK_LIBRARIES", "false");
    based.world.run_with(&deploy, &[unchecked]).expect_success();
}

#[test]
fn a_missing_library_and_a_missing_loader_are_named() {
    let based = Based::with_dynamic_programs();
    let files = Files::default().of_this_machine(std::path::Path::new(loader()));
    BaseImage::default()
        .layer(&files)
        .push(&based.registry, "base", "1");
    let failed = assert_failed(&based.world.deploy(&[]), 5, "image", "base_incompatible");
    assert!(
        failed
            .details
            .contains("/app/bin/systemprompt needs libc.so.6"),
        "{}",
        failed.details
    );
    plain("bare").push(&based.registry, "base", "2");
    based.world.workspace.edit(DOCKERFILE, "base:1", "base:2");
    let failed = assert_failed(&based.world.deploy(&[]), 5, "image", "base_incompatible");
    let loader = format!("/app/bin/systemprompt needs the loader {}", loader());
    assert!(failed.details.contains(&loader), "{}", failed.details);
}

#[test]
fn a_base_that_is_asked_for_is_stood_upon_or_refused() {
    let based = Based::with_static_programs();
    let base = plain("one");
    base.push(&based.registry, "base", "1");
    let reference = based.reference();
    let from = format!("FROM {reference}");
    based
        .world
        .workspace
        .edit(DOCKERFILE, &from, "FROM scratch");
    let deployed = based.world.deploy(&["--base", &reference]);
    let layers = based.layers(deployed.expect_success());
    assert_eq!(layers[..2], base.layer_digests());

    for more in [
        &["--skip-push", "--tag", "v1"][..],
        &["--skip-push", "--tag", "v1", "--dry-run"],
    ] {
        let unused = based
            .world
            .deploy(&[&["--base", &reference], more].concat());
        let failed = assert_failed(&unused, 3, "preflight", "base_unused");
        assert!(failed.details.contains("makes no image"), "{unused}");
    }
    // An application that is a binary alone.
    let binary = "[services.app]\nbinary = \"systemprompt\"\n";
    let deploy_toml = ".systemprompt/deploy.toml";
    let before = based.world.workspace.read(deploy_toml);
    based
        .world
        .workspace
        .write(deploy_toml, &format!("{before}\n{binary}"));
    let deployed = based.world.deploy(&["--base", &reference]);
    let layers = based.layers(deployed.expect_success());
    assert_eq!(layers[..2], base.layer_digests());
}

#[test]
fn scratch_lacks_the_loader_of_a_dynamic_program() {
    let world = World::laid_out(Variant::Current, &Layout::linked_dynamically());
    let failed = assert_failed(&world.deploy(&[]), 5, "image", "loader_missing");
    assert!(failed.details.contains(loader()), "{}", failed.details);
    assert!(
        failed.resolution.contains("`host`"),
        "{}",
        failed.resolution
    );
}

/// The first layer of what was deployed, by digest and media type.
fn first_layer(based: &Based, deployed: &Finished) -> (String, String) {
    let report = deployed.json();
    let (manifest, _) = based.world.registry.manifest(
        based.world.variant.repository(),
        report["tag"].as_str().unwrap(),
    );
    let text = |field: &str| manifest["layers"][0][field].as_str().unwrap().to_owned();
    (text("digest"), text("mediaType"))
}

#[test]
fn layers_in_zstd_pass_through_as_they_are_and_are_looked_into() {
    let based = Based::with_dynamic_programs();
    let base = BaseImage::default().zstd_layer(&libraries());
    base.push(&based.registry, "base", "1");
    let deployed = based.world.deploy(&[]);
    deployed.expect_success();
    assert!(!deployed.stderr.contains("is not checked"), "{deployed}");
    let (digest, media_type) = first_layer(&based, &deployed);
    assert_eq!(vec![digest], base.layer_digests());
    assert!(media_type.ends_with("tar+zstd"));
}

#[test]
fn layers_that_nobody_can_read_pass_through_with_a_warning() {
    let based = Based::with_dynamic_programs();
    let base = BaseImage::default().odd_layer(b"what nobody unpacks here");
    base.push(&based.registry, "base", "1");
    let deployed = based.world.deploy(&[]);
    deployed.expect_success().expect_stderr("is not checked");
    deployed.expect_stderr("tar+odd");
    assert_eq!(vec![first_layer(&based, &deployed).0], base.layer_digests());
}

#[test]
fn a_base_of_the_same_registry_is_mounted() {
    let world = World::new(Variant::Current);
    let base = plain("one");
    base.push(&world.registry, "bases/plain", "1");
    let host = world.proxy.host();
    let from = format!("FROM {host}/bases/plain:1");
    world.workspace.edit(DOCKERFILE, "FROM scratch", &from);
    let docker = world.workspace.home().join(".docker");
    std::fs::create_dir_all(&docker).unwrap();
    let auth = world.registry.encoded_credentials();
    let config = format!(r#"{{"auths": {{"{host}": {{"auth": "{auth}"}}}}}}"#);
    std::fs::write(docker.join("config.json"), config).unwrap();
    world.deploy(&[]).expect_success();
    let exchanges = world.proxy.exchanges();
    for layer in base.layer_digests() {
        let mounted = exchanges.iter().any(|e| {
            let target = e.request.target.replace("%3A", ":").replace("%2F", "/");
            e.request.method == "POST"
                && target.contains(&format!("mount={layer}"))
                && target.contains("from=bases/plain")
                && e.status == Some(201)
        });
        assert!(mounted, "{layer} was not mounted");
        let fetched = exchanges
            .iter()
            .any(|e| e.request.method == "GET" && e.request.path().ends_with(&layer));
        assert!(!fetched, "{layer} was fetched");
    }
}

const ARAMB_TOML: &str = r#"
applicationID = "shop"

[[services]]
uniqueIdentifier = 101
name = "backend-build"
type = "build"
[services.configuration.settings]
buildPath = "./backend"

[[services]]
uniqueIdentifier = 102
name = "backend-api"
type = "backend"
[services.configuration.settings]
image = "${101.outputs.IMAGE_URL}"
commandPort = 8080

[[services]]
uniqueIdentifier = 100
name = "cache"
type = "redis"
[services.configuration.settings]
image = "REGISTRY/cache:7"
"#;

/// Its images are the project's as well: they are pinned with the others, and not dropped for want of anybody who needs them.
#[test]
fn the_images_of_an_aramb_toml_are_pinned_and_stay() {
    let based = Based::with_static_programs();
    let (workspace, host) = (&based.world.workspace, based.proxy.host());
    for name in ["base", "runtime", "cache"] {
        let files = Files::default().file("etc/name", name);
        let tag = if name == "cache" { "7" } else { "1" };
        BaseImage::default()
            .layer(&files)
            .push(&based.registry, name, tag);
    }
    workspace.write("aramb.toml", &ARAMB_TOML.replace("REGISTRY", &host));
    workspace.write(
        "backend/Dockerfile",
        &format!("FROM {host}/runtime:1\nCOPY . /srv/\n"),
    );
    let pins = || {
        let lock = workspace.read(LOCK);
        let names = ["base:1", "runtime:1", "cache:7"];
        names.map(|name| lock.contains(&format!("{host}/{name}")))
    };
    let pinned = based.world.run(&["lock", "-e", "production"]);
    pinned.expect_success();
    assert_eq!(pins(), [true; 3], "{pinned}");
    let again = based.world.run(&["lock"]);
    again.expect_success();
    assert!(!again.stdout.contains("dropped"), "{again}");
    assert_eq!(pins(), [true; 3]);

    // What the file needs no more goes; what nobody can know stays, all of it.
    workspace.write("backend/Dockerfile", "FROM scratch\nCOPY . /srv/\n");
    let dropped = based.world.run(&["lock"]);
    assert!(dropped.stdout.contains("dropped"), "{dropped}");
    assert_eq!(pins(), [true, false, true]);
    workspace.write("aramb.toml", "[[[broken");
    let invalid = based.world.run(&["lock"]);
    invalid
        .expect_code(3)
        .expect_stderr("which images aramb.toml needs");
    assert_eq!(pins(), [true, false, true]);

    // It may be all that there is.
    workspace.write("aramb.toml", &ARAMB_TOML.replace("REGISTRY", &host));
    std::fs::remove_file(workspace.root().join(DOCKERFILE)).unwrap();
    std::fs::remove_file(workspace.root().join(".systemprompt/deploy.toml")).ok();
    based.world.run(&["lock"]).expect_success();
    assert_eq!(pins(), [false, false, true]);
}

//! The project's own Dockerfile, assembled end to end.

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;

use common::{Project, compile, unpack};
use deploy_image::{
    BaseChoice, Cache, Compression, Dockerfile, NoImages, Options, PlannedBase, assemble, copies,
    needs_engine, plan, write_docker_archive,
};

const DOCKERFILE: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../../.systemprompt/Dockerfile"
));
const BINARIES: [&str; 4] = [
    "systemprompt",
    "system-tools",
    "systemprompt-infrastructure",
    "systemprompt-admin",
];

fn host() -> Options {
    Options {
        base: BaseChoice::Host,
        ..Options::default()
    }
}

fn project() -> Project {
    let project = Project::new();
    project.write("core/web/dist/index.html", "<p>dashboard</p>");
    project.write("services/config.yaml", "a: 1\n");
    project.write("services/agents/one.yaml", "b: 2\n");
    project
}

fn with_binaries(project: &Project, name: &str) -> BTreeMap<PathBuf, PathBuf> {
    let program = compile(project, name);
    BINARIES
        .into_iter()
        .map(|binary| {
            (
                PathBuf::from("target/release").join(binary),
                program.clone(),
            )
        })
        .collect()
}

#[test]
fn what_the_dockerfile_takes_is_known_before_anything_is_built() {
    let dockerfile = Dockerfile::parse(".systemprompt/Dockerfile", DOCKERFILE).unwrap();
    assert_eq!(needs_engine(&dockerfile, &host()).unwrap(), []);
    let copies = copies(&dockerfile, &host()).unwrap();
    let sources: Vec<&str> = copies
        .iter()
        .flat_map(|copy| &copy.sources)
        .map(String::as_str)
        .collect();
    assert_eq!(sources[0], "target/release/systemprompt");
    assert!(sources.contains(&"core/web/dist/") && sources.contains(&"services/"));
    assert_eq!(copies[0].destination, "/app/bin/");
}

#[test]
fn a_plan_before_the_build_names_the_packages() {
    let project = project();
    let expected =
        BINARIES.map(|name| (PathBuf::from("target/release").join(name), name.to_owned()));
    let context = project.context().with_expected(expected.into());
    let dockerfile = Dockerfile::parse("Dockerfile", DOCKERFILE).unwrap();
    let plan = plan(&dockerfile, &context, &Options::default(), &NoImages).unwrap();
    assert!(matches!(&plan.base, PlannedBase::Unavailable(name) if name == "debian:bookworm-slim"));
    let unbuilt: Vec<_> = plan
        .unbuilt()
        .map(|(_, package)| package.to_owned())
        .collect();
    assert_eq!(unbuilt, BINARIES);
    assert_eq!(plan.layers[0].size(), None);
    let error = assemble(&plan, &project.store(), &mut Cache::none()).unwrap_err();
    assert!(
        error
            .resolution()
            .starts_with("cargo build --release -p system-tools -p")
    );
}

#[test]
fn the_image_runs_from_its_own_files() {
    let project = project();
    let context = project
        .context()
        .with_overlay(with_binaries(&project, "hello"));
    let dockerfile = Dockerfile::parse("Dockerfile", DOCKERFILE).unwrap();
    let plan = plan(&dockerfile, &context, &host(), &NoImages).unwrap();
    let image = assemble(&plan, &project.store(), &mut Cache::none()).unwrap();
    let root = unpack(&project, &image);
    assert_eq!(
        common::run_inside(&root, "/app/bin/systemprompt"),
        "hello from inside\n"
    );
    assert_eq!(
        std::fs::read_to_string(root.join("app/services/agents/one.yaml")).unwrap(),
        "b: 2\n"
    );
    let passwd = std::fs::read_to_string(root.join("etc/passwd")).unwrap();
    assert!(passwd.contains("app:x:1000:1000:"), "{passwd}");
    let config = &image.config.config;
    assert_eq!(
        config.entrypoint.as_deref(),
        Some(&["/app/bin/systemprompt".to_owned()][..])
    );
    assert_eq!(
        config.cmd.as_ref().unwrap().join(" "),
        "serve --data /app/data"
    );
    assert_eq!(config.user.as_deref(), Some("1000:1000"));
    assert_eq!(config.working_dir.as_deref(), Some("/app"));
    assert!(config.exposed_ports.contains("8080/tcp") && config.volumes.contains("/app/data"));
    assert_eq!(config.healthcheck.as_ref().unwrap().retries, 3);
    assert_eq!(
        config.env[0],
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    );
    assert!(config.env.contains(&"SYSTEMPROMPT_WEB=/app/web".to_owned()));
    let layers = image
        .config
        .history
        .iter()
        .filter(|entry| !entry.empty_layer)
        .count();
    assert_eq!(layers, image.layers.len());
}

#[test]
fn nothing_changed_reads_nothing() {
    let project = project();
    let overlay = with_binaries(&project, "hello");
    project.age();
    let dockerfile = Dockerfile::parse("Dockerfile", DOCKERFILE).unwrap();
    let run = || {
        let context = project.context().with_overlay(overlay.clone());
        let plan = plan(&dockerfile, &context, &host(), &NoImages).unwrap();
        let mut cache = Cache::open(project.path("cache/layers.json"));
        let image = assemble(&plan, &project.store(), &mut cache).unwrap();
        cache.save().unwrap();
        image
    };
    let (first, second) = (run(), run());
    assert!(first.counters.bytes_read > 0 && first.counters.layers_built > 0);
    assert_eq!(second.counters.bytes_read, 0);
    assert_eq!(second.counters.layers_built, 0);
    assert_eq!(second.counters.layers_cached, first.layers.len());
    assert_eq!(first.digest, second.digest);
}

#[test]
fn a_compressed_layer_that_left_the_store_is_made_again() {
    let project = project();
    let overlay = with_binaries(&project, "hello");
    project.age();
    let dockerfile = Dockerfile::parse("Dockerfile", DOCKERFILE).unwrap();
    let context = project.context().with_overlay(overlay);
    let options = Options {
        compression: Compression::Gzip(1),
        ..host()
    };
    let plan = plan(&dockerfile, &context, &options, &NoImages).unwrap();
    let (store, mut cache) = (project.store(), Cache::none());
    let first = assemble(&plan, &store, &mut cache).unwrap();
    store.remove(&first.layers[1].digest).unwrap();
    let second = assemble(&plan, &store, &mut cache).unwrap();
    assert_eq!(second.counters.layers_built, 1);
    assert!(store.contains(&first.layers[1].digest));
}

/// Several binaries in one `COPY`: a layer each, and last the one that is likely to change most.
#[test]
fn what_changes_often_comes_last() {
    let project = project();
    let own_crates = [4, 1, 9, 2];
    let named = |name: &str| PathBuf::from("target/release").join(name);
    let context = project
        .context()
        .with_overlay(with_binaries(&project, "hello"))
        .with_own_crates(BINARIES.map(named).into_iter().zip(own_crates).collect());
    let line = format!(
        "FROM scratch\nCOPY {} /bin/\n",
        BINARIES
            .map(|name| format!("target/release/{name}"))
            .join(" ")
    );
    let dockerfile = Dockerfile::parse("Dockerfile", &line).unwrap();
    let plan = plan(&dockerfile, &context, &host(), &NoImages).unwrap();
    let binaries: Vec<_> = plan
        .layers
        .iter()
        .filter_map(|layer| layer.files.last()?.path.file_name())
        .collect();
    assert_eq!(
        binaries,
        [
            "system-tools",
            "systemprompt-admin",
            "systemprompt",
            "systemprompt-infrastructure"
        ]
    );
}

#[test]
fn one_changed_binary_is_one_changed_layer() {
    let project = project();
    let mut overlay = with_binaries(&project, "hello");
    let dockerfile = Dockerfile::parse("Dockerfile", DOCKERFILE).unwrap();
    let digests = |overlay: &BTreeMap<PathBuf, PathBuf>| -> Vec<_> {
        let context = project.context().with_overlay(overlay.clone());
        let plan = plan(&dockerfile, &context, &host(), &NoImages).unwrap();
        let image = assemble(&plan, &project.store(), &mut Cache::none()).unwrap();
        image.layers.iter().map(|layer| layer.digest).collect()
    };
    let before = digests(&overlay);
    overlay.insert(
        "target/release/system-tools".into(),
        compile(&project, "other"),
    );
    let after = digests(&overlay);
    let changed = before
        .iter()
        .zip(&after)
        .filter(|(old, new)| old != new)
        .count();
    assert_eq!((before.len(), changed), (after.len(), 1));
}

#[test]
fn gzip_changes_what_is_stored_and_not_what_is_in_it() {
    let project = project();
    let context = project
        .context()
        .with_overlay(with_binaries(&project, "hello"));
    let dockerfile = Dockerfile::parse("Dockerfile", DOCKERFILE).unwrap();
    let image = |compression| {
        let options = Options {
            compression,
            ..host()
        };
        let plan = plan(&dockerfile, &context, &options, &NoImages).unwrap();
        assemble(&plan, &project.store(), &mut Cache::none()).unwrap()
    };
    let (plain, gzip, again) = (
        image(Compression::None),
        image(Compression::Gzip(6)),
        image(Compression::Gzip(6)),
    );
    assert_eq!(gzip.digest, again.digest);
    for (plain, gzip) in plain.layers.iter().zip(&gzip.layers) {
        assert_eq!(plain.diff_id, gzip.diff_id);
        assert_eq!(plain.digest, plain.diff_id);
        assert!(gzip.media_type.ends_with("+gzip"));
    }
    let total =
        |image: &deploy_image::Image| image.layers.iter().map(|layer| layer.size).sum::<u64>();
    assert!(total(&gzip) < total(&plain));
}

#[test]
fn a_docker_archive_names_what_it_holds() {
    let project = project();
    let context = project
        .context()
        .with_overlay(with_binaries(&project, "hello"));
    let dockerfile = Dockerfile::parse("Dockerfile", DOCKERFILE).unwrap();
    let plan = plan(&dockerfile, &context, &host(), &NoImages).unwrap();
    let image = assemble(&plan, &project.store(), &mut Cache::none()).unwrap();
    let mut bytes = Vec::new();
    write_docker_archive(&image, &["app:test".to_owned()], &mut bytes).unwrap();
    let names: Vec<String> = tar::Archive::new(bytes.as_slice())
        .entries()
        .unwrap()
        .map(|entry| {
            entry
                .unwrap()
                .path()
                .unwrap()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    assert_eq!(names[0], format!("{}.json", image.config_digest.hex()));
    assert_eq!(names.last().unwrap(), "manifest.json");
    for layer in &image.layers {
        assert!(
            names.contains(&format!("{}/layer.tar", layer.diff_id.hex())),
            "{names:?}"
        );
    }
}

//! Releases of several services.

use super::*;
use crate::config::{Service, ServiceName};

/// The project with services, each as JSON, read as a file's are.
fn with(services: serde_json::Value) -> (Config, Observed) {
    let mut config = embedded();
    config.services = serde_json::from_value(services).unwrap();
    let mut observed = project();
    let others = config.services.others.iter();
    observed.dockerfiles = others
        .filter_map(|(name, service)| Some((name.to_string(), of_binary(service)?)))
        .collect();
    (config, observed)
}

fn of_binary(service: &Service) -> Option<Dockerfile> {
    let source = format!("target/release/{}", service.binary.as_ref()?);
    Some(Dockerfile::Read {
        copies: vec![copy(2, &source)],
        present: BTreeSet::new(),
        needs_engine: Vec::new(),
        from: "debian:bookworm-slim".into(),
    })
}

fn planned(services: serde_json::Value) -> Plan {
    let (config, observed) = with(services);
    plan(&request(), &config, &observed).unwrap()
}

/// What speaks against these services, a line each.
fn refused(services: serde_json::Value) -> Vec<String> {
    let (config, mut observed) = with(services);
    observed.secrets = Some(["KNOWN".to_owned()].into());
    let failures = plan(&request(), &config, &observed).unwrap_err();
    failures
        .iter()
        .map(|failure| format!("{}: {}", failure.code, failure.details))
        .collect()
}

#[test]
fn each_has_an_image_from_one_source() {
    let plan = planned(serde_json::json!({
        "app": { "depends_on": ["api"] },
        "api": { "binary": "systemprompt-admin", "routes": ["/api"], "depends_on": ["db"] },
        "worker": { "command": ["work"], "depends_on": ["db"] },
        "db": { "image": "docker.io/library/postgres:16", "protocol": "tcp" },
    }));
    assert_eq!(plan.order, ["db", "api", "worker", "app"]);
    let of = |name: &str| {
        let service = plan.services.iter().find(|service| service.name == name);
        service.unwrap()
    };
    let ServiceImage::Made(image) = &of("api").image else {
        panic!("{:?}", of("api"));
    };
    let text = image.text.as_deref().unwrap();
    assert!(
        text.starts_with("FROM debian:bookworm-slim\nCOPY target/release/systemprompt-admin "),
        "{text}"
    );
    assert_eq!(image.builder, ImageBuilder::Native);
    assert_eq!(
        image.artifacts["target/release/systemprompt-admin"].package,
        "admin"
    );
    assert_eq!(of("worker").image, ServiceImage::OfApp);
    assert!(
        matches!(&of("db").image, ServiceImage::Copied(copied) if copied.reference.ends_with("postgres:16"))
    );
    assert_eq!(of("api").tag("v7").as_deref(), Some("api-v7"));
    assert_eq!(of("worker").tag("v7"), None);
}

#[test]
fn one_build_for_the_binaries_of_all() {
    let (config, mut observed) = with(serde_json::json!({ "extra": { "binary": "extra" } }));
    observed.packages.push(member("extra", "extra"));
    let build = plan(&request(), &config, &observed).unwrap().build.unwrap();
    assert_eq!(build.invocations.len(), 1);
    assert_eq!(
        build.invocations[0].packages,
        ["systemprompt", "admin", "extra"]
    );
}

#[test]
fn without_a_push_their_images_are_there() {
    let (config, observed) = with(serde_json::json!({
        "api": { "binary": "systemprompt-admin" }, "worker": {}, "db": { "image": "postgres:16" },
    }));
    let request = Request {
        skip_push: true,
        tag: Some("v1".into()),
        ..request()
    };
    let plan = plan(&request, &config, &observed).unwrap();
    let images = plan.services.into_iter().map(|service| service.image);
    let expected = [
        ServiceImage::There,
        ServiceImage::There,
        ServiceImage::OfApp,
    ];
    assert_eq!(images.collect::<Vec<_>>(), expected);
}

#[test]
fn what_each_says_alone() {
    let found = refused(serde_json::json!({
        "a": { "binary": "xtask", "image": "postgres:16" },
        "b": { "protocol": "tcp", "routes": ["/b"] },
        "c": { "health": { "kind": "http" } },
        "d": { "env": { "X": "1" }, "secrets": { "X": "KNOWN" } },
        "e": { "health": { "kind": "command" } },
        "f": { "binary": "zebra" },
        "g": { "secrets": { "Y": "STRANGE", "Z": "KNOWN" }, "env": { "URL": "x:${secrets.ODD}@${secrets.KNOWN}" } },
        "h": { "replicas": 2, "volumes": { "data": "/data" } },
        "i": { "volumes": { "data": "/data" } },
    }));
    assert_eq!(
        found,
        [
            "check_invalid: services.e.health.kind is command, and services.e.health.command is empty",
            "service_invalid: services.a has binary and image: its image comes from one of them",
            "service_invalid: services.b has routes, which are for HTTP, and its protocol is tcp",
            "service_invalid: the health check of services.c asks on a port, and it listens on none: it has neither protocol nor routes",
            "service_invalid: X is in services.d.env and in services.d.secrets (KNOWN)",
            "secret_missing: services.g needs the secret ODD, which the tenant does not have",
            "secret_missing: services.g needs the secret STRANGE, which the tenant does not have",
            "service_invalid: services.h has the volume data and 2 instances: one instance at a time may have it",
            "service_invalid: h and i both have the volume data, which is for one service at a time",
            "binary_unknown: services.f.binary: no package builds zebra; there are systemprompt, systemprompt-admin, xtask",
        ]
    );
}

#[test]
fn what_they_say_of_each_other() {
    let found = refused(serde_json::json!({
        "app": { "depends_on": ["a"] },
        "a": { "depends_on": ["b", "gone"], "routes": ["/a", "/"] },
        "b": { "depends_on": ["a"], "routes": ["/a/"] },
        "c": { "env": {
            "STRANGER": "${services.nobody.INTERNAL_URL}",
            "TYPO": "${services.a.INTERNAL_URI}",
            "SILENT": "x${services.c.INTERNAL_HOST}",
            "PRIVATE": "${services.c.PUBLIC_URL}",
            "GOOD": "${services.app.INTERNAL_URL}/${services.a.PUBLIC_URL}",
        } },
    }));
    assert_eq!(
        found,
        [
            "service_unknown: services.a.depends_on names gone, and the services of this release are app, a, b, c",
            "services_circular: depends_on goes round in a circle: a -> b -> a",
            "route_taken: app and a both have the route /",
            "route_taken: a and b both have the route /a",
            "service_invalid: services.c.env.PRIVATE names ${services.c.PUBLIC_URL}, and c has no route without a wildcard",
            "service_invalid: services.c.env.SILENT names ${services.c.INTERNAL_HOST}, and c has no protocol",
            "service_unknown: services.c.env.STRANGER names ${services.nobody.INTERNAL_URL}, and the services of this release are app, a, b, c",
            "service_invalid: services.c.env.TYPO names ${services.a.INTERNAL_URI}, and a service has PUBLIC_URL, INTERNAL_URL, INTERNAL_HOST, INTERNAL_PORT",
        ]
    );
}

#[test]
fn an_own_dockerfile_is_checked_like_that_of_app() {
    let (config, mut observed) =
        with(serde_json::json!({ "api": { "dockerfile": "api/Dockerfile" } }));
    observed
        .dockerfiles
        .insert("api".to_owned(), Dockerfile::Missing);
    let failures = plan(&request(), &config, &observed).unwrap_err();
    assert_eq!(failures[0].code, "dockerfile_missing");
    assert!(failures[0].resolution.contains("services.api.dockerfile"));
    let read = |source: &str| Dockerfile::Read {
        copies: vec![copy(7, source)],
        present: BTreeSet::new(),
        needs_engine: Vec::new(),
        from: "scratch".into(),
    };
    observed
        .dockerfiles
        .insert("api".to_owned(), read("api/static/"));
    let failures = plan(&request(), &config, &observed).unwrap_err();
    assert_eq!(
        failures[0].details,
        "api/Dockerfile:7: nothing is at api/static/"
    );
    observed
        .dockerfiles
        .insert("api".to_owned(), read("target/release/xtask"));
    let build = plan(&request(), &config, &observed).unwrap().build.unwrap();
    assert!(build.invocations[0].packages.contains(&"xtask".to_owned()));
}

/// What the platform refuses as well, when everything is built and sent.
#[test]
fn what_the_platform_refuses_of_one_is_found_before() {
    let found = refused(serde_json::json!({
        "app": { "routes": [] },
        "a": { "liveness": { "kind": "http" } },
        "b": { "protocol": "tcp", "liveness": { "kind": "tcp" }, "restart": "never" },
        "c": { "env": { "PORT": "1" } },
        "d": { "secrets": { "PORT": "KNOWN" } },
        "e": { "env": { "HERE": "${services.app.INTERNAL_URL}", "OUTSIDE": "${services.app.PUBLIC_URL}" } },
        "f": { "volumes": { "all": "/data/", "part": "/data//part", "other": "/database" } },
    }));
    assert_eq!(
        found,
        [
            "service_invalid: the liveness check of services.a asks on a port, and it listens on none: it has neither protocol nor routes",
            "service_invalid: services.b.liveness says when an instance is started again, and services.b.restart is never",
            "service_invalid: services.c.env sets PORT, which the platform sets",
            "service_invalid: services.d.secrets sets PORT, which the platform sets",
            "service_invalid: services.e.env.OUTSIDE names ${services.app.PUBLIC_URL}, and app has no route without a wildcard",
            "service_invalid: services.f.volumes.part is at /data//part, within /data/, where the volume all is",
        ]
    );
}

#[test]
fn a_binary_that_the_build_leaves_out_is_told_with_its_package() {
    let (mut config, observed) = with(serde_json::json!({ "tools": { "binary": "xtask" } }));
    config.build.packages = vec!["systemprompt".into(), "admin".into()];
    let failures = plan(&request(), &config, &observed).unwrap_err();
    assert_eq!(failures[0].code, "binary_unknown");
    assert_eq!(failures[0].resolution, "add xtask to build.packages");
}

#[test]
fn public_services_are_rolled_and_watched_one_after_the_other() {
    let watched = |services, strategy| {
        let (mut config, observed) = with(services);
        config.deploy.replicas = 2;
        config.deploy.strategy = strategy;
        config.rollout.batch_pause = crate::config::Duration::from_secs(10);
        config.rollout.bake = crate::config::Duration::from_secs(7);
        let plan = plan(&request(), &config, &observed).unwrap();
        plan.rollout.watched_seconds
    };
    let services = || {
        serde_json::json!({
            "api": { "routes": ["/api"], "replicas": 5 },
            "db": { "protocol": "tcp", "replicas": 9 },
        })
    };
    assert_eq!(watched(serde_json::json!({}), Strategy::Rolling), 20);
    assert_eq!(watched(services(), Strategy::Rolling), 70);
    assert_eq!(watched(services(), Strategy::BlueGreen), 7);
    let mut hidden = services();
    hidden["app"] = serde_json::json!({ "routes": [] });
    assert_eq!(watched(hidden, Strategy::Rolling), 50);
}

#[test]
fn no_service_gets_the_tag_that_another_has_in_another_release() {
    let (config, observed) = with(serde_json::json!({
        "api": { "binary": "systemprompt-admin" },
        "api-docs": { "image": "docs:1" },
        "worker": {},
    }));
    let found = |tag: &str, skip_push| {
        let request = Request {
            tag: Some(tag.to_owned()),
            skip_push,
            ..request()
        };
        let failures = plan(&request, &config, &observed).err().unwrap_or_default();
        let told = failures.into_iter();
        told.map(|failure| format!("{}: {}", failure.code, failure.details))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        found("api-v1", false),
        ["tag_invalid: `api-v1` is the tag of services.api in a release with the tag `v1`"]
    );
    assert_eq!(
        found("docs-v1", false),
        [
            "tag_invalid: `api-docs-v1` is the tag of services.api-docs in a release with the tag `v1`"
        ]
    );
    for sound in ["v1", "api", "apiv1", "worker-v1", "deploy-1-a1b2c3d"] {
        assert_eq!(found(sound, false), [""; 0], "{sound}");
    }
    assert_eq!(found("api-v1", true), [""; 0]);
}

#[test]
fn the_tag_of_a_service_fits_too() {
    let (config, observed) = with(serde_json::json!({
        "a-long-name-of-a-service": { "image": "postgres:16" },
        "a-long-name-of-another-one": {},
    }));
    let request = Request {
        tag: Some("v".repeat(120)),
        ..request()
    };
    let failures = plan(&request, &config, &observed).unwrap_err();
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert_eq!(failures[0].code, "tag_invalid");
    let name: ServiceName = "a-long-name-of-a-service".parse().unwrap();
    assert!(failures[0].details.contains(name.as_str()));
}

#[test]
fn app_may_be_one_binary_or_a_finished_image() {
    let of = |app: serde_json::Value| {
        let (config, mut observed) = with(serde_json::json!({
            "app": app, "api": { "binary": "systemprompt-admin" },
        }));
        observed.dockerfile = config
            .services
            .binary_of_app()
            .map_or(Dockerfile::Missing, |_| Dockerfile::Read {
                copies: vec![copy(2, "target/release/systemprompt")],
                present: BTreeSet::new(),
                needs_engine: Vec::new(),
                from: "scratch".into(),
            });
        plan(&request(), &config, &observed)
    };
    let binary = of(serde_json::json!({ "binary": "systemprompt" })).unwrap();
    let image = binary.image.unwrap();
    assert_eq!(binary.app, AppImage::Made);
    assert_eq!(
        image.base,
        Base::Host,
        "nothing else says what it stands on"
    );
    assert!(
        image
            .text
            .unwrap()
            .contains("ENTRYPOINT [\"/app/bin/systemprompt\"]")
    );
    let finished = of(serde_json::json!({ "image": "nginx:1" })).unwrap();
    assert!(
        matches!(&finished.app, AppImage::Copied(copied) if copied.reference == "nginx:1"),
        "{:?}",
        finished.app
    );
    assert_eq!(
        finished.build.unwrap().invocations[0].packages,
        ["systemprompt", "admin"]
    );
    let both = of(serde_json::json!({ "binary": "systemprompt", "image": "nginx:1" }));
    assert_eq!(both.unwrap_err()[0].code, "service_invalid");
}

#[test]
fn images_that_are_there_are_not_made() {
    let (config, mut observed) = with(serde_json::json!({
        "api": { "binary": "systemprompt-admin" }, "db": { "image": "postgres:16" },
    }));
    observed.dockerfile = Dockerfile::Missing;
    observed.server_binary = true;
    let there = ["app", "api"].map(|name| (name.to_owned(), format!("sha256:{name}")));
    let request = Request {
        there: there.into(),
        ..request()
    };
    let plan = plan(&request, &config, &observed).unwrap();
    assert_eq!(plan.app, AppImage::Kept("sha256:app".to_owned()));
    assert_eq!(
        plan.services[0].image,
        ServiceImage::Kept("sha256:api".to_owned())
    );
    assert_eq!(plan.services[0].tag("v1"), None);
    assert!(matches!(plan.services[1].image, ServiceImage::Copied(_)));
    let packages = plan.build.unwrap().invocations;
    assert_eq!(packages[0].packages, ["systemprompt"], "the platform");
}

mod services;

use std::collections::BTreeSet;

use super::*;
use crate::config::{Builder, ControlPlane};
use crate::exit::Exit;
use crate::observed::{Copy, Credential, Extension, Git, NeedsEngine, Web};

fn copy(line: usize, source: &str) -> Copy {
    Copy {
        line,
        sources: vec![source.to_owned()],
        destination: "/app/".to_owned(),
    }
}

fn member(name: &str, binary: &str) -> Package {
    Package {
        name: name.to_owned(),
        binaries: vec![binary.to_owned()],
        manifest: None,
        own_crates: 1,
    }
}

/// The seed's project, with nothing wrong.
fn project() -> Observed {
    Observed {
        git: Some(Git {
            sha: "a1b2c3d".into(),
            dirty: false,
        }),
        packages: vec![
            member("systemprompt", "systemprompt"),
            member("admin", "systemprompt-admin"),
            member("xtask", "xtask"),
        ],
        dockerfile: Dockerfile::Read {
            copies: vec![
                copy(3, "target/release/systemprompt"),
                copy(4, "target/release/systemprompt-admin"),
                copy(5, "core/web/dist/"),
                copy(6, "services/"),
            ],
            present: ["core/web/dist/", "services/"].map(String::from).into(),
            needs_engine: Vec::new(),
            from: "debian:bookworm-slim".into(),
        },
        extensions: vec![Extension {
            name: "admin".into(),
            binary: "systemprompt-admin".into(),
            enabled: true,
            path: "extensions/mcp/admin/manifest.yaml".into(),
        }],
        web: Web {
            folder: "core/web".into(),
            package_json: false,
            npm: false,
        },
        ..Observed::default()
    }
}

fn present(observed: &mut Observed) -> &mut BTreeSet<String> {
    match &mut observed.dockerfile {
        Dockerfile::Read { present, .. } => present,
        other => panic!("{other:?}"),
    }
}

fn embedded() -> Config {
    Config {
        control_plane: ControlPlane::Embedded,
        ..Config::default()
    }
}

fn request() -> Request {
    Request {
        environment: "local".into(),
        ..Request::default()
    }
}

/// The codes of what preflight finds after one change to a project with nothing wrong.
fn codes(change: impl FnOnce(&mut Request, &mut Config, &mut Observed)) -> Vec<&'static str> {
    let (mut request, mut config, mut observed) = (request(), embedded(), project());
    change(&mut request, &mut config, &mut observed);
    match plan(&request, &config, &observed) {
        Ok(_) => Vec::new(),
        Err(failures) => failures.iter().map(|f| f.code).collect(),
    }
}

#[test]
fn a_sound_project_gets_a_plan() {
    let plan = plan(&request(), &embedded(), &project()).unwrap();
    assert_eq!(plan.tag, Tag::Generated("deploy-0-a1b2c3d".into()));
    let build = plan.build.unwrap();
    assert_eq!(
        build.invocations,
        [Invocation {
            manifest: None,
            packages: vec!["systemprompt".into(), "admin".into()],
        }]
    );
    let image = plan.image.unwrap();
    assert_eq!(image.builder, ImageBuilder::Native);
    assert_eq!(image.artifacts.len(), 2);
    assert_eq!(plan.target.tenant.as_deref(), Some("local"));
}

#[test]
fn everything_wrong_is_found_at_once() {
    let found = codes(|_, config, observed| {
        observed.packages.retain(|p| p.name != "admin");
        present(observed).clear();
        observed.credential = Credential::Missing;
        config.control_plane = ControlPlane::ManagementApi;
        config.deploy.require_env = vec!["DATABASE_URL".into()];
        config.deploy.require_clean = true;
        observed.git = None;
    });
    assert_eq!(
        found,
        [
            "credentials_missing",
            "tree_not_clean",
            "variable_missing",
            "copy_stale",
            "copy_source_missing",
            "web_dist_missing",
        ]
    );
}

#[test]
fn a_command_of_a_check_is_set_where_it_is_run() {
    use crate::config::{HealthKind, LivenessKind};
    assert_eq!(
        codes(|_, config, _| {
            config.health.kind = HealthKind::Command;
            config.liveness.command = vec!["alive".into()];
        }),
        ["check_invalid", "check_invalid"]
    );
    let sound = codes(|_, config, _| {
        config.health.kind = HealthKind::Image;
        config.liveness.kind = LivenessKind::Command;
        config.liveness.command = vec!["alive".into()];
    });
    assert!(sound.is_empty(), "{sound:?}");
}

#[test]
fn a_missing_or_broken_dockerfile() {
    assert_eq!(
        codes(|_, _, o| o.dockerfile = Dockerfile::Missing),
        ["dockerfile_missing"]
    );
    assert_eq!(
        codes(|_, _, o| o.dockerfile = Dockerfile::Invalid(vec!["line 1: no FROM".into()])),
        ["dockerfile_invalid"]
    );
}

#[test]
fn an_enabled_extension_must_be_shipped() {
    let unshipped = |o: &mut Observed, enabled| {
        o.extensions.push(Extension {
            name: "extra".into(),
            binary: "extra".into(),
            enabled,
            path: "extensions/extra/manifest.yaml".into(),
        });
    };
    assert_eq!(
        codes(|_, _, o| unshipped(o, true)),
        ["extension_not_shipped"]
    );
    assert!(codes(|_, _, o| unshipped(o, false)).is_empty());
}

#[test]
fn skipping_the_build_needs_the_binaries() {
    assert_eq!(
        codes(|r, _, o| {
            r.skip_build = true;
            o.server_binary = true;
            present(o).insert("target/release/systemprompt".into());
        }),
        ["binary_not_found"]
    );
}

#[test]
fn skipping_the_push_needs_a_tag_and_nothing_else() {
    assert_eq!(
        codes(|r, _, o| {
            r.skip_push = true;
            o.dockerfile = Dockerfile::Missing;
        }),
        ["tag_missing"]
    );
    assert!(
        codes(|r, _, o| {
            r.skip_push = true;
            r.tag = Some("v1".into());
            o.dockerfile = Dockerfile::Missing;
        })
        .is_empty()
    );
}

#[test]
fn an_instruction_that_needs_an_engine() {
    let with_run = |o: &mut Observed, docker| {
        o.docker = docker;
        if let Dockerfile::Read { needs_engine, .. } = &mut o.dockerfile {
            needs_engine.push(NeedsEngine {
                line: 2,
                instruction: "RUN".into(),
                reason: "runs a command in the image".into(),
            });
        }
    };
    assert_eq!(codes(|_, _, o| with_run(o, false)), ["engine_needed"]);
    assert!(codes(|_, _, o| with_run(o, true)).is_empty());
    assert_eq!(
        codes(|_, c, o| {
            c.image.builder = Builder::Native;
            with_run(o, true);
        }),
        ["engine_needed"]
    );
    assert_eq!(
        codes(|_, c, _| c.image.builder = Builder::Docker),
        ["docker_unavailable"]
    );
}

#[test]
fn credentials_end_the_command_as_such() {
    let mut observed = project();
    observed.credential = Credential::Expired(chrono::DateTime::UNIX_EPOCH);
    let failures = plan(&request(), &embedded(), &observed).unwrap_err();
    assert_eq!(failures[0].exit, Exit::Authentication);
    assert!(failures[0].details.contains("1970-01-01"));
}

#[test]
fn the_front_end_is_built_where_a_package_json_asks_for_it() {
    assert_eq!(
        codes(|_, _, o| {
            o.web.package_json = true;
            present(o).remove("core/web/dist/");
        }),
        ["npm_missing"]
    );
    let mut observed = project();
    observed.web.package_json = true;
    observed.web.npm = true;
    let plan = plan(&request(), &embedded(), &observed).unwrap();
    assert_eq!(plan.build.unwrap().web, Some("core/web".into()));
}

#[test]
fn packages_outside_the_workspace_are_built_by_themselves() {
    let mut observed = project();
    observed.packages[0].manifest = Some("core/Cargo.toml".into());
    let plan = plan(&request(), &embedded(), &observed).unwrap();
    let invocations = plan.build.unwrap().invocations;
    assert_eq!(invocations.len(), 2);
    assert_eq!(invocations[1].packages, ["systemprompt"]);
}

#[test]
fn where_cargo_puts_binaries() {
    for (source, name) in [
        ("target/release/app", Some("app")),
        (
            "./core/target/x86_64-unknown-linux-gnu/debug/app",
            Some("app"),
        ),
        ("target/release/*", None),
        ("target/app", None),
        ("services/", None),
        ("target/release/a/b/app", None),
    ] {
        assert_eq!(artifact_name(source), name, "{source}");
    }
}

/// How layers are sent to a place, with a change to the configuration.
fn sent(url: Option<&str>, change: impl FnOnce(&mut Config)) -> LayerCompression {
    let mut config = embedded();
    if let Some(url) = url {
        config.control_plane = ControlPlane::ManagementApi;
        config.api.url = url.parse().unwrap();
    }
    change(&mut config);
    let observed = Observed {
        zstd: true,
        ..project()
    };
    let plan = plan(&request(), &config, &observed).unwrap();
    plan.image.unwrap().compression
}

#[test]
fn layers_are_compressed_for_the_network() {
    assert_eq!(sent(None, |_| ()), LayerCompression::None);
    for near in [
        "http://127.0.0.1:8080",
        "http://localhost",
        "http://[::1]:1",
    ] {
        assert_eq!(sent(Some(near), |_| ()), LayerCompression::None, "{near}");
    }
    let far = Some("https://api.example.com");
    assert_eq!(sent(far, |_| ()), LayerCompression::Gzip(1));
    assert_eq!(
        sent(far, |config| config.image.compression_level = 9),
        LayerCompression::Gzip(9)
    );
    let zstd = |config: &mut Config| config.image.compression = Compression::Zstd;
    assert_eq!(sent(far, zstd), LayerCompression::Zstd(3));
    let none = |config: &mut Config| config.image.compression = Compression::None;
    assert_eq!(sent(far, none), LayerCompression::None);
}

#[test]
fn compression_that_cannot_be_is_refused() {
    let zstd = |there, taken| {
        codes(|_, config, observed| {
            config.image.compression = Compression::Zstd;
            (observed.zstd, observed.takes_zstd) = (there, taken);
        })
    };
    assert_eq!(zstd(true, None), [""; 0]);
    assert_eq!(zstd(true, Some(true)), [""; 0]);
    assert_eq!(zstd(true, Some(false)), ["zstd_refused"]);
    assert_eq!(zstd(false, None), ["zstd_missing"]);
    let level = codes(|_, config, _| {
        config.image.compression = Compression::Gzip;
        config.image.compression_level = 10;
    });
    assert_eq!(level, ["compression_level_invalid"]);
}

#[test]
fn a_base_that_nothing_would_stand_on_is_told() {
    let unused = |change: fn(&mut Request, &mut Config, &mut Observed)| {
        let (mut request, mut config, mut observed) = (request(), embedded(), project());
        config.image.base = Base::Image("debian:12".into());
        change(&mut request, &mut config, &mut observed);
        let plan = plan(&request, &config, &observed).unwrap();
        plan.base_unused().map(|failure| failure.details)
    };
    let by_docker = |_: &mut Request, config: &mut Config, observed: &mut Observed| {
        config.image.builder = Builder::Docker;
        observed.docker = true;
    };
    assert_eq!(unused(|_, _, _| {}), None);
    let details = unused(by_docker).unwrap();
    assert!(details.contains("what their `FROM` says"), "{details}");
    let details = unused(|request, _, _| {
        request.skip_push = true;
        request.tag = Some("v1".into());
    });
    assert!(details.unwrap().contains("makes no image"));
    assert_eq!(
        unused(|_, config, observed| {
            config.image.base = Base::Dockerfile;
            config.image.builder = Builder::Docker;
            observed.docker = true;
        }),
        None
    );
}

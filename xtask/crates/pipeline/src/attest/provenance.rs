//! How an image was made: an in-toto statement with SLSA's predicate for builds,
//! <https://slsa.dev/spec/v1.0/provenance>.
//!
//! It is about one push: the same image that another commit gives as well gets another statement.

use std::path::Path;

use deploy_plan::config::Base;
use deploy_plan::plan::{Image, Plan};
use oci::{Algorithm, Digest};
use serde::Serialize;

use crate::base::UsedBase;
use crate::child::Program;
use crate::interrupt::Interrupts;

pub(super) const MEDIA_TYPE: &str = "application/vnd.in-toto+json";
/// Says how the parameters are to be read. Described in docs/guides/image.md.
const BUILD_TYPE: &str = "https://github.com/systempromptio/systemprompt-template/blob/main/docs/guides/image.md#provenance";
const BUILDER: &str = "https://github.com/systempromptio/systemprompt-template/tree/main/xtask";
/// Somebody else's program has then decided what is in the layers.
const BUILDER_WITH_DOCKER: &str =
    "https://github.com/systempromptio/systemprompt-template/tree/main/xtask#docker";

/// What the statement is about.
pub(super) struct Made<'a> {
    pub(super) root: &'a Path,
    pub(super) image: &'a Image,
    pub(super) plan: &'a Plan,
    /// `registry/repository`
    pub(super) name: String,
    pub(super) digest: Digest,
    pub(super) bases: &'a [UsedBase],
    /// The version of the engine, where one built it.
    pub(super) docker: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Statement {
    #[serde(rename = "_type")]
    kind: &'static str,
    subject: [Resource; 1],
    predicate_type: &'static str,
    predicate: Predicate,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Predicate {
    build_definition: Definition,
    run_details: RunDetails,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Definition {
    build_type: &'static str,
    external_parameters: External,
    internal_parameters: Internal,
    resolved_dependencies: Vec<Resource>,
}

/// What whoever asked for the build could choose.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct External {
    environment: String,
    /// `native` or `docker`.
    builder: &'static str,
    dockerfile: String,
    base: String,
    /// Names only: values may be secrets.
    build_arguments: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<String>,
    packages: Vec<String>,
}

/// What the machine brought along.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Internal {
    rustc: String,
    host: String,
    /// `clean`, `modified` or `unknown`.
    tree_state: &'static str,
}

#[derive(Serialize)]
struct RunDetails {
    builder: Builder,
}

#[derive(Serialize)]
struct Builder {
    id: &'static str,
    version: BuilderVersion,
}

#[derive(Serialize)]
struct BuilderVersion {
    xtask: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    docker: Option<String>,
}

#[derive(Serialize)]
struct Resource {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uri: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digests>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Digests {
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha512: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    git_commit: Option<String>,
}

impl Statement {
    pub(super) fn of(made: &Made<'_>) -> Self {
        let rustc = rustc(made.root);
        let git = Git::of(made.root);
        Self {
            kind: "https://in-toto.io/Statement/v1",
            subject: [Resource {
                name: Some(made.name.clone()),
                uri: None,
                digest: Some(digests(made.digest)),
            }],
            predicate_type: "https://slsa.dev/provenance/v1",
            predicate: Predicate {
                build_definition: Definition {
                    build_type: BUILD_TYPE,
                    external_parameters: external(made),
                    internal_parameters: Internal {
                        rustc: rustc.version,
                        host: rustc.host,
                        tree_state: git.state,
                    },
                    resolved_dependencies: materials(made, &git),
                },
                run_details: RunDetails {
                    builder: Builder {
                        id: match made.docker {
                            Some(_) => BUILDER_WITH_DOCKER,
                            None => BUILDER,
                        },
                        version: BuilderVersion {
                            xtask: env!("CARGO_PKG_VERSION"),
                            docker: made.docker.map(str::to_owned),
                        },
                    },
                },
            },
        }
    }
}

fn external(made: &Made<'_>) -> External {
    let build = made.plan.build.as_ref();
    let invocations = build.into_iter().flat_map(|build| &build.invocations);
    External {
        environment: made.plan.environment.clone(),
        builder: match made.docker {
            Some(_) => "docker",
            None => "native",
        },
        dockerfile: made.image.dockerfile.display().to_string(),
        // With Docker only what `FROM` says counts.
        base: match made.docker {
            Some(_) => Base::Dockerfile.to_string(),
            None => made.image.base.to_string(),
        },
        build_arguments: made.image.build_args.keys().cloned().collect(),
        profile: build.map(|build| build.profile.clone()),
        packages: invocations.flat_map(|run| run.packages.clone()).collect(),
    }
}

/// The sources, the files that decide what becomes of them, and what it stands on.
fn materials(made: &Made<'_>, git: &Git) -> Vec<Resource> {
    let commit = git.commit.as_ref().map(|commit| Resource {
        name: None,
        uri: git
            .remote
            .as_ref()
            .map(|remote| format!("git+{remote}@{commit}")),
        digest: Some(Digests {
            git_commit: Some(commit.clone()),
            ..Digests::default()
        }),
    });
    let files = [Path::new("Cargo.lock"), &made.image.dockerfile];
    let files = files.into_iter().filter_map(|file| {
        let bytes = std::fs::read(made.root.join(file)).ok()?;
        Some(Resource {
            name: Some(file.display().to_string()),
            uri: None,
            digest: Some(digests(Digest::of(&bytes))),
        })
    });
    let bases = made.bases.iter().map(base);
    commit.into_iter().chain(files).chain(bases).collect()
}

/// A base image, with its package URL (type `oci`).
fn base(used: &UsedBase) -> Resource {
    let reference = &used.reference;
    let uri = used.digest.map(|digest| {
        let path = reference.repository().as_str();
        let name = path.rsplit('/').next().unwrap_or(path);
        let tag = reference.tag().map(|tag| format!("&tag={tag}"));
        format!(
            "pkg:oci/{name}@{}%3A{}?repository_url={}/{path}{}",
            digest.algorithm(),
            digest.hex(),
            reference.registry(),
            tag.unwrap_or_default()
        )
    });
    Resource {
        name: Some(reference.to_string()),
        uri,
        digest: used.digest.map(digests),
    }
}

/// A base image may be pinned by either algorithm.
fn digests(digest: Digest) -> Digests {
    let hex = Some(digest.hex());
    match digest.algorithm() {
        Algorithm::Sha256 => Digests {
            sha256: hex,
            ..Digests::default()
        },
        Algorithm::Sha512 => Digests {
            sha512: hex,
            ..Digests::default()
        },
    }
}

/// The compiler.
#[derive(Default)]
pub(super) struct Rustc {
    /// Its first line about itself.
    version: String,
    /// The platform it runs on and compiles for.
    pub(super) host: String,
}

/// Asks the compiler that cargo uses here; nothing where there is none.
pub(super) fn rustc(root: &Path) -> Rustc {
    let text = read(root, "rustc", &["-vV"]).unwrap_or_default();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Rustc {
        version: text.lines().next().unwrap_or_default().to_owned(),
        host: host.unwrap_or_default().to_owned(),
    }
}

/// The work tree.
struct Git {
    commit: Option<String>,
    remote: Option<String>,
    state: &'static str,
}

impl Git {
    fn of(root: &Path) -> Self {
        let commit = read(root, "git", &["rev-parse", "--verify", "HEAD"]);
        let remote = read(root, "git", &["config", "--get", "remote.origin.url"]);
        let status = ["--no-optional-locks", "status", "--porcelain"];
        let status = read(root, "git", &status);
        Self {
            commit: commit.filter(|_| status.is_some()),
            remote: remote.as_deref().and_then(public_address),
            state: match status.as_deref() {
                Some("") => "clean",
                Some(_) => "modified",
                None => "unknown",
            },
        }
    }
}

/// The address without the user and the password that some keep in it; none of a folder here.
fn public_address(remote: &str) -> Option<String> {
    let (scheme, rest) = remote
        .split_once("://")
        .filter(|(scheme, _)| *scheme != "file")?;
    let (host, path) = rest.split_once('/')?;
    let (_, host) = host.rsplit_once('@').unwrap_or(("", host));
    Some(format!("{scheme}://{host}/{path}"))
}

/// What a program prints; `None` when it fails or is not there.
fn read(root: &Path, program: &str, arguments: &[&str]) -> Option<String> {
    let mut lines = Vec::new();
    let status = Program::new(program, root)
        .arguments(arguments)
        .stream(
            &Interrupts::default(),
            |line| lines.push(line.to_owned()),
            |_| {},
        )
        .ok()?;
    status.success().then(|| lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gives_no_password_away() {
        for (remote, expected) in [
            (
                "https://me:word@example.org/a.git",
                Some("https://example.org/a.git"),
            ),
            (
                "https://example.org/a.git",
                Some("https://example.org/a.git"),
            ),
            ("file:///home/me/a", None),
            ("/home/me/a", None),
        ] {
            assert_eq!(public_address(remote).as_deref(), expected, "{remote}");
        }
    }

    #[test]
    fn a_base_is_named_for_people_and_for_programs() {
        let digest = Digest::of(b"manifest");
        let named = |text: &str, digest| {
            let reference = text.parse().unwrap();
            serde_json::to_value(base(&UsedBase { reference, digest })).unwrap()
        };
        let hex = digest.hex();
        assert_eq!(
            named("debian:bookworm-slim", Some(digest)),
            serde_json::json!({
                "name": "docker.io/library/debian:bookworm-slim",
                "uri": format!("pkg:oci/debian@sha256%3A{hex}?repository_url=docker.io/library/debian\
                                &tag=bookworm-slim"),
                "digest": {"sha256": hex},
            })
        );
        assert_eq!(
            named("localhost:5000/team/app", None),
            serde_json::json!({"name": "localhost:5000/team/app"})
        );
    }

    #[test]
    fn the_compiler_tells_its_platform() {
        let rustc = rustc(Path::new("/"));
        assert!(rustc.version.starts_with("rustc 1."), "{}", rustc.version);
        assert!(rustc.host.contains('-'), "{}", rustc.host);
    }
}

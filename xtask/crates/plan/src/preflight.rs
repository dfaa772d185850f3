//! The checks that run before anything is begun. All of them run; every failure is reported.

mod services;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::config::{
    APP, Builder, Compression, Config, ControlPlane, HealthKind, LivenessKind, ServiceHealthKind,
};
use crate::exit::Exit;
use crate::failure::{Failure, Step};
use crate::observed::{Copy, Credential, Dockerfile, Extension, Observed};
use crate::plan::{Recipe, Request, SERVER_BINARY, artifact_name, producer, recipe, recipe_of_app};
use crate::tag;

/// Everything that speaks against the deployment, in the order in which it would have failed.
#[must_use]
pub fn check(request: &Request, config: &Config, observed: &Observed) -> Vec<Failure> {
    let mut failures = Vec::new();
    failures.extend(credentials(request, config, observed));
    failures.extend(tags(request));
    failures.extend(tree(config, observed));
    failures.extend(checks(config));
    failures.extend(services::sources_of_app(config));
    failures.extend(services::secrets_of_app(config, observed));
    failures.extend(services::check(request, config, observed));
    if !request.skip_push {
        let made = made(request, config, observed);
        failures.extend(made.iter().flat_map(dockerfile));
        failures.extend(packages(observed));
        failures.extend(variables(request, config, observed));
        failures.extend(services::binaries(request, config, observed));
        let sources = |made| sources(request, config, observed, made);
        failures.extend(made.iter().flat_map(sources));
        failures.extend(extensions(config, observed, &made));
        failures.extend(engine(config, observed, &made));
        failures.extend(compression(config, observed));
        failures.extend(server(request, config, observed));
        failures.extend(web(request, observed, &made));
    }
    failures
}

/// What deserves a look but stops nothing.
#[must_use]
pub fn warnings(request: &Request, observed: &Observed) -> Vec<String> {
    let mut warnings = Vec::new();
    if request.skip_push {
        return warnings;
    }
    match &observed.git {
        None => warnings
            .push("not a git repository: the tag says `unknown` instead of a commit".to_owned()),
        Some(git) if git.dirty => warnings
            .push("the work tree has uncommitted changes: the tag ends in `-dirty`".to_owned()),
        Some(_) => {}
    }
    warnings
}

/// Credentials that are missing or expired.
#[must_use]
pub fn credentials(request: &Request, config: &Config, observed: &Observed) -> Option<Failure> {
    let environment = &request.environment;
    let url = &config.api.url;
    let (code, details) = match observed.credential {
        Credential::NotNeeded | Credential::Usable => return None,
        Credential::Missing => (
            "credentials_missing",
            format!("no credentials for {url} (environment {environment})"),
        ),
        Credential::Expired(at) => (
            "credentials_expired",
            format!(
                "the token for {url} expired at {}",
                at.format("%Y-%m-%d %H:%M UTC")
            ),
        ),
    };
    Some(Failure::new(
        Step::Preflight,
        code,
        Exit::Authentication,
        details,
        "set SYSTEMPROMPT_API_TOKEN, or log in: cargo xtask login",
    ))
}

fn tags(request: &Request) -> Vec<Failure> {
    match &request.tag {
        Some(tag) if !tag::is_valid(tag) => vec![Failure::new(
            Step::Preflight,
            "tag_invalid",
            Exit::Usage,
            format!("`{tag}` is not a tag that registries accept"),
            "use letters, digits, `_`, `.` and `-`, at most 128 of them",
        )],
        None if request.skip_push => vec![Failure::new(
            Step::Preflight,
            "tag_missing",
            Exit::Usage,
            "--skip-push deploys an image that is there: it needs to know which",
            "add --tag TAG; `cargo xtask history` lists those that were deployed",
        )],
        _ => Vec::new(),
    }
}

fn tree(config: &Config, observed: &Observed) -> Option<Failure> {
    if !config.deploy.require_clean {
        return None;
    }
    let details = match &observed.git {
        Some(git) if !git.dirty => return None,
        Some(_) => "the work tree has uncommitted changes, and a clean one is required",
        None => "this is not a git repository, and a clean work tree is required",
    };
    Some(Failure::preflight(
        "tree_not_clean",
        details,
        "commit or stash the changes, or leave out --require-clean (deploy.require_clean)",
    ))
}

/// The key that names the Dockerfile of `app`.
const OF_APP: &str = "image.dockerfile";

/// An image that is made here.
struct Made<'a> {
    /// The key that names its Dockerfile.
    key: String,
    /// The file, or what it is called.
    path: PathBuf,
    dockerfile: &'a Dockerfile,
    /// For one binary; no file holds its instructions.
    generated: bool,
}

/// All images that are made here, that of `app` first.
fn made<'a>(request: &Request, config: &Config, observed: &'a Observed) -> Vec<Made<'a>> {
    let is_made = |name: &str| !request.there.contains_key(name);
    let of_app = recipe_of_app(config).filter(|_| is_made(APP));
    let of_app = of_app.map(|recipe| Made {
        key: OF_APP.to_owned(),
        path: recipe.dockerfile,
        dockerfile: &observed.dockerfile,
        generated: recipe.text.is_some(),
    });
    let others = config.services.others.iter();
    let others = others.filter(|(name, _)| is_made(name.as_str()));
    let others = others.filter_map(|(name, service)| {
        let Recipe { dockerfile, text } =
            recipe(name.as_str(), service, config, &observed.dockerfile)?;
        Some(Made {
            key: format!("services.{name}.dockerfile"),
            path: dockerfile,
            dockerfile: observed.dockerfiles.get(name.as_str())?,
            generated: text.is_some(),
        })
    });
    of_app.into_iter().chain(others).collect()
}

/// A command is said where it is run, and nowhere else: it would be ignored.
fn checks(config: &Config) -> Vec<Failure> {
    let (health, liveness) = (&config.health, &config.liveness);
    let of_app = [
        (
            "health".to_owned(),
            health.kind == HealthKind::Command,
            &health.command,
        ),
        (
            "liveness".to_owned(),
            liveness.kind == LivenessKind::Command,
            &liveness.command,
        ),
    ];
    let others = config.services.others.iter().flat_map(|(name, service)| {
        let health = service.health.as_ref().map(|health| {
            let is_run = health.kind == ServiceHealthKind::Command;
            (format!("services.{name}.health"), is_run, &health.command)
        });
        let liveness = &service.liveness;
        let is_run = liveness.kind == LivenessKind::Command;
        let liveness = (
            format!("services.{name}.liveness"),
            is_run,
            &liveness.command,
        );
        health.into_iter().chain([liveness])
    });
    let sections = of_app.into_iter().chain(others);
    let wrong = sections.filter_map(|(section, is_run, words)| {
        let details = match (is_run, words.is_empty()) {
            (true, true) => format!("{section}.kind is command, and {section}.command is empty"),
            (false, false) => {
                format!("{section}.command says what to run, and {section}.kind is not command")
            }
            (true, false) | (false, true) => return None,
        };
        let resolution =
            format!("set both {section}.kind = \"command\" and {section}.command, or neither");
        Some(Failure::preflight("check_invalid", details, resolution))
    });
    wrong.collect()
}

fn dockerfile(made: &Made<'_>) -> Vec<Failure> {
    let path = made.path.display();
    match made.dockerfile {
        Dockerfile::Missing => vec![Failure::preflight(
            "dockerfile_missing",
            format!("there is no Dockerfile at {path}"),
            format!(
                "write one, or name another: {} in .systemprompt/deploy.toml",
                made.key
            ),
        )],
        Dockerfile::Invalid(faults) => faults
            .iter()
            .map(|fault| {
                Failure::preflight(
                    "dockerfile_invalid",
                    format!("{path}: {fault}"),
                    format!("correct that line of {path}"),
                )
            })
            .collect(),
        Dockerfile::Read { .. } => Vec::new(),
    }
}

fn packages(observed: &Observed) -> Vec<Failure> {
    observed
        .unknown_packages
        .iter()
        .map(|words| {
            Failure::preflight(
                "package_unknown",
                words.clone(),
                "correct build.packages or build.manifests in .systemprompt/deploy.toml",
            )
        })
        .collect()
}

fn variables(request: &Request, config: &Config, observed: &Observed) -> Vec<Failure> {
    config
        .deploy
        .require_env
        .iter()
        .filter(|name| config.env.get(name).is_none() && !observed.variables.contains(*name))
        .map(|name| {
            let resolution = if name == "DATABASE_URL" {
                "ensure that a local tenant with a database exists, or export DATABASE_URL"
                    .to_owned()
            } else {
                format!("export {name}, or set env.{name} in .systemprompt/deploy.toml")
            };
            Failure::preflight(
                "variable_missing",
                format!(
                    "{name} is not set, and environment {} needs it",
                    request.environment
                ),
                resolution,
            )
        })
        .collect()
}

/// The `COPY` lines of all images.
fn copies<'a>(made: &[Made<'a>]) -> impl Iterator<Item = (&'a Dockerfile, &'a Copy)> {
    made.iter().flat_map(|made| {
        let copies = made.dockerfile.copies().iter();
        copies.map(|copy| (made.dockerfile, copy))
    })
}

/// A `COPY` whose source is not there and will not be made.
fn sources(
    request: &Request,
    config: &Config,
    observed: &Observed,
    made: &Made<'_>,
) -> Vec<Failure> {
    let copies = made.dockerfile.copies().iter();
    let sources = copies.flat_map(|copy| copy.sources.iter().map(|source| (copy.line, source)));
    let failures = sources.filter_map(|(line, source)| {
        let at = if made.generated {
            made.path.display().to_string()
        } else {
            format!("{}:{line}", made.path.display())
        };
        source_failure(request, config, observed, made, &at, source)
    });
    failures.collect()
}

fn source_failure(
    request: &Request,
    config: &Config,
    observed: &Observed,
    made: &Made<'_>,
    at: &str,
    source: &str,
) -> Option<Failure> {
    let there = made.dockerfile.finds(source);
    if let Some(binary) = artifact_name(source) {
        return match producer(binary, config, observed) {
            // Cargo puts it there, whatever is there now.
            Some(_) if !request.skip_build => None,
            _ if there && request.skip_build => None,
            Some(package) => Some(Failure::preflight(
                "binary_not_found",
                format!("{at}: {source} is not built, and --skip-build leaves it so"),
                format!(
                    "leave out --skip-build, or build it: cargo build --profile {} -p {}",
                    config.build.profile, package.name
                ),
            )),
            // Told with the key that names it.
            None if made.generated => None,
            None => Some(Failure::preflight(
                "copy_stale",
                format!("{at}: no package builds {source}"),
                format!("remove the COPY, or add a package with a binary named {binary}"),
            )),
        };
    }
    if there {
        return None;
    }
    if Path::new(source).starts_with(&observed.web.folder) {
        // The web check speaks of it, whether npm can make it or not.
        return None;
    }
    Some(Failure::preflight(
        "copy_source_missing",
        format!("{at}: nothing is at {source}"),
        "make the file, or correct the COPY; `.dockerignore` may hide it",
    ))
}

/// An enabled extension whose binary would not be in the image.
fn extensions(config: &Config, observed: &Observed, made: &[Made<'_>]) -> Vec<Failure> {
    let of_app = made
        .iter()
        .find(|made| made.key == OF_APP && !made.generated);
    if !of_app.is_some_and(|made| matches!(made.dockerfile, Dockerfile::Read { .. })) {
        return Vec::new();
    }
    let shipped: BTreeSet<&str> = copies(made)
        .flat_map(|(_, copy)| &copy.sources)
        .filter_map(|source| artifact_name(source))
        .collect();
    observed
        .extensions
        .iter()
        .filter(|extension| extension.enabled && !shipped.contains(extension.binary.as_str()))
        .map(|extension| not_shipped(extension, config))
        .collect()
}

fn not_shipped(extension: &Extension, config: &Config) -> Failure {
    let Extension {
        name, binary, path, ..
    } = extension;
    let dockerfile = config.image.dockerfile.display();
    let profile = profile_folder(&config.build.profile);
    Failure::preflight(
        "extension_not_shipped",
        format!(
            "the extension {name} ({}) is enabled, but no COPY of {dockerfile} ships its binary {binary}",
            path.display()
        ),
        format!(
            "add to {dockerfile}: COPY target/{profile}/{binary} /app/bin/mcp/ — or set `enabled: false`"
        ),
    )
}

/// Where cargo puts what a profile builds, below the target folder.
#[must_use]
pub fn profile_folder(profile: &str) -> &str {
    match profile {
        "dev" | "test" => "debug",
        "bench" => "release",
        other => other,
    }
}

fn engine(config: &Config, observed: &Observed, made: &[Made<'_>]) -> Vec<Failure> {
    // What is wrong with that of `app` is told.
    let unread = |made: &Made<'_>| !matches!(made.dockerfile, Dockerfile::Read { .. });
    if made.first().is_none_or(unread) {
        return Vec::new();
    }
    if config.image.builder == Builder::Docker {
        return if observed.docker || made.iter().all(|made| made.generated) {
            Vec::new()
        } else {
            vec![Failure::preflight(
                "docker_unavailable",
                "image.builder is docker, but no Docker Engine answers",
                "start Docker, or use --builder native",
            )]
        };
    }
    if config.image.builder == Builder::Auto && observed.docker {
        return Vec::new();
    }
    let needs = made.iter().filter_map(|made| match made.dockerfile {
        Dockerfile::Read { needs_engine, .. } => Some((made, needs_engine)),
        Dockerfile::Missing | Dockerfile::Invalid(_) => None,
    });
    needs
        .flat_map(|(made, needs)| needs.iter().map(move |need| (made, need)))
        .map(|(made, need)| {
            Failure::preflight(
                "engine_needed",
                format!(
                    "{}:{}: {} {}, and no Docker Engine answers",
                    made.path.display(),
                    need.line,
                    need.instruction,
                    need.reason
                ),
                "remove the instruction, or start Docker and use --builder docker",
            )
        })
        .collect()
}

/// Compression that cannot be done here, or not be undone there.
fn compression(config: &Config, observed: &Observed) -> Vec<Failure> {
    const RESOLUTION: &str = "set image.compression to gzip or auto";
    let mut failures = Vec::new();
    if config.image.compression == Compression::Gzip && config.image.compression_level > 9 {
        failures.push(Failure::preflight(
            "compression_level_invalid",
            format!("gzip has no level {}", config.image.compression_level),
            "set image.compression_level to 1 to 9, or to 0 for the default",
        ));
    }
    if config.image.compression != Compression::Zstd {
        return failures;
    }
    if observed.takes_zstd == Some(false) {
        failures.push(Failure::preflight(
            "zstd_refused",
            "image.compression is zstd, and the platform does not run images with zstd layers",
            RESOLUTION,
        ));
    }
    if !observed.zstd {
        failures.push(Failure::preflight(
            "zstd_missing",
            "image.compression is zstd, and the program zstd is not there",
            format!("install zstd, or {RESOLUTION}"),
        ));
    }
    failures
}

/// The embedded platform needs a server to run.
fn server(request: &Request, config: &Config, observed: &Observed) -> Option<Failure> {
    let builds = producer(SERVER_BINARY, config, observed).is_some() && !request.skip_build;
    if config.control_plane != ControlPlane::Embedded || observed.server_binary || builds {
        return None;
    }
    Some(Failure::preflight(
        "server_missing",
        "the embedded platform needs the `systemprompt` binary, and no package here builds it",
        "install systemprompt, or name it: local.server in .systemprompt/deploy.toml",
    ))
}

fn web(request: &Request, observed: &Observed, made: &[Made<'_>]) -> Option<Failure> {
    let folder = observed.web.folder.display();
    let missing = copies(made).find_map(|(dockerfile, copy)| {
        let source = copy.sources.iter().find(|source| {
            Path::new(source).starts_with(&observed.web.folder) && !dockerfile.finds(source)
        })?;
        Some((copy.line, source))
    });
    if observed.web.package_json && !request.skip_build {
        return (!observed.web.npm).then(|| {
            Failure::preflight(
                "npm_missing",
                format!("{folder} has a package.json, but npm is not installed"),
                "install Node.js with npm, or use --skip-build with a built front end",
            )
        });
    }
    let (line, source) = missing?;
    Some(Failure::preflight(
        "web_dist_missing",
        format!("line {line} of the Dockerfile copies {source}, which is not there"),
        format!("run `npm run build` in {folder}"),
    ))
}

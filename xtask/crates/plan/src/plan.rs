//! The plan: what a deployment would do, as a value. `--dry-run` prints it; the pipeline runs it
//! and makes no choices of its own.

mod services;

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use crate::config::{APP, Base, Builder, Compression, Config, ControlPlane, Platform, Strategy};
use crate::failure::Failure;
use crate::observed::{Dockerfile, Live, Observed, Package};
use crate::{preflight, tag};

pub use services::{AppImage, Copied, Recipe, Service, ServiceImage, recipe, recipe_of_app};
pub(crate) use services::{dependencies, in_order};

/// What the user asked for on this run, beside the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the command line"
)]
pub struct Request {
    /// Name of the environment.
    pub environment: String,
    /// `--tag`.
    pub tag: Option<String>,
    /// `--skip-push`: deploy an image that the registry already holds.
    pub skip_push: bool,
    /// `--skip-build`: ship the binaries that are there.
    pub skip_build: bool,
    /// `--force`: deploy even what is live.
    pub force: bool,
    /// `--verify`: read every file again.
    pub verify: bool,
    /// Images that the tenant's repository has and that are deployed as they are, whatever the configuration says of them: by
    /// the service, with their digests.
    pub there: BTreeMap<String, String>,
}

/// What would be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Name of the environment.
    pub environment: String,
    /// Where to.
    pub target: Target,
    /// Which tag.
    pub tag: Tag,
    /// What is built; nothing with `--skip-push` or `--skip-build`.
    pub build: Option<Build>,
    /// How the image is made; not at all with `--skip-push`. Where `app` has another image, this says how those of other
    /// services are.
    pub image: Option<Image>,
    /// Whether `app` has that image.
    pub app: AppImage,
    /// The services beside `app`.
    pub services: Vec<Service>,
    /// The names of all services in an order in which they can be started.
    pub order: Vec<String>,
    /// The rollout.
    pub rollout: Rollout,
    /// The release that serves now.
    pub live: Option<Live>,
    /// What deserves a look but stops nothing.
    pub warnings: Vec<String>,
}

impl Plan {
    /// What speaks against a base that somebody asks for with an option: no image of this release would stand on it.
    #[must_use]
    pub fn base_unused(&self) -> Option<Failure> {
        let of_app = self.image.as_ref().filter(|_| self.app == AppImage::Made);
        let of_others = self
            .services
            .iter()
            .filter_map(|service| match &service.image {
                ServiceImage::Made(image) => Some(&**image),
                _ => None,
            });
        let made: Vec<&Image> = of_app.into_iter().chain(of_others).collect();
        let stands_on_it = |image: &&Image| {
            // What its `FROM` says is what every builder gives it.
            image.builder == ImageBuilder::Native || image.base == Base::Dockerfile
        };
        let why = match made.as_slice() {
            [] => "this deployment makes no image",
            made if made.iter().any(stands_on_it) => return None,
            _ => "images that Docker builds stand on what their `FROM` says",
        };
        let resolution = "leave --base out; or let the image be made here: --builder native";
        let details = format!("--base would not be used: {why}");
        Some(Failure::preflight("base_unused", details, resolution))
    }
}

/// Where a release goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Which kind of platform.
    pub control_plane: ControlPlane,
    /// Its address; for the embedded one, where it runs is found at execution.
    pub api_url: Option<String>,
    /// The tenant; `None` when the token must be asked which it may see.
    pub tenant: Option<String>,
    /// The repository, when it is not the one that the platform answers.
    pub repository: Option<String>,
}

/// Which tag the image gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tag {
    /// The one given by `--tag`.
    Pinned(String),
    /// The server's, if it sends one with the registry token, else this one.
    Generated(String),
}

impl Tag {
    /// The tag that is used, given what the server sent.
    #[must_use]
    pub fn resolve(&self, from_server: Option<&str>) -> String {
        match self {
            Self::Pinned(tag) => tag.clone(),
            Self::Generated(tag) => from_server.unwrap_or(tag).to_owned(),
        }
    }
}

/// What is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// The cargo profile.
    pub profile: String,
    /// `--locked`.
    pub locked: bool,
    /// The front end, where a `package.json` asks for it.
    pub web: Option<PathBuf>,
    /// One cargo invocation each: the workspace first, then every manifest outside it.
    pub invocations: Vec<Invocation>,
}

/// One run of cargo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// `--manifest-path`; `None` for the workspace.
    pub manifest: Option<PathBuf>,
    /// The packages.
    pub packages: Vec<String>,
}

/// How the image is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Natively or with Docker; decided.
    pub builder: ImageBuilder,
    /// What it stands on.
    pub base: Base,
    /// The machines it is for; Linux on this machine's processor when absent.
    pub platform: Option<Platform>,
    /// Whether the base must have what the programs need.
    pub check_libraries: bool,
    /// Refuse a base image that `deploy.lock` does not pin.
    pub locked: bool,
    /// Relative to the project; where `text` is there, what it is called in messages.
    pub dockerfile: PathBuf,
    /// What the Dockerfile says, where no file does.
    pub text: Option<String>,
    /// Relative to the project.
    pub context: PathBuf,
    /// Values of `ARG`s.
    pub build_args: BTreeMap<String, String>,
    /// How layers are sent.
    pub compression: LayerCompression,
    /// `COPY` sources that are build artifacts, with what builds them.
    pub artifacts: BTreeMap<String, Artifact>,
    /// Read every file again rather than trust its time stamp.
    pub verify: bool,
    /// Paths in the image that may hold secrets.
    pub allow_secrets: Vec<String>,
    /// What is attached to it.
    pub attach: Attach,
}

/// What goes to the registry together with a new image; a signature does where there is a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attach {
    /// What its programs are made of.
    pub sbom: bool,
    /// How it was made.
    pub provenance: bool,
}

/// How layers are sent; decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerCompression {
    /// As they are.
    None,
    /// gzip of a level from 1 to 9.
    Gzip(u32),
    /// zstd of a level from 1 to 19.
    Zstd(u32),
}

/// Who makes the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ImageBuilder {
    /// We, from the Dockerfile, without an engine.
    Native,
    /// A Docker Engine.
    Docker,
}

/// A binary and the package that makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// The package.
    pub package: String,
    /// The binary.
    pub binary: String,
    /// How many of the project's own crates it is made of.
    pub own_crates: usize,
}

/// The rollout that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// The strategy.
    pub strategy: Strategy,
    /// Instances of the release.
    pub replicas: u32,
    /// How long it is watched on the way, in seconds: it comes on top of the deadline.
    pub watched_seconds: u64,
    /// Deadline, in seconds.
    pub timeout_seconds: u64,
    /// Whether to follow it to its end.
    pub wait: bool,
    /// Deploy even what is live.
    pub force: bool,
    /// Names of the variables that are set for the application (values may be secret).
    pub env: Vec<String>,
}

/// Makes the plan, or says everything that speaks against it.
pub fn plan(request: &Request, config: &Config, observed: &Observed) -> Result<Plan, Vec<Failure>> {
    let failures = preflight::check(request, config, observed);
    if !failures.is_empty() {
        return Err(failures);
    }
    let makes_image = !request.skip_push;
    Ok(Plan {
        environment: request.environment.clone(),
        target: target(config, observed),
        tag: match &request.tag {
            Some(tag) => Tag::Pinned(tag.clone()),
            None => Tag::Generated(tag::generate(
                observed.now.timestamp(),
                observed.git.as_ref(),
            )),
        },
        build: (makes_image && !request.skip_build).then(|| build(request, config, observed)),
        image: makes_image.then(|| image(request, config, observed)),
        app: services::of_app(request, config),
        services: services::services(request, config, observed),
        order: services::order(config),
        rollout: Rollout {
            strategy: config.deploy.strategy,
            replicas: config.deploy.replicas,
            watched_seconds: watched(config).as_secs(),
            timeout_seconds: config.deploy.timeout.as_std().as_secs().max(1),
            wait: config.deploy.wait,
            force: request.force,
            env: config.env.iter().map(|(name, _)| name.to_owned()).collect(),
        },
        live: observed.live.clone(),
        warnings: preflight::warnings(request, observed),
    })
}

/// The pauses that the strategy makes, all together. The platform rolls public services one after the other; it watches all of
/// them at once with the other strategies.
fn watched(config: &Config) -> std::time::Duration {
    let rollout = &config.rollout;
    match config.deploy.strategy {
        Strategy::Recreate => std::time::Duration::ZERO,
        Strategy::Rolling => {
            let batch = (rollout.max_surge + rollout.max_unavailable).max(1);
            let batches =
                services::public_replicas(config).map(|replicas| replicas.div_ceil(batch));
            rollout.batch_pause.as_std().saturating_mul(batches.sum())
        }
        Strategy::BlueGreen => rollout.bake.as_std(),
        Strategy::Canary => {
            let pauses = rollout.steps.iter().filter_map(|step| step.pause);
            pauses.map(super::config::Duration::as_std).sum()
        }
    }
}

fn target(config: &Config, observed: &Observed) -> Target {
    let embedded = config.control_plane == ControlPlane::Embedded;
    Target {
        control_plane: config.control_plane,
        api_url: (!embedded).then(|| config.api.url.to_string()),
        tenant: observed
            .tenant
            .clone()
            .or_else(|| embedded.then(|| EMBEDDED_TENANT.to_owned())),
        repository: config.image.repository.clone(),
    }
}

/// The tenant that the embedded platform makes by itself.
pub const EMBEDDED_TENANT: &str = "local";
/// The binary of the platform server.
pub const SERVER_BINARY: &str = "systemprompt";

fn build(request: &Request, config: &Config, observed: &Observed) -> Build {
    let wanted: Vec<&Package> = observed
        .packages
        .iter()
        .filter(|package| is_wanted(package, request, config, observed))
        .collect();
    let mut invocations: Vec<Invocation> = Vec::new();
    for package in wanted {
        match invocations
            .iter_mut()
            .find(|i| i.manifest == package.manifest)
        {
            Some(invocation) => invocation.packages.push(package.name.clone()),
            None => invocations.push(Invocation {
                manifest: package.manifest.clone(),
                packages: vec![package.name.clone()],
            }),
        }
    }
    invocations.sort_by(|a, b| a.manifest.cmp(&b.manifest));
    Build {
        profile: config.build.profile.clone(),
        locked: config.build.locked,
        web: observed
            .web
            .package_json
            .then(|| observed.web.folder.clone()),
        invocations,
    }
}

/// Packages named by the configuration; where it names none, those that the image ships. The
/// embedded platform is run from its binary too.
fn is_wanted(package: &Package, request: &Request, config: &Config, observed: &Observed) -> bool {
    let is_made = |name: &str| !request.there.contains_key(name);
    let ships = || {
        let of_app = is_made(APP).then_some(&observed.dockerfile);
        let others = observed.dockerfiles.iter();
        let others = others.filter(|(name, _)| is_made(name));
        of_app
            .into_iter()
            .chain(others.map(|(_, dockerfile)| dockerfile))
            .flat_map(|dockerfile| artifacts(dockerfile, config, observed).into_values())
            .any(|artifact| artifact.package == package.name)
    };
    let serves = config.control_plane == ControlPlane::Embedded
        && config.local.server.is_none()
        && package.binaries.iter().any(|b| b == SERVER_BINARY);
    if config.build.packages.is_empty() {
        ships() || serves
    } else {
        config.build.packages.contains(&package.name)
    }
}

fn image(request: &Request, config: &Config, observed: &Observed) -> Image {
    let recipe = recipe_of_app(config).unwrap_or_else(|| Recipe {
        dockerfile: config.image.dockerfile.clone(),
        text: None,
    });
    image_of(recipe, &observed.dockerfile, request, config, observed)
}

/// The image of a Dockerfile; all images of a release are made in the same way.
fn image_of(
    recipe: Recipe,
    dockerfile: &Dockerfile,
    request: &Request,
    config: &Config,
    observed: &Observed,
) -> Image {
    Image {
        builder: match recipe.text {
            Some(_) => ImageBuilder::Native,
            None => builder(config, dockerfile),
        },
        base: services::base_of(&recipe, config),
        platform: config.image.platform.clone(),
        check_libraries: config.image.check_libraries,
        locked: config.build.locked,
        dockerfile: recipe.dockerfile,
        text: recipe.text,
        context: config.image.context.clone(),
        build_args: config.image.build_args.clone(),
        compression: compression(config),
        artifacts: artifacts(dockerfile, config, observed),
        verify: request.verify,
        allow_secrets: config.image.allow_secrets.clone(),
        attach: Attach {
            sbom: config.image.sbom,
            provenance: config.image.provenance,
        },
    }
}

/// `auto` prefers our own builder, which is faster and needs nothing, and takes Docker only where
/// the Dockerfile leaves no choice.
fn builder(config: &Config, dockerfile: &Dockerfile) -> ImageBuilder {
    let needs_engine = matches!(
        dockerfile,
        Dockerfile::Read { needs_engine, .. } if !needs_engine.is_empty()
    );
    match config.image.builder {
        Builder::Docker => ImageBuilder::Docker,
        Builder::Auto if needs_engine => ImageBuilder::Docker,
        Builder::Auto | Builder::Native => ImageBuilder::Native,
    }
}

/// Compressing costs more time than sending to a registry on this machine; over a network it saves
/// more than it costs.
fn compression(config: &Config) -> LayerCompression {
    let near = config.control_plane == ControlPlane::Embedded || config.api.url.is_loopback();
    let level = |default| match config.image.compression_level {
        0 => default,
        level => level,
    };
    match config.image.compression {
        Compression::None => LayerCompression::None,
        Compression::Auto if near => LayerCompression::None,
        Compression::Auto | Compression::Gzip => LayerCompression::Gzip(level(GZIP_LEVEL)),
        Compression::Zstd => LayerCompression::Zstd(level(ZSTD_LEVEL)),
    }
}

/// Two thirds of the time of level 6, for layers that are 7 % larger.
const GZIP_LEVEL: u32 = 1;
/// What zstd itself does unless told otherwise.
const ZSTD_LEVEL: u32 = 3;

/// `COPY` sources that name a build artifact: `[…/]target/[TRIPLE/]PROFILE/BINARY`.
#[must_use]
pub fn artifacts(
    dockerfile: &Dockerfile,
    config: &Config,
    observed: &Observed,
) -> BTreeMap<String, Artifact> {
    dockerfile
        .copies()
        .iter()
        .flat_map(|copy| &copy.sources)
        .filter_map(|source| {
            let binary = artifact_name(source)?;
            let package = producer(binary, config, observed)?;
            let artifact = Artifact {
                package: package.name.clone(),
                binary: binary.to_owned(),
                own_crates: package.own_crates,
            };
            Some((source.clone(), artifact))
        })
        .collect()
}

/// The package that makes a binary, if any does and the configuration does not exclude it.
pub(crate) fn producer<'a>(
    binary: &str,
    config: &Config,
    observed: &'a Observed,
) -> Option<&'a Package> {
    observed.packages.iter().find(|package| {
        let chosen =
            config.build.packages.is_empty() || config.build.packages.contains(&package.name);
        chosen && package.binaries.iter().any(|b| b == binary)
    })
}

/// The binary that a `COPY` source names, when it lies where cargo puts binaries.
#[must_use]
pub fn artifact_name(source: &str) -> Option<&str> {
    let parts: Vec<&str> = source
        .trim_start_matches("./")
        .split('/')
        .filter(|part| !part.is_empty())
        .collect();
    let target = parts.iter().position(|part| *part == "target")?;
    let (name, folders) = parts[target + 1..].split_last()?;
    let literal = !name.contains(['*', '?', '[']);
    (matches!(folders.len(), 1 | 2) && literal).then_some(*name)
}

#[cfg(test)]
mod tests;

//! The sections of an environment, with their defaults.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    ApiUrl, Auth, Base, Builder, CanaryStep, Compression, Cpus, Duration, HealthKind, LivenessKind,
    Memory, Platform, Restart, Strategy, rules,
};

/// How the programs are built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Build {
    /// The cargo profile.
    #[serde(deserialize_with = "rules::not_empty")]
    #[schemars(length(min = 1))]
    pub profile: String,
    /// Fail when `Cargo.lock` is not up to date, as `cargo build --locked` does, or when
    /// `.systemprompt/deploy.lock` lacks a base image.
    pub locked: bool,
    /// The workspace packages to build. Empty: every package whose binary a `COPY` of the
    /// Dockerfile ships.
    pub packages: Vec<String>,
    /// `Cargo.toml` files of packages outside the workspace that are built too, relative to the
    /// project.
    pub manifests: Vec<PathBuf>,
    /// A folder that may hold a `package.json`, relative to the project; where it does, it is
    /// built with npm.
    #[schemars(with = "String")]
    pub web: PathBuf,
}

impl Default for Build {
    fn default() -> Self {
        Self {
            profile: "release".to_owned(),
            locked: false,
            packages: Vec::new(),
            manifests: Vec::new(),
            web: PathBuf::from("core/web"),
        }
    }
}

/// How the image is assembled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Image {
    /// The Dockerfile, relative to the project.
    #[schemars(with = "String")]
    pub dockerfile: PathBuf,
    /// The folder that `COPY` reads from, relative to the project.
    #[schemars(with = "String")]
    pub context: PathBuf,
    /// What the image stands on: `dockerfile` (what its `FROM` says), `host` (a layer made from
    /// this machine's loader and the libraries that the binaries need), `scratch`, or an image
    /// reference with a tag or digest.
    pub base: Base,
    /// The machines the image is for, as in `linux/arm64`. Empty: Linux on this machine's processor.
    #[serde(with = "rules::optional_platform")]
    #[schemars(with = "String")]
    pub platform: Option<Platform>,
    /// Check that a base image from a registry has the libraries and symbol versions that the
    /// programs need. The base's layers are fetched once for that.
    pub check_libraries: bool,
    /// Who assembles the image.
    pub builder: Builder,
    /// How layers are sent.
    pub compression: Compression,
    /// How hard to compress: 1 (fast) to 9 for gzip, to 19 for zstd; 0 for the default,
    /// which is 1 for gzip and 3 for zstd.
    #[schemars(range(min = 0, max = 19))]
    pub compression_level: u32,
    /// Values of the Dockerfile's `ARG`s.
    #[serde(deserialize_with = "rules::variable_names")]
    pub build_args: BTreeMap<String, String>,
    /// The repository pushed to, in place of the one that the Management API answers.
    #[serde(with = "rules::optional")]
    #[schemars(with = "String")]
    pub repository: Option<String>,
    /// Files that may go into the image although they look like secrets: paths in the image or
    /// patterns of them, a folder standing for all below it.
    pub allow_secrets: Vec<String>,
    /// Attach a list of everything the programs are made of (SBOM, `CycloneDX`) to a new image.
    pub sbom: bool,
    /// Attach a record of how it was made (SLSA provenance) to a new image.
    pub provenance: bool,
    /// A private key (EC P-256, PKCS#8, PEM) to sign new images with, relative to the project. The
    /// key itself may be in `SYSTEMPROMPT_SIGNING_KEY` instead.
    #[serde(with = "rules::optional_path")]
    #[schemars(with = "String")]
    pub signing_key_file: Option<PathBuf>,
}

impl Default for Image {
    fn default() -> Self {
        Self {
            dockerfile: PathBuf::from(".systemprompt/Dockerfile"),
            context: PathBuf::from("."),
            base: Base::Dockerfile,
            platform: None,
            check_libraries: true,
            builder: Builder::Auto,
            compression: Compression::Auto,
            compression_level: 0,
            build_args: BTreeMap::new(),
            repository: None,
            allow_secrets: Vec::new(),
            sbom: true,
            provenance: true,
            signing_key_file: None,
        }
    }
}

/// How a release is put in place of the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Deploy {
    /// The order in which instances are exchanged. The platform says which of them it offers.
    pub strategy: Strategy,
    /// What is run once before anything of a new release is started, a migration for instance: arguments for the image's
    /// entrypoint. If it ends with anything but 0, nothing has changed.
    pub release_command: Vec<String>,
    /// How many instances of the application run.
    #[schemars(range(min = 1, max = 100))]
    pub replicas: u32,
    /// Which instances are started again that have ended, after a second at first and half a minute at most: `always`;
    /// `on-failure`, those that ended with anything but 0; `never`. One that ended with 0 has done its work then, and is
    /// no failure of its deployment.
    pub restart: Restart,
    /// How long a deployment may take until it counts as failed and is undone. The time in which a release is
    /// watched comes on top.
    #[serde(deserialize_with = "rules::not_zero")]
    pub timeout: Duration,
    /// Refuse to deploy from a working tree with uncommitted changes.
    pub require_clean: bool,
    /// Environment variables that the application cannot do without; checked before anything is
    /// built.
    #[serde(deserialize_with = "rules::variable_name_list")]
    pub require_env: Vec<String>,
    /// Wait until the deployment has ended.
    pub wait: bool,
}

impl Default for Deploy {
    fn default() -> Self {
        Self {
            strategy: Strategy::Rolling,
            release_command: Vec::new(),
            replicas: 1,
            restart: Restart::Always,
            timeout: Duration::from_secs(5 * 60),
            require_clean: false,
            require_env: Vec::new(),
            wait: true,
        }
    }
}

/// How the strategies go about it. Only what belongs to the strategy in use counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rollout {
    /// `rolling`: how many instances more than `deploy.replicas` may run meanwhile.
    #[schemars(range(min = 0, max = 100))]
    pub max_surge: u32,
    /// `rolling`: how many fewer may serve meanwhile.
    #[schemars(range(min = 0, max = 100))]
    pub max_unavailable: u32,
    /// `rolling`: how long each batch of new instances is watched before the next one.
    pub batch_pause: Duration,
    /// `blue-green`: how long the new instances are watched after the switch.
    pub bake: Duration,
    /// `blue-green`: how long the old instances stay started, for a rollback that takes no time.
    pub keep_warm: Duration,
    /// `canary`: how much of the traffic the new release gets before all of it, and for how long it is watched each
    /// time; a step without a time waits for `cargo xtask promote`.
    pub steps: Vec<CanaryStep>,
}

impl Default for Rollout {
    fn default() -> Self {
        let step = |weight| CanaryStep {
            weight,
            pause: Some(Duration::from_secs(30)),
        };
        Self {
            max_surge: 1,
            max_unavailable: 0,
            batch_pause: Duration::from_secs(0),
            bake: Duration::from_secs(0),
            keep_warm: Duration::from_secs(5 * 60),
            steps: vec![step(10), step(50)],
        }
    }
}

/// When a release that is being watched is bad, and the deployment is undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Analysis {
    /// Requests below which nobody can say; the deployment is paused then.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_requests: u64,
    /// More errors than that many per cent of its answers, and more than the old release has.
    #[schemars(range(min = 0, max = 100))]
    pub max_error_percent: u32,
    /// A longer time for 95 of 100 answers than that, and than the old release takes.
    #[serde(deserialize_with = "rules::not_zero")]
    pub max_p95: Duration,
    /// More than that many times as long as the old release takes for 95 of 100 answers.
    #[schemars(range(min = 1, max = 1000))]
    pub max_p95_ratio: u32,
    /// Texts that must not come in its log.
    pub log_patterns: Vec<String>,
    /// Make up requests to the health check's path where there are too few.
    pub synthetic: bool,
}

impl Default for Analysis {
    fn default() -> Self {
        Self {
            min_requests: 20,
            max_error_percent: 5,
            max_p95: Duration::from_secs(1),
            max_p95_ratio: 3,
            log_patterns: Vec::new(),
            synthetic: true,
        }
    }
}

/// What each instance may use of the machine. A platform that cannot enforce a limit refuses the deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Resources {
    /// Memory, as in `512M` or `2G`. An instance that needs more is ended. Empty: not limited.
    #[serde(with = "rules::optional_memory")]
    #[schemars(with = "String")]
    pub memory: Option<Memory>,
    /// Processors, as in `1.5`. 0: not limited.
    pub cpus: Cpus,
    /// Processes and threads. 0: not limited.
    #[schemars(range(min = 0, max = 4_000_000))]
    pub pids: u32,
    /// Nothing of the image can be written to, `/tmp` and volumes excepted.
    pub read_only: bool,
    /// Run without the limits that the platform cannot enforce, rather than not at all.
    pub best_effort: bool,
}

/// How the platform decides that an instance is well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    default,
    deny_unknown_fields,
    bound(deserialize = "K: Default + Deserialize<'de>")
)]
#[schemars(bound = "K: Default + Serialize + JsonSchema", rename = "HealthOf{K}")]
pub struct Health<K = HealthKind> {
    /// How it is asked: `http`, a `GET` on its port; `tcp`, a connection to its port; `command`, a command inside of it; or
    /// `image`, what the image's `HEALTHCHECK` says, at the times that it says.
    pub kind: K,
    /// `command`: what is run, with its arguments and without a shell. It has to end with 0.
    pub command: Vec<String>,
    /// The path asked over HTTP.
    #[serde(deserialize_with = "rules::absolute_path")]
    #[schemars(regex(pattern = "^/"))]
    pub path: String,
    /// Time between two checks.
    #[serde(deserialize_with = "rules::not_zero")]
    pub interval: Duration,
    /// How long one answer may take.
    #[serde(deserialize_with = "rules::not_zero")]
    pub timeout: Duration,
    /// How long after its start an instance may fail checks without being given up.
    pub start_period: Duration,
    /// Failed checks in a row until an instance counts as unwell.
    #[schemars(range(min = 1, max = 1000))]
    pub retries: u32,
    /// The HTTP status of a well instance.
    #[schemars(range(min = 100, max = 599))]
    pub status: u16,
    /// A text that the HTTP answer of a well instance holds, in its first 64 KiB.
    #[serde(with = "rules::optional")]
    #[schemars(with = "String")]
    pub body: Option<String>,
}

impl<K: Default> Default for Health<K> {
    fn default() -> Self {
        Self {
            kind: K::default(),
            command: Vec::new(),
            path: "/api/v1/health".to_owned(),
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
            start_period: Duration::from_secs(60),
            retries: 3,
            status: 200,
            body: None,
        }
    }
}

/// How the platform decides that a running instance has to be started again. Where `kind` is `none`, one that is not well has
/// to; else it only gets no requests until it is well again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Liveness {
    /// How it is asked: `none`, `http`, `tcp` or `command`.
    pub kind: LivenessKind,
    /// `command`: what is run, with its arguments and without a shell. It has to end with 0.
    pub command: Vec<String>,
    /// The path asked over HTTP.
    #[serde(deserialize_with = "rules::absolute_path")]
    #[schemars(regex(pattern = "^/"))]
    pub path: String,
    /// Time between two checks.
    #[serde(deserialize_with = "rules::not_zero")]
    pub interval: Duration,
    /// How long one answer may take.
    #[serde(deserialize_with = "rules::not_zero")]
    pub timeout: Duration,
    /// Failed checks in a row until it is started again.
    #[schemars(range(min = 1, max = 1000))]
    pub retries: u32,
    /// The HTTP status of an instance that lives.
    #[schemars(range(min = 100, max = 599))]
    pub status: u16,
}

impl Default for Liveness {
    fn default() -> Self {
        Self {
            kind: LivenessKind::None,
            command: Vec::new(),
            path: "/livez".to_owned(),
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
            retries: 3,
            status: 200,
        }
    }
}

/// The Management API deployed through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    /// Address of the Management API.
    pub url: ApiUrl,
    /// The tenant deployed to. Empty: the only one that the token can see.
    #[serde(with = "rules::optional")]
    #[schemars(with = "String")]
    pub tenant_id: Option<String>,
    /// How tenant calls are authenticated.
    pub auth: Auth,
    /// Registries (`host:port`) that are spoken to over plain HTTP. Those on loopback always may.
    pub insecure_registries: Vec<String>,
    /// A file of certificates (PEM), relative to the project, from which the Management API's
    /// certificate may come besides those of the known authorities.
    #[serde(with = "rules::optional_path")]
    #[schemars(with = "String")]
    pub ca_file: Option<PathBuf>,
    /// The same for registries: the one that the image goes to and those of base images.
    #[serde(with = "rules::optional_path")]
    #[schemars(with = "String")]
    pub registry_ca_file: Option<PathBuf>,
}

/// The platform embedded in the project.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Local {
    /// Path of a `systemprompt` binary that serves as the platform. Empty: the one just built, else
    /// the one on `PATH`.
    #[serde(with = "rules::optional_path")]
    #[schemars(with = "String")]
    pub server: Option<PathBuf>,
    /// The address the platform listens on, as in `127.0.0.1:7480`. Empty: loopback and the first
    /// free port from 7480, kept from then on.
    #[serde(with = "rules::optional_address")]
    #[schemars(with = "String")]
    pub listen: Option<SocketAddr>,
    /// Whether that address may be one that other machines reach, where tokens travel in the clear. It is for a proxy with
    /// TLS in front.
    pub insecure: bool,
}

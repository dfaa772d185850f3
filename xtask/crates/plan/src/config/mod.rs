//! The configuration model: what `.systemprompt/deploy.toml` may say and what an environment ends
//! up with once every layer is applied.
//!
//! These are the types only. Where a value came from, which file or variable it was read from and
//! how an error points at a line is the work of `deploy-config`; nothing here reads anything.
//! The doc comments of the fields are the descriptions in the JSON Schema that editors show.

mod api_url;
mod base;
mod builtin;
mod canary_step;
mod cpus;
mod duration;
mod environment_name;
mod memory;
mod passwords;
mod platform;
mod route;
mod rules;
mod schema_version;
mod sections;
mod service_name;
mod services;
mod variables;
mod words;

pub use api_url::{ApiUrl, InvalidApiUrl, PRODUCTION_API, SANDBOX_API};
pub(crate) use base::looks_like_a_reference;
pub use base::{Base, InvalidBase};
pub use builtin::{BUILTIN_ENVIRONMENTS, BuiltinEnvironment, builtin_environment};
pub use canary_step::{CanaryStep, InvalidCanaryStep};
pub use cpus::Cpus;
pub use duration::{Duration, InvalidDuration};
pub use environment_name::{EnvironmentName, InvalidEnvironmentName};
pub use memory::{InvalidMemory, Memory};
pub use passwords::without_passwords;
pub use platform::{InvalidPlatform, Platform};
pub use route::{InvalidRoute, Route};
pub use schema_version::SchemaVersion;
pub use sections::{
    Analysis, Api, Build, Deploy, Health, Image, Liveness, Local, Resources, Rollout,
};
pub use service_name::{APP, InvalidServiceName, ServiceName};
pub use services::{AppService, Service, Services};
pub(crate) use variables::is_variable_name;
pub use variables::{REDACTED, Variables, is_secret_name, redact_value};
pub use words::{
    Auth, Builder, Compression, ControlPlane, HealthKind, LivenessKind, Protocol, Restart,
    ServiceHealthKind, Strategy, UnknownWord,
};

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Configuration of `cargo xtask deploy`.
///
/// Every key is optional. A value given on the command line wins over an environment variable
/// (`SYSTEMPROMPT_` and the key in capitals), that one over the section of the chosen environment,
/// that one over the rest of this file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DeployFile {
    /// Version of this format.
    pub schema: SchemaVersion,
    /// The environment deployed to when neither `--environment` nor `SYSTEMPROMPT_ENVIRONMENT`
    /// names one.
    pub default_environment: EnvironmentName,
    /// How the programs are built.
    pub build: Build,
    /// How the image is assembled.
    pub image: Image,
    /// How a release is put in place of the one before.
    pub deploy: Deploy,
    /// How the strategies go about it.
    pub rollout: Rollout,
    /// When a release that is being watched is bad.
    pub analysis: Analysis,
    /// What each instance may use of the machine.
    pub resources: Resources,
    /// How the platform decides that an instance is well.
    pub health: Health,
    /// How the platform decides that a running instance has to be started again.
    pub liveness: Liveness,
    /// The Management API deployed through.
    pub api: Api,
    /// The platform embedded in the project, used by environments whose control plane is
    /// `embedded`.
    pub local: Local,
    /// Environment variables of the application.
    pub env: Variables,
    /// The services of a release, by name.
    pub services: Services,
    /// The environments, by name. `local`, `sandbox` and `production` exist without being written
    /// here; a section changes or extends them.
    pub environments: BTreeMap<EnvironmentName, Config>,
}

/// What one environment deploys with. In a file it names what differs from the rest of the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The platform that runs the releases of this environment.
    pub control_plane: ControlPlane,
    /// How the programs are built.
    pub build: Build,
    /// How the image is assembled.
    pub image: Image,
    /// How a release is put in place of the one before.
    pub deploy: Deploy,
    /// How the strategies go about it.
    pub rollout: Rollout,
    /// When a release that is being watched is bad.
    pub analysis: Analysis,
    /// What each instance may use of the machine.
    pub resources: Resources,
    /// How the platform decides that an instance is well.
    pub health: Health,
    /// How the platform decides that a running instance has to be started again.
    pub liveness: Liveness,
    /// The Management API deployed through.
    pub api: Api,
    /// The platform embedded in the project.
    pub local: Local,
    /// Environment variables of the application.
    pub env: Variables,
    /// The services of a release, by name.
    pub services: Services,
}

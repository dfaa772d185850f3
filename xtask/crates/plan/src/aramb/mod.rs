//! What an `aramb.toml` describes: services, what they take from each other, and the order that follows.
//!
//! The file itself is read elsewhere; the positions here are bytes of its text, for messages and edits.

mod draw;
mod flow;
mod graph;
mod images;
mod reference;
mod report;
mod resolve;
mod select;
mod svg;
pub mod translate;

use std::fmt;
use std::ops::Range;

pub use draw::{mermaid, text};
pub use flow::{FlowError, FlowStep};
pub use graph::{Cycle, Edge, EdgeKind, Graph};
pub use images::{Named, name_images};
pub use reference::{BadReference, OutputName, Reference, Target, references};
pub use report::{
    ApplicationRecord, ArambReport, BuildRecord, BuildRecords, DeploymentRecord, FlowErrorRecord,
    OutputsRecord, words,
};
pub use resolve::{Outputs, ResolveError, Resolver};
pub use select::{SelectError, Selection, Wanted, select};
pub use svg::svg;

/// The number by which services name each other (`uniqueIdentifier`).
pub type Id = u64;

/// The least number that a service may have.
pub const FIRST_ID: Id = 100;

/// Everything that the file says and that means something here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArambFile {
    /// The application, under whichever of its spellings it is named first.
    pub application: Option<Value>,
    /// In the order of the file.
    pub services: Vec<Service>,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its number.
    pub id: Id,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: ServiceType,
    /// Where it stands in the file.
    pub span: Range<usize>,
    /// The name that the control plane has given it, once it has.
    pub slug: Option<String>,
    /// How it is built and run.
    pub settings: ServiceSettings,
    /// What it finds in its environment.
    pub vars: Vec<Variable>,
    /// The same for what nobody else is to know.
    pub secrets: Vec<Variable>,
}

/// `[services.configuration.settings]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceSettings {
    /// The image, or a reference to the build that makes it.
    pub image: Option<Value>,
    /// Where the sources come from.
    pub repo_url: Option<Value>,
    /// The folder that is built, relative to the file.
    pub build_path: Option<Value>,
    /// Branches whose commits are built.
    pub target_branches: Vec<Value>,
    /// Of the control plane's access to the sources.
    pub installation_id: Option<Value>,
    /// What a build makes.
    pub target_type: Option<Value>,
    /// Where a build leaves static files.
    pub static_out_dir: Option<Value>,
    /// Static files that are served.
    pub static_path: Option<Value>,
    /// The command that runs.
    pub cmd: Option<Value>,
    /// The port that it listens on.
    pub command_port: Option<u16>,
    /// Whether it can be reached from outside.
    pub public_net: Option<bool>,
    /// Processors, as written.
    pub cpu: Option<Value>,
    /// Memory, as written.
    pub memory: Option<Value>,
    /// What happens when it ends.
    pub restart_policy: Option<Value>,
}

/// A text of the file, and where it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Value {
    /// As it reads, without quotes and escapes.
    pub text: String,
    /// Its bytes in the file, quotes included.
    pub span: Range<usize>,
}

/// A `key` and its `value`.
#[derive(Clone, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub key: String,
    /// What it holds.
    pub value: Value,
}

/// Values of variables may be passwords, wherever they stand.
impl fmt::Debug for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Variable")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// What a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceType {
    /// Makes an image or static files for others, and does not run.
    Build,
    /// A database.
    Postgres,
    /// A database.
    Redis,
    /// A database.
    Mongodb,
    /// An application.
    Backend,
    /// An agent of the control plane.
    ArambAgent,
    /// A step of the control plane's own.
    Onboarding,
    /// A pattern for services.
    Template,
    /// What people look at.
    Frontend,
}

impl ServiceType {
    /// All, in the order in which they are deployed where nothing else decides.
    pub const ALL: [Self; 9] = [
        Self::Build,
        Self::Postgres,
        Self::Redis,
        Self::Mongodb,
        Self::Backend,
        Self::ArambAgent,
        Self::Onboarding,
        Self::Template,
        Self::Frontend,
    ];

    /// As the file has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::Mongodb => "mongodb",
            Self::Backend => "backend",
            Self::ArambAgent => "aramb-agent",
            Self::Onboarding => "onboarding",
            Self::Template => "template",
            Self::Frontend => "frontend",
        }
    }

    /// The type of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether it keeps data for others.
    #[must_use]
    pub fn is_database(self) -> bool {
        matches!(self, Self::Postgres | Self::Redis | Self::Mongodb)
    }

    /// Builds before databases before applications before what people look at.
    #[must_use]
    pub fn rank(self) -> u8 {
        match self {
            Self::Build => 0,
            Self::Postgres | Self::Redis | Self::Mongodb => 1,
            Self::Backend | Self::ArambAgent | Self::Onboarding | Self::Template => 2,
            Self::Frontend => 3,
        }
    }
}

impl Service {
    /// Every text in which references may stand.
    pub fn values(&self) -> impl Iterator<Item = &Value> {
        let secrets = self.secrets.iter().map(|secret| &secret.value);
        self.plain_values().chain(secrets)
    }

    /// [`Service::values`] without the secrets.
    pub fn plain_values(&self) -> impl Iterator<Item = &Value> {
        let settings = &self.settings;
        let single = [
            &settings.image,
            &settings.repo_url,
            &settings.build_path,
            &settings.installation_id,
            &settings.target_type,
            &settings.static_out_dir,
            &settings.static_path,
            &settings.cmd,
            &settings.cpu,
            &settings.memory,
            &settings.restart_policy,
        ];
        single
            .into_iter()
            .flatten()
            .chain(&settings.target_branches)
            .chain(self.vars.iter().map(|variable| &variable.value))
    }

    /// The variable of this name.
    #[must_use]
    pub fn var(&self, key: &str) -> Option<&Value> {
        find(&self.vars, key)
    }

    /// The secret of this name.
    #[must_use]
    pub fn secret(&self, key: &str) -> Option<&Value> {
        find(&self.secrets, key)
    }
}

fn find<'a>(variables: &'a [Variable], key: &str) -> Option<&'a Value> {
    variables
        .iter()
        .find(|variable| variable.key == key)
        .map(|variable| &variable.value)
}

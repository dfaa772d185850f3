//! What a plan is made from, besides the configuration: facts about the project, this machine and
//! the platform, gathered once by an edge crate. Plain data; nothing here looks anything up.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use chrono::{DateTime, Utc};

/// Everything that was looked at.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// The present moment.
    pub now: DateTime<Utc>,
    /// The git work tree, if the project is in one.
    pub git: Option<Git>,
    /// Packages with binaries, of the workspace and of the manifests outside it.
    pub packages: Vec<Package>,
    /// Settings naming packages or manifests that are not there, in words.
    pub unknown_packages: Vec<String>,
    /// The Dockerfile.
    pub dockerfile: Dockerfile,
    /// Extensions that declare themselves.
    pub extensions: Vec<Extension>,
    /// The Dockerfiles of services that have an image of their own made, by the service's name.
    pub dockerfiles: BTreeMap<String, Dockerfile>,
    /// Names of the tenant's secrets, where the platform tells them.
    pub secrets: Option<BTreeSet<String>>,
    /// The folder that may be built with npm.
    pub web: Web,
    /// Credentials for the control plane.
    pub credential: Credential,
    /// Names of the environment variables that are set here.
    pub variables: BTreeSet<String>,
    /// Whether a Docker Engine answers.
    pub docker: bool,
    /// Whether the program `zstd` is there.
    pub zstd: bool,
    /// Whether the platform runs images with zstd layers, where it says.
    pub takes_zstd: Option<bool>,
    /// Whether a `systemprompt` binary is there to serve as the embedded platform, before any build.
    pub server_binary: bool,
    /// The tenant named by flag, variable, file or the list of tenants kept beside it.
    pub tenant: Option<String>,
    /// The release that serves now, as far as could be found out without changing anything.
    pub live: Option<Live>,
}

/// The git work tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Git {
    /// Short commit id; `unknown` before the first commit.
    pub sha: String,
    /// Whether the tree has changes that no commit holds.
    pub dirty: bool,
}

/// A package with its binaries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its binaries.
    pub binaries: Vec<String>,
    /// The manifest to build it with; `None` for members of the workspace.
    pub manifest: Option<PathBuf>,
    /// How many of the project's own crates it is made of, itself included.
    pub own_crates: usize,
}

/// The Dockerfile, as far as the plan needs it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Dockerfile {
    /// There is none at the configured path.
    #[default]
    Missing,
    /// It cannot be read; one line of text for each fault.
    Invalid(Vec<String>),
    /// It can be read.
    Read {
        /// Its `COPY` lines that read from the context.
        copies: Vec<Copy>,
        /// Those of their sources that match something now, as the Dockerfile spells them.
        present: BTreeSet<String>,
        /// What only a container engine can do.
        needs_engine: Vec<NeedsEngine>,
        /// The last `FROM`.
        from: String,
    },
}

impl Dockerfile {
    /// Its `COPY` lines, if it can be read.
    #[must_use]
    pub fn copies(&self) -> &[Copy] {
        match self {
            Self::Read { copies, .. } => copies,
            Self::Missing | Self::Invalid(_) => &[],
        }
    }

    /// Whether something is there that a `COPY` of it names.
    #[must_use]
    pub fn finds(&self, source: &str) -> bool {
        matches!(self, Self::Read { present, .. } if present.contains(source))
    }
}

/// One `COPY` from the context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// Its line, from 1.
    pub line: usize,
    /// What it copies, relative to the context, as written.
    pub sources: Vec<String>,
    /// Where to.
    pub destination: String,
}

/// An instruction that only a container engine can carry out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeedsEngine {
    /// Its line, from 1.
    pub line: usize,
    /// The instruction.
    pub instruction: String,
    /// Why it needs one.
    pub reason: String,
}

/// An extension that declares itself in a `manifest.yaml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// Its name.
    pub name: String,
    /// Its binary.
    pub binary: String,
    /// Whether it is to be shipped.
    pub enabled: bool,
    /// The file that says so.
    pub path: PathBuf,
}

/// The folder that may be built with npm.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Web {
    /// Relative to the project.
    pub folder: PathBuf,
    /// Whether it holds a `package.json`.
    pub package_json: bool,
    /// Whether npm is there to build it.
    pub npm: bool,
}

/// Credentials for the control plane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Credential {
    /// The embedded platform makes its own.
    #[default]
    NotNeeded,
    /// There are none.
    Missing,
    /// They ended at this moment.
    Expired(DateTime<Utc>),
    /// There are some, and nothing speaks against them.
    Usable,
}

/// The release that serves now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// Its number.
    pub deployment: u64,
    /// Its tag.
    pub tag: Option<String>,
    /// Its digest.
    pub digest: String,
    /// The digests of its services beside `app`, by name.
    pub services: BTreeMap<String, String>,
    /// Commit it was built from.
    pub git_sha: Option<String>,
    /// Commits that it lacks, newest first, one line each; `None` when git cannot tell.
    pub commits_since: Option<Vec<String>>,
    /// Where it serves.
    pub url: Option<String>,
}

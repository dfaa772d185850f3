//! Container images from a Dockerfile and files that are there already: read natively, assembled
//! without a daemon, the same bytes from the same input.
//!
//! ```text
//! Dockerfile::parse -> needs_engine, copies   before the build: what cannot be done, what is taken
//! plan                                        every layer with its files, nothing written
//! assemble                                    layers, configuration and manifest in a store
//! ```
//!
//! What this crate deliberately does not do: it runs no command, talks to no network and knows
//! nothing of packages or deployments. Whoever calls it brings the base images, the build's
//! outputs and a store.

mod archive;
mod assemble;
mod auditable;
mod base;
mod cache;
mod chmod;
mod context;
mod copying;
pub mod dockerfile;
mod files;
mod glob;
mod ignore;
mod layer;
mod needs;
mod options;
mod outline;
mod owners;
mod paths;
mod plan;
mod ports;
mod secrets;
mod stage;
mod time;
mod tree;
mod variables;

pub use archive::{ArchiveError, write_docker_archive};
pub use assemble::{
    AssembleError, Image, LayerReport, SOURCE_ANNOTATION, assemble, assemble_toward,
};
pub use auditable::embedded_dependencies;
pub use base::{
    BaseFacts, BaseImage, BaseSource, ClosureError, HostError, Lacks, Look, LookError, Looked,
    NoImages, Shortfall, check_libraries, loads_libraries,
};
pub use cache::{Cache, write_atomically};
pub use context::Context;
pub use copying::{CopyError, finds_anything};
pub use dockerfile::{CopyLine, Dockerfile, DockerfileError};
pub use files::FilesError;
pub use glob::BadPattern;
pub use ignore::{Ignore, IgnoreError};
pub use layer::{Counters, LayerError, Toward};
pub use needs::NeedsEngine;
pub use options::{BaseChoice, Compression, DEFAULT_EPOCH, Options};
pub use outline::{Origin, Outline, base_images, copies, needs_engine};
pub use owners::{Accounts, OwnerError};
pub use plan::{AssemblyPlan, Place, PlanError, PlannedBase, PlannedFile, PlannedLayer, plan};
pub use secrets::{
    FoundSecret, SavedError, SavedImage, SecretsError, Spot, find_secrets, find_secrets_in_saved,
};

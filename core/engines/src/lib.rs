//! What runs a release: engines.
//!
//! An [`Engine`] starts instances of images, finds again those that an earlier server has started, and ends them. There are
//! two: [`process`] needs nothing but this machine, and runs programs as children of the server, in namespaces of their own
//! where the machine allows them; [`docker`] has a Docker Engine run them as containers. They know nothing of tenants and
//! deployments: they are given the digest of an image, an environment and a port, and answer with an [`Instance`] that lives or
//! has ended.
//!
//! An [`Orchestrator`] replaces whole releases by itself. There is one: [`external`] has a program of its own do it, behind a
//! socket.
//!
//! This crate knows nothing of the server's API and of its database.

mod command;
pub mod docker;
mod engine;
mod error;
pub mod external;
mod folder;
mod instance;
mod log;
pub mod orchestrator;
pub mod process;
mod registry;
mod resources;
mod seats;
mod volumes;

pub use command::{Command, CommandOutcome};
pub use engine::{BoxFuture, Engine, InstanceSpec};
pub use error::EngineError;
pub use folder::FolderId;
pub use instance::{Exit, Instance, Life, Running};
pub use log::{
    LOG_FILE_BYTES, LOG_FILES_KEPT, add_to_log, cut_log, last_number, log_of, open_log, remove_log,
};
pub use orchestrator::Orchestrator;
pub use registry::Registry;
pub use resources::Resources;
pub use volumes::{Clearing, Mounted, VolumeId, VolumeInfo};

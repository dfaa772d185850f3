//! What runs a release: engines.
//!
//! An [`Engine`] starts instances of images, finds again those that an earlier server has started, and ends them. There are
//! two: [`process`] needs nothing but this machine, and runs programs as children of the server, in namespaces of their own
//! where the machine allows them; [`docker`] has a Docker Engine run them as containers. This crate knows nothing of HTTP,
//! tenants, deployments or databases: it is given the digest of an image, an environment and a port, and answers with an
//! [`Instance`] that lives or has ended.

mod command;
pub mod docker;
mod engine;
mod error;
mod folder;
mod instance;
mod log;
pub mod process;
mod resources;
mod seats;
mod volumes;

pub use command::{Command, CommandOutcome};
pub use engine::{BoxFuture, Engine, InstanceSpec};
pub use error::EngineError;
pub use folder::FolderId;
pub use instance::{Exit, Instance, Life, Running};
pub use resources::Resources;
pub use volumes::{Mounted, VolumeId, VolumeInfo};

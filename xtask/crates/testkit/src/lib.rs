//! What end-to-end tests of the deploy tool run against.
//!
//! Real components where a user has one (`docker-registry`, `dockerd`, cargo, git) and doubles,
//! written from the public contracts rather than from our own server, where a user talks to a
//! service. Only ever a dev-dependency. Everything here panics instead of returning errors: a
//! test has nothing better to do with them, and a missing component must fail a test, never skip
//! it.

#![expect(
    clippy::missing_panics_doc,
    reason = "every item of a test kit panics when the world is not as the test needs it"
)]

mod acceptor;
pub mod aramb;
pub mod base;
pub mod docker;
pub mod fault;
pub mod http;
pub mod image;
pub mod leaks;
pub mod management;
pub mod process;
pub mod proxy;
pub mod registry;
pub mod secured;
pub mod server;
pub mod terminal;
pub mod tunnel;
pub mod workspace;

pub use docker::DockerEngine;
pub use fault::{Fault, Gate, Rule};
pub use leaks::Watch;
pub use management::{ManagementApi, Variant};
pub use process::Finished;
pub use proxy::FaultProxy;
pub use registry::DockerRegistry;
pub use secured::{Authority, Secured};
pub use terminal::AtTerminal;
pub use tunnel::Tunnel;
pub use workspace::Workspace;

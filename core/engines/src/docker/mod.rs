//! Engine `docker`: an instance is a container of a Docker Engine on this machine, over the engine's socket.
//!
//! Images are pulled from the platform's own registry, by digest and with a token for that one repository. Containers are
//! the platform's alone to start and stop: none is restarted by Docker, no check of Docker's runs in them, and a label says
//! whose they are. They go on without the server until the next one of the same data folder takes them over or removes them.
//!
//! In a network of the engine's own each instance has an address of its own, which the server's proxy connects to; nothing
//! is published on the machine. The engine has to be on this machine: one behind a virtual machine does not show those
//! addresses, and can only be used with [`Network::Host`].

mod commands;
mod container;
mod engine;
mod errors;
mod images;
mod instance;
mod logs;
mod record;
mod subnet;
mod volumes;

pub use engine::{DockerEngine, Network, Settings};

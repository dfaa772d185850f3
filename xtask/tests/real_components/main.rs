//! The deploy tool against real components: `docker-registry`, `dockerd`, cargo, git, and a
//! Management API that was written from its contract and not from our server.
//!
//! One program, because each is linked by itself. Needs what `cargo xtask test --setup` installs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod authorities;
mod bases;
mod commands;
mod credentials;
mod docker;
mod docker_native;
mod docker_papers;
mod faults;
mod papers;
mod preflight;
mod registry_faults;
mod seed_errors;
mod services;
mod success;
mod told;
mod typed;
mod world;

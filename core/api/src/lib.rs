//! The Management API: what travels between the release side and the run side.
//!
//! This crate holds the wire types, the paths, the error shape and the one client. It knows
//! nothing of how a deployment is made, stored or shown. The server that implements the contract
//! is the package `systemprompt`; other servers exist, so everything that is ours alone is
//! optional on the wire and a client degrades where it is missing.

pub mod client;
pub mod error;
pub mod events;
pub mod paths;
pub mod tag;
pub mod types;

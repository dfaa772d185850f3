//! What runs a release: engines.
//!
//! The one engine of this version is [`process`]: it unpacks an image and runs its program as a
//! child of the server, in namespaces of its own where the machine allows them. This crate knows
//! nothing of HTTP, tenants, deployments or databases: it is given the digest of an image, an
//! environment and a port, and answers with an instance that lives or has ended.

pub mod process;

//! Engine `external`: a program of its own replaces releases, and is spoken to over a socket of this machine.
//!
//! So a further orchestrator can be added without changing the server. The protocol is JSON over HTTP and is written down in
//! `docs/guides/adding-an-engine.md`; `wire` is all of its records.

mod http;
mod orchestrator;
#[cfg(test)]
mod tests;
mod wire;

pub use orchestrator::{External, Settings};

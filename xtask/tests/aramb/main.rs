//! `cargo xtask deploy` for an `aramb.toml`, against a double of the `aramb` command that was written from what is published of
//! it: `testkit::aramb` says how far that goes.
//!
//! One program, because each is linked by itself. Needs git and curl.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod corpus;
mod errors;
mod flow;
mod guarded;
mod install;
mod interrupts;
mod mishaps;
mod places;
mod reuse;
mod shop;

//! The whole way from a clone to a live URL on this machine: the real tool, the real platform, a
//! small real project.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod aramb;
mod failing;
mod history;
mod itself;
mod killed;
mod load;
mod machine;
mod releases;
mod reset;
mod services;
mod survival;

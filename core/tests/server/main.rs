//! The real binary, driven over HTTP as its clients drive it, with real images and instances.

#![expect(
    clippy::unwrap_used,
    reason = "whatever is not there ends the test, and the line says what it was"
)]

mod access;
mod adoption;
mod app;
mod audit;
mod backup;
mod checks;
mod deploy;
mod endurance;
mod failing;
mod harness;
mod idempotency;
mod image;
mod life;
mod limits;
mod load;
mod logs;
mod operations;
mod operator;
mod records;
mod release_command;
mod retention;
mod rollback;
mod secrets;
mod strategies;
mod supervision;

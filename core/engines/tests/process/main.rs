//! Engine `process` with real images, real processes and the real kernel.
//!
//! Each test runs with all the isolation the machine allows and without any; `elsewhere`
//! runs them on machines that allow less.

#![expect(
    clippy::unwrap_used,
    reason = "in a test, not having something is the failure"
)]

mod commands;
mod elsewhere;
mod guards;
mod images;
mod isolation;
mod launch;
mod layers;
mod limits;
mod logs;
mod machine;
mod server;
mod server_death;
mod setup;
mod stop;
mod unpack;
mod volumes;

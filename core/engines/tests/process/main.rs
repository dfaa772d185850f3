//! Engine `process` with real images, real processes and the real kernel.
//!
//! Each test runs with all the isolation the machine allows and without any; `ordinary_user`
//! runs all of them once more as a user who is not root.

#![expect(
    clippy::unwrap_used,
    reason = "in a test, not having something is the failure"
)]

mod images;
mod isolation;
mod launch;
mod logs;
mod ordinary_user;
mod server_death;
mod setup;
mod stop;
mod unpack;

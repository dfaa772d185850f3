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
mod clash;
#[path = "../../src/store/cluster.rs"]
#[expect(dead_code, reason = "tests of the store use the rest of it")]
mod cluster;
mod conformance;
mod database;
mod deploy;
mod docker;
mod endurance;
mod engine;
mod external;
mod failing;
mod harness;
mod idempotency;
mod image;
mod instance_deaths;
mod life;
mod limits;
mod load;
mod logs;
mod operations;
mod operator;
mod orchestrator;
mod reached;
mod real_clients;
mod real_database;
mod real_network;
mod real_postgres;
mod real_schemathesis;
mod real_standby;
mod real_strace;
mod real_systemd;
mod real_tls;
mod records;
mod registry_access;
mod registry_tokens;
mod rekey;
mod release_command;
mod resources;
mod retention;
mod rollback;
mod rotation;
mod secrets;
mod services;
mod strategies;
mod supervision;
mod traces;
mod volumes;

//! The pipeline: observes, then executes a plan step by step.
//!
//! It prints nothing: it emits typed events to a [`events::Reporter`], already free of secrets. It
//! makes no choices: those are in the plan. Types of other systems (cargo's messages, Docker's
//! output, the Management API's wire types) stay in the module that talks to that system.

pub mod aramb;
pub mod attest;
pub mod authorities;
pub mod base;
pub mod build;
mod child;
pub mod control;
pub mod deploy;
pub mod docker;
mod docker_config;
pub mod events;
mod holdings;
pub mod image;
pub mod interrupt;
pub mod journal;
mod layers;
pub mod lock;
pub mod locking;
pub mod observe;
pub mod outcome;
pub mod platform;
pub mod push;
pub mod redact;
mod request;
pub mod rollback;
pub mod run;
mod secrets;
mod ship;
mod sweep;
mod tagging;
pub mod wait;

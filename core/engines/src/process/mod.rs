//! Engine `process`: an instance is a tree of processes, in namespaces of its own where the
//! machine allows them. No daemon is needed, nor root.
//!
//! ```text
//! server ──socket── guard ──socket── init ── program
//!                    │                process 1 of the instance:
//!                    │                mounts, user, reaping
//!                    └─ pipes: what the program writes ─┘
//! ```
//!
//! Whatever dies, the part below it goes too, but for the server: a guard waits for the next one,
//! which takes the instance over, for a set time, and then ends it.
//! The network is not isolated: instances listen on loopback, where the server's proxy finds them.

mod adopt;
mod assemble;
mod binary;
pub(crate) mod boot;
mod cgroup;
mod command;
mod ending;
mod engine;
mod image;
mod instance;
mod isolation;
mod launch;
mod layers;
mod monitor;
mod outside;
mod owner;
mod place;
mod plan;
pub(crate) mod proc;
mod record;
mod rootpath;
mod signal;
pub(crate) mod tree;
mod unpack;
mod user;
mod volumes;

pub use engine::{Launcher, ProcessEngine, Settings};
pub use image::PreparedImage;
pub use isolation::{Isolation, IsolationMode, Level, RootDirectory};
pub use launch::launch_main;
pub use rootpath::RootPathError;
pub use unpack::{Limits, UnpackError};

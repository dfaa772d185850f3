//! The launcher: our own binary, run again between the server and the program of an instance.
//!
//! Two stages. The *guard* is the server's child: it keeps the log, enters the namespaces, starts
//! the second stage in them, and holds the instance while one server follows another. The *init* is process 1 of the instance: it builds the
//! root directory, drops privileges, starts the program as its child and commands beside it, hands signals on, reaps what
//! is orphaned and tells how the program ended. Where namespaces are not allowed the same two
//! stages hold the instance together as a group of processes.
//!
//! Both are single-threaded (the kernel refuses a user namespace to a process with threads) and
//! need no `unsafe`: all that has to happen between fork and exec happens after the exec of a stage.

mod capabilities;
pub(crate) mod channel;
mod commands;
mod events;
mod guard;
mod identity;
mod init;
pub(crate) mod listener;
mod mounts;
mod namespaces;
pub(crate) mod protocol;
mod search;
mod spawn;
mod sweep;

use std::ffi::OsString;
use std::process::ExitCode;

pub(crate) use search::{DEFAULT_PATH, is_program};

/// The argument that starts the first stage.
pub(crate) const GUARD: &str = "guard";
/// The argument that starts the second stage.
pub(crate) const INIT: &str = "init";

/// What a launcher ends with when it could not do its own work.
const BROKEN: u8 = 125;

/// The entry of the hidden subcommand that [`Launcher`](super::Launcher) names. Call it first
/// thing in `main`, before any thread is started.
pub fn launch_main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let stage = args.last().unwrap_or_default();
    match stage.to_str() {
        Some(GUARD) => guard::run(),
        Some(INIT) => init::run(),
        _ => ExitCode::from(BROKEN),
    }
}

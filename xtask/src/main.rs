//! `cargo xtask`: from a clone to a live release.
//!
//! This package holds arguments, rendering, exit codes and wiring; what is done lies in the
//! crates below `crates/`.

mod cli;
mod commands;
mod components;
mod context;
mod render;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = match cli::Cli::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return render::usage(&error),
    };
    let changes = commands::changes(&arguments.command);
    let exit = commands::run(arguments);
    ExitCode::from(render::unwritten::settle(exit, changes).code())
}

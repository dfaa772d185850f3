//! The launcher of engine `process` as a program of its own, for the tests of this crate.

use std::process::ExitCode;

fn main() -> ExitCode {
    engines::process::launch_main(std::env::args_os().skip(1))
}

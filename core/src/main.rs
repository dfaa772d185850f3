//! `systemprompt`: the platform server.
//!
//! It takes images into its registry, deploys them for tenants, keeps them running behind a proxy
//! of their own and remembers all of it in one folder. It builds nothing.

mod auth;
mod backup;
mod chain;
mod cli;
mod data_dir;
mod deployments;
mod die;
mod engine;
mod files;
mod healthcheck;
mod hex;
mod http;
mod key;
mod logging;
mod logs;
mod metrics;
mod origin;
mod pace;
mod platform;
mod ports;
mod rekey;
mod retention;
mod rollout;
mod runner;
mod secrets;
mod serve;
mod settings;
mod sockets;
mod standby;
mod store;
mod telemetry;
mod tenant;
mod tenants;
mod tls;
mod told;
mod traffic;
mod vault;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use chain::chain;
use cli::{Cli, Command};
use telemetry::Telemetry;

/// The hidden command under which this program is the launcher of an instance.
const LAUNCH: &str = "launch";

fn main() -> ExitCode {
    // Before anything makes a thread: the launcher changes namespaces.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == LAUNCH) {
        return engines::process::launch_main(arguments);
    }
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let result = match cli.command {
        Command::Serve(arguments) => {
            let settings = arguments.shown.settings()?;
            let traces = Telemetry::begin(&settings.telemetry)?;
            logging::begin(arguments.log_format, traces.as_ref());
            let served = runtime.block_on(serve::run(arguments, settings));
            if let Some(traces) = traces {
                traces.end();
            }
            served
        }
        Command::Rekey(arguments) => runtime.block_on(rekey::run(&arguments)),
        Command::Healthcheck(arguments) => runtime.block_on(healthcheck::run(&arguments)),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Backup(arguments) => backup::make(&arguments),
        Command::Restore(arguments) => runtime.block_on(backup::restore(&arguments)),
    };
    // What still blocks a thread (a read of a slow disk) must not hold up the end.
    runtime.shutdown_background();
    result
}

fn fail(error: &anyhow::Error) -> ExitCode {
    told::remark(&format!("error: {}", chain(error.as_ref())));
    ExitCode::FAILURE
}

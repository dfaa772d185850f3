//! The commands, one a module: settings, observe, plan, render, execute, exit.

mod aramb;
mod build_all;
mod config;
mod deploy;
mod doctor;
mod help;
mod history;
mod local;
mod lock;
mod login;
mod logs;
mod manual;
mod plan;
mod rollback;
mod secrets;
mod status;
mod steer;
mod terminal;
mod test;

use deploy_plan::exit::Exit;
use deploy_plan::failure::Failure;

use crate::cli::{Cli, Command, Output};
use crate::render::{self, err};
use steer::Word;

/// How a command ends when it ends badly: with everything that went wrong.
type Failures = Vec<Failure>;

/// Whether somebody waits for the result because of what the command has changed. Others only show: whoever closes a list
/// (`… | head`) has seen enough of it.
pub(crate) fn changes(command: &Command) -> bool {
    match command {
        Command::Deploy(flags) => !flags.dry_run,
        Command::Rollback(_) | Command::Promote(_) | Command::Abort(_) => true,
        _ => false,
    }
}

/// Runs what the command line asks for.
pub(crate) fn run(cli: Cli) -> Exit {
    let project = cli.project_path.as_deref();
    match cli.command {
        Command::Deploy(flags) => match aramb::find(project, &flags.aramb) {
            Some(file) => aramb::run(file, &flags),
            None => deploy::run(project, &flags),
        },
        Command::Rollback(flags) => rollback::run(project, &flags),
        Command::Promote(flags) => ended(
            flags.target.output,
            steer::run(project, &flags, Word::Promote),
        ),
        Command::Abort(flags) => ended(
            flags.target.output,
            steer::run(project, &flags, Word::Abort),
        ),
        Command::Plan(flags) => ended(Output::Human, plan::run(project, &flags)),
        Command::BuildAll(flags) => ended(flags.target.output, build_all::run(project, &flags)),
        Command::History(flags) => ended(flags.target.output, history::run(project, &flags)),
        Command::Status(target) => ended(target.output, status::run(project, &target)),
        Command::Logs(flags) => ended(flags.target.output, logs::run(project, &flags)),
        Command::Secrets(action) => ended(secrets::output(&action), secrets::run(project, &action)),
        Command::Local(action) => ended(Output::Human, local::run(project, &action)),
        Command::Lock(flags) => ended(flags.target.output, lock::run(project, &flags)),
        Command::Config(action) => ended(config::output(&action), config::run(project, &action)),
        Command::Login(flags) => ended(flags.target.output, login::run(project, &flags)),
        Command::Doctor(target) => doctor::run(project, &target),
        Command::Test(flags) => run_tests(project, &flags),
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { folder } => ended(Output::Human, manual::pages(&folder)),
        Command::Help { topic } => help::run(&topic),
    }
}

fn ended(output: Output, result: Result<(), Failures>) -> Exit {
    match result {
        Ok(()) => Exit::Done,
        Err(failures) => {
            render::result::failed(&failures, output);
            exit_of(&failures)
        }
    }
}

/// The first failure is the one that would have stopped the command alone.
fn exit_of(failures: &[Failure]) -> Exit {
    failures.first().map_or(Exit::Other, |failure| failure.exit)
}

fn run_tests(project: Option<&std::path::Path>, flags: &crate::cli::Test) -> Exit {
    let root = match crate::context::find_root(project) {
        Ok(root) => root,
        Err(failure) => return ended(Output::Human, Err(vec![failure])),
    };
    let interrupts = match deploy_pipeline::interrupt::Interrupts::catch() {
        Ok(interrupts) => interrupts,
        Err(error) => {
            err(&format!("error: cannot watch for signals: {error}\n"));
            return Exit::Other;
        }
    };
    match test::run(&root, flags, &interrupts) {
        Ok(exit) => exit,
        Err(error) => {
            err(&format!("error: {error:#}\n"));
            Exit::Other
        }
    }
}

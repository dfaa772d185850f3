//! `cargo xtask test`: everything that is tested, with everything that the tests need.
//!
//! Runs all steps even when one fails, stops what it started whatever happens, and then looks
//! whether anything was left behind.

mod buildkit;
mod checks;
mod engine;
mod remains;
mod step;

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use deploy_pipeline::interrupt::Interrupts;
use deploy_plan::exit::Exit;

use crate::cli::Test;
use crate::components;
use buildkit::BuildKit;
use engine::Engine;
use remains::Remains;
use step::{Ending, Run, Summary};

/// All but the tests that need a component which Rust does not bring, and the suites that start
/// whole servers, instances and deployments: they take longer than an inner loop may.
const UNIT: &str = "not (binary(/^real_/) | test(/(^|::)real_/) | package(testkit) \
     | (package(xtask) & binary(aramb)) | (package(systemprompt) & binary(server)) | (package(engines) & binary(process)))";
/// A hanging test must not hold a CI job for its whole hour.
const TESTS: Duration = Duration::from_mins(50);
const QUICK: Duration = Duration::from_mins(10);

/// Runs the tests and says how the command ends.
pub(crate) fn run(root: &Path, arguments: &Test, interrupts: &Interrupts) -> Result<Exit> {
    let missing = if arguments.unit {
        Vec::new()
    } else {
        prepare(root, arguments.setup)?
    };
    let remains = Remains::begin().context("cannot make a folder for temporary files")?;
    let needed = needs_engine(root, arguments);
    let mut summary = Summary::default();
    let engine = Engine::start_if(needed, root, remains.folder());
    let engine = started(&mut summary, "Docker Engine", engine);
    let buildkit = BuildKit::start_if(needed, root, remains.folder());
    let buildkit = started(&mut summary, "BuildKit", buildkit);
    let run = Run {
        root,
        interrupts,
        variables: variables(root, &remains, engine.as_ref(), buildkit.as_ref()),
    };
    steps(&run, arguments, &mut summary);
    stopped(&mut summary, "BuildKit", buildkit.map(BuildKit::stop));
    stopped(&mut summary, "Docker Engine", engine.map(Engine::stop));
    remains.report(&mut summary, interrupts.any());
    conclude(&summary, &missing, interrupts)
}

/// Notes a daemon that does not start.
fn started<T>(summary: &mut Summary, name: &str, daemon: Option<Result<T>>) -> Option<T> {
    match daemon? {
        Ok(daemon) => Some(daemon),
        Err(error) => {
            summary.failed(name, format!("{error:#}"));
            None
        }
    }
}

/// Notes a daemon that does not stop.
fn stopped(summary: &mut Summary, name: &str, ending: Option<Result<()>>) {
    if let Some(Err(error)) = ending {
        summary.failed(&format!("stopping {name}"), format!("{error:#}"));
    }
}

/// Installs what is missing when asked to; what is missing afterwards.
fn prepare(root: &Path, setup: bool) -> Result<Vec<components::Component>> {
    let missing = components::missing(root);
    if !setup || missing.is_empty() {
        return Ok(missing);
    }
    components::install(root, &missing)?;
    Ok(components::missing(root))
}

/// A filter may choose a test that needs it; only `--unit` says that none does.
fn needs_engine(root: &Path, arguments: &Test) -> bool {
    !arguments.unit && components::find_program(root, "dockerd").is_some()
}

fn variables(
    root: &Path,
    remains: &Remains,
    engine: Option<&Engine>,
    buildkit: Option<&BuildKit>,
) -> Vec<(String, std::ffi::OsString)> {
    let mut variables = vec![
        ("PATH".to_owned(), components::search_path(root)),
        ("TMPDIR".to_owned(), remains.folder().into()),
        (remains::MARK.to_owned(), remains.mark().into()),
    ];
    if let Some(engine) = engine {
        variables.push((engine::HOST.to_owned(), engine.host().into()));
        variables.push(("DOCKER_HOST".to_owned(), engine.host().into()));
    }
    if let Some(buildkit) = buildkit {
        variables.extend(buildkit.variables(engine.map(Engine::host)));
    }
    variables
}

fn steps(run: &Run<'_>, arguments: &Test, summary: &mut Summary) {
    summary.add("tests", tests(run, arguments));
    // Whoever names tests wants these and nothing else.
    if !arguments.filter.is_empty() {
        return;
    }
    summary.add(
        "documentation tests",
        run.cargo(&["test", "--doc", "--workspace"], QUICK),
    );
    if arguments.unit {
        return;
    }
    summary.add("workflows", checks::workflows(run));
    for folder in checks::SCRIPTS {
        summary.add(folder, checks::scripts(run, folder));
    }
}

/// With nextest each test is a process of its own and a hanging one is named; without it the
/// tests run all the same.
fn tests(run: &Run<'_>, arguments: &Test) -> Ending {
    let places = places();
    let mut words = if components::find_program(run.root, "cargo-nextest").is_some() {
        let mut words = vec!["nextest", "run", "--workspace", "--no-fail-fast"];
        words.extend(["--test-threads", &places]);
        if arguments.unit {
            words.extend(["-E", UNIT]);
        }
        words
    } else {
        say(
            "cargo-nextest is not installed: `cargo install cargo-nextest --locked` shows the tests one by one",
        );
        let mut words = vec!["test", "--workspace", "--no-fail-fast"];
        if arguments.unit {
            words.extend(["--exclude", "testkit", "--lib", "--bins"]);
        }
        if arguments.unit || !arguments.filter.is_empty() {
            words.push("--");
        }
        if arguments.unit {
            words.extend(["--skip", "::real_"]);
        }
        words
    };
    words.extend(arguments.filter.iter().map(String::as_str));
    run.cargo(&words, TESTS)
}

/// Three for each processor: most tests take as many, those that only wait take fewer (`.config/nextest.toml`).
fn places() -> String {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    (3 * processors).to_string()
}

fn conclude(
    summary: &Summary,
    missing: &[components::Component],
    interrupts: &Interrupts,
) -> Result<Exit> {
    let mut text = summary.text();
    if !missing.is_empty() {
        text.push('\n');
        text.push_str(&components::report(missing));
    }
    std::io::stderr()
        .write_all(text.as_bytes())
        .context("cannot write to standard error")?;
    if interrupts.any() {
        return Ok(Exit::Interrupted);
    }
    let good = summary.is_good() && missing.is_empty();
    Ok(if good { Exit::Done } else { Exit::Other })
}

fn say(text: &str) {
    // A closed standard error is no reason to stop testing.
    let _ = writeln!(std::io::stderr(), "{text}");
}

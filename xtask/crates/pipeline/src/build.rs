//! Building: the front end where a `package.json` asks for it, then one cargo run for all packages
//! of the workspace (and one for each manifest outside it).

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};
use deploy_plan::plan::{Build, Invocation};

use serde::Deserialize;

use crate::child::Program;
use crate::events::Event;
use crate::run::{Run, interrupted};

/// The binaries that were built, by name.
pub type Binaries = BTreeMap<String, PathBuf>;

/// Runs `npm ci` and `npm run build` in the front end's folder.
pub fn web(run: &mut Run<'_>, root: &Path, folder: &Path) -> Result<(), Failure> {
    let place = root.join(folder);
    for arguments in [&["ci"][..], &["run", "build"]] {
        let program = Program::new("npm", &place).arguments(arguments);
        let shown = program.shown();
        let reporter = run.reporter;
        let status = program
            .stream(
                run.interrupts,
                |line| reporter.event(Event::Output(line.to_owned())),
                |line| reporter.event(Event::Output(line.to_owned())),
            )
            .map_err(|e| web_failure(folder, &format!("cannot run `{shown}`: {e}")))?;
        run.stop_if_interrupted(Step::Web)?;
        if !status.success() {
            return Err(web_failure(
                folder,
                &format!("`{shown}` ended with {status}"),
            ));
        }
    }
    Ok(())
}

fn web_failure(folder: &Path, what: &str) -> Failure {
    let folder = folder.display();
    Failure::new(
        Step::Web,
        "web_build_failed",
        Exit::Build,
        format!("{what} in {folder}"),
        format!("run `npm ci && npm run build` in {folder} and correct what it reports"),
    )
}

/// Runs cargo and finds out from its messages where the binaries are.
pub fn cargo(run: &mut Run<'_>, root: &Path, build: &Build) -> Result<(Binaries, String), Failure> {
    let mut binaries = Binaries::new();
    let mut tally = Tally {
        expected: expected_crates(root),
        ..Tally::default()
    };
    for invocation in &build.invocations {
        invoke(run, root, build, invocation, &mut binaries, &mut tally)?;
    }
    let compiled = tally.done - tally.fresh;
    let packages: usize = build.invocations.iter().map(|i| i.packages.len()).sum();
    let summary = if compiled == 0 {
        format!("{}, nothing to compile", counted(packages, "package"))
    } else {
        let crates = counted(compiled, "crate");
        format!("{}, {crates} compiled", counted(packages, "package"))
    };
    Ok((binaries, summary))
}

fn counted(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

#[derive(Default)]
struct Tally {
    done: usize,
    fresh: usize,
    expected: usize,
}

fn invoke(
    run: &mut Run<'_>,
    root: &Path,
    build: &Build,
    invocation: &Invocation,
    binaries: &mut Binaries,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let program = program(root, build, invocation);
    let shown = program.shown();
    let reporter = run.reporter;
    let mut is_code = false;
    let status = program
        .stream(
            run.interrupts,
            |line| take_message(line, binaries, tally, reporter),
            |line| {
                is_code |= line.contains("could not compile");
                reporter.event(diagnostic(line));
            },
        )
        .map_err(|e| build_failure(&shown, &format!("cannot run cargo: {e}"), NO_CODE))?;
    if run.interrupts.any() {
        return Err(interrupted(Step::Build));
    }
    if !status.success() {
        let what = "cargo could not build the workspace; its messages are above";
        let resolution = if is_code { CODE } else { NO_CODE };
        return Err(build_failure(&shown, what, resolution));
    }
    Ok(())
}

const CODE: &str = "fix the code and run the same command again";
/// A lock file, a registry, a disk, another version of Rust.
const NO_CODE: &str = "see to what cargo complains of, and run the same command again";

fn build_failure(command: &str, what: &str, resolution: &str) -> Failure {
    Failure::new(
        Step::Build,
        "build_failed",
        Exit::Build,
        format!("{what} ({command})"),
        resolution,
    )
}

fn program<'a>(root: &'a Path, build: &Build, invocation: &Invocation) -> Program<'a> {
    let mut program = Program::new("cargo", root).arguments([
        "build",
        "--message-format",
        "json-render-diagnostics",
        "--profile",
        &build.profile,
    ]);
    if build.locked {
        program = program.arguments(["--locked"]);
    }
    if let Some(manifest) = &invocation.manifest {
        program = program.arguments(["--manifest-path"]).arguments([manifest]);
    }
    for package in &invocation.packages {
        program = program.arguments(["-p", package]);
    }
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    if colour && std::env::var_os("CARGO_TERM_COLOR").is_none() {
        program = program.variable("CARGO_TERM_COLOR", "always");
    }
    program
}

fn take_message(
    line: &str,
    binaries: &mut Binaries,
    tally: &mut Tally,
    reporter: &dyn crate::events::Reporter,
) {
    let Ok(message) = serde_json::from_str::<Message>(line) else {
        // A build script may print to standard output of its own.
        reporter.event(Event::Output(line.to_owned()));
        return;
    };
    let Message::CompilerArtifact(artifact) = message else {
        return;
    };
    tally.done += 1;
    tally.fresh += usize::from(artifact.fresh);
    if let Some(executable) = &artifact.executable {
        binaries.insert(artifact.target.name.clone(), executable.clone());
    }
    reporter.event(Event::Built {
        done: tally.done,
        total: tally.expected.max(tally.done),
        name: artifact.target.name,
    });
}

/// A message of `cargo build --message-format json`, as far as it is of use here. Source: the Cargo
/// book, "External tools".
#[derive(Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
enum Message {
    CompilerArtifact(Artifact),
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Artifact {
    target: Target,
    executable: Option<PathBuf>,
    fresh: bool,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// Cargo's own status lines (`   Compiling …`) pass by; diagnostics stay.
fn diagnostic(line: &str) -> Event {
    let plain = strip_colour(line);
    let word = plain.trim_start();
    let status = plain.starts_with("  ")
        && [
            "Compiling",
            "Finished",
            "Fresh",
            "Blocking",
            "Downloading",
            "Downloaded",
            "Updating",
            "Locking",
            "Adding",
            "Building",
            "Dirty",
        ]
        .iter()
        .any(|verb| word.starts_with(verb));
    if status {
        Event::Progress(word.to_owned())
    } else {
        Event::Output(line.to_owned())
    }
}

fn strip_colour(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = after
            .find(|c: char| c.is_ascii_alphabetic())
            .map_or("", |end| &after[end + 1..]);
    }
    plain.push_str(rest);
    plain
}

/// How many crates there are at most: the bar's scale. The lock file counts crates of other
/// platforms and of tests too, so that the bar ends early rather than late.
fn expected_crates(root: &Path) -> usize {
    std::fs::read_to_string(root.join("Cargo.lock"))
        .map_or(0, |lock| lock.matches("[[package]]").count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines_pass_and_diagnostics_stay() {
        for (line, passes) in [
            ("   Compiling oci v0.1.0", true),
            (
                "\u{1b}[1m\u{1b}[32m    Finished\u{1b}[0m `dev` profile",
                true,
            ),
            (
                "    Blocking waiting for file lock on build directory",
                true,
            ),
            ("error[E0308]: mismatched types", false),
            ("  --> src/main.rs:1:1", false),
        ] {
            assert_eq!(
                matches!(diagnostic(line), Event::Progress(_)),
                passes,
                "{line}"
            );
        }
    }
}

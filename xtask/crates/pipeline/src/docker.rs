//! The Docker builder: `docker build`, a look for secrets, log in, `docker push`, log out, all
//! through the official client; then the papers, by our own.
//!
//! The token goes in by standard input, into a configuration folder of its own that is removed
//! afterwards: `~/.docker/config.json` never sees it.

mod bases;
mod papers;
mod saved;

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};
use deploy_plan::plan::Image;
use oci::Digest;
use secrecy::ExposeSecret;

use crate::base::UsedBase;
use crate::build::Binaries;
use crate::child::{Program, without_secrets};
use crate::deploy::Execution;
use crate::docker_config;
use crate::events::Event;
use crate::image;
use crate::push::Destination;
use crate::run::{Run, interrupted};

/// What folders with credentials for Docker are called, before the process that they are of.
pub(crate) const FOLDER: &str = "systemprompt-docker-";
/// An engine that is asked about something it has answers at once.
const QUESTION: Duration = Duration::from_mins(1);

/// An image that the engine has.
pub(crate) struct Built {
    name: String,
    bases: Vec<UsedBase>,
}

/// Builds the image with Docker, and looks through it for secrets.
pub(crate) fn build(
    run: &mut Run<'_>,
    execution: &Execution<'_>,
    image: &Image,
    binaries: &Binaries,
    destination: &Destination,
) -> Result<Built, Failure> {
    let root = &execution.settings.root;
    let name = destination.image();
    run.step(Step::Image, |run| {
        place_binaries(root, image, binaries)?;
        docker(run, Step::Image, build_command(root, image, &name))?;
        let bases = bases::find(run, execution, image);
        let layers = saved::check(run, execution, image, &name, &bases)?;
        let bases = bases.iter().map(|base| base.used(&layers)).collect();
        let summary = format!("built {name} with docker");
        Ok((Built { name, bases }, summary))
    })
}

/// Pushes what Docker has built, and sends its papers; the digest as Docker tells it.
pub(crate) fn push(
    run: &mut Run<'_>,
    execution: &Execution<'_>,
    image: &Image,
    binaries: &Binaries,
    destination: &Destination,
    built: &Built,
) -> Result<Option<Digest>, Failure> {
    let root = &execution.settings.root;
    let Built { name, bases } = built;
    run.step(Step::Push, |run| {
        let configuration = Configuration::new().map_err(|e| {
            failure(
                Step::Push,
                "docker_push_failed",
                format!("cannot make a temporary folder: {e}"),
            )
        })?;
        let pushed = login(run, root, &configuration, destination)
            .and_then(|()| push_name(run, root, &configuration, name));
        // Also after a failed push: the registry's side of the session ends here.
        logout(run, root, &configuration, &destination.registry);
        let pushed = pushed?;
        let programs = image::programs(execution, image, binaries);
        let digest = papers::send(
            run,
            execution,
            image,
            destination,
            &papers::Pushed {
                digest: pushed,
                programs: &programs,
                bases,
            },
        )?;
        Ok((digest, format!("pushed {name} with docker")))
    })
}

/// Gives the engine an image that is in an archive.
pub(crate) fn load(run: &Run<'_>, root: &Path, archive: &Path) -> Result<(), Failure> {
    let program = Program::new("docker", root)
        .arguments(["load", "--quiet", "--input"])
        .arguments([archive]);
    docker(run, Step::Image, program).map(drop)
}

/// Pushes an image of the engine with the credentials that its client has.
pub(crate) fn push_as_logged_in(run: &Run<'_>, root: &Path, name: &str) -> Result<(), Failure> {
    docker(
        run,
        Step::Push,
        Program::new("docker", root).arguments(["push", name]),
    )
    .map(drop)
}

/// Docker reads the context from disk: the binaries must lie where the Dockerfile names them, also
/// when cargo puts them elsewhere.
fn place_binaries(root: &Path, image: &Image, binaries: &Binaries) -> Result<(), Failure> {
    for (source, artifact) in &image.artifacts {
        let place = root.join(&image.context).join(source);
        let Some(built) = binaries.get(&artifact.binary) else {
            continue;
        };
        let same = place.canonicalize().ok() == built.canonicalize().ok();
        if same {
            continue;
        }
        copy(built, &place).map_err(|e| {
            failure(
                Step::Image,
                "binary_not_placed",
                format!(
                    "cannot copy {} to {}: {e}",
                    built.display(),
                    place.display()
                ),
            )
        })?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::copy(from, to).map(drop)
}

fn build_command<'a>(root: &'a Path, image: &Image, name: &str) -> Program<'a> {
    let mut program = Program::new("docker", root).arguments(["build", "--file"]);
    program = program.arguments([&image.dockerfile]);
    if let Some(platform) = &image.platform {
        program = program.arguments(["--platform".to_owned(), platform.to_string()]);
    }
    for (key, value) in &image.build_args {
        program = program.arguments(["--build-arg".to_owned(), format!("{key}={value}")]);
    }
    // The engine reads base images with what its client finds there.
    if let Some(credentials) = std::env::var_os(docker_config::VARIABLE) {
        program = program.variable(docker_config::VARIABLE, credentials);
    }
    program
        .arguments(["--tag", name])
        .arguments([&image.context])
}

fn login(
    run: &Run<'_>,
    root: &Path,
    configuration: &Configuration,
    destination: &Destination,
) -> Result<(), Failure> {
    let password = destination.credentials.password.expose_secret();
    let program = configuration
        .program(root)
        .arguments(["login", "--username", &destination.credentials.username])
        .arguments(["--password-stdin", &destination.registry])
        .input(password.as_bytes().to_vec());
    docker(run, Step::Push, program)
        .map(drop)
        .map_err(|mut error| {
            error.code = "registry_unauthorized";
            error.exit = Exit::Authentication;
            "check your credentials and log in again: cargo xtask login"
                .clone_into(&mut error.resolution);
            error
        })
}

fn push_name(
    run: &Run<'_>,
    root: &Path,
    configuration: &Configuration,
    name: &str,
) -> Result<Option<Digest>, Failure> {
    let program = configuration.program(root).arguments(["push", name]);
    let lines = docker(run, Step::Push, program)?;
    Ok(lines.iter().find_map(|line| digest_of(line)))
}

/// The last line of `docker push`: `TAG: digest: sha256:… size: 1234`.
fn digest_of(line: &str) -> Option<Digest> {
    let (_, rest) = line.split_once("digest: ")?;
    rest.split_whitespace().next()?.parse().ok()
}

fn logout(run: &Run<'_>, root: &Path, configuration: &Configuration, registry: &str) {
    let program = configuration.program(root).arguments(["logout", registry]);
    if let Err(failure) = docker(run, Step::Push, program) {
        run.reporter
            .event(Event::Warning(format!("docker logout failed: {failure}")));
    }
}

/// Runs docker and returns the lines of its standard output.
fn docker(run: &Run<'_>, step: Step, program: Program<'_>) -> Result<Vec<String>, Failure> {
    let shown = program.shown();
    let reporter = run.reporter;
    let mut lines = Vec::new();
    let status = program
        .stream(
            run.interrupts,
            |line| {
                lines.push(line.to_owned());
                reporter.event(Event::Output(line.to_owned()));
            },
            |line| reporter.event(Event::Output(line.to_owned())),
        )
        .map_err(|e| failure(step, "docker_failed", format!("cannot run docker: {e}")))?;
    if run.interrupts.any() {
        return Err(interrupted(step));
    }
    if !status.success() {
        let details = format!("`{shown}` ended with {status}; its messages are above");
        return Err(failure(step, "docker_failed", details));
    }
    Ok(lines)
}

/// A short answer of docker, if it has one: what it says to nothing there is no news.
fn answer(run: &Run<'_>, root: &Path, arguments: &[&str]) -> Option<String> {
    let mut lines = Vec::new();
    let status = Program::new("docker", root)
        .arguments(arguments)
        .within(QUESTION)
        .stream(run.interrupts, |line| lines.push(line.to_owned()), |_| {})
        .ok()?;
    status.success().then(|| lines.join("\n"))
}

fn failure(step: Step, code: &'static str, details: String) -> Failure {
    let exit = if step == Step::Image {
        Exit::Build
    } else {
        Exit::Push
    };
    Failure::new(
        step,
        code,
        exit,
        details,
        "correct what docker reports, or use --builder native",
    )
}

/// A Docker configuration folder of our own, removed with everything in it.
struct Configuration {
    folder: PathBuf,
    host: Option<String>,
}

impl Configuration {
    fn new() -> io::Result<Self> {
        let name = format!("{FOLDER}{}-{}", std::process::id(), crate::request::key());
        let folder = std::env::temp_dir().join(name);
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        Ok(Self {
            folder,
            host: current_host(),
        })
    }

    fn program<'a>(&self, root: &'a Path) -> Program<'a> {
        let program = Program::new("docker", root).variable("DOCKER_CONFIG", &self.folder);
        match &self.host {
            Some(host) => program.variable("DOCKER_HOST", host),
            None => program,
        }
    }
}

impl Drop for Configuration {
    fn drop(&mut self) {
        // Nothing more can be done about a folder that cannot be removed; docker logout has taken
        // the token out of it.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The engine that the user's own configuration chooses (`docker context`), which ours would hide.
fn current_host() -> Option<String> {
    if let Ok(host) = std::env::var("DOCKER_HOST") {
        return Some(host);
    }
    let shell = xshell::Shell::new().ok()?;
    let format = "{{.Endpoints.docker.Host}}";
    let inspect = xshell::cmd!(shell, "docker context inspect --format {format}");
    let host = without_secrets(inspect)
        .quiet()
        .ignore_stderr()
        .read()
        .ok()?;
    (!host.is_empty()).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_that_docker_push_tells() {
        let hex = "ab".repeat(32);
        let line = format!("deploy-1-a: digest: sha256:{hex} size: 1234");
        assert_eq!(
            digest_of(&line).unwrap().to_string(),
            format!("sha256:{hex}")
        );
        assert!(digest_of("abc: Pushed").is_none());
    }
}

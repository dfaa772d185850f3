//! The control plane behind the `aramb` command. It has no contract but what the command says of itself.

mod answers;
mod building;
mod call;
mod help;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use deploy_config::aramb::{self as reader, ARAMB_TOML};
use deploy_plan::aramb::{FlowError, FlowStep, Selection};
use deploy_plan::exit::Exit;
use secrecy::SecretString;

use super::install::{Install, install, install_command};
use super::plane::{Application, Build, Built, ControlPlane, Deployment, Flow, Missing, Waited};
use super::platform::OwnPlatform;
use super::{TOKEN_VARIABLE, interrupted};
use building::levels;
use call::Call;
use help::{Flags, Generation};

/// The variable that names the application.
const APPLICATION_VARIABLE: &str = "APPLICATION_ID";
/// The variable that says where older commands build.
const BUILDKIT_VARIABLE: &str = "BUILDKIT_HOST";
/// The variable that the command finds the name of an image in.
const REPOSITORY_VARIABLE: &str = "DOCKER_REPOSITORY";

/// How long an answer about what is there may take.
const ANSWER: Duration = Duration::from_mins(1);
/// How long the control plane may take to accept a file.
const ACCEPT: Duration = Duration::from_mins(10);

/// The `aramb` command of this machine.
pub struct Cli {
    /// Nothing where it is not installed.
    command: Option<PathBuf>,
    variables: BTreeMap<String, String>,
    /// What is done where it is not installed.
    install: Option<Install>,
    /// Makes the images of Cargo packages in its place.
    native: Option<OwnPlatform>,
    flags: Option<Flags>,
    /// Names that the control plane has given to services, by their own.
    slugs: BTreeMap<String, String>,
    /// How many images are built at a time.
    jobs: usize,
}

impl Cli {
    /// The command at this path, with the environment of this process; so many images are built at a time.
    #[must_use]
    pub fn new(command: Option<PathBuf>, variables: BTreeMap<String, String>, jobs: usize) -> Self {
        Self {
            command,
            variables,
            install: None,
            native: None,
            flags: None,
            slugs: BTreeMap::new(),
            jobs: jobs.max(1),
        }
    }

    /// Installs it first where it is not there.
    #[must_use]
    pub fn installing(mut self, install: Install) -> Self {
        self.install = Some(install);
        self
    }

    /// Images of Cargo packages are made by our own builder, and given to Docker.
    #[must_use]
    pub fn building_natively(mut self, native: OwnPlatform) -> Self {
        self.native = Some(native);
        self
    }

    /// The command of a name in the folders of `PATH`.
    #[must_use]
    pub fn find(name: &str, path: &str) -> Option<PathBuf> {
        use std::os::unix::fs::PermissionsExt as _;
        let is_program = |file: &PathBuf| {
            let metadata = file.metadata();
            metadata.is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        };
        std::env::split_paths(path)
            .map(|folder| folder.join(name))
            .find(is_program)
    }

    fn flags(&self) -> Flags {
        self.flags.clone().unwrap_or_default()
    }

    fn is_set(&self, name: &str) -> bool {
        self.variables
            .get(name)
            .is_some_and(|value| !value.is_empty())
    }
}

impl ControlPlane for Cli {
    fn missing(&mut self, flow: &Flow<'_>, selection: &Selection) -> Vec<Missing> {
        let has_builds = !selection.builds.is_empty();
        let needs_command = selection
            .builds
            .iter()
            .any(|build| !self.is_native(flow, *build));
        let mut missing = Vec::new();
        let mut lacks = |step, code, exit, variable: &str, remedy: &str| {
            if !self.is_set(variable) {
                let message = format!("{variable} environment variable not set");
                missing.push(Missing {
                    error: FlowError::new(step, code, exit, message),
                    remedy: remedy.to_owned(),
                });
            }
        };
        if has_builds {
            lacks(
                FlowStep::Application,
                "application_id_missing",
                Exit::Configuration,
                APPLICATION_VARIABLE,
                "export APPLICATION_ID=...   # the application's id, as the control plane shows it",
            );
        }
        lacks(
            if has_builds {
                FlowStep::Application
            } else {
                FlowStep::Deploy
            },
            "aramb_token_missing",
            Exit::Authentication,
            TOKEN_VARIABLE,
            "export ARAMB_API_TOKEN=...   # a token of the control plane; in CI a secret of the job",
        );
        // Before the command is there nobody knows which one it will be.
        let generation = self.flags.as_ref().map(|flags| flags.generation);
        if needs_command && generation == Some(Generation::Old) {
            lacks(
                FlowStep::Build,
                "buildkit_host_missing",
                Exit::Configuration,
                BUILDKIT_VARIABLE,
                "export BUILDKIT_HOST=...   # as in docker-container://buildkitd, or use a newer aramb",
            );
        }
        missing
    }

    fn reach(&mut self, flow: &Flow<'_>) -> Result<String, FlowError> {
        let new = self.install_absent(flow)?;
        let command = self.command.clone().ok_or_else(absent)?;
        let version = self.ask(
            Call::new(flow.folder, &["--version"], ANSWER),
            flow.interrupts,
        );
        let failed = |details: String| {
            let message = "aramb-cli does not run";
            FlowError::new(
                FlowStep::Install,
                "aramb_broken",
                Exit::Configuration,
                message,
            )
            .with(details)
            .with(format!("Command: {} --version", command.display()))
        };
        let version = version.map_err(failed)?;
        let help = |command: &str| {
            let said = self.ask(
                Call::new(flow.folder, &[command, "--help"], ANSWER),
                flow.interrupts,
            );
            said.map(|said| said.everything()).map_err(failed)
        };
        let (build, deploy) = (help("build")?, help("deploy")?);
        let flags = Flags::of(&build, &deploy).ok_or_else(|| {
            let message = "aramb-cli cannot deploy from a file";
            FlowError::new(
                FlowStep::Install,
                "aramb_unknown",
                Exit::Configuration,
                message,
            )
            .with("`aramb deploy --help` names neither --deploy-from-toml nor --from-toml")
            .with("Install another version: cargo xtask deploy --install-cli")
        })?;
        self.flags = Some(flags);
        let version = version.output.lines().next().unwrap_or_default().trim();
        let version = if version.is_empty() {
            "version unknown"
        } else {
            version
        };
        Ok(if new {
            format!("aramb-cli installed successfully ({version})")
        } else {
            format!("aramb-cli already installed ({version})")
        })
    }

    fn application(&mut self, flow: &Flow<'_>) -> Result<Application, FlowError> {
        let id = self.variables.get(APPLICATION_VARIABLE).cloned();
        let id = id.unwrap_or_default();
        let arguments = ["applications", "get", "-i", &id, "-o", "json"];
        let call = Call::new(flow.folder, &arguments, ANSWER);
        let failed = |lines: Vec<String>| {
            let message = "Failed to retrieve application slug";
            let mut error = FlowError::new(
                FlowStep::Application,
                "application_unknown",
                Exit::Other,
                message,
            );
            error.details = lines;
            error.with(format!("Command: {}", call.shown()))
        };
        let said = self.ask(call, flow.interrupts);
        if flow.interrupts.any() {
            return Err(interrupted(FlowStep::Application));
        }
        let said = said.map_err(|error| failed(vec![error]))?;
        if !said.is_good {
            return Err(failed(said.words()));
        }
        let slug = said.json("slug").and_then(|answer| {
            let slug = answer.get("slug")?.as_str()?.trim().to_owned();
            (!slug.is_empty()).then_some(slug)
        });
        let Some(slug) = slug else {
            let mut lines = vec!["the answer names no slug".to_owned()];
            lines.extend(said.words());
            return Err(failed(lines));
        };
        if !answers::is_slug(&slug) {
            let line = format!("an image cannot have `{slug}` in its name");
            return Err(failed(vec![line]));
        }
        Ok(Application { id, slug })
    }

    fn builds_from_folder(&mut self, flow: &Flow<'_>, build: usize) -> bool {
        let native = self.native.as_mut();
        native.is_none_or(|native| native.builds_from_folder(flow, build))
    }

    fn build(&mut self, flow: &Flow<'_>, builds: &[Build]) -> Result<Vec<Built>, FlowError> {
        let mut built = self.build_natively(flow, builds)?;
        let native: BTreeSet<usize> = built.iter().map(|(position, _)| *position).collect();
        for mut level in levels(flow, builds) {
            level.retain(|position| !native.contains(position));
            built.extend(self.build_level(flow, builds, &level)?);
        }
        built.sort_by_key(|(position, _)| *position);
        Ok(built.into_iter().map(|(_, built)| built).collect())
    }

    fn deploy(&mut self, flow: &Flow<'_>, deployment: &Deployment<'_>) -> Result<(), FlowError> {
        let names: Vec<_> = deployment
            .services
            .iter()
            .map(|position| flow.file.services[*position].name.as_str())
            .collect();
        let names = names.join(",");
        let flags = self.flags();
        let mut arguments = vec!["deploy", flags.from_toml, "--yes"];
        if !deployment.is_everything {
            arguments.extend(["--services", &names]);
        }
        let hear = |line: &str| flow.say(line);
        let call = Call {
            hear: Some(&hear),
            ..Call::new(flow.folder, &arguments, ACCEPT)
        };
        let said = self.ask(call, flow.interrupts);
        if flow.interrupts.any() {
            return Err(interrupted_asking());
        }
        let lines = match said {
            Ok(said) if said.is_good && !said.tells_failure() => {
                self.learn_slugs(flow);
                return Ok(());
            }
            Ok(said) => said.words(),
            Err(error) => vec![error],
        };
        let message = format!("aramb deploy {} failed", flags.from_toml);
        let mut error = FlowError::new(
            FlowStep::Deploy,
            "aramb_deploy_failed",
            Exit::Other,
            message,
        );
        error.details = lines;
        Err(error.with(format!("Command: {}", call.shown())))
    }

    fn wait(&mut self, flow: &Flow<'_>, services: &[usize]) -> Waited {
        let deadline = Instant::now() + flow.timeout;
        let mut waited = Waited::default();
        for &position in services {
            let service = &flow.file.services[position];
            let (deployed, error) = self.wait_for(flow, position, service, Some(deadline));
            let is_bad = !deployed.is_healthy && !deployed.is_unknown;
            waited.services.push(deployed);
            if let Some(error) = error {
                if is_bad {
                    waited.error = Some(error);
                    return waited;
                }
                flow.say(format!("WARNING: {}", error.message));
                for line in &error.details {
                    flow.say(format!("  {line}"));
                }
            }
        }
        waited
    }

    fn look(&mut self, flow: &Flow<'_>, services: &[usize]) -> Waited {
        let mut waited = Waited::default();
        for &position in services {
            let service = &flow.file.services[position];
            let (deployed, error) = self.wait_for(flow, position, service, None);
            waited.services.push(deployed);
            if error.is_some() {
                waited.error = error;
                break;
            }
        }
        waited
    }

    fn is_transaction(&self) -> bool {
        false
    }

    fn secrets(&self) -> Vec<SecretString> {
        let token = self.variables.get(TOKEN_VARIABLE);
        token
            .into_iter()
            .map(|token| token.clone().into())
            .collect()
    }
}

impl Cli {
    /// Whether it was installed just now.
    fn install_absent(&mut self, flow: &Flow<'_>) -> Result<bool, FlowError> {
        let Some(wanted) = self.install.as_ref().filter(|_| self.command.is_none()) else {
            return Ok(false);
        };
        flow.say("aramb-cli not found. Installing...");
        let installed = install(wanted, flow.reporter, flow.interrupts)?;
        self.command = Some(installed.path);
        Ok(true)
    }

    /// The control plane notes its names in the file that it was given.
    fn learn_slugs(&mut self, flow: &Flow<'_>) {
        let path = flow.folder.join(ARAMB_TOML);
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let file = reader::parse(Path::new(ARAMB_TOML), &text).file;
        for service in flow.file.services.iter().chain(&file.services) {
            if let Some(slug) = &service.slug {
                self.slugs.insert(service.name.clone(), slug.clone());
            }
        }
    }
}

/// The user wants out while the control plane was taking the file.
fn interrupted_asking() -> FlowError {
    let message = "Interrupted while the control plane was given the file";
    FlowError::new(FlowStep::Deploy, "interrupted", Exit::Interrupted, message)
        .with("whether it has taken it is not known: aramb deploy history --limit 5")
}

/// It is not there.
fn absent() -> FlowError {
    let message = "aramb-cli not found";
    let error = FlowError::new(
        FlowStep::Install,
        "aramb_missing",
        Exit::Configuration,
        message,
    );
    let lines = install_command();
    let lines = lines.lines().map(str::to_owned);
    lines.fold(error.with("install it:"), FlowError::with)
}

//! The control plane behind the `aramb` command. It has no contract but what the command says of itself.

mod answers;
mod help;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use deploy_config::aramb::{self as reader, ARAMB_TOML};
use deploy_plan::aramb::{EdgeKind, FlowError, FlowStep, Service, ServiceType};
use deploy_plan::exit::Exit;
use secrecy::SecretString;

use crate::child::Program;
use crate::interrupt::Interrupts;

use super::TOKEN_VARIABLE;
use super::install::{Install, install, install_command};
use super::plane::{
    Application, Build, Built, ControlPlane, Deployed, Deployment, Flow, Missing, Waited,
};
use answers::{Said, State, image_url, status};
use help::{Flags, Generation};

/// The variable that names the application.
const APPLICATION_VARIABLE: &str = "APPLICATION_ID";
/// The variable that says where older commands build.
const BUILDKIT_VARIABLE: &str = "BUILDKIT_HOST";
/// The variable that the command finds the name of an image in.
const REPOSITORY_VARIABLE: &str = "DOCKER_REPOSITORY";

/// How long an answer about what is there may take.
const ANSWER: Duration = Duration::from_mins(1);
/// How long one image may take.
const BUILD: Duration = Duration::from_hours(1);
/// How long the control plane may take to accept a file.
const ACCEPT: Duration = Duration::from_mins(10);
/// So many of the command's last lines are part of a failure.
const LAST: usize = 12;
/// So much of an answer is kept.
const LONGEST: usize = 4 * 1024 * 1024;
/// The longest pause between two questions.
const PAUSE: Duration = Duration::from_secs(5);

/// The `aramb` command of this machine.
pub struct Cli {
    /// Nothing where it is not installed.
    command: Option<PathBuf>,
    variables: BTreeMap<String, String>,
    /// What is done where it is not installed.
    install: Option<Install>,
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

    /// Runs the command to its end and keeps what it says.
    fn ask(&self, call: Call<'_>, interrupts: &Interrupts) -> Result<Said, String> {
        let Some(command) = &self.command else {
            return Err("it is not installed".to_owned());
        };
        let command = command.to_string_lossy();
        let mut program = Program::new(&command, call.folder)
            .arguments(call.arguments.iter().copied())
            .within(call.limit)
            .grouped();
        if let Some(token) = self.variables.get(TOKEN_VARIABLE) {
            program = program.variable(TOKEN_VARIABLE, token);
        }
        if let Some(repository) = call.repository {
            program = program.variable(REPOSITORY_VARIABLE, repository);
        }
        let mut output = String::new();
        let last = Mutex::new(VecDeque::with_capacity(LAST));
        let note = |line: &str| {
            if !line.trim().is_empty() {
                let mut last = last
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                if last.len() == LAST {
                    last.pop_front();
                }
                last.push_back(line.trim_end().chars().take(500).collect::<String>());
            }
            if let Some(hear) = call.hear {
                hear(line);
            }
        };
        let on_output = |line: &str| {
            note(line);
            if output.len() + line.len() > LONGEST {
                // What is asked for comes last.
                output.clear();
            }
            output.push_str(line);
            output.push('\n');
        };
        let status = program.stream(interrupts, on_output, note);
        let last = last
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match status {
            Ok(status) => Ok(Said {
                ended: status.to_string(),
                is_good: status.success(),
                output,
                last: last.into(),
            }),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// One call of the command.
#[derive(Clone, Copy)]
struct Call<'a> {
    folder: &'a Path,
    arguments: &'a [&'a str],
    limit: Duration,
    repository: Option<&'a str>,
    hear: Option<&'a (dyn Fn(&str) + Sync)>,
}

impl<'a> Call<'a> {
    fn new(folder: &'a Path, arguments: &'a [&'a str], limit: Duration) -> Self {
        Self {
            folder,
            arguments,
            limit,
            repository: None,
            hear: None,
        }
    }

    /// As a person would type it.
    fn shown(&self) -> String {
        format!("aramb {}", self.arguments.join(" "))
    }
}

impl ControlPlane for Cli {
    fn missing(&mut self, _: &Flow<'_>, has_builds: bool) -> Vec<Missing> {
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
        if has_builds && generation == Some(Generation::Old) {
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
        let said = self
            .ask(call, flow.interrupts)
            .map_err(|error| failed(vec![error]))?;
        if !said.is_good {
            return Err(failed(said.words()));
        }
        let slug = said.json().and_then(|answer| {
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

    fn build(&mut self, flow: &Flow<'_>, builds: &[Build]) -> Result<Vec<Built>, FlowError> {
        let levels = levels(flow, builds);
        let mut built = Vec::new();
        for level in levels {
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
            let (deployed, error) = self.wait_for(flow, position, service, deadline);
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
        let once = Flow {
            timeout: Duration::ZERO,
            is_patient: false,
            ..*flow
        };
        let mut waited = Waited::default();
        for &position in services {
            let service = &flow.file.services[position];
            let (deployed, error) = self.wait_for(&once, position, service, Instant::now());
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

    /// Builds that do not depend on each other; several at a time where that is allowed.
    fn build_level(
        &self,
        flow: &Flow<'_>,
        builds: &[Build],
        level: &[usize],
    ) -> Result<Vec<(usize, Built)>, FlowError> {
        let part = flow.interrupts.of_part();
        let next = AtomicUsize::new(0);
        let results = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.min(level.len()) {
                scope.spawn(|| {
                    while let Some(&position) = level.get(next.fetch_add(1, Ordering::SeqCst)) {
                        if part.any() {
                            return;
                        }
                        let result = self.build_one(flow, &builds[position], &part);
                        if result.is_err() {
                            // The others would be built for nothing.
                            part.raise();
                        }
                        let mut results = results
                            .lock()
                            .unwrap_or_else(std::sync::PoisonError::into_inner);
                        results.push((position, result));
                    }
                });
            }
        });
        // The first that has failed is the one that has ended the others.
        let results = results
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let built: Result<Vec<_>, _> = results
            .into_iter()
            .map(|(position, result)| result.map(|built| (position, built)))
            .collect();
        let built = built?;
        if built.len() < level.len() {
            return Err(super::interrupted(FlowStep::Build));
        }
        Ok(built)
    }

    fn build_one(
        &self,
        flow: &Flow<'_>,
        build: &Build,
        interrupts: &Interrupts,
    ) -> Result<Built, FlowError> {
        let service = &flow.file.services[build.service];
        let flags = self.flags();
        let settings = &service.settings;
        let path = settings.build_path.as_ref().map(|path| path.text.as_str());
        let folder = flow.folder.join(path.unwrap_or("."));
        let mut arguments = vec!["build", "--name", &build.repository, "--tag", &build.tag];
        if build.push {
            arguments.push("--push");
        }
        if let Some(slug) = service.slug.as_deref().filter(|_| flags.service) {
            arguments.extend(["--service", slug]);
        }
        let static_files = settings.static_out_dir.as_ref();
        if let Some(out) = static_files.filter(|_| flags.static_outdir) {
            arguments.extend(["--static-outdir", &out.text]);
        }
        let hear = |line: &str| {
            if self.jobs > 1 {
                flow.say(format!("[{}] {line}", service.name));
            } else {
                flow.say(line);
            }
        };
        let call = Call {
            repository: Some(&build.repository),
            hear: Some(&hear),
            ..Call::new(&folder, &arguments, BUILD)
        };
        flow.say(format!("Building: {}", build.image()));
        let begun = Instant::now();
        let said = self.ask(call, interrupts);
        if flow.interrupts.any() {
            return Err(super::interrupted(FlowStep::Build));
        }
        let lines = match said {
            Ok(said) if said.is_good => {
                let image = image_url(&said.output).unwrap_or_else(|| build.image());
                flow.say(format!("✓ Built: {image}"));
                return Ok(Built {
                    service: build.service,
                    image,
                    took: begun.elapsed(),
                    reused: false,
                });
            }
            Ok(said) => said.words(),
            Err(error) => vec![error],
        };
        let message = format!("Build failed for {}", service.name);
        let error = FlowError::new(FlowStep::Build, "aramb_build_failed", Exit::Build, message)
            .with(format!("Image {}", build.image()))
            .with(format!("Command: {}", call.shown()));
        Err(lines.into_iter().fold(error, FlowError::with))
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

    fn wait_for(
        &self,
        flow: &Flow<'_>,
        position: usize,
        service: &Service,
        deadline: Instant,
    ) -> (Deployed, Option<FlowError>) {
        let slug = self.slugs.get(&service.name);
        let slug = slug.or(service.slug.as_ref()).unwrap_or(&service.name);
        let arguments = ["deploy", "status", "--service", slug, "--output", "json"];
        let mut pause = Duration::from_millis(250);
        let mut told = String::new();
        let mut deployed = Deployed {
            service: position,
            ..Deployed::default()
        };
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let call = Call::new(
                flow.folder,
                &arguments,
                ANSWER.min(left.max(Duration::from_secs(1))),
            );
            let said = self.ask(call, flow.interrupts);
            if flow.interrupts.any() {
                return (deployed, Some(interrupted_waiting(&service.name)));
            }
            match status(&said) {
                State::Healthy(outputs) => {
                    deployed.is_healthy = true;
                    deployed.outputs = outputs;
                    return (deployed, None);
                }
                State::Failed(word, words) => {
                    let error = failed(service, &word, words);
                    return (
                        deployed,
                        Some(error.with(format!("Command: {}", call.shown()))),
                    );
                }
                State::OnItsWay(word) => {
                    if word != told {
                        flow.say(format!("{}: {word}", service.name));
                        told = word;
                    }
                }
                State::Unknown(words) => {
                    if !flow.is_patient || Instant::now() >= deadline {
                        deployed.is_unknown = true;
                        let error = unknown(service, words);
                        return (
                            deployed,
                            Some(error.with(format!("Command: {}", call.shown()))),
                        );
                    }
                }
            }
            if Instant::now() >= deadline {
                let error = overdue(service, flow.timeout, &told);
                return (
                    deployed,
                    Some(error.with(format!("Command: {}", call.shown()))),
                );
            }
            rest(
                pause.min(deadline.saturating_duration_since(Instant::now())),
                flow.interrupts,
            );
            pause = (pause * 2).min(PAUSE);
        }
    }
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

/// Waits for the time to come for another question, or for the user to want out.
fn rest(time: Duration, interrupts: &Interrupts) {
    let end = Instant::now() + time;
    while Instant::now() < end && !interrupts.any() {
        std::thread::park_timeout(
            end.saturating_duration_since(Instant::now())
                .min(Duration::from_millis(100)),
        );
    }
}

/// As the seed's first application is called in messages.
fn kind_word(service: &Service) -> &'static str {
    match service.kind {
        ServiceType::Postgres | ServiceType::Redis | ServiceType::Mongodb => "Database",
        ServiceType::Frontend => "Frontend",
        _ => "Backend",
    }
}

fn failed(service: &Service, word: &str, words: Vec<String>) -> FlowError {
    let kind = kind_word(service);
    let message = format!("{kind} deployment failed with status: {word}");
    let error = FlowError::new(
        FlowStep::Return,
        "service_failed",
        Exit::Unverified,
        message,
    )
    .with(format!("Service {}", service.name));
    words.into_iter().fold(error, FlowError::with)
}

fn unknown(service: &Service, words: Vec<String>) -> FlowError {
    let message = format!("Could not get deployment status for {}", service.name);
    let error = FlowError::new(
        FlowStep::Return,
        "status_unknown",
        Exit::Unverified,
        message,
    );
    words.into_iter().fold(error, FlowError::with)
}

fn overdue(service: &Service, timeout: Duration, told: &str) -> FlowError {
    let kind = kind_word(service);
    let told = if told.is_empty() { "unknown" } else { told };
    let message = format!("{kind} deployment failed with status: {told}");
    FlowError::new(
        FlowStep::Return,
        "service_overdue",
        Exit::Unverified,
        message,
    )
    .with(format!("Service {}", service.name))
    .with(format!(
        "it was not healthy within {} s; --timeout allows more",
        timeout.as_secs()
    ))
}

fn interrupted_waiting(name: &str) -> FlowError {
    FlowError::new(
        FlowStep::Return,
        "interrupted",
        Exit::Interrupted,
        "Interrupted while the services were starting",
    )
    .with(format!("Service {name}"))
    .with("the control plane goes on without us: aramb deploy status")
}

/// The builds in groups, each of which takes images of earlier ones alone.
fn levels(flow: &Flow<'_>, builds: &[Build]) -> Vec<Vec<usize>> {
    let of_service: BTreeMap<usize, usize> = builds
        .iter()
        .enumerate()
        .map(|(position, build)| (build.service, position))
        .collect();
    let mut level = vec![0_usize; builds.len()];
    // They stand in an order in which they can be built: who is taken from comes first.
    for (position, build) in builds.iter().enumerate() {
        let taken = flow
            .graph
            .edges
            .iter()
            .filter(|edge| edge.from == build.service && edge.kind == EdgeKind::Image);
        let below = taken
            .filter_map(|edge| of_service.get(&edge.to))
            .map(|other| level[*other] + 1);
        level[position] = below.max().unwrap_or(0);
    }
    let count = level.iter().max().map_or(0, |most| most + 1);
    let mut levels = vec![Vec::new(); count];
    for (position, level) in level.into_iter().enumerate() {
        levels[level].push(position);
    }
    levels
}

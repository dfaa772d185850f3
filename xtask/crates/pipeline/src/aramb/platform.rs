//! The platform of this project as a control plane for an `aramb.toml`: embedded on this machine, self-hosted, or in the cloud.
//!
//! A file becomes a configuration, and goes the way of all configurations. The image of a build is made and sent like that of a
//! project of one service; then everything that the file describes is one release of several services, whose built images are
//! named by their digests, and one deployment: it serves as a whole or not at all.

mod asking;
mod building;
mod hosts;
mod live;
mod seen;
mod shown;
mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::mem;
use std::path::Path;
use std::time::Duration;

use deploy_config::credentials::TOKEN_VARIABLE;
use deploy_config::{Settings, project};
use deploy_plan::aramb::translate::{Fault, Names, Translated, Wanted, translate};
use deploy_plan::aramb::{FlowError, FlowStep, Selection, ServiceType};
use deploy_plan::config::{self, Config, ControlPlane as Kind};
use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};
use deploy_plan::plan::{EMBEDDED_TENANT, Plan, Request, plan};
use management_api::types::DeployAnswer;
use secrecy::SecretString;

use super::plane::{Application, Build, Built, ControlPlane, Deployment, Flow, Missing, Waited};
use crate::control::Control;
use crate::deploy::SharedReporter;
use crate::observe::{Observation, Observer};
use crate::outcome::Outcome;
use crate::run::Run;
use hosts::LOCALHOST;
pub(super) use sources::Source;

/// Our own platform.
pub struct OwnPlatform {
    settings: Settings,
    variables: BTreeMap<String, String>,
    shared: SharedReporter,
    request: Request,
    sources: BTreeMap<usize, Result<Source, Failure>>,
    outcome: Outcome,
    has_built: bool,
    /// Images are made for this machine's Docker, and nothing is deployed.
    for_docker: bool,
    asked: Option<Asked>,
}

/// A deployment that was asked for.
struct Asked {
    control: Control,
    answer: DeployAnswer,
    limit: Duration,
}

/// What is about to be executed.
struct Planned {
    settings: Settings,
    plan: Plan,
    found: Observation,
}

impl OwnPlatform {
    /// The platform that `settings` name, their environment with it; what they say of services does not count. `variables` are
    /// those of this process, `shared` is told by the threads of a push. Of `request`, `force` and `verify` count.
    #[must_use]
    pub fn new(
        settings: Settings,
        variables: BTreeMap<String, String>,
        shared: SharedReporter,
        request: &Request,
    ) -> Self {
        let request = Request {
            environment: settings.environment.to_string(),
            force: request.force,
            verify: request.verify,
            ..Request::default()
        };
        Self {
            settings,
            variables,
            shared,
            request,
            sources: BTreeMap::new(),
            outcome: Outcome::default(),
            has_built: false,
            for_docker: false,
            asked: None,
        }
    }

    /// Makes images of Cargo packages for this machine's Docker, where another control plane takes them from.
    #[must_use]
    pub fn for_docker(
        settings: Settings,
        variables: BTreeMap<String, String>,
        shared: SharedReporter,
    ) -> Self {
        Self {
            for_docker: true,
            ..Self::new(settings, variables, shared, &Request::default())
        }
    }

    fn is_embedded(&self) -> bool {
        self.settings.config.control_plane == Kind::Embedded
    }

    /// The settings, for the folder of the file.
    fn settings_for(&self, flow: &Flow<'_>, change: impl FnOnce(&mut Config)) -> Settings {
        let mut settings = self.settings.clone();
        flow.folder.clone_into(&mut settings.root);
        settings.config.deploy.timeout = config::Duration::from_secs(flow.timeout.as_secs().max(1));
        change(&mut settings.config);
        settings
    }

    fn observer<'a>(&'a self, flow: &'a Flow<'_>, settings: &'a Settings) -> Observer<'a> {
        Observer {
            settings,
            variables: &self.variables,
            redactor: flow.redactor,
            reporter: flow.reporter,
        }
    }

    /// Looks at everything and makes the plan.
    fn plan(
        &self,
        flow: &Flow<'_>,
        settings: Settings,
        request: &Request,
        secrets: impl Iterator<Item = String>,
    ) -> Result<Planned, Vec<Failure>> {
        let mut found = self.observer(flow, &settings).everything(request);
        // These are of the project, and not of what the file describes.
        found.observed.extensions.clear();
        found.observed.web.package_json = false;
        // Nobody needs a server then.
        found.observed.server_binary |= self.for_docker;
        // They are set before they are needed.
        if let Some(known) = &mut found.observed.secrets {
            known.extend(secrets);
        }
        let planned = plan(request, &settings.config, &found.observed);
        match planned {
            Ok(plan) if found.failures.is_empty() => Ok(Planned {
                settings,
                plan,
                found,
            }),
            Ok(_) => Err(found.failures),
            Err(more) => {
                let mut failures = mem::take(&mut found.failures);
                failures.extend(more);
                Err(failures)
            }
        }
    }

    fn run<'a>(
        &mut self,
        flow: &'a Flow<'_>,
        reporter: &'a dyn crate::events::Reporter,
    ) -> Run<'a> {
        let mut run = Run::new(
            reporter,
            flow.redactor,
            flow.interrupts,
            &self.request.environment,
        );
        let environment = mem::take(&mut run.outcome.environment);
        run.outcome = mem::take(&mut self.outcome);
        run.outcome.environment = environment;
        run
    }

    fn source(&mut self, flow: &Flow<'_>, build: usize) -> Result<Source, Failure> {
        let builder = self.settings.config.image.builder;
        let source = self.sources.entry(build);
        source
            .or_insert_with(|| Source::of(flow.folder, &flow.file.services[build], builder))
            .clone()
    }

    /// The programs of builds whose images hold nothing else. What cannot be found out is told where it is built.
    fn programs(&mut self, flow: &Flow<'_>) -> BTreeMap<usize, String> {
        let mut programs = BTreeMap::new();
        for position in 0..flow.file.services.len() {
            if flow.file.services[position].kind == ServiceType::Build
                && let Ok(Source::Program { binary, .. }) = self.source(flow, position)
            {
                programs.insert(position, binary);
            }
        }
        programs
    }

    fn translate(
        &mut self,
        flow: &Flow<'_>,
        names: &Names,
        services: &BTreeSet<usize>,
        images: &BTreeMap<usize, String>,
        control: Option<&Control>,
    ) -> Result<Translated, Vec<FlowError>> {
        let of_step = |failure: &Failure| vec![FlowError::of(FlowStep::Read, failure)];
        let is_public =
            |position: &&usize| flow.file.services[**position].settings.public_net == Some(true);
        let host = if services.iter().filter(is_public).count() > 1 {
            self.host(control).map_err(|failure| of_step(&failure))?
        } else {
            LOCALHOST.to_owned()
        };
        let programs = self.programs(flow);
        let translated = translate(&Wanted {
            file: flow.file,
            graph: flow.graph,
            names,
            services,
            images,
            programs: &programs,
            host: &host,
        });
        translated.map_err(|faults| faults.iter().map(not_offered).collect())
    }
}

impl ControlPlane for OwnPlatform {
    fn missing(&mut self, flow: &Flow<'_>, selection: &Selection) -> Vec<Missing> {
        // What cannot be read is told, and lacks nothing.
        if selection.services.is_empty() {
            return Vec::new();
        }
        let errors = self.everything_wrong(flow, selection).into_iter();
        // The last line of each says what to do.
        let missing = errors.map(|mut error| Missing {
            remedy: error.details.pop().unwrap_or_default(),
            error,
        });
        missing.collect()
    }

    fn reach(&mut self, flow: &Flow<'_>) -> Result<String, FlowError> {
        let url = &self.settings.config.api.url;
        if !self.is_embedded() {
            return Ok(format!("the platform at {url}"));
        }
        let state = flow.folder.join(project::FOLDER);
        Ok(match crate::platform::Platform::of(&state).running() {
            Some(running) => format!("the platform of this machine, at {}", running.url),
            None => "the platform of this machine, which is started when it is needed".to_owned(),
        })
    }

    fn application(&mut self, flow: &Flow<'_>) -> Result<Application, FlowError> {
        let settings = self.settings_for(flow, |_| {});
        let mut found = self.observer(flow, &settings).target();
        if let Some(failure) = found.failures.pop() {
            return Err(FlowError::of(FlowStep::Application, &failure));
        }
        let control = found.control.map(|control| control.tenant);
        let named = control.or(found.observed.tenant);
        let tenant = named.or_else(|| self.is_embedded().then(|| EMBEDDED_TENANT.to_owned()));
        let Some(tenant) = tenant else {
            let message = "the tenant is not known";
            return Err(FlowError::new(
                FlowStep::Application,
                "control_plane_unreachable",
                Exit::Other,
                message,
            )
            .with("name it: --tenant, or check the credentials: cargo xtask login"));
        };
        Ok(Application {
            id: tenant.clone(),
            slug: tenant,
        })
    }

    fn builds_from_folder(&mut self, flow: &Flow<'_>, build: usize) -> bool {
        // A package may take others of its workspace.
        !self.is_package(flow, build)
    }

    fn build(&mut self, flow: &Flow<'_>, builds: &[Build]) -> Result<Vec<Built>, FlowError> {
        // What is wrong with the last one is found before the first is built.
        let planned = builds.iter().map(|build| self.plan_build(flow, build));
        let planned = planned.collect::<Result<Vec<_>, _>>()?;
        let both = builds.iter().zip(planned);
        both.map(|(build, planned)| self.make(flow, build, planned))
            .collect()
    }

    fn deploy(&mut self, flow: &Flow<'_>, deployment: &Deployment<'_>) -> Result<(), FlowError> {
        let names = names(flow)?;
        self.ask(flow, &names, deployment)
    }

    fn wait(&mut self, flow: &Flow<'_>, services: &[usize]) -> Waited {
        match names(flow) {
            Ok(names) => self.follow(flow, &names, services),
            Err(error) => Waited {
                services: Vec::new(),
                error: Some(error),
            },
        }
    }

    fn look(&mut self, flow: &Flow<'_>, services: &[usize]) -> Waited {
        let names = match names(flow) {
            Ok(names) => names,
            Err(error) => {
                return Waited {
                    services: Vec::new(),
                    error: Some(error),
                };
            }
        };
        let settings = self.settings_for(flow, |_| {});
        let mut found = self.observer(flow, &settings).target();
        match found.control.take() {
            Some(control) => seen::now(&control, &names, services),
            None => Waited {
                services: seen::nothing(services),
                error: found
                    .failures
                    .pop()
                    .map(|failure| FlowError::of(FlowStep::Return, &failure)),
            },
        }
    }

    fn is_transaction(&self) -> bool {
        true
    }

    fn secrets(&self) -> Vec<SecretString> {
        let token = self.variables.get(TOKEN_VARIABLE);
        token
            .map(|token| SecretString::from(token.clone()))
            .into_iter()
            .collect()
    }
}

/// What the services are called on the platform.
fn names(flow: &Flow<'_>) -> Result<Names, FlowError> {
    Names::of(flow.file).map_err(|faults| first(faults.iter().map(not_offered).collect()))
}

/// Makes the folder of images and of the platform's state where there is none, without git taking its content for the project's.
fn make_folder(root: &Path) -> Result<(), Failure> {
    let state = root.join(project::FOLDER);
    if root.join(project::DEPLOY_TOML).exists() {
        return Ok(());
    }
    let ignored = "*\n!deploy.toml\n!deploy.lock\n";
    // The state of deployments without git may have been first.
    let made = fs::create_dir_all(&state).and_then(|()| project::ignore(&state, ignored));
    made.map_err(|e| {
        Failure::new(
            Step::Image,
            "state_unwritable",
            Exit::Other,
            format!("cannot make {}: {e}", state.display()),
            "make the folder of the file writable",
        )
    })
}

fn not_offered(fault: &Fault) -> FlowError {
    FlowError::new(
        FlowStep::Read,
        fault.code,
        Exit::Configuration,
        fault.message.clone(),
    )
    .with(fault.help.clone())
}

/// The first of several, with what the others say.
fn first(errors: Vec<FlowError>) -> FlowError {
    let mut errors = errors.into_iter();
    let Some(mut first) = errors.next() else {
        return internal(FlowStep::Deploy);
    };
    for more in errors {
        first.details.push(more.message);
        first.details.extend(more.details);
    }
    first
}

fn internal(step: FlowStep) -> FlowError {
    FlowError::new(
        step,
        "internal",
        Exit::Other,
        "the steps were not taken in their order",
    )
    .with("this is a fault of the tool: please report it")
}

#[cfg(test)]
mod tests {
    use deploy_config::aramb::parse;
    use deploy_plan::observed::Observed;
    use deploy_plan::preflight;

    use super::*;

    /// The sound files of a folder with their names.
    fn files(folder: &str) -> Vec<(String, deploy_config::aramb::ArambToml)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let entries = fs::read_dir(&folder).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let paths = paths.filter(|path| path.extension().is_some_and(|name| name == "toml"));
        let files = paths.map(|path| {
            let source = fs::read_to_string(&path).unwrap();
            (path.display().to_string(), parse(&path, &source))
        });
        files
            .filter(|(_, toml)| toml.diagnostics.is_empty())
            .collect()
    }

    /// What becomes of a file when everything of it is deployed.
    fn translated(
        toml: &deploy_config::aramb::ArambToml,
    ) -> Result<(Names, Translated), Vec<Fault>> {
        let file = &toml.file;
        let names = Names::of(file)?;
        let runs = |at: &usize| file.services[*at].kind != ServiceType::Build;
        let images = 0..file.services.len();
        let translated = translate(&Wanted {
            file,
            graph: &toml.graph,
            names: &names,
            services: &(0..file.services.len()).filter(runs).collect(),
            images: &images
                .map(|at| (at, format!("local/build-{at}:abc")))
                .collect(),
            programs: &BTreeMap::new(),
            host: LOCALHOST,
        })?;
        Ok((names, translated))
    }

    #[test]
    fn rules_for_git_that_were_cut_off_are_written_again() {
        let root = tempfile::tempdir().unwrap();
        let rules = root.path().join(project::FOLDER).join(project::IGNORE);
        make_folder(root.path()).unwrap();
        let whole = fs::read_to_string(&rules).unwrap();
        assert!(whole.starts_with("*\n"), "{whole}");
        fs::write(&rules, "").unwrap();
        make_folder(root.path()).unwrap();
        assert_eq!(fs::read_to_string(&rules).unwrap(), whole);
        // What somebody wants otherwise stays so.
        fs::write(&rules, "/cache\n").unwrap();
        make_folder(root.path()).unwrap();
        assert_eq!(fs::read_to_string(&rules).unwrap(), "/cache\n");
    }

    #[test]
    fn sound_files_are_sound_releases_or_refused_by_name() {
        let folders = ["../config/tests/aramb", "../../tests/aramb/corpus"];
        let (mut sound, mut refused) = (0, BTreeSet::new());
        for (path, toml) in folders.into_iter().flat_map(files) {
            let (names, translated) = match translated(&toml) {
                Ok(translated) => translated,
                Err(faults) => {
                    refused.extend(faults.into_iter().map(|fault| fault.code));
                    continue;
                }
            };
            sound += 1;
            let mut config = Config::default();
            translated.apply(&mut config);
            let services = translated.builds.keys();
            let there = services.map(|at| (names.on_platform(*at).to_owned(), String::new()));
            let request = Request {
                there: there.collect(),
                ..Request::default()
            };
            let failures = preflight::check(&request, &config, &Observed::default());
            let of_services = |failure: &&Failure| {
                let codes = [
                    "service_invalid",
                    "service_unknown",
                    "services_circular",
                    "route_taken",
                ];
                codes.contains(&failure.code)
            };
            let wrong: Vec<_> = failures.iter().filter(of_services).collect();
            assert!(wrong.is_empty(), "{path}: {wrong:?}");
        }
        assert!(sound > 20, "{sound} files; refused: {refused:?}");
        for code in refused {
            assert!(!code.is_empty() && code != "image_missing", "{code}");
        }
    }
}

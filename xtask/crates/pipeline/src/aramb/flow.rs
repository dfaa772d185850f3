//! The steps, one after the other. Nothing is tried twice, and the first that fails is the last.

mod deploying;
mod way_back;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use deploy_config::aramb::{self as reader, ArambToml};
use deploy_plan::aramb::{
    ArambFile, FlowError, FlowStep, Selection, Service, ServiceType, Wanted, select,
};
use deploy_plan::exit::Exit;

use crate::events::{Event, Reporter};
use crate::interrupt::Interrupts;
use crate::redact::{Redacting, Redactor};

use super::file::{FileError, Replaced, Restored, restore_left, without_deployment};
use super::finish::{Finished, Progress, all_of};
use super::plane::{Application, Build, Built, ControlPlane, Flow};
use super::reuse::{Images, Sources};
use super::state::{State, StateError};
use super::{git, interrupted};

/// What happens when something goes wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Policy {
    /// The command ends at once, with 1, and leaves everything as it is then.
    #[default]
    Strict,
    /// What has changed returns to what it was.
    Guarded,
}

/// What is deployed, and how.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the command line"
)]
pub struct Request {
    /// The file.
    pub path: PathBuf,
    /// What happens when something goes wrong.
    pub policy: Policy,
    /// Which services.
    pub wanted: Wanted,
    /// Deploy the file as it is.
    pub skip_build: bool,
    /// Images go to a registry as well.
    pub push: bool,
    /// The file keeps the images.
    pub write_back: bool,
    /// Build what has not changed, too.
    pub force: bool,
    /// Refuse to build what is not committed.
    pub require_clean: bool,
    /// Say what would be done.
    pub dry_run: bool,
    /// How long the services may take until they are healthy.
    pub timeout: Duration,
}

/// Deploys a file on a control plane.
pub fn deploy(
    request: &Request,
    plane: &mut dyn ControlPlane,
    reporter: &dyn Reporter,
    redactor: &Redactor,
    interrupts: &Interrupts,
) -> Finished {
    for secret in plane.secrets() {
        redactor.learn(&secret);
    }
    let clean = Redacting {
        redactor,
        sink: reporter,
    };
    let mut progress = Progress::new(request.policy);
    let found = fs::canonicalize(&request.path);
    let path = found.as_ref().unwrap_or(&request.path);
    // Where there is no file, nothing is kept and no folder made; whoever only looks holds nobody up.
    let keeps = found.as_ref().ok().filter(|_| !request.dry_run);
    let state = keeps.map(|path| State::of(path));
    let read = match &state {
        Some(Err(StateError::Locked)) => Err(locked()),
        Some(Ok(state)) => put_back(state, path, &clean).and_then(|()| read(path, request, &clean)),
        _ => read(path, request, &clean),
    };
    let (toml, source) = read.as_ref().map_or_else(
        |_| Default::default(),
        |(toml, source)| (toml.clone(), source.clone()),
    );
    learn_secrets(&toml.file, redactor);
    let flow = Flow {
        reporter: &clean,
        redactor,
        interrupts,
        folder: folder_of(path),
        file: &toml.file,
        graph: &toml.graph,
        timeout: request.timeout,
        is_patient: request.policy == Policy::Guarded,
    };
    let mut steps = Steps {
        request,
        plane,
        flow: &flow,
        state: state.as_ref().and_then(|state| state.as_ref().ok()),
        replaced: None,
        touched: Vec::new(),
        path,
        source: &source,
        progress: &mut progress,
    };
    let result = steps.run(read.map(|_| ()));
    drop(steps);
    let is_begun = progress.asked.is_some();
    let error = result.err().map(|mut error| {
        // Ctrl-C ends the programs that were asked as well, which looks like an answer.
        if interrupts.any() && !is_begun && error.exit != Exit::Interrupted {
            error = interrupted(error.step);
        }
        error.message = redactor.clean(&error.message);
        for line in &mut error.details {
            *line = redactor.clean(line);
        }
        error
    });
    progress.finish(&toml.file, error)
}

/// Where the command is run: also where the file's own folder is not there, which is told as the file's fault and not as its.
fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| folder.is_dir());
    folder.unwrap_or(Path::new("."))
}

fn locked() -> FlowError {
    let message = "Another deployment of this file is running";
    FlowError::new(
        FlowStep::Read,
        "deployment_in_progress",
        Exit::Locked,
        message,
    )
    .with("wait for its end, then deploy again")
}

/// Values of secrets, and of variables that go into them, without what they refer to.
fn learn_secrets(file: &ArambFile, redactor: &Redactor) {
    for secret in file.services.iter().flat_map(|service| &service.secrets) {
        redactor.learn_text(&secret.value.text);
        for part in secret.value.text.split("${") {
            let part = part.split_once('}').map_or(part, |(_, rest)| rest);
            // Which database somebody speaks to is no secret, and hiding the word would garble all that names it.
            if is_scheme(part) {
                continue;
            }
            redactor.learn_text(part);
            // Output comes line by line: a key of several lines never stands in one.
            part.lines()
                .for_each(|line| redactor.learn_text(line.trim()));
        }
    }
}

/// `postgres://` and nothing else.
fn is_scheme(text: &str) -> bool {
    let scheme = text.strip_suffix("://");
    scheme.is_some_and(|scheme| {
        scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '+')
    })
}

fn failure(code: &'static str, message: &str) -> FlowError {
    FlowError::new(FlowStep::Read, code, Exit::Configuration, message)
}

/// Puts back what an earlier run has left.
fn put_back(state: &State, path: &Path, reporter: &dyn Reporter) -> Result<(), FlowError> {
    let name = path.file_name().map_or(path, Path::new);
    match restore_left(state, path) {
        Ok(Restored::Already) => {}
        Ok(_) => reporter.event(Event::Warning(format!(
            "an earlier deployment was killed: {} is put back to what it was",
            name.display()
        ))),
        // Told by whoever reads it.
        Err(FileError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            let message = "aramb.toml could not be put back after a deployment that was killed";
            return Err(failure("aramb_not_restored", message)
                .with(error.to_string())
                .with("make it what it should be with git, then deploy again"));
        }
    }
    Ok(())
}

/// Reads the file.
fn read(
    path: &Path,
    request: &Request,
    reporter: &dyn Reporter,
) -> Result<(ArambToml, String), FlowError> {
    let name = path.file_name().map_or(path, Path::new);
    let source = if request.dry_run {
        without_deployment(path)
    } else {
        reader::load(path)
    };
    let source = source.map_err(|error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            let message = format!("{} not found in current directory", name.display());
            failure("aramb_not_found", &message)
                .with(format!("there is no {}", path.display()))
                .with("Ensure that whatever writes the file (the aramb-metadata skill, for one) has run, or name it: --config FILE")
        } else {
            failure("aramb_unreadable", "aramb.toml cannot be read")
                .with(format!("{}: {error}", path.display()))
        }
    })?;
    let toml = reader::parse(name, &source);
    for warning in &toml.warnings {
        reporter.event(Event::Warning(warning.to_string()));
    }
    if toml.diagnostics.is_empty() {
        return Ok((toml, source));
    }
    let mut error = failure("aramb_invalid", "aramb.toml is not valid");
    for diagnostic in &toml.diagnostics {
        error
            .details
            .extend(diagnostic.to_string().lines().map(str::to_owned));
        error.details.push(String::new());
    }
    error.details.pop();
    Err(error)
}

/// The steps, and what they share.
struct Steps<'a, 'f> {
    request: &'a Request,
    plane: &'a mut dyn ControlPlane,
    flow: &'a Flow<'f>,
    state: Option<&'a State>,
    replaced: Option<Replaced<'a>>,
    /// Positions of the services that the control plane was given.
    touched: Vec<usize>,
    path: &'a Path,
    source: &'a str,
    progress: &'a mut Progress,
}

impl Steps<'_, '_> {
    fn run(&mut self, read: Result<(), FlowError>) -> Result<(), FlowError> {
        let selection = self.prepare(read)?;
        if self.request.dry_run {
            self.say_what_would_be_done(&selection);
            self.progress.is_planned = true;
            return Ok(());
        }
        let images = if selection.builds.is_empty() || self.request.skip_build {
            BTreeMap::new()
        } else {
            self.build(&selection)?
        };
        self.stop_if_interrupted(FlowStep::Update)?;
        self.deploy(&selection, &images)
    }

    fn service(&self, position: usize) -> &Service {
        &self.flow.file.services[position]
    }

    fn names(&self, positions: &[usize]) -> Vec<String> {
        let names = positions.iter();
        names
            .map(|position| self.service(*position).name.clone())
            .collect()
    }

    fn stop_if_interrupted(&self, step: FlowStep) -> Result<(), FlowError> {
        if self.flow.interrupts.any() {
            return Err(interrupted(step));
        }
        Ok(())
    }

    /// Steps 0 to 2, and everything that is missing for those behind them, all at once.
    fn prepare(&mut self, read: Result<(), FlowError>) -> Result<Selection, FlowError> {
        let mut wrong = Vec::new();
        match self.plane.reach(self.flow) {
            Ok(found) => self.flow.say(format!("✓ {found}")),
            Err(error) => wrong.push((error, String::new())),
        }
        self.stop_if_interrupted(FlowStep::Install)?;
        let mut selection = Selection::default();
        match read {
            Ok(()) => {
                self.flow.say(format!(
                    "✓ Found {}",
                    self.path.file_name().map_or(self.path, Path::new).display()
                ));
                wrong.extend(self.misnamed());
                match select(self.flow.file, self.flow.graph, &self.request.wanted) {
                    Ok(selected) => selection = selected,
                    Err(unknown) => wrong.extend(unknown.into_iter().map(|error| {
                        let error = FlowError::new(
                            FlowStep::Extract,
                            "service_unknown",
                            Exit::Configuration,
                            error.to_string(),
                        );
                        (error, self.running())
                    })),
                }
            }
            Err(error) => wrong.push((error, String::new())),
        }
        let builds = self.names(&selection.builds);
        let has_builds = !builds.is_empty() && !self.request.skip_build;
        self.progress.has_builds = has_builds;
        if has_builds {
            self.flow
                .say(format!("✓ Found build services: {}", builds.join(" ")));
        } else if !selection.services.is_empty() {
            self.flow.say(if builds.is_empty() {
                "ℹ No build services found in aramb.toml - skipping build phase"
            } else {
                "ℹ Skipping the build phase (--skip-build)"
            });
        }
        let mut asked = selection.clone();
        if !has_builds {
            asked.builds.clear();
        }
        let missing = self.plane.missing(self.flow, &asked);
        wrong.extend(
            missing
                .into_iter()
                .map(|missing| (missing.error, missing.remedy)),
        );
        if has_builds {
            wrong.extend(self.missing_sources(&selection));
            // Where no commit is, there is no repository to keep the file in: that is told already.
            if let Some(error) = self
                .kept_in()
                .err()
                .filter(|_| !self.plane.is_transaction() && !self.request.dry_run)
            {
                wrong.push((error, String::new()));
            }
        }
        if wrong.is_empty() {
            self.check_needed(&selection)?;
        }
        all_of(wrong).map_or(Ok(selection), Err)
    }

    /// The services that can be named, if they are not too many to read.
    fn running(&self) -> String {
        let services = self.flow.file.services.iter();
        let names: Vec<_> = services
            .filter(|service| service.kind != ServiceType::Build)
            .map(|service| service.name.as_str())
            .collect();
        match names.len() {
            0 => "add one, as docs/guides/aramb.md describes".to_owned(),
            1..=20 => format!("the file has {}", names.join(", ")),
            count => format!("the file has {count} services: cargo xtask plan"),
        }
    }

    /// A control plane that is given a folder finds nothing but `aramb.toml` in it, which may be another file.
    fn misnamed(&self) -> Option<(FlowError, String)> {
        let name = self.path.file_name().unwrap_or_default();
        if self.plane.is_transaction() || name == reader::ARAMB_TOML {
            return None;
        }
        let message = format!("{} is not called aramb.toml", name.display());
        let error = FlowError::new(
            FlowStep::Read,
            "aramb_misnamed",
            Exit::Configuration,
            message,
        )
        .with("the aramb command deploys the aramb.toml of its folder and no other file");
        let remedy = "put it into a folder of its own under that name: --config FOLDER/aramb.toml";
        Some((error, remedy.to_owned()))
    }

    /// A build takes a commit, and folders that are there.
    fn missing_sources(&self, selection: &Selection) -> Vec<(FlowError, String)> {
        let mut wrong = Vec::new();
        if git::commit(self.flow.folder).is_none() {
            let message = "Failed to get commit SHA. Not a git repository?";
            let error = FlowError::new(
                FlowStep::Build,
                "commit_unknown",
                Exit::Configuration,
                message,
            );
            let remedy = "git init && git add -A && git commit   # images are named by the commit";
            wrong.push((error, remedy.to_owned()));
        }
        for &position in &selection.builds {
            let service = self.service(position);
            let path = service.settings.build_path.as_ref();
            let folder = self.flow.folder.join(path.map_or(".", |path| &path.text));
            if !folder.is_dir() {
                let message = format!("Build failed for {}", service.name);
                let error = FlowError::new(
                    FlowStep::Build,
                    "build_path_missing",
                    Exit::Configuration,
                    message,
                )
                .with(format!("there is no folder {}", folder.display()));
                wrong.push((error, "correct its buildPath".to_owned()));
            } else if self.request.require_clean && git::tree(&folder).is_none() {
                let message = format!("{} has uncommitted changes", folder.display());
                let error = FlowError::new(FlowStep::Build, "dirty", Exit::Configuration, message);
                wrong.push((
                    error,
                    "commit them, or leave out --require-clean".to_owned(),
                ));
            }
        }
        wrong
    }

    /// What the selected services take the addresses of has to be there.
    fn check_needed(&mut self, selection: &Selection) -> Result<(), FlowError> {
        if selection.needed.is_empty() {
            return Ok(());
        }
        let looked = self.plane.look(self.flow, &selection.needed);
        let mut wrong: Vec<_> = looked
            .services
            .iter()
            .filter(|service| !service.is_healthy)
            .collect();
        wrong.dedup_by_key(|service| service.service);
        let Some(first) = wrong.first() else {
            return Ok(());
        };
        let name = &self.service(first.service).name;
        let message = format!("{name} is needed by what is deployed, and is not there");
        let mut error = FlowError::new(
            FlowStep::Extract,
            "needed_missing",
            Exit::Configuration,
            message,
        );
        if let Some(why) = looked.error {
            error.details.push(why.message);
            error.details.extend(why.details);
        }
        Err(error.with(format!("deploy it as well: --services {name},...")))
    }

    /// Steps 3 to 6: the images, by the positions of their builds.
    fn build(&mut self, selection: &Selection) -> Result<BTreeMap<usize, String>, FlowError> {
        let application = self.plane.application(self.flow)?;
        self.flow
            .say(format!("✓ Application slug: {}", application.slug));
        let builds = self.name_builds(selection, &application)?;
        self.progress.application = Some(application);
        // Our own platform looks for itself what it has.
        let state = self.state.filter(|_| !self.plane.is_transaction());
        let mut known = state.map(Images::of).unwrap_or_default();
        let is_reused = self.request.policy == Policy::Guarded && !self.request.force;
        let sources = Sources::of(self.flow, self.source);
        let mut built: BTreeMap<usize, Built> = BTreeMap::new();
        let mut open = Vec::new();
        for build in &builds {
            let may_be = is_reused && self.plane.builds_from_folder(self.flow, build.service);
            let found = may_be.then(|| known.find(&sources, build, &built));
            match found.flatten() {
                Some(found) => {
                    self.flow.say(format!("✓ Unchanged: {}", found.image));
                    built.insert(build.service, found);
                }
                None => open.push(build.clone()),
            }
        }
        self.stop_if_interrupted(FlowStep::Build)?;
        for new in self.plane.build(self.flow, &open)? {
            built.insert(new.service, new);
        }
        for build in &open {
            known.note(&sources, build, &built);
        }
        if let Some(state) = state {
            // It only saves work.
            let _ = known.keep(state);
        }
        let mut images = BTreeMap::new();
        for build in builds {
            let Some(built) = built.remove(&build.service) else {
                continue;
            };
            images.insert(build.service, self.capture(&built)?);
            self.progress.builds.push((build, built));
        }
        Ok(images)
    }

    /// Step 4.
    fn name_builds(
        &self,
        selection: &Selection,
        application: &Application,
    ) -> Result<Vec<Build>, FlowError> {
        let tag = git::commit(self.flow.folder).ok_or_else(|| {
            let message = "Failed to get commit SHA. Not a git repository?";
            FlowError::new(
                FlowStep::Build,
                "commit_unknown",
                Exit::Configuration,
                message,
            )
        })?;
        let builds = selection.builds.iter().map(|&service| Build {
            service,
            repository: format!("{}/{}", application.slug, self.service(service).name),
            tag: tag.clone(),
            push: self.request.push,
        });
        let builds: Vec<_> = builds.collect();
        for build in &builds {
            self.flow.say(format!("✓ Image name: {}", build.repository));
        }
        Ok(builds)
    }

    /// Step 6: what a build has answered becomes part of the file.
    fn capture(&self, built: &Built) -> Result<String, FlowError> {
        let is_reference = |c: char| c.is_ascii_alphanumeric() || "._-/:@+".contains(c);
        if built.image.is_empty() || !built.image.chars().all(is_reference) {
            let message = format!("{} has told no image", self.service(built.service).name);
            return Err(FlowError::new(
                FlowStep::Capture,
                "image_url_invalid",
                Exit::Build,
                message,
            )
            .with(format!("it has answered {:?}", built.image)));
        }
        Ok(built.image.clone())
    }

    fn say_what_would_be_done(&self, selection: &Selection) {
        let say = |line: String| self.flow.say(line);
        if !self.request.skip_build {
            for &position in &selection.builds {
                let service = self.service(position);
                let path = service.settings.build_path.as_ref();
                say(format!(
                    "would build {} in {}",
                    service.name,
                    path.map_or(".", |path| &path.text)
                ));
            }
        }
        for &position in &selection.services {
            let service = self.service(position);
            say(format!(
                "would deploy {} ({})",
                service.name,
                service.kind.name()
            ));
        }
    }
}

//! The state of a stage while its instructions are gone through: variables and configuration.
//!
//! Pure: files are not looked at here. What an instruction asks of the file system comes out as a
//! [`Step`].

use oci::{History, ImageConfig, RunConfig};

use crate::dockerfile::{
    CommandLine, Copy, Dockerfile, DockerfileError, Healthcheck, Instruction, Line, Problem,
};
use crate::options::Options;
use crate::outline::Outline;
use crate::paths;
use crate::ports;
use crate::variables::Variables;

/// What Docker gives every image that sets no `PATH` of its own.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What an instruction asks of the file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing: it changes the configuration only.
    Configure,
    /// Files, with every variable expanded and the destination absolute.
    Copy(Copy),
    /// A directory that must exist, owned by the user of that moment.
    Directory { path: String, owner: Option<String> },
}

/// Configuration and variables of one stage so far.
#[derive(Debug, Clone)]
pub(crate) struct StageState {
    pub(crate) config: RunConfig,
    pub(crate) author: Option<String>,
    pub(crate) history: Vec<History>,
    variables: Variables,
    command_set: bool,
}

impl StageState {
    /// The state on top of nothing.
    pub(crate) fn empty() -> Self {
        Self::on(&ImageConfig::default())
    }

    /// The state on top of an image.
    pub(crate) fn on(base: &ImageConfig) -> Self {
        let mut config = base.config.clone();
        let mut variables = Variables::from_entries(&config.env);
        if variables.get("PATH").is_none() {
            variables.set("PATH", DEFAULT_PATH);
        }
        config.env = variables.entries();
        if config.working_dir.as_deref().is_none_or(str::is_empty) {
            config.working_dir = Some("/".into());
        }
        Self {
            config,
            author: base.author.clone(),
            history: base.history.clone(),
            variables,
            command_set: false,
        }
    }

    /// The state of a stage that starts from this one.
    pub(crate) fn derived(mut self) -> Self {
        self.command_set = false;
        self
    }

    /// Takes one instruction in.
    pub(crate) fn apply(
        &mut self,
        dockerfile: &Dockerfile,
        outline: &Outline,
        options: &Options,
        line: &Line,
    ) -> Result<Step, DockerfileError> {
        let words = Words {
            escape: dockerfile.escape,
            variables: self.variables.clone(),
        };
        let step = match &line.instruction {
            Instruction::Copy(copy) | Instruction::Add(copy) => self.copy(&words, copy),
            Instruction::Workdir(path) => self.workdir(&words, path),
            Instruction::Arg(arguments) => self
                .arguments(&words, outline, options, arguments)
                .map(|()| Step::Configure),
            other => self.configure(&words, other).map(|()| Step::Configure),
        };
        step.map_err(|problem| dockerfile.fault(line, problem))
    }

    /// Notes in the history what `line` did. `layers` is the number of layers it made.
    pub(crate) fn record(&mut self, line: &Line, layers: usize, created: &str) {
        for _ in 0..layers.max(1) {
            self.history.push(History {
                created: Some(created.to_owned()),
                created_by: Some(line.text.clone()),
                author: None,
                comment: None,
                empty_layer: layers == 0,
            });
        }
    }

    fn configure(&mut self, words: &Words, instruction: &Instruction) -> Result<(), Problem> {
        match instruction {
            Instruction::Env(pairs) => self.environment(words, pairs)?,
            Instruction::Label(pairs) => self.config.labels.extend(words.pairs(pairs)?),
            Instruction::User(user) => self.config.user = Some(words.one(user)?),
            Instruction::Expose(list) => {
                for port in words.split(list)? {
                    self.config.exposed_ports.extend(ports::read(&port)?);
                }
            }
            Instruction::Volume(list) => self.config.volumes.extend(words.each(list)?),
            Instruction::StopSignal(signal) => {
                self.config.stop_signal = Some(ports::signal(words.one(signal)?)?);
            }
            Instruction::Shell(shell) => self.config.shell = Some(shell.clone()),
            Instruction::Maintainer(author) => self.author = Some(author.clone()),
            Instruction::Cmd(command) => self.command(command),
            Instruction::Entrypoint(command) => self.entrypoint(command),
            Instruction::Healthcheck(health) => {
                self.config.healthcheck = Some(healthcheck(health));
            }
            _ => {}
        }
        Ok(())
    }

    fn environment(&mut self, words: &Words, pairs: &[(String, String)]) -> Result<(), Problem> {
        let mut environment = Variables::from_entries(&self.config.env);
        for (name, value) in words.pairs(pairs)? {
            environment.set(&name, &value);
            self.variables.set(&name, &value);
        }
        self.config.env = environment.entries();
        Ok(())
    }

    fn arguments(
        &mut self,
        words: &Words,
        outline: &Outline,
        options: &Options,
        arguments: &[(String, Option<String>)],
    ) -> Result<(), Problem> {
        for (name, default) in arguments {
            let given = options.build_arguments.get(name).cloned();
            let value = match (given, default) {
                (Some(value), _) => Some(value),
                (None, Some(default)) => Some(words.one(default)?),
                (None, None) => outline.globals.get(name).map(str::to_owned),
            };
            if let Some(value) = value {
                self.variables.set(name, &value);
            }
        }
        Ok(())
    }

    fn command(&mut self, command: &CommandLine) {
        let words = command.with_shell(&self.shell());
        self.config.cmd = (!words.is_empty()).then_some(words);
        self.command_set = true;
    }

    /// An entrypoint makes a `CMD` inherited from the base meaningless; one of this stage stays.
    fn entrypoint(&mut self, command: &CommandLine) {
        let words = command.with_shell(&self.shell());
        self.config.entrypoint = (!words.is_empty()).then_some(words);
        if !self.command_set {
            self.config.cmd = None;
        }
    }

    fn shell(&self) -> Vec<String> {
        let default = || vec!["/bin/sh".to_owned(), "-c".to_owned()];
        self.config.shell.clone().unwrap_or_else(default)
    }

    fn working_dir(&self) -> &str {
        self.config.working_dir.as_deref().unwrap_or("/")
    }

    fn workdir(&mut self, words: &Words, path: &str) -> Result<Step, Problem> {
        let path = paths::absolute(self.working_dir(), &words.one(path)?);
        let path = path.trim_end_matches('/').to_owned();
        let path = if path.is_empty() {
            "/".to_owned()
        } else {
            path
        };
        self.config.working_dir = Some(path.clone());
        Ok(Step::Directory {
            path,
            owner: self.config.user.clone(),
        })
    }

    fn copy(&self, words: &Words, copy: &Copy) -> Result<Step, Problem> {
        let mut heredocs = copy.heredocs.clone();
        for heredoc in heredocs.iter_mut().filter(|heredoc| heredoc.expand) {
            heredoc.content = words.text(&heredoc.content)?;
        }
        let destination = words.one(&copy.destination)?;
        let expanded = Copy {
            sources: words.each(&copy.sources)?,
            heredocs,
            destination: paths::absolute(self.working_dir(), &destination),
            chown: copy
                .chown
                .as_deref()
                .map(|owner| words.one(owner))
                .transpose()?,
            chmod: copy
                .chmod
                .as_deref()
                .map(|mode| words.one(mode))
                .transpose()?,
            exclude: words.each(&copy.exclude)?,
            ..copy.clone()
        };
        check_copy(&expanded)?;
        Ok(Step::Copy(expanded))
    }
}

/// Several sources need a directory to go to; Docker says so only when it builds.
fn check_copy(copy: &Copy) -> Result<(), Problem> {
    let several = copy.sources.len() + copy.heredocs.len() > 1;
    if several && !paths::means_directory(&copy.destination) {
        return Err(Problem::Value {
            what: "the destination",
            value: copy.destination.clone(),
            reason: "several sources go to a directory, which must end with /".into(),
        });
    }
    if let Some(source) = copy.sources.iter().find(|source| source.contains("://"))
        && copy.fetches.is_none()
        && copy.from.is_some()
    {
        let reason = "COPY takes no URL".to_owned();
        return Err(Problem::Value {
            what: "the source",
            value: source.clone(),
            reason,
        });
    }
    Ok(())
}

fn healthcheck(health: &Healthcheck) -> oci::Healthcheck {
    match health {
        Healthcheck::Disabled => oci::Healthcheck {
            test: vec!["NONE".into()],
            ..oci::Healthcheck::default()
        },
        Healthcheck::Command {
            command,
            interval,
            timeout,
            start_period,
            start_interval,
            retries,
        } => oci::Healthcheck {
            test: test_words(command),
            interval: interval.unwrap_or_default(),
            timeout: timeout.unwrap_or_default(),
            start_period: start_period.unwrap_or_default(),
            start_interval: start_interval.unwrap_or_default(),
            retries: u64::from(retries.unwrap_or_default()),
        },
    }
}

/// A health check does not look at `SHELL`: the engine runs `CMD-SHELL` with the image's shell.
fn test_words(command: &CommandLine) -> Vec<String> {
    match command {
        CommandLine::Exec(words) => std::iter::once("CMD".to_owned())
            .chain(words.clone())
            .collect(),
        CommandLine::Shell(line) => vec!["CMD-SHELL".into(), line.clone()],
    }
}

/// The variables as they were before the instruction: neither `ENV` nor `ARG` sees its own values.
struct Words {
    escape: char,
    variables: Variables,
}

impl Words {
    fn one(&self, word: &str) -> Result<String, Problem> {
        self.variables.expand(self.escape, word)
    }

    fn each(&self, words: &[String]) -> Result<Vec<String>, Problem> {
        words.iter().map(|word| self.one(word)).collect()
    }

    fn split(&self, words: &[String]) -> Result<Vec<String>, Problem> {
        let split = words
            .iter()
            .map(|word| self.variables.expand_words(self.escape, word));
        Ok(split.collect::<Result<Vec<_>, _>>()?.concat())
    }

    fn pairs(&self, pairs: &[(String, String)]) -> Result<Vec<(String, String)>, Problem> {
        let expand = |(name, value): &(String, String)| Ok((self.one(name)?, self.one(value)?));
        pairs.iter().map(expand).collect()
    }

    /// The text of a heredoc: variables, but quotes mean nothing in it.
    fn text(&self, text: &str) -> Result<String, Problem> {
        self.variables.expand_text(text)
    }
}

//! The settings of one run: all layers laid upon each other, each value with its origin.
//!
//! From the strongest: option, environment variable, the file's section of the environment, the
//! built-in environment, the rest of the file, default.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use deploy_plan::config::{
    BUILTIN_ENVIRONMENTS, Config, EnvironmentName, builtin_environment, redact_value,
};
use serde_json::{Value, json};

use crate::check::{fits, from_text, reads_alone};
use crate::deploy_toml::{self, DeployToml};
use crate::diagnostic::{Diagnostic, Place};
use crate::entry::{Entry, KeyPath, dotted, tree};
use crate::nearest::nearest;
use crate::origin::Origin;
use crate::overrides::{Flag, Overrides};
use crate::project;
use crate::shape::Shape;
use crate::variables;

/// What one run works with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder of the project, which all paths of the configuration are relative to.
    pub root: PathBuf,
    /// The environment deployed to.
    pub environment: EnvironmentName,
    /// What chose the environment.
    pub environment_origin: Origin,
    /// All environments there are, sorted.
    pub environments: Vec<EnvironmentName>,
    /// The values.
    pub config: Config,
    shape: Shape,
    leaves: Leaves,
}

/// One value with its origin, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct Explained {
    /// The key, as in `deploy.timeout`.
    pub key: String,
    /// The value; secrets are not in it.
    pub value: Value,
    /// Where it came from.
    pub origin: Origin,
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file is there but cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Everything wrong with what was said, all sources together.
    #[error("{}", Paragraphs(.0))]
    Invalid(Vec<Diagnostic>),
}

/// Values that hold, by key.
#[derive(Clone, Default)]
struct Leaves(BTreeMap<KeyPath, (Value, Origin)>);

/// The values may be secrets, so only the keys are shown.
impl fmt::Debug for Leaves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.0.keys().map(|path| dotted(path)))
            .finish()
    }
}

struct Paragraphs<'a>(&'a [Diagnostic]);

impl fmt::Display for Paragraphs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

impl Settings {
    /// Loads the settings of the project in `root`. A project without `deploy.toml` has the
    /// defaults.
    ///
    /// # Errors
    ///
    /// When the file cannot be read; when anything in the file, the variables or the options is
    /// unknown or wrong, with all such findings at once.
    pub fn load(root: &Path, overrides: &Overrides) -> Result<Self, SettingsError> {
        let path = root.join(project::DEPLOY_TOML);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(SettingsError::Read { path, source }),
        };
        Self::resolve(root, text.as_deref(), overrides)
    }

    fn resolve(
        root: &Path,
        text: Option<&str>,
        overrides: &Overrides,
    ) -> Result<Self, SettingsError> {
        let file = text.map_or_else(DeployToml::default, |text| {
            deploy_toml::parse(Path::new(project::DEPLOY_TOML), text)
        });
        let environments = known_environments(&file);
        let chosen = chosen_environment(overrides, &file, &environments);
        let environment = chosen.as_ref().ok().map(|(environment, _)| environment);
        let (sources, mut diagnostics) = Sources::gather(file, environment, overrides);
        let (environment, environment_origin) = match chosen {
            Ok(chosen) if diagnostics.is_empty() => chosen,
            // A file that cannot be read to its end may name environments that were not seen.
            Err(unknown) if !sources.file.unread => {
                diagnostics.push(unknown);
                return Err(SettingsError::Invalid(diagnostics));
            }
            _ => return Err(SettingsError::Invalid(diagnostics)),
        };
        let shape = sources.shape.clone();
        let leaves = sources.lay(&environment);
        Ok(Self {
            root: root.to_owned(),
            environment,
            environment_origin,
            environments: environments.into_iter().collect(),
            config: leaves.read()?,
            shape,
            leaves,
        })
    }

    /// Where the value of a key came from; `None` where no such key has a value.
    #[must_use]
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        let path: KeyPath = key.split('.').map(str::to_owned).collect();
        self.leaves.0.get(&path).map(|(_, origin)| origin)
    }

    /// Every value with its origin, in the order of the documentation, the environment first.
    #[must_use]
    pub fn explain(&self) -> Vec<Explained> {
        let mut explained = vec![Explained {
            key: "environment".to_owned(),
            value: Value::from(self.environment.as_str()),
            origin: self.environment_origin.clone(),
        }];
        self.shape.visit(&mut |path, _| {
            let below = self.leaves.0.range(path.to_vec()..);
            let below = below.take_while(|(key, _)| key.starts_with(path));
            explained.extend(below.map(|(key, (value, origin))| Explained {
                key: dotted(key),
                value: shown(key, value),
                origin: origin.clone(),
            }));
        });
        explained
    }
}

/// What each source says, well by itself.
struct Sources {
    /// With the sections that the file names, of services for instance.
    shape: Shape,
    /// Where these are.
    named: Vec<KeyPath>,
    file: DeployToml,
    variables: Vec<Entry>,
    flags: Vec<Entry>,
}

impl Sources {
    /// Reads all of them, with everything that is wrong in any. Variables speak of sections that the file names, and name none.
    fn gather(
        mut file: DeployToml,
        environment: Option<&EnvironmentName>,
        overrides: &Overrides,
    ) -> (Self, Vec<Diagnostic>) {
        let named = named_sections(&file, environment);
        let shape = Shape::of::<Config>().with_named(&named);
        let mut diagnostics = std::mem::take(&mut file.diagnostics);
        let (variables, wrong) = variables::entries(&overrides.variables, &shape);
        diagnostics.extend(wrong);
        let variables = only_readable(variables, &mut diagnostics);
        let flags = flag_entries(&overrides.flags, &shape, &mut diagnostics);
        let flags = only_readable(flags, &mut diagnostics);
        let sources = Self {
            shape,
            named,
            file,
            variables,
            flags,
        };
        (sources, diagnostics)
    }

    /// Lays them upon each other, the weakest first.
    fn lay(self, environment: &EnvironmentName) -> Leaves {
        let mut leaves = Leaves::default();
        leaves.lay_defaults(&self.shape, &self.named);
        leaves.lay(general(&self.file));
        leaves.lay_builtin(environment, &self.shape);
        leaves.lay(section(&self.file, environment));
        leaves.lay(self.variables);
        leaves.lay(self.flags);
        leaves
    }
}

/// What is named as a secret is shown without its value, but for those keys that hold names of secrets.
fn shown(path: &[String], value: &Value) -> Value {
    if let [services, _, secrets, _] = path
        && services == "services"
        && secrets == "secrets"
    {
        return value.clone();
    }
    let name = path.last().map_or("", String::as_str);
    match value {
        Value::String(text) => Value::from(redact_value(name, text)),
        _ => value.clone(),
    }
}

impl Leaves {
    fn lay(&mut self, entries: impl IntoIterator<Item = Entry>) {
        for entry in entries {
            self.0.insert(entry.path, (entry.value, entry.origin));
        }
    }

    /// The defaults of all keys, those of the sections that are named among them.
    fn lay_defaults(&mut self, shape: &Shape, named: &[KeyPath]) {
        let empty = json!({});
        let named = tree(named.iter().map(|path| (path.as_slice(), &empty)));
        let Ok(defaults) = serde_json::from_value::<Config>(named).and_then(serde_json::to_value)
        else {
            return;
        };
        shape.visit(&mut |path, shape| {
            let value = path.iter().try_fold(&defaults, |at, key| at.get(key));
            if let (Shape::Leaf(_), Some(value)) = (shape, value) {
                self.0
                    .insert(path.to_vec(), (value.clone(), Origin::Default));
            }
        });
    }

    fn lay_builtin(&mut self, environment: &EnvironmentName, shape: &Shape) {
        let builtin = builtin_environment(environment.as_str());
        for (key, value) in builtin.into_iter().flat_map(|builtin| builtin.values) {
            let path: KeyPath = key.split('.').map(str::to_owned).collect();
            let origin = Origin::BuiltinEnvironment(environment.clone());
            let leaf = path.iter().try_fold(shape, |at, key| at.child(key));
            // A test reads every one of them, so what cannot be read never gets here.
            if let Some(Shape::Leaf(leaf)) = leaf
                && let Ok(value) = from_text(leaf, value)
            {
                self.0.insert(path, (value, origin));
            }
        }
    }

    /// Every value has been read alone before, so that this fails only where two values exclude
    /// each other.
    fn read(&self) -> Result<Config, SettingsError> {
        let values = self.0.iter();
        let tree = tree(values.map(|(path, (value, _))| (path.as_slice(), value)));
        serde_json::from_value(tree).map_err(|error| {
            let place = Place::Origin(Origin::Default);
            SettingsError::Invalid(vec![Diagnostic::new(error.to_string(), place)])
        })
    }
}

/// What the file says for every environment.
fn general(file: &DeployToml) -> impl Iterator<Item = Entry> {
    const OF_THE_FILE: [&str; 3] = ["schema", "default_environment", "environments"];
    file.entries
        .iter()
        .filter(|entry| !OF_THE_FILE.contains(&entry.path[0].as_str()))
        .cloned()
}

/// What the file says for one environment.
fn section(file: &DeployToml, environment: &EnvironmentName) -> impl Iterator<Item = Entry> {
    file.entries.iter().filter_map(|entry| match &*entry.path {
        [first, name, path @ ..] if first == "environments" && name == environment.as_str() => {
            Some(Entry {
                path: path.to_vec(),
                ..entry.clone()
            })
        }
        _ => None,
    })
}

/// The sections of chosen names that the file has for every environment and for this one.
fn named_sections(file: &DeployToml, environment: Option<&EnvironmentName>) -> Vec<KeyPath> {
    let named = file.named.iter().filter_map(|path| match path.as_slice() {
        [first, name, path @ ..] if first == "environments" => {
            let this = environment.is_some_and(|environment| environment.as_str() == name);
            (this && !path.is_empty()).then(|| path.to_vec())
        }
        path => Some(path.to_vec()),
    });
    let mut named: Vec<KeyPath> = named.collect();
    named.sort_unstable();
    named.dedup();
    named
}

fn flag_entries(
    flags: &[(String, Flag)],
    shape: &Shape,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (key, flag) in flags {
        match flag_entry(key, flag, shape) {
            Ok(entry) => entries.push(entry),
            Err(diagnostic) => diagnostics.push(diagnostic),
        }
    }
    entries
}

fn flag_entry(key: &str, flag: &Flag, shape: &Shape) -> Result<Entry, Diagnostic> {
    let origin = Origin::Flag(flag.name.clone());
    let place = Place::Origin(origin.clone());
    let path: KeyPath = key.split('.').map(str::to_owned).collect();
    let Some(Shape::Leaf(leaf)) = path.iter().try_fold(shape, |at, key| at.child(key)) else {
        let help = nearest_key(key, shape).map(|known| format!("did you mean `{known}`?"));
        return Err(Diagnostic::new(format!("unknown key `{key}`"), place).with_help(help));
    };
    let value = match &flag.value {
        Value::String(text) => from_text(leaf, text),
        value => Ok(value.clone()),
    };
    match value.and_then(|value| fits(leaf, &value).map(|()| value)) {
        Ok(value) => Ok(Entry {
            path,
            value,
            origin,
            place,
        }),
        Err(fault) => Err(Diagnostic::new(fault.message, place).with_help(fault.help)),
    }
}

fn nearest_key(key: &str, shape: &Shape) -> Option<String> {
    let mut keys = Vec::new();
    shape.visit(&mut |path, _| keys.push(dotted(path)));
    nearest(key, keys.iter().map(String::as_str)).map(str::to_owned)
}

/// Drops the values that their type refuses, with a word about each.
fn only_readable(entries: Vec<Entry>, diagnostics: &mut Vec<Diagnostic>) -> Vec<Entry> {
    let mut readable = Vec::new();
    for entry in entries {
        match reads_alone::<Config>(&entry.path, &entry.value) {
            Ok(()) => readable.push(entry),
            Err(fault) => diagnostics.push(Diagnostic::new(fault.message, entry.place)),
        }
    }
    readable
}

fn known_environments(file: &DeployToml) -> BTreeSet<EnvironmentName> {
    let builtin = BUILTIN_ENVIRONMENTS.iter().map(|builtin| builtin.name);
    let named = file.named.iter().filter_map(|path| match path.as_slice() {
        [first, name] if first == "environments" => Some(name.as_str()),
        _ => None,
    });
    builtin
        .chain(named)
        .filter_map(|name| name.parse().ok())
        .collect()
}

fn chosen_environment(
    overrides: &Overrides,
    file: &DeployToml,
    known: &BTreeSet<EnvironmentName>,
) -> Result<(EnvironmentName, Origin), Diagnostic> {
    let Some((name, origin, place)) = named_environment(overrides, file) else {
        return Ok((EnvironmentName::default(), Origin::Default));
    };
    if let Some(environment) = known.iter().find(|known| known.as_str() == name) {
        return Ok((environment.clone(), origin));
    }
    let names = || known.iter().map(EnvironmentName::as_str);
    let help = match nearest(&name, names()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!(
            "known are {}; another is made by a section [environments.{name}] in {}",
            names().collect::<Vec<_>>().join(", "),
            project::DEPLOY_TOML
        ),
    };
    Err(Diagnostic::new(format!("unknown environment `{name}`"), place).with_help(Some(help)))
}

/// The name of the environment that somebody asked for, and who.
fn named_environment(overrides: &Overrides, file: &DeployToml) -> Option<(String, Origin, Place)> {
    if let Some((flag, name)) = &overrides.environment {
        let origin = Origin::Flag(flag.clone());
        return Some((name.clone(), origin.clone(), Place::Origin(origin)));
    }
    if let Some(name) = variables::filled(&overrides.variables, variables::ENVIRONMENT) {
        let origin = Origin::Variable(variables::ENVIRONMENT.to_owned());
        return Some((name.to_owned(), origin.clone(), Place::Origin(origin)));
    }
    let entry = file
        .entries
        .iter()
        .find(|entry| entry.path == ["default_environment"])?;
    let name = entry.value.as_str().unwrap_or_default().to_owned();
    Some((name, entry.origin.clone(), entry.place.clone()))
}

#[cfg(test)]
mod tests;

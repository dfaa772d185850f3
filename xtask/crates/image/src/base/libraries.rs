//! Whether the programs of an image will start on its base: the loader, the libraries and the symbol
//! versions that they need, against what the base and the image's own layers have.
//!
//! It does not search as the loader does: a library counts as there wherever it stands. What is
//! named here is missing for certain, and what a program opens by itself later is not seen.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::closure::{ClosureError, Program, facts};
use super::facts::BaseFacts;
use super::names::{clean, file_name};
use super::versions::{self, Wanted, newest};
use crate::assemble::{AssembleError, programs};
use crate::cache::Cache;
use crate::files::{Content, Kind};
use crate::plan::AssemblyPlan;

/// A program that will not start, and why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortfall {
    /// Its path in the image.
    pub program: PathBuf,
    /// What is missing.
    pub lacks: Lacks,
}

/// What a program needs and the base does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lacks {
    /// The loader.
    Loader(String),
    /// A library.
    Library(String),
    /// A version of the symbols of a library that is there; the newest of those missing.
    Version {
        /// The library.
        library: String,
        /// The version.
        version: String,
        /// One of the symbols asked for in that version.
        symbol: Option<String>,
        /// The newest version of that kind that the library offers.
        offered: Option<String>,
    },
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = self.program.display();
        match &self.lacks {
            Lacks::Loader(loader) => write!(f, "{program} needs the loader {loader}"),
            Lacks::Library(library) => write!(f, "{program} needs {library}"),
            Lacks::Version {
                library,
                version,
                symbol,
                offered,
            } => {
                write!(f, "{program} needs {version} of {library}")?;
                if let Some(symbol) = symbol {
                    write!(f, " (for {symbol})")?;
                }
                match offered {
                    Some(offered) => write!(f, ", which offers {offered} at most"),
                    None => write!(f, ", which offers none of the kind"),
                }
            }
        }
    }
}

/// Whether any program of the image needs a loader: only then is there something to check.
pub fn loads_libraries(plan: &AssemblyPlan, cache: &mut Cache) -> Result<bool, AssembleError> {
    let programs = programs(plan, cache)?;
    Ok(programs.iter().any(is_loaded))
}

/// Everything that the programs of `plan` need and that neither it nor its base has.
pub fn check_libraries(
    plan: &AssemblyPlan,
    base: &BaseFacts,
    cache: &mut Cache,
) -> Result<Vec<Shortfall>, AssembleError> {
    let programs = programs(plan, cache)?;
    let mut check = Check {
        base,
        own: own_libraries(plan),
        cache,
        seen: BTreeSet::new(),
        missing: Vec::new(),
    };
    for program in programs.into_iter().filter(is_loaded) {
        check.program(program)?;
    }
    Ok(check.missing)
}

fn is_loaded(program: &Program) -> bool {
    program.facts.interpreter.is_some() || !program.facts.needed.is_empty()
}

/// The files of the image's own layers by their last name: where they are here and in the image.
fn own_libraries(plan: &AssemblyPlan) -> BTreeMap<String, (PathBuf, PathBuf)> {
    let nodes = plan.layers.iter().flat_map(|layer| &layer.nodes);
    let files = nodes.filter_map(|(path, node)| match &node.kind {
        Kind::File {
            content: Content::Disk { path: here, .. },
            ..
        } => Some((path, here.clone())),
        // A link beside the library has its name, and leads to a file that stands here too.
        Kind::Symlink(target) => {
            let beside = path.parent().unwrap_or(Path::new("")).join(target);
            let node = plan.tree.get(&crate::paths::below_root(&beside))?;
            match &node.kind {
                Kind::File {
                    content: Content::Disk { path: here, .. },
                    ..
                } => Some((path, here.clone())),
                _ => None,
            }
        }
        _ => None,
    });
    let named = files.map(|(path, here)| {
        let name = file_name(&path.to_string_lossy()).to_owned();
        (name, (here, Path::new("/").join(path)))
    });
    named.collect()
}

struct Check<'a> {
    base: &'a BaseFacts,
    own: BTreeMap<String, (PathBuf, PathBuf)>,
    cache: &'a mut Cache,
    /// Libraries of the image itself that have been looked at.
    seen: BTreeSet<String>,
    missing: Vec<Shortfall>,
}

impl Check<'_> {
    /// Checks a program and the libraries that the image itself brings for it.
    fn program(&mut self, program: Program) -> Result<(), AssembleError> {
        let mut waiting = vec![program];
        while let Some(program) = waiting.pop() {
            if let Some(loader) = &program.facts.interpreter
                && !self.has_loader(loader)
            {
                self.note(&program, Lacks::Loader(loader.clone()));
                // Its libraries are those of another system: naming them too says nothing.
                continue;
            }
            let wanted = read(&program.path, versions::wanted)?;
            for name in &program.facts.needed {
                let name = file_name(name);
                if self.own.contains_key(name) {
                    waiting.extend(self.own_library(name)?);
                } else if self.in_base(name, &program).next().is_none() {
                    self.note(&program, Lacks::Library(name.to_owned()));
                }
            }
            self.versions(&program, wanted)?;
        }
        Ok(())
    }

    fn has_loader(&self, loader: &str) -> bool {
        self.base.at(loader).is_some()
            || self
                .own
                .values()
                .any(|(_, in_image)| clean(&in_image.to_string_lossy()) == clean(loader))
    }

    /// A library that the image brings, the first time that it is met.
    fn own_library(&mut self, name: &str) -> Result<Option<Program>, AssembleError> {
        if !self.seen.insert(name.to_owned()) {
            return Ok(None);
        }
        let Some((path, in_image)) = self.own.get(name).cloned() else {
            return Ok(None);
        };
        let facts = facts(&path, self.cache)?;
        Ok(facts.map(|facts| Program {
            path,
            in_image,
            facts,
        }))
    }

    /// Of the versions that a library lacks the newest says all: who has it has the older ones.
    fn versions(
        &mut self,
        program: &Program,
        wanted: BTreeSet<Wanted>,
    ) -> Result<(), AssembleError> {
        let mut lacking: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
        for Wanted { library, version } in wanted {
            let offered = self.offered(program, &library)?;
            if offered.is_some_and(|offered| !offered.contains(&version)) {
                let kind = kind(&version).to_owned();
                lacking.entry((library, kind)).or_default().insert(version);
            }
        }
        for ((library, wanted_kind), versions) in lacking {
            let Some(version) = newest(versions.iter().map(String::as_str)) else {
                continue;
            };
            let version = version.to_owned();
            let wanted = Wanted { library, version };
            let symbol = read(&program.path, |path| versions::symbol(path, &wanted))?;
            let offered = self.offered(program, &wanted.library)?.unwrap_or_default();
            let same = offered.iter().map(String::as_str);
            let same = same.filter(|offered| kind(offered) == wanted_kind);
            let lacks = Lacks::Version {
                symbol,
                offered: newest(same).map(str::to_owned),
                library: wanted.library,
                version: wanted.version,
            };
            self.note(program, lacks);
        }
        Ok(())
    }

    /// The versions that a library offers; `None` when nobody can tell, or when it has no versions
    /// at all: the loader then takes it as it is.
    fn offered(
        &self,
        program: &Program,
        library: &str,
    ) -> Result<Option<BTreeSet<String>>, AssembleError> {
        let name = file_name(library);
        if let Some((path, _)) = self.own.get(name) {
            let offered = read(path, |path| versions::offered(std::fs::File::open(path)?))?;
            return Ok(offered.filter(|offered| !offered.is_empty()));
        }
        let mut all = BTreeSet::new();
        for library in self.in_base(name, program) {
            match &library.versions {
                Some(versions) if !versions.is_empty() => all.extend(versions.iter().cloned()),
                _ => return Ok(None),
            }
        }
        Ok((!all.is_empty()).then_some(all))
    }

    fn in_base<'b>(
        &'b self,
        name: &'b str,
        program: &'b Program,
    ) -> impl Iterator<Item = &'b super::facts::Library> {
        let facts = &program.facts;
        let fits = |library: &&super::facts::Library| {
            library.machine == facts.machine && library.wide == facts.wide
        };
        self.base.named(name).filter(fits)
    }

    fn note(&mut self, program: &Program, lacks: Lacks) {
        self.missing.push(Shortfall {
            program: program.in_image.clone(),
            lacks,
        });
    }
}

/// `GLIBC` of `GLIBC_2.34`.
fn kind(version: &str) -> &str {
    version.split('_').next().unwrap_or_default()
}

fn read<T>(path: &Path, how: impl FnOnce(&Path) -> io::Result<T>) -> Result<T, ClosureError> {
    how(path).map_err(|source| ClosureError::Read {
        path: path.to_owned(),
        source,
    })
}

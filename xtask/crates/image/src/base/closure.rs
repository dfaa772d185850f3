//! The shared libraries that programs really load, found as the dynamic loader finds them.
//!
//! Source: `ld.so(8)`. `LD_LIBRARY_PATH` is left out: it is set here and not in the image.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::elf::{self, ElfFacts};
use crate::cache::{self, Cache};
use crate::files::FileStat;

/// Where loaders look when nothing says otherwise; the multi-architecture folders of Debian come
/// first, as its loader has them.
const DEFAULT_FOLDERS: [&str; 10] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib/riscv64-linux-gnu",
    "/usr/lib/riscv64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
];
/// Files that include each other in `ld.so.conf` are followed this deep.
const INCLUDE_LIMIT: usize = 8;
/// More libraries than this is not a program but a mistake.
const LIBRARY_LIMIT: usize = 4096;

/// Why the libraries of a program cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum ClosureError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// A library is on none of the paths.
    #[error("{program} needs {library}, which is not on this machine")]
    Missing {
        /// What needs it.
        program: PathBuf,
        /// Its name.
        library: String,
    },
    /// A program is for another processor than the image.
    #[error("{program} is built for {machine}, the image is for {wanted}")]
    Machine {
        /// The program.
        program: PathBuf,
        /// What it is built for.
        machine: String,
        /// What the image is for.
        wanted: String,
    },
    /// A program needs far too many libraries.
    #[error("the programs need more than 4096 shared libraries")]
    TooMany,
}

/// A program of the image.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// Where it is on this machine.
    pub(crate) path: PathBuf,
    /// Where it stands in the image, absolute.
    pub(crate) in_image: PathBuf,
    pub(crate) facts: ElfFacts,
}

/// What programs need beside themselves.
#[derive(Debug, Default)]
pub(crate) struct Closure {
    /// Loaders: the paths that programs name.
    pub(crate) loaders: BTreeSet<PathBuf>,
    /// Libraries: where the program expects them in the image, where they are here.
    pub(crate) libraries: BTreeMap<PathBuf, PathBuf>,
    /// The folder of the C library: the loader looks there without being told.
    pub(crate) system_folder: Option<PathBuf>,
}

/// Reads the ELF headers of a file, or remembers them.
pub(crate) fn facts(path: &Path, cache: &mut Cache) -> Result<Option<ElfFacts>, ClosureError> {
    let at = |source| ClosureError::Read {
        path: path.to_owned(),
        source,
    };
    let stat = FileStat::from(&fs::metadata(path).map_err(at)?);
    match cache.program(&stat) {
        Some(cache::Program::Elf(facts)) => return Ok(Some(facts)),
        Some(cache::Program::None) => return Ok(None),
        None => {}
    }
    let facts = elf::read(path).map_err(at)?;
    let known = facts
        .clone()
        .map_or(cache::Program::None, cache::Program::Elf);
    cache.remember_program(&stat, known);
    Ok(facts)
}

/// Finds everything that `programs` load, and libraries named in `extra` where they exist.
pub(crate) fn find(
    programs: &[Program],
    extra: &[&str],
    cache: &mut Cache,
) -> Result<Closure, ClosureError> {
    let mut search = Search {
        configured: configured_folders(),
        cache,
        closure: Closure::default(),
    };
    let mut waiting: VecDeque<(Program, Vec<String>)> = programs
        .iter()
        .map(|program| (program.clone(), Vec::new()))
        .collect();
    while let Some((program, inherited)) = waiting.pop_front() {
        search
            .closure
            .loaders
            .extend(program.facts.interpreter.as_ref().map(PathBuf::from));
        for name in program.facts.needed.clone() {
            let found = search.library(&program, &inherited, &name)?;
            let library = program.path.clone();
            let missing = || ClosureError::Missing {
                program: library,
                library: name.clone(),
            };
            waiting.extend(search.add(found.ok_or_else(missing)?, &program, &inherited)?);
        }
        if waiting.is_empty() {
            waiting.extend(search.extra(extra, programs)?);
        }
    }
    Ok(search.closure)
}

struct Search<'a> {
    configured: Vec<PathBuf>,
    cache: &'a mut Cache,
    closure: Closure,
}

/// A library: where it is here, where it belongs in the image, what it says.
struct Found {
    path: PathBuf,
    in_image: PathBuf,
    facts: ElfFacts,
}

impl Search<'_> {
    /// Looks for a library in the order of the loader.
    fn library(
        &mut self,
        program: &Program,
        inherited: &[String],
        name: &str,
    ) -> Result<Option<Found>, ClosureError> {
        if name.contains('/') {
            return self.candidate(Path::new(name), Path::new(name), program);
        }
        let own = if program.facts.runpath.is_empty() {
            &program.facts.rpath
        } else {
            &program.facts.runpath
        };
        let inherited = if program.facts.runpath.is_empty() {
            inherited
        } else {
            &[]
        };
        for folder in own.iter().chain(inherited) {
            let here = expand(folder, &program.path).join(name);
            let there = expand(folder, &program.in_image).join(name);
            if let Some(found) = self.candidate(&here, &there, program)? {
                return Ok(Some(found));
            }
        }
        let folders = self.configured.clone().into_iter();
        for folder in folders.chain(DEFAULT_FOLDERS.iter().map(PathBuf::from)) {
            let path = folder.join(name);
            if let Some(found) = self.candidate(&path, &path, program)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The library at `path`, if it is one of the program's kind.
    fn candidate(
        &mut self,
        path: &Path,
        in_image: &Path,
        program: &Program,
    ) -> Result<Option<Found>, ClosureError> {
        if !path.is_file() {
            return Ok(None);
        }
        let Some(facts) = facts(path, self.cache)? else {
            return Ok(None);
        };
        let same = facts.machine == program.facts.machine && facts.wide == program.facts.wide;
        let found = Found {
            path: path.to_owned(),
            in_image: in_image.to_owned(),
            facts,
        };
        Ok(same.then_some(found))
    }

    /// Takes a library in; gives it back as a program when it is new and has needs of its own.
    fn add(
        &mut self,
        found: Found,
        needed_by: &Program,
        inherited: &[String],
    ) -> Result<Option<(Program, Vec<String>)>, ClosureError> {
        if self.closure.libraries.len() >= LIBRARY_LIMIT {
            return Err(ClosureError::TooMany);
        }
        let Found {
            path,
            in_image,
            facts,
        } = found;
        let c_library = in_image.file_name().is_some_and(|name| name == "libc.so.6");
        if c_library {
            self.closure.system_folder = in_image.parent().map(Path::to_owned);
        }
        if self
            .closure
            .libraries
            .insert(in_image.clone(), path.clone())
            .is_some()
        {
            return Ok(None);
        }
        let rpath = if needed_by.facts.runpath.is_empty() {
            &needed_by.facts.rpath[..]
        } else {
            &[]
        };
        let chain = rpath.iter().chain(inherited).cloned().collect();
        Ok(Some((
            Program {
                path,
                in_image,
                facts,
            },
            chain,
        )))
    }

    /// Libraries that the C library opens by name when it is asked for users or hosts.
    fn extra(
        &mut self,
        names: &[&str],
        programs: &[Program],
    ) -> Result<Vec<(Program, Vec<String>)>, ClosureError> {
        let Some(folder) = self.closure.system_folder.clone() else {
            return Ok(Vec::new());
        };
        let Some(program) = programs.first() else {
            return Ok(Vec::new());
        };
        let mut added = Vec::new();
        for name in names {
            let path = folder.join(name);
            if self.closure.libraries.contains_key(&path) {
                continue;
            }
            if let Some(found) = self.candidate(&path, &path, program)? {
                added.extend(self.add(found, program, &[])?);
            }
        }
        Ok(added)
    }
}

/// Puts the folder of a program in the place of `$ORIGIN`.
fn expand(folder: &str, program: &Path) -> PathBuf {
    let origin = program.parent().unwrap_or(Path::new("/")).to_string_lossy();
    let expanded = folder
        .replace("${ORIGIN}", &origin)
        .replace("$ORIGIN", &origin);
    lexically_clean(Path::new(&expanded))
}

fn lexically_clean(path: &Path) -> PathBuf {
    Path::new("/").join(crate::paths::below_root(path))
}

/// The folders of `/etc/ld.so.conf`, which is what `ldconfig` makes the loader's cache from.
fn configured_folders() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    read_configuration(Path::new("/etc/ld.so.conf"), INCLUDE_LIMIT, &mut folders);
    folders
}

fn read_configuration(path: &Path, depth: usize, folders: &mut Vec<PathBuf>) {
    // No such file is what machines without glibc have.
    let Ok(text) = fs::read_to_string(path) else {
        return;
    };
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        match line.strip_prefix("include ") {
            Some(pattern) if depth > 0 => {
                for file in included(Path::new("/etc"), pattern.trim()) {
                    read_configuration(&file, depth - 1, folders);
                }
            }
            None if line.starts_with('/') => folders.push(line.into()),
            _ => {}
        }
    }
}

/// Files that an `include` names; a pattern in its last part, as distributions write it.
fn included(base: &Path, pattern: &str) -> Vec<PathBuf> {
    let path = base.join(pattern);
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Vec::new();
    };
    let Ok(glob) = crate::glob::Glob::segment(&name.to_string_lossy()) else {
        return Vec::new();
    };
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
    let matching = names.filter(|name| glob.matches(name.as_encoded_bytes()));
    let mut files: Vec<PathBuf> = matching.map(|name| folder.join(name)).collect();
    files.sort();
    files
}

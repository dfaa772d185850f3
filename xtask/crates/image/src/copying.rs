//! What `COPY` does to the files of an image.
//!
//! The rules are those of `BuildKit` (`solver/llbsolver/file` and `fsutil/copy`): a directory's
//! contents are copied, not the directory; a link named as a source is followed, one found inside a
//! directory is copied as a link; missing directories are made with mode 0755 and the owner of
//! `--chown`; an existing directory keeps its owner and mode unless it is itself being copied.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::chmod::Chmod;
use crate::context::Context;
use crate::files::{Content, Files, FilesError, Kind, Node, Owner, resolve};
use crate::glob::{BadPattern, Glob, has_wildcard, unescape};
use crate::ignore::Ignore;
use crate::paths;
use crate::tree::Tree;

/// Why files cannot be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The source cannot be looked at.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// A source or `--exclude` is no pattern.
    #[error(transparent)]
    Pattern(#[from] BadPattern),
    /// `..` leads out of the context.
    #[error("{path} lies outside of the build context")]
    Outside {
        /// The source as written.
        path: String,
    },
    /// Nothing has this name.
    #[error("there is no {path}")]
    Missing {
        /// The source as written.
        path: String,
    },
    /// A file would replace a directory or the other way round.
    #[error("{path} is a {existing} already and cannot become a {wanted}")]
    Replaces {
        /// The path in the image.
        path: PathBuf,
        /// What it is.
        existing: &'static str,
        /// What it would become.
        wanted: &'static str,
    },
    /// A pattern matches several files, and the destination is one file.
    #[error("{path} matches {count} files, which go to a directory: end the destination with /")]
    Several {
        /// The source as written.
        path: String,
        /// How many it matches.
        count: usize,
    },
    /// The Dockerfile makes more files than there may be.
    #[error("{path} is one file too many: all stages together may have {limit} files")]
    TooMany {
        /// The first that has no room.
        path: PathBuf,
        /// [`crate::Options::file_limit`]
        limit: usize,
    },
    /// A path that no system can open (`PATH_MAX`).
    #[error("a path of {length} bytes is too long, {PATH_LIMIT} are possible")]
    TooLong {
        /// Its length.
        length: usize,
    },
}

/// `PATH_MAX` without the terminating byte.
const PATH_LIMIT: usize = 4095;

/// How many files there may still be.
#[derive(Debug)]
pub(crate) struct Room {
    limit: usize,
    left: Cell<usize>,
}

impl Room {
    pub(crate) fn new(limit: usize) -> Self {
        let left = Cell::new(limit);
        Self { limit, left }
    }

    /// Takes room for `count` more files, of which `path` is the first.
    pub(crate) fn take(&self, count: usize, path: &Path) -> Result<(), CopyError> {
        let left = self.left.get().checked_sub(count);
        self.left.set(left.ok_or_else(|| CopyError::TooMany {
            path: path.to_owned(),
            limit: self.limit,
        })?);
        Ok(())
    }
}

/// One `COPY`, ready to be carried out.
pub(crate) struct Copying<'a> {
    pub(crate) files: &'a dyn Files,
    pub(crate) sources: &'a [String],
    pub(crate) inline: Vec<(String, Content)>,
    pub(crate) destination: &'a str,
    /// The owner of `--chown`; without one each file keeps the owner it has.
    pub(crate) owner: Option<Owner>,
    pub(crate) chmod: Option<Chmod>,
    pub(crate) parents: bool,
    pub(crate) exclude: Ignore,
    pub(crate) room: &'a Room,
}

/// What a `COPY` has put into the tree.
#[derive(Debug, Default)]
pub(crate) struct Copied {
    /// Everything it wrote or made.
    pub(crate) paths: BTreeSet<PathBuf>,
    /// Patterns that matched nothing, which `BuildKit` takes for optional files.
    pub(crate) unmatched: Vec<String>,
}

impl Copying<'_> {
    /// Puts the files into `tree`.
    pub(crate) fn run(&self, tree: &mut Tree) -> Result<Copied, CopyError> {
        let mut run = Run {
            copying: self,
            tree,
            copied: Copied::default(),
        };
        for source in self.sources {
            if self.parents {
                run.with_parents(source)?;
            } else {
                run.source(source)?;
            }
        }
        for (name, content) in &self.inline {
            let kind = Kind::File {
                content: content.clone(),
                artifact: None,
            };
            let node = Node {
                kind,
                mode: 0o644,
                owner: Owner::default(),
            };
            let target = run.target(OsStr::new(name), false)?;
            run.put(&target, node)?;
        }
        Ok(run.copied)
    }
}

struct Run<'a, 'c> {
    copying: &'a Copying<'c>,
    tree: &'a mut Tree,
    copied: Copied,
}

impl Run<'_, '_> {
    fn source(&mut self, source: &str) -> Result<(), CopyError> {
        let path = below_context(source)?;
        let matches = if has_wildcard(source) {
            expand(self.copying.files, &path)?
        } else {
            vec![PathBuf::from(unescape(&path))]
        };
        if matches.is_empty() {
            self.copied.unmatched.push(source.to_owned());
        }
        if matches.len() > 1 && !self.goes_into_directory()? {
            let path = source.to_owned();
            return Err(CopyError::Several {
                path,
                count: matches.len(),
            });
        }
        for path in matches {
            self.one(source, &path)?;
        }
        Ok(())
    }

    fn goes_into_directory(&self) -> Result<bool, CopyError> {
        let destination = self.copying.destination;
        Ok(paths::means_directory(destination)
            || self.tree.is_directory(&self.root_of(destination)?))
    }

    fn one(&mut self, source: &str, path: &Path) -> Result<(), CopyError> {
        let resolved = resolve(self.copying.files, path)?;
        let missing = || CopyError::Missing {
            path: source.to_owned(),
        };
        let node = self.copying.files.node(&resolved)?.ok_or_else(missing)?;
        let name = path.file_name().unwrap_or_default();
        if node.is_directory() {
            let target = self.target(name, true)?;
            return self.contents(&resolved, &target, Path::new(""));
        }
        if self.copying.exclude.excludes(Path::new(name)).is_some() {
            return Ok(());
        }
        let target = self.target(name, false)?;
        self.put(&target, node)
    }

    /// Where a source of this name goes. Makes the directories on the way.
    fn target(&mut self, name: &OsStr, directory: bool) -> Result<PathBuf, CopyError> {
        let destination = self.copying.destination;
        let target = self.root_of(destination)?;
        if directory || paths::means_directory(destination) {
            self.make(&target)?;
        } else if let Some(parent) = target.parent() {
            self.make(parent)?;
        }
        if !directory && self.tree.is_directory(&target) {
            return Ok(target.join(name));
        }
        Ok(target)
    }

    /// A path of the image, links followed that this Dockerfile has put there.
    fn root_of(&self, destination: &str) -> Result<PathBuf, CopyError> {
        let path = paths::below_root(Path::new(destination));
        Ok(resolve(self.tree, &path)?)
    }

    fn make(&mut self, directory: &Path) -> Result<(), CopyError> {
        if self.tree.is_directory(directory) {
            return Ok(());
        }
        let standing = directory
            .ancestors()
            .find(|path| self.tree.get(path).is_some());
        if let Some(path) = standing.filter(|path| !self.tree.is_directory(path)) {
            let (existing, wanted) = ("file", "directory");
            return Err(CopyError::Replaces {
                path: path.to_owned(),
                existing,
                wanted,
            });
        }
        let made = self
            .tree
            .make_directories(directory, self.copying.owner.unwrap_or_default());
        self.copied.paths.extend(made);
        Ok(())
    }

    /// Copies what is in the directory `from`; `inside` is the path from the source's top.
    fn contents(&mut self, from: &Path, to: &Path, inside: &Path) -> Result<(), CopyError> {
        for name in self.copying.files.children(from)? {
            let inside = inside.join(&name);
            let exclude = &self.copying.exclude;
            let excluded = exclude.excludes(&inside).is_some();
            if excluded && !exclude.may_include_below(&inside) {
                continue;
            }
            let (from, to) = (from.join(&name), to.join(&name));
            let Some(node) = self.copying.files.node(&from)? else {
                continue;
            };
            let directory = node.is_directory();
            if !excluded {
                self.put(&to, node)?;
            }
            if directory {
                self.contents(&from, &to, &inside)?;
            }
        }
        Ok(())
    }

    fn put(&mut self, target: &Path, mut node: Node) -> Result<(), CopyError> {
        if let Some(owner) = self.copying.owner {
            node.owner = owner;
        }
        if let Some(chmod) = &self.copying.chmod
            && !matches!(node.kind, Kind::Symlink(_))
        {
            node.mode = chmod.apply(node.mode, node.is_directory());
        }
        if target.as_os_str().is_empty() {
            return Ok(());
        }
        self.copying.room.take(1, target)?;
        let length = target.as_os_str().len();
        if length > PATH_LIMIT {
            return Err(CopyError::TooLong { length });
        }
        if let Some(existing) = self.tree.get(target)
            && existing.is_directory() != node.is_directory()
        {
            let words = ["file", "directory"];
            let existing = words[usize::from(existing.is_directory())];
            let wanted = words[usize::from(node.is_directory())];
            return Err(CopyError::Replaces {
                path: target.to_owned(),
                existing,
                wanted,
            });
        }
        if let Some(parent) = target.parent() {
            self.make(parent)?;
        }
        self.tree.insert(target.to_owned(), node);
        self.copied.paths.insert(target.to_owned());
        Ok(())
    }

    /// `COPY --parents a/./b/*.c /x/`: what matches keeps its directories from the pivot `/./` on.
    fn with_parents(&mut self, source: &str) -> Result<(), CopyError> {
        let (base, pattern) = source.split_once("/./").unwrap_or(("", source));
        let base = PathBuf::from(unescape(&below_context(base)?));
        let pattern = below_context(pattern)?;
        let base = resolve(self.copying.files, &base)?;
        let found = matches_below(self.copying.files, &base, &pattern)?;
        if found.is_empty() && !has_wildcard(&pattern) {
            return Err(CopyError::Missing {
                path: source.to_owned(),
            });
        }
        if found.is_empty() {
            self.copied.unmatched.push(source.to_owned());
        }
        let target = self.root_of(self.copying.destination)?;
        self.make(&target)?;
        for inside in found {
            self.parent_nodes(&base, &inside, &target)?;
            self.below(&base, &inside, &target)?;
        }
        Ok(())
    }

    /// The directories between the pivot and a match, as the source has them.
    fn parent_nodes(&mut self, base: &Path, inside: &Path, to: &Path) -> Result<(), CopyError> {
        let ancestors: Vec<&Path> = inside.ancestors().skip(1).collect();
        for directory in ancestors
            .into_iter()
            .rev()
            .filter(|path| !path.as_os_str().is_empty())
        {
            if let Some(node) = self.copying.files.node(&base.join(directory))? {
                self.put(&to.join(directory), node)?;
            }
        }
        Ok(())
    }

    fn below(&mut self, base: &Path, inside: &Path, to: &Path) -> Result<(), CopyError> {
        if self.copying.exclude.excludes(inside).is_some() {
            return Ok(());
        }
        let Some(node) = self.copying.files.node(&base.join(inside))? else {
            return Ok(());
        };
        let directory = node.is_directory();
        if !inside.as_os_str().is_empty() {
            self.put(&to.join(inside), node)?;
        }
        if directory {
            self.contents(&base.join(inside), &to.join(inside), inside)?;
        }
        Ok(())
    }
}

/// Whether a `COPY` of `source` would find anything in the context.
#[must_use]
pub fn finds_anything(context: &Context, source: &str) -> bool {
    let Ok(path) = below_context(source) else {
        return false;
    };
    if has_wildcard(source) {
        return expand(context, &path).is_ok_and(|found| !found.is_empty());
    }
    let resolved = resolve(context, Path::new(&unescape(&path)));
    resolved
        .and_then(|path| context.node(&path))
        .is_ok_and(|node| node.is_some())
}

/// The clean path of a source below the root of its context.
fn below_context(source: &str) -> Result<String, CopyError> {
    let mut depth = 0_i32;
    for part in source.split('/') {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return Err(CopyError::Outside {
                path: source.to_owned(),
            });
        }
    }
    Ok(paths::clean(source).trim_start_matches('/').to_owned())
}

/// The paths that a pattern matches, in order. Each of its segments matches one name.
fn expand(files: &dyn Files, pattern: &str) -> Result<Vec<PathBuf>, CopyError> {
    let mut found = vec![PathBuf::new()];
    for part in pattern.split('/') {
        let glob = Glob::segment(part)?;
        let mut next = Vec::new();
        for directory in &found {
            if has_wildcard(part) {
                next.extend(matching_children(files, directory, &glob)?);
            } else {
                let path = resolve(files, directory)?.join(unescape(part));
                next.extend(files.node(&path)?.map(|_| directory.join(unescape(part))));
            }
        }
        found = next;
    }
    Ok(found)
}

fn matching_children(
    files: &dyn Files,
    directory: &Path,
    glob: &Glob,
) -> Result<Vec<PathBuf>, CopyError> {
    let resolved = resolve(files, directory)?;
    if !files
        .node(&resolved)?
        .is_some_and(|node| node.is_directory())
    {
        return Ok(Vec::new());
    }
    let names = files.children(&resolved)?.into_iter();
    let matching = names.filter(|name| glob.matches(name.as_encoded_bytes()));
    Ok(matching.map(|name| directory.join(name)).collect())
}

/// Every topmost path below `base` that `pattern` matches; `**` spans directories here.
fn matches_below(files: &dyn Files, base: &Path, pattern: &str) -> Result<Vec<PathBuf>, CopyError> {
    if pattern.is_empty() {
        return Ok(vec![PathBuf::new()]);
    }
    let glob = Glob::path(pattern)?;
    let mut found = Vec::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(directory) = waiting.pop() {
        for name in files.children(&base.join(&directory))? {
            let inside = directory.join(name);
            if glob.matches(inside.as_os_str().as_encoded_bytes()) {
                found.push(inside);
            } else if files
                .node(&base.join(&inside))?
                .is_some_and(|node| node.is_directory())
            {
                waiting.push(inside);
            }
        }
    }
    found.sort();
    Ok(found)
}

//! The build context: a directory seen through `.dockerignore`, with build outputs laid over it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::files::{Artifact, Content, FileStat, Files, FilesError, Kind, Node, Owner};
use crate::ignore::Ignore;

/// Where `COPY` takes its sources from.
#[derive(Debug, Clone, Default)]
pub struct Context {
    root: PathBuf,
    ignore: Ignore,
    overlay: BTreeMap<PathBuf, PathBuf>,
    expected: BTreeMap<PathBuf, String>,
    own_crates: BTreeMap<PathBuf, usize>,
}

impl Context {
    /// The directory `root`, less what `ignore` excludes.
    pub fn new(root: impl Into<PathBuf>, ignore: Ignore) -> Self {
        Self {
            root: root.into(),
            ignore,
            ..Self::default()
        }
    }

    /// Lays files over the context: path in the context, path on this machine. A build may put its
    /// outputs in another target directory or profile than the Dockerfile names.
    #[must_use]
    pub fn with_overlay(mut self, overlay: BTreeMap<PathBuf, PathBuf>) -> Self {
        self.overlay = overlay;
        self
    }

    /// Names the files that a build will make: path in the context, package that makes it.
    #[must_use]
    pub fn with_expected(mut self, expected: BTreeMap<PathBuf, String>) -> Self {
        self.expected = expected;
        self
    }

    /// Says of how many of the project's own crates each build output is made: the more, the more
    /// often it changes.
    #[must_use]
    pub fn with_own_crates(mut self, own_crates: BTreeMap<PathBuf, usize>) -> Self {
        self.own_crates = own_crates;
        self
    }

    /// The package that makes the file at `path`.
    #[must_use]
    pub fn package_of(&self, path: &Path) -> Option<&str> {
        self.expected.get(path).map(String::as_str)
    }

    /// The ignore file and the line in it that hides `path`.
    pub(crate) fn hidden_by(&self, path: &Path) -> Option<(PathBuf, usize)> {
        let line = self.ignore.excludes(path)?;
        Some((self.ignore.file.clone().unwrap_or_default(), line))
    }

    /// Whether there is a file at `path`, be it excluded or not.
    pub(crate) fn exists_unfiltered(&self, path: &Path) -> bool {
        self.real(path).symlink_metadata().is_ok()
    }

    fn real(&self, path: &Path) -> PathBuf {
        self.overlay
            .get(path)
            .cloned()
            .unwrap_or_else(|| self.root.join(path))
    }

    fn artifact(&self, path: &Path) -> Option<Artifact> {
        let built = self.overlay.contains_key(path) || self.expected.contains_key(path);
        built.then(|| Artifact {
            own_crates: self.own_crates.get(path).copied().unwrap_or_default(),
        })
    }

    /// What is on disk at `path`; links of an overlaid file are followed, it is the caller's choice.
    fn metadata(&self, path: &Path) -> Result<Option<Metadata>, FilesError> {
        let real = self.real(path);
        let found = if self.overlay.contains_key(path) {
            fs::metadata(&real)
        } else {
            fs::symlink_metadata(&real)
        };
        match found {
            Ok(metadata) => Ok(Some(metadata)),
            Err(error) if is_absence(&error) => Ok(None),
            Err(source) => Err(FilesError::Look { path: real, source }),
        }
    }

    fn visible(&self, path: &Path) -> Result<Option<Node>, FilesError> {
        // What an older build left there is not what the image will hold.
        if let Some(package) = self.expected.get(path)
            && !self.overlay.contains_key(path)
        {
            let content = Content::Unbuilt {
                package: package.clone(),
            };
            let kind = Kind::File {
                content,
                artifact: self.artifact(path),
            };
            return Ok(Some(Node {
                kind,
                mode: 0o755,
                owner: Owner::default(),
            }));
        }
        if let Some(metadata) = self.metadata(path)? {
            return self.on_disk(path, &metadata);
        }
        let implied = self.overlaid_below(path).next().is_some();
        Ok(implied.then(|| Node::directory(Owner::default())))
    }

    fn on_disk(&self, path: &Path, metadata: &Metadata) -> Result<Option<Node>, FilesError> {
        let real = self.real(path);
        let kind = if metadata.is_dir() {
            Kind::Directory
        } else if metadata.is_symlink() {
            let look = |source| FilesError::Look {
                path: real.clone(),
                source,
            };
            Kind::Symlink(fs::read_link(&real).map_err(look)?)
        } else if metadata.is_file() {
            let content = Content::Disk {
                path: real,
                stat: FileStat::from(metadata),
            };
            Kind::File {
                content,
                artifact: self.artifact(path),
            }
        } else if metadata.file_type().is_socket() {
            // Docker leaves sockets out: they mean nothing without the process behind them.
            return Ok(None);
        } else {
            let pipe = metadata.file_type().is_fifo();
            let kind = if pipe { "pipe" } else { "device" };
            return Err(FilesError::Special { path: real, kind });
        };
        let mode = mode(&kind, FileStat::from(metadata).mode);
        Ok(Some(Node {
            kind,
            mode,
            owner: Owner::default(),
        }))
    }

    /// Paths of overlaid and expected files below `path`.
    fn overlaid_below<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = &'a Path> {
        let all = self.overlay.keys().chain(self.expected.keys());
        all.map(PathBuf::as_path)
            .filter(move |known| known.starts_with(path) && *known != path)
    }

    /// Whether anything below a directory that is itself excluded is to be seen.
    fn holds_exception(&self, path: &Path) -> Result<bool, FilesError> {
        if !self.ignore.may_include_below(path) {
            return Ok(false);
        }
        Ok(!self.children(path)?.is_empty())
    }
}

impl Files for Context {
    fn node(&self, path: &Path) -> Result<Option<Node>, FilesError> {
        if path.as_os_str().is_empty() {
            return Ok(Some(Node::directory(Owner::default())));
        }
        let node = self.visible(path)?;
        if self.ignore.excludes(path).is_none() {
            return Ok(node);
        }
        match node {
            Some(node) if node.is_directory() && self.holds_exception(path)? => Ok(Some(node)),
            _ => Ok(None),
        }
    }

    fn children(&self, path: &Path) -> Result<Vec<OsString>, FilesError> {
        let mut names: BTreeSet<OsString> = BTreeSet::new();
        let depth = path.iter().count();
        for known in self.overlaid_below(path) {
            names.extend(known.iter().nth(depth).map(ToOwned::to_owned));
        }
        let real = self.root.join(path);
        let look = |source| FilesError::Look {
            path: real.clone(),
            source,
        };
        match fs::read_dir(&real) {
            Ok(entries) => {
                for entry in entries {
                    names.insert(entry.map_err(look)?.file_name());
                }
            }
            Err(error) if is_absence(&error) => {}
            Err(error) => return Err(look(error)),
        }
        let mut visible = Vec::with_capacity(names.len());
        for name in names {
            if self.node(&path.join(&name))?.is_some() {
                visible.push(name);
            }
        }
        Ok(visible)
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// The mode a file gets in the image. Docker keeps the bits of the file, and these depend on the
/// umask under which the tree was checked out or built. As git does, only "executable or not" is
/// kept, so that the same commit gives the same image under every umask; for the usual umask 022
/// that is what Docker gives too. Set-user-id and set-group-id of files are a statement of their
/// own and stay; a directory's set-group-id is inherited from wherever it was made and goes.
fn mode(kind: &Kind, bits: u32) -> u32 {
    match kind {
        Kind::Directory => 0o755,
        Kind::Symlink(_) => 0o777,
        Kind::File { .. } => {
            let permissions = if bits & 0o111 == 0 { 0o644 } else { 0o755 };
            permissions | (bits & 0o6000)
        }
    }
}

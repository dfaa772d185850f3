//! Files as a tree of nodes, wherever they come from: the build context, another stage, this
//! machine. `COPY` works on this view alone.

use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// How many symbolic links are followed before a path counts as a loop; as in Linux.
const LINK_LIMIT: usize = 40;

/// Numeric user and group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Owner {
    /// User number.
    pub user: u32,
    /// Group number.
    pub group: u32,
}

/// What `stat` says about a file: enough to tell that its content has not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileStat {
    /// Device.
    pub device: u64,
    /// Inode.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Time of the last change of the content, in nanoseconds since the epoch.
    pub modified: i128,
    /// Time of the last change of anything, in nanoseconds since the epoch.
    pub changed: i128,
    /// Type and permission bits.
    pub mode: u32,
}

impl From<&Metadata> for FileStat {
    fn from(metadata: &Metadata) -> Self {
        let nanoseconds = |s: i64, ns: i64| i128::from(s) * 1_000_000_000 + i128::from(ns);
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
            mode: metadata.mode(),
        }
    }
}

/// Where the content of a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// On this machine.
    Disk {
        /// Where.
        path: PathBuf,
        /// What it looked like when the plan was made.
        stat: FileStat,
    },
    /// Written in the Dockerfile, or made here.
    Inline(Arc<[u8]>),
    /// Not there yet: building this package makes it.
    Unbuilt {
        /// The package.
        package: String,
    },
}

impl Content {
    /// Its length, where that is known.
    #[must_use]
    pub(crate) fn size(&self) -> Option<u64> {
        match self {
            Self::Disk { stat, .. } => Some(stat.size),
            Self::Inline(bytes) => Some(bytes.len() as u64),
            Self::Unbuilt { .. } => None,
        }
    }
}

/// A file that the build makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Artifact {
    /// How many of the project's own crates it is made of: the more, the more often it changes.
    pub(crate) own_crates: usize,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// What is in it.
        content: Content,
        /// That the build makes it: such files get a layer of their own.
        artifact: Option<Artifact>,
    },
    /// A symbolic link and what it says.
    Symlink(PathBuf),
}

/// A file, directory or link with its permission bits and owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permission bits, with set-user-id, set-group-id and sticky.
    pub mode: u32,
    /// Whose it is.
    pub owner: Owner,
}

impl Node {
    /// A directory as Docker makes it.
    pub(crate) fn directory(owner: Owner) -> Self {
        Self {
            kind: Kind::Directory,
            mode: 0o755,
            owner,
        }
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.kind == Kind::Directory
    }
}

/// Why files cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The operating system says no.
    #[error("cannot look at {path}")]
    Look {
        /// Which file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// Neither a file, nor a directory, nor a link.
    #[error("{path} is a {kind}, which an image cannot take from a build context")]
    Special {
        /// Which one.
        path: PathBuf,
        /// `device`, `pipe` or `socket`.
        kind: &'static str,
    },
    /// Links that lead to each other.
    #[error("{path} leads through more than 40 symbolic links")]
    Loop {
        /// Where it starts.
        path: PathBuf,
    },
}

/// A tree of files. Paths are relative to its root and clean.
pub(crate) trait Files {
    /// What stands at `path`; a link is not followed.
    fn node(&self, path: &Path) -> Result<Option<Node>, FilesError>;

    /// The names in a directory, sorted by their bytes.
    fn children(&self, path: &Path) -> Result<Vec<OsString>, FilesError>;
}

/// Follows the links in `path`. No link leads out of the root: `..` stops there and an absolute
/// target starts there, as in a container. The last parts need not exist.
pub(crate) fn resolve(files: &dyn Files, path: &Path) -> Result<PathBuf, FilesError> {
    let mut followed = 0;
    let mut resolved = PathBuf::new();
    let mut rest: Vec<OsString> = reversed(path);
    while let Some(name) = rest.pop() {
        if name == ".." {
            resolved.pop();
            continue;
        }
        let next = resolved.join(&name);
        let Some(Node {
            kind: Kind::Symlink(target),
            ..
        }) = files.node(&next)?
        else {
            resolved = next;
            continue;
        };
        followed += 1;
        if followed > LINK_LIMIT {
            return Err(FilesError::Loop {
                path: path.to_owned(),
            });
        }
        if target.is_absolute() {
            resolved = PathBuf::new();
        }
        rest.extend(reversed(&target));
    }
    Ok(resolved)
}

fn reversed(path: &Path) -> Vec<OsString> {
    let names = path
        .components()
        .rev()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        });
    names.collect()
}

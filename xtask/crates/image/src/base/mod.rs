//! What an image stands on: nothing, an image of a registry, or this machine.

mod archive;
mod closure;
mod elf;
mod facts;
mod host;
mod libraries;
mod look;
mod names;
mod unpack;
mod versions;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use oci::{Descriptor, Digest, ImageConfig, ImageManifest, Platform};

use crate::files::{Content, FileStat, Files, FilesError, Kind, Node, Owner};
use crate::owners::Accounts;

pub(crate) use archive::{Archive, BLOCK, Entry, Kind as EntryKind, begins_archive};
pub use closure::ClosureError;
pub(crate) use closure::{Program, facts};
pub(crate) use elf::ElfFacts;
pub use facts::BaseFacts;
pub use host::HostError;
pub(crate) use host::{Nodes, accounts, gather};
pub use libraries::{Lacks, Shortfall, check_libraries, loads_libraries};
pub(crate) use look::{LAYER_LIMIT, scratch};
pub use look::{Look, LookError};
pub(crate) use names::{clean, parent};
pub(crate) use unpack::{Unpacked, is_installed, tool};

/// An image that another one stands on, as far as assembling needs it: its layers stay where they
/// are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseImage {
    /// The name by which it was asked for.
    pub reference: String,
    /// The digest of its manifest, where it has one.
    pub digest: Option<Digest>,
    /// Its configuration, of which the new image inherits.
    pub config: ImageConfig,
    /// Its layers.
    pub layers: Vec<Descriptor>,
}

impl BaseImage {
    /// The image that `manifest` and its configuration describe.
    #[must_use]
    pub fn new(reference: &str, manifest: &ImageManifest, config: ImageConfig) -> Self {
        Self {
            reference: reference.to_owned(),
            digest: None,
            config,
            layers: manifest.layers.clone(),
        }
    }
}

/// Gives base images: from a registry, a local store or a cache.
pub trait BaseSource {
    /// The image `reference` for `platform`. `None` when it cannot be had now, offline for
    /// instance: a plan is then made without it and cannot be carried out.
    fn image(
        &self,
        reference: &str,
        platform: &Platform,
    ) -> Result<Option<BaseImage>, Box<dyn std::error::Error + Send + Sync>>;

    /// The users of an image that it gave. Asked only for names: that may mean that the image's
    /// layers are fetched.
    fn accounts(
        &self,
        image: &BaseImage,
    ) -> Result<Looked<Accounts>, Box<dyn std::error::Error + Send + Sync>>;
}

/// What came of looking into an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Looked<T> {
    /// This.
    Found(T),
    /// Nobody has looked yet, and now is not the time: a plan is made without it and cannot be
    /// carried out.
    Later,
    /// It cannot be looked into, for this reason.
    Impossible(String),
}

/// Has no image at all.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoImages;

impl BaseSource for NoImages {
    fn image(
        &self,
        _: &str,
        _: &Platform,
    ) -> Result<Option<BaseImage>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(None)
    }

    fn accounts(
        &self,
        _: &BaseImage,
    ) -> Result<Looked<Accounts>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Looked::Later)
    }
}

/// The files of this machine.
struct HostFiles;

impl Files for HostFiles {
    fn node(&self, path: &Path) -> Result<Option<Node>, FilesError> {
        let real = Path::new("/").join(path);
        let look = |source| FilesError::Look {
            path: real.clone(),
            source,
        };
        let metadata = match fs::symlink_metadata(&real) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(look(error)),
        };
        let stat = FileStat::from(&metadata);
        let (kind, mode) = if metadata.is_symlink() {
            (Kind::Symlink(fs::read_link(&real).map_err(look)?), 0o777)
        } else if metadata.is_dir() {
            (Kind::Directory, 0o755)
        } else {
            let mode = if stat.mode & 0o111 == 0 { 0o644 } else { 0o755 };
            let content = Content::Disk { path: real, stat };
            (
                Kind::File {
                    content,
                    artifact: None,
                },
                mode,
            )
        };
        Ok(Some(Node {
            kind,
            mode,
            owner: Owner::default(),
        }))
    }

    fn children(&self, _: &Path) -> Result<Vec<OsString>, FilesError> {
        Ok(Vec::new())
    }
}

/// Every directory, link and file that the loader meets on its way to `path`.
fn trace(files: &dyn Files, path: &Path) -> Result<Vec<(PathBuf, Node)>, HostError> {
    const LINK_LIMIT: usize = 40;
    let mut met = Vec::new();
    let mut at = PathBuf::new();
    let mut links = 0;
    let mut rest: Vec<OsString> = parts(path);
    while let Some(name) = rest.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        let looked = files.node(&next).map_err(|error| look(path, error))?;
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let node = looked.ok_or_else(|| look(path, missing()))?;
        if let Kind::Symlink(target) = &node.kind {
            links += 1;
            if links > LINK_LIMIT {
                return Err(look(path, io::Error::other("more than 40 symbolic links")));
            }
            if target.is_absolute() {
                at = PathBuf::new();
            }
            rest.extend(parts(target));
        } else {
            at.clone_from(&next);
        }
        met.push((next, node));
    }
    Ok(met)
}

fn look(path: &Path, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> HostError {
    HostError::Look {
        path: path.to_owned(),
        source: io::Error::other(error),
    }
}

/// The names of a path, last first.
fn parts(path: &Path) -> Vec<OsString> {
    let names = path
        .iter()
        .rev()
        .filter(|name| *name != "/" && *name != ".");
    names.map(ToOwned::to_owned).collect()
}

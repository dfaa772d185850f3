//! The layers of an image, applied one over the other to a directory.
//!
//! The tar streams are not trusted: no entry is written outside the directory, whatever names and
//! links the stream holds; devices are refused; set-uid bits are dropped; the number and size of
//! entries are bounded. Extended attributes are left out, file capabilities among them: programs
//! run with `no_new_privs`, which makes those void.

mod apply;
mod bounded;
mod entry;
#[cfg(test)]
mod fuzz;
mod write;

use std::io;
use std::path::PathBuf;

pub(crate) use apply::Unpacker;
pub(crate) use entry::Wanted as KeptEntry;

use serde::{Deserialize, Serialize};

use super::rootpath::RootPathError;

/// What an image may hold at most, over all its layers.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Entries: files, directories, links.
    pub entries: u64,
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Bytes of all files, and of all uncompressed layers.
    pub total_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        const GIB: u64 = 1 << 30;
        Self {
            entries: 1_000_000,
            file_bytes: 16 * GIB,
            total_bytes: 64 * GIB,
        }
    }
}

/// How images are unpacked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) limits: Limits,
    /// Whether files belong to whom their layer says. Not where all instances run as one user,
    /// who could then not write to them.
    pub(crate) keep_owners: bool,
}

/// What a layer did when it was applied, enough to do it again.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Unpacked {
    pub(crate) entries: Vec<KeptEntry>,
    /// Of the uncompressed archive.
    pub(crate) stream_bytes: u64,
}

/// Why a layer could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The stream is not a tar archive, is cut short, or could not be read.
    #[error("read the layer")]
    Read(#[source] io::Error),
    /// A name that is absolute, has `..` in it, is not a name or is too long.
    #[error("entry `{path}` has a name that is not allowed in a layer")]
    Name {
        /// The name as in the stream.
        path: String,
    },
    /// A name that leads out of the image.
    #[error("entry `{path}`")]
    Place {
        /// The name as in the stream.
        path: PathBuf,
        /// In what way.
        #[source]
        source: RootPathError,
    },
    /// A device, or a kind of entry that tar archives of images do not have.
    #[error("entry `{path}` is a {kind}, which is not unpacked")]
    Kind {
        /// The name as in the stream.
        path: PathBuf,
        /// The kind in words.
        kind: String,
    },
    /// A hard link to something that is not there or is no file.
    #[error("entry `{path}` is a hard link to `{target}`, which is not a file of the image")]
    LinkTarget {
        /// The name as in the stream.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// More or larger entries than [`Limits`] allow.
    #[error("the image has more than {limit} {what}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// A layer that was kept could not be read again.
    #[error("read what was kept of the layer")]
    Kept(#[source] io::Error),
    /// The file system refused.
    #[error("write `{path}`")]
    Write {
        /// The name as in the stream.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

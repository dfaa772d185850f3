//! What one entry of a layer asks for, read from its header and checked before anything is written.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use tar::{Entry, EntryType};

use super::UnpackError;

/// The longest path Linux takes.
const MAX_PATH: usize = 4096;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const AUFS: &[u8] = b".wh..wh.";

/// One entry in words of this crate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Wanted {
    /// Relative, without `.` and `..`. Empty for the root of the image itself.
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
    pub(super) facts: Facts,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink(PathBuf),
    HardLink(PathBuf),
    Fifo,
    /// Removes `path` of lower layers.
    Whiteout,
    /// Removes all that lower layers have in the directory `path`.
    Opaque,
    /// Bookkeeping of the archive.
    Nothing,
}

impl Kind {
    /// What an entry for the root of the image itself may be.
    pub(super) fn fits_the_root(&self) -> bool {
        matches!(self, Self::Directory | Self::Opaque | Self::Nothing)
    }
}

/// Owner, mode and time of an entry.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Facts {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
    /// Seconds since 1970.
    pub(super) modified: i64,
}

impl Facts {
    /// For directories that a layer uses without naming them.
    pub(super) const IMPLIED: Self = Self {
        uid: 0,
        gid: 0,
        mode: 0o755,
        modified: 0,
    };
}

pub(super) fn read<R: Read>(entry: &mut Entry<'_, R>) -> Result<Wanted, UnpackError> {
    let raw = entry.path_bytes().into_owned();
    let path = relative(&raw)?;
    let facts = facts(entry, &raw)?;
    let (path, kind) = match whiteout(&path, &raw)? {
        Some(found) => found,
        None => (path.clone(), kind(entry, path)?),
    };
    Ok(Wanted { path, kind, facts })
}

fn kind<R: Read>(entry: &mut Entry<'_, R>, path: PathBuf) -> Result<Kind, UnpackError> {
    let unsupported = |kind: &str| {
        Err(UnpackError::Kind {
            path,
            kind: kind.to_owned(),
        })
    };
    match entry.header().entry_type() {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Ok(Kind::File),
        EntryType::Directory => Ok(Kind::Directory),
        EntryType::Symlink => Ok(Kind::Symlink(link_text(entry)?)),
        EntryType::Link => Ok(Kind::HardLink(relative(&link_bytes(entry))?)),
        EntryType::Fifo => Ok(Kind::Fifo),
        EntryType::XGlobalHeader => Ok(Kind::Nothing),
        EntryType::Char => unsupported("character device"),
        EntryType::Block => unsupported("block device"),
        other => unsupported(&format!(
            "tar entry of type {:?}",
            char::from(other.as_byte())
        )),
    }
}

fn link_bytes<R: Read>(entry: &Entry<'_, R>) -> Vec<u8> {
    entry
        .link_name_bytes()
        .map(std::borrow::Cow::into_owned)
        .unwrap_or_default()
}

/// The text of a symbolic link may be anything: it is only text until someone follows it.
fn link_text<R: Read>(entry: &Entry<'_, R>) -> Result<PathBuf, UnpackError> {
    let raw = link_bytes(entry);
    if raw.is_empty() || raw.len() >= MAX_PATH || raw.contains(&0) {
        return Err(refused(&entry.path_bytes()));
    }
    Ok(PathBuf::from(std::ffi::OsStr::from_bytes(&raw)))
}

fn relative(raw: &[u8]) -> Result<PathBuf, UnpackError> {
    if raw.is_empty() || raw.len() >= MAX_PATH || raw.contains(&0) {
        return Err(refused(raw));
    }
    let mut path = PathBuf::new();
    for component in Path::new(std::ffi::OsStr::from_bytes(raw)).components() {
        match component {
            Component::Normal(name) if name.len() <= 255 => path.push(name),
            Component::CurDir => {}
            _ => return Err(refused(raw)),
        }
    }
    Ok(path)
}

fn whiteout(path: &Path, raw: &[u8]) -> Result<Option<(PathBuf, Kind)>, UnpackError> {
    let name = path.file_name().unwrap_or_default().as_bytes();
    let parent = path.parent().unwrap_or(Path::new("")).to_owned();
    if name == OPAQUE {
        return Ok(Some((parent, Kind::Opaque)));
    }
    if name.starts_with(AUFS) {
        return Ok(Some((parent, Kind::Nothing)));
    }
    match name.strip_prefix(WHITEOUT) {
        None => Ok(None),
        Some(b"" | b"." | b"..") => Err(refused(raw)),
        Some(hidden) => Ok(Some((
            parent.join(std::ffi::OsStr::from_bytes(hidden)),
            Kind::Whiteout,
        ))),
    }
}

fn facts<R: Read>(entry: &Entry<'_, R>, raw: &[u8]) -> Result<Facts, UnpackError> {
    let header = entry.header();
    let number = |read: std::io::Result<u64>| {
        let value = read.map_err(UnpackError::Read)?;
        // u32::MAX means "leave as it is" to the system
        u32::try_from(value)
            .ok()
            .filter(|id| *id != u32::MAX)
            .ok_or_else(|| refused(raw))
    };
    Ok(Facts {
        uid: number(header.uid())?,
        gid: number(header.gid())?,
        mode: header.mode().map_err(UnpackError::Read)?,
        modified: i64::try_from(header.mtime().unwrap_or(0)).unwrap_or(0),
    })
}

fn refused(raw: &[u8]) -> UnpackError {
    let mut path = String::from_utf8_lossy(raw).escape_default().to_string();
    path.truncate(200);
    UnpackError::Name { path }
}

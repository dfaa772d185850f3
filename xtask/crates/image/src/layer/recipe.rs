//! The archive of a layer as a recipe: its headers in memory, its files where they lie.
//!
//! An uncompressed layer is not kept here: it is read from the recipe once to learn its digest, and
//! again only when a registry wants it; one whose own store we may write to gets it in the first pass. Files are checked to be those that were
//! planned each time they are opened and read to their end.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use oci::{BlobSource, BlobWriter, Digest, Hasher, Store};

use super::LayerError;
use super::tar::{Metadata, TarWriter};
use crate::base::Nodes;
use crate::files::{Content, FileStat, Kind, Node};

/// What is read at a time while hashing.
const BUFFER: usize = 256 * 1024;

/// How to make an archive, as often as wanted.
#[derive(Debug, Default)]
pub(crate) struct Recipe {
    segments: Vec<Segment>,
    length: u64,
    file_bytes: u64,
}

#[derive(Debug)]
struct Segment {
    /// Where it begins in the archive.
    start: u64,
    length: u64,
    part: Part,
}

#[derive(Debug)]
enum Part {
    /// Headers, padding and contents that are nowhere on disk.
    Bytes(Vec<u8>),
    File {
        path: PathBuf,
        stat: FileStat,
    },
}

impl Recipe {
    /// The recipe of `nodes`, all with the one time `epoch`. Reads no file.
    pub(crate) fn of(nodes: &Nodes, epoch: u64) -> Result<Self, LayerError> {
        let mut drafting = Drafting {
            recipe: Self::default(),
            archive: TarWriter::new(Vec::new()),
            epoch,
        };
        for (path, node) in nodes {
            drafting.node(path, node)?;
        }
        drafting.finish()
    }

    /// The archive's length in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// How many of them come out of files.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Reads the archive to learn its digest.
    pub(crate) fn digest(&self) -> Result<Digest, LayerError> {
        let mut hasher = Hasher::new();
        self.read_through(|part| {
            hasher.update(part);
            Ok(())
        })?;
        Ok(hasher.finish())
    }

    /// Reads the archive into a store, which learns its digest on the way.
    pub(crate) fn write_into<'s>(&self, store: &'s Store) -> Result<BlobWriter<'s>, LayerError> {
        let mut blob = store.begin()?;
        self.read_through(|part| blob.write_all(part))?;
        Ok(blob)
    }

    fn read_through(
        &self,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), LayerError> {
        let mut reader = self.reader(0);
        let mut buffer = vec![0; BUFFER];
        loop {
            match reader.read(&mut buffer).map_err(LayerError::from_io)? {
                0 => return Ok(()),
                count => take(&buffer[..count]).map_err(LayerError::from_io)?,
            }
        }
    }

    /// Reads the archive from `offset` on.
    pub(crate) fn reader(&self, offset: u64) -> RecipeReader<'_> {
        RecipeReader {
            recipe: self,
            next: self
                .segments
                .partition_point(|s| s.start + s.length <= offset),
            offset,
            file: None,
        }
    }

    fn push(&mut self, length: u64, part: Part) {
        if length > 0 {
            let start = self.length;
            self.segments.push(Segment {
                start,
                length,
                part,
            });
            self.length += length;
        }
    }
}

impl BlobSource for Recipe {
    fn open_at(&self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(self.reader(offset)))
    }
}

struct Drafting {
    recipe: Recipe,
    /// Headers since the last file.
    archive: TarWriter<Vec<u8>>,
    epoch: u64,
}

impl Drafting {
    fn node(&mut self, path: &Path, node: &Node) -> Result<(), LayerError> {
        let metadata = Metadata {
            mode: node.mode,
            user: node.owner.user,
            group: node.owner.group,
            modified: self.epoch,
        };
        let written = match &node.kind {
            Kind::Directory => self.archive.directory(path, metadata),
            Kind::Symlink(target) => self.archive.symlink(path, target, metadata),
            Kind::File { content, .. } => return self.file(path, metadata, content),
        };
        written.map_err(LayerError::from_io)
    }

    fn file(
        &mut self,
        path: &Path,
        metadata: Metadata,
        content: &Content,
    ) -> Result<(), LayerError> {
        match content {
            Content::Inline(bytes) => {
                let size = bytes.len() as u64;
                let written = self.archive.file(path, metadata, size, &mut bytes.as_ref());
                written.map_err(LayerError::from_io)
            }
            Content::Unbuilt { package } => Err(LayerError::Unbuilt {
                path: path.to_owned(),
                package: package.clone(),
            }),
            Content::Disk { path: real, stat } => {
                let head = self.archive.file_header(path, metadata, stat.size);
                head.map_err(LayerError::from_io)?;
                self.take_headers();
                self.recipe.file_bytes += stat.size;
                let part = Part::File {
                    path: real.clone(),
                    stat: *stat,
                };
                self.recipe.push(stat.size, part);
                self.archive.pad(stat.size).map_err(LayerError::from_io)
            }
        }
    }

    fn take_headers(&mut self) {
        let bytes = std::mem::take(self.archive.get_mut());
        self.recipe.push(bytes.len() as u64, Part::Bytes(bytes));
    }

    fn finish(mut self) -> Result<Recipe, LayerError> {
        let bytes = self.archive.finish().map_err(LayerError::from_io)?;
        self.recipe.push(bytes.len() as u64, Part::Bytes(bytes));
        Ok(self.recipe)
    }
}

/// Reads the archive that a recipe makes. Its errors carry a [`LayerError`].
#[derive(Debug)]
pub(crate) struct RecipeReader<'a> {
    recipe: &'a Recipe,
    /// The segment that `offset` is in.
    next: usize,
    offset: u64,
    file: Option<File>,
}

impl Read for RecipeReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(segment) = self.recipe.segments.get(self.next) else {
            return Ok(0);
        };
        if buffer.is_empty() {
            return Ok(0);
        }
        let within = self.offset - segment.start;
        let left = segment.length - within;
        let wanted = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let count = match &segment.part {
            Part::Bytes(bytes) => {
                let from = usize::try_from(within).map_err(io::Error::other)?;
                buffer[..wanted].copy_from_slice(&bytes[from..from + wanted]);
                wanted
            }
            Part::File { path, stat } => {
                let count = self.read_file(path, stat, within, &mut buffer[..wanted])?;
                if count as u64 == left
                    && let Some(file) = self.file.take()
                {
                    unchanged(&file, path, stat).map_err(io::Error::other)?;
                }
                count
            }
        };
        self.offset += count as u64;
        self.next += usize::from(count as u64 == left);
        Ok(count)
    }
}

impl RecipeReader<'_> {
    fn read_file(
        &mut self,
        path: &Path,
        stat: &FileStat,
        within: u64,
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        let unreadable = |source| {
            io::Error::other(LayerError::Read {
                path: path.to_owned(),
                source,
            })
        };
        if self.file.is_none() {
            let mut file = open(path, stat).map_err(io::Error::other)?;
            if within > 0 {
                file.seek(SeekFrom::Start(within)).map_err(unreadable)?;
            }
            self.file = Some(file);
        }
        let Some(file) = &mut self.file else {
            return Ok(0);
        };
        loop {
            match file.read(buffer) {
                Ok(0) => {
                    // Shorter than it was planned.
                    return Err(io::Error::other(LayerError::Changed {
                        path: path.to_owned(),
                    }));
                }
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(unreadable(error)),
            }
        }
    }
}

/// Opens the file that was planned, and no other that has taken its name since.
fn open(path: &Path, stat: &FileStat) -> Result<File, LayerError> {
    let file = File::open(path).map_err(|source| LayerError::Read {
        path: path.to_owned(),
        source,
    })?;
    unchanged(&file, path, stat)?;
    Ok(file)
}

fn unchanged(file: &File, path: &Path, stat: &FileStat) -> Result<(), LayerError> {
    let metadata = file.metadata().map_err(|source| LayerError::Read {
        path: path.to_owned(),
        source,
    })?;
    if FileStat::from(&metadata) == *stat {
        Ok(())
    } else {
        Err(LayerError::Changed {
            path: path.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Owner;

    fn recipe(folder: &Path, contents: &[&str]) -> Recipe {
        let mut nodes = Nodes::new();
        for (index, content) in contents.iter().enumerate() {
            let real = folder.join(index.to_string());
            std::fs::write(&real, content).unwrap();
            let stat = FileStat::from(&std::fs::metadata(&real).unwrap());
            let node = Node {
                kind: Kind::File {
                    content: Content::Disk { path: real, stat },
                    artifact: None,
                },
                mode: 0o644,
                owner: Owner::default(),
            };
            nodes.insert(format!("f{index}").into(), node);
        }
        Recipe::of(&nodes, 1).unwrap()
    }

    fn read(recipe: &Recipe, offset: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        recipe.reader(offset).read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn it_can_be_read_from_anywhere() {
        let folder = tempfile::tempdir().unwrap();
        let long = "long ".repeat(300);
        let recipe = recipe(folder.path(), &["", "a", &long]);
        let whole = read(&recipe, 0);
        assert_eq!(whole.len() as u64, recipe.length());
        assert_eq!(recipe.file_bytes(), 1 + 1500);
        assert_eq!(recipe.digest().unwrap(), Digest::of(&whole));
        for offset in 0..=whole.len() {
            assert_eq!(read(&recipe, offset as u64), whole[offset..], "{offset}");
        }
        assert_eq!(
            ::tar::Archive::new(&whole[..]).entries().unwrap().count(),
            3
        );
    }

    #[test]
    fn a_file_that_changes_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let recipe = recipe(folder.path(), &["one", "two"]);
        std::fs::write(folder.path().join("1"), "three").unwrap();
        let error = recipe.digest().unwrap_err();
        assert!(matches!(&error, LayerError::Changed { path } if path.ends_with("1")));
        std::fs::remove_file(folder.path().join("0")).unwrap();
        let error = recipe.digest().unwrap_err();
        assert!(matches!(&error, LayerError::Read { path, .. } if path.ends_with("0")));
    }
}

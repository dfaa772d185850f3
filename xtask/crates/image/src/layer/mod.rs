//! From a list of files to a layer in the store: its bytes depend on nothing but the files, their
//! modes and owners, and the one time that all of them get.

pub(crate) mod tar;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use flate2::GzBuilder;
use oci::{Digest, DigestWriter, Hasher, Store, StoreError};

use crate::base::Nodes;
use crate::cache::{Cache, CachedLayer, is_settled, stat_key};
use crate::files::{Content, FileStat, Kind, Node};
use crate::options::Compression;
use tar::{Metadata, TarWriter};

/// Raised whenever the same files would give other bytes than before.
const LAYOUT: u32 = 1;
const BUFFER: usize = 256 * 1024;

/// Why a layer cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// A file was written to while the image was assembled.
    #[error("{path} changed while it was read")]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A file that the build makes is not there.
    #[error("{path} is not built yet: package {package} makes it")]
    Unbuilt {
        /// Its path in the image.
        path: PathBuf,
        /// The package.
        package: String,
    },
    /// The layer cannot be written.
    #[error("cannot write the layer")]
    Write {
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// The store does not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What assembling cost: the same input twice must read nothing the second time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes of file content read for layers.
    pub bytes_read: u64,
    /// Layers made.
    pub layers_built: usize,
    /// Layers that were in the store already and whose files had not changed.
    pub layers_cached: usize,
}

/// Makes layers into a store.
pub(crate) struct LayerBuilder<'a> {
    pub(crate) store: &'a Store,
    pub(crate) cache: &'a mut Cache,
    pub(crate) epoch: u64,
    pub(crate) compression: Compression,
    pub(crate) counters: Counters,
}

impl LayerBuilder<'_> {
    /// Makes the layer of `nodes`, or finds it made; says which.
    pub(crate) fn build(&mut self, nodes: &Nodes) -> Result<(CachedLayer, bool), LayerError> {
        let key = key(nodes, self.compression, self.epoch);
        if let Some(known) = self.cache.layer(&key)
            && self.store.contains(&known.digest)
        {
            self.counters.layers_cached += 1;
            return Ok((known, true));
        }
        let layer = match self.compression {
            Compression::None => self.plain(nodes)?,
            Compression::Gzip(level) => self.gzip(nodes, level)?,
        };
        self.counters.layers_built += 1;
        if nodes.values().all(settled) {
            self.cache.remember_layer(key, layer);
        }
        Ok((layer, false))
    }

    fn plain(&mut self, nodes: &Nodes) -> Result<CachedLayer, LayerError> {
        let out = BufWriter::with_capacity(BUFFER, self.store.begin()?);
        let out = self.contents().archive(nodes, out)?;
        let blob = out
            .into_inner()
            .map_err(|error| write(error.into_error()))?;
        let size = blob.length();
        let digest = blob.commit(None)?;
        Ok(CachedLayer {
            digest,
            size,
            diff_id: digest,
        })
    }

    fn gzip(&mut self, nodes: &Nodes, level: u32) -> Result<CachedLayer, LayerError> {
        // No name, no time, no operating system: the header says the same everywhere.
        let header = GzBuilder::new().mtime(0).operating_system(255);
        let encoder = header.write(
            self.store.begin()?,
            flate2::Compression::new(level.clamp(1, 9)),
        );
        let out = BufWriter::with_capacity(BUFFER, DigestWriter::new(encoder));
        let out = self.contents().archive(nodes, out)?;
        let hashing = out
            .into_inner()
            .map_err(|error| write(error.into_error()))?;
        let (diff_id, encoder) = hashing.finish();
        let blob = encoder.finish().map_err(write)?;
        let size = blob.length();
        let digest = blob.commit(None)?;
        Ok(CachedLayer {
            digest,
            size,
            diff_id,
        })
    }

    fn contents(&mut self) -> Contents<'_> {
        Contents {
            epoch: self.epoch,
            counters: &mut self.counters,
        }
    }
}

/// The digest of a layer's archive, without making it: remembered, or found by reading the files.
pub(crate) fn diff_id(
    nodes: &Nodes,
    compression: Compression,
    epoch: u64,
    cache: &mut Cache,
) -> Result<Digest, LayerError> {
    if let Some(known) = cache.layer(&key(nodes, compression, epoch)) {
        return Ok(known.diff_id);
    }
    let mut contents = Contents {
        epoch,
        counters: &mut Counters::default(),
    };
    let out = contents.archive(nodes, DigestWriter::new(io::sink()))?;
    Ok(out.finish().0)
}

/// Writes the files of a layer as an archive.
struct Contents<'a> {
    epoch: u64,
    counters: &'a mut Counters,
}

impl Contents<'_> {
    fn archive<W: Write>(&mut self, nodes: &Nodes, out: W) -> Result<W, LayerError> {
        let mut archive = TarWriter::new(out);
        for (path, node) in nodes {
            self.entry(&mut archive, path, node)?;
        }
        archive.finish().map_err(write)
    }

    fn entry<W: Write>(
        &mut self,
        archive: &mut TarWriter<W>,
        path: &Path,
        node: &Node,
    ) -> Result<(), LayerError> {
        let metadata = Metadata {
            mode: node.mode,
            user: node.owner.user,
            group: node.owner.group,
            modified: self.epoch,
        };
        match &node.kind {
            Kind::Directory => archive.directory(path, metadata).map_err(write),
            Kind::Symlink(target) => archive.symlink(path, target, metadata).map_err(write),
            Kind::File { content, .. } => self.file(archive, path, metadata, content),
        }
    }

    fn file<W: Write>(
        &mut self,
        archive: &mut TarWriter<W>,
        path: &Path,
        metadata: Metadata,
        content: &Content,
    ) -> Result<(), LayerError> {
        match content {
            Content::Inline(bytes) => {
                let size = bytes.len() as u64;
                archive
                    .file(path, metadata, size, &mut bytes.as_ref())
                    .map_err(write)
            }
            Content::Unbuilt { package } => Err(LayerError::Unbuilt {
                path: path.to_owned(),
                package: package.clone(),
            }),
            Content::Disk { path: real, stat } => {
                let mut file = open(real, stat)?;
                archive
                    .file(path, metadata, stat.size, &mut file)
                    .map_err(|source| LayerError::Read {
                        path: real.clone(),
                        source,
                    })?;
                unchanged(&file, real, stat)?;
                self.counters.bytes_read += stat.size;
                Ok(())
            }
        }
    }
}

/// Identifies the layer by what is known of its files without reading them.
fn key(nodes: &Nodes, compression: Compression, epoch: u64) -> String {
    let mut hasher = Hasher::new();
    let mut field = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    field(format!("{LAYOUT} {compression:?} {epoch}").as_bytes());
    for (path, node) in nodes {
        field(path.as_os_str().as_encoded_bytes());
        field(format!("{:o} {:?}", node.mode, node.owner).as_bytes());
        match &node.kind {
            Kind::Directory => field(b"directory"),
            Kind::Symlink(target) => {
                field(b"link");
                field(target.as_os_str().as_encoded_bytes());
            }
            Kind::File {
                content: Content::Inline(bytes),
                ..
            } => {
                field(Digest::of(bytes).to_string().as_bytes());
            }
            Kind::File {
                content: Content::Disk { stat, .. },
                ..
            } => {
                field(stat_key(stat).as_bytes());
            }
            Kind::File {
                content: Content::Unbuilt { package },
                ..
            } => {
                field(b"unbuilt");
                field(package.as_bytes());
            }
        }
    }
    hasher.finish().hex()
}

fn settled(node: &Node) -> bool {
    match &node.kind {
        Kind::File {
            content: Content::Disk { stat, .. },
            ..
        } => is_settled(stat),
        _ => true,
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
    let read = |source| LayerError::Read {
        path: path.to_owned(),
        source,
    };
    let now = FileStat::from(&file.metadata().map_err(read)?);
    if now == *stat {
        Ok(())
    } else {
        Err(LayerError::Changed {
            path: path.to_owned(),
        })
    }
}

fn write(source: io::Error) -> LayerError {
    LayerError::Write { source }
}

/// Reads a small file of the image, `/etc/passwd` for instance.
pub(crate) fn read_text(content: &Content, limit: u64) -> Option<String> {
    match content {
        Content::Inline(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Content::Disk { path, .. } => {
            let mut text = String::new();
            File::open(path)
                .ok()?
                .take(limit)
                .read_to_string(&mut text)
                .ok()?;
            Some(text)
        }
        Content::Unbuilt { .. } => None,
    }
}

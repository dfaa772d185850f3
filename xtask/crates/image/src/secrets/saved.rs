//! Secrets in an image that a container engine has built, as `docker save` writes it: an archive of
//! layers, which are archives themselves.
//!
//! It is read once, as it comes. `manifest.json`, which says what the other entries are, is the last
//! of them: so whatever is an archive is looked through, and what was found in the layers of base
//! images is forgotten in the end. Compressed layers pass through a file without a name, because the
//! programs that unpack them read one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use oci::{Digest, ImageConfig};
use serde::Deserialize;

use super::names::{self, Class};
use super::rules::Rules;
use super::{Allowed, FoundSecret, Hit, documents, in_configuration, settled, stream};
use crate::base::{
    Archive, BLOCK, Entry, EntryKind, LAYER_LIMIT, Unpacked, begins_archive, clean, is_installed,
    parent, scratch,
};
use crate::glob::BadPattern;

/// What says which entries are layers.
const MANIFEST: &str = "manifest.json";
/// No manifest or configuration is longer.
const DOCUMENT_LIMIT: u64 = 4 * 1024 * 1024;
/// All documents of an archive together; an image has a few small ones.
const DOCUMENTS_LIMIT: u64 = 64 * 1024 * 1024;
/// Nobody reads a longer list about one layer.
const MOST: usize = 1000;
/// No chain of links is longer: engines write one where two layers are the same.
const LINK_LIMIT: usize = 8;

/// An image that an engine has built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedImage {
    /// Its layers, uncompressed, the base's first.
    pub diff_ids: Vec<Digest>,
    /// The secrets in them, but for those of the base, and in the configuration.
    pub secrets: Vec<FoundSecret>,
}

/// Why a saved image could not be looked through.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// An entry of the allow-list is no pattern.
    #[error("cannot use an entry of the list of allowed secrets")]
    Pattern(#[from] BadPattern),
    /// It is damaged, or no archive.
    #[error("cannot read the image as the engine saves it")]
    Archive(#[source] io::Error),
    /// It does not say what is in it.
    #[error("the image as the engine saves it has no {what}")]
    Incomplete {
        /// What is missing.
        what: String,
    },
    /// A layer cannot be read.
    #[error("cannot look through the layer {layer}: {reason}")]
    Layer {
        /// The layer, as the archive calls it.
        layer: String,
        /// Why not.
        reason: String,
    },
}

/// Looks for secrets in what `docker save` writes, but for files that `allowed` names, as
/// [`find_secrets`](super::find_secrets) does. `bases` are the uncompressed layers of images that it
/// may stand on: where one of them is the lower part of it, that part is left out. Compressed layers
/// pass through a file in `folder`.
pub fn find_secrets_in_saved(
    archive: impl Read,
    bases: &[Vec<Digest>],
    allowed: &[String],
    folder: &Path,
) -> Result<SavedImage, SavedError> {
    let mut saved = Saved {
        rules: Rules::new(),
        allowed: Allowed::new(allowed)?,
        folder,
        contents: Contents::default(),
    };
    let mut archive = Archive::new(BufReader::new(archive));
    while let Some(entry) = archive.next().map_err(SavedError::Archive)? {
        saved
            .entry(&entry, archive.content())
            .map_err(SavedError::Archive)?;
    }
    let Saved {
        rules, contents, ..
    } = saved;
    contents.judge(bases, &rules)
}

/// One pass through an archive.
struct Saved<'a> {
    rules: Rules,
    allowed: Allowed,
    folder: &'a Path,
    contents: Contents,
}

/// What has been found in an archive, by the names of its entries.
#[derive(Default)]
struct Contents {
    /// The secrets of a layer, or why it cannot be read.
    layers: BTreeMap<String, Result<Vec<FoundSecret>, String>>,
    documents: BTreeMap<String, Vec<u8>>,
    documents_size: u64,
    links: BTreeMap<String, String>,
}

impl Saved<'_> {
    fn entry(&mut self, entry: &Entry, mut content: impl Read) -> io::Result<()> {
        let path = || entry.path.clone();
        match entry.kind {
            EntryKind::Symlink => {
                let target = format!("{}/{}", parent(&entry.path), entry.link);
                self.contents.links.insert(path(), clean(&target));
            }
            EntryKind::HardLink => {
                self.contents.links.insert(path(), clean(&entry.link));
            }
            EntryKind::File => {
                let mut head = Vec::new();
                content.by_ref().take(BLOCK as u64).read_to_end(&mut head)?;
                match Form::of(&head) {
                    Form::Archive => {
                        let layer = self.layer(head.chain(content))?;
                        self.contents.layers.insert(path(), Ok(layer));
                    }
                    Form::Packed(program) => {
                        let layer = self.packed(program, head.chain(content))?;
                        self.contents.layers.insert(path(), layer);
                    }
                    Form::Other => self.contents.keep(entry, head.chain(content))?,
                }
            }
            EntryKind::Directory | EntryKind::Other => {}
        }
        Ok(())
    }

    /// Unpacks a layer and looks through it. One that is unreadable may still be the base's.
    fn packed(
        &self,
        program: &'static str,
        mut content: impl Read,
    ) -> io::Result<Result<Vec<FoundSecret>, String>> {
        if !is_installed(program) {
            let reason = format!("it is compressed, and the program {program} is not installed");
            return Ok(Err(reason));
        }
        let mut file = unnamed(self.folder)?;
        io::copy(&mut content, &mut file)?;
        file.rewind()?;
        let unpacked = Unpacked::by(program, file)?;
        let unpacked = BufReader::new(unpacked.take(LAYER_LIMIT));
        Ok(self.layer(unpacked).map_err(|error| error.to_string()))
    }

    fn layer(&self, bytes: impl Read) -> io::Result<Vec<FoundSecret>> {
        let mut archive = Archive::new(bytes);
        let mut found = Vec::new();
        while let Some(entry) = archive.next()? {
            let path = Path::new("/").join(&entry.path);
            if entry.kind != EntryKind::File || self.allowed.covers(&path) {
                continue;
            }
            let hits = read_once(&path, &mut archive.content(), &self.rules)?;
            let room = MOST.saturating_sub(found.len());
            found.extend(hits.into_iter().take(room).map(|hit| FoundSecret {
                path: Some(path.clone()),
                line: 0,
                kind: hit.kind,
                spot: hit.spot,
            }));
        }
        Ok(found)
    }
}

/// The hits of a file that comes through a pipe. A document is judged by as much of it as one may
/// have.
fn read_once(path: &Path, content: &mut dyn Read, rules: &Rules) -> io::Result<Vec<Hit>> {
    let class = names::class(path);
    if class == Class::Plain {
        return Ok(settled(stream::scan(content, rules)?));
    }
    let mut start = Vec::new();
    content.take(documents::LIMIT).read_to_end(&mut start)?;
    let mut hits = stream::scan(&mut start.chain(content), rules)?;
    hits.extend(documents::judge(class, &start));
    Ok(settled(hits))
}

/// What an entry of the archive is.
enum Form {
    /// A layer.
    Archive,
    /// A layer, compressed; this program unpacks it.
    Packed(&'static str),
    Other,
}

impl Form {
    fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Packed("gzip"),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Packed("zstd"),
            _ if begins_archive(head) => Self::Archive,
            _ => Self::Other,
        }
    }
}

fn unnamed(folder: &Path) -> io::Result<File> {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    scratch(&folder.join(format!("layer-{}-{number}", std::process::id())))
}

/// An image in the archive, as `manifest.json` has it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Record {
    config: String,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl Contents {
    /// Keeps what may be a configuration; nothing else of use is that short.
    fn keep(&mut self, entry: &Entry, mut content: impl Read) -> io::Result<()> {
        if entry.size > DOCUMENT_LIMIT || self.documents_size + entry.size > DOCUMENTS_LIMIT {
            return Ok(());
        }
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        self.documents_size += entry.size;
        self.documents.insert(entry.path.clone(), bytes);
        Ok(())
    }

    fn judge(self, bases: &[Vec<Digest>], rules: &Rules) -> Result<SavedImage, SavedError> {
        let records: Option<Vec<Record>> = self
            .document(MANIFEST)
            .and_then(|bytes| serde_json::from_slice(bytes).ok());
        let records = records.ok_or_else(|| missing(MANIFEST))?;
        let mut image = SavedImage {
            diff_ids: Vec::new(),
            secrets: Vec::new(),
        };
        let mut seen = BTreeSet::new();
        for record in &records {
            let config = self.document(&record.config);
            let config = config.ok_or_else(|| missing(&record.config))?;
            let diff_ids = ImageConfig::from_slice(config).map(|config| config.rootfs.diff_ids);
            let diff_ids = diff_ids.map_err(|_| missing(&record.config))?;
            let layers = record.layers.as_deref().unwrap_or_default();
            image.secrets.extend(in_configuration(config, rules));
            let own = &layers[length_of_base(&diff_ids, layers.len(), bases)..];
            for name in own.iter().filter(|name| seen.insert(name.as_str())) {
                image.secrets.extend(self.layer(name)?);
            }
            image.diff_ids = diff_ids;
        }
        if records.is_empty() {
            return Err(missing(MANIFEST));
        }
        Ok(image)
    }

    fn layer(&self, name: &str) -> Result<Vec<FoundSecret>, SavedError> {
        let found = self.layers.get(&self.place(name));
        let found = found.ok_or_else(|| missing(name))?;
        found.clone().map_err(|reason| SavedError::Layer {
            layer: name.to_owned(),
            reason,
        })
    }

    fn document(&self, name: &str) -> Option<&[u8]> {
        self.documents.get(&self.place(name)).map(Vec::as_slice)
    }

    /// The entry that a name leads to: of two layers that are the same one is a link.
    fn place(&self, name: &str) -> String {
        let mut place = clean(name);
        for _ in 0..LINK_LIMIT {
            match self.links.get(&place) {
                Some(target) => place.clone_from(target),
                None => break,
            }
        }
        place
    }
}

fn missing(what: &str) -> SavedError {
    SavedError::Incomplete {
        what: what.to_owned(),
    }
}

/// How many of an image's `layers` are those of a base; none where the archive is at odds with the
/// configuration.
fn length_of_base(diff_ids: &[Digest], layers: usize, bases: &[Vec<Digest>]) -> usize {
    if diff_ids.len() != layers {
        return 0;
    }
    let below = bases.iter().filter(|base| diff_ids.starts_with(base));
    below.map(Vec::len).max().unwrap_or_default()
}

#[cfg(test)]
mod tests;

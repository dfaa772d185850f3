//! Looking into the layers of a base image, one after the other, each read once and unpacked
//! nowhere.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use oci::media_type;

use super::archive::{Archive, Entry, Kind};
use super::elf;
use super::facts::{BaseFacts, Library, resolve};
use super::names::{file_name, is_below, parent};
use super::unpack::{Unpacked, is_installed};
use super::versions;

/// A passwd file over this is not one.
const ACCOUNTS_LIMIT: u64 = 1024 * 1024;
/// A library over this is not looked at.
const LIBRARY_LIMIT: u64 = 1024 * 1024 * 1024;
/// A layer that unpacks to more than this is a bomb.
pub(crate) const LAYER_LIMIT: u64 = 256 * 1024 * 1024 * 1024;
/// Links this high up may lead to the folders of libraries.
const LINK_DEPTH: usize = 2;

/// Why a layer cannot be looked into.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// Compressed in a way that cannot be read here.
    #[error("the layer is {media_type}, which cannot be read here")]
    Unreadable {
        /// Its media type.
        media_type: String,
    },
    /// Compressed, and nothing here unpacks that.
    #[error("the layer is compressed with {program}, and the program {program} is not installed")]
    NoProgram {
        /// The program.
        program: &'static str,
    },
    /// Damaged, or no tar archive.
    #[error("the layer cannot be read as a tar archive")]
    Layer(#[source] io::Error),
    /// The file that libraries are read from cannot be written.
    #[error("cannot write the temporary file {path}")]
    Scratch {
        /// The file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
}

/// What has been found so far.
#[derive(Debug)]
pub struct Look {
    found: Found,
    scratch: File,
}

#[derive(Debug, Default)]
struct Found {
    passwd: Option<String>,
    group: Option<String>,
    libraries: BTreeMap<String, Library>,
    links: BTreeMap<String, String>,
}

impl Look {
    /// Begins. Libraries pass through a file in `folder`, which has lost its name already.
    pub fn begin(folder: &Path) -> Result<Self, LookError> {
        static BEGUN: AtomicUsize = AtomicUsize::new(0);
        let number = BEGUN.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("look-{}-{number}", std::process::id()));
        let scratch = scratch(&path).map_err(|source| LookError::Scratch { path, source })?;
        Ok(Self {
            found: Found::default(),
            scratch,
        })
    }

    /// Whether a layer of this type can be read.
    pub fn check_readable(media_type: &str) -> Result<(), LookError> {
        match compression(media_type)? {
            Packed::By(program) if !is_installed(program) => Err(LookError::NoProgram { program }),
            _ => Ok(()),
        }
    }

    /// Takes in the next layer; the base's lowest comes first.
    pub fn layer(&mut self, media_type: &str, file: File) -> Result<(), LookError> {
        let read = match compression(media_type)? {
            Packed::Plain => self.archive(BufReader::new(file).take(LAYER_LIMIT)),
            Packed::By(program) => Unpacked::by(program, file)
                .and_then(|unpacked| self.archive(BufReader::new(unpacked).take(LAYER_LIMIT))),
        };
        read.map_err(LookError::Layer)
    }

    /// All that was found.
    #[must_use]
    pub fn finish(self) -> BaseFacts {
        let Found {
            passwd,
            group,
            libraries,
            links,
        } = self.found;
        BaseFacts::new(
            passwd.unwrap_or_default(),
            group.unwrap_or_default(),
            libraries,
            links,
        )
    }

    fn archive(&mut self, bytes: impl Read) -> io::Result<()> {
        let mut archive = Archive::new(bytes);
        let mut layer = Layer::default();
        while let Some(entry) = archive.next()? {
            self.entry(&mut layer, &entry, &mut archive)?;
        }
        self.found.put(layer);
        Ok(())
    }

    fn entry(
        &mut self,
        layer: &mut Layer,
        entry: &Entry,
        archive: &mut Archive<impl Read>,
    ) -> io::Result<()> {
        let name = file_name(&entry.path);
        if let Some(hidden) = name.strip_prefix(".wh.") {
            layer.hide(parent(&entry.path), hidden);
            return Ok(());
        }
        if self.found.is_touched_by(&entry.path, entry.kind) {
            layer.replaced.push((entry.path.clone(), entry.kind));
        }
        match entry.kind {
            Kind::File if matches!(&*entry.path, "etc/passwd" | "etc/group") => {
                let mut text = Vec::new();
                archive
                    .content()
                    .take(ACCOUNTS_LIMIT)
                    .read_to_end(&mut text)?;
                let text = String::from_utf8_lossy(&text).into_owned();
                layer.texts.insert(entry.path.clone(), text);
            }
            Kind::File if is_library(name) && entry.size <= LIBRARY_LIMIT => {
                if let Some(library) = self.library(archive.content())? {
                    layer.libraries.insert(entry.path.clone(), library);
                }
            }
            Kind::HardLink if is_library(name) => {
                let target = super::names::clean(&entry.link);
                let known = layer.libraries.get(&target);
                if let Some(library) = known.or_else(|| self.found.libraries.get(&target)) {
                    layer.libraries.insert(entry.path.clone(), library.clone());
                }
            }
            Kind::Symlink if is_library(name) || depth(&entry.path) <= LINK_DEPTH => {
                layer.links.insert(entry.path.clone(), entry.link.clone());
            }
            _ => {}
        }
        Ok(())
    }

    /// Reads a library; `None` when it is none, a linker script for instance.
    fn library(&mut self, mut content: impl Read) -> io::Result<Option<Library>> {
        let mut magic = [0; 4];
        match content.read_exact(&mut magic) {
            Ok(()) if magic == *b"\x7fELF" => {}
            Ok(()) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let mut file = &self.scratch;
        file.set_len(0)?;
        file.rewind()?;
        io::copy(&mut (&magic[..]).chain(content), &mut file)?;
        let Some(facts) = elf::read_from(file)? else {
            return Ok(None);
        };
        Ok(Some(Library {
            machine: facts.machine,
            wide: facts.wide,
            versions: versions::offered(file)?,
        }))
    }
}

enum Packed {
    Plain,
    /// By a program, which unpacks it as well: a library for it would be compiled by everybody who
    /// deploys, for the few times that a base image is new.
    By(&'static str),
}

fn compression(media_type: &str) -> Result<Packed, LookError> {
    match media_type {
        media_type::OCI_LAYER | media_type::DOCKER_LAYER => Ok(Packed::Plain),
        media_type::OCI_LAYER_GZIP | media_type::DOCKER_LAYER_GZIP => Ok(Packed::By("gzip")),
        media_type::OCI_LAYER_ZSTD => Ok(Packed::By("zstd")),
        _ => Err(LookError::Unreadable {
            media_type: media_type.to_owned(),
        }),
    }
}

/// A file without a name: nothing is left behind however this process ends.
pub(crate) fn scratch(path: &Path) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    fs::remove_file(path)?;
    Ok(file)
}

fn is_library(name: &str) -> bool {
    // What stands after `.so` is a version: `libz.so.1.3`.
    name.match_indices(".so").any(|(at, so)| {
        let rest = &name[at + so.len()..];
        rest.is_empty() || rest.starts_with('.')
    })
}

fn depth(path: &str) -> usize {
    path.split('/').count()
}

/// What one layer brings and takes away. Where an archive says both, what it brings stays,
/// whichever comes first in it.
#[derive(Debug, Default)]
struct Layer {
    /// What takes the place of something that was found below.
    replaced: Vec<(String, Kind)>,
    hidden: Vec<String>,
    /// Folders of which nothing from below shows through.
    opaque: Vec<String>,
    texts: BTreeMap<String, String>,
    libraries: BTreeMap<String, Library>,
    links: BTreeMap<String, String>,
}

impl Layer {
    fn hide(&mut self, folder: &str, name: &str) {
        if name == ".wh..opq" {
            self.opaque.push(folder.to_owned());
        } else if folder.is_empty() {
            self.hidden.push(name.to_owned());
        } else {
            self.hidden.push(format!("{folder}/{name}"));
        }
    }
}

impl Found {
    fn put(&mut self, layer: Layer) {
        for path in &layer.hidden {
            self.remove(path);
            self.remove_below(path);
        }
        for folder in &layer.opaque {
            self.remove_below(folder);
        }
        for (path, kind) in &layer.replaced {
            self.remove(path);
            if *kind != Kind::Directory {
                self.remove_below(path);
            }
        }
        // Links first: an archive may name files through links that it brings itself.
        for (path, target) in layer.links {
            let place = self.place(&path);
            self.links.insert(place, target);
        }
        for (path, library) in layer.libraries {
            let place = self.place(&path);
            self.libraries.insert(place, library);
        }
        for (path, text) in layer.texts {
            match &*path {
                "etc/passwd" => self.passwd = Some(text),
                _ => self.group = Some(text),
            }
        }
    }

    /// Where a path of an archive comes to lie: its folder may be a link of a lower layer.
    fn place(&self, path: &str) -> String {
        let folder = resolve(&self.links, parent(path)).unwrap_or_default();
        if folder.is_empty() {
            return file_name(path).to_owned();
        }
        format!("{folder}/{}", file_name(path))
    }

    /// Whether an entry takes the place of something found in the layers below. Of all others
    /// nothing is kept: a layer may have millions.
    fn is_touched_by(&self, path: &str, kind: Kind) -> bool {
        let itself = self.libraries.contains_key(path)
            || self.links.contains_key(path)
            || matches!(path, "etc/passwd" | "etc/group");
        let below = || {
            let first = format!("{path}/");
            let below = |found: Option<&String>| found.is_some_and(|at| at.starts_with(&first));
            below(
                self.libraries
                    .range(first.clone()..)
                    .next()
                    .map(|(at, _)| at),
            ) || below(self.links.range(first.clone()..).next().map(|(at, _)| at))
                || is_below("etc/passwd", path)
        };
        itself || (kind != Kind::Directory && below())
    }

    fn remove(&mut self, path: &str) {
        self.libraries.remove(path);
        self.links.remove(path);
        match path {
            "etc/passwd" => self.passwd = None,
            "etc/group" => self.group = None,
            _ => {}
        }
    }

    fn remove_below(&mut self, folder: &str) {
        remove_below(&mut self.libraries, folder);
        remove_below(&mut self.links, folder);
        if is_below("etc/passwd", folder) {
            (self.passwd, self.group) = (None, None);
        }
    }
}

fn remove_below<T>(found: &mut BTreeMap<String, T>, folder: &str) {
    if folder.is_empty() {
        found.clear();
        return;
    }
    let start = format!("{folder}/");
    let below = found.range(start.clone()..).map(|(path, _)| path);
    let below: Vec<String> = below
        .take_while(|path| path.starts_with(&start))
        .cloned()
        .collect();
    for path in below {
        found.remove(&path);
    }
}

#[cfg(test)]
mod tests;

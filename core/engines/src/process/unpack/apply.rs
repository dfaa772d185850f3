//! Writing the entries of layers.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tar::Archive;

use super::bounded::{Bounded, is_bound};
use super::entry::{self, Facts, Kind, Wanted};
use super::write::Writer;
use super::{Limits, Rules, UnpackError};
use crate::process::rootpath::{self, Last};
use crate::process::tree;

/// Applies layers to one directory.
pub(crate) struct Unpacker<'a> {
    root: &'a Path,
    limits: Limits,
    writer: Writer,
    entries: u64,
    stream_left: u64,
    written: u64,
    /// Directories get their modes at the very end: until then this process must be able to
    /// write into all of them.
    directories: BTreeMap<PathBuf, Facts>,
    /// What the layer at hand has brought: its own whiteouts do not touch that.
    fresh: HashSet<PathBuf>,
}

impl<'a> Unpacker<'a> {
    /// For the existing, empty directory `root`, which nobody else may be writing to.
    pub(crate) fn new(root: &'a Path, rules: Rules) -> Self {
        Self {
            root,
            limits: rules.limits,
            writer: Writer {
                keep_owners: rules.keep_owners,
            },
            entries: 0,
            stream_left: rules.limits.total_bytes,
            written: 0,
            // a layer need not name the root itself
            directories: BTreeMap::from([(root.to_owned(), Facts::IMPLIED)]),
            fresh: HashSet::new(),
        }
    }

    /// Applies one uncompressed layer, and reads `stream` to its very end: its digest covers what
    /// follows the archive too.
    pub(crate) fn layer<R: Read>(&mut self, stream: R) -> Result<(), UnpackError> {
        self.fresh.clear();
        let mut archive = Archive::new(Bounded::new(stream, self.stream_left));
        let entries = archive.entries().map_err(UnpackError::Read)?;
        for entry in entries {
            let mut entry = entry.map_err(|error| self.read_failed(error))?;
            self.count()?;
            let wanted = entry::read(&mut entry)?;
            self.apply(&wanted, &mut entry)?;
        }
        let mut rest = archive.into_inner();
        io::copy(&mut rest, &mut io::sink()).map_err(|error| self.read_failed(error))?;
        self.stream_left = rest.left();
        Ok(())
    }

    /// Gives directories their owners, modes and times. Returns the bytes written to files.
    pub(crate) fn finish(self) -> Result<u64, UnpackError> {
        // the deepest first: closing a directory must not lock us out of those below
        for (path, facts) in self.directories.iter().rev() {
            if !path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
                continue;
            }
            let shown = path.strip_prefix(self.root).unwrap_or(path);
            self.writer
                .finish_directory(path, facts)
                .map_err(write_failed(shown))?;
        }
        Ok(self.written)
    }

    fn count(&mut self) -> Result<(), UnpackError> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(UnpackError::TooLarge {
                what: "entries",
                limit: self.limits.entries,
            });
        }
        Ok(())
    }

    fn apply<R: Read>(&mut self, wanted: &Wanted, data: &mut R) -> Result<(), UnpackError> {
        if wanted.path.as_os_str().is_empty() && !wanted.kind.fits_the_root() {
            return Err(UnpackError::Name {
                path: ".".to_owned(),
            });
        }
        let place = self.place(&wanted.path)?;
        let failed = write_failed(&wanted.path);
        match &wanted.kind {
            Kind::Nothing => return Ok(()),
            Kind::Whiteout => return self.hide(&place).map_err(failed),
            Kind::Opaque => return self.hide_below(&place).map_err(failed),
            Kind::Directory => self.directory(&place, wanted.facts).map_err(failed)?,
            Kind::File => self.file(&place, wanted, data)?,
            Kind::Symlink(target) => self.symlink(&place, target, wanted).map_err(failed)?,
            Kind::HardLink(target) => self.hard_link(&place, target, wanted)?,
            Kind::Fifo => self.fifo(&place, wanted).map_err(failed)?,
        }
        self.fresh.insert(place);
        Ok(())
    }

    /// Where an entry goes, with the directories above it in place.
    fn place(&mut self, path: &Path) -> Result<PathBuf, UnpackError> {
        let Some(name) = path.file_name() else {
            return Ok(self.root.to_owned());
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        let parent = rootpath::resolve(self.root, parent, Last::Follow).map_err(|source| {
            UnpackError::Place {
                path: path.to_owned(),
                source,
            }
        })?;
        self.imply(&parent).map_err(write_failed(path))?;
        Ok(parent.join(name))
    }

    /// Creates directories that the layer uses without naming them.
    fn imply(&mut self, directory: &Path) -> io::Result<()> {
        if directory.is_dir() {
            return Ok(());
        }
        if let Some(above) = directory.parent() {
            self.imply(above)?;
        }
        self.directory(directory, Facts::IMPLIED)?;
        self.fresh.insert(directory.to_owned());
        Ok(())
    }

    fn directory(&mut self, place: &Path, facts: Facts) -> io::Result<()> {
        let there = place.symlink_metadata().is_ok_and(|found| found.is_dir());
        if !there {
            tree::remove(place)?;
            fs::create_dir(place)?;
        }
        self.directories.insert(place.to_owned(), facts);
        Ok(())
    }

    fn file<R: Read>(
        &mut self,
        place: &Path,
        wanted: &Wanted,
        data: &mut R,
    ) -> Result<(), UnpackError> {
        let failed = || write_failed(&wanted.path);
        tree::remove(place).map_err(failed())?;
        let options = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .to_owned();
        let mut file = options.open(place).map_err(failed())?;
        let allowed = self
            .limits
            .file_bytes
            .min(self.limits.total_bytes - self.written);
        let copied = io::copy(&mut data.take(allowed + 1), &mut file)
            .map_err(|error| self.copy_failed(&wanted.path, error))?;
        if copied > allowed {
            return Err(UnpackError::TooLarge {
                what: "bytes",
                limit: allowed,
            });
        }
        self.written += copied;
        self.writer
            .finish_file(&file, place, &wanted.facts)
            .map_err(failed())
    }

    fn symlink(&self, place: &Path, target: &Path, wanted: &Wanted) -> io::Result<()> {
        tree::remove(place)?;
        self.writer.symlink(place, target, &wanted.facts)
    }

    fn fifo(&self, place: &Path, wanted: &Wanted) -> io::Result<()> {
        tree::remove(place)?;
        self.writer.fifo(place, &wanted.facts)
    }

    fn hard_link(&self, place: &Path, target: &Path, wanted: &Wanted) -> Result<(), UnpackError> {
        let path = || wanted.path.clone();
        let real = rootpath::resolve(self.root, target, Last::Keep).map_err(|source| {
            UnpackError::Place {
                path: path(),
                source,
            }
        })?;
        let linkable = real.symlink_metadata().is_ok_and(|found| !found.is_dir());
        if !linkable {
            return Err(UnpackError::LinkTarget {
                path: path(),
                target: target.to_owned(),
            });
        }
        if real == place {
            return Ok(());
        }
        tree::remove(place).map_err(write_failed(&wanted.path))?;
        fs::hard_link(&real, place).map_err(write_failed(&wanted.path))
    }

    fn hide(&self, place: &Path) -> io::Result<()> {
        if self.fresh.contains(place) {
            return self.hide_below(place);
        }
        tree::remove(place)
    }

    fn hide_below(&self, directory: &Path) -> io::Result<()> {
        if !directory
            .symlink_metadata()
            .is_ok_and(|found| found.is_dir())
        {
            return Ok(());
        }
        for entry in fs::read_dir(directory)? {
            self.hide(&entry?.path())?;
        }
        Ok(())
    }

    fn copy_failed(&self, path: &Path, error: io::Error) -> UnpackError {
        // the two sides of a copy share one error type; a full disk is the writing side's
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => write_failed(path)(error),
            _ => self.read_failed(error),
        }
    }

    fn read_failed(&self, error: io::Error) -> UnpackError {
        if is_bound(&error) {
            return UnpackError::TooLarge {
                what: "bytes",
                limit: self.limits.total_bytes,
            };
        }
        UnpackError::Read(error)
    }
}

fn write_failed(path: &Path) -> impl FnOnce(io::Error) -> UnpackError + use<> {
    let path = path.to_owned();
    move |source| UnpackError::Write { path, source }
}

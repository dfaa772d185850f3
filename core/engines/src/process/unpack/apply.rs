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
use super::{Limits, Rules, UnpackError, Unpacked};
use crate::process::layers::{Keeper, KeptLayer};
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
    /// follows the archive too. `keeper`, where there is one, is told of all that is applied; it goes when it cannot
    /// keep pace, with a full disk for instance. Returns the bytes of the stream.
    pub(crate) fn layer<R: Read>(
        &mut self,
        stream: R,
        keeper: &mut Option<Keeper>,
    ) -> Result<u64, UnpackError> {
        self.fresh.clear();
        let before = self.stream_left;
        let mut archive = Archive::new(Bounded::new(stream, self.stream_left));
        let entries = archive.entries().map_err(UnpackError::Read)?;
        for entry in entries {
            let mut entry = entry.map_err(|error| self.read_failed(error))?;
            self.count()?;
            let wanted = entry::read(&mut entry)?;
            let place = self.apply(&wanted, &mut Content::Stream(&mut entry))?;
            keep(keeper, wanted, &place);
        }
        let mut rest = archive.into_inner();
        io::copy(&mut rest, &mut io::sink()).map_err(|error| self.read_failed(error))?;
        self.stream_left = rest.left();
        Ok(before - self.stream_left)
    }

    /// Applies a layer once more that was kept.
    pub(crate) fn replay(&mut self, layer: &KeptLayer) -> Result<(), UnpackError> {
        self.fresh.clear();
        let Unpacked {
            entries,
            stream_bytes,
        } = &layer.unpacked;
        let left = self.stream_left.checked_sub(*stream_bytes);
        self.stream_left = left.ok_or(UnpackError::TooLarge {
            what: "bytes",
            limit: self.limits.total_bytes,
        })?;
        for (number, wanted) in entries.iter().enumerate() {
            self.count()?;
            self.apply(wanted, &mut Content::Kept(layer.file(number)))?;
        }
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

    /// Returns where it went.
    fn apply(
        &mut self,
        wanted: &Wanted,
        content: &mut Content<'_>,
    ) -> Result<PathBuf, UnpackError> {
        if wanted.path.as_os_str().is_empty() && !wanted.kind.fits_the_root() {
            return Err(UnpackError::Name {
                path: ".".to_owned(),
            });
        }
        let place = self.place(&wanted.path)?;
        let failed = write_failed(&wanted.path);
        match &wanted.kind {
            Kind::Nothing => return Ok(place),
            Kind::Whiteout => return self.hide(&place).map_err(failed).map(|()| place),
            Kind::Opaque => return self.hide_below(&place).map_err(failed).map(|()| place),
            Kind::Directory => self.directory(&place, wanted.facts).map_err(failed)?,
            Kind::File => match content {
                Content::Stream(data) => self.file(&place, wanted, data)?,
                Content::Kept(file) => self.kept_file(&place, wanted, file)?,
            },
            Kind::Symlink(target) => self.symlink(&place, target, wanted).map_err(failed)?,
            Kind::HardLink(target) => self.hard_link(&place, target, wanted)?,
            Kind::Fifo => self.fifo(&place, wanted).map_err(failed)?,
        }
        self.fresh.insert(place.clone());
        Ok(place)
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

    fn file(
        &mut self,
        place: &Path,
        wanted: &Wanted,
        data: &mut dyn Read,
    ) -> Result<(), UnpackError> {
        let failed = || write_failed(&wanted.path);
        tree::remove(place).map_err(failed())?;
        let options = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .to_owned();
        let mut file = options.open(place).map_err(failed())?;
        let allowed = self.allowed();
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

    /// A file that has its owner, mode and time already. One that has too many names is copied.
    fn kept_file(&mut self, place: &Path, wanted: &Wanted, kept: &Path) -> Result<(), UnpackError> {
        let bytes = kept.symlink_metadata().map_err(UnpackError::Kept)?.len();
        if bytes > self.allowed() {
            return Err(UnpackError::TooLarge {
                what: "bytes",
                limit: self.allowed(),
            });
        }
        tree::remove(place).map_err(write_failed(&wanted.path))?;
        if fs::hard_link(kept, place).is_err() {
            let mut data = fs::File::open(kept).map_err(UnpackError::Kept)?;
            return match self.file(place, wanted, &mut data) {
                Err(UnpackError::Read(error)) => Err(UnpackError::Kept(error)),
                other => other,
            };
        }
        self.written += bytes;
        Ok(())
    }

    /// How many bytes a file may have.
    fn allowed(&self) -> u64 {
        let left = self.limits.total_bytes - self.written;
        self.limits.file_bytes.min(left)
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

/// Where the bytes of a file come from.
enum Content<'a> {
    Stream(&'a mut dyn Read),
    /// What the entry brought when it was applied first.
    Kept(PathBuf),
}

fn keep(keeper: &mut Option<Keeper>, wanted: Wanted, place: &Path) {
    let Some(mut keeping) = keeper.take() else {
        return;
    };
    let file = matches!(wanted.kind, Kind::File).then_some(place);
    match keeping.entry(wanted, file) {
        Ok(()) => *keeper = Some(keeping),
        Err(_) => keeping.give_up(),
    }
}

fn write_failed(path: &Path) -> impl FnOnce(io::Error) -> UnpackError + use<> {
    let path = path.to_owned();
    move |source| UnpackError::Write { path, source }
}

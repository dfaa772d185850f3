//! Where a backup is written: a folder, or an archive. Content is hashed on its way.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use oci::{Algorithm, Digest, DigestReader, Hasher};

use super::make::discard;
use crate::hex;

/// The archive, while it is written.
const ARCHIVE: &str = "archive.tar";

/// A backup beside the place that it is for. Dropped unfinished, it goes.
pub(super) struct Unfinished {
    to: PathBuf,
    folder: PathBuf,
}

impl Unfinished {
    /// Refuses a place where something is.
    pub(super) fn begin(to: &Path) -> anyhow::Result<Self> {
        let is_empty =
            |folder: &Path| fs::read_dir(folder).is_ok_and(|mut all| all.next().is_none());
        if fs::symlink_metadata(to).is_ok() && !(to.is_dir() && is_empty(to)) {
            bail!(
                "{} exists already: name another place with --to",
                to.display()
            );
        }
        let mut name = to.file_name().map(OsString::from).unwrap_or_default();
        // What is left of one that was killed is in nobody's way: in containers, processes have the same numbers.
        name.push(format!(".part-{}", hex::random()?));
        let folder = to.with_file_name(name);
        DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(Self {
            to: to.to_owned(),
            folder,
        })
    }

    /// Where files are put that the backup is made of.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A folder, or an archive where the name says so.
    pub(super) fn sink(&self) -> anyhow::Result<Sink> {
        let kind = if self
            .to
            .extension()
            .is_some_and(|extension| extension == "tar")
        {
            let path = self.folder.join(ARCHIVE);
            let file = create(&path)?;
            Kind::Archive(Box::new(tar::Builder::new(file)))
        } else {
            Kind::Folder(self.folder.clone())
        };
        Ok(Sink {
            kind,
            files: 0,
            bytes: 0,
            sums: String::new(),
        })
    }

    /// Makes what was written durable and gives it its name.
    pub(super) fn finish(self, sink: Sink) -> anyhow::Result<()> {
        let failed = || format!("cannot move the backup to {}", self.to.display());
        let finished = match sink.kind {
            Kind::Archive(builder) => {
                let file = builder.into_inner()?;
                file.sync_all()?;
                self.folder.join(ARCHIVE)
            }
            Kind::Folder(folder) => {
                sync_all(&folder)?;
                folder
            }
        };
        fs::rename(&finished, &self.to).with_context(failed)?;
        let parent = self
            .to
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // What was finished is not there any more.
        discard(&self.folder);
    }
}

/// Takes the files of a backup.
pub(super) struct Sink {
    kind: Kind,
    files: u64,
    bytes: u64,
    sums: String,
}

enum Kind {
    Folder(PathBuf),
    Archive(Box<tar::Builder<File>>),
}

impl Sink {
    /// How many files it took.
    pub(super) fn files(&self) -> u64 {
        self.files
    }

    /// Their length in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The digests of all of them, a line a file.
    pub(super) fn sums(&self) -> &str {
        &self.sums
    }

    /// Takes a file that lies in the folder of the backup already, at its place.
    pub(super) fn take(&mut self, place: &Path, file: &Path) -> anyhow::Result<()> {
        if let Kind::Folder(_) = &self.kind {
            let mut reader = DigestReader::new(File::open(file)?);
            let length = io::copy(&mut reader, &mut io::sink())?;
            self.count(place, reader.finish().0, length);
            return Ok(());
        }
        self.copy(place, file)
    }

    /// Copies a file to its place; content of the registry has to be what its name says.
    pub(super) fn copy(&mut self, place: &Path, file: &Path) -> anyhow::Result<()> {
        let opened = File::open(file);
        let opened = opened.with_context(|| format!("cannot copy {}", file.display()))?;
        self.copy_opened(place, file, opened)
    }

    /// The same for a file that may be removed at any time: where it is not there, nothing is copied.
    pub(super) fn copy_if_there(&mut self, place: &Path, file: &Path) -> anyhow::Result<()> {
        match File::open(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot copy {}", file.display())),
            Ok(opened) => self.copy_opened(place, file, opened),
        }
    }

    fn copy_opened(&mut self, place: &Path, file: &Path, opened: File) -> anyhow::Result<()> {
        let failed = || format!("cannot copy {}", file.display());
        let length = opened.metadata().with_context(failed)?.len();
        let mut reader = Checked::new(place, opened.take(length));
        self.put(place, &mut reader, length).with_context(failed)?;
        self.count(place, reader.finish()?, length);
        Ok(())
    }

    /// Writes a small file.
    pub(super) fn write(&mut self, place: &Path, content: &[u8]) -> anyhow::Result<()> {
        let length = content.len() as u64;
        self.put(place, &mut &*content, length)?;
        self.count(place, Digest::of(content), length);
        Ok(())
    }

    fn put(&mut self, place: &Path, reader: &mut dyn Read, length: u64) -> io::Result<()> {
        match &mut self.kind {
            Kind::Folder(folder) => {
                let path = folder.join(place);
                if let Some(parent) = path.parent() {
                    DirBuilder::new()
                        .recursive(true)
                        .mode(0o700)
                        .create(parent)?;
                }
                io::copy(reader, &mut create(&path)?).map(drop)
            }
            Kind::Archive(builder) => {
                let mut header = tar::Header::new_gnu();
                header.set_size(length);
                header.set_mode(0o600);
                builder.append_data(&mut header, place, reader)
            }
        }
    }

    fn count(&mut self, place: &Path, digest: Digest, length: u64) {
        // Writing to a string does not fail.
        let _ = writeln!(self.sums, "{}  {}", digest.hex(), place.display());
        self.files += 1;
        self.bytes += length;
    }
}

/// Reads a file of a backup for its sum; content of the registry has to be what its name says.
pub(super) struct Checked<'a, R> {
    place: &'a Path,
    sum: DigestReader<R>,
    /// Of content that is not named by what the sums are made with.
    other: Option<Hasher>,
}

impl<'a, R: Read> Checked<'a, R> {
    pub(super) fn new(place: &'a Path, reader: R) -> Self {
        let algorithm = algorithm_of_content(place);
        let other = algorithm.filter(|algorithm| *algorithm != Algorithm::Sha256);
        Self {
            place,
            sum: DigestReader::new(reader),
            other: other.map(Hasher::by),
        }
    }

    /// The sum of what was read.
    pub(super) fn finish(self) -> anyhow::Result<Digest> {
        let (sum, _) = self.sum.finish();
        let actual = self.other.map_or(sum, Hasher::finish);
        let name = self.place.file_name().and_then(|name| name.to_str());
        let named = name.and_then(|name| Digest::from_hex(name).ok());
        if algorithm_of_content(self.place).is_some() && named != Some(actual) {
            bail!(
                "{} is damaged: its content has digest {actual}",
                self.place.display()
            );
        }
        Ok(sum)
    }
}

impl<R: Read> Read for Checked<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.sum.read(buffer)?;
        if let Some(other) = &mut self.other {
            other.update(&buffer[..count]);
        }
        Ok(count)
    }
}

/// `…/blobs/<algorithm>/<hex>` is content of the registry.
fn algorithm_of_content(place: &Path) -> Option<Algorithm> {
    let folder = place.parent()?;
    let is_content = folder.parent()?.ends_with("blobs");
    let name = folder.file_name()?.to_str()?;
    name.parse().ok().filter(|_| is_content)
}

pub(super) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)
}

/// Flushes a folder with all that is in it.
pub(super) fn sync_all(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sync_all(&path)?;
        } else {
            File::open(&path)?.sync_all()?;
        }
    }
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_backup_has_left_is_in_no_other_ones_way() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("backup");
        let _left = Unfinished::begin(&to).unwrap();
        Unfinished::begin(&to).unwrap();
    }

    #[test]
    fn a_tag_that_is_removed_meanwhile_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let tag = folder.path().join("tag");
        let unfinished = Unfinished::begin(&folder.path().join("backup.tar")).unwrap();
        let mut sink = unfinished.sink().unwrap();
        sink.copy_if_there(Path::new("tag"), &tag).unwrap();
        assert_eq!((sink.files(), sink.sums()), (0, ""));
        fs::write(&tag, "digest").unwrap();
        sink.copy_if_there(Path::new("tag"), &tag).unwrap();
        assert_eq!((sink.files(), sink.bytes()), (1, 6));
        assert!(sink.copy(Path::new("tag"), &tag.join("none")).is_err());
    }
}

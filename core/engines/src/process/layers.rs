//! Layers that were unpacked once, for all images that stand on them.
//!
//! A layer is kept as the list of its entries and the files that they brought. Unpacking it again
//! reads no archive: the entries are applied as before, and the files are linked. So releases that
//! differ in one layer share all the others on disk. The files of an image are never changed in
//! place: instances have them below an overlay, read-only, or as a copy.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use oci::Digest;
use serde::{Deserialize, Serialize};

use super::unpack::{KeptEntry, Unpacked};
use super::{boot, digest_name, tree};

const RECORD: &str = "layer.json";
const FILES: &str = "files";
const VERSION: u32 = 1;

/// The kept layers of one engine.
pub(crate) struct Layers {
    pub(crate) directory: PathBuf,
    pub(crate) scratch: PathBuf,
    /// Whether files belong to whom their layers say.
    pub(crate) owners: bool,
}

/// What is written beside the files. As with images, a layer counts only for the start of the machine that it
/// was made under: nothing was flushed.
#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    boot: String,
    owners: bool,
    unpacked: Unpacked,
}

impl Record {
    /// That of a layer which can be applied here and now.
    fn read(place: &Path, owners: bool) -> Option<Self> {
        let text = fs::read(place.join(RECORD)).ok()?;
        let record: Self = serde_json::from_slice(&text).ok()?;
        let valid =
            record.version == VERSION && record.boot == boot::id() && record.owners == owners;
        valid.then_some(record)
    }
}

/// A layer that can be applied again.
pub(crate) struct KeptLayer {
    place: PathBuf,
    pub(crate) unpacked: Unpacked,
}

impl KeptLayer {
    /// The file that an entry brought.
    pub(crate) fn file(&self, number: usize) -> PathBuf {
        self.place.join(FILES).join(number.to_string())
    }
}

/// A layer that is being kept while it is unpacked.
pub(crate) struct Keeper {
    scratch: PathBuf,
    place: PathBuf,
    owners: bool,
    entries: Vec<KeptEntry>,
}

impl Layers {
    pub(crate) fn find(&self, diff_id: &Digest) -> Option<KeptLayer> {
        let place = self.place(diff_id);
        let record = Record::read(&place, self.owners)?;
        Some(KeptLayer {
            place,
            unpacked: record.unpacked,
        })
    }

    /// Begins to keep a layer that is unpacked for `image`.
    pub(crate) fn keep(&self, diff_id: &Digest, image: &Digest) -> io::Result<Keeper> {
        // named so that it counts as the image's for as long as that is being unpacked
        let name = format!("layer-{}-of-{}", diff_id.hex(), image.hex());
        let scratch = self.scratch.join(name);
        tree::remove(&scratch)?;
        fs::create_dir_all(scratch.join(FILES))?;
        Ok(Keeper {
            scratch,
            place: self.place(diff_id),
            owners: self.owners,
            entries: Vec::new(),
        })
    }

    /// Removes a layer, if it is kept; returns the bytes that nobody else has.
    pub(crate) fn remove(&self, diff_id: &Digest) -> io::Result<u64> {
        self.remove_at(&self.place(diff_id))
    }

    /// Removes all layers but `used`; returns the bytes freed. Nobody may be unpacking.
    pub(crate) fn retain(&self, used: &HashSet<Digest>) -> io::Result<u64> {
        let mut freed = 0;
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if digest_name::read(&name).is_none_or(|digest| !used.contains(&digest)) {
                freed += self.remove_at(&entry.path())?;
            }
        }
        Ok(freed)
    }

    /// Moved away first: half a layer must not be taken for one.
    fn remove_at(&self, place: &Path) -> io::Result<u64> {
        let freed = match tree::unshared_size(place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            other => other?,
        };
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        let scratch = self.scratch.join(format!("removed-layer-{name}"));
        tree::remove(&scratch)?;
        fs::rename(place, &scratch)?;
        tree::remove(&scratch)?;
        Ok(freed)
    }

    fn place(&self, diff_id: &Digest) -> PathBuf {
        self.directory.join(digest_name::of(diff_id))
    }
}

impl Keeper {
    /// Keeps an entry, which has been applied; a file is at `place`.
    pub(crate) fn entry(&mut self, entry: KeptEntry, place: Option<&Path>) -> io::Result<()> {
        if let Some(place) = place {
            let number = self.entries.len().to_string();
            fs::hard_link(place, self.scratch.join(FILES).join(number))?;
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Makes it a kept layer; `stream_bytes` is what its archive took. Somebody else may have done so meanwhile.
    pub(crate) fn finish(self, stream_bytes: u64) -> io::Result<()> {
        let scratch = self.scratch.clone();
        let kept = self.put_in_place(stream_bytes);
        if kept.is_err() {
            let _ = tree::remove(&scratch);
        }
        kept
    }

    fn put_in_place(self, stream_bytes: u64) -> io::Result<()> {
        let record = Record {
            version: VERSION,
            boot: boot::id(),
            owners: self.owners,
            unpacked: Unpacked {
                entries: self.entries,
                stream_bytes,
            },
        };
        // names that are not UTF-8 have no place in it
        let text = serde_json::to_vec(&record)?;
        fs::write(self.scratch.join(RECORD), text)?;
        if fs::rename(&self.scratch, &self.place).is_ok() {
            return Ok(());
        }
        if Record::read(&self.place, self.owners).is_some() {
            // whoever was quicker may have lent it to somebody by now
            return tree::remove(&self.scratch);
        }
        tree::remove(&self.place)?;
        fs::rename(&self.scratch, &self.place)
    }

    /// Keeps nothing.
    pub(crate) fn give_up(self) {
        let _ = tree::remove(&self.scratch);
    }
}

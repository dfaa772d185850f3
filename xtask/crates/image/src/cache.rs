//! What is remembered between runs, so that an unchanged file is not read again.
//!
//! Everything here can be found out anew: a missing, foreign or damaged cache file is an empty
//! cache, and two runs that write at the same time lose at most each other's new entries.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use oci::Digest;
use serde::{Deserialize, Serialize};

use crate::base::ElfFacts;
use crate::files::FileStat;
use crate::secrets::Hit;

/// Raised when the layout of the file or of layers changes: older entries then mean nothing.
const VERSION: u32 = 1;
/// Entries kept of each kind; the least recently used go first.
const LIMIT: usize = 2048;
/// A cache file over this is not ours.
const FILE_LIMIT: u64 = 16 * 1024 * 1024;
/// A file written this shortly before it was read may have been written again within the same tick
/// of the clock, with no trace in its times.
const RACY: i128 = 2_000_000_000;

/// A cache file, read once and written once.
#[derive(Debug, Default)]
pub struct Cache {
    path: Option<PathBuf>,
    records: Records,
    changed: bool,
    run: u64,
}

/// A layer that was built before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CachedLayer {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) diff_id: Digest,
}

/// What a file turned out to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Program {
    /// No ELF file.
    None,
    Elf(ElfFacts),
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Records {
    version: u32,
    #[serde(default)]
    layers: BTreeMap<String, Used<CachedLayer>>,
    #[serde(default)]
    programs: BTreeMap<String, Used<Program>>,
    #[serde(default)]
    scanned_layers: BTreeMap<String, Used<Vec<(usize, Hit)>>>,
    #[serde(default)]
    scanned_files: BTreeMap<String, Used<Vec<Hit>>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Used<T> {
    /// Seconds since the epoch.
    used: u64,
    value: T,
}

impl Cache {
    /// A cache that remembers nothing beyond this run.
    #[must_use]
    pub fn none() -> Self {
        Self {
            run: now_seconds(),
            ..Self::default()
        }
    }

    /// Reads the cache file at `path`; whatever is wrong with it makes an empty cache.
    pub fn open(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let records = read(&path).unwrap_or_default();
        Self {
            path: Some(path),
            records,
            changed: false,
            run: now_seconds(),
        }
    }

    /// Writes what was learnt, together with what other runs have written meanwhile.
    pub fn save(&mut self) -> io::Result<()> {
        let Some(path) = self.path.clone().filter(|_| self.changed) else {
            return Ok(());
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let lock = File::create(path.with_extension("lock"))?;
        lock.lock()?;
        let others = read(&path).unwrap_or_default();
        self.records.merge(others);
        self.records.version = VERSION;
        write_atomically(&path, &serde_json::to_vec(&self.records)?)?;
        self.changed = false;
        Ok(())
    }

    pub(crate) fn layer(&mut self, key: &str) -> Option<CachedLayer> {
        let run = self.run;
        let entry = self.records.layers.get_mut(key)?;
        self.changed |= touch(&mut entry.used, run);
        Some(entry.value)
    }

    pub(crate) fn remember_layer(&mut self, key: String, layer: CachedLayer) {
        self.records.layers.insert(
            key,
            Used {
                used: self.run,
                value: layer,
            },
        );
        self.changed = true;
    }

    /// What was found in the files of a layer, each by its number.
    pub(crate) fn scanned_layer(&mut self, key: &str) -> Option<Vec<(usize, Hit)>> {
        let run = self.run;
        let entry = self.records.scanned_layers.get_mut(key)?;
        self.changed |= touch(&mut entry.used, run);
        Some(entry.value.clone())
    }

    pub(crate) fn remember_scanned_layer(&mut self, key: String, value: Vec<(usize, Hit)>) {
        let used = self.run;
        let scanned = &mut self.records.scanned_layers;
        scanned.insert(key, Used { used, value });
        self.changed = true;
    }

    pub(crate) fn scanned_file(&mut self, key: &str) -> Option<Vec<Hit>> {
        let run = self.run;
        let entry = self.records.scanned_files.get_mut(key)?;
        self.changed |= touch(&mut entry.used, run);
        Some(entry.value.clone())
    }

    pub(crate) fn remember_scanned_file(&mut self, key: String, value: Vec<Hit>) {
        let used = self.run;
        let scanned = &mut self.records.scanned_files;
        scanned.insert(key, Used { used, value });
        self.changed = true;
    }

    pub(crate) fn program(&mut self, stat: &FileStat) -> Option<Program> {
        let run = self.run;
        let entry = self.records.programs.get_mut(&stat_key(stat))?;
        self.changed |= touch(&mut entry.used, run);
        Some(entry.value.clone())
    }

    pub(crate) fn remember_program(&mut self, stat: &FileStat, program: Program) {
        if is_settled(stat) {
            self.records.programs.insert(
                stat_key(stat),
                Used {
                    used: self.run,
                    value: program,
                },
            );
            self.changed = true;
        }
    }
}

/// Whether a file was left alone long enough for its times to tell of every later change.
pub(crate) fn is_settled(stat: &FileStat) -> bool {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_nanos());
    let age = i128::try_from(now).unwrap_or(i128::MAX) - stat.modified;
    age > RACY
}

/// What identifies the content of a file without reading it.
pub(crate) fn stat_key(stat: &FileStat) -> String {
    let FileStat {
        device,
        inode,
        size,
        modified,
        changed,
        mode,
    } = stat;
    format!("{device}.{inode}.{size}.{modified}.{changed}.{mode:o}")
}

impl Records {
    fn merge(&mut self, others: Self) {
        merge(&mut self.layers, others.layers);
        merge(&mut self.programs, others.programs);
        merge(&mut self.scanned_layers, others.scanned_layers);
        merge(&mut self.scanned_files, others.scanned_files);
    }
}

fn merge<T>(ours: &mut BTreeMap<String, Used<T>>, theirs: BTreeMap<String, Used<T>>) {
    for (key, entry) in theirs {
        ours.entry(key).or_insert(entry);
    }
    if ours.len() > LIMIT {
        let mut ages: Vec<u64> = ours.values().map(|entry| entry.used).collect();
        ages.sort_unstable_by(|left, right| right.cmp(left));
        let oldest = ages[LIMIT - 1];
        ours.retain(|_, entry| entry.used > oldest);
    }
}

/// Notes the use of an entry, at most once a day: an unchanged run then writes nothing.
fn touch(used: &mut u64, now: u64) -> bool {
    const DAY: u64 = 24 * 60 * 60;
    let stale = used.saturating_add(DAY) < now;
    if stale {
        *used = now;
    }
    stale
}

fn read(path: &Path) -> Option<Records> {
    if fs::metadata(path).ok()?.len() > FILE_LIMIT {
        return None;
    }
    let records: Records = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (records.version == VERSION).then_some(records)
}

/// Writes a cache file: a reader sees the old one or the new one, whenever the writer dies. It is not
/// flushed to the disk, because everything in it can be found out anew.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension(format!("{}.new", std::process::id()));
    let written = File::create(&unfinished)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&unfinished, path));
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

fn now_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(text: &str) -> CachedLayer {
        let digest = Digest::of(text.as_bytes());
        CachedLayer {
            digest,
            size: 3,
            diff_id: digest,
        }
    }

    #[test]
    fn what_was_saved_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/layers.json");
        let mut cache = Cache::open(&path);
        cache.remember_layer("key".into(), layer("one"));
        cache.save().unwrap();
        assert_eq!(Cache::open(&path).layer("key"), Some(layer("one")));
        assert_eq!(Cache::open(&path).layer("other"), None);
    }

    #[test]
    fn a_damaged_file_is_an_empty_cache() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("layers.json");
        for content in ["", "{", "[]", r#"{"version":999,"layers":{}}"#, "\0\0\0"] {
            fs::write(&path, content).unwrap();
            let mut cache = Cache::open(&path);
            assert_eq!(cache.layer("key"), None, "{content:?}");
            cache.remember_layer("key".into(), layer("one"));
            cache.save().unwrap();
            assert_eq!(
                Cache::open(&path).layer("key"),
                Some(layer("one")),
                "{content:?}"
            );
        }
    }

    #[test]
    fn two_runs_keep_each_others_entries() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("layers.json");
        let (mut first, mut second) = (Cache::open(&path), Cache::open(&path));
        first.remember_layer("first".into(), layer("1"));
        second.remember_layer("second".into(), layer("2"));
        first.save().unwrap();
        second.save().unwrap();
        let mut cache = Cache::open(&path);
        assert_eq!(cache.layer("first"), Some(layer("1")));
        assert_eq!(cache.layer("second"), Some(layer("2")));
    }

    #[test]
    fn the_least_recently_used_entries_go_first() {
        let mut ours = BTreeMap::new();
        for (age, key) in (0..).zip(0..LIMIT + 10) {
            ours.insert(
                format!("{key:05}"),
                Used {
                    used: age,
                    value: (),
                },
            );
        }
        merge(&mut ours, BTreeMap::new());
        assert!(ours.len() <= LIMIT && !ours.contains_key("00000"));
        assert!(ours.contains_key(&format!("{:05}", LIMIT + 9)));
    }
}

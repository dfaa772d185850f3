//! Which repositories of a registry hold which blobs, as far as pushes from here have shown.
//!
//! Many tenants of one registry get the same image: what one of their repositories holds, the others
//! mount instead of getting it sent. All of this may be wrong or missing; a push then costs more and
//! is right all the same. So a missing, foreign or damaged file is an empty memory.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use deploy_image::write_atomically;
use oci::{Digest, Known, Repository};
use serde::{Deserialize, Serialize};

/// Raised when the layout of the file changes: an older file then means nothing.
const VERSION: u32 = 1;
/// A file over this is not ours.
const FILE_LIMIT: u64 = 16 * 1024 * 1024;
/// Registries kept, the one used last first.
const REGISTRIES: usize = 16;
/// Repositories kept of each, likewise.
const REPOSITORIES: usize = 200;
/// Blobs kept of each, likewise: a few images.
const BLOBS: usize = 64;
/// Other repositories named for one blob. A refused mount begins an upload, which the blob then
/// takes; a second one would be a request for nothing.
const HOLDERS: usize = 1;

/// The memory, in a file.
#[derive(Debug)]
pub(crate) struct Holdings {
    path: PathBuf,
    records: Records,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Records {
    version: u32,
    registries: Vec<Registry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Registry {
    host: String,
    repositories: Vec<Holding>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Holding {
    repository: String,
    blobs: Vec<Digest>,
}

impl Holdings {
    /// The memory in a project's cache folder.
    pub(crate) fn open(cache_folder: &Path) -> Self {
        let path = cache_folder.join("registries.json");
        let records = read(&path).unwrap_or_default();
        Self { path, records }
    }

    /// What to tell a push of these blobs to this repository. `produced` are those made just now:
    /// where nothing was pushed from here yet, they may still be there, pushed from elsewhere.
    pub(crate) fn known(
        &self,
        host: &str,
        repository: &Repository,
        blobs: &[Digest],
        produced: &[Digest],
    ) -> Known {
        let mut known = Known::new();
        let Some(registry) = self.records.registry(host) else {
            return known;
        };
        for blob in blobs {
            for holder in registry.holders(blob, repository) {
                known.held_by(*blob, holder);
            }
        }
        for blob in produced {
            known.produced(*blob);
        }
        known
    }

    /// Notes what a repository holds now. Another run that notes something at the same moment comes
    /// first, and this is forgotten: it is worth no wait.
    pub(crate) fn note(
        &mut self,
        host: &str,
        repository: &Repository,
        blobs: &[Digest],
    ) -> io::Result<()> {
        if self.records.has_all(host, repository, blobs) {
            return Ok(());
        }
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let lock = File::create(self.path.with_extension("lock"))?;
        if lock.try_lock().is_err() {
            return Ok(());
        }
        // Other runs may have written since this one read.
        self.records = read(&self.path).unwrap_or_default();
        self.records.note(host, repository, blobs);
        write_atomically(&self.path, &serde_json::to_vec(&self.records)?)
    }
}

impl Records {
    fn registry(&self, host: &str) -> Option<&Registry> {
        self.registries
            .iter()
            .find(|registry| registry.host == host)
    }

    fn has_all(&self, host: &str, repository: &Repository, blobs: &[Digest]) -> bool {
        let mut holdings = self
            .registry(host)
            .into_iter()
            .flat_map(|r| &r.repositories);
        holdings.any(|holding| {
            holding.repository == repository.as_str()
                && blobs.iter().all(|blob| holding.blobs.contains(blob))
        })
    }

    fn note(&mut self, host: &str, repository: &Repository, blobs: &[Digest]) {
        self.version = VERSION;
        let registry = first(
            &mut self.registries,
            REGISTRIES,
            |registry| registry.host == host,
            || Registry {
                host: host.to_owned(),
                repositories: Vec::new(),
            },
        );
        let holding = first(
            &mut registry.repositories,
            REPOSITORIES,
            |holding| holding.repository == repository.as_str(),
            || Holding {
                repository: repository.to_string(),
                blobs: Vec::new(),
            },
        );
        holding.blobs.retain(|blob| !blobs.contains(blob));
        holding.blobs.splice(0..0, blobs.iter().copied());
        holding.blobs.truncate(BLOBS);
    }
}

impl Registry {
    /// The repository itself, if it has the blob, and another that does.
    fn holders(&self, blob: &Digest, repository: &Repository) -> Vec<Repository> {
        let holds = |holding: &&Holding| holding.blobs.contains(blob);
        let is_itself = |holding: &&Holding| holding.repository == repository.as_str();
        let holders = || self.repositories.iter().filter(holds);
        let others = holders().filter(|holding| !is_itself(holding));
        let named = holders().filter(is_itself).chain(others.take(HOLDERS));
        named
            .filter_map(|holding| holding.repository.parse().ok())
            .collect()
    }
}

/// Moves the entry that is meant to the front, made anew if need be, and drops the last ones.
fn first<T>(
    entries: &mut Vec<T>,
    limit: usize,
    is_meant: impl FnMut(&T) -> bool,
    fresh: impl FnOnce() -> T,
) -> &mut T {
    let entry = match entries.iter().position(is_meant) {
        Some(place) => entries.remove(place),
        None => fresh(),
    };
    entries.insert(0, entry);
    entries.truncate(limit);
    &mut entries[0]
}

fn read(path: &Path) -> Option<Records> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(FILE_LIMIT).read_to_end(&mut bytes).ok()?;
    let records: Records = serde_json::from_slice(&bytes).ok()?;
    (records.version == VERSION).then_some(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "registry.example.com";

    fn repository(name: &str) -> Repository {
        name.parse().unwrap()
    }

    fn digests(texts: &[&str]) -> Vec<Digest> {
        texts.iter().map(|t| Digest::of(t.as_bytes())).collect()
    }

    fn note(folder: &Path, name: &str, texts: &[&str]) {
        Holdings::open(folder)
            .note(HOST, &repository(name), &digests(texts))
            .unwrap();
    }

    /// What is known of one blob for a push to a repository of a registry.
    fn asked(folder: &Path, host: &str, name: &str, text: &str) -> Known {
        let blobs = digests(&[text]);
        Holdings::open(folder).known(host, &repository(name), &blobs, &blobs)
    }

    fn expected(text: &str, holders: &[&str]) -> Known {
        let (mut known, blob) = (Known::new(), Digest::of(text.as_bytes()));
        for holder in holders {
            known.held_by(blob, repository(holder));
        }
        known.produced(blob);
        known
    }

    #[test]
    fn the_latest_holders_are_named_and_the_repository_itself_before_them() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c", "d"] {
            note(folder.path(), name, &["base", name]);
        }
        let ask = |name, text| asked(folder.path(), HOST, name, text);
        assert_eq!(ask("new", "base"), expected("base", &["d"]));
        assert_eq!(ask("a", "base"), expected("base", &["a", "d"]));
        assert_eq!(ask("new", "a"), expected("a", &["a"]));
        assert_eq!(ask("new", "other"), expected("other", &[]));
    }

    #[test]
    fn of_another_registry_nothing_is_known_not_even_what_is_new() {
        let folder = tempfile::tempdir().unwrap();
        note(folder.path(), "a", &["base"]);
        let known = asked(folder.path(), "other.example.com", "a", "base");
        assert_eq!(known, Known::new());
    }

    #[test]
    fn a_damaged_file_is_an_empty_memory() {
        let folder = tempfile::tempdir().unwrap();
        note(folder.path(), "a", &["base"]);
        let path = folder.path().join("registries.json");
        let whole = fs::read(&path).unwrap();
        let other = br#"{"version":2,"registries":[]}"#.to_vec();
        for damaged in [whole[..whole.len() / 2].to_vec(), other, Vec::new()] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(asked(folder.path(), HOST, "a", "base"), Known::new());
        }
        note(folder.path(), "a", &["base"]);
        assert_eq!(
            asked(folder.path(), HOST, "a", "base"),
            expected("base", &["a"])
        );
    }

    #[test]
    fn the_memory_is_bounded_and_forgets_what_is_oldest() {
        let folder = tempfile::tempdir().unwrap();
        let many: Vec<String> = (0..BLOBS + 10).map(|n| n.to_string()).collect();
        let texts: Vec<&str> = many.iter().map(String::as_str).collect();
        note(folder.path(), "a", &texts[..BLOBS]);
        note(folder.path(), "a", &texts[BLOBS..]);
        let mut records = Holdings::open(folder.path()).records;
        let held = &records.registries[0].repositories[0].blobs;
        assert_eq!(held.len(), BLOBS);
        assert_eq!(held[..10], digests(&texts[BLOBS..]));
        for number in 0..REPOSITORIES + 5 {
            let name = repository(&format!("r{number}"));
            records.note(HOST, &name, &digests(&["x"]));
            records.note(&format!("h{number}"), &name, &digests(&["x"]));
        }
        assert_eq!(records.registries.len(), REGISTRIES);
        assert_eq!(records.registries[1].repositories.len(), REPOSITORIES);
        assert_eq!(records.registries[1].repositories[0].repository, "r204");
    }

    #[test]
    fn two_runs_keep_each_others_notes() {
        let folder = tempfile::tempdir().unwrap();
        let (mut one, mut two) = (Holdings::open(folder.path()), Holdings::open(folder.path()));
        one.note(HOST, &repository("a"), &digests(&["x"])).unwrap();
        two.note(HOST, &repository("b"), &digests(&["x"])).unwrap();
        let known = asked(folder.path(), HOST, "a", "x");
        assert_eq!(known, expected("x", &["a", "b"]));
        let left: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .filter(|name| name.to_string_lossy().ends_with(".new"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

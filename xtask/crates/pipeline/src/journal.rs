//! The local journal of deployments: one JSON line each, appended and synced.
//!
//! It answers `history` and finds the release to roll back to where the platform keeps no history
//! of its own.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// One deployment as this machine saw it. The record's version is in its field `v`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Version of the record.
    pub v: u32,
    /// When it ended.
    pub at: DateTime<Utc>,
    /// Name of the environment.
    pub environment: String,
    /// Address of the control plane.
    pub api: String,
    /// The tenant.
    pub tenant: String,
    /// The image by tag.
    pub image: String,
    /// The tag.
    pub tag: String,
    /// The digest, when known.
    pub digest: Option<String>,
    /// `succeeded`, `failed`, `rolled_back`, `started`.
    pub status: String,
    /// Where it serves.
    pub url: Option<String>,
}

/// The journal in a project.
pub struct Journal {
    path: PathBuf,
}

impl Journal {
    /// The journal under a `.systemprompt` folder.
    #[must_use]
    pub fn of(state: &Path) -> Self {
        Self {
            path: state.join("history.jsonl"),
        }
    }

    /// Adds an entry; durable when this returns.
    pub fn append(&self, entry: &Entry) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        if !self.path.exists() {
            deploy_config::keep_out_of_git(&self.path)?;
        }
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(&self.path)?;
        file.lock()?;
        let before = file.metadata()?.len();
        if !ends_with_a_line(&file, before)? {
            // Half a line would make this one unreadable, too.
            line.insert(0, b'\n');
        }
        if let Err(error) = file.write_all(&line) {
            // What is not whole need not stay.
            let _ = file.set_len(before);
            return Err(error);
        }
        file.sync_all()?;
        // Whoever made the file may have been killed before this.
        File::open(folder)?.sync_all()
    }

    /// The entries of a tenant, newest first. Lines that cannot be read (a write cut off by a
    /// crash, a later version) are passed over.
    pub fn entries(&self, api: &str, tenant: &str) -> io::Result<Vec<Entry>> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let mut entries = Vec::new();
        // Bytes: half a character may end a line.
        for line in BufReader::new(file).split(b'\n') {
            let entry = serde_json::from_slice::<Entry>(&line?).ok();
            entries.extend(
                entry.filter(|entry| entry.v == 1 && entry.api == api && entry.tenant == tenant),
            );
        }
        entries.reverse();
        Ok(entries)
    }
}

/// Whether the last byte of a file of that length ends a line.
fn ends_with_a_line(file: &File, length: u64) -> io::Result<bool> {
    let mut last = [b'\n'];
    if let Some(at) = length.checked_sub(1) {
        file.read_exact_at(&mut last, at)?;
    }
    Ok(last == [b'\n'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(tag: &str) -> Entry {
        Entry {
            v: 1,
            at: DateTime::UNIX_EPOCH,
            environment: "production".into(),
            api: "a".into(),
            tenant: "t".into(),
            image: format!("r/t:{tag}"),
            tag: tag.into(),
            digest: None,
            status: "succeeded".into(),
            url: None,
        }
    }

    fn tags(journal: &Journal) -> Vec<String> {
        let entries = journal.entries("a", "t").unwrap();
        entries.into_iter().map(|entry| entry.tag).collect()
    }

    /// As a full disk or a killed process leaves it.
    fn tear(journal: &Journal, half: &[u8]) {
        let torn = [fs::read(&journal.path).unwrap().as_slice(), half].concat();
        fs::write(&journal.path, torn).unwrap();
    }

    #[test]
    fn newest_first_and_torn_lines_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::of(folder.path());
        assert!(journal.entries("a", "t").unwrap().is_empty());
        journal.append(&entry("one")).unwrap();
        tear(&journal, b"{\"v\":1,\"at\"\n");
        journal.append(&entry("two")).unwrap();
        assert_eq!(tags(&journal), ["two", "one"]);
        assert!(journal.entries("a", "other").unwrap().is_empty());
    }

    #[test]
    fn a_line_that_was_cut_off_takes_no_other_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::of(folder.path());
        journal.append(&entry("one")).unwrap();
        tear(&journal, b"{\"v\":1,\"at\":");
        journal.append(&entry("two")).unwrap();
        assert_eq!(tags(&journal), ["two", "one"]);
    }

    #[test]
    fn a_line_that_was_cut_off_within_a_character_ends_no_history() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::of(folder.path());
        journal.append(&entry("one")).unwrap();
        let half = "{\"v\":1,\"environment\":\"caf\u{e9}".as_bytes();
        tear(&journal, &half[..half.len() - 1]);
        journal.append(&entry("two")).unwrap();
        journal.append(&entry("three")).unwrap();
        assert_eq!(tags(&journal), ["three", "two", "one"]);
    }

    #[test]
    fn a_history_that_cannot_be_read_is_not_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::of(folder.path());
        fs::create_dir(&journal.path).unwrap();
        let error = journal.entries("a", "t").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
    }
}

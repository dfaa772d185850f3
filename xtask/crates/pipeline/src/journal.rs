//! The local journal of deployments: one JSON line each, appended and synced.
//!
//! It answers `history` and finds the release to roll back to where the platform keeps no history
//! of its own.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
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
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        if !self.path.exists() {
            deploy_config::keep_out_of_git(&self.path)?;
        }
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)?;
        file.write_all(&line)?;
        file.sync_data()
    }

    /// The entries of a tenant, newest first. Lines that cannot be read (a write cut off by a
    /// crash, a later version) are passed over.
    pub fn entries(&self, api: &str, tenant: &str) -> io::Result<Vec<Entry>> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let mut entries: Vec<Entry> = BufReader::new(file)
            .lines()
            .map_while(Result::ok)
            .filter_map(|line| serde_json::from_str(&line).ok())
            .filter(|entry: &Entry| entry.v == 1 && entry.api == api && entry.tenant == tenant)
            .collect();
        entries.reverse();
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_first_and_torn_lines_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::of(folder.path());
        assert!(journal.entries("a", "t").unwrap().is_empty());
        let entry = |tag: &str| Entry {
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
        };
        journal.append(&entry("one")).unwrap();
        let path = folder.path().join("history.jsonl");
        let torn = [fs::read(&path).unwrap(), b"{\"v\":1,\"at\"\n".to_vec()].concat();
        fs::write(&path, torn).unwrap();
        journal.append(&entry("two")).unwrap();
        let tags: Vec<_> = journal.entries("a", "t").unwrap();
        let tags: Vec<_> = tags.iter().map(|e| e.tag.as_str()).collect();
        assert_eq!(tags, ["two", "one"]);
        assert!(journal.entries("a", "other").unwrap().is_empty());
    }
}

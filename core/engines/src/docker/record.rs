//! What the engine writes down in the data folder: which server it is, and how far each log was read.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::EngineError;
use crate::folder::FolderId;

/// The engine's own folder.
#[derive(Debug, Clone)]
pub(super) struct Records {
    folder: PathBuf,
}

/// Tells the containers of this data folder from those of others.
#[derive(Debug, Serialize, Deserialize)]
struct ServerRecord {
    id: String,
    /// A copy of the data folder is another server.
    folder: FolderId,
}

impl Records {
    /// Below the engine's directory.
    pub(super) fn open(root: &Path) -> Result<Self, EngineError> {
        let folder = root.join("docker");
        let path = folder.join("logs");
        fs::create_dir_all(&path).map_err(EngineError::files("create", &path))?;
        Ok(Self { folder })
    }

    /// This server's id; it is made when there is none yet, or when that is another folder's.
    pub(super) fn server(&self) -> Result<String, EngineError> {
        let path = self.folder.join("server.json");
        let folder =
            FolderId::of(&self.folder).map_err(EngineError::files("look at", &self.folder))?;
        let known: Option<ServerRecord> = read(&path);
        if let Some(known) = known.filter(|known| known.folder == folder) {
            return Ok(known.id);
        }
        let random = getrandom::u64()
            .map_err(|error| io::Error::other(error.to_string()))
            .map_err(EngineError::files("make an id for", &path))?;
        let id = format!("{random:016x}");
        let record = ServerRecord { id, folder };
        write(&path, &record).map_err(EngineError::files("write", &path))?;
        Ok(record.id)
    }

    /// The last line of an instance that is in its log: when Docker got it.
    pub(super) fn position(&self, instance: &str) -> Option<String> {
        read(&self.position_file(instance))
    }

    /// Says that the log has all lines up to this one.
    pub(super) fn set_position(&self, instance: &str, at: &str) -> io::Result<()> {
        write(&self.position_file(instance), &at)
    }

    /// The instance is gone.
    pub(super) fn forget(&self, instance: &str) {
        // One that stays is small, and is overwritten by the next of that name.
        let _ = fs::remove_file(self.position_file(instance));
    }

    fn position_file(&self, instance: &str) -> PathBuf {
        self.folder.join("logs").join(format!("{instance}.json"))
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Whole or not at all.
fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, serde_json::to_vec(value)?)?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_keeps_its_id_and_a_copy_of_its_folder_gets_another() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        let id = Records::open(&one).unwrap().server().unwrap();
        assert_eq!(Records::open(&one).unwrap().server().unwrap(), id);
        let moved = folder.path().join("moved");
        fs::rename(&one, &moved).unwrap();
        assert_eq!(Records::open(&moved).unwrap().server().unwrap(), id);
        fs::create_dir_all(two.join("docker")).unwrap();
        fs::copy(
            moved.join("docker/server.json"),
            two.join("docker/server.json"),
        )
        .unwrap();
        assert_ne!(Records::open(&two).unwrap().server().unwrap(), id);
    }
}

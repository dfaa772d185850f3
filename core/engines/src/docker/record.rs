//! What the engine writes down in the data folder: which server it is, and how far each log was read.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::EngineError;
use crate::folder::FolderId;
use crate::process::boot;

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
    /// The start of the machine that the folder's device is of; empty where nobody knows.
    #[serde(default)]
    boot: String,
}

impl ServerRecord {
    /// Whether it is of this folder, now. Volumes are named after the id: a folder that has been renumbered since, by a
    /// restart of the machine, is not taken for a copy. Nor is one whose record does not say of which start it is: a copy
    /// that has the inode of the original by chance is rarer than a restart.
    fn is_of(&self, folder: FolderId, boot: &str) -> bool {
        if self.boot.is_empty() || self.boot != boot {
            return self.folder.has_inode_of(folder);
        }
        self.folder == folder
    }
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
        let boot = boot::id();
        let known: Option<ServerRecord> = read(&path).map_err(|source| {
            let path = path.clone();
            EngineError::ServerUnknown { path, source }
        })?;
        let id = match known.filter(|known| known.is_of(folder, &boot)) {
            Some(known) if known.boot == boot && known.folder == folder => return Ok(known.id),
            Some(known) => known.id,
            None => {
                let random = getrandom::u64()
                    .map_err(|error| io::Error::other(error.to_string()))
                    .map_err(EngineError::files("make an id for", &path))?;
                format!("{random:016x}")
            }
        };
        let record = ServerRecord { id, folder, boot };
        write_durably(&path, &record).map_err(EngineError::files("write", &path))?;
        Ok(record.id)
    }

    /// The last line of an instance that is in its log: when Docker got it.
    pub(super) fn position(&self, instance: &str) -> Option<String> {
        // Without it, the log has lines twice.
        read(&self.position_file(instance)).ok().flatten()
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

/// `None` where there is no file, and nowhere else.
fn read<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whole or not at all.
fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, serde_json::to_vec(value)?)?;
    fs::rename(new, path)
}

/// The same, and it outlives a loss of power, with the folders that were made for it: the engine's, and that in the data folder.
fn write_durably(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.sync_all()?;
    fs::rename(new, path)?;
    for folder in path.ancestors().skip(1).take(3) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
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

    #[test]
    fn a_server_keeps_its_id_when_a_restart_of_the_machine_renumbers_its_device() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::open(folder.path()).unwrap();
        let id = records.server().unwrap();
        let path = folder.path().join("docker/server.json");
        let written = fs::read_to_string(&path).unwrap();
        let with = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut record = serde_json::from_str(&written).unwrap();
            change(&mut record);
            fs::write(&path, record.to_string()).unwrap();
            records.server().unwrap()
        };
        let renumber = |record: &mut serde_json::Value| record["folder"]["device"] = 1.into();
        let in_another_boot = with(&|record| {
            renumber(record);
            record["boot"] = "another".into();
        });
        assert_eq!(in_another_boot, id);
        // From now on this boot's number counts.
        assert_eq!(fs::read_to_string(&path).unwrap(), written);
        let before_boots_were_written = with(&|record| {
            renumber(record);
            record.as_object_mut().unwrap().remove("boot");
        });
        assert_eq!(before_boots_were_written, id);
        assert_ne!(with(&renumber), id, "a copy beside it");
        let elsewhere = with(&|record| {
            record["folder"]["inode"] = 1.into();
            record["boot"] = "another".into();
        });
        assert_ne!(elsewhere, id, "a copy of another boot");
    }

    #[test]
    fn no_id_is_made_in_place_of_one_that_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::open(folder.path()).unwrap();
        let path = folder.path().join("docker/server.json");
        for damaged in ["", "{\"id\":\"00"] {
            fs::write(&path, damaged).unwrap();
            let refused = records.server().unwrap_err().to_string();
            assert!(refused.contains(path.to_str().unwrap()), "{refused}");
            assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
        }
        fs::remove_file(&path).unwrap();
        records.server().unwrap();
    }
}

//! Volumes: what outlives the instances that use it. Each belongs to one instance at a time.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::engine::BoxFuture;
use crate::error::EngineError;
use crate::seats::is_valid;

/// Which volume: two owners may have volumes of one name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VolumeId {
    /// Whose it is.
    pub owner: String,
    /// What the owner calls it.
    pub name: String,
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A volume, and where an instance finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// It is made, and filled with what the image has at `path`, when it is used for the first time.
    pub volume: VolumeId,
    /// Absolute, in the instance.
    pub path: PathBuf,
}

/// What is known of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeInfo {
    /// What its owner calls it.
    pub name: String,
    /// When it was made, if the system knows.
    pub created_at: Option<DateTime<Utc>>,
    /// Bytes on disk, where that is soon found out.
    pub bytes: Option<u64>,
    /// The instance that has it.
    pub in_use_by: Option<String>,
}

/// The files of a volume that was removed, while they go. That may take long, and goes on whether or not it is waited for.
#[must_use = "whether everything has gone is told by `done` only"]
pub struct Clearing(BoxFuture<'static, Result<(), EngineError>>);

impl Clearing {
    /// Of work that has been begun.
    pub fn of(begun: impl Future<Output = Result<(), EngineError>> + Send + 'static) -> Self {
        Self(Box::pin(begun))
    }

    /// Waits until everything has gone.
    pub async fn done(self) -> Result<(), EngineError> {
        self.0.await
    }
}

impl fmt::Debug for Clearing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clearing").finish_non_exhaustive()
    }
}

/// Which instance has which volume.
#[derive(Debug, Clone, Default)]
pub(crate) struct Holders(Arc<Mutex<HashMap<VolumeId, String>>>);

/// Volumes that nobody else gets until this is dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    all: Holders,
    pub(crate) volumes: Vec<VolumeId>,
}

impl Holders {
    /// Takes volumes for somebody, all or none. Their names become parts of paths and of other systems' names.
    pub(crate) fn take(
        &self,
        volumes: impl IntoIterator<Item = VolumeId>,
        id: &str,
    ) -> Result<Hold, EngineError> {
        let volumes: Vec<VolumeId> = volumes.into_iter().collect();
        let wrong = |volume: &&VolumeId| !is_valid(&volume.owner) || !is_valid(&volume.name);
        if let Some(wrong) = volumes.iter().find(wrong) {
            return Err(EngineError::InvalidId {
                id: wrong.name.clone(),
            });
        }
        let mut held = self.lock();
        for volume in &volumes {
            if let Some(holder) = held.get(volume) {
                return Err(EngineError::VolumeInUse {
                    volume: volume.clone(),
                    holder: holder.clone(),
                });
            }
        }
        held.extend(volumes.iter().map(|volume| (volume.clone(), id.to_owned())));
        drop(held);
        Ok(Hold {
            all: self.clone(),
            volumes,
        })
    }

    /// Who has it.
    pub(crate) fn holder(&self, volume: &VolumeId) -> Option<String> {
        self.lock().get(volume).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<VolumeId, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hold {
    /// Nobody gets them any more from this engine: whoever had them may still write.
    pub(crate) fn never_free(mut self) {
        self.volumes.clear();
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = self.all.lock();
        for volume in &self.volumes {
            held.remove(volume);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(owner: &str, name: &str) -> VolumeId {
        VolumeId {
            owner: owner.to_owned(),
            name: name.to_owned(),
        }
    }

    #[test]
    fn a_volume_has_one_holder_at_a_time() {
        let holders = Holders::default();
        let (data, more) = (volume("a", "data"), volume("a", "more"));
        let hold = holders.take([data.clone()], "one").unwrap();
        let refused = holders.take([more.clone(), data.clone()], "two");
        assert!(matches!(refused, Err(EngineError::VolumeInUse { holder, .. }) if holder == "one"));
        assert_eq!(holders.holder(&more), None, "all or none");
        let other = holders.take([volume("b", "data")], "three").unwrap();
        drop(hold);
        let hold = holders.take([data.clone(), more], "two").unwrap();
        hold.never_free();
        drop(other);
        assert_eq!(holders.holder(&data).as_deref(), Some("two"));
        for (owner, name) in [("..", "data"), ("a", "x/y"), ("a", ".new")] {
            assert!(holders.take([volume(owner, name)], "four").is_err());
        }
    }
}

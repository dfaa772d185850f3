//! Volumes as folders: one for each owner, in it one for each volume.
//!
//! A volume is there whole or not at all: it is filled beside its place, brought to the disk and renamed, and renamed again before
//! its files go. Names that begin with a dot are no volumes; what an earlier server has left of them goes after the start.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::SystemTime;

use nix::unistd::syncfs;

use super::image::PreparedImage;
use super::rootpath::{self, Last};
use super::{owner, tree, user};
use crate::error::EngineError;
use crate::volumes::{Mounted, VolumeId, VolumeInfo};

/// A volume of more files is not measured.
const MEASURED_FILES: usize = 20_000;
/// What the name of one that is being filled ends with.
const NEW: &str = ".new";

/// The volumes of one engine.
#[derive(Debug)]
pub(crate) struct Volumes {
    directory: PathBuf,
    /// Whether files belong to whom the image says.
    keep_owners: bool,
}

impl Volumes {
    /// Makes the directory where it is missing. No other user of the machine gets into it: instances may make set-uid files.
    pub(crate) fn open(directory: &Path, keep_owners: bool) -> Result<Self, EngineError> {
        let failed = || EngineError::files("prepare", directory);
        fs::create_dir_all(directory).map_err(failed())?;
        fs::set_permissions(directory, Permissions::from_mode(0o700)).map_err(failed())?;
        let volumes = Self {
            directory: fs::canonicalize(directory).map_err(failed())?,
            keep_owners,
        };
        volumes.clear_scratch().map_err(failed())?;
        Ok(volumes)
    }

    /// The folder of a volume. One that is new has what the image has at its path, with owners and modes; where that is nothing, it
    /// belongs to the image's user. For whoever holds the volume.
    pub(crate) fn prepare(
        &self,
        mounted: &Mounted,
        image: &PreparedImage,
    ) -> Result<PathBuf, EngineError> {
        let place = self.place(&mounted.volume);
        let prepared = find_in(image, &mounted.path).and_then(|from| {
            if place.is_dir() {
                return Ok(());
            }
            self.make(&mounted.volume, &place, |new| self.fill(new, &from, image))
        });
        prepared.map_err(|error| EngineError::Volume {
            volume: mounted.volume.clone(),
            path: mounted.path.clone(),
            reason: error.to_string(),
        })?;
        Ok(place)
    }

    /// The volumes of an owner, by name.
    pub(crate) fn list(&self, owner: &str) -> Result<Vec<VolumeInfo>, EngineError> {
        let folder = self.directory.join(owner);
        let failed = || EngineError::files("list", &folder);
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed())?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed())?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') {
                continue;
            }
            let created = entry.metadata().and_then(|about| about.created());
            found.push(VolumeInfo {
                name,
                created_at: created.ok().map(Into::into),
                bytes: tree::used(&entry.path(), MEASURED_FILES),
                in_use_by: None,
            });
        }
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    /// Puts a volume aside, for [`clear`]; `None` where there is none. Another one of its name may be made from then on. For
    /// whoever holds it.
    pub(crate) fn put_aside(&self, volume: &VolumeId) -> Result<Option<PathBuf>, EngineError> {
        let place = self.place(volume);
        let failed = || EngineError::files("remove", &place);
        // the files of an earlier one of this name may still be going
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let gone = self.beside(volume, &format!(".gone-{}", since.as_nanos()));
        match fs::rename(&place, &gone) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            renamed => renamed.map_err(failed())?,
        }
        // it must not come back with a part of its files
        let folder = File::open(self.directory.join(&volume.owner));
        folder
            .and_then(|folder| folder.sync_all())
            .map_err(failed())?;
        Ok(Some(gone))
    }

    /// Removes what an earlier server has put aside, on a thread of its own: there may be a lot of it, and nobody needs it.
    pub(crate) fn clear_left(&self) -> Result<(), EngineError> {
        let left = self.left_aside();
        let left = left.map_err(EngineError::files("list", &self.directory))?;
        if left.is_empty() {
            return Ok(());
        }
        let clearing = thread::Builder::new().name("volumes".to_owned());
        let clearing = clearing.spawn(move || {
            for gone in left {
                if let Err(error) = clear(&gone) {
                    let path = gone.display();
                    tracing::warn!(%path, %error, "what is left of a volume is not removed");
                }
            }
        });
        // what is not removed now is there for the next server
        clearing.map(drop).map_err(EngineError::files(
            "remove what is left in",
            &self.directory,
        ))
    }

    fn place(&self, volume: &VolumeId) -> PathBuf {
        self.directory.join(&volume.owner).join(&volume.name)
    }

    fn beside(&self, volume: &VolumeId, suffix: &str) -> PathBuf {
        let name = format!(".{}{suffix}", volume.name);
        self.directory.join(&volume.owner).join(name)
    }

    fn make(
        &self,
        volume: &VolumeId,
        place: &Path,
        fill: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<()> {
        let folder = self.directory.join(&volume.owner);
        fs::create_dir_all(&folder)?;
        let new = self.beside(volume, NEW);
        tree::remove(&new)?;
        fill(&new)?;
        // the rename must not come to the disk before what it names
        syncfs(File::open(&new)?)?;
        fs::rename(&new, place)?;
        File::open(&folder)?.sync_all()?;
        File::open(&self.directory)?.sync_all()
    }

    fn fill(&self, new: &Path, from: &Path, image: &PreparedImage) -> io::Result<()> {
        match fs::metadata(from) {
            Ok(found) if found.is_dir() => return tree::copy(from, new),
            Ok(_) => return Err(io::Error::other("the image has a file there")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        tree::make_open(new)?;
        let user = image.config.user.as_deref().unwrap_or_default();
        match user::resolve(&image.rootfs, user) {
            Ok(found) if self.keep_owners => owner::give(new, found.uid, found.gid),
            // one that is not found is an error when the instance is started
            _ => Ok(()),
        }
    }

    /// Removes what was not filled to its end, and the folders of owners who have no volumes any more.
    fn clear_scratch(&self) -> io::Result<()> {
        for left in self.left()? {
            if left
                .as_os_str()
                .as_encoded_bytes()
                .ends_with(NEW.as_bytes())
            {
                tree::remove(&left)?;
            }
        }
        for folder in fs::read_dir(&self.directory)? {
            // one that is not empty stays
            let _ = fs::remove_dir(folder?.path());
        }
        Ok(())
    }

    fn left_aside(&self) -> io::Result<Vec<PathBuf>> {
        let mut left = self.left()?;
        left.retain(|left| {
            !left
                .as_os_str()
                .as_encoded_bytes()
                .ends_with(NEW.as_bytes())
        });
        Ok(left)
    }

    /// All that is no volume.
    fn left(&self) -> io::Result<Vec<PathBuf>> {
        let mut left = Vec::new();
        for folder in fs::read_dir(&self.directory)? {
            let folder = folder?.path();
            if !folder.is_dir() {
                continue;
            }
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                if entry.file_name().as_encoded_bytes().starts_with(b".") {
                    left.push(entry.path());
                }
            }
        }
        Ok(left)
    }
}

/// Removes the files of a volume that was put aside.
pub(crate) fn clear(gone: &Path) -> Result<(), EngineError> {
    tree::remove(gone).map_err(EngineError::files("remove", gone))
}

/// Where the image has a path. Each image is asked, not only that which a volume is filled from: the next one may have a link there.
fn find_in(image: &PreparedImage, path: &Path) -> io::Result<PathBuf> {
    let place = rootpath::resolve(&image.rootfs, path, Last::Follow).map_err(io::Error::other)?;
    check_place(&image.rootfs, &place)?;
    Ok(place)
}

/// A link of the image must not lead to where the instance has something of the system.
fn check_place(rootfs: &Path, place: &Path) -> io::Result<()> {
    let inside = place.strip_prefix(rootfs).unwrap_or(place);
    let taken = ["", "proc", "sys", "dev"];
    let first = inside.components().next();
    let first = first.map_or_else(String::new, |first| {
        first.as_os_str().to_string_lossy().into_owned()
    });
    if taken.contains(&&*first) {
        let why = format!("a link of the image leads to /{}", inside.display());
        return Err(io::Error::other(why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use oci::{Digest, RunConfig};

    use super::*;

    fn volume(name: &str) -> VolumeId {
        VolumeId {
            owner: "shop".to_owned(),
            name: name.to_owned(),
        }
    }

    #[test]
    fn a_volume_whose_making_was_cut_off_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(folder.path(), false).unwrap();
        let data = volume("data");
        let place = volumes.place(&data);
        let half = |new: &Path| {
            fs::create_dir(new)?;
            fs::write(new.join("first"), b"1")?;
            Err(io::Error::other("cut off"))
        };
        assert!(volumes.make(&data, &place, half).is_err());
        assert!(volumes.list("shop").unwrap().is_empty());
        assert!(volumes.beside(&data, NEW).exists());
        // the next server
        let volumes = Volumes::open(folder.path(), false).unwrap();
        assert!(!volumes.beside(&data, NEW).exists());
        let whole = |new: &Path| {
            fs::create_dir(new)?;
            fs::write(new.join("all"), b"12345")
        };
        volumes.make(&data, &place, whole).unwrap();
        let listed = volumes.list("shop").unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].name, "data");
        assert!(listed[0].bytes.is_some_and(|bytes| bytes >= 5));
        assert!(volumes.list("other").unwrap().is_empty());
    }

    #[test]
    fn what_is_removed_is_out_of_the_way_before_its_files_go() {
        let folder = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(folder.path(), false).unwrap();
        let data = volume("data");
        let make = |text: &str| {
            let whole = |new: &Path| {
                fs::create_dir(new)?;
                fs::write(new.join("file"), text)
            };
            volumes.make(&data, &volumes.place(&data), whole).unwrap();
        };
        make("first");
        let first = volumes.put_aside(&data).unwrap().unwrap();
        assert!(volumes.list("shop").unwrap().is_empty());
        assert!(volumes.put_aside(&data).unwrap().is_none());
        // one of its name is another one, and goes beside it
        make("second");
        let second = volumes.put_aside(&data).unwrap().unwrap();
        make("third");
        for (gone, text) in [(&first, "first"), (&second, "second")] {
            assert_eq!(fs::read_to_string(gone.join("file")).unwrap(), text);
        }
        clear(&first).unwrap();
        assert!(!first.exists());
        // a server that ends meanwhile leaves the rest to the next one
        let next = Volumes::open(folder.path(), false).unwrap();
        assert_eq!(next.left_aside().unwrap(), [second]);
        next.clear_left().unwrap();
        let patience = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !next.left_aside().unwrap().is_empty() {
            assert!(std::time::Instant::now() < patience, "it stays");
            thread::yield_now();
        }
        let kept = next.place(&data).join("file");
        assert_eq!(fs::read_to_string(kept).unwrap(), "third");
        next.put_aside(&data)
            .unwrap()
            .map(|gone| clear(&gone))
            .unwrap()
            .unwrap();
        drop(Volumes::open(folder.path(), false).unwrap());
        assert!(!folder.path().join("shop").exists(), "nobody has volumes");
    }

    #[test]
    fn a_volume_that_is_there_is_led_nowhere_by_a_later_image() {
        let folder = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(&folder.path().join("volumes"), false).unwrap();
        let image = |name: &str| {
            let rootfs = folder.path().join(name);
            fs::create_dir(&rootfs).unwrap();
            PreparedImage {
                digest: Digest::of(name.as_bytes()),
                config: RunConfig::default(),
                bytes: 0,
                rootfs,
            }
        };
        let mounted = Mounted {
            volume: volume("data"),
            path: PathBuf::from("/data"),
        };
        volumes.prepare(&mounted, &image("first")).unwrap();
        let next = image("next");
        symlink("/proc", next.rootfs.join("data")).unwrap();
        let refused = volumes.prepare(&mounted, &next).unwrap_err().to_string();
        assert!(
            refused.ends_with("a link of the image leads to /proc"),
            "{refused}"
        );
    }

    #[test]
    fn no_link_leads_a_volume_over_what_is_the_systems() {
        let root = Path::new("/image");
        for (place, good) in [
            ("/image", false),
            ("/image/proc", false),
            ("/image/dev/shm", false),
            ("/image/data", true),
            ("/image/process", true),
        ] {
            assert_eq!(check_place(root, Path::new(place)).is_ok(), good, "{place}");
        }
    }
}

//! Forgetting the embedded platform: what there is to forget, and doing it. What services keep in volumes is
//! nobody's to make anew, so it stays unless it is asked for by name.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use deploy_config::project;
use deploy_plan::failure::Failure;
use serde::Deserialize;

use super::folder::{self, absent_is_fine};
use super::turn;
use super::{Platform, holder, stop_failure};

/// A folder with more files than this is not measured: the question must not take longer than its answer.
const MEASURED_FILES: usize = 200_000;

/// What happens to volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Volumes {
    /// They stay, and the next platform gives them to the services that name them.
    Keep,
    /// They go with all that is in them.
    Remove,
}

/// What the platform keeps on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Whether there is anything beside volumes.
    pub state: bool,
    /// Bytes of that, where they can be counted.
    pub bytes: Option<u64>,
    /// The volumes, in order.
    pub volumes: Vec<Volume>,
    /// By what label Docker finds the volumes that it may keep for this platform: they are not in its folder.
    pub docker_label: Option<String>,
}

/// What a service keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// `TENANT/NAME`
    pub name: String,
    /// Bytes, where they can be counted.
    pub bytes: Option<u64>,
}

/// What the engine for Docker notes of itself.
#[derive(Deserialize)]
struct DockerRecord {
    id: String,
}

impl Platform {
    /// What a reset would find. What a reset that was killed half-way has left counts, too.
    #[must_use]
    pub fn kept(&self) -> Kept {
        let halves = [self.folder.clone(), self.half_reset()];
        // What a platform that was never started has, too; and volumes, which are told by themselves.
        let empty = ["volumes", turn::FILE, holder::FILE, project::IGNORE];
        let others = halves.iter().flat_map(|half| seen(half));
        let others: Vec<PathBuf> = others
            .filter(|path| !empty.iter().any(|name| path.ends_with(name)))
            .collect();
        let docker = fs::read(self.folder.join("engine/docker/server.json")).ok();
        let docker = docker.and_then(|text| serde_json::from_slice::<DockerRecord>(&text).ok());
        Kept {
            state: !others.is_empty() || self.removed().exists(),
            bytes: measure(others),
            volumes: halves.iter().flat_map(|half| volumes(half)).collect(),
            docker_label: docker.map(|record| format!("io.systemprompt.server={}", record.id)),
        }
    }

    /// Ends the server and forgets what it kept: images, history, tokens, and volumes if they are to go.
    pub fn reset(&self, volumes: Volumes) -> Result<(), Failure> {
        let failed = |path: &Path| {
            let path = path.display().to_string();
            move |e: io::Error| stop_failure(format!("cannot remove {path}: {e}"))
        };
        // Where an earlier reset has failed half-way. One that is at it now is not disturbed.
        let removed = self.removed();
        folder::remove(&removed).map_err(failed(&removed))?;
        if !self.folder.exists() && !self.half_reset().exists() {
            return Ok(());
        }
        let _turn = self.turn().map_err(failed(&self.folder))?;
        self.settle().map_err(failed(&self.folder))?;
        // A server that has been started and has not come to the folder yet finds it taken.
        let _kept_off = loop {
            self.end_all()?;
            if let Some(lock) = holder::keep_off(&self.folder).map_err(failed(&self.folder))? {
                break lock;
            }
        };
        let kept = self.folder.join("volumes");
        let stay = volumes == Volumes::Keep && holds_anything(&kept).map_err(failed(&kept))?;
        // Whatever happens from either rename on, the platform is gone as a whole.
        if stay {
            fs::rename(&self.folder, self.half_reset()).map_err(failed(&self.folder))?;
            self.settle().map_err(failed(&self.folder))?;
        } else {
            folder::remove(&removed).map_err(failed(&removed))?;
            fs::rename(&self.folder, &removed).map_err(failed(&self.folder))?;
        }
        folder::remove(&removed).map_err(failed(&removed))
    }

    /// Gives the volumes back that a reset wanted to keep and was killed over. Whoever starts the platform does it
    /// first, or it would begin with empty ones. Twice is as good as once, by several too.
    pub(super) fn settle(&self) -> io::Result<()> {
        let half = self.half_reset();
        if !half.exists() {
            return Ok(());
        }
        self.make_folder()?;
        // One that holds anything is never replaced: that fails, and is told.
        let (from, to) = (half.join("volumes"), self.folder.join("volumes"));
        absent_is_fine(fs::rename(from, to))?;
        let removed = self.removed();
        folder::remove(&removed)?;
        absent_is_fine(fs::rename(half, removed))
    }

    /// The folder without its volumes, while they are on their way back.
    fn half_reset(&self) -> PathBuf {
        self.folder.with_extension("resetting")
    }

    /// What nobody wants any more.
    fn removed(&self) -> PathBuf {
        self.folder.with_extension("removed")
    }
}

fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let found = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut found: Vec<PathBuf> = found.collect::<io::Result<_>>()?;
    found.sort();
    Ok(found)
}

/// For people: of what cannot be listed there is nothing to show.
fn seen(folder: &Path) -> Vec<PathBuf> {
    entries(folder).unwrap_or_default()
}

/// What cannot be listed may hold anything.
fn holds_anything(folder: &Path) -> io::Result<bool> {
    match entries(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        found => Ok(!found?.is_empty()),
    }
}

fn volumes(platform: &Path) -> Vec<Volume> {
    let tenants = seen(&platform.join("volumes"));
    let all = tenants.iter().flat_map(|tenant| seen(tenant));
    let name = |path: &Path| path.file_name()?.to_str().map(str::to_owned);
    let volume = |path: PathBuf| {
        let (tenant, own) = (name(path.parent()?)?, name(&path)?);
        // What begins with a dot is half made, or half removed.
        let whole = !own.starts_with('.');
        whole.then(|| Volume {
            name: format!("{tenant}/{own}"),
            bytes: measure(vec![path]),
        })
    };
    all.filter_map(volume).collect()
}

/// Bytes of files, those counted once that have several names. None where there is too much to look at, or something
/// that only others may look at.
fn measure(mut waiting: Vec<PathBuf>) -> Option<u64> {
    let (mut bytes, mut seen, mut several) = (0, 0, HashSet::new());
    while let Some(path) = waiting.pop() {
        seen += 1;
        if seen > MEASURED_FILES {
            return None;
        }
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => {
                for entry in fs::read_dir(&path).ok()? {
                    waiting.push(entry.ok()?.path());
                }
            }
            Ok(found) => {
                if found.nlink() == 1 || several.insert((found.dev(), found.ino())) {
                    // What it takes, not what it says: databases have files with holes.
                    bytes += found.blocks() * 512;
                }
            }
            // It went while we looked.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => return None,
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform() -> (tempfile::TempDir, Platform) {
        let state = tempfile::tempdir().unwrap();
        let platform = Platform::of(state.path());
        for (path, text) in [
            ("registry/blob", "layer"),
            ("volumes/shop/data/rows", "rows"),
            ("volumes/shop/.data.new/half", "half"),
            ("volumes/other/files/one", "one"),
        ] {
            let file = platform.folder().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        (state, platform)
    }

    fn rows(platform: &Platform) -> String {
        fs::read_to_string(platform.folder().join("volumes/shop/data/rows")).unwrap()
    }

    fn names(kept: &Kept) -> Vec<&str> {
        let volumes = kept.volumes.iter();
        volumes.map(|volume| volume.name.as_str()).collect()
    }

    #[test]
    fn volumes_stay_unless_they_are_asked_for() {
        let (state, platform) = platform();
        let kept = platform.kept();
        assert!(kept.state && kept.bytes > Some(0), "{kept:?}");
        assert_eq!(names(&kept), ["other/files", "shop/data"]);
        platform.reset(Volumes::Keep).unwrap();
        assert_eq!(rows(&platform), "rows");
        let kept = platform.kept();
        assert!(!kept.state, "{kept:?}");
        assert_eq!(names(&kept), ["other/files", "shop/data"]);
        // Again, with nothing but them.
        platform.reset(Volumes::Keep).unwrap();
        assert_eq!(rows(&platform), "rows");
        platform.reset(Volumes::Remove).unwrap();
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 0);
        assert_eq!(platform.kept().volumes, []);
    }

    #[test]
    fn a_reset_that_is_killed_over_volumes_loses_none() {
        // Before they are back, and after.
        for back in [false, true] {
            let (state, platform) = platform();
            fs::rename(platform.folder(), platform.half_reset()).unwrap();
            if back {
                fs::create_dir(platform.folder()).unwrap();
                let volumes = platform.folder().join("volumes");
                fs::rename(platform.half_reset().join("volumes"), volumes).unwrap();
            }
            let kept = platform.kept();
            assert!(kept.state, "{kept:?}");
            assert_eq!(names(&kept), ["other/files", "shop/data"]);
            platform.settle().unwrap();
            platform.settle().unwrap();
            assert_eq!(rows(&platform), "rows");
            platform.reset(Volumes::Keep).unwrap();
            assert_eq!(rows(&platform), "rows");
            assert!(!platform.removed().exists() && !platform.half_reset().exists());
            drop(state);
        }
    }

    #[test]
    fn volumes_that_are_in_the_way_are_not_replaced() {
        let (_state, platform) = platform();
        let half = platform.half_reset().join("volumes/shop/data");
        fs::create_dir_all(&half).unwrap();
        fs::write(half.join("rows"), "older").unwrap();
        assert!(platform.settle().is_err());
        assert_eq!(rows(&platform), "rows");
        assert!(half.join("rows").exists());
        assert!(platform.reset(Volumes::Remove).is_err());
    }

    #[test]
    fn resets_at_once_are_all_done() {
        for _ in 0..5 {
            let (state, platform) = platform();
            for number in 0..200 {
                let path = format!("registry/blobs/{number}/content");
                let path = platform.folder().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "content").unwrap();
            }
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| platform.reset(Volumes::Remove).unwrap());
                }
            });
            assert_eq!(fs::read_dir(state.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn volumes_of_dockers_are_found_by_their_label() {
        let (_state, platform) = platform();
        assert_eq!(platform.kept().docker_label, None);
        let folder = platform.folder().join("engine/docker");
        fs::create_dir_all(&folder).unwrap();
        let record = r#"{"id":"00ff","folder":{"device":1,"inode":2}}"#;
        fs::write(folder.join("server.json"), record).unwrap();
        let label = platform.kept().docker_label;
        assert_eq!(label.as_deref(), Some("io.systemprompt.server=00ff"));
    }
}

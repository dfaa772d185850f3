//! The directory of one instance: its changes to the image, its volumes, its record. All of it
//! goes when the instance goes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::image::PreparedImage;
use super::isolation::RootDirectory;
use super::launch::protocol::{RootMount, Volume};
use super::rootpath::{self, Last};
use super::tree;
use crate::error::EngineError;

/// An instance's directory and how its root is made of it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The engine's directory.
    pub(crate) engine: PathBuf,
    /// The instance's, below the engine's.
    pub(crate) directory: PathBuf,
}

impl Place {
    /// For the instance `id`, which has a seat: the id is part of a path.
    pub(crate) fn new(engine: &Path, id: &str) -> Self {
        Self {
            engine: engine.to_owned(),
            directory: engine.join("instances").join(id),
        }
    }

    /// Makes the directory anew, for `root` over `image`.
    pub(crate) fn create(
        &self,
        image: &PreparedImage,
        root: RootDirectory,
    ) -> Result<(), EngineError> {
        let failed = || EngineError::files("prepare", &self.directory);
        tree::remove(&self.directory).map_err(failed())?;
        fs::create_dir_all(self.directory.join("root")).map_err(failed())?;
        match root {
            RootDirectory::Overlay => self.create_overlay(image),
            RootDirectory::ReadOnly => self.create_volumes(image),
            RootDirectory::ReadOnlyOverlay => self
                .create_volumes(image)
                .and_then(|()| self.create_overlay(image)),
            RootDirectory::Copy => tree::copy(&image.rootfs, &self.copy()),
        }
        .map_err(failed())
    }

    pub(crate) fn remove(&self) -> io::Result<()> {
        tree::remove(&self.directory)
    }

    /// Where the root is mounted, as the launcher sees it from the engine's directory.
    pub(crate) fn target(&self) -> PathBuf {
        self.relative(&self.directory.join("root"))
    }

    pub(crate) fn mount(&self, image: &PreparedImage, root: RootDirectory) -> RootMount {
        let image = self.relative(&image.rootfs);
        match root {
            RootDirectory::Overlay | RootDirectory::ReadOnlyOverlay => RootMount::Overlay {
                image,
                upper: self.relative(&self.directory.join("upper")),
                work: self.relative(&self.directory.join("work")),
                read_only: root == RootDirectory::ReadOnlyOverlay,
            },
            RootDirectory::ReadOnly | RootDirectory::Copy => RootMount::ReadOnly { image },
        }
    }

    /// What to mount over the image: `named`, and where it is read-only a directory for each volume of the image's own. What is
    /// within one that is named, that one has.
    pub(crate) fn volumes(
        &self,
        image: &PreparedImage,
        root: RootDirectory,
        named: Vec<Volume>,
    ) -> Vec<Volume> {
        let is_named = |path: &Path| named.iter().any(|named| path.starts_with(&named.path));
        let mut volumes = Vec::new();
        if matches!(
            root,
            RootDirectory::ReadOnly | RootDirectory::ReadOnlyOverlay
        ) {
            let own = image.config.volumes.iter().enumerate();
            let own = own.filter(|(_, path)| !is_named(Path::new(path)));
            volumes.extend(own.map(|(number, path)| Volume {
                source: self.relative(&self.volume(number)),
                path: PathBuf::from(path),
            }));
        }
        volumes.extend(named);
        // what is within another one comes behind it
        volumes.sort_by(|one, other| one.path.cmp(&other.path));
        volumes
    }

    /// The instance's own copy of the image.
    pub(crate) fn copy(&self) -> PathBuf {
        self.directory.join("copy")
    }

    fn volume(&self, number: usize) -> PathBuf {
        self.directory.join(format!("volume-{number}"))
    }

    /// A path below the engine's directory, from there.
    pub(crate) fn relative(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.engine).unwrap_or(path).to_owned()
    }

    /// The path of a log from the engine's directory, if it is in that or beside it: it goes where that
    /// goes.
    pub(crate) fn log(&self, path: &Path) -> PathBuf {
        if let Ok(inside) = path.strip_prefix(&self.engine) {
            return inside.to_owned();
        }
        // the folder of both; that of the whole machine is none
        let folder = self
            .engine
            .parent()
            .filter(|folder| folder.parent().is_some());
        match folder.map(|folder| path.strip_prefix(folder)) {
            Some(Ok(beside)) => Path::new("..").join(beside),
            Some(Err(_)) | None => path.to_owned(),
        }
    }

    /// The root directory of an overlay has the mode and owner of its upper layer.
    fn create_overlay(&self, image: &PreparedImage) -> io::Result<()> {
        for name in ["upper", "work"] {
            fs::create_dir(self.directory.join(name))?;
        }
        tree::imitate(&image.rootfs, &self.directory.join("upper"))
    }

    /// A volume starts with what the image has at its path.
    fn create_volumes(&self, image: &PreparedImage) -> io::Result<()> {
        for (number, path) in image.config.volumes.iter().enumerate() {
            let from = rootpath::resolve(&image.rootfs, Path::new(path), Last::Follow)
                .map_err(io::Error::other)?;
            tree::copy(&from, &self.volume(number))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_has_a_directory_of_its_name() {
        let place = Place::new(Path::new("/engine"), "web-1.2_3");
        assert_eq!(place.directory, Path::new("/engine/instances/web-1.2_3"));
        assert_eq!(place.target(), Path::new("instances/web-1.2_3/root"));
    }

    #[test]
    fn a_log_is_named_from_the_engines_directory_where_both_move_together() {
        let cases = [
            ("/data/engine", "/data/engine/a.log", "a.log"),
            ("/data/engine", "/data/logs/a.log", "../logs/a.log"),
            ("/data/engine", "/var/log/a.log", "/var/log/a.log"),
            ("/engine", "/logs/a.log", "/logs/a.log"),
        ];
        for (engine, log, expected) in cases {
            let place = Place::new(Path::new(engine), "web");
            assert_eq!(place.log(Path::new(log)), Path::new(expected));
            let absolute = place.engine.join(expected);
            assert!(absolute.is_absolute(), "{absolute:?}");
        }
    }
}

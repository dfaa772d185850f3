//! From a digest to a tree: the manifest, the configuration, the layers, and the few places that
//! every instance needs.

use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use oci::{
    Descriptor, Digest, DigestReader, ImageConfig, ImageIndex, ImageManifest, Platform, RunConfig,
    Store, StoreError, media_type,
};

use super::layers::Layers;
use super::owner;
use super::rootpath::{self, Last, RootPathError};
use super::tree;
use super::unpack::{Rules, UnpackError, Unpacker};
use super::user;
use crate::error::EngineError;

/// The largest manifest or configuration that is read.
const MAX_DOCUMENT: u64 = 4 << 20;
/// What layers are that can be unpacked.
const LAYERS: [&str; 4] = [
    media_type::OCI_LAYER,
    media_type::OCI_LAYER_GZIP,
    media_type::DOCKER_LAYER,
    media_type::DOCKER_LAYER_GZIP,
];
/// What a gzip member begins with (RFC 1952); no tar archive does.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// What speaks of the directories that every instance is given; see [`EngineError::NotADirectory`].
const EVERY: &str = "directory";

/// What [`assemble`] has made.
pub(super) struct Assembled {
    pub(super) config: RunConfig,
    pub(super) bytes: u64,
    /// What its layers unpack to.
    pub(super) layers: Vec<Digest>,
}

/// Unpacks the image `digest` of `store` into the empty directory `rootfs`, by way of `layers`.
pub(super) fn assemble(
    store: &Store,
    layers: &Layers,
    digest: Digest,
    rootfs: &Path,
    rules: Rules,
) -> Result<Assembled, EngineError> {
    let source = Source {
        store,
        layers,
        image: digest,
    };
    let manifest = source.manifest()?;
    let config = source.config(&manifest)?;
    let mut unpacker = Unpacker::new(rootfs, rules);
    for (layer, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
        source.layer(&mut unpacker, layer, diff_id)?;
    }
    // before the directories get their modes, which may forbid adding to them
    complete(rootfs, &config.config, digest, rules)?;
    let layer = manifest.layers.last().map_or(digest, |layer| layer.digest);
    let bytes = unpacker.finish().map_err(|source| EngineError::Unpack {
        image: digest,
        layer,
        source,
    })?;
    Ok(Assembled {
        config: config.config,
        bytes,
        layers: config.rootfs.diff_ids,
    })
}

struct Source<'a> {
    store: &'a Store,
    layers: &'a Layers,
    image: Digest,
}

impl Source<'_> {
    /// The manifest itself, or the one for this machine out of an index.
    fn manifest(&self) -> Result<ImageManifest, EngineError> {
        let document = self.document(&self.image)?;
        let Some(index) = as_index(&document) else {
            return self.parse(ImageManifest::from_slice(&document));
        };
        let machine = Platform::host();
        let chosen = index
            .for_platform(&machine)
            .ok_or_else(|| EngineError::Platform {
                image: self.image,
                image_platform: platforms(&index),
                machine: format!("{}/{}", machine.os, machine.architecture),
            })?;
        self.parse(ImageManifest::from_slice(&self.document(&chosen.digest)?))
    }

    fn config(&self, manifest: &ImageManifest) -> Result<ImageConfig, EngineError> {
        let document = self.document(&manifest.config.digest)?;
        let config: ImageConfig = self.parse(ImageConfig::from_slice(&document))?;
        let machine = Platform::host();
        if config.os != machine.os || config.architecture != machine.architecture {
            return Err(EngineError::Platform {
                image: self.image,
                image_platform: format!("{}/{}", config.os, config.architecture),
                machine: format!("{}/{}", machine.os, machine.architecture),
            });
        }
        let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
        if layers != diff_ids {
            let reason = format!("it has {layers} layers and {diff_ids} diff ids");
            return Err(EngineError::ImageInvalid {
                image: self.image,
                reason,
            });
        }
        Ok(config)
    }

    fn layer(
        &self,
        unpacker: &mut Unpacker<'_>,
        layer: &Descriptor,
        expected: &Digest,
    ) -> Result<(), EngineError> {
        let failed = |source| EngineError::Unpack {
            image: self.image,
            layer: layer.digest,
            source,
        };
        if let Some(kept) = self.layers.find(expected) {
            let replayed = unpacker.replay(&kept);
            if let Err(UnpackError::Kept(_)) = replayed {
                // the next attempt unpacks it anew
                let removed = self.layers.remove(expected);
                removed.map_err(EngineError::files("remove", &self.layers.directory))?;
            }
            return replayed.map_err(failed);
        }
        let mut tar = DigestReader::by(expected.algorithm(), self.tar_stream(layer)?);
        // without room to keep it, it is unpacked for this image alone
        let mut keeper = self.layers.keep(expected, &self.image).ok();
        let unpacked = unpacker.layer(&mut tar, &mut keeper);
        let (actual, _) = tar.finish();
        match (keeper, &unpacked) {
            (Some(keeper), Ok(bytes)) if actual == *expected => {
                if let Err(error) = keeper.finish(*bytes) {
                    tracing::debug!(%error, layer = %layer.digest, "a layer is not kept");
                }
            }
            (Some(keeper), _) => keeper.give_up(),
            (None, _) => {}
        }
        unpacked.map_err(failed)?;
        if actual != *expected {
            return Err(EngineError::LayerDigest {
                layer: layer.digest,
                expected: *expected,
                actual,
            });
        }
        Ok(())
    }

    fn tar_stream(&self, layer: &Descriptor) -> Result<Box<dyn Read>, EngineError> {
        if !LAYERS.contains(&layer.media_type.as_str()) {
            return Err(EngineError::LayerType {
                layer: layer.digest,
                media_type: layer.media_type.clone(),
            });
        }
        let blob = self.store.open_blob(&layer.digest);
        let blob = blob.map_err(|error| self.failed(error))?;
        let mut blob = BufReader::with_capacity(1 << 17, blob);
        // The bytes decide and not the type, as in other engines: docker calls every layer gzip that it pushes, also one
        // that it has pulled as plain tar.
        let start = blob.fill_buf().map_err(|error| EngineError::Unpack {
            image: self.image,
            layer: layer.digest,
            source: UnpackError::Read(error),
        })?;
        if start.starts_with(&GZIP) {
            return Ok(Box::new(MultiGzDecoder::new(blob)));
        }
        Ok(Box::new(blob))
    }

    fn document(&self, digest: &Digest) -> Result<Vec<u8>, EngineError> {
        self.store
            .read_small(digest, MAX_DOCUMENT)
            .map_err(|error| self.failed(error))
    }

    fn failed(&self, error: StoreError) -> EngineError {
        match error {
            StoreError::Missing { digest } => EngineError::ImageNotFound {
                image: self.image,
                missing: digest,
            },
            source => EngineError::Store {
                image: self.image,
                source,
            },
        }
    }

    fn parse<T, E: std::fmt::Display>(&self, parsed: Result<T, E>) -> Result<T, EngineError> {
        parsed.map_err(|error| EngineError::ImageInvalid {
            image: self.image,
            reason: error.to_string(),
        })
    }
}

/// OCI lets both documents leave their media type out; only an index has `manifests`.
fn as_index(document: &[u8]) -> Option<ImageIndex> {
    let index = ImageIndex::from_slice(document).ok()?;
    (!index.manifests.is_empty()).then_some(index)
}

fn platforms(index: &ImageIndex) -> String {
    let names = index
        .manifests
        .iter()
        .filter_map(|manifest| manifest.platform.as_ref());
    let names: Vec<_> = names
        .map(|found| format!("{}/{}", found.os, found.architecture))
        .collect();
    names.join(", ")
}

/// Adds what instances are given something at: the places to mount on, volumes, the working
/// directory. Made here because a tree that is mounted read-only cannot have them added.
fn complete(
    rootfs: &Path,
    config: &RunConfig,
    image: Digest,
    rules: Rules,
) -> Result<(), EngineError> {
    let skeleton = Skeleton {
        rootfs,
        image,
        rules,
    };
    for path in ["/proc", "/dev", "/sys", "/etc"] {
        skeleton.directory(EVERY, Path::new(path))?;
    }
    let (tmp, made) = skeleton.directory(EVERY, Path::new("/tmp"))?;
    if made {
        let open = Permissions::from_mode(0o1777);
        fs::set_permissions(&tmp, open).map_err(EngineError::files("open up", &tmp))?;
    }
    for path in ["/etc/resolv.conf", "/etc/hosts"] {
        skeleton.file(Path::new(path))?;
    }
    if let Some(path) = config
        .working_dir
        .as_deref()
        .filter(|path| !path.is_empty())
    {
        skeleton.directory("WORKDIR", Path::new(path))?;
    }
    for path in &config.volumes {
        skeleton.volume(Path::new(path), config.user.as_deref())?;
    }
    Ok(())
}

struct Skeleton<'a> {
    rootfs: &'a Path,
    image: Digest,
    rules: Rules,
}

impl Skeleton<'_> {
    /// The real place of what the image has at `path`, which `what` speaks of.
    fn place(&self, what: &'static str, path: &Path) -> Result<PathBuf, EngineError> {
        let place = rootpath::resolve(self.rootfs, path, Last::Follow);
        place.map_err(|failed| match failed {
            RootPathError::Io { source, .. } if source.kind() == ErrorKind::NotADirectory => {
                not_a_directory(what, path)
            }
            source => EngineError::Skeleton {
                image: self.image,
                source,
            },
        })
    }

    /// The real place of a directory, and whether it had to be made.
    fn directory(&self, what: &'static str, path: &Path) -> Result<(PathBuf, bool), EngineError> {
        let place = self.place(what, path)?;
        if place.is_dir() {
            return Ok((place, false));
        }
        match tree::make_open(&place) {
            Ok(()) => Ok((place, true)),
            // where that lies on this machine is no help to whoever has made the image
            Err(error) if is_in_the_way(&error) => Err(not_a_directory(what, path)),
            Err(error) => Err(EngineError::files("create", &place)(error)),
        }
    }

    fn file(&self, path: &Path) -> Result<(), EngineError> {
        let place = self.place("file", path)?;
        if place.symlink_metadata().is_ok() {
            return Ok(());
        }
        if let Some(parent) = place.parent() {
            tree::make_open(parent).map_err(EngineError::files("create", parent))?;
        }
        fs::write(&place, b"").map_err(EngineError::files("create", &place))?;
        let mode = Permissions::from_mode(0o644);
        fs::set_permissions(&place, mode).map_err(EngineError::files("open up", &place))
    }

    /// A volume that the image has no directory for belongs to the user who will write to it.
    fn volume(&self, path: &Path, user: Option<&str>) -> Result<(), EngineError> {
        let (place, made) = self.directory("VOLUME", path)?;
        if !made || !self.rules.keep_owners {
            return Ok(());
        }
        let Ok(found) = user::resolve(self.rootfs, user.unwrap_or_default()) else {
            // said when an instance is started, where it is an error
            return Ok(());
        };
        owner::give(&place, found.uid, found.gid).map_err(EngineError::files("own", &place))
    }
}

/// Whether a file is where a directory was to be made, or above it.
fn is_in_the_way(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::AlreadyExists | ErrorKind::NotADirectory
    )
}

/// A path is told as the image has it, from its root.
fn not_a_directory(what: &'static str, path: &Path) -> EngineError {
    EngineError::NotADirectory {
        what,
        path: Path::new("/").join(path),
    }
}

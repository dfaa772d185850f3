//! Images unpacked on disk, one directory a digest.
//!
//! A directory is there whole or not at all: it is filled beside its place and renamed. It is not
//! flushed to disk (seconds for a large image); instead its record names the start of the machine
//! it was made under, and it is made again after the next one.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use oci::{Digest, RunConfig, Store};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::layers::Layers;
use super::unpack::{Rules, UnpackError};
use super::{assemble, boot, tree};
use crate::error::EngineError;

const RECORD: &str = "image.json";
const ROOTFS: &str = "rootfs";

/// An image that can be started, and what its configuration says.
#[derive(Debug, Clone)]
pub struct PreparedImage {
    /// The image.
    pub digest: Digest,
    /// Environment, command, user, ports, volumes, health check.
    pub config: RunConfig,
    /// Bytes of its files on disk.
    pub bytes: u64,
    pub(crate) rootfs: PathBuf,
}

impl PreparedImage {
    /// The TCP ports that the image exposes, in order.
    #[must_use]
    pub fn exposed_ports(&self) -> Vec<u16> {
        let tcp = |port: &String| match port.split_once('/') {
            None => port.parse().ok(),
            Some((number, "tcp")) => number.parse().ok(),
            Some(_) => None,
        };
        let mut ports: Vec<u16> = self.config.exposed_ports.iter().filter_map(tcp).collect();
        ports.sort_unstable();
        ports
    }
}

/// What is written beside an unpacked tree.
#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    boot: String,
    /// Whether files belong to whom their layers say.
    owners: bool,
    bytes: u64,
    config: RunConfig,
    /// The layers that it shares with others.
    #[serde(default)]
    layers: Vec<Digest>,
}

const RECORD_VERSION: u32 = 1;

/// The unpacked images of one engine.
pub(crate) struct Images {
    pub(crate) store: Arc<Store>,
    pub(crate) directory: PathBuf,
    pub(crate) scratch: PathBuf,
    pub(crate) rules: Rules,
    layers: Layers,
    /// Held by whoever unpacks; layers are removed when nobody does.
    unpacking: RwLock<()>,
    /// Whether there may be layers that no image has: of one that was removed, or was not unpacked to its end.
    may_be_loose: AtomicBool,
    /// One lock a digest: whoever comes second waits and finds the work done.
    busy: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
    used: Mutex<HashMap<Digest, usize>>,
}

/// Keeps an image from being removed for as long as it lives.
pub(crate) struct ImageUse {
    images: Arc<Images>,
    digest: Digest,
}

impl Drop for ImageUse {
    fn drop(&mut self) {
        let mut used = self
            .images
            .used
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = used.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                used.remove(&self.digest);
            }
        }
    }
}

impl Images {
    pub(crate) fn new(
        store: Arc<Store>,
        directory: PathBuf,
        layers: PathBuf,
        scratch: PathBuf,
        rules: Rules,
    ) -> Self {
        let layers = Layers {
            directory: layers,
            scratch: scratch.clone(),
            owners: rules.keep_owners,
        };
        Self {
            store,
            directory,
            scratch,
            rules,
            layers,
            unpacking: RwLock::default(),
            // an earlier server may have been killed over either
            may_be_loose: AtomicBool::new(true),
            busy: Mutex::default(),
            used: Mutex::default(),
        }
    }

    pub(crate) fn hold(self: &Arc<Self>, digest: Digest) -> ImageUse {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        *used.entry(digest).or_default() += 1;
        ImageUse {
            images: Arc::clone(self),
            digest,
        }
    }

    /// Unpacks `digest` unless it is there. Idempotent; a caller who gives up leaves the work to
    /// go on, and to be found by the next one.
    pub(crate) async fn prepare(
        self: &Arc<Self>,
        digest: Digest,
    ) -> Result<PreparedImage, EngineError> {
        let turn = self.turn(digest).lock_owned().await;
        let images = Arc::clone(self);
        let held = self.hold(digest);
        let work = spawn_blocking(move || {
            let _turn = (turn, held);
            images
                .find(&digest)
                .map_or_else(|| images.unpack(digest), Ok)
        });
        work.await.map_err(|_| EngineError::ShuttingDown)?
    }

    /// Removes what is neither in `keep` nor in use, and returns the bytes freed.
    pub(crate) async fn retain(self: &Arc<Self>, keep: &[Digest]) -> Result<u64, EngineError> {
        let keep: HashSet<&Digest> = keep.iter().collect();
        let mut freed = 0;
        for digest in self.unpacked()? {
            if keep.contains(&digest) || self.in_use(&digest) {
                continue;
            }
            let turn = self.turn(digest).lock_owned().await;
            let images = Arc::clone(self);
            let work = spawn_blocking(move || {
                let _turn = turn;
                // asked again now that nobody can begin to prepare it
                if images.in_use(&digest) {
                    Ok(0)
                } else {
                    images.remove(&digest)
                }
            });
            freed += work.await.map_err(|_| EngineError::ShuttingDown)??;
        }
        let images = Arc::clone(self);
        let work = spawn_blocking(move || images.retain_layers());
        Ok(freed + work.await.map_err(|_| EngineError::ShuttingDown)??)
    }

    /// Removes the layers that no unpacked image has. While one is being unpacked it is left to the next time. Where there can be
    /// none of them, no record of an image is read: there may be thousands.
    fn retain_layers(&self) -> Result<u64, EngineError> {
        let Ok(_nobody) = self.unpacking.try_write() else {
            return Ok(0);
        };
        if !self.may_be_loose.swap(false, Ordering::Relaxed) {
            return Ok(0);
        }
        let freed = self.free_loose_layers();
        if freed.is_err() {
            self.may_be_loose.store(true, Ordering::Relaxed);
        }
        freed
    }

    fn free_loose_layers(&self) -> Result<u64, EngineError> {
        let mut used = HashSet::new();
        for digest in self.unpacked()? {
            let record = self.record(&digest);
            used.extend(record.into_iter().flat_map(|record| record.layers));
        }
        let failed = EngineError::files("free", &self.layers.directory);
        self.layers.retain(&used).map_err(failed)
    }

    /// Removes what was being unpacked or removed when an earlier server died.
    pub(crate) fn clear_scratch(&self) -> Result<(), EngineError> {
        let failed = || EngineError::files("list", &self.scratch);
        for entry in fs::read_dir(&self.scratch).map_err(failed())? {
            let path = entry.map_err(failed())?.path();
            if !self.is_busy(&path) {
                clear(&path)?;
            }
        }
        Ok(())
    }

    /// Whether this engine is unpacking or removing the image that `scratch` is for.
    fn is_busy(&self, scratch: &Path) -> bool {
        let name = scratch
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let mut working = busy.iter().filter(|(_, turn)| turn.try_lock().is_err());
        working.any(|(digest, _)| name.ends_with(&digest.hex()))
    }

    fn turn(&self, digest: Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(busy.entry(digest).or_default())
    }

    fn in_use(&self, digest: &Digest) -> bool {
        self.used
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(digest)
    }

    fn place(&self, digest: &Digest) -> PathBuf {
        self.directory.join(digest.file_name())
    }

    fn unpacked(&self) -> Result<Vec<Digest>, EngineError> {
        let failed = || EngineError::files("list", &self.directory);
        let mut digests = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(failed())? {
            let name = entry.map_err(failed())?.file_name();
            let name = name.to_str();
            digests.extend(name.and_then(|name| Digest::from_file_name(name).ok()));
        }
        Ok(digests)
    }

    /// The image if it is there, was unpacked since the machine started, and by the same rules.
    fn find(&self, digest: &Digest) -> Option<PreparedImage> {
        let place = self.place(digest);
        let record = self.record(digest)?;
        let valid = record.version == RECORD_VERSION
            && record.boot == boot::id()
            && record.owners == self.rules.keep_owners;
        valid.then(|| PreparedImage {
            digest: *digest,
            config: record.config,
            bytes: record.bytes,
            rootfs: place.join(ROOTFS),
        })
    }

    fn record(&self, digest: &Digest) -> Option<Record> {
        let text = fs::read(self.place(digest).join(RECORD)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn unpack(&self, digest: Digest) -> Result<PreparedImage, EngineError> {
        let _unpacking = self
            .unpacking
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let scratch = self.scratch.join(format!("image-{}", digest.hex()));
        clear(&scratch)?;
        let mut made = self.unpack_into(&scratch, digest);
        if let Err(EngineError::Unpack {
            source: UnpackError::Kept(error),
            layer,
            ..
        }) = &made
        {
            tracing::warn!(%error, %layer, "a layer that was kept is broken: it is unpacked again");
            clear(&scratch)?;
            made = self.unpack_into(&scratch, digest);
        }
        if made.is_err() {
            self.may_be_loose.store(true, Ordering::Relaxed);
            // the error of the unpacking is the one to tell
            let _ = tree::remove(&scratch);
        }
        made
    }

    fn unpack_into(&self, scratch: &Path, digest: Digest) -> Result<PreparedImage, EngineError> {
        let rootfs = scratch.join(ROOTFS);
        fs::create_dir_all(&rootfs).map_err(EngineError::files("create", &rootfs))?;
        let assembled = assemble::assemble(&self.store, &self.layers, digest, &rootfs, self.rules)?;
        let record = Record {
            version: RECORD_VERSION,
            boot: boot::id(),
            owners: self.rules.keep_owners,
            bytes: assembled.bytes,
            config: assembled.config,
            layers: assembled.layers,
        };
        let path = scratch.join(RECORD);
        let text = serde_json::to_vec(&record).map_err(std::io::Error::other);
        text.and_then(|text| fs::write(&path, text))
            .map_err(EngineError::files("write", &path))?;
        let place = self.place(&digest);
        clear(&place)?;
        fs::rename(scratch, &place).map_err(EngineError::files("rename", scratch))?;
        Ok(PreparedImage {
            digest,
            config: record.config,
            bytes: record.bytes,
            rootfs: place.join(ROOTFS),
        })
    }

    /// Moved away first: a tree half removed must not be taken for an image.
    fn remove(&self, digest: &Digest) -> Result<u64, EngineError> {
        let place = self.place(digest);
        let bytes = tree::unshared_size(&place).map_err(EngineError::files("measure", &place))?;
        let scratch = self.scratch.join(format!("removed-{}", digest.hex()));
        clear(&scratch)?;
        self.may_be_loose.store(true, Ordering::Relaxed);
        fs::rename(&place, &scratch).map_err(EngineError::files("rename", &place))?;
        clear(&scratch)?;
        Ok(bytes)
    }
}

fn clear(path: &Path) -> Result<(), EngineError> {
    tree::remove(path).map_err(EngineError::files("remove", path))
}

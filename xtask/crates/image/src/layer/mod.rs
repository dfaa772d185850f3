//! From a list of files to a layer in the store: its bytes depend on nothing but the files, their
//! modes and owners, and the one time that all of them get.

mod gzip;
mod recipe;
pub(crate) mod tar;
#[cfg(test)]
mod tests;
mod zstd;

use std::cmp::Reverse;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use oci::{
    BlobSource, BlobWriter, Descriptor, Digest, DigestReader, Hasher, Store, StoreError, StoredBlob,
};

use crate::base::Nodes;
use crate::cache::{Cache, CachedLayer, is_settled, stat_key};
use crate::files::{Content, Kind, Node};
use crate::options::Compression;
use recipe::Recipe;

/// Raised whenever the same files would give other bytes than before.
const LAYOUT: u32 = 1;

/// Why a layer cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// A file was written to while the image was assembled.
    #[error("{path} changed while it was read")]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A file that the build makes is not there.
    #[error("{path} is not built yet: package {package} makes it")]
    Unbuilt {
        /// Its path in the image.
        path: PathBuf,
        /// The package.
        package: String,
    },
    /// The layer cannot be written.
    #[error("cannot write the layer")]
    Write {
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// The store does not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LayerError {
    /// What went wrong while an archive was read or written: the layer's own failure if it was one.
    fn from_io(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(own) => own,
            Err(source) => Self::Write { source },
        }
    }
}

/// What assembling cost: the same input twice must read nothing the second time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes of file content read for layers.
    pub bytes_read: u64,
    /// Layers made.
    pub layers_built: usize,
    /// Layers whose files had not changed since they were made last.
    pub layers_cached: usize,
}

/// Whom the layers are for that are made. What was made in an earlier run goes to nobody.
#[derive(Clone, Copy)]
pub enum Toward<'a> {
    /// Nobody yet.
    Nobody,
    /// The store of a registry on this machine. Uncompressed layers are written there in the pass that
    /// hashes them, and the configuration is, too: pushing them takes no more than a link.
    Store(&'a Store),
    /// Somebody who sends. Is handed each compressed layer as soon as it is made, while the next ones are
    /// compressed, from several threads. An uncompressed one is made so quickly that it would gain nothing.
    Sender(&'a (dyn Fn(&Descriptor, &dyn BlobSource) + Sync)),
}

/// Layers that are flushed and sent at the same time.
const SENT_AT_A_TIME: usize = 4;

/// Makes layers.
pub(crate) struct LayerBuilder<'a> {
    /// Holds compressed layers; uncompressed ones stay where their files are.
    pub(crate) store: &'a Store,
    pub(crate) toward: Toward<'a>,
    pub(crate) cache: &'a mut Cache,
    pub(crate) epoch: u64,
    pub(crate) compression: Compression,
    pub(crate) counters: Counters,
}

/// A layer, and how to get its bytes.
pub(crate) struct Built {
    pub(crate) layer: CachedLayer,
    pub(crate) cached: bool,
    pub(crate) source: Box<dyn BlobSource>,
}

impl LayerBuilder<'_> {
    /// Makes the layers of these files, or finds them made. Several at a time, and none read whose
    /// files are those of the last time. An error comes with the number of its layer.
    pub(crate) fn build(&mut self, layers: &[&Nodes]) -> Result<Vec<Built>, (usize, LayerError)> {
        let mut drafts = Vec::new();
        for (index, nodes) in layers.iter().enumerate() {
            drafts.push(self.draft(nodes).map_err(|error| (index, error))?);
        }
        self.make(&mut drafts)?;
        let built = drafts.into_iter().zip(layers);
        Ok(built
            .map(|(draft, nodes)| self.conclude(draft, nodes))
            .collect())
    }

    fn draft(&mut self, nodes: &Nodes) -> Result<Draft, LayerError> {
        let key = key(nodes, self.compression, self.epoch);
        let there = |known: &CachedLayer| {
            self.compression == Compression::None || self.store.contains(&known.digest)
        };
        let known = self.cache.layer(&key).filter(there);
        Ok(Draft {
            recipe: Recipe::of(nodes, self.epoch)?,
            key,
            cached: known.is_some(),
            made: known,
        })
    }

    fn make(&mut self, drafts: &mut [Draft]) -> Result<(), (usize, LayerError)> {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let mut missing: Vec<(usize, &mut Draft)> = drafts
            .iter_mut()
            .enumerate()
            .filter(|(_, draft)| draft.made.is_none())
            .collect();
        self.counters.layers_built += missing.len();
        self.counters.bytes_read += missing
            .iter()
            .map(|(_, draft)| draft.recipe.file_bytes())
            .sum::<u64>();
        if self.compression == Compression::None {
            if let Toward::Store(registry) = self.toward {
                match store_all(&mut missing, registry, threads) {
                    // A store that takes nothing is no reason to fail: what is not in it is sent.
                    Err((_, LayerError::Store(_) | LayerError::Write { .. })) => {}
                    done => return done,
                }
            }
            return hash_all(&mut missing, threads);
        }
        self.compress_all(missing, threads)
    }

    /// One layer after the other, each with all processors. What is compressed is flushed and sent by
    /// other threads, which wait for disk and network most of their time.
    fn compress_all(
        &self,
        drafts: Vec<(usize, &mut Draft)>,
        threads: usize,
    ) -> Result<(), (usize, LayerError)> {
        let lanes = SENT_AT_A_TIME.min(drafts.len());
        // No more than one waits for a lane: a layer that waits is an open file.
        let (compressed, queue) = sync_channel(1);
        let queue = Mutex::new(queue);
        let failure = Mutex::new(None);
        let failed = || failure.lock().unwrap_or_else(PoisonError::into_inner);
        thread::scope(|scope| {
            for _ in 0..lanes {
                // A lane takes what comes until there is no more, also after a failure: whoever
                // compresses must not wait for ever.
                scope.spawn(|| {
                    while let Some((index, draft, layer)) = next(&queue) {
                        let finished = self.finish(draft, layer);
                        if let Err(error) = finished {
                            failed().get_or_insert((index, error));
                        }
                    }
                });
            }
            for (index, draft) in drafts {
                let layer = self.compress(&draft.recipe, threads);
                match layer {
                    // The queue outlives this loop, so somebody takes it.
                    Ok(layer) => _ = compressed.send((index, draft, layer)),
                    Err(error) => _ = failed().get_or_insert((index, error)),
                }
                if failed().is_some() {
                    break;
                }
            }
            drop(compressed);
        });
        failure
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .map_or(Ok(()), Err)
    }

    /// Makes a compressed layer durable, and hands it on.
    fn finish(&self, draft: &mut Draft, layer: Compressed<'_>) -> Result<(), LayerError> {
        let size = layer.blob.length();
        let digest = layer.blob.commit(None)?;
        draft.made = Some(CachedLayer {
            digest,
            size,
            diff_id: layer.diff_id,
        });
        if let Toward::Sender(send) = self.toward {
            let descriptor = Descriptor::new(self.compression.media_type(), digest, size);
            send(&descriptor, &StoredBlob::new(self.store, &digest));
        }
        Ok(())
    }

    fn conclude(&mut self, draft: Draft, nodes: &Nodes) -> Built {
        let Draft {
            recipe,
            key,
            made,
            cached,
        } = draft;
        self.counters.layers_cached += usize::from(cached);
        let layer = made.expect("a draft is made, or its failure has been returned");
        if !cached && nodes.values().all(settled) {
            self.cache.remember_layer(key, layer);
        }
        let source: Box<dyn BlobSource> = match self.compression {
            Compression::None => Box::new(recipe),
            _ => Box::new(StoredBlob::new(self.store, &layer.digest)),
        };
        Built {
            layer,
            cached,
            source,
        }
    }

    /// Reads the archive once: it is hashed on its way into the compressor, and what comes out on
    /// its way into the store.
    fn compress(&self, recipe: &Recipe, threads: usize) -> Result<Compressed<'_>, LayerError> {
        let mut blob = self.store.begin()?;
        let input = DigestReader::new(recipe.reader(0));
        let compressed = match self.compression {
            Compression::Zstd(level) => zstd::compress(input, &mut blob, level),
            Compression::Gzip(level) => gzip::compress(input, &mut blob, level, threads),
            Compression::None => unreachable!("uncompressed layers are made elsewhere"),
        };
        let (diff_id, _) = compressed.map_err(LayerError::from_io)?.finish();
        Ok(Compressed { blob, diff_id })
    }
}

/// A compressed layer that is not yet durable.
struct Compressed<'a> {
    blob: BlobWriter<'a>,
    diff_id: Digest,
}

/// The layer's number, what it is of, and what it is.
type Waiting<'d, 's> = (usize, &'d mut Draft, Compressed<'s>);

fn next<'d, 's>(queue: &Mutex<Receiver<Waiting<'d, 's>>>) -> Option<Waiting<'d, 's>> {
    let queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
    queue.recv().ok()
}

/// A layer on its way.
struct Draft {
    recipe: Recipe,
    key: String,
    made: Option<CachedLayer>,
    cached: bool,
}

impl CachedLayer {
    fn plain(recipe: &Recipe, digest: Digest) -> Self {
        Self {
            digest,
            size: recipe.length(),
            diff_id: digest,
        }
    }
}

/// Hashes several layers at a time.
fn hash_all(drafts: &mut [(usize, &mut Draft)], threads: usize) -> Result<(), (usize, LayerError)> {
    let digests = in_parallel(drafts, threads, Recipe::digest)?;
    note_plain(drafts, digests);
    Ok(())
}

/// The same, and writes them into the store of the registry they go to in the same pass.
fn store_all(
    drafts: &mut [(usize, &mut Draft)],
    registry: &Store,
    threads: usize,
) -> Result<(), (usize, LayerError)> {
    let blobs = in_parallel(drafts, threads, |recipe| recipe.write_into(registry))?;
    let stored = registry.commit_all(blobs);
    let digests = stored.map_err(|error| (0, LayerError::Store(error)))?;
    note_plain(drafts, digests);
    Ok(())
}

fn note_plain(drafts: &mut [(usize, &mut Draft)], digests: Vec<Digest>) {
    for ((_, draft), digest) in drafts.iter_mut().zip(digests) {
        draft.made = Some(CachedLayer::plain(&draft.recipe, digest));
    }
}

/// Does something with several recipes at a time, the largest first: it should not be the one that the others have to
/// wait for. Puts the drafts into that order, and the results with them. Of several errors the first is told.
fn in_parallel<T: Send>(
    drafts: &mut [(usize, &mut Draft)],
    threads: usize,
    work: impl Fn(&Recipe) -> Result<T, LayerError> + Sync,
) -> Result<Vec<T>, (usize, LayerError)> {
    drafts.sort_by_key(|(_, draft)| Reverse(draft.recipe.length()));
    let drafts = &*drafts;
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Result<T, LayerError>>>> =
        drafts.iter().map(|_| Mutex::default()).collect();
    thread::scope(|scope| {
        let run = || {
            loop {
                let place = next.fetch_add(1, Ordering::Relaxed);
                let Some((_, draft)) = drafts.get(place) else {
                    return;
                };
                let outcome = work(&draft.recipe);
                let mut result = results[place]
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                *result = Some(outcome);
            }
        };
        for _ in 1..threads.min(drafts.len()) {
            scope.spawn(run);
        }
        run();
    });
    let outcomes = results.into_iter().zip(drafts);
    outcomes
        .map(|(result, (index, _))| {
            let outcome = result.into_inner().unwrap_or_else(PoisonError::into_inner);
            let outcome = outcome.expect("every recipe had its turn, or its thread has panicked");
            outcome.map_err(|error| (*index, error))
        })
        .collect()
}

/// The digest of a layer's archive, without making it: remembered, or found by reading the files.
pub(crate) fn diff_id(
    nodes: &Nodes,
    compression: Compression,
    epoch: u64,
    cache: &mut Cache,
) -> Result<Digest, LayerError> {
    match cache.layer(&key(nodes, compression, epoch)) {
        Some(known) => Ok(known.diff_id),
        None => Recipe::of(nodes, epoch)?.digest(),
    }
}

/// Identifies the layer by what is known of its files without reading them.
fn key(nodes: &Nodes, compression: Compression, epoch: u64) -> String {
    let mut hasher = Hasher::new();
    let mut field = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    field(format!("{LAYOUT} {compression:?} {epoch}").as_bytes());
    for (path, node) in nodes {
        field(path.as_os_str().as_encoded_bytes());
        field(format!("{:o} {:?}", node.mode, node.owner).as_bytes());
        match &node.kind {
            Kind::Directory => field(b"directory"),
            Kind::Symlink(target) => {
                field(b"link");
                field(target.as_os_str().as_encoded_bytes());
            }
            Kind::File {
                content: Content::Inline(bytes),
                ..
            } => {
                field(Digest::of(bytes).to_string().as_bytes());
            }
            Kind::File {
                content: Content::Disk { stat, .. },
                ..
            } => {
                field(stat_key(stat).as_bytes());
            }
            Kind::File {
                content: Content::Unbuilt { package },
                ..
            } => {
                field(b"unbuilt");
                field(package.as_bytes());
            }
        }
    }
    hasher.finish().hex()
}

fn settled(node: &Node) -> bool {
    match &node.kind {
        Kind::File {
            content: Content::Disk { stat, .. },
            ..
        } => is_settled(stat),
        _ => true,
    }
}

/// Reads a small file of the image, `/etc/passwd` for instance.
pub(crate) fn read_text(content: &Content, limit: u64) -> Option<String> {
    match content {
        Content::Inline(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Content::Disk { path, .. } => {
            let mut text = String::new();
            File::open(path)
                .ok()?
                .take(limit)
                .read_to_string(&mut text)
                .ok()?;
            Some(text)
        }
        Content::Unbuilt { .. } => None,
    }
}

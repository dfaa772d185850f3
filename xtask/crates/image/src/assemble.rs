//! Carries a plan out: layers into the store, then configuration and manifest.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use oci::{
    BlobSources, Descriptor, Digest, History, ImageConfig, ImageManifest, Store, StoreError,
    StoredBlob, media_type,
};

use crate::base::{self, ClosureError, HostError, Nodes, Program};
use crate::cache::{Cache, CachedLayer};
use crate::files::{Content, Kind};
use crate::layer::{Built, Counters, LayerBuilder, LayerError, Toward};
use crate::plan::{AssemblyPlan, PlannedBase};
use crate::time;

/// The annotation of a layer that names the line it comes from.
pub const SOURCE_ANNOTATION: &str = "dev.systemprompt.source";

/// Why a plan cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// Files of the image are not built.
    #[error("not built yet: {}", unbuilt(.files))]
    Unbuilt {
        /// Path in the image and the package that makes it.
        files: Vec<(PathBuf, String)>,
    },
    /// The base image was not at hand when the plan was made.
    #[error("the base image {reference} is not here")]
    BaseUnavailable {
        /// The image.
        reference: String,
    },
    /// The base image's parts contradict each other.
    #[error("the base image {reference} has {layers} layers and {diff_ids} diff ids")]
    BaseBroken {
        /// The image.
        reference: String,
        /// Layers in its manifest.
        layers: usize,
        /// Layers in its configuration.
        diff_ids: usize,
    },
    /// A program in an image without any libraries.
    #[error("{program} needs the loader {loader}, which an image from scratch does not have")]
    NoLoader {
        /// Its path in the image.
        program: PathBuf,
        /// The loader.
        loader: String,
    },
    /// A program of the image cannot be looked at, or is for other machines.
    #[error(transparent)]
    Program(#[from] ClosureError),
    /// The base `host` cannot be made.
    #[error("cannot make the base from this machine")]
    Host(#[from] HostError),
    /// A layer cannot be made.
    #[error("cannot make the layer of `{source_line}`")]
    Layer {
        /// The line of the Dockerfile.
        source_line: String,
        /// Why not.
        #[source]
        source: LayerError,
    },
    /// The store takes neither configuration nor manifest.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AssembleError {
    /// One edit or one command that gets the user on.
    #[must_use]
    pub fn resolution(&self) -> String {
        match self {
            Self::Unbuilt { files } => build_command(files),
            Self::BaseUnavailable { .. } => "go online, or use the base `host`".into(),
            Self::BaseBroken { reference, .. } => format!("fetch {reference} again"),
            Self::NoLoader { .. } => {
                "use the base `host`, or a base image with a C library, or link statically".into()
            }
            Self::Program(ClosureError::Machine { wanted, .. }) => {
                format!("build for {wanted}, or choose the platform of the program")
            }
            Self::Program(ClosureError::Missing { library, .. })
            | Self::Host(HostError::Closure(ClosureError::Missing { library, .. })) => {
                format!("install the package that has {library}")
            }
            Self::Program(_) | Self::Host(_) => "make the file readable".into(),
            Self::Layer {
                source: LayerError::Changed { .. },
                ..
            } => "wait for the build that writes it, then run again".into(),
            Self::Layer { .. } => "make the file readable, then run again".into(),
            Self::Store(_) => "check the free space of the disk, then run again".into(),
        }
    }
}

fn unbuilt(files: &[(PathBuf, String)]) -> String {
    let named = |(path, package): &(PathBuf, String)| format!("{} ({package})", path.display());
    files.iter().map(named).collect::<Vec<_>>().join(", ")
}

fn build_command(files: &[(PathBuf, String)]) -> String {
    let mut packages: Vec<&str> = files.iter().map(|(_, package)| package.as_str()).collect();
    packages.sort_unstable();
    packages.dedup();
    format!("cargo build --release -p {}", packages.join(" -p "))
}

/// An image: its metadata in the store, its layers where they can be read from.
pub struct Image {
    /// The bytes of its manifest.
    pub manifest: Vec<u8>,
    /// Their digest: the image's identity.
    pub digest: Digest,
    /// Its configuration.
    pub config: ImageConfig,
    /// The digest of its configuration.
    pub config_digest: Digest,
    /// Its layers, base first.
    pub layers: Vec<LayerReport>,
    /// What it cost.
    pub counters: Counters,
    /// How to get the bytes of everything but the base's layers.
    pub sources: BlobSources,
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image")
            .field("digest", &self.digest)
            .field("layers", &self.layers)
            .finish_non_exhaustive()
    }
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerReport {
    /// Its digest as it is stored and sent.
    pub digest: Digest,
    /// Its bytes as it is stored and sent.
    pub size: u64,
    /// The digest of its uncompressed bytes.
    pub diff_id: Digest,
    /// What it holds.
    pub media_type: String,
    /// The line of the Dockerfile that it comes from, or the base.
    pub source: String,
    /// Whether it was in the store already.
    pub cached: bool,
    /// Whether it belongs to the base image and is not in the store.
    pub of_base: bool,
}

/// Makes the image of `plan`.
pub fn assemble(
    plan: &AssemblyPlan,
    store: &Store,
    cache: &mut Cache,
) -> Result<Image, AssembleError> {
    assemble_toward(plan, store, Toward::Nobody, cache)
}

/// The same, with a beginning of its delivery: nothing is read, written or waited for twice that
/// making and pushing have in common.
pub fn assemble_toward(
    plan: &AssemblyPlan,
    store: &Store,
    toward: Toward<'_>,
    cache: &mut Cache,
) -> Result<Image, AssembleError> {
    let files: Vec<_> = plan
        .unbuilt()
        .map(|(path, package)| (path.into(), package.into()))
        .collect();
    if !files.is_empty() {
        return Err(AssembleError::Unbuilt { files });
    }
    let programs = programs(plan, cache)?;
    let mut assembling = Assembling {
        plan,
        builder: LayerBuilder {
            store,
            toward,
            cache,
            epoch: plan.epoch,
            compression: plan.compression,
            counters: Counters::default(),
        },
        layers: Vec::new(),
        base_history: Vec::new(),
        sources: BlobSources::new(),
    };
    let base = assembling.base(&programs)?;
    assembling.layers(base.as_ref())?;
    assembling.finish()
}

/// The programs of the image, each checked to be for its platform.
pub(crate) fn programs(
    plan: &AssemblyPlan,
    cache: &mut Cache,
) -> Result<Vec<Program>, AssembleError> {
    let mut programs = BTreeMap::new();
    for (path, node) in plan.layers.iter().flat_map(|layer| &layer.nodes) {
        let Kind::File {
            content: Content::Disk { path: real, .. },
            ..
        } = &node.kind
        else {
            continue;
        };
        if node.mode & 0o111 == 0 {
            continue;
        }
        let Some(facts) = base::facts(real, cache)? else {
            continue;
        };
        let in_image = Path::new("/").join(path);
        if plan.platform.os == "linux" && facts.machine != plan.platform.architecture {
            let (program, machine) = (in_image, facts.machine);
            let wanted = plan.platform.architecture.clone();
            return Err(ClosureError::Machine {
                program,
                machine,
                wanted,
            }
            .into());
        }
        programs.insert(
            in_image.clone(),
            Program {
                path: real.clone(),
                in_image,
                facts,
            },
        );
    }
    Ok(programs.into_values().collect())
}

struct Assembling<'a> {
    plan: &'a AssemblyPlan,
    builder: LayerBuilder<'a>,
    layers: Vec<LayerReport>,
    /// History of layers that no line of the Dockerfile asks for.
    base_history: Vec<History>,
    sources: BlobSources,
}

/// A layer of the base that is made here: what it is, and its files.
type BaseLayer = (&'static str, Nodes);

impl Assembling<'_> {
    fn base(&mut self, programs: &[Program]) -> Result<Option<BaseLayer>, AssembleError> {
        match &self.plan.base {
            PlannedBase::Scratch => self.scratch(programs),
            PlannedBase::Host => self.host(programs).map(Some),
            PlannedBase::Image(image) => self.image(image).map(|()| None),
            PlannedBase::Unavailable(reference) => Err(AssembleError::BaseUnavailable {
                reference: reference.clone(),
            }),
        }
    }

    fn scratch(&self, programs: &[Program]) -> Result<Option<BaseLayer>, AssembleError> {
        for program in programs {
            if let Some(loader) = &program.facts.interpreter
                && self
                    .plan
                    .tree
                    .get(&crate::paths::below_root(Path::new(loader)))
                    .is_none()
            {
                let (program, loader) = (program.in_image.clone(), loader.clone());
                return Err(AssembleError::NoLoader { program, loader });
            }
        }
        let nodes = self.missing_directories();
        let what = "directories that the files of the image stand in";
        Ok((!nodes.is_empty()).then_some((what, nodes)))
    }

    fn host(&mut self, programs: &[Program]) -> Result<BaseLayer, AssembleError> {
        let accounts = base::accounts(self.plan.config.config.user.as_deref());
        let mut nodes = base::gather(programs, &accounts, self.builder.cache)?;
        for (path, node) in self.missing_directories() {
            nodes.entry(path).or_insert(node);
        }
        Ok(("loader and libraries of the machine it was built on", nodes))
    }

    fn image(&mut self, image: &base::BaseImage) -> Result<(), AssembleError> {
        let diff_ids = &image.config.rootfs.diff_ids;
        if diff_ids.len() != image.layers.len() {
            return Err(AssembleError::BaseBroken {
                reference: image.reference.clone(),
                layers: image.layers.len(),
                diff_ids: diff_ids.len(),
            });
        }
        for (layer, diff_id) in image.layers.iter().zip(diff_ids) {
            self.layers.push(LayerReport {
                digest: layer.digest,
                size: layer.size,
                diff_id: *diff_id,
                media_type: oci_type(&layer.media_type).to_owned(),
                source: format!("FROM {}", image.reference),
                cached: true,
                of_base: true,
            });
        }
        Ok(())
    }

    /// Directories such as `/usr` and `/tmp`, which layers use and leave to the base to describe.
    fn missing_directories(&self) -> Nodes {
        let layers = self.plan.layers.iter();
        let used: Vec<&Path> = layers
            .flat_map(|layer| layer.nodes.keys())
            .map(PathBuf::as_path)
            .collect();
        let missing = self.plan.tree.missing_in_base(&used).into_iter();
        missing
            .map(|(path, node)| (path.to_owned(), node.clone()))
            .collect()
    }

    fn layers(&mut self, base: Option<&BaseLayer>) -> Result<(), AssembleError> {
        if let Some((what, _)) = base {
            self.base_history.push(History {
                created: Some(time::rfc3339(self.plan.epoch)),
                created_by: Some((*what).to_owned()),
                ..History::default()
            });
        }
        let of_base = base.into_iter().map(|(what, nodes)| (*what, nodes));
        let planned = self.plan.layers.iter();
        let (sources, nodes): (Vec<&str>, Vec<&Nodes>) = of_base
            .chain(planned.map(|layer| (layer.source.as_str(), &layer.nodes)))
            .unzip();
        let built = self.builder.build(&nodes).map_err(|(index, source)| {
            let source_line = sources[index].to_owned();
            AssembleError::Layer {
                source_line,
                source,
            }
        })?;
        for (built, source) in built.into_iter().zip(sources) {
            self.note(built, source);
        }
        Ok(())
    }

    fn note(&mut self, built: Built, source: &str) {
        let CachedLayer {
            digest,
            size,
            diff_id,
        } = built.layer;
        self.sources.insert(digest, built.source);
        self.layers.push(LayerReport {
            digest,
            size,
            diff_id,
            media_type: self.plan.compression.media_type().to_owned(),
            source: source.to_owned(),
            cached: built.cached,
            of_base: false,
        });
    }

    fn finish(mut self) -> Result<Image, AssembleError> {
        let mut config = self.plan.config.clone();
        config.rootfs.diff_ids = self.layers.iter().map(|layer| layer.diff_id).collect();
        // Only bases without a history of their own get layers that no line asks for.
        config.history = self
            .base_history
            .into_iter()
            .chain(config.history)
            .collect();
        let store = self.builder.store;
        let config_bytes = config.to_vec();
        let config_digest = store.put_bytes(&config_bytes)?;
        if let Toward::Store(registry) = self.builder.toward {
            // What is not there is sent.
            let _ = registry.put_bytes(&config_bytes);
        }
        let descriptors = self.layers.iter().map(descriptor).collect();
        let config_descriptor = Descriptor::of(media_type::OCI_CONFIG, &config_bytes);
        let manifest = ImageManifest::new(config_descriptor, descriptors).to_vec();
        let digest = store.put_bytes(&manifest)?;
        for blob in [&config_digest, &digest] {
            let source = StoredBlob::new(store, blob);
            self.sources.insert(*blob, Box::new(source));
        }
        let counters = self.builder.counters;
        Ok(Image {
            manifest,
            digest,
            config,
            config_digest,
            layers: self.layers,
            counters,
            sources: self.sources,
        })
    }
}

fn descriptor(layer: &LayerReport) -> Descriptor {
    let mut descriptor = Descriptor::new(layer.media_type.clone(), layer.digest, layer.size);
    if !layer.of_base {
        descriptor
            .annotations
            .insert(SOURCE_ANNOTATION.to_owned(), layer.source.clone());
    }
    descriptor
}

/// An OCI manifest names layers by OCI's media types; the bytes behind Docker's are the same.
fn oci_type(media_type: &str) -> &str {
    match media_type {
        media_type::DOCKER_LAYER => media_type::OCI_LAYER,
        media_type::DOCKER_LAYER_GZIP => media_type::OCI_LAYER_GZIP,
        other => other,
    }
}

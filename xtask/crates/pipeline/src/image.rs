//! The image, made natively: from a Dockerfile and what cargo has just built, into a store under
//! `.systemprompt/cache/`.

mod check;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use deploy_config::{Settings, project};
use deploy_image::{
    AssembleError, AssemblyPlan, BaseChoice, Cache, Compression, Context, Counters, DEFAULT_EPOCH,
    Dockerfile, Ignore, Image as Assembled, Options, PlanError, Toward, assemble_toward,
    write_docker_archive,
};
use deploy_plan::config::Base;
use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};
use deploy_plan::plan::{Copied, Image, ImageBuilder, LayerCompression, Plan};
use deploy_plan::report::ImageReport;
use oci::{
    BlobSource, BlobSources, Descriptor, Digest, ImageConfig, ImageManifest, Platform, Store,
    StoredBlob, media_type,
};

use crate::authorities;
use crate::base::{Access, BaseError, Bases, Holder, Online, Registries, UsedBase};
use crate::build::Binaries;
use crate::control::with_causes;
use crate::deploy::Execution;
use crate::docker_config::DockerConfig;
use crate::events::Event;
use crate::layers;
use crate::push::Delivery;
use crate::run::Run;
use crate::secrets;
use crate::sweep::Held;

/// No manifest or configuration of ours is longer.
const METADATA_LIMIT: u64 = 4 * 1024 * 1024;

/// An image in the local store.
pub struct Made {
    /// Its digest.
    pub digest: Digest,
    /// Its manifest.
    pub manifest: ImageManifest,
    /// The bytes of that, which its digest is of.
    pub(crate) bytes: Vec<u8>,
    /// Where its blobs are.
    pub sources: BlobSources,
    /// The store of the registry it was made for, where that is ours to write to.
    pub(crate) registry: Option<Store>,
    /// Those of them that were made now, and not found in the cache.
    pub produced: Vec<Digest>,
    /// Who has the layers of base images.
    pub holders: Vec<Holder>,
    /// The programs in it, as they lie here.
    pub(crate) programs: Vec<Shipped>,
    /// The base images in it.
    pub(crate) bases: Vec<UsedBase>,
    /// What it took.
    counters: Counters,
    /// What is in it.
    pub(crate) report: ImageReport,
    /// Whether something serves that it can be compared with.
    compared: bool,
}

/// A program that was built here and is in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shipped {
    /// The package that makes it.
    pub(crate) package: String,
    /// Where it lies.
    pub(crate) path: PathBuf,
}

impl Made {
    /// The blobs that a registry has to have for it.
    #[must_use]
    pub fn blobs(&self) -> Vec<Digest> {
        let ours = self
            .manifest
            .blobs()
            .filter(|blob| media_type::is_distributable(&blob.media_type));
        let blobs: BTreeSet<Digest> = ours.map(|blob| blob.digest).collect();
        blobs.into_iter().collect()
    }

    /// What was made, in words.
    #[must_use]
    pub fn summary(&self) -> String {
        let Counters {
            layers_built,
            layers_cached,
            ..
        } = self.counters;
        let layers = match self.manifest.layers.len() {
            1 => "1 layer".to_owned(),
            many => format!("{many} layers"),
        };
        let made = format!(
            "{layers}, {}, {layers_cached} unchanged, {layers_built} made, {}",
            megabytes(self.report.size),
            crate::push::short(&self.digest)
        );
        if !self.compared {
            return made;
        }
        let layers = self.report.layers.iter();
        let new = layers.filter(|layer| layer.state == "new").count();
        match new {
            0 => format!("{made}; all of it serves already"),
            _ => format!("{made}; {new} new ({})", megabytes(self.report.new)),
        }
    }
}

pub(crate) fn megabytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let megabytes = bytes as f64 / 1e6;
    format!("{megabytes:.1} MB")
}

/// A layer as it would be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerPreview {
    /// The Dockerfile's line.
    pub line: usize,
    /// The text of that line.
    pub instruction: String,
    /// Where its files go.
    pub destination: String,
    /// Its files as they are called here, or by the package that will build them.
    pub files: Vec<String>,
    /// Bytes, once everything is built.
    pub size: Option<u64>,
    /// Whether the image that serves now has this very layer; of what is still to be built, as
    /// the last build left it. `None` when that cannot be told here.
    pub live: Option<bool>,
}

/// The layers that a plan would make for an image, without making them. Docker's are Docker's affair.
pub fn preview(
    settings: &Settings,
    plan: &Plan,
    image: &Image,
    target_folder: &Path,
) -> Result<Vec<LayerPreview>, Failure> {
    if image.builder == ImageBuilder::Docker {
        return Ok(Vec::new());
    }
    let expected = expected(image);
    let built = if plan.build.is_none() {
        there(settings, image, target_folder)
    } else {
        BTreeMap::new()
    };
    let planned = match assembly_plan(settings, image, built, expected, &known(settings)) {
        // What is missing may be what npm makes; the image step will know.
        Err(_) if plan.build.as_ref().is_some_and(|build| build.web.is_some()) => {
            return Ok(Vec::new());
        }
        planned => planned?,
    };
    let layers = planned.layers.iter().map(|layer| LayerPreview {
        line: layer.line,
        instruction: layer.source.clone(),
        destination: layer.destination.clone(),
        size: layer.size(),
        live: None,
        files: layer
            .files
            .iter()
            .filter_map(|file| match (&file.built_by, &file.from) {
                (Some(package), _) => Some(format!("{} (built by {package})", file.path.display())),
                (None, Some(from)) => {
                    let from = from.strip_prefix(&settings.root).unwrap_or(from);
                    Some(from.display().to_string())
                }
                (None, None) => None,
            })
            .collect(),
    });
    Ok(layers.collect())
}

/// What is in an image that would be copied, where that is known here; `live` is the digest of what serves in its place. Asks
/// nobody.
#[must_use]
pub fn known_copy(settings: &Settings, copied: &Copied, live: Option<&str>) -> Option<ImageReport> {
    let platform = platform_of(copied.platform.as_ref());
    let bases = Bases::known(state(settings));
    let image = bases.finished(&copied.reference, &platform).ok()?;
    let (reference, manifest) = (&copied.reference, &image.manifest);
    let serves = live == Some(image.digest.to_string().as_str());
    Some(layers::report_of_copy(reference, manifest, serves))
}

/// Notes on each layer whether the image that serves now has it, as far as that image, which has the digest `live`, is in
/// the local store. Reads files that have changed since an image was made last; writes nothing.
pub fn compare(
    settings: &Settings,
    image: &Image,
    live: &str,
    target_folder: &Path,
    previews: &mut [LayerPreview],
) {
    let Some(live) = diff_ids(settings, live) else {
        return;
    };
    let built = there(settings, image, target_folder);
    // What cannot be planned is told by the preview.
    let bases = known(settings);
    let Ok(planned) = assembly_plan(settings, image, built, expected(image), &bases) else {
        return;
    };
    let mut cache = Cache::open(cache_folder(settings).join("layers.json"));
    for (preview, layer) in previews.iter_mut().zip(&planned.layers) {
        let diff_id = planned.diff_id(layer, &mut cache);
        preview.live = diff_id.map(|diff_id| live.contains(&diff_id));
    }
}

/// The uncompressed layers of an image in the local store.
fn diff_ids(settings: &Settings, image: &str) -> Option<Vec<Digest>> {
    let store = Store::existing(cache_folder(settings).join("oci"))?;
    let manifest = store
        .read_small(&image.parse().ok()?, METADATA_LIMIT)
        .ok()?;
    let config = ImageManifest::from_slice(&manifest).ok()?.config.digest;
    let config = store.read_small(&config, METADATA_LIMIT).ok()?;
    Some(ImageConfig::from_slice(&config).ok()?.rootfs.diff_ids)
}

pub(crate) fn cache_folder(settings: &Settings) -> PathBuf {
    state(settings).join("cache")
}

/// `.systemprompt`
fn state(settings: &Settings) -> PathBuf {
    settings.root.join(project::FOLDER)
}

/// Makes the images of a release, one after the other: what they share is read and made once.
pub(crate) struct Maker<'a> {
    execution: &'a Execution<'a>,
    store: &'a Store,
    bases: Bases<'a>,
    cache: Cache,
    held: Held,
}

/// The store that images are made in.
pub(crate) fn store(settings: &Settings) -> Result<Store, Failure> {
    let folder = cache_folder(settings);
    let store = Store::open(folder.join("oci")).map_err(|e| store_failure(&e))?;
    project::ignore_all(&folder).map_err(|e| store_failure(&e))?;
    Ok(store)
}

impl<'a> Maker<'a> {
    /// Nothing is made yet. What all images have in common is taken from that of `app`.
    pub(crate) fn new(
        run: &Run<'_>,
        execution: &'a Execution<'a>,
        store: &'a Store,
        of_app: &Image,
        registries: &Registries,
    ) -> Result<Self, Failure> {
        let settings = execution.settings;
        let held = Held::begin(cache_folder(settings), store).map_err(|e| store_failure(&e))?;
        let online = Online {
            store,
            access: access(run, execution),
            locked: of_app.locked,
        };
        Ok(Self {
            execution,
            store,
            bases: Bases::online(state(settings), online, registries),
            cache: if of_app.verify {
                Cache::none()
            } else {
                Cache::open(cache_folder(settings).join("layers.json"))
            },
            held,
        })
    }

    /// Makes an image, in whose place the one of digest `live` serves.
    pub(crate) fn make(
        &mut self,
        run: &Run<'_>,
        image: &Image,
        binaries: &Binaries,
        delivery: &Delivery<'_>,
        live: Option<&str>,
    ) -> Result<Made, Failure> {
        let registry = self.execution.registry_store();
        let send = |layer: &Descriptor, source: &dyn BlobSource| delivery.send(layer, source);
        let toward = registry
            .as_ref()
            .map_or(Toward::Sender(&send), Toward::Store);
        let (assembled, programs) = self.assemble(run, image, binaries, toward)?;
        let known = live_layers(self.execution.settings, live, &assembled);
        let report = layers::report(&assembled.layers, &known);
        let mut made = made(assembled, self.store, &self.bases, programs, report)?;
        made.compared = live.is_some();
        made.registry = registry;
        Ok(made)
    }

    /// Makes an image for nobody but this machine's Docker.
    pub(crate) fn export(
        &mut self,
        run: &Run<'_>,
        image: &Image,
        binaries: &Binaries,
        name: &str,
        out: impl Write,
    ) -> Result<(), Failure> {
        let nowhere = |_: &Descriptor, _: &dyn BlobSource| {};
        let (assembled, _) = self.assemble(run, image, binaries, Toward::Sender(&nowhere))?;
        write_docker_archive(&assembled, &[name.to_owned()], out).map_err(|error| {
            Failure::new(
                Step::Image,
                "archive_failed",
                Exit::Build,
                with_causes(&error),
                "make room on the disk; a base image of a registry needs --base host",
            )
        })
    }

    fn assemble(
        &mut self,
        run: &Run<'_>,
        image: &Image,
        binaries: &Binaries,
        toward: Toward<'_>,
    ) -> Result<(Assembled, Vec<Shipped>), Failure> {
        self.bases.forget_given();
        let settings = self.execution.settings;
        let overlay = overlay(
            settings,
            image,
            binaries,
            &self.execution.found.target_folder,
        );
        let programs = shipped(image, &overlay);
        let planned = assembly_plan(settings, image, overlay, BTreeMap::new(), &self.bases)?;
        for warning in &planned.warnings {
            run.reporter.event(Event::Warning(warning.clone()));
        }
        if image.check_libraries {
            check::check_base(run, &planned, &self.bases, &mut self.cache)?;
        }
        secrets::check(image, &planned, &mut self.cache)?;
        let assembled = assemble_toward(&planned, self.store, toward, &mut self.cache);
        let assembled = assembled.map_err(|e| image_failure(&e))?;
        self.held.made(&assembled.digest);
        Ok((assembled, programs))
    }

    /// A finished image as it is in its registry: manifest and configuration now, layers when they are sent.
    pub(crate) fn copy(&mut self, copied: &Copied, live: Option<&str>) -> Result<Made, Failure> {
        self.bases.forget_given();
        let platform = platform_of(copied.platform.as_ref());
        let image = self.bases.finished(&copied.reference, &platform);
        let image = image.map_err(|e| e.failure(Step::Image))?;
        self.held.copied(&image.manifest);
        let mut sources = BlobSources::new();
        sources.insert(image.manifest.config.digest, Box::new(image.config));
        for layer in &image.manifest.layers {
            if let Some(source) = self.bases.source(self.store, &layer.digest) {
                sources.insert(layer.digest, source);
            }
        }
        let report = layers::report_of_copy(
            &copied.reference,
            &image.manifest,
            live == Some(image.digest.to_string().as_str()),
        );
        Ok(Made {
            digest: image.digest,
            manifest: image.manifest,
            bytes: image.bytes,
            sources,
            registry: None,
            produced: Vec::new(),
            holders: self.bases.holders(),
            programs: Vec::new(),
            bases: self.bases.used(),
            counters: Counters::default(),
            report,
            compared: live.is_some(),
        })
    }

    /// Keeps what was learnt. When all images are where they belong, what comes back removes layers that no image of late uses: the
    /// store would grow with every build.
    #[must_use]
    pub(crate) fn finish(mut self, run: &Run<'_>) -> Held {
        if let Err(error) = self.cache.save() {
            // The next run is slower, that is all.
            run.reporter.event(Event::Warning(format!(
                "the layer cache cannot be written: {error}"
            )));
        }
        self.held.note();
        self.held
    }
}

/// The base images that are known here.
pub(crate) fn known(settings: &Settings) -> Bases<'static> {
    Bases::known(state(settings))
}

fn access(run: &Run<'_>, execution: &Execution<'_>) -> Access {
    Access {
        insecure: execution.settings.config.api.insecure_registries.clone(),
        certificates: authorities::of_registries(execution.settings),
        docker: DockerConfig::of_environment(run.redactor),
        redactor: run.redactor.clone(),
        interrupts: run.interrupts.clone(),
        tell: Arc::clone(&execution.shared),
    }
}

/// The layers of the image that serves; none where nothing does, or an image that is not here.
fn live_layers(settings: &Settings, live: Option<&str>, assembled: &Assembled) -> Vec<Digest> {
    let Some(live) = live else {
        return Vec::new();
    };
    if live == assembled.digest.to_string() {
        return assembled.config.rootfs.diff_ids.clone();
    }
    diff_ids(settings, live).unwrap_or_default()
}

/// The programs of an image that Docker builds, as they lie here.
pub(crate) fn programs(
    execution: &Execution<'_>,
    image: &Image,
    binaries: &Binaries,
) -> Vec<Shipped> {
    let target_folder = &execution.found.target_folder;
    let overlay = overlay(execution.settings, image, binaries, target_folder);
    shipped(image, &overlay)
}

fn shipped(image: &Image, overlay: &BTreeMap<PathBuf, PathBuf>) -> Vec<Shipped> {
    let artifacts = image.artifacts.iter();
    let shipped = artifacts.filter_map(|(source, artifact)| {
        Some(Shipped {
            package: artifact.package.clone(),
            path: overlay.get(&normal(source))?.clone(),
        })
    });
    shipped.collect()
}

fn made(
    mut assembled: Assembled,
    store: &Store,
    bases: &Bases<'_>,
    programs: Vec<Shipped>,
    report: ImageReport,
) -> Result<Made, Failure> {
    let manifest = ImageManifest::from_slice(&assembled.manifest).map_err(|e| {
        Failure::new(
            Step::Image,
            "image_failed",
            Exit::Build,
            with_causes(&e),
            "this is a fault of the tool: please report it",
        )
    })?;
    let mut sources = std::mem::take(&mut assembled.sources);
    for blob in manifest.blobs() {
        sources.entry(blob.digest).or_insert_with(|| {
            let stored = || Box::new(StoredBlob::new(store, &blob.digest));
            let source = bases.source(store, &blob.digest);
            source.unwrap_or_else(|| stored())
        });
    }
    let produced = assembled
        .layers
        .iter()
        .filter(|layer| !layer.cached && !layer.of_base);
    Ok(Made {
        digest: assembled.digest,
        produced: produced.map(|layer| layer.digest).collect(),
        bytes: assembled.manifest,
        manifest,
        sources,
        holders: bases.holders(),
        programs,
        bases: bases.used(),
        counters: assembled.counters,
        report,
        compared: false,
        registry: None,
    })
}

/// Where the artifacts really are: where cargo said, or — with `--skip-build` — where it puts them.
fn overlay(
    settings: &Settings,
    image: &Image,
    binaries: &Binaries,
    target_folder: &Path,
) -> BTreeMap<PathBuf, PathBuf> {
    let mut overlay = there(settings, image, target_folder);
    for (source, artifact) in &image.artifacts {
        if let Some(path) = binaries.get(&artifact.binary) {
            overlay.insert(normal(source), path.clone());
        }
    }
    overlay
}

fn there(settings: &Settings, image: &Image, target_folder: &Path) -> BTreeMap<PathBuf, PathBuf> {
    let profile = deploy_plan::preflight::profile_folder(&settings.config.build.profile);
    let context = settings.root.join(&image.context);
    image
        .artifacts
        .iter()
        .filter_map(|(source, artifact)| {
            let named = context.join(source);
            let elsewhere = target_folder.join(profile).join(&artifact.binary);
            // A Dockerfile that names another profile's folder is not meant to bring back what lies there from long ago.
            let of_profile = named
                .parent()
                .is_some_and(|folder| folder.ends_with(profile));
            let places = if of_profile {
                [named, elsewhere]
            } else {
                [elsewhere, named]
            };
            let real = places.into_iter().find(|path| path.is_file())?;
            Some((normal(source), real))
        })
        .collect()
}

/// What the build will make, and the package that makes it.
fn expected(image: &Image) -> BTreeMap<PathBuf, String> {
    let artifacts = image.artifacts.iter();
    artifacts
        .map(|(source, artifact)| (normal(source), artifact.package.clone()))
        .collect()
}

fn own_crates(image: &Image) -> BTreeMap<PathBuf, usize> {
    let artifacts = image.artifacts.iter();
    artifacts
        .map(|(source, artifact)| (normal(source), artifact.own_crates))
        .collect()
}

fn normal(source: &str) -> PathBuf {
    PathBuf::from(source.trim_start_matches("./").trim_start_matches('/'))
}

fn assembly_plan(
    settings: &Settings,
    image: &Image,
    overlay: BTreeMap<PathBuf, PathBuf>,
    expected: BTreeMap<PathBuf, String>,
    bases: &Bases<'_>,
) -> Result<AssemblyPlan, Failure> {
    let path = settings.root.join(&image.dockerfile);
    let text = text_of(settings, image)?;
    let invalid = |e: PlanError| {
        if let Some(failure) = BaseError::behind(&e) {
            return failure;
        }
        let exit = match e {
            PlanError::Base { .. } => Exit::Other,
            _ => Exit::Configuration,
        };
        Failure::new(
            Step::Image,
            "image_unplannable",
            exit,
            with_causes(&e),
            e.resolution(),
        )
    };
    let name = image.dockerfile.display().to_string();
    let dockerfile = Dockerfile::parse(&name, &text).map_err(|e| invalid(e.into()))?;
    let root = settings.root.join(&image.context);
    let ignore = Ignore::find(&root, &path).map_err(|e| {
        Failure::preflight("dockerignore_invalid", with_causes(&e), "correct that file")
    })?;
    let context = Context::new(root, ignore)
        .with_overlay(overlay)
        .with_expected(expected)
        .with_own_crates(own_crates(image));
    deploy_image::plan(&dockerfile, &context, &options(image)?, bases).map_err(invalid)
}

/// What the Dockerfile says.
pub(crate) fn text_of(settings: &Settings, image: &Image) -> Result<String, Failure> {
    if let Some(text) = &image.text {
        return Ok(text.clone());
    }
    fs::read_to_string(settings.root.join(&image.dockerfile)).map_err(|e| {
        Failure::preflight(
            "dockerfile_missing",
            format!("cannot read {}: {e}", image.dockerfile.display()),
            "make it readable",
        )
    })
}

pub(crate) fn options(image: &Image) -> Result<Options, Failure> {
    Ok(Options {
        build_arguments: image.build_args.clone(),
        base: match image.base {
            Base::Dockerfile => BaseChoice::Dockerfile,
            Base::Image(ref reference) => BaseChoice::Image(reference.clone()),
            Base::Host => BaseChoice::Host,
            Base::Scratch => BaseChoice::Scratch,
        },
        platform: platform(image),
        compression: match image.compression {
            LayerCompression::None => Compression::None,
            LayerCompression::Gzip(level) => Compression::Gzip(level),
            LayerCompression::Zstd(level) => Compression::Zstd(level),
        },
        epoch: epoch()?,
        ..Options::default()
    })
}

pub(crate) fn platform(image: &Image) -> Platform {
    platform_of(image.platform.as_ref())
}

/// What is asked for, else Linux on the processor of this machine.
pub(crate) fn platform_of(wanted: Option<&deploy_plan::config::Platform>) -> Platform {
    match wanted {
        Some(platform) => Platform {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            os_version: None,
            variant: platform.variant.clone(),
        },
        None => Platform {
            os: "linux".to_owned(),
            ..Platform::host()
        },
    }
}

/// `SOURCE_DATE_EPOCH`, as reproducible-builds.org specifies it.
fn epoch() -> Result<u64, Failure> {
    let Some(text) = std::env::var_os("SOURCE_DATE_EPOCH") else {
        return Ok(DEFAULT_EPOCH);
    };
    text.to_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| {
            Failure::preflight(
                "epoch_invalid",
                format!("SOURCE_DATE_EPOCH is {}, not a number", text.display()),
                "set it to seconds since 1970, or unset it",
            )
        })
}

fn image_failure(error: &AssembleError) -> Failure {
    let (code, exit) = match error {
        AssembleError::NoLoader { .. } => ("loader_missing", Exit::Build),
        _ => ("image_failed", Exit::Build),
    };
    let details = with_causes(error);
    Failure::new(Step::Image, code, exit, details, error.resolution())
}

fn store_failure(error: &dyn std::error::Error) -> Failure {
    Failure::new(
        Step::Image,
        "store_failed",
        Exit::Build,
        with_causes(error),
        "make room on its disk, or .systemprompt/cache/ writable; what is in there may be removed",
    )
}

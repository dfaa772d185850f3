//! The image, made natively: from a Dockerfile and what cargo has just built, into a store under
//! `.systemprompt/cache/`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use deploy_config::{Settings, project};
use deploy_image::{
    AssemblyPlan, BaseChoice, Cache, Compression, Context, Counters, DEFAULT_EPOCH, Dockerfile,
    Ignore, Image as Assembled, Options, PlanError, assemble,
};
use deploy_plan::config::Base;
use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};
use deploy_plan::plan::{Image, ImageBuilder, Plan};
use oci::{BlobSources, Digest, ImageManifest, Pushed, Store, StoredBlob};

use crate::base::Bases;
use crate::build::Binaries;
use crate::control::with_causes;
use crate::deploy::Execution;
use crate::events::Event;
use crate::run::Run;

/// An image in the local store.
pub struct Made {
    /// Its digest.
    pub digest: Digest,
    /// Its manifest.
    pub manifest: ImageManifest,
    /// Where its blobs are.
    pub sources: BlobSources,
    /// What it took.
    counters: Counters,
    size: u64,
}

impl Made {
    /// What was made, in words.
    #[must_use]
    pub fn summary(&self) -> String {
        let Counters {
            layers_built,
            layers_cached,
            ..
        } = self.counters;
        format!(
            "{} layers, {}, {layers_cached} unchanged, {layers_built} made, {}",
            self.manifest.layers.len(),
            megabytes(self.size),
            crate::push::short(&self.digest)
        )
    }
}

/// What a push did, in words.
#[must_use]
pub fn push_summary(image: &str, pushed: &Pushed) -> String {
    let requests = match pushed.requests {
        1 => "1 request".to_owned(),
        many => format!("{many} requests"),
    };
    if pushed.uploaded == 0 && pushed.mounted == 0 {
        return format!("{image} is there, nothing sent ({requests})");
    }
    let mut others = String::new();
    for (count, what) in [(pushed.existing, "there"), (pushed.mounted, "mounted")] {
        if count > 0 {
            others = format!("{others}, {count} {what}");
        }
    }
    let (sent, blobs) = (megabytes(pushed.bytes), pushed.uploaded);
    format!("{image}: {sent} in {blobs} blobs{others} ({requests})")
}

fn megabytes(bytes: u64) -> String {
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
}

/// The layers that a plan would make, without making them. Docker's are Docker's affair.
pub fn preview(
    settings: &Settings,
    plan: &Plan,
    target_folder: &Path,
) -> Result<Vec<LayerPreview>, Failure> {
    let Some(image) = &plan.image else {
        return Ok(Vec::new());
    };
    if image.builder == ImageBuilder::Docker {
        return Ok(Vec::new());
    }
    let expected = image
        .artifacts
        .iter()
        .map(|(source, artifact)| (normal(source), artifact.package.clone()))
        .collect();
    let built = if plan.build.is_none() {
        there(settings, image, target_folder)
    } else {
        BTreeMap::new()
    };
    let planned = match assembly_plan(settings, image, built, expected, &Bases::offline()) {
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

/// Makes the image.
pub(crate) fn make(
    run: &mut Run<'_>,
    execution: &Execution<'_>,
    image: &Image,
    binaries: &Binaries,
) -> Result<Made, Failure> {
    let settings = execution.settings;
    let cache_folder = settings.root.join(project::FOLDER).join("cache");
    let store = Store::open(cache_folder.join("oci")).map_err(|e| store_failure(&e))?;
    let overlay = overlay(settings, image, binaries, &execution.found.target_folder);
    let bases = Bases::online(&store, &settings.config.api.insecure_registries);
    let planned = assembly_plan(settings, image, overlay, BTreeMap::new(), &bases)?;
    for warning in &planned.warnings {
        run.reporter.event(Event::Warning(warning.clone()));
    }
    let mut cache = if image.verify {
        Cache::none()
    } else {
        Cache::open(cache_folder.join("layers.json"))
    };
    let assembled = assemble(&planned, &store, &mut cache).map_err(|e| {
        Failure::new(
            Step::Image,
            "image_failed",
            Exit::Build,
            with_causes(&e),
            e.resolution(),
        )
    })?;
    if !image.verify
        && let Err(error) = cache.save()
    {
        // The next run is slower, that is all.
        run.reporter.event(Event::Warning(format!(
            "the layer cache cannot be written: {error}"
        )));
    }
    sweep(&cache_folder, &assembled);
    made(&assembled, &store)
}

fn made(assembled: &Assembled, store: &Store) -> Result<Made, Failure> {
    let manifest = ImageManifest::from_slice(&assembled.manifest).map_err(|e| {
        Failure::new(
            Step::Image,
            "image_failed",
            Exit::Build,
            with_causes(&e),
            "this is a fault of the tool: please report it",
        )
    })?;
    let mut sources = BlobSources::new();
    for blob in manifest.blobs() {
        sources.insert(blob.digest, Box::new(StoredBlob::new(store, &blob.digest)));
    }
    let size = manifest.layers.iter().map(|layer| layer.size).sum();
    Ok(Made {
        digest: assembled.digest,
        manifest,
        sources,
        counters: assembled.counters,
        size,
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
            let real = [named, elsewhere].into_iter().find(|path| path.is_file())?;
            Some((normal(source), real))
        })
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
    let text = fs::read_to_string(&path).map_err(|e| {
        Failure::preflight(
            "dockerfile_missing",
            format!("cannot read {}: {e}", image.dockerfile.display()),
            "make it readable",
        )
    })?;
    let invalid = |e: PlanError| {
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
        .with_expected(expected);
    let bases = match &image.base {
        Base::Image(reference) => bases.in_place_of_all(reference),
        _ => bases.clone(),
    };
    deploy_image::plan(&dockerfile, &context, &options(image)?, &bases).map_err(invalid)
}

fn options(image: &Image) -> Result<Options, Failure> {
    Ok(Options {
        build_arguments: image.build_args.clone(),
        base: match image.base {
            Base::Dockerfile | Base::Image(_) => BaseChoice::Dockerfile,
            Base::Host => BaseChoice::Host,
            Base::Scratch => BaseChoice::Scratch,
        },
        compression: Compression::None,
        epoch: epoch()?,
        ..Options::default()
    })
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

fn store_failure(error: &oci::StoreError) -> Failure {
    Failure::new(
        Step::Image,
        "store_failed",
        Exit::Build,
        with_causes(error),
        "make .systemprompt/cache/ writable, or remove it",
    )
}

/// Layers that no image of late uses are removed: the store would grow with every build.
fn sweep(cache_folder: &Path, assembled: &Assembled) {
    crate::sweep::keep_recent(cache_folder, &assembled.digest.to_string());
}

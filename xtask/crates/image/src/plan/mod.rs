//! From a Dockerfile and a context to the plan of an image: every layer with its files, and the
//! configuration. Looks at names, sizes and times of files and at no content; writes nothing.

mod error;
mod hints;
mod layers;
mod planner;

use std::path::{Path, PathBuf};

use oci::{Digest, ImageConfig, Platform};

use crate::base::{BaseImage, BaseSource, Nodes};
use crate::cache::Cache;
use crate::context::Context;
use crate::copying::Room;
use crate::dockerfile::Dockerfile;
use crate::layer;
use crate::options::{Compression, Options};
use crate::outline::{Outline, needs_engine};
use crate::tree::Tree;

pub use error::{Place, PlanError};
use planner::{PlannedStage, Planner};

/// What an image will be.
#[derive(Debug, Clone)]
pub struct AssemblyPlan {
    /// What it stands on.
    pub base: PlannedBase,
    /// Its own layers, in order.
    pub layers: Vec<PlannedLayer>,
    /// Its configuration, but for the digests of its layers.
    pub config: ImageConfig,
    /// Things that are allowed and yet look wrong.
    pub warnings: Vec<String>,
    /// How layers are stored.
    pub compression: Compression,
    /// The time of everything in it.
    pub epoch: u64,
    /// The machines it is for.
    pub platform: Platform,
    pub(crate) tree: Tree,
}

/// What an image stands on.
#[derive(Debug, Clone)]
pub enum PlannedBase {
    /// Nothing.
    Scratch,
    /// A layer made of this machine's loader and libraries.
    Host,
    /// An image.
    Image(Box<BaseImage>),
    /// An image that could not be had when the plan was made: the plan cannot be carried out.
    Unavailable(String),
}

/// A layer to be.
#[derive(Debug, Clone)]
pub struct PlannedLayer {
    /// The line of the Dockerfile that asks for it.
    pub line: usize,
    /// The text of that line.
    pub source: String,
    /// Where its files go.
    pub destination: String,
    /// Its files, directories and links, with those that lead to them.
    pub files: Vec<PlannedFile>,
    pub(crate) nodes: Nodes,
}

/// A file, link or directory of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedFile {
    /// Its path in the image, absolute.
    pub path: PathBuf,
    /// Where it comes from on this machine.
    pub from: Option<PathBuf>,
    /// Its length; `None` for one that is not built yet, and for directories and links.
    pub size: Option<u64>,
    /// The package that makes it, where it is not built yet.
    pub built_by: Option<String>,
}

impl PlannedLayer {
    /// The bytes of its files; `None` while one of them is not built.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        if self.files.iter().any(|file| file.built_by.is_some()) {
            return None;
        }
        Some(self.files.iter().filter_map(|file| file.size).sum())
    }
}

impl AssemblyPlan {
    /// Files that a build must make first: path in the image and package.
    pub fn unbuilt(&self) -> impl Iterator<Item = (&Path, &str)> {
        let files = self.layers.iter().flat_map(|layer| &layer.files);
        files.filter_map(|file| Some((file.path.as_path(), file.built_by.as_deref()?)))
    }

    /// The digest of the uncompressed bytes that a layer of this plan would have; `None` while it
    /// is not built or cannot be read. Makes nothing.
    pub fn diff_id(&self, layer: &PlannedLayer, cache: &mut Cache) -> Option<Digest> {
        layer.size()?;
        layer::diff_id(&layer.nodes, self.compression, self.epoch, cache).ok()
    }
}

/// Plans the image that `dockerfile` describes.
pub fn plan(
    dockerfile: &Dockerfile,
    context: &Context,
    options: &Options,
    images: &dyn BaseSource,
) -> Result<AssemblyPlan, PlanError> {
    let needs = needs_engine(dockerfile, options)?;
    if !needs.is_empty() {
        return Err(PlanError::NeedsEngine {
            file: dockerfile.file.clone(),
            needs,
        });
    }
    let outline = Outline::new(dockerfile, options)?;
    let planner = Planner {
        dockerfile,
        context,
        options,
        images,
        outline: &outline,
        room: Room::new(options.file_limit),
    };
    let mut stages: Vec<Option<PlannedStage>> = Vec::new();
    for index in 0..dockerfile.stages.len() {
        let planned = outline.needed[index]
            .then(|| planner.stage(index, &stages))
            .transpose()?;
        stages.push(planned);
        if index == outline.target {
            break;
        }
    }
    let target = stages.pop().flatten();
    // The target is marked as needed, so it is there.
    Ok(planner.finish(target.unwrap_or_else(|| PlannedStage::on(PlannedBase::Scratch, false))))
}

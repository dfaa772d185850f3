//! What the caller decides about an image, beside its Dockerfile.

use std::collections::BTreeMap;

use oci::{Platform, media_type};

/// The time given to everything in an image when `SOURCE_DATE_EPOCH` is not set: one second after
/// the epoch, because some tools take 0 for "no time".
pub const DEFAULT_EPOCH: u64 = 1;

/// More than any image has that somebody means to make; planning them takes some seconds.
const FILE_LIMIT: usize = 1_000_000;

/// How an image is to be assembled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `--build-arg`: values for `ARG`.
    pub build_arguments: BTreeMap<String, String>,
    /// The stage to build, by name or number; the last one when absent.
    pub target: Option<String>,
    /// The machines the image is for.
    pub platform: Platform,
    /// What the final stage stands on.
    pub base: BaseChoice,
    /// How layers are stored.
    pub compression: Compression,
    /// Seconds since the epoch: the time of every file and of the image itself.
    pub epoch: u64,
    /// How many files, directories and links the lines of the Dockerfile may put into its stages,
    /// all together. Stages that copy each other twice double with every line.
    pub file_limit: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            build_arguments: BTreeMap::new(),
            target: None,
            platform: Platform::host(),
            base: BaseChoice::Dockerfile,
            compression: Compression::None,
            epoch: DEFAULT_EPOCH,
            file_limit: FILE_LIMIT,
        }
    }
}

/// What the final stage stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BaseChoice {
    /// What its `FROM` says.
    Dockerfile,
    /// This image of a registry, whatever its `FROM` says; it also stands in for those that other stages name.
    Image(String),
    /// Nothing, whatever its `FROM` says.
    Scratch,
    /// A layer made of this machine's own loader and libraries, whatever its `FROM` says.
    Host,
}

/// How layers are stored and sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// As they are: the quickest for a registry on the same machine.
    None,
    /// gzip, level 1 to 9: what every registry and engine takes.
    Gzip(u32),
    /// zstd, level 1 to 19: what newer engines take. Needs the program `zstd`.
    Zstd(u32),
}

impl Compression {
    /// What a manifest calls such a layer.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::None => media_type::OCI_LAYER,
            Self::Gzip(_) => media_type::OCI_LAYER_GZIP,
            Self::Zstd(_) => media_type::OCI_LAYER_ZSTD,
        }
    }
}

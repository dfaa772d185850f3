//! What the engine can fail at.

use std::io;
use std::path::PathBuf;

use oci::Digest;

use crate::process::{RootPathError, UnpackError};
use crate::volumes::VolumeId;

/// Why the engine could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Another engine works in the same directory; two would take each other's instances for
    /// leftovers.
    #[error("`{}` is in use by another server: stop that one, or choose another data directory", path.display())]
    RootInUse {
        /// The engine's directory.
        path: PathBuf,
    },
    /// The store does not have the image, or not all of it.
    #[error("image not found: {missing} is not in the store: push the image again")]
    ImageNotFound {
        /// The image as asked for.
        image: Digest,
        /// The manifest, configuration or layer that is missing.
        missing: Digest,
    },
    /// The store could not be read.
    #[error("read image {image}")]
    Store {
        /// The image.
        image: Digest,
        /// What the store said.
        #[source]
        source: oci::StoreError,
    },
    /// The manifest or the configuration is not what the specification says.
    #[error("image {image} is not usable: {reason}")]
    ImageInvalid {
        /// The image.
        image: Digest,
        /// What is wrong with it.
        reason: String,
    },
    /// The image is for another kind of machine.
    #[error(
        "image {image} is for {image_platform}, this machine is {machine}: build it for {machine}"
    )]
    Platform {
        /// The image.
        image: Digest,
        /// What it was built for.
        image_platform: String,
        /// What this is.
        machine: String,
    },
    /// A layer is compressed in a way this engine does not read.
    #[error("layer {layer} is of type `{media_type}`, which is not supported: use tar or tar+gzip")]
    LayerType {
        /// The layer.
        layer: Digest,
        /// Its media type.
        media_type: String,
    },
    /// A layer could not be unpacked.
    #[error("unpack layer {layer} of image {image}")]
    Unpack {
        /// The image.
        image: Digest,
        /// The layer.
        layer: Digest,
        /// Why.
        #[source]
        source: UnpackError,
    },
    /// A layer is not what the image's configuration promises.
    #[error(
        "layer {layer} unpacks to {actual}, the image promises {expected}: push the image again"
    )]
    LayerDigest {
        /// The layer.
        layer: Digest,
        /// From the configuration.
        expected: Digest,
        /// As read.
        actual: Digest,
    },
    /// The image's directories could not be completed.
    #[error("complete image {image}")]
    Skeleton {
        /// The image.
        image: Digest,
        /// Why.
        #[source]
        source: RootPathError,
    },
    /// The image has a file where an instance needs a directory, or above it.
    #[error(
        "{what} `{}` of the image is a file, or lies below one: name a directory in its Dockerfile, or leave that file out",
        path.display()
    )]
    NotADirectory {
        /// What says so: `WORKDIR`, `VOLUME`; or `directory` for one that every instance has.
        what: &'static str,
        /// In the image.
        path: PathBuf,
    },
    /// A file of the engine itself.
    #[error("{action} `{}`", path.display())]
    Files {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file with this server's id in Docker cannot be read. Another id in its place would hide all volumes.
    #[error(
        "cannot read from `{}` which volumes and containers in Docker are this server's: put it back from a backup, or write it \
         anew as docs/guides/troubleshooting.md says",
        path.display()
    )]
    ServerUnknown {
        /// The file.
        path: PathBuf,
        /// What the system said, or what is wrong with it.
        #[source]
        source: io::Error,
    },
    /// The id cannot be the name of a directory.
    #[error("`{id}` cannot name an instance: use letters, digits, `-`, `_` and `.`, at most 128")]
    InvalidId {
        /// As given.
        id: String,
    },
    /// An instance of this id has not ended yet.
    #[error("an instance named `{id}` is still there")]
    DuplicateId {
        /// The id.
        id: String,
    },
    /// Neither the image nor the caller says what to run.
    #[error("image {image} has neither ENTRYPOINT nor CMD: add one to its Dockerfile")]
    NoCommand {
        /// The image.
        image: Digest,
    },
    /// The program is not in the image.
    #[error("program `{program}` not found in the image")]
    ProgramNotFound {
        /// As the image or the caller names it.
        program: String,
    },
    /// The program is there but this machine cannot run it.
    #[error(
        "program `{program}` cannot be run: exec format error: it was built for another machine, or is no program"
    )]
    ExecFormat {
        /// As the image or the caller names it.
        program: String,
    },
    /// The image's user is not among its accounts.
    #[error("user `{user}` not found in the image: add it to /etc/passwd, or use a number")]
    UserNotFound {
        /// As the image names it.
        user: String,
    },
    /// Bounds were asked for that this machine cannot enforce.
    #[error(
        "limits cannot be enforced on this machine ({lacking}): allow it to run without them by `best_effort`"
    )]
    Resources {
        /// Which, and why.
        lacking: String,
    },
    /// Nothing can be mounted in instances on this machine.
    #[error("instances can have no volumes on this machine: {why}")]
    NoVolumes {
        /// What is missing.
        why: String,
    },
    /// Another instance has the volume, or may have it.
    #[error("volume `{volume}` is in use by `{holder}`: no two have it at once")]
    VolumeInUse {
        /// Which one.
        volume: VolumeId,
        /// The name of the instance, or what else has it.
        holder: String,
    },
    /// A volume could not be made for an instance.
    #[error("make volume `{volume}` for {}: {reason}", path.display())]
    Volume {
        /// Which one.
        volume: VolumeId,
        /// Where the instance was to have it.
        path: PathBuf,
        /// What the system said, or what is wrong with the path.
        reason: String,
    },
    /// A command was to run in an instance whose program has ended.
    #[error("instance `{id}` has ended")]
    NotRunning {
        /// The instance.
        id: String,
    },
    /// A step between the server and the program failed.
    #[error("launch instance `{id}`: {step}: {reason}")]
    Launch {
        /// The instance.
        id: String,
        /// The step in words.
        step: String,
        /// What the system said, or what was seen.
        reason: String,
    },
    /// Instances that were to end are still there, or their directories are. All others have ended.
    #[error("instances are left that were to end: {}", quoted(left))]
    NotEnded {
        /// Which ones.
        left: Vec<String>,
        /// Why the first of them is left.
        #[source]
        first: Box<EngineError>,
    },
    /// The Docker Engine did not do what it was asked for, or is not there.
    #[error("docker: cannot {action}: {reason}")]
    Docker {
        /// What was asked for.
        action: &'static str,
        /// What it said.
        reason: String,
    },
    /// The engine behind a socket did not do what it was asked for, or is not there.
    #[error("engine: cannot {action}: {reason}")]
    External {
        /// What was asked for.
        action: &'static str,
        /// What it said.
        reason: String,
    },
    /// The engine replaces releases and starts no instance that it is told to.
    #[error("instance `{id}` cannot be started: this engine replaces releases by itself")]
    NoInstances {
        /// The instance.
        id: String,
    },
    /// An orchestrator was told something newer since.
    #[error("engine: turn {turn} of `{tenant}` is over, it has a newer one")]
    Outdated {
        /// Whose release it was.
        tenant: String,
        /// What was to be applied.
        turn: u64,
    },
    /// The work was given up because the server is ending.
    #[error("the server is shutting down")]
    ShuttingDown,
}

fn quoted(names: &[String]) -> String {
    let quoted = names.iter().map(|name| format!("`{name}`"));
    quoted.collect::<Vec<_>>().join(", ")
}

impl EngineError {
    pub(crate) fn files(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Files {
            action,
            path,
            source,
        }
    }

    pub(crate) fn launch(id: &str, step: &str, reason: impl std::fmt::Display) -> Self {
        Self::Launch {
            id: id.to_owned(),
            step: step.to_owned(),
            reason: reason.to_string(),
        }
    }
}

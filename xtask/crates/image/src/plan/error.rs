//! Why an image cannot be planned, on which line, and what to do about it.

use std::fmt;

use crate::copying::CopyError;
use crate::dockerfile::DockerfileError;
use crate::needs::NeedsEngine;
use crate::owners::OwnerError;

/// Why an image cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The Dockerfile is wrong.
    #[error(transparent)]
    Dockerfile(#[from] DockerfileError),
    /// Only an engine can build it.
    #[error("{file} needs a container engine: {}", list(.needs))]
    NeedsEngine {
        /// The Dockerfile.
        file: String,
        /// Every instruction that does.
        needs: Vec<NeedsEngine>,
    },
    /// A `COPY` cannot be done.
    #[error("{at}: cannot carry out `{}`", .at.text)]
    Copy {
        /// The line.
        at: Place,
        /// What to do about it.
        hint: String,
        /// Why not.
        #[source]
        source: Box<CopyError>,
    },
    /// A user or group has no number.
    #[error("{at}: cannot tell whose the files of `{}` are", .at.text)]
    Owner {
        /// The line.
        at: Place,
        /// Who is not known.
        #[source]
        source: OwnerError,
    },
    /// The base image cannot be had.
    #[error("{at}: cannot get the base image {reference}")]
    Base {
        /// The line.
        at: Place,
        /// The image.
        reference: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A line of a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The Dockerfile.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// Its text.
    pub text: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

impl PlanError {
    /// One edit or one command that gets the user on.
    #[must_use]
    pub fn resolution(&self) -> String {
        match self {
            Self::Dockerfile(error) => error.resolution(),
            Self::NeedsEngine { .. } => {
                "start Docker and use --builder docker, or copy prebuilt files instead".into()
            }
            Self::Copy { hint, .. } => hint.clone(),
            Self::Owner { .. } => "write numbers, such as 1000:1000".into(),
            Self::Base { reference, .. } => {
                format!("check that {reference} exists and that you may read it")
            }
        }
    }
}

fn list(needs: &[NeedsEngine]) -> String {
    needs
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

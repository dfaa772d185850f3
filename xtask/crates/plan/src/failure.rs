//! What is shown when something fails: the step, the details, the resolution.

use crate::exit::Exit;

/// A step of a deployment, named as people see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// Reading the configuration.
    Settings,
    /// Looking for everything that could go wrong, before anything is done.
    Preflight,
    /// The web front end.
    Web,
    /// Cargo.
    Build,
    /// The image.
    Image,
    /// Starting the embedded platform.
    Platform,
    /// Credentials for the registry.
    Token,
    /// Sending the image.
    Push,
    /// Asking for the deployment.
    Deploy,
    /// Following it to its end.
    Wait,
    /// Returning to an older release.
    Rollback,
    /// Looking at what is deployed.
    Inspect,
    /// Telling what came out.
    Report,
}

impl Step {
    /// The name in reports and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Preflight => "preflight",
            Self::Web => "web",
            Self::Build => "build",
            Self::Image => "image",
            Self::Platform => "platform",
            Self::Token => "token",
            Self::Push => "push",
            Self::Deploy => "deploy",
            Self::Wait => "wait",
            Self::Rollback => "rollback",
            Self::Inspect => "inspect",
            Self::Report => "report",
        }
    }
}

/// A failure as its reader needs it: where, what, and what to do now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{details}")]
pub struct Failure {
    /// Where it happened.
    pub step: Step,
    /// Stable, for programs: `binary_not_found`, `credentials_expired`, …
    pub code: &'static str,
    /// What failed, and on what. Lower-case, no full stop.
    pub details: String,
    /// One command or one edit.
    pub resolution: String,
    /// How the command ends because of it.
    pub exit: Exit,
}

impl Failure {
    /// A failure with all its parts.
    #[must_use]
    pub fn new(
        step: Step,
        code: &'static str,
        exit: Exit,
        details: impl Into<String>,
        resolution: impl Into<String>,
    ) -> Self {
        Self {
            step,
            code,
            details: details.into(),
            resolution: resolution.into(),
            exit,
        }
    }

    /// A preflight check that did not pass.
    #[must_use]
    pub fn preflight(
        code: &'static str,
        details: impl Into<String>,
        resolution: impl Into<String>,
    ) -> Self {
        Self::new(
            Step::Preflight,
            code,
            Exit::Configuration,
            details,
            resolution,
        )
    }
}

//! The ten steps in which a file is deployed, and what is said when one of them fails.

use std::fmt;

use crate::exit::Exit;
use crate::failure::Failure;

/// A step, in the order in which they are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FlowStep {
    /// The command of the control plane is there, or is installed.
    Install,
    /// The file is read.
    Read,
    /// Which images are built.
    Extract,
    /// What the control plane calls the application.
    Application,
    /// What the images will be called.
    Names,
    /// They are built.
    Build,
    /// What they are called now.
    Capture,
    /// The file names them.
    Update,
    /// The control plane is given the file.
    Deploy,
    /// The services are waited for, and tell where they are.
    Return,
    /// The platform of this project is there, or can be started: in place of [`FlowStep::Install`].
    Platform,
}

impl FlowStep {
    /// Those of the `aramb` command.
    pub const ALL: [Self; 10] = [
        Self::Install,
        Self::Read,
        Self::Extract,
        Self::Application,
        Self::Names,
        Self::Build,
        Self::Capture,
        Self::Update,
        Self::Deploy,
        Self::Return,
    ];

    /// From 0.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Platform => 0,
            other => other as u8,
        }
    }

    /// As people know it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Install => "Install aramb-cli",
            Self::Read => "Read aramb.toml",
            Self::Extract => "Extract Build Services",
            Self::Application => "Get Application Slug",
            Self::Names => "Create Image Names",
            Self::Build => "Run Build Commands",
            Self::Capture => "Capture Image URLs",
            Self::Update => "Update aramb.toml",
            Self::Deploy => "Run TOML Deploy",
            Self::Return => "Return Deployment Details",
            Self::Platform => "Find the Platform",
        }
    }
}

/// `5 - Run Build Commands`
impl fmt::Display for FlowStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} - {}", self.number(), self.name())
    }
}

/// Why a flow has ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FlowError {
    /// Where.
    pub step: FlowStep,
    /// Stable, for programs.
    pub code: &'static str,
    /// What failed, in one line.
    pub message: String,
    /// On what, in whose words, and what to do: lines.
    pub details: Vec<String>,
    /// How the command ends because of it where the policy leaves a choice.
    pub exit: Exit,
}

impl FlowError {
    /// Without details.
    #[must_use]
    pub fn new(step: FlowStep, code: &'static str, exit: Exit, message: impl Into<String>) -> Self {
        Self {
            step,
            code,
            message: message.into(),
            details: Vec::new(),
            exit,
        }
    }

    /// With one line more.
    #[must_use]
    pub fn with(mut self, line: impl Into<String>) -> Self {
        self.details.push(line.into());
        self
    }

    /// A failure of a step that other commands have too.
    #[must_use]
    pub fn of(step: FlowStep, failure: &Failure) -> Self {
        let mut lines = failure.details.lines();
        let first = lines.next().unwrap_or(failure.code);
        let mut error = Self::new(step, failure.code, failure.exit, first);
        error.details.extend(lines.map(str::to_owned));
        error.with(failure.resolution.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_numbered_in_their_order() {
        let shown: Vec<_> = FlowStep::ALL.iter().map(ToString::to_string).collect();
        assert_eq!(shown[0], "0 - Install aramb-cli");
        assert_eq!(shown[5], "5 - Run Build Commands");
        assert_eq!(shown[9], "9 - Return Deployment Details");
        assert_eq!(FlowStep::Platform.to_string(), "0 - Find the Platform");
    }
}

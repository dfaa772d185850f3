//! Where a value came from.

use std::fmt;
use std::path::PathBuf;

use deploy_plan::config::EnvironmentName;

/// Where a value came from, the strongest source first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An option of the command line, as it is typed (`--timeout`).
    Flag(String),
    /// An environment variable.
    Variable(String),
    /// A line of a file, relative to the project.
    File {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
    },
    /// A built-in environment.
    BuiltinEnvironment(EnvironmentName),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::BuiltinEnvironment(name) => write!(f, "default of environment {name}"),
            Self::Default => f.write_str("default"),
        }
    }
}

//! The result document: what `--output json|yaml` prints, success or failure.
//!
//! A record with a version of its own, so that programs which read it can rely on it while the
//! domain types change.

use schemars::JsonSchema;
use serde::Serialize;

use crate::failure::Failure;

/// Version of the document's shape. Fields may be added without a new version.
pub const SCHEMA: &str = "deploy-report/1";

/// The result of one command.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// `succeeded`, `unchanged`, `started` (with `--no-wait`), `planned`, `rolled_back` or `failed`.
    pub status: &'static str,
    /// Name of the environment.
    pub environment: String,
    /// Tenant, once known.
    pub tenant: Option<String>,
    /// Number of the deployment, where the platform counts them.
    pub deployment: Option<u64>,
    /// The image by tag.
    pub image: Option<String>,
    /// The image's digest.
    pub digest: Option<String>,
    /// The tag.
    pub tag: Option<String>,
    /// Where the release serves.
    pub url: Option<String>,
    /// The deployment that served before.
    pub previous: Option<Previous>,
    /// What is in the image, where it was made here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_report: Option<ImageReport>,
    /// The services beside `app`, and `app` once it serves with them; nothing for a release of one service.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceRecord>,
    /// What was done, in order.
    pub steps: Vec<StepRecord>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorRecord>,
}

/// The deployment that served before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Previous {
    /// Its number.
    pub deployment: u64,
    /// Its tag.
    pub tag: Option<String>,
    /// Its digest.
    pub digest: String,
}

/// A service of a release. What is not known yet is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ServiceRecord {
    /// Its name.
    pub name: String,
    /// The image by tag.
    pub image: Option<String>,
    /// The image's digest.
    pub digest: Option<String>,
    /// What is in the image, where it was made or copied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_report: Option<ImageReport>,
    /// How it is, as the platform says: `serving`, `done`.
    pub state: Option<String>,
    /// The deployment that has started it: an older one where it runs on.
    pub deployment: Option<u64>,
    /// How many instances it should have.
    pub replicas: Option<u32>,
    /// How many of them serve.
    pub serving: Option<usize>,
    /// Where everybody reaches it, if everybody does.
    pub public_url: Option<String>,
    /// Where the other services reach it, if it listens.
    pub internal_url: Option<String>,
}

/// What is in an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ImageReport {
    /// Bytes of all layers, as they are stored and sent.
    pub size: u64,
    /// Bytes of the layers that the release which served before did not have.
    pub new: u64,
    /// The layers, base first.
    pub layers: Vec<LayerRecord>,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LayerRecord {
    /// The line of the Dockerfile that it comes from, or the base.
    pub source: String,
    /// Bytes, as it is stored and sent.
    pub size: u64,
    /// Its digest.
    pub digest: String,
    /// `unchanged` where the release that served before has it; `base` where it is one of the base
    /// image and may be new or not; else `new`.
    pub state: &'static str,
}

/// One step that was done or begun.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct StepRecord {
    /// As in messages: `build`, `push`, …
    pub name: &'static str,
    /// `done`, `skipped` or `failed`.
    pub status: &'static str,
    /// How long it took.
    pub seconds: f64,
    /// What it did, in words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub summary: String,
}

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ErrorRecord {
    /// Where.
    pub step: &'static str,
    /// What failed, and on what.
    pub details: String,
    /// What to do now.
    pub resolution: String,
    /// Stable, for programs.
    pub code: &'static str,
    /// The exit code of the command.
    pub exit: u8,
    /// Further failures found at the same time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<ErrorRecord>,
    /// The application's last lines, when it was the application that failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub log_tail: Vec<String>,
}

impl From<&Failure> for ErrorRecord {
    fn from(failure: &Failure) -> Self {
        Self {
            step: failure.step.name(),
            details: failure.details.clone(),
            resolution: failure.resolution.clone(),
            code: failure.code,
            exit: failure.exit.code(),
            others: Vec::new(),
            log_tail: Vec::new(),
        }
    }
}

impl ErrorRecord {
    /// All failures in one record, the first one leading.
    #[must_use]
    pub fn from_all(failures: &[Failure]) -> Option<Self> {
        let (first, others) = failures.split_first()?;
        let mut record = Self::from(first);
        record.others = others.iter().map(Self::from).collect();
        Some(record)
    }
}

//! What a run produced, success or failure: the source of the report.

use deploy_plan::failure::{Failure, Step};
use deploy_plan::report::{ErrorRecord, ImageReport, Previous, Report, SCHEMA, StepRecord};

/// Facts gathered while a plan was executed. What is not known stays `None`.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Name of the environment.
    pub environment: String,
    /// The tenant.
    pub tenant: Option<String>,
    /// Number of the deployment.
    pub deployment: Option<u64>,
    /// The image by tag.
    pub image: Option<String>,
    /// Its digest.
    pub digest: Option<String>,
    /// Its tag.
    pub tag: Option<String>,
    /// Where the release serves.
    pub url: Option<String>,
    /// What served before.
    pub previous: Option<Previous>,
    /// What is in the image, where it was made here.
    pub image_report: Option<ImageReport>,
    /// How it ended.
    pub end: End,
    /// What was done.
    pub steps: Vec<StepRecord>,
    /// Why it failed.
    pub failures: Vec<Failure>,
    /// The application's last lines.
    pub log_tail: Vec<String>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum End {
    /// It failed, and nothing changed.
    #[default]
    Failed,
    /// The release failed, and what served before serves again.
    RolledBack,
    /// The release serves.
    Succeeded,
    /// The very same release served already.
    Unchanged,
    /// The deployment goes on without us.
    Started,
    /// Nothing was to be done but to plan.
    Planned,
}

impl End {
    fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::RolledBack => "rolled_back",
            Self::Succeeded => "succeeded",
            Self::Unchanged => "unchanged",
            Self::Started => "started",
            Self::Planned => "planned",
        }
    }
}

impl Outcome {
    /// Adds a step that was not needed.
    pub fn skipped(&mut self, step: Step, why: &str) {
        self.steps.push(StepRecord {
            name: step.name(),
            status: "skipped",
            seconds: 0.0,
            summary: why.to_owned(),
        });
    }

    /// The result document.
    #[must_use]
    pub fn report(&self) -> Report {
        let mut error = ErrorRecord::from_all(&self.failures);
        if let Some(error) = &mut error {
            error.log_tail.clone_from(&self.log_tail);
        }
        Report {
            schema: SCHEMA,
            status: self.end.word(),
            environment: self.environment.clone(),
            tenant: self.tenant.clone(),
            deployment: self.deployment,
            image: self.image.clone(),
            digest: self.digest.clone(),
            tag: self.tag.clone(),
            url: self.url.clone(),
            previous: self.previous.clone(),
            image_report: self.image_report.clone(),
            steps: self.steps.clone(),
            error,
        }
    }
}

//! What a run produced, success or failure: the source of the report.

use std::collections::BTreeMap;

use deploy_plan::config::APP;
use deploy_plan::failure::{Failure, Step};
use deploy_plan::report::{
    ErrorRecord, ImageReport, Previous, Report, SCHEMA, ServiceRecord, StepRecord,
};
use management_api::types::ServiceStatus;

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
    /// Its services, where it has several.
    pub services: Services,
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

/// What is known of the services of a release, by name.
#[derive(Debug, Clone, Default)]
pub struct Services(BTreeMap<String, ServiceRecord>);

impl Services {
    fn record(&mut self, name: &str) -> &mut ServiceRecord {
        let fresh = || ServiceRecord {
            name: name.to_owned(),
            ..ServiceRecord::default()
        };
        self.0.entry(name.to_owned()).or_insert_with(fresh)
    }

    /// The image of one is in the registry.
    pub(crate) fn note_pushed(&mut self, name: &str, image: &str, digest: Option<String>) {
        let record = self.record(name);
        record.image = Some(image.to_owned());
        record.digest = digest;
    }

    /// How all of them are, as the platform says.
    pub(crate) fn note_all(&mut self, services: Vec<ServiceStatus>) {
        for service in services {
            let record = self.record(&service.name);
            record.digest = Some(service.digest);
            record.state = Some(service.state);
            record.deployment = Some(service.deployment);
            record.replicas = Some(service.replicas);
            record.serving = Some(service.instances.len());
            record.public_url = service.public_url;
            record.internal_url = service.internal_url;
        }
    }

    fn records(&self) -> Vec<ServiceRecord> {
        self.0.values().cloned().collect()
    }
}

impl Outcome {
    /// Notes what is in the image of a service.
    pub(crate) fn note_image(&mut self, name: &str, report: &ImageReport) {
        let report = Some(report.clone());
        if name == APP {
            self.image_report = report;
        } else {
            self.services.record(name).image_report = report;
        }
    }

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
            services: self.services.records(),
            steps: self.steps.clone(),
            error,
        }
    }
}

//! What `cargo xtask deploy --output json` prints for a file: one of two documents, with builds or without.
//!
//! Programs read these names. Fields may be added; none is taken away.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::{FlowError, ServiceType};

/// The result of a deployment of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ArambReport {
    /// `success`; `deployed` where the control plane took it and did not tell how the services are; `failed`; `rolled_back`; `planned` with
    /// `--dry-run`.
    pub status: &'static str,
    /// The application; only with builds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application: Option<ApplicationRecord>,
    /// Whether there was nothing to build, or it was not wanted.
    pub build_skipped: bool,
    /// How many images were built: 0. Only without builds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images_built: Option<u8>,
    /// The images; only with builds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub builds: Option<BuildRecords>,
    /// The services; absent where it did not come to deploying them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployments: Option<DeploymentRecord>,
    /// How long it all took, as in `2m30s`.
    pub total_time: String,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<FlowErrorRecord>,
}

/// The application that the control plane keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ApplicationRecord {
    /// Its number or name there.
    pub id: String,
    /// The first part of its images' names.
    pub slug: String,
}

/// The images that were built, by what runs them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct BuildRecords {
    /// Run by backends, or by nobody.
    pub backend: Vec<BuildRecord>,
    /// Run by frontends; absent where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frontend: Vec<BuildRecord>,
}

impl BuildRecords {
    /// Adds one for a service of this type.
    pub fn add(&mut self, kind: Option<ServiceType>, record: BuildRecord) {
        if kind == Some(ServiceType::Frontend) {
            self.frontend.push(record);
        } else {
            self.backend.push(record);
        }
    }
}

/// An image, and a service that runs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct BuildRecord {
    /// The service; absent where nobody runs the image.
    pub service: Option<String>,
    /// The build.
    pub build_service: String,
    /// `{application}/{build}`
    pub docker_repo: String,
    /// What the service runs.
    pub image: String,
    /// The commit, shortened.
    pub commit_sha: String,
    /// How long the build took, as in `45s`.
    pub build_time: String,
    /// `success`, or `unchanged` where it was there already.
    pub status: &'static str,
    /// Whether the file named it for the deployment.
    pub toml_updated: bool,
}

/// The services that were deployed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct DeploymentRecord {
    /// Their names: databases, backends, frontends.
    pub services: Vec<String>,
    /// As of the whole document.
    pub status: &'static str,
    /// What the first backend has told, or the first frontend where there is no backend.
    pub backend_outputs: OutputsRecord,
    /// Those that are well.
    pub successful: Vec<String>,
    /// Those that are not.
    pub failed: Vec<String>,
}

/// Where a service is; `null` where it was not told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct OutputsRecord {
    /// For everybody.
    #[serde(rename = "PUBLIC_URL")]
    pub public_url: Option<String>,
    /// For the other services.
    #[serde(rename = "INTERNAL_URL")]
    pub internal_url: Option<String>,
}

/// Why a deployment failed: what is printed as `ERROR:`, `Step:` and `Details:`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FlowErrorRecord {
    /// In one line.
    pub message: String,
    /// `5 - Run Build Commands`
    pub step: String,
    /// Lines.
    pub details: Vec<String>,
    /// Stable, for programs.
    pub code: &'static str,
    /// How the command ends.
    pub exit: u8,
}

impl FlowErrorRecord {
    /// Of an error that ends the command so.
    #[must_use]
    pub fn of(error: &FlowError, exit: u8) -> Self {
        Self {
            message: error.message.clone(),
            step: error.step.to_string(),
            details: error.details.clone(),
            code: error.code,
            exit,
        }
    }
}

/// `45s`, `2m30s`, `1h0m5s`: whole seconds, as the documents have them.
#[must_use]
pub fn words(time: Duration) -> String {
    let seconds = time.as_secs() + u64::from(time.subsec_millis() >= 500);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_words() {
        for (seconds, expected) in [
            (0.2, "0s"),
            (45.0, "45s"),
            (59.6, "1m0s"),
            (150.0, "2m30s"),
            (3605.0, "1h0m5s"),
        ] {
            assert_eq!(words(Duration::from_secs_f64(seconds)), expected);
        }
    }

    /// The documents that the field knows, name by name.
    #[test]
    fn both_documents_have_the_names_that_programs_read() {
        let outputs = OutputsRecord {
            public_url: Some("https://backend-api.aramb.dev".to_owned()),
            internal_url: Some("http://backend-api:8080".to_owned()),
        };
        let services = vec!["postgres-db".to_owned(), "backend-api".to_owned()];
        let deployments = DeploymentRecord {
            services: services.clone(),
            status: "success",
            backend_outputs: outputs,
            successful: services,
            failed: Vec::new(),
        };
        let mut report = ArambReport {
            status: "success",
            application: None,
            build_skipped: true,
            images_built: Some(0),
            builds: None,
            deployments: Some(deployments),
            total_time: "30s".to_owned(),
            error: None,
        };
        let told = serde_json::to_value(&report).unwrap();
        let deployments = serde_json::json!({
            "services": ["postgres-db", "backend-api"],
            "status": "success",
            "backend_outputs": {
                "PUBLIC_URL": "https://backend-api.aramb.dev",
                "INTERNAL_URL": "http://backend-api:8080"
            },
            "successful": ["postgres-db", "backend-api"],
            "failed": []
        });
        let expected = serde_json::json!({
            "status": "success",
            "build_skipped": true,
            "images_built": 0,
            "deployments": deployments,
            "total_time": "30s"
        });
        assert_eq!(told, expected);

        let mut builds = BuildRecords::default();
        let record = BuildRecord {
            service: Some("backend-api".to_owned()),
            build_service: "backend-build".to_owned(),
            docker_repo: "my-app/backend-build".to_owned(),
            image: "my-app/backend-build:abc123".to_owned(),
            commit_sha: "abc123".to_owned(),
            build_time: "45s".to_owned(),
            status: "success",
            toml_updated: true,
        };
        builds.add(Some(ServiceType::Backend), record);
        report.application = Some(ApplicationRecord {
            id: "app-xyz789".to_owned(),
            slug: "my-app".to_owned(),
        });
        report.build_skipped = false;
        report.images_built = None;
        report.builds = Some(builds);
        report.total_time = "2m30s".to_owned();
        let told = serde_json::to_value(&report).unwrap();
        let expected = serde_json::json!({
            "status": "success",
            "application": {"id": "app-xyz789", "slug": "my-app"},
            "build_skipped": false,
            "builds": {
                "backend": [{
                    "service": "backend-api",
                    "build_service": "backend-build",
                    "docker_repo": "my-app/backend-build",
                    "image": "my-app/backend-build:abc123",
                    "commit_sha": "abc123",
                    "build_time": "45s",
                    "status": "success",
                    "toml_updated": true
                }]
            },
            "deployments": deployments,
            "total_time": "2m30s"
        });
        assert_eq!(told, expected);
    }
}

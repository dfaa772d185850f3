//! How the services of a release are, a line each.

use deploy_plan::report::ServiceRecord;
use management_api::types::ServiceStatus;

use super::table::table as aligned;

/// A service as the platform tells of it.
pub(crate) struct Row<'a> {
    name: &'a str,
    state: &'a str,
    message: Option<&'a str>,
    serving: usize,
    replicas: u32,
    deployment: u64,
    public_url: Option<&'a str>,
    internal_url: Option<&'a str>,
}

impl<'a> Row<'a> {
    pub(crate) fn of_status(service: &'a ServiceStatus) -> Self {
        Self {
            name: &service.name,
            state: &service.state,
            message: service.message.as_deref(),
            serving: service.instances.len(),
            replicas: service.replicas,
            deployment: service.deployment,
            public_url: service.public_url.as_deref(),
            internal_url: service.internal_url.as_deref(),
        }
    }

    /// Nothing where it was not told how it is.
    pub(crate) fn of_record(service: &'a ServiceRecord) -> Option<Self> {
        Some(Self {
            name: &service.name,
            state: service.state.as_deref()?,
            message: None,
            serving: service.serving?,
            replicas: service.replicas?,
            deployment: service.deployment?,
            public_url: service.public_url.as_deref(),
            internal_url: service.internal_url.as_deref(),
        })
    }

    fn cells(&self) -> Vec<String> {
        let reached = match (self.public_url, self.internal_url) {
            (Some(public), _) => public.to_owned(),
            (None, Some(internal)) => format!("{internal} (for the other services)"),
            (None, None) => String::new(),
        };
        let reached = match self.message {
            Some(message) if reached.is_empty() => message.to_owned(),
            Some(message) => format!("{reached}: {message}"),
            None => reached,
        };
        vec![
            self.name.to_owned(),
            self.state.to_owned(),
            format!("{} of {}", self.serving, self.replicas),
            self.deployment.to_string(),
            reached,
        ]
    }
}

/// The services as a table; nothing without any.
pub(crate) fn table<'a>(services: impl Iterator<Item = Row<'a>>) -> String {
    let rows: Vec<Vec<String>> = services.map(|row| row.cells()).collect();
    if rows.is_empty() {
        return String::new();
    }
    aligned(
        &["SERVICE", "STATE", "INSTANCES", "DEPLOYMENT", "URL"],
        rows,
    )
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_each_with_where_it_is_reached() {
        let service = |name: &str, public: Option<&str>, internal: Option<&str>| ServiceRecord {
            name: name.to_owned(),
            state: Some("serving".to_owned()),
            deployment: Some(3),
            replicas: Some(2),
            serving: Some(1),
            public_url: public.map(str::to_owned),
            internal_url: internal.map(str::to_owned),
            ..ServiceRecord::default()
        };
        let unknown = ServiceRecord {
            name: "unknown".to_owned(),
            ..ServiceRecord::default()
        };
        let services = [
            service("api", Some("http://a/api"), Some("http://b")),
            service("db", None, Some("tcp://c")),
            service("worker", None, None),
            unknown,
        ];
        let text = table(services.iter().filter_map(Row::of_record));
        assert_eq!(
            text,
            "SERVICE  STATE    INSTANCES  DEPLOYMENT  URL\n\
             api      serving  1 of 2     3           http://a/api\n\
             db       serving  1 of 2     3           tcp://c (for the other services)\n\
             worker   serving  1 of 2     3\n"
        );
        assert_eq!(table(std::iter::empty()), "");
    }
}

//! What travels between the server and an external engine. Fields may be added, never renamed; unknown ones are passed over.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};

use crate::instance::Exit;
use crate::orchestrator::{
    Address, Cause, Counted, GivenUp, HealthCheck, LoggedLine, Observed, Over, Place, Probe,
    Protocol, Ran, RestartPolicy, Task, Wanted, WantedService,
};
use crate::registry::Registry;

/// The version of all of this.
pub(super) const PROTOCOL: u32 = 1;

/// `GET /v1/engine`.
#[derive(Deserialize)]
pub(super) struct About {
    pub(super) protocol: u32,
    /// As people call it.
    pub(super) name: String,
    #[serde(default)]
    pub(super) notes: Vec<String>,
    /// Of `memory`, `cpu`, `pids` and `read_only` those that it enforces.
    #[serde(default)]
    pub(super) enforces: Vec<String>,
}

/// Any answer that is no success.
#[derive(Deserialize)]
pub(super) struct Refusal {
    pub(super) code: String,
    pub(super) message: String,
}

/// `PUT /v1/tenants/TENANT/place`.
#[derive(Serialize)]
pub(super) struct PlaceRequest {
    pub(super) services: Vec<String>,
}

/// Its answer.
#[derive(Deserialize)]
pub(super) struct PlaceRecord {
    url: String,
    #[serde(default)]
    services: BTreeMap<String, AddressRecord>,
}

#[derive(Deserialize)]
struct AddressRecord {
    host: String,
    port: u16,
}

impl From<PlaceRecord> for Place {
    fn from(record: PlaceRecord) -> Self {
        let services = record.services.into_iter();
        let services = services.map(|(name, AddressRecord { host, port })| {
            let address = Address { host, port };
            (name, address)
        });
        Self {
            url: record.url.trim_end_matches('/').to_owned(),
            services: services.collect(),
        }
    }
}

/// `PUT /v1/tenants/TENANT/release`.
#[derive(Serialize)]
pub(super) struct WantedRecord {
    turn: u64,
    deployment: u64,
    restart: bool,
    surge: u32,
    unavailable: u32,
    services: Vec<ServiceRecord>,
}

/// `POST /v1/tenants/TENANT/run`.
#[derive(Serialize)]
pub(super) struct TaskRecord {
    turn: u64,
    deployment: u64,
    service: ServiceRecord,
}

#[derive(Serialize)]
struct ServiceRecord {
    name: String,
    image: ImageRecord,
    command: Option<Vec<String>>,
    env: BTreeMap<String, String>,
    replicas: u32,
    resources: ResourcesRecord,
    health: HealthRecord,
    restart: &'static str,
    depends_on: Vec<String>,
    protocol: Option<&'static str>,
    routes: Vec<RouteRecord>,
}

#[derive(Serialize)]
struct ImageRecord {
    /// `HOST:PORT/REPOSITORY@DIGEST`.
    reference: String,
    tls: bool,
    /// A bearer token that allows to pull it for a few minutes.
    token: String,
}

#[derive(Serialize)]
struct ResourcesRecord {
    memory_bytes: Option<u64>,
    cpu_millis: Option<u32>,
    pids: Option<u32>,
    read_only: bool,
    best_effort: bool,
}

#[derive(Serialize)]
struct RouteRecord {
    host: Option<String>,
    path: String,
}

#[derive(Serialize)]
struct HealthRecord {
    probe: ProbeRecord,
    interval_ms: u128,
    timeout_ms: u128,
    start_period_ms: u128,
    retries: u32,
    liveness: Option<LivenessRecord>,
}

#[derive(Serialize)]
struct LivenessRecord {
    probe: ProbeRecord,
    interval_ms: u128,
    timeout_ms: u128,
    retries: u32,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum ProbeRecord {
    Http {
        path: String,
        status: u16,
        body: Option<String>,
    },
    Tcp,
    Command {
        command: Vec<String>,
    },
    Process,
}

impl WantedRecord {
    pub(super) fn of(wanted: Wanted, registry: &dyn Registry) -> Self {
        let services = wanted.services.into_iter();
        Self {
            turn: wanted.turn,
            deployment: wanted.deployment,
            restart: wanted.restart,
            surge: wanted.surge,
            unavailable: wanted.unavailable,
            services: services
                .map(|service| ServiceRecord::of(service, registry))
                .collect(),
        }
    }
}

impl TaskRecord {
    pub(super) fn of(task: Task, registry: &dyn Registry) -> Self {
        Self {
            turn: task.turn,
            deployment: task.deployment,
            service: ServiceRecord::of(task.service, registry),
        }
    }
}

impl ServiceRecord {
    fn of(service: WantedService, registry: &dyn Registry) -> Self {
        let (host, repository) = (registry.host(), &service.repository);
        let image = ImageRecord {
            reference: format!("{host}/{}@{}", repository.as_str(), service.image),
            tls: registry.has_tls(),
            token: registry.token(repository).expose_secret().to_owned(),
        };
        let resources = ResourcesRecord {
            memory_bytes: service.resources.memory,
            cpu_millis: service.resources.cpu_millis,
            pids: service.resources.pids,
            read_only: service.resources.read_only,
            best_effort: service.resources.best_effort,
        };
        let routes = service.routes.into_iter();
        let routes = routes.map(|route| RouteRecord {
            host: route.host,
            path: route.path,
        });
        Self {
            name: service.name,
            image,
            command: service.command,
            env: service.env,
            replicas: service.replicas,
            resources,
            health: service.health.into(),
            restart: match service.restart {
                RestartPolicy::Always => "always",
                RestartPolicy::OnFailure => "on-failure",
                RestartPolicy::Never => "never",
            },
            depends_on: service.depends_on,
            protocol: service.protocol.map(|protocol| match protocol {
                Protocol::Http => "http",
                Protocol::Tcp => "tcp",
            }),
            routes: routes.collect(),
        }
    }
}

impl From<HealthCheck> for HealthRecord {
    fn from(check: HealthCheck) -> Self {
        Self {
            probe: check.probe.into(),
            interval_ms: check.interval.as_millis(),
            timeout_ms: check.timeout.as_millis(),
            start_period_ms: check.start_period.as_millis(),
            retries: check.retries,
            liveness: check.liveness.map(|liveness| LivenessRecord {
                probe: liveness.probe.into(),
                interval_ms: liveness.interval.as_millis(),
                timeout_ms: liveness.timeout.as_millis(),
                retries: liveness.retries,
            }),
        }
    }
}

impl From<Probe> for ProbeRecord {
    fn from(probe: Probe) -> Self {
        match probe {
            Probe::Http { path, status, body } => Self::Http { path, status, body },
            Probe::Tcp => Self::Tcp,
            Probe::Command(command) => Self::Command { command },
            Probe::Process => Self::Process,
        }
    }
}

/// The answer to `POST /v1/tenants/TENANT/run`.
#[derive(Deserialize)]
pub(super) struct RanRecord {
    #[serde(flatten)]
    exit: ExitRecord,
    #[serde(default)]
    log_tail: Vec<String>,
}

/// One of the first two; the third as well where the kernel has ended it because its memory was used up.
#[derive(Deserialize, Default)]
struct ExitRecord {
    exit_code: Option<i32>,
    signal: Option<i32>,
    /// The bound, in bytes.
    out_of_memory: Option<u64>,
}

impl ExitRecord {
    fn exit(&self) -> Option<Exit> {
        match *self {
            Self {
                out_of_memory: Some(limit),
                ..
            } => Some(Exit::OutOfMemory { limit }),
            Self {
                signal: Some(signal),
                ..
            } => Some(Exit::Signal(signal)),
            Self { exit_code, .. } => exit_code.map(Exit::Code),
        }
    }
}

impl RanRecord {
    /// `None` where it does not say how the command has ended.
    pub(super) fn ran(self) -> Option<Ran> {
        Some(Ran {
            exit: self.exit.exit()?,
            log_tail: self.log_tail,
        })
    }
}

/// The answer to `GET /v1/tenants/TENANT/release`.
#[derive(Deserialize)]
pub(super) struct ObservedRecord {
    turn: u64,
    deployment: u64,
    serving: Option<u64>,
    #[serde(default)]
    services: BTreeMap<String, CountedRecord>,
    failed: Option<FailedRecord>,
}

#[derive(Deserialize)]
struct CountedRecord {
    deployment: u64,
    #[serde(default)]
    ready: Vec<String>,
    #[serde(default)]
    restarts: u64,
    reason: Option<String>,
    over: Option<OverRecord>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum OverRecord {
    Well,
    Failed,
}

#[derive(Deserialize)]
struct FailedRecord {
    /// `ended`, `unhealthy`, `silent`, `image_not_found`; anything else is a failure to start.
    cause: String,
    message: String,
    #[serde(flatten)]
    exit: ExitRecord,
    service: Option<String>,
    #[serde(default)]
    log_tail: Vec<String>,
}

impl From<ObservedRecord> for Observed {
    fn from(record: ObservedRecord) -> Self {
        let services = record.services.into_iter();
        Self {
            turn: record.turn,
            deployment: record.deployment,
            serving: record.serving,
            services: services.map(|(name, one)| (name, one.into())).collect(),
            failed: record.failed.map(Into::into),
        }
    }
}

impl From<CountedRecord> for Counted {
    fn from(record: CountedRecord) -> Self {
        Self {
            deployment: record.deployment,
            ready: record.ready,
            restarts: record.restarts,
            reason: record.reason,
            over: record.over.map(|over| match over {
                OverRecord::Well => Over::Well,
                OverRecord::Failed => Over::Failed,
            }),
        }
    }
}

impl From<FailedRecord> for GivenUp {
    fn from(record: FailedRecord) -> Self {
        let cause = match (record.cause.as_str(), record.exit.exit()) {
            ("ended", Some(exit)) => Cause::Ended(exit),
            ("unhealthy", _) => Cause::Unhealthy,
            ("silent", _) => Cause::Silent,
            ("image_not_found", _) => Cause::ImageNotFound,
            _ => Cause::NotStarted,
        };
        Self {
            cause,
            message: record.message,
            service: record.service,
            log_tail: record.log_tail,
        }
    }
}

/// A line of the answer to `GET /v1/tenants/TENANT/logs?after=NUMBER`.
#[derive(Deserialize)]
pub(super) struct LineRecord {
    number: u64,
    at: DateTime<Utc>,
    deployment: u64,
    service: String,
    #[serde(default)]
    instance: Option<String>,
    /// `stdout` or `stderr`.
    stream: String,
    line: String,
}

impl From<LineRecord> for LoggedLine {
    fn from(record: LineRecord) -> Self {
        Self {
            number: record.number,
            at: record.at,
            deployment: record.deployment,
            service: record.service,
            instance: record.instance,
            is_error: record.stream == "stderr",
            text: record.line,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(text: &str) -> Observed {
        let record: ObservedRecord = serde_json::from_str(text).unwrap();
        record.into()
    }

    #[test]
    fn an_answer_may_say_little_and_more_than_is_known() {
        let observed = observed(
            r#"{"turn": 2, "deployment": 1, "of a later version": 1, "services": {"app": {"deployment": 1}}}"#,
        );
        assert_eq!((observed.turn, observed.serving), (2, None));
        let app = Counted {
            deployment: 1,
            ..Counted::default()
        };
        assert_eq!(observed.services["app"], app);
    }

    #[test]
    fn each_way_to_give_up_has_its_cause() {
        for (fields, cause) in [
            (
                r#""cause": "ended", "exit_code": 3"#,
                Cause::Ended(Exit::Code(3)),
            ),
            (
                r#""cause": "ended", "signal": 6"#,
                Cause::Ended(Exit::Signal(6)),
            ),
            (
                r#""cause": "ended", "signal": 9, "out_of_memory": 48"#,
                Cause::Ended(Exit::OutOfMemory { limit: 48 }),
            ),
            (r#""cause": "ended""#, Cause::NotStarted),
            (r#""cause": "unhealthy""#, Cause::Unhealthy),
            (r#""cause": "silent""#, Cause::Silent),
            (r#""cause": "image_not_found""#, Cause::ImageNotFound),
            (r#""cause": "of a later version""#, Cause::NotStarted),
        ] {
            let failed = format!(r#"{{"message": "why", {fields}}}"#);
            let text = format!(r#"{{"turn": 2, "deployment": 1, "failed": {failed}}}"#);
            let failed = observed(&text).failed.unwrap();
            assert_eq!((failed.cause, failed.message.as_str()), (cause, "why"));
        }
    }
}

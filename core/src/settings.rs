//! The platform's own configuration: `platform.toml` in the services folder.
//!
//! Every key is optional, an unknown one is refused with its line. The file is data that the image
//! ships: nothing in it is secret.

mod tenants;

use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use management_api::types::{HealthCheck, Probe};
use serde::Deserialize;

use crate::deployments::{Refusal, RequestDefaults, check_health};
use crate::ports;
use crate::retention::{self, Rules};

pub(crate) use tenants::Tenants;

/// Name of the file within the services folder.
const FILE: &str = "platform.toml";
/// In seconds.
const SHORTEST_LEASE: u64 = 3;
/// A collection is bounded work: what is left goes with the next.
const COLLECTED_AT_ONCE: usize = 200;

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// Whoever names a folder means one that is there.
    #[error("there is no folder {}: --services names the one that holds {FILE}", path.display())]
    NoFolder {
        /// What was named.
        path: PathBuf,
    },
    /// The file is there and cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file is not what it should be; the cause names line and key.
    #[error("{} is not a valid platform configuration", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: toml::de::Error,
    },
    /// With no release kept even the one that serves could not be started again.
    #[error("{}: [retention] releases_kept must be at least 1", path.display())]
    Retention {
        /// The file.
        path: PathBuf,
    },
    /// A server would lose it whenever the machine is busy.
    #[error("{}: [database] lease_seconds must be at least {SHORTEST_LEASE}", path.display())]
    Lease {
        /// The file.
        path: PathBuf,
    },
    /// There is no such port, or none between the two.
    #[error("{}: [engine] instance_ports must be a first and a last port, from 1 on", path.display())]
    Ports {
        /// The file.
        path: PathBuf,
    },
    /// There is no such share.
    #[error("{}: [telemetry] sample_ratio must be from 0 to 1, and timeout_seconds at least 1", path.display())]
    Telemetry {
        /// The file.
        path: PathBuf,
    },
    /// A value makes no sense.
    #[error("{}: [health] is refused", path.display())]
    Health {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Refusal,
    },
}

/// What may be tuned.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// How much of what.
    pub(crate) limits: Limits,
    /// How a release replaces another.
    pub(crate) rollout: Rollout,
    /// How instances are run.
    pub(crate) engine: Engine,
    /// How an instance proves that it works, where a request does not say.
    pub(crate) health: Health,
    /// What is kept for how long.
    pub(crate) retention: Retention,
    /// Several servers of one database.
    pub(crate) database: Database,
    /// The certificate that is shown, where the command line names none.
    pub(crate) tls: Option<TlsFiles>,
    /// Who gets traces.
    pub(crate) telemetry: Telemetry,
    /// How the tenants' URLs are reached from elsewhere.
    pub(crate) tenants: Tenants,
}

/// Who gets traces, where no standard variable (`OTEL_…`) says otherwise. Nobody, if neither names an endpoint.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Telemetry {
    /// Base URL of a collector that takes OTLP over HTTP.
    pub(crate) endpoint: Option<String>,
    /// Of the traces that begin here, which share is sent: 0 to 1.
    pub(crate) sample_ratio: f64,
    /// For one batch.
    pub(crate) timeout_seconds: u64,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            endpoint: None,
            sample_ratio: 1.0,
            timeout_seconds: 10,
        }
    }
}

/// What is kept for how long. Zero where nothing is said: no bound.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Retention {
    /// How many of a tenant's releases that have served stay in the registry.
    pub(crate) releases_kept: usize,
    /// How long other images stay after they were pushed, asked about or deployed last.
    pub(crate) image_days_kept: u64,
    /// How large the registry may be; zero is no bound.
    pub(crate) registry_bytes_kept: u64,
    /// How long logs stay; zero is no bound.
    pub(crate) log_days_kept: u64,
    /// How much of a tenant's logs stays; zero is no bound.
    pub(crate) tenant_log_bytes_kept: u64,
    /// Between two looks at what can go; zero is never.
    pub(crate) interval_seconds: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            releases_kept: 10,
            image_days_kept: 7,
            registry_bytes_kept: 0,
            log_days_kept: 30,
            tenant_log_bytes_kept: 0,
            interval_seconds: 60 * 60,
        }
    }
}

impl Retention {
    /// What it says of images.
    pub(crate) fn rules(&self) -> Rules {
        Rules {
            releases_kept: self.releases_kept,
            age_kept: days(self.image_days_kept),
            bytes_kept: bound(self.registry_bytes_kept),
            grace: retention::GRACE,
            at_once: COLLECTED_AT_ONCE,
        }
    }

    /// Between two looks at what can go, if there are any.
    pub(crate) fn interval(&self) -> Option<Duration> {
        bound(self.interval_seconds).map(Duration::from_secs)
    }

    /// How long logs stay.
    pub(crate) fn log_age(&self) -> Option<Duration> {
        bound(self.log_days_kept).map(days)
    }

    /// How much of a tenant's logs stays.
    pub(crate) fn tenant_log_bytes(&self) -> Option<u64> {
        bound(self.tenant_log_bytes_kept)
    }
}

fn bound(value: u64) -> Option<u64> {
    (value != 0).then_some(value)
}

fn days(count: u64) -> Duration {
    Duration::from_secs(count.saturating_mul(24 * 60 * 60))
}

/// The certificate that is shown to clients, and its key: paths of files in PEM.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsFiles {
    /// The certificate, and behind it those that lead to its authority.
    pub(crate) certificate: PathBuf,
    /// Its private key.
    pub(crate) key: PathBuf,
}

/// How much of what.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// The largest blob that may be pushed.
    pub(crate) max_upload_bytes: u64,
    /// How many of a tenant's newest deployments stay unpacked for a fast rollback.
    pub(crate) max_deployments_kept: u32,
    /// How much of one deployment's log is kept.
    pub(crate) log_bytes_kept: u64,
    /// Connections to the API and the registry at once.
    pub(crate) max_connections: usize,
    /// Requests of one token, on the average; twenty times as many may come at once.
    pub(crate) requests_per_second: u32,
    /// Refused tokens from one address at once; afterwards one a second. This machine itself may have ten times as many.
    pub(crate) failed_logins: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_upload_bytes: 10 * 1024 * 1024 * 1024,
            max_deployments_kept: 10,
            log_bytes_kept: 10 * 1024 * 1024,
            max_connections: 1024,
            requests_per_second: 500,
            failed_logins: 100,
        }
    }
}

/// How a release replaces another.
#[expect(
    clippy::struct_field_names,
    reason = "the keys of the file name their unit"
)]
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Rollout {
    /// How long the old instance may finish its requests.
    pub(crate) drain_seconds: u64,
    /// How long an instance may take to end after SIGTERM.
    pub(crate) stop_grace_seconds: u64,
    /// Deadline of a rollout whose request names none.
    pub(crate) timeout_seconds: u64,
    /// How long an old release may take to serve again when a rollout is undone.
    pub(crate) restore_seconds: u64,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            drain_seconds: 30,
            stop_grace_seconds: 10,
            timeout_seconds: 300,
            restore_seconds: 120,
        }
    }
}

impl Rollout {
    /// How long the old instance may finish its requests.
    pub(crate) fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }

    /// How long an instance may take to end after SIGTERM.
    pub(crate) fn stop_grace(&self) -> Duration {
        Duration::from_secs(self.stop_grace_seconds)
    }

    /// How long an old release may take to serve again when a rollout is undone.
    pub(crate) fn restore(&self) -> Duration {
        Duration::from_secs(self.restore_seconds)
    }
}

/// How instances are run.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Engine {
    /// What runs them.
    pub(crate) kind: EngineKind,
    /// How long instances go on without a server, for the next one to take them over. Those of Docker go on until then.
    pub(crate) orphan_seconds: u64,
    /// The first and the last of the ports that instances get.
    pub(crate) instance_ports: (u16, u16),
    pub(crate) docker: Docker,
    pub(crate) external: External,
}

/// What runs instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EngineKind {
    /// The server itself.
    Process,
    /// A Docker Engine.
    Docker,
    /// A program of its own, which replaces releases by itself.
    External,
}

/// How an engine that is a program of its own is spoken to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct External {
    /// Where it listens.
    pub(crate) socket: PathBuf,
    /// `host:port` by which it reaches this server's registry; where this server listens if it is not said.
    pub(crate) registry: Option<String>,
}

impl Default for External {
    fn default() -> Self {
        Self {
            socket: PathBuf::from("/run/systemprompt/engine.sock"),
            registry: None,
        }
    }
}

/// How the Docker Engine is spoken to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Docker {
    /// Its socket.
    pub(crate) socket: PathBuf,
    /// The network of instances, `host` for the machine's own.
    pub(crate) network: String,
    /// `host:port` by which it reaches this server's registry; where this server listens if it is not said.
    pub(crate) registry: Option<String>,
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            kind: EngineKind::Process,
            orphan_seconds: 300,
            instance_ports: ports::INSTANCES.into_inner(),
            docker: Docker::default(),
            external: External::default(),
        }
    }
}

impl Default for Docker {
    fn default() -> Self {
        Self {
            socket: PathBuf::from("/var/run/docker.sock"),
            network: "systemprompt".to_owned(),
            registry: None,
        }
    }
}

impl Docker {
    /// The network, as the engine knows it.
    pub(crate) fn network(&self) -> engines::docker::Network {
        match self.network.as_str() {
            "host" => engines::docker::Network::Host,
            name => engines::docker::Network::Named(name.to_owned()),
        }
    }
}

impl Engine {
    /// How long instances go on without a server.
    pub(crate) fn orphan(&self) -> Duration {
        Duration::from_secs(self.orphan_seconds)
    }

    /// The ports that instances get.
    pub(crate) fn instance_ports(&self) -> RangeInclusive<u16> {
        let (first, last) = self.instance_ports;
        first..=last
    }
}

/// Several servers of one database, of which one leads.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Database {
    /// How long a server leads that is not heard of any more; also how long one leads on that does not hear of the database.
    pub(crate) lease_seconds: u64,
}

impl Default for Database {
    fn default() -> Self {
        Self { lease_seconds: 15 }
    }
}

impl Database {
    /// How long a server leads that is not heard of any more.
    pub(crate) fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_seconds)
    }
}

/// How an instance proves that it works. The defaults are those of the platforms people come from:
/// a minute to start, three failures in a row.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Health {
    /// Path of a `GET` that must answer 200.
    pub(crate) path: String,
    /// Between two checks of a running instance.
    pub(crate) interval_seconds: u64,
    /// For one check.
    pub(crate) timeout_seconds: u64,
    /// After the start, in which failures do not count.
    pub(crate) start_period_seconds: u64,
    /// Failures in a row that make an instance unhealthy.
    pub(crate) retries: u32,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            path: management_api::paths::HEALTH.to_owned(),
            interval_seconds: 30,
            timeout_seconds: 5,
            start_period_seconds: 60,
            retries: 3,
        }
    }
}

impl Settings {
    /// Reads the file in `folder`; the defaults where there is none.
    pub(crate) fn load(folder: &Path) -> Result<Self, SettingsError> {
        if !folder.is_dir() {
            let path = folder.to_owned();
            return Err(SettingsError::NoFolder { path });
        }
        let path = folder.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(SettingsError::Read { path, source }),
        };
        let settings: Self = match toml::from_str(&text) {
            Ok(settings) => settings,
            Err(source) => return Err(SettingsError::Parse { path, source }),
        };
        if settings.retention.releases_kept == 0 {
            return Err(SettingsError::Retention { path });
        }
        if settings.database.lease_seconds < SHORTEST_LEASE {
            return Err(SettingsError::Lease { path });
        }
        let (first, last) = settings.engine.instance_ports;
        if first == 0 || first > last {
            return Err(SettingsError::Ports { path });
        }
        let telemetry = &settings.telemetry;
        let is_share = (0.0..=1.0).contains(&telemetry.sample_ratio);
        if !is_share || telemetry.timeout_seconds == 0 {
            return Err(SettingsError::Telemetry { path });
        }
        check_health(&settings.request_defaults().health)
            .map_err(|source| SettingsError::Health { path, source })?;
        Ok(settings)
    }

    /// What applies where a request is silent.
    pub(crate) fn request_defaults(&self) -> RequestDefaults {
        let health = &self.health;
        RequestDefaults {
            health: HealthCheck {
                probe: Probe {
                    path: health.path.clone(),
                    ..Probe::default()
                },
                interval_ms: health.interval_seconds.saturating_mul(1000),
                timeout_ms: health.timeout_seconds.saturating_mul(1000),
                start_period_ms: health.start_period_seconds.saturating_mul(1000),
                retries: health.retries,
                liveness: None,
            },
            timeout_seconds: self.rollout.timeout_seconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    fn load(text: &str) -> Result<Settings, SettingsError> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), text).unwrap();
        Settings::load(folder.path())
    }

    #[test]
    fn without_a_file_the_defaults_apply() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Settings::load(folder.path()).unwrap(), Settings::default());
    }

    #[test]
    fn a_folder_that_is_not_there_is_no_folder_without_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let refused = Settings::load(&folder.path().join("servces")).unwrap_err();
        assert!(refused.to_string().contains("servces"), "{refused}");
    }

    #[test]
    fn one_key_leaves_the_others() {
        let settings = load("[rollout]\ndrain_seconds = 5\n").unwrap();
        assert_eq!(settings.rollout.drain(), Duration::from_secs(5));
        assert_eq!(settings.rollout.timeout_seconds, 300);
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = load("[rollout]\ndrain_secs = 5\n").unwrap_err();
        let cause = error.source().unwrap().to_string();
        assert!(
            cause.contains("drain_secs") && cause.contains('2'),
            "{cause}"
        );
    }

    #[test]
    fn a_health_check_that_makes_no_sense_is_refused() {
        assert!(load("[health]\nretries = 0\n").is_err());
    }

    #[test]
    fn traces_are_off_and_their_share_is_one() {
        assert_eq!(Settings::default().telemetry.endpoint, None);
        let refused = load("[telemetry]\nsample_ratio = 1.5\n").unwrap_err();
        assert!(refused.to_string().contains("from 0 to 1"), "{refused}");
    }

    #[test]
    fn how_tenants_are_reached_is_named_with_its_reason_when_it_is_refused() {
        let settings = load("[tenants]\nurl = \"https://{tenant}.example.com\"\n").unwrap();
        let url = settings.tenants.url_of("shop", 20_007);
        assert_eq!(url.unwrap(), "https://shop.example.com");
        assert_eq!(Settings::default().tenants.url_of("shop", 20_007), None);
        let error = load("[tenants]\nurl = \"https://example.com\"\n").unwrap_err();
        let cause = error.source().unwrap().to_string();
        assert!(cause.contains("all tenants would have it"), "{cause}");
    }

    #[test]
    fn at_least_the_release_that_serves_is_kept() {
        let error = load("[retention]\nreleases_kept = 0\n").unwrap_err();
        assert!(error.to_string().contains("at least 1"), "{error}");
        let settings = load("[retention]\ninterval_seconds = 0\n").unwrap();
        assert_eq!(settings.retention.interval(), None);
        assert_eq!(settings.retention.rules().bytes_kept, None);
    }

    #[test]
    fn the_shipped_configuration_is_understood() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../services");
        assert!(
            folder.join(FILE).is_file(),
            "{} is missing",
            folder.display()
        );
        Settings::load(&folder).unwrap();
    }
}

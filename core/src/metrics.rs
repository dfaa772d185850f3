//! Measurements in Prometheus' text format.

mod traffic;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::deployments::State;

/// From a quick switch to a slow start.
const ROLLOUT_SECONDS: [f64; 10] = [0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];
const REQUEST_SECONDS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// What the server counts itself.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Histogram,
    deployments: Family<ResultLabels, Counter>,
    rollout_seconds: Histogram,
    restarts: Family<TenantLabels, Counter>,
    registry_bytes: Gauge<u64, AtomicU64>,
    volume_bytes: Family<VolumeLabels, Gauge<u64, AtomicU64>>,
}

/// What a tenant's proxy has counted.
#[derive(Debug, Clone)]
pub(crate) struct TenantMeasurements {
    pub(crate) tenant: String,
    /// Whether an instance serves.
    pub(crate) up: bool,
    pub(crate) traffic: Option<proxy::Stats>,
    /// Instances that serve, by service.
    pub(crate) services: BTreeMap<String, usize>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TenantLabels {
    tenant: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VolumeLabels {
    tenant: String,
    volume: String,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("systemprompt");
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "The running server", Info::new(version.to_vec()));
        let requests = Family::default();
        registry.register(
            "http_requests",
            "Requests to the API",
            Family::clone(&requests),
        );
        let request_seconds = Histogram::new(REQUEST_SECONDS);
        registry.register(
            "http_request_duration_seconds",
            "Time to the head of an answer of the API",
            request_seconds.clone(),
        );
        let deployments = Family::default();
        registry.register(
            "deployments",
            "Finished deployments",
            Family::clone(&deployments),
        );
        let rollout_seconds = Histogram::new(ROLLOUT_SECONDS);
        registry.register(
            "rollout_duration_seconds",
            "Time from a request to its final state",
            rollout_seconds.clone(),
        );
        let restarts = Family::default();
        registry.register(
            "instance_restarts",
            "Restarts of instances that ended by themselves",
            Family::clone(&restarts),
        );
        let registry_bytes = Gauge::default();
        registry.register(
            "registry_bytes",
            "Bytes of all blobs in the registry, as last measured",
            registry_bytes.clone(),
        );
        let volume_bytes = Family::default();
        registry.register(
            "volume_bytes",
            "Bytes of a volume on disk, as last measured, unless it has too many files",
            Family::clone(&volume_bytes),
        );
        Self {
            registry,
            requests,
            request_seconds,
            deployments,
            rollout_seconds,
            restarts,
            registry_bytes,
            volume_bytes,
        }
    }

    /// One request to the API. `route` is the template of its path: labels must be few.
    pub(crate) fn count_request(
        &self,
        method: &Method,
        route: &str,
        status: StatusCode,
        took: Duration,
    ) {
        let known = [
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ];
        let method = if known.contains(method) {
            method.as_str()
        } else {
            "other"
        };
        let labels = RequestLabels {
            method: method.to_owned(),
            route: route.to_owned(),
            status: status.as_u16(),
        };
        self.requests.get_or_create(&labels).inc();
        self.request_seconds.observe(took.as_secs_f64());
    }

    /// One deployment that came to its end.
    pub(crate) fn count_deployment(&self, end: State, took: Duration) {
        let labels = ResultLabels {
            result: end.as_str(),
        };
        self.deployments.get_or_create(&labels).inc();
        self.rollout_seconds.observe(took.as_secs_f64());
    }

    /// One instance that was started again.
    pub(crate) fn count_restart(&self, tenant: &str) {
        let labels = TenantLabels {
            tenant: tenant.to_owned(),
        };
        self.restarts.get_or_create(&labels).inc();
    }

    /// What the registry takes on disk.
    pub(crate) fn set_registry_bytes(&self, bytes: u64) {
        self.registry_bytes.set(bytes);
    }

    /// What a volume takes on disk; nothing where it is gone, or nobody knows.
    pub(crate) fn set_volume_bytes(&self, tenant: &str, volume: &str, bytes: Option<u64>) {
        let labels = VolumeLabels {
            tenant: tenant.to_owned(),
            volume: volume.to_owned(),
        };
        match bytes {
            Some(bytes) => drop(self.volume_bytes.get_or_create(&labels).set(bytes)),
            None => drop(self.volume_bytes.remove(&labels)),
        }
    }

    /// Everything as text, with what the tenants' proxies have counted.
    pub(crate) fn encode(&self, tenants: &[TenantMeasurements]) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode_registry(&mut text, &self.registry)?;
        traffic::encode(&mut text, tenants)?;
        encode_eof(&mut text)?;
        Ok(text)
    }

    /// What is measured of one tenant, and of nothing else.
    pub(crate) fn encode_one(
        &self,
        tenant: &str,
        measured: &[TenantMeasurements],
    ) -> Result<String, fmt::Error> {
        let all = self.encode(measured)?;
        // Ids of tenants hold nothing that would be written in another way, and no other label has this name.
        let label = format!("tenant=\"{tenant}\"");
        let mut text = String::new();
        let mut about = Vec::new();
        for line in all.lines() {
            match line.starts_with('#') {
                true if line.starts_with("# HELP") => about = vec![line],
                true => about.push(line),
                false if line.contains(&label) => {
                    for line in about.drain(..).chain([line]) {
                        text.push_str(line);
                        text.push('\n');
                    }
                }
                false => {}
            }
        }
        encode_eof(&mut text)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_told_of_itself_alone() {
        let metrics = Metrics::new();
        metrics.count_restart("shop");
        metrics.count_restart("shop-2");
        metrics.set_registry_bytes(7);
        metrics.set_volume_bytes("shop", "data", Some(8));
        let measured = TenantMeasurements {
            tenant: "shop".to_owned(),
            up: true,
            traffic: None,
            services: BTreeMap::new(),
        };
        let text = metrics.encode_one("shop", &[measured]).unwrap();
        for line in [
            r#"systemprompt_instance_restarts_total{tenant="shop"} 1"#,
            r#"systemprompt_tenant_up{tenant="shop"} 1"#,
            r#"systemprompt_volume_bytes{tenant="shop",volume="data"} 8"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("shop-2") && !text.contains("registry"));
        // Each is explained before it comes, and what does not come is not.
        assert_eq!(text.matches("# TYPE").count(), 3, "{text}");
        assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1);
    }

    #[test]
    fn the_text_has_one_end_and_the_counters() {
        let metrics = Metrics::new();
        let took = Duration::from_millis(3);
        metrics.count_request(&Method::GET, "/healthz", StatusCode::OK, took);
        metrics.count_deployment(State::Succeeded, took);
        metrics.count_restart("local");
        metrics.set_registry_bytes(7);
        metrics.set_volume_bytes("local", "data", Some(8));
        metrics.set_volume_bytes("local", "gone", Some(9));
        metrics.set_volume_bytes("local", "gone", None);
        let text = metrics.encode(&[]).unwrap();
        for line in [
            r#"systemprompt_http_requests_total{method="GET",route="/healthz",status="200"} 1"#,
            r#"systemprompt_deployments_total{result="succeeded"} 1"#,
            r#"systemprompt_instance_restarts_total{tenant="local"} 1"#,
            "systemprompt_registry_bytes 7",
            r#"systemprompt_volume_bytes{tenant="local",volume="data"} 8"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("gone"), "{text}");
        assert_eq!(text.matches("# EOF").count(), 1);
        assert!(text.ends_with("# EOF\n"));
    }
}

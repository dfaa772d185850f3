//! What the tenants' proxies have counted, as text.
//!
//! The proxies keep their own counters, histogram included, which the client library has no type
//! for; a tenant's id is safe in a label as it is.

use std::fmt::{self, Write};

use proxy::Stats;

use super::TenantMeasurements;

/// One counter or gauge of a proxy.
struct Series {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: fn(&Stats) -> u64,
}

const SERIES: &[Series] = &[
    Series {
        name: "proxy_requests",
        kind: "counter",
        help: "Requests to the tenant's URL",
        value: |stats| stats.requests,
    },
    Series {
        name: "proxy_failures",
        kind: "counter",
        help: "Answers the proxy made itself because the instance gave none",
        value: |stats| stats.failures,
    },
    Series {
        name: "proxy_retries",
        kind: "counter",
        help: "Requests sent a second time",
        value: |stats| stats.retries,
    },
    Series {
        name: "proxy_connections",
        kind: "counter",
        help: "Client connections",
        value: |stats| stats.connections,
    },
    Series {
        name: "proxy_received_bytes",
        kind: "counter",
        help: "Body bytes from clients",
        value: |stats| stats.bytes_in,
    },
    Series {
        name: "proxy_sent_bytes",
        kind: "counter",
        help: "Body bytes to clients",
        value: |stats| stats.bytes_out,
    },
    Series {
        name: "proxy_requests_in_flight",
        kind: "gauge",
        help: "Requests and tunnels that have an instance now",
        value: |stats| stats.in_flight,
    },
    Series {
        name: "proxy_requests_waiting",
        kind: "gauge",
        help: "Requests that wait now for an instance that a deployment starts",
        value: |stats| stats.waiting,
    },
];

/// Adds all series of all tenants.
pub(super) fn encode(text: &mut String, tenants: &[TenantMeasurements]) -> fmt::Result {
    if tenants.is_empty() {
        return Ok(());
    }
    head(
        text,
        "tenant_up",
        "gauge",
        "Whether an instance of the tenant serves",
    )?;
    for tenant in tenants {
        let (id, up) = (&tenant.tenant, u8::from(tenant.up));
        writeln!(text, "systemprompt_tenant_up{{tenant=\"{id}\"}} {up}")?;
    }
    head(
        text,
        "service_instances",
        "gauge",
        "Instances of a service that serve",
    )?;
    for tenant in tenants {
        let id = &tenant.tenant;
        for (service, instances) in &tenant.services {
            writeln!(
                text,
                "systemprompt_service_instances{{tenant=\"{id}\",service=\"{service}\"}} {instances}"
            )?;
        }
    }
    for series in SERIES {
        head(text, series.name, series.kind, series.help)?;
        let suffix = if series.kind == "counter" {
            "_total"
        } else {
            ""
        };
        for (id, stats) in traffic(tenants) {
            let (name, value) = (series.name, (series.value)(stats));
            writeln!(
                text,
                "systemprompt_{name}{suffix}{{tenant=\"{id}\"}} {value}"
            )?;
        }
    }
    responses(text, tenants)?;
    latency(text, tenants)
}

fn traffic(tenants: &[TenantMeasurements]) -> impl Iterator<Item = (&str, &Stats)> {
    tenants
        .iter()
        .filter_map(|tenant| Some((tenant.tenant.as_str(), tenant.traffic.as_ref()?)))
}

fn responses(text: &mut String, tenants: &[TenantMeasurements]) -> fmt::Result {
    head(
        text,
        "proxy_responses",
        "counter",
        "Answers by the class of their status",
    )?;
    for (id, stats) in traffic(tenants) {
        let classes = &stats.responses;
        for (class, count) in [
            ("1xx", classes.informational),
            ("2xx", classes.success),
            ("3xx", classes.redirection),
            ("4xx", classes.client_error),
            ("5xx", classes.server_error),
        ] {
            writeln!(
                text,
                "systemprompt_proxy_responses_total{{tenant=\"{id}\",class=\"{class}\"}} {count}"
            )?;
        }
    }
    Ok(())
}

/// Which of the proxy's bounds are told: each is one more row for each tenant.
const SHOWN: [f64; 15] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

fn latency(text: &mut String, tenants: &[TenantMeasurements]) -> fmt::Result {
    let name = "proxy_request_duration_seconds";
    head(
        text,
        name,
        "histogram",
        "Time to the head of the instance's answer",
    )?;
    for (id, stats) in traffic(tenants) {
        let histogram = &stats.latency;
        let bounded = histogram
            .buckets
            .iter()
            .filter(|bucket| SHOWN.iter().any(|le| le.to_bits() == bucket.le.to_bits()))
            .map(|bucket| (bucket.le.to_string(), bucket.count));
        let unbounded = std::iter::once(("+Inf".to_owned(), histogram.count));
        for (le, count) in bounded.chain(unbounded) {
            writeln!(
                text,
                "systemprompt_{name}_bucket{{tenant=\"{id}\",le=\"{le}\"}} {count}"
            )?;
        }
        let (sum, count) = (histogram.sum.as_secs_f64(), histogram.count);
        writeln!(text, "systemprompt_{name}_sum{{tenant=\"{id}\"}} {sum}")?;
        writeln!(text, "systemprompt_{name}_count{{tenant=\"{id}\"}} {count}")?;
    }
    Ok(())
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(text, "# HELP systemprompt_{name} {help}.")?;
    writeln!(text, "# TYPE systemprompt_{name} {kind}")
}

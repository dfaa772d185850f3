//! Traces of what the server does, where somebody asks for them: sent by OTLP over HTTP to a collector, in batches, off
//! the way of every request. What cannot be sent in time is dropped.
//!
//! Spans are those of the `tracing` crate, made where the work is; here is who gets them. They carry names, numbers and
//! states, and never headers, query strings or bodies. Events of the log are no part of them.

use std::env;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::HeaderMap;
use bytes::Bytes;
use opentelemetry::KeyValue;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry_http::{HeaderExtractor, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, TracerProviderBuilder};
use tracing::{Level, Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterFn, LevelFilter};
use tracing_subscriber::registry::LookupSpan;
use trust::{Trust, TrustError};
use ureq::tls::TlsConfig;

use crate::settings;

/// As collectors show it, unless `OTEL_SERVICE_NAME` says otherwise.
const SERVICE: &str = "systemprompt";
/// Behind the endpoint of the settings, as behind `OTEL_EXPORTER_OTLP_ENDPOINT`.
const TRACES: &str = "/v1/traces";
/// Whose spans are sent; the libraries below have their own.
const OWN: [&str; 2] = ["systemprompt", "registry"];
/// Of a collector's answer.
const ANSWER_LIMIT: u64 = 1024 * 1024;
/// For what is left when the server ends.
const FLUSH_LIMIT: Duration = Duration::from_secs(3);

/// Why no traces can be sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TelemetryError {
    /// What was configured makes no sense.
    #[error(
        "the traces cannot be sent as configured: look at [telemetry] of platform.toml and at OTEL_* variables"
    )]
    Exporter(#[from] ExporterBuildError),
    /// The authorities that the collector's certificate may come from.
    #[error("the traces cannot be sent by TLS")]
    Trust(#[from] TrustError),
}

/// Sends traces as long as it lives.
pub(crate) struct Telemetry(SdkTracerProvider);

impl Telemetry {
    /// None where nobody has asked for traces. Speaks to nobody yet.
    pub(crate) fn begin(settings: &settings::Telemetry) -> Result<Option<Self>, TelemetryError> {
        if !is_wanted(settings) {
            return Ok(None);
        }
        let timeout = timeout(settings);
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Collector::new(timeout)?)
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(timeout);
        if let Some(endpoint) = settings.endpoint.as_ref().filter(|_| !is_endpoint_named()) {
            let base = endpoint.trim_end_matches('/');
            exporter = exporter.with_endpoint(format!("{base}{TRACES}"));
        }
        // Bounds of the queue and of a batch, and the time between two: OTEL_BSP_*.
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter.build()?)
            .with_resource(resource());
        Ok(Some(Self(sampled(provider, settings).build())))
    }

    /// What hands the server's spans on.
    pub(crate) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let is_own = |metadata: &Metadata<'_>| {
            let target = metadata.target().split("::").next();
            metadata.is_span()
                && *metadata.level() <= Level::INFO
                && target.is_some_and(|target| OWN.contains(&target))
        };
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer(SERVICE))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(FilterFn::new(is_own).with_max_level_hint(LevelFilter::INFO))
    }

    /// Sends what is left, as far as that can be done in a moment.
    pub(crate) fn end(self) {
        if let Err(error) = self.0.shutdown_with_timeout(FLUSH_LIMIT) {
            tracing::warn!(%error, "not all traces were sent");
        }
    }
}

/// Lets a span be part of the trace that a request says it is of (W3C Trace Context).
pub(crate) fn continue_trace(span: &Span, headers: &HeaderMap) {
    if span.is_disabled() {
        return;
    }
    let context = TraceContextPropagator::new().extract(&HeaderExtractor(headers));
    if context.span().span_context().is_valid() {
        // It fails for a span that nobody sends, which needs no parent.
        let _ = span.set_parent(context);
    }
}

fn is_wanted(settings: &settings::Telemetry) -> bool {
    let says = |name, value: &str| variable(name).is_some_and(|v| v.eq_ignore_ascii_case(value));
    let is_off = says("OTEL_SDK_DISABLED", "true") || says("OTEL_TRACES_EXPORTER", "none");
    !is_off && (settings.endpoint.is_some() || is_endpoint_named())
}

fn is_endpoint_named() -> bool {
    let names = [
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ];
    names.into_iter().any(|name| variable(name).is_some())
}

/// The variables are in milliseconds.
fn timeout(settings: &settings::Telemetry) -> Duration {
    let set = variable("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT")
        .or_else(|| variable("OTEL_EXPORTER_OTLP_TIMEOUT"));
    let set = set.and_then(|text| text.parse().ok());
    set.map_or(
        Duration::from_secs(settings.timeout_seconds),
        Duration::from_millis,
    )
}

/// A share of the traces that begin here; of those that others have begun, what they have decided.
fn sampled(
    provider: TracerProviderBuilder,
    settings: &settings::Telemetry,
) -> TracerProviderBuilder {
    if variable("OTEL_TRACES_SAMPLER").is_some() {
        return provider;
    }
    let share = Sampler::TraceIdRatioBased(settings.sample_ratio);
    provider.with_sampler(Sampler::ParentBased(Box::new(share)))
}

/// Who speaks: `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, else this program.
fn resource() -> Resource {
    let attributes = variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let is_named = variable("OTEL_SERVICE_NAME").is_some() || attributes.contains("service.name=");
    let mut builder = Resource::builder();
    if !is_named {
        builder = builder.with_service_name(SERVICE);
    }
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    builder.with_attribute(version).build()
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The collector, by the HTTP client that is here anyway. It blocks, on the thread that the batches have.
struct Collector {
    agent: ureq::Agent,
    /// Whether the last batch did not get there: said once, and not with every batch.
    is_lost: AtomicBool,
}

impl Collector {
    fn new(timeout: Duration) -> Result<Self, TrustError> {
        let trust = Trust {
            instead: trust::from_environment(),
            also: Vec::new(),
        };
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(timeout))
            .tls_config(TlsConfig::builder().root_certs(trust.roots()?).build())
            .build();
        Ok(Self {
            agent: config.new_agent(),
            is_lost: AtomicBool::new(false),
        })
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = self.agent.run(request.map(|body| body.to_vec()))?;
        let (head, mut body) = answer.into_parts();
        let body = body.with_config().limit(ANSWER_LIMIT).read_to_vec()?;
        Ok(Response::from_parts(head, Bytes::from(body)))
    }

    fn say(&self, sent: &Result<Response<Bytes>, HttpError>) {
        let problem = match sent {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("the collector answers {}", answer.status())),
            Err(error) => Some(error.to_string()),
        };
        let was_lost = self.is_lost.swap(problem.is_some(), Ordering::Relaxed);
        match (problem, was_lost) {
            (Some(problem), false) => tracing::warn!(problem, "traces are not sent"),
            (None, true) => tracing::info!("traces are sent again"),
            _ => {}
        }
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collector")
    }
}

impl HttpClient for Collector {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let sent = self.send(request);
            self.say(&sent);
            sent
        })
    }
}

//! The server's own log, on standard error, and the traces beside it.

use std::io::{self, IsTerminal as _};

use tracing::Metadata;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{FilterFn, LevelFilter};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::cli::LogFormat;
use crate::telemetry::Telemetry;
use crate::told;

/// Begins to log. `SYSTEMPROMPT_LOG` sets the level: error, warn, info (default), debug, trace.
pub(crate) fn begin(format: LogFormat, traces: Option<&Telemetry>) {
    let level = std::env::var("SYSTEMPROMPT_LOG").ok();
    let level = level.and_then(|text| text.parse().ok());
    let level = level.unwrap_or(LevelFilter::INFO);
    // Spans are for traces: no line of the log changes with them.
    let is_line = move |metadata: &Metadata<'_>| metadata.is_event() && *metadata.level() <= level;
    let lines = fmt::layer()
        .with_writer(|| told::Log)
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal());
    let lines = match format {
        LogFormat::Text => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(FilterFn::new(is_line).with_max_level_hint(level)))
        .with(traces.map(Telemetry::layer))
        .init();
}

//! The server's own log, on standard error.

use tracing_subscriber::filter::LevelFilter;

use crate::cli::LogFormat;

/// Begins to log. `SYSTEMPROMPT_LOG` sets the level: error, warn, info (default), debug, trace.
pub(crate) fn begin(format: LogFormat) {
    let level = std::env::var("SYSTEMPROMPT_LOG").ok();
    let level = level.and_then(|text| text.parse().ok());
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_max_level(level.unwrap_or(LevelFilter::INFO));
    match format {
        LogFormat::Text => builder.with_target(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

//! Everything that people and programs see: progress on standard error, the result on standard
//! output.

pub(crate) mod github;
pub(crate) mod plain;
pub(crate) mod plan;
pub(crate) mod result;
pub(crate) mod same_target;
pub(crate) mod services;
pub(crate) mod table;
pub(crate) mod terminal;
pub(crate) mod unwritten;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;

use deploy_pipeline::events::Reporter;
use deploy_plan::config::without_passwords;
use deploy_plan::exit::Exit;

/// Writes text to standard output, without passwords in addresses. Where it does not get there, the command's end tells
/// of it ([`unwritten`]).
pub(crate) fn out(text: &str) {
    out_as_it_is(&without_passwords(text));
}

/// Writes what programs read as code.
pub(crate) fn out_as_it_is(text: &str) {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    if let Err(error) = written {
        unwritten::note(&error);
    }
}

/// Writes text to standard error, without passwords in addresses.
pub(crate) fn err(text: &str) {
    err_as_it_is(&without_passwords(text));
}

fn err_as_it_is(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes());
}

/// What clap has to say: help and version are results, everything else is a wrong argument.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    let text = if io::stderr().is_terminal() {
        error.render().ansi().to_string()
    } else {
        error.render().to_string()
    };
    if error.use_stderr() {
        err(&text);
        return ExitCode::from(Exit::Usage.code());
    }
    out(&text);
    ExitCode::from(unwritten::settle(Exit::Done, false).code())
}

/// The reporter that fits where standard error goes.
pub(crate) fn reporter() -> Arc<dyn Reporter + Send + Sync> {
    if github::active() {
        Arc::new(plain::Plain::in_groups())
    } else if io::stderr().is_terminal() {
        Arc::new(terminal::Terminal::new())
    } else {
        Arc::new(plain::Plain::default())
    }
}

/// The redactor that fits where output goes.
pub(crate) fn redactor() -> deploy_pipeline::redact::Redactor {
    if github::active() {
        deploy_pipeline::redact::Redactor::telling(github::mask)
    } else {
        deploy_pipeline::redact::Redactor::default()
    }
}

/// Bytes as people read them.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if count < 1000 {
        return format!("{count} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = count as f64 / 1000.0;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    #[test]
    fn bytes_as_people_read_them() {
        for (count, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1500, "1.5 kB"),
            (27_000_000, "27.0 MB"),
        ] {
            assert_eq!(super::bytes(count), text);
        }
    }
}

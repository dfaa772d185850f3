//! `cargo xtask logs`.

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use deploy_pipeline::control;
use deploy_plan::failure::Step;
use management_api::client::{ApiError, LogQuery};
use management_api::types::LogLine;

use super::Failures;
use crate::cli::{Logs, Output};
use crate::context::{Context, target_overrides};
use crate::render::{self, unwritten};

/// Nobody looks at a log for longer; the bound frees the connection of a forgotten terminal.
const LONGEST: Duration = Duration::from_hours(24);

pub(crate) fn run(project: Option<&Path>, flags: &Logs) -> Result<(), Failures> {
    let context = Context::load(project, |overrides| {
        target_overrides(&flags.target, overrides);
    })
    .map_err(|failure| vec![failure])?;
    let control = super::status::connect(&context)?;
    let query = LogQuery {
        service: flags.service.clone(),
        instance: flags.instance.clone(),
        deployment: flags.deployment,
        since: flags.since.clone(),
        filter: flags.filter.clone(),
        tail: flags.tail,
    };
    let failure = |e: ApiError| vec![control::failure(Step::Inspect, &e)];
    if !flags.follow {
        let lines = control
            .client
            .logs(&control.tenant, &query)
            .map_err(failure)?;
        show_all(&lines, flags.target.output, &context);
        return Ok(());
    }
    let lines = control
        .client
        .follow_logs(&control.tenant, &query, LONGEST)
        .map_err(failure)?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in lines {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    // The stream is read by a thread of its own, so that Ctrl-C need not wait for a line. Whoever has closed standard
    // output wants no more of them.
    while !context.interrupts.any() && !unwritten::any() {
        match receiver.recv_timeout(Duration::from_millis(100)) {
            Ok(line) => show(&line.map_err(failure)?, flags.target.output, &context),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    Ok(())
}

fn show_all(lines: &[LogLine], output: Output, context: &Context) {
    if output == Output::Human {
        for line in lines {
            show(line, output, context);
        }
        if lines.is_empty() {
            render::err("no lines: nothing was written, or nothing that fits\n");
        }
    } else {
        render::result::document(&lines, output);
    }
}

/// A followed log has no end: in machine-readable form it is one document a line.
fn show(line: &LogLine, output: Output, context: &Context) {
    let text = if output == Output::Human {
        format!(
            "{} {:>3} {}{}\n",
            line.at.format("%Y-%m-%dT%H:%M:%S%.3fZ"),
            line.deployment,
            line.service
                .as_deref()
                .map_or_else(String::new, |service| format!("{service} | ")),
            line.line
        )
    } else {
        format!("{}\n", serde_json::json!(line))
    };
    render::out(&context.redactor.clean(&text));
}

//! The result of a command: a URL for people, or one document for programs, whatever happens.

use deploy_pipeline::outcome::Outcome;
use deploy_plan::failure::Failure;
use deploy_plan::report::Report;
use saphyr::{LoadableYamlNode as _, Yaml, YamlEmitter};
use serde::Serialize;

use super::services::{Row, table};
use super::{err, github, out, same_target, unwritten};
use crate::cli::Output;

/// Prints the result of a deployment or rollback and publishes it to a CI system.
pub(crate) fn outcome(outcome: &Outcome, output: Output) {
    let failed = outcome.failures.iter().map(same_target::failure).collect();
    let outcome = &Outcome {
        failures: failed,
        ..outcome.clone()
    };
    let report = outcome.report();
    github::publish(&report);
    let has_failed = !outcome.failures.is_empty();
    if output != Output::Human {
        document(&report, output);
    } else if !has_failed {
        // Programs read the one URL on standard output; the services are part of the story.
        err(&table(report.services.iter().filter_map(Row::of_record)));
        if let Some(url) = &outcome.url {
            out(&format!("{url}\n"));
        }
    }
    // For people, and for whoever could not be told otherwise.
    if has_failed && (output == Output::Human || unwritten::any()) {
        failures(&outcome.failures, &outcome.log_tail);
    } else if unwritten::any() {
        err(&in_short(&report));
    }
}

/// What was done, in a line.
fn in_short(report: &Report) -> String {
    let deployment = report.deployment.map_or_else(
        || "the deployment".to_owned(),
        |number| format!("deployment {number}"),
    );
    let url = report
        .url
        .as_deref()
        .unwrap_or("an address that is not told");
    format!("{deployment}: {}, {url}\n", report.status)
}

/// One document on standard output.
pub(crate) fn document<T: Serialize>(value: &T, output: Output) {
    let text = match serde_json::to_string_pretty(value) {
        Ok(json) if output == Output::Yaml => yaml(&json),
        Ok(json) => Ok(json),
        Err(error) => Err(error.to_string()),
    };
    match text {
        Ok(text) => out(&format!("{}\n", text.trim_end())),
        Err(error) => unwritten::note(&std::io::Error::other(error)),
    }
}

/// Every JSON document is a YAML one already: read as such, it only has to be written in YAML's style.
fn yaml(json: &str) -> Result<String, String> {
    let documents = Yaml::load_from_str(json).map_err(|error| error.to_string())?;
    let mut text = String::new();
    for document in &documents {
        let mut emitter = YamlEmitter::new(&mut text);
        emitter.dump(document).map_err(|error| error.to_string())?;
    }
    Ok(text.trim_start_matches("---\n").to_owned())
}

/// Failures of a command without a report.
pub(crate) fn failed(failures_: &[Failure], output: Output) {
    let failures_: Vec<Failure> = failures_.iter().map(same_target::failure).collect();
    if output == Output::Human {
        failures(&failures_, &[]);
        return;
    }
    let outcome = Outcome {
        failures: failures_.clone(),
        ..Outcome::default()
    };
    document(&outcome.report(), output);
    if unwritten::any() {
        failures(&failures_, &[]);
    }
}

fn failures(failures: &[Failure], log_tail: &[String]) {
    if !log_tail.is_empty() {
        err("\nthe application's last lines:\n");
        for line in log_tail {
            err(&format!("  | {line}\n"));
        }
    }
    if failures.len() > 1 {
        err(&format!(
            "\n{} problems, all found before anything was begun:\n",
            failures.len()
        ));
    }
    for failure in failures {
        err(&format!("\n{}", text(failure)));
    }
}

/// The three parts that every failure has.
pub(super) fn text(failure: &Failure) -> String {
    let details = failure.details.replace('\n', "\n              ");
    format!(
        "error: {}\n  Step:       {}\n  Details:    {details}\n  Resolution: {}\n",
        failure.code.replace('_', " "),
        failure.step.name(),
        failure.resolution
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_has_three_parts() {
        let failure = Failure::preflight("dockerfile_missing", "there is none", "write one");
        assert_eq!(
            text(&failure),
            "error: dockerfile missing\n  Step:       preflight\n  Details:    there is none\n  \
             Resolution: write one\n"
        );
    }

    #[test]
    fn the_yaml_document_says_what_the_json_one_says() {
        let value = serde_json::json!({
            "schema": 1,
            "status": "failed",
            "seconds": 1.5,
            "tag": "2026-11-21",
            "looks": ["true", "null", "~", "0x10", "1e3", "", " a ", "- b", "c: d", "#e", "é\u{1f600}", "\u{7f}\u{0}"],
            "details": "one\ntwo: 'x' \"y\"\n\n  three\n",
            "nothing": null,
            "empty": [[], {}],
        });
        let text = yaml(&serde_json::to_string_pretty(&value).unwrap()).unwrap();
        let back = Yaml::load_from_str(&text).unwrap();
        let again = Yaml::load_from_str(&value.to_string()).unwrap();
        assert_eq!(back, again, "{text}");
        assert!(text.starts_with("schema: 1\n"), "{text}");
    }
}

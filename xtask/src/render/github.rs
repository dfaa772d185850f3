//! GitHub Actions: masks, outputs and the step summary.

use std::env;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;

use deploy_plan::config::without_passwords;
use deploy_plan::report::Report;

use super::{err, err_as_it_is};

/// Whether this runs in GitHub Actions.
pub(crate) fn active() -> bool {
    env::var_os("GITHUB_ACTIONS").is_some_and(|value| value == "true")
}

/// Makes the runner hide a text in the logs of this and all later steps.
pub(crate) fn mask(secret: &str) {
    for line in secret.lines().filter(|line| !line.is_empty()) {
        err_as_it_is(&format!("::add-mask::{line}\n"));
    }
}

/// Hands the result to later steps and to the reader of the run.
pub(crate) fn publish(report: &Report) {
    if !active() {
        return;
    }
    if let Some(error) = &report.error {
        let text = format!("{}: {} — {}", error.step, error.details, error.resolution);
        err(&format!("::error::{}\n", escape(&text)));
    }
    append("GITHUB_OUTPUT", &outputs(report));
    append("GITHUB_STEP_SUMMARY", &summary(report));
}

fn append(variable: &str, text: &str) {
    let Some(path) = env::var_os(variable) else {
        return;
    };
    let file = OpenOptions::new().create(true).append(true).open(&path);
    if let Err(error) = file.and_then(|mut file| file.write_all(without_passwords(text).as_bytes()))
    {
        err(&format!(
            "::warning::{variable} cannot be written: {error}\n"
        ));
    }
}

/// `name=value` lines. A value with a line end could name outputs of its own: it stays out.
fn outputs(report: &Report) -> String {
    let deployment = report.deployment.map(|number| number.to_string());
    let fields = [
        ("status", Some(report.status)),
        ("environment", Some(report.environment.as_str())),
        ("tenant", report.tenant.as_deref()),
        ("deployment", deployment.as_deref()),
        ("image", report.image.as_deref()),
        ("digest", report.digest.as_deref()),
        ("tag", report.tag.as_deref()),
        ("url", report.url.as_deref()),
    ];
    let mut text = String::new();
    for (name, value) in fields {
        if let Some(value) = value.filter(|value| !value.contains(['\n', '\r'])) {
            let _ = writeln!(text, "{name}={value}");
        }
    }
    text
}

fn summary(report: &Report) -> String {
    let mut text = format!(
        "### Deploy to {}: {}\n\n",
        report.environment, report.status
    );
    if let Some(url) = &report.url {
        let _ = writeln!(text, "<{url}>\n");
    }
    let _ = writeln!(
        text,
        "| step | status | seconds | |\n| --- | --- | ---: | --- |"
    );
    for step in &report.steps {
        let summary = step.summary.replace('|', "\\|");
        let _ = writeln!(
            text,
            "| {} | {} | {:.2} | {summary} |",
            step.name, step.status, step.seconds
        );
    }
    if !report.services.is_empty() {
        text.push_str("\n| service | state | image | |\n| --- | --- | --- | --- |\n");
    }
    for service in &report.services {
        let cell = |text: &Option<String>| text.clone().unwrap_or_default().replace('|', "\\|");
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            service.name,
            cell(&service.state),
            cell(&service.image),
            cell(&service.public_url)
        );
    }
    if let Some(error) = &report.error {
        let _ = writeln!(
            text,
            "\n**{}**: {}\n\n{}",
            error.step, error.details, error.resolution
        );
    }
    text
}

/// Line ends and percent signs would end a workflow command early.
fn escape(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

#[cfg(test)]
mod tests {
    use super::*;
    use deploy_pipeline::outcome::Outcome;

    #[test]
    fn a_value_cannot_name_an_output_of_its_own() {
        let report = Outcome {
            environment: "production".into(),
            url: Some("https://a\nstatus=succeeded".into()),
            tag: Some("v1".into()),
            ..Outcome::default()
        }
        .report();
        assert_eq!(
            outputs(&report),
            "status=failed\nenvironment=production\ntag=v1\n"
        );
    }

    #[test]
    fn a_command_stays_on_its_line() {
        assert_eq!(escape("a\n::b 100%"), "a%0A::b 100%25");
    }
}

//! `cargo xtask config`.

use std::path::Path;

use super::Failures;
use crate::cli::{Config, Output, Target};
use crate::context::{Context, target_overrides};
use crate::render;
use crate::render::table::table;

/// How the result is to be printed.
pub(crate) fn output(action: &Config) -> Output {
    match action {
        Config::Show { target, .. } => target.output,
        Config::Schema | Config::ReportSchema { .. } => Output::Human,
    }
}

pub(crate) fn run(project: Option<&Path>, action: &Config) -> Result<(), Failures> {
    match action {
        Config::Show { target, origin } => show(project, target, *origin)?,
        Config::Schema => render::out(&format!("{}\n", deploy_config::schema_json().trim_end())),
        Config::ReportSchema { aramb } => {
            let schema = if *aramb {
                schemars::schema_for!(deploy_plan::aramb::ArambReport)
            } else {
                schemars::schema_for!(deploy_plan::report::Report)
            };
            render::result::document(&schema, Output::Json);
        }
    }
    Ok(())
}

fn show(project: Option<&Path>, target: &Target, origin: bool) -> Result<(), Failures> {
    let context = Context::load(project, |overrides| {
        target_overrides(target, overrides);
    })
    .map_err(|failure| vec![failure])?;
    let explained = context.settings.explain();
    if target.output != Output::Human {
        let document: Vec<_> = explained
            .iter()
            .map(|value| {
                serde_json::json!({
                    "key": value.key,
                    "value": value.value,
                    "origin": value.origin.to_string(),
                })
            })
            .collect();
        render::result::document(&document, target.output);
        return Ok(());
    }
    let rows = explained
        .iter()
        .map(|value| {
            let mut row = vec![value.key.clone(), value.value.to_string()];
            if origin {
                row.push(value.origin.to_string());
            }
            row
        })
        .collect();
    let header: &[&str] = if origin {
        &["key", "value", "from"]
    } else {
        &["key", "value"]
    };
    render::out(&table(header, rows));
    Ok(())
}

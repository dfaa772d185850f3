//! `cargo xtask history`: the platform's, or — where it keeps none — what was deployed from here.

use std::path::Path;

use chrono::Utc;
use deploy_pipeline::control;
use deploy_pipeline::journal::{Entry, Journal};
use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};
use management_api::types::Deployment;

use super::Failures;
use crate::cli::{History, Output};
use crate::context::{Context, target_overrides};
use crate::render;
use crate::render::table::{ago, table};

pub(crate) fn run(project: Option<&Path>, flags: &History) -> Result<(), Failures> {
    let context = Context::load(project, |overrides| {
        target_overrides(&flags.target, overrides);
    })
    .map_err(|failure| vec![failure])?;
    let control = super::status::connect(&context)?;
    let output = flags.target.output;
    let deployments = if control.offers("history") {
        control
            .client
            .deployments(&control.tenant)
            .map_err(|e| vec![control::failure(Step::Inspect, &e)])?
    } else {
        None
    };
    if let Some(mut deployments) = deployments {
        deployments.truncate(flags.limit.get());
        show(&deployments, output, of_platform);
    } else {
        let mut entries = Journal::of(&context.state())
            .entries(control.client.base_url(), &control.tenant)
            .map_err(|e| vec![unreadable(&e)])?;
        entries.truncate(flags.limit.get());
        show(&entries, output, of_journal);
    }
    Ok(())
}

fn unreadable(error: &std::io::Error) -> Failure {
    Failure::new(
        Step::Inspect,
        "history_unreadable",
        Exit::Other,
        format!("the local history cannot be read: {error}"),
        "check .systemprompt/history.jsonl",
    )
}

fn show<T: serde::Serialize>(rows: &[T], output: Output, text: impl Fn(&[T]) -> String) {
    if output != Output::Human {
        render::result::document(&rows, output);
    } else if rows.is_empty() {
        let words = "nothing was deployed yet; begin with: cargo xtask deploy\n";
        render::err(&render::same_target::text(words));
    } else {
        render::out(&text(rows));
    }
}

fn of_platform(deployments: &[Deployment]) -> String {
    let now = Utc::now();
    let rows = deployments
        .iter()
        .map(|deployment| {
            let kind = match deployment.restores {
                Some(number) => format!("rollback to {number}"),
                None => deployment.kind.clone(),
            };
            vec![
                if deployment.live { "*" } else { "" }.to_owned(),
                deployment.number.to_string(),
                state(deployment),
                kind,
                deployment.tag.clone().unwrap_or_default(),
                deployment.digest.get(7..19).unwrap_or_default().to_owned(),
                ago(deployment.created_at, now),
                deployment.actor.clone(),
            ]
        })
        .collect();
    table(
        &["", "no", "state", "kind", "tag", "digest", "when", "by"],
        rows,
    )
}

/// What has served and cannot be restored any more says so.
fn state(deployment: &Deployment) -> String {
    if deployment.gone {
        format!("{}, gone", deployment.state)
    } else {
        deployment.state.clone()
    }
}

fn of_journal(entries: &[Entry]) -> String {
    let now = Utc::now();
    let rows = entries
        .iter()
        .enumerate()
        .map(|(index, entry)| {
            vec![
                (entries.len() - index).to_string(),
                entry.status.clone(),
                entry.tag.clone(),
                ago(entry.at, now),
                entry.image.clone(),
            ]
        })
        .collect();
    table(&["no", "state", "tag", "when", "image"], rows)
}

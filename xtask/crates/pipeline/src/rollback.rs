//! Returning to an older release: needs no source, no build and no push.

use std::path::Path;
use std::time::Duration;

use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};
use management_api::client::ApiError;
use management_api::types::{DeployRequest, RollbackRequest};

use crate::control::{self, Control};
use crate::deploy::finish;
use crate::journal::{Entry, Journal};
use crate::request::key;
use crate::run::Run;

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Tag or number; the last good release before the live one when absent.
    pub to: Option<String>,
    /// Whether to follow it to its end.
    pub wait: bool,
    /// Deadline.
    pub timeout: Duration,
}

/// Asks the platform for the older release; where it knows no rollback, deploys the older image
/// again, found in the local journal.
pub fn execute(
    run: &mut Run<'_>,
    control: &Control,
    state: &Path,
    wanted: &Wanted,
) -> Result<(), Failure> {
    run.outcome.tenant = Some(control.tenant.clone());
    let answer = run.step(Step::Rollback, |run| {
        let answer = if control.offers("rollback") {
            let request = RollbackRequest {
                to: wanted.to.clone(),
                timeout_seconds: Some(wanted.timeout.as_secs().max(1)),
            };
            control
                .client
                .rollback(&control.tenant, &request, &key())
                .map_err(|e| refusal(&e, wanted))?
        } else {
            redeploy(run, control, state, wanted)?
        };
        let summary = match answer.deployment {
            Some(number) => format!("deployment {number} accepted"),
            None => format!("accepted ({})", answer.status),
        };
        Ok((answer, summary))
    })?;
    let end = finish(run, control, &answer, wanted.wait, wanted.timeout);
    describe(run, control);
    end
}

/// The platform has one code for having nothing older and for not knowing what is asked for.
fn refusal(error: &ApiError, wanted: &Wanted) -> Failure {
    let failure = control::failure(Step::Rollback, error);
    if wanted.to.is_some() && failure.code == "nothing_to_roll_back" {
        return Failure {
            code: "release_unknown",
            resolution: "name one that has succeeded: `cargo xtask history` lists them".to_owned(),
            ..failure
        };
    }
    failure
}

fn redeploy(
    run: &mut Run<'_>,
    control: &Control,
    state: &Path,
    wanted: &Wanted,
) -> Result<management_api::types::DeployAnswer, Failure> {
    let entries = Journal::of(state)
        .entries(control.client.base_url(), &control.tenant)
        .map_err(|e| {
            Failure::new(
                Step::Rollback,
                "history_unreadable",
                Exit::Other,
                format!("the local history cannot be read: {e}"),
                "name an image: cargo xtask deploy --skip-push --tag TAG",
            )
        })?;
    let entry = choose(&entries, wanted.to.as_deref())?;
    run.outcome.image = Some(entry.image.clone());
    run.outcome.tag = Some(entry.tag.clone());
    run.outcome.digest.clone_from(&entry.digest);
    let request = DeployRequest {
        image: entry.image.clone(),
        ..DeployRequest::default()
    };
    control
        .client
        .deploy(&control.tenant, &request, &key(), false)
        .map_err(|e| control::failure(Step::Rollback, &e))
}

/// The entry wanted; without a wish, the newest good one whose image is not the newest good image.
fn choose<'a>(entries: &'a [Entry], to: Option<&str>) -> Result<&'a Entry, Failure> {
    let good = || entries.iter().filter(|entry| entry.status == "succeeded");
    if let Some(wanted) = to {
        let by_number = wanted
            .parse::<usize>()
            .ok()
            .and_then(|number| entries.iter().rev().nth(number.checked_sub(1)?));
        return entries
            .iter()
            .find(|entry| entry.tag == wanted)
            .or(by_number)
            .ok_or_else(|| {
                Failure::new(
                    Step::Rollback,
                    "release_unknown",
                    Exit::Other,
                    format!("no deployment from here had the tag or number {wanted}"),
                    "`cargo xtask history` lists them",
                )
            });
    }
    let live = good().next();
    good()
        .find(|entry| live.is_some_and(|live| live.image != entry.image))
        .ok_or_else(|| {
            Failure::new(
                Step::Rollback,
                "nothing_to_roll_back",
                Exit::Other,
                "no older good release was deployed from here",
                "name an image: cargo xtask deploy --skip-push --tag TAG",
            )
        })
}

/// Fills the report with what the platform knows of the restored release.
fn describe(run: &mut Run<'_>, control: &Control) {
    let Some(number) = run.outcome.deployment else {
        return;
    };
    if let Ok(deployment) = control.client.deployment(&control.tenant, number) {
        run.outcome.image = Some(deployment.image);
        run.outcome.tag = deployment.tag;
        run.outcome.digest = Some(deployment.digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(tag: &str, status: &str) -> Entry {
        Entry {
            v: 1,
            at: chrono::DateTime::UNIX_EPOCH,
            environment: "production".into(),
            api: "a".into(),
            tenant: "t".into(),
            image: format!("r/t:{tag}"),
            tag: tag.into(),
            digest: None,
            status: status.into(),
            url: None,
        }
    }

    #[test]
    fn the_last_good_release_before_the_live_one() {
        let newest_first = [
            entry("d", "failed"),
            entry("c", "succeeded"),
            entry("c", "succeeded"),
            entry("b", "failed"),
            entry("a", "succeeded"),
        ];
        let chosen = |to| choose(&newest_first, to).map(|e| e.tag.clone());
        assert_eq!(chosen(None).unwrap(), "a");
        assert_eq!(chosen(Some("b")).unwrap(), "b");
        assert_eq!(chosen(Some("1")).unwrap(), "a");
        assert_eq!(chosen(Some("nope")).unwrap_err().code, "release_unknown");
        assert_eq!(
            choose(&newest_first[..2], None).unwrap_err().code,
            "nothing_to_roll_back"
        );
    }
}

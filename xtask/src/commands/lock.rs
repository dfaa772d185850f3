//! `cargo xtask lock`: pins base images to digests, and drops pins that nothing needs.

use std::path::Path;
use std::sync::Arc;

use deploy_pipeline::locking::{Asking, Pinned, Update, lock};

use super::Failures;
use crate::cli::{Lock, Output};
use crate::context::{Context, target_overrides};
use crate::render;
use crate::render::table::table;

pub(crate) fn run(project: Option<&Path>, flags: &Lock) -> Result<(), Failures> {
    let context = Context::load(project, |overrides| {
        target_overrides(&flags.target, overrides);
    })
    .map_err(|failure| vec![failure])?;
    let reporter = render::reporter();
    let shared = Arc::clone(&reporter);
    let everywhere = match (&flags.target.environment, &flags.image) {
        (None, None) => Some(context.everywhere().map_err(|failure| vec![failure])?),
        _ => None,
    };
    let asking = Asking {
        everywhere: everywhere.as_deref(),
        settings: &context.settings,
        redactor: &context.redactor,
        interrupts: &context.interrupts,
        tell: Arc::new(move |event| shared.event(event)),
    };
    let pinned = lock(&asking, &update(flags))
        .map_err(|failure| vec![context.redactor.clean_failure(failure)])?;
    show(&context, &pinned, flags.target.output);
    Ok(())
}

fn update(flags: &Lock) -> Update {
    match &flags.image {
        Some(image) => Update::Image(image.clone()),
        None if flags.update => Update::All,
        None => Update::Missing,
    }
}

fn show(context: &Context, pinned: &[Pinned], output: Output) {
    if output != Output::Human {
        let document: Vec<_> = pinned.iter().map(record).collect();
        render::result::document(&document, output);
        return;
    }
    if pinned.is_empty() {
        render::err(&format!(
            "environment {} stands on no image of a registry that needs a pin\n",
            context.settings.environment
        ));
        return;
    }
    let rows = pinned.iter().map(row).collect();
    render::out(&table(&["image", "platform", "digest", ""], rows));
}

fn record(pinned: &Pinned) -> serde_json::Value {
    serde_json::json!({
        "reference": pinned.pin.reference,
        "platform": pinned.pin.platform,
        "digest": pinned.digest.map(|digest| digest.to_string()),
        "before": pinned.before.map(|digest| digest.to_string()),
    })
}

fn row(pinned: &Pinned) -> Vec<String> {
    let digest = pinned.digest.map(|digest| digest.to_string());
    let change = match (pinned.before, pinned.digest) {
        (None, Some(_)) => "pinned".to_owned(),
        (Some(before), None) => {
            format!("dropped, was {}", deploy_pipeline::push::short(&before))
        }
        (Some(before), Some(now)) if before != now => {
            format!("was {}", deploy_pipeline::push::short(&before))
        }
        _ => "unchanged".to_owned(),
    };
    vec![
        pinned.pin.reference.clone(),
        pinned.pin.platform.clone(),
        digest.unwrap_or_default(),
        change,
    ]
}

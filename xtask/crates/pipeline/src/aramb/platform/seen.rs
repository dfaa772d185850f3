//! How services are, as the platform tells.

use deploy_plan::aramb::translate::Names;
use deploy_plan::aramb::{FlowError, FlowStep};
use deploy_plan::failure::Step;
use management_api::types::ServiceStatus;

use crate::aramb::plane::{Deployed, Waited};
use crate::control::{self, Control};

/// How the services are that the platform runs now.
pub(super) fn now(control: &Control, names: &Names, services: &[usize]) -> Waited {
    match control.client.status(&control.tenant) {
        Ok(status) => Waited {
            services: states(names, services, &status.services),
            error: None,
        },
        Err(error) => Waited {
            services: Vec::new(),
            error: Some(FlowError::of(
                FlowStep::Return,
                &control::failure(Step::Wait, &error),
            )),
        },
    }
}

/// How they are where there is no platform.
pub(super) fn nothing(services: &[usize]) -> Vec<Deployed> {
    states(&Names::default(), services, &[])
}

fn states(names: &Names, services: &[usize], status: &[ServiceStatus]) -> Vec<Deployed> {
    let states = services.iter().map(|position| {
        let name = names.on_platform(*position);
        let found = status.iter().find(|found| found.name == name);
        found.map_or_else(
            || Deployed {
                service: *position,
                ..Deployed::default()
            },
            |found| deployed(*position, found),
        )
    });
    states.collect()
}

fn deployed(position: usize, status: &ServiceStatus) -> Deployed {
    let outputs = [
        ("PUBLIC_URL", &status.public_url),
        ("INTERNAL_URL", &status.internal_url),
    ];
    let outputs = outputs
        .into_iter()
        .filter_map(|(name, url)| Some((name.to_owned(), url.clone()?)));
    Deployed {
        service: position,
        is_healthy: matches!(status.state.as_str(), "serving" | "done"),
        is_unknown: false,
        outputs: outputs.collect(),
    }
}

//! The way back on a control plane that has none: what was last well is deployed once more.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use deploy_config::aramb::{self as reader, ARAMB_TOML};
use deploy_plan::aramb::{ArambFile, FlowError, Service};
use deploy_plan::exit::Exit;

use super::Steps;
use super::deploying::not_updated;
use crate::aramb::file::Replaced;
use crate::aramb::plane::Deployment;
use crate::aramb::undo::Good;

impl Steps<'_, '_> {
    /// Deploys what was touched as it was when it was last well. What has not changed since then stays.
    pub(super) fn way_back(&mut self, mut error: FlowError) -> FlowError {
        let file = self.flow.file;
        let of = |position: &usize| file.services[*position].name.as_str();
        let names: Vec<_> = self.touched.iter().map(of).collect();
        let good = self.state.map(Good::of).unwrap_or_default();
        let (groups, new) = good.before(&names);
        if groups.is_empty() {
            error.exit = Exit::Unverified;
            return error
                .with("nothing was deployed before from here: there is nothing to return to");
        }
        let tried = parse(
            self.replaced
                .as_ref()
                .map_or(self.source, Replaced::written),
        );
        let mut returned = Vec::new();
        for (text, group) in groups {
            let positions = self.touched.iter().copied();
            let positions: Vec<_> = positions
                .filter(|position| group.contains(&of(position)))
                .collect();
            let changed = changed(&parse(text), &tried, positions, of);
            if changed.is_empty() {
                continue;
            }
            let names: Vec<_> = changed.iter().map(of).collect();
            self.flow.say(format!(
                "Returning to what was well before: {}",
                names.join(", ")
            ));
            if let Err(second) = self.return_to(text, &changed) {
                error.exit = Exit::NeedsOperator;
                error = error.with(format!(
                    "the return of {} failed as well: {}",
                    names.join(", "),
                    second.message
                ));
                return second.details.into_iter().fold(error, FlowError::with);
            }
            returned.extend(names);
        }
        if returned.is_empty() {
            error.exit = Exit::Unverified;
            if !new.is_empty() {
                return error.with(format!(
                    "{} was never well from here: there is nothing to return to",
                    new.join(", ")
                ));
            }
            return error.with(
                "the file says what it said when all was well: there is nothing to return to",
            );
        }
        self.progress.returned = true;
        error.exit = Exit::RolledBack;
        error = error.with(format!(
            "these are again what they were: {}",
            returned.join(", ")
        ));
        if new.is_empty() {
            return error;
        }
        error.with(format!(
            "these were never well from here and stay as they are: {}",
            new.join(", ")
        ))
    }

    fn return_to(&mut self, text: &str, services: &[usize]) -> Result<(), FlowError> {
        let replaced = match self.replaced.take() {
            Some(mut replaced) => replaced.again(text).map(|()| replaced),
            None => Replaced::by(self.kept_in()?, self.path, self.source, text.to_owned()),
        };
        self.replaced = Some(replaced.map_err(|error| not_updated(&error))?);
        let deployment = Deployment {
            services,
            is_everything: false,
            images: &BTreeMap::new(),
        };
        self.plane.deploy(self.flow, &deployment)?;
        let waited = self.plane.wait(self.flow, services);
        waited.error.map_or(Ok(()), Err)
    }
}

fn parse(text: &str) -> ArambFile {
    reader::parse(Path::new(ARAMB_TOML), text).file
}

/// Those of which the one file says something else than the other.
fn changed<'a>(
    before: &ArambFile,
    after: &ArambFile,
    positions: Vec<usize>,
    name: impl Fn(&usize) -> &'a str,
) -> Vec<usize> {
    let (before, after) = (said(before), said(after));
    let is_changed = |position: &usize| {
        let name = name(position);
        before.get(name) != after.get(name)
    };
    positions.into_iter().filter(is_changed).collect()
}

/// What a file says of its services.
fn said(file: &ArambFile) -> HashMap<&str, Vec<String>> {
    let services = file.services.iter();
    services
        .map(|service| (service.name.as_str(), says(service)))
        .collect()
}

fn says(service: &Service) -> Vec<String> {
    let settings = &service.settings;
    let mut says = vec![
        service.kind.name().to_owned(),
        format!("{:?} {:?}", settings.command_port, settings.public_net),
    ];
    let variables = service.vars.iter().chain(&service.secrets);
    says.extend(variables.map(|variable| variable.key.clone()));
    says.extend(service.values().map(|value| value.text.clone()));
    says
}

//! Steps 7 to 9: the file names the images, the control plane gets it, the services tell where they are.

use std::collections::{BTreeMap, BTreeSet};

use deploy_plan::aramb::{FlowError, FlowStep, OutputName, Selection, ServiceType, name_images};
use deploy_plan::exit::Exit;

use super::{Policy, Steps};
use crate::aramb::file::{FileError, Replaced, Restored};
use crate::aramb::interrupted;
use crate::aramb::plane::Deployment;
use crate::aramb::state::State;
use crate::aramb::undo::Good;

/// By positions of builds.
type Images = BTreeMap<usize, String>;

impl<'a> Steps<'a, '_> {
    pub(super) fn deploy(
        &mut self,
        selection: &Selection,
        images: &Images,
    ) -> Result<(), FlowError> {
        if self.plane.is_transaction() {
            self.roll_out(selection, images)?;
            if self.request.write_back && !images.is_empty() {
                self.write_images(selection, images)?;
            }
            return self.put_back(true);
        }
        if !images.is_empty() {
            self.write_images(selection, images)?;
        }
        let result = self.with_way_back(selection, images);
        let is_kept = result.is_ok() || self.request.policy == Policy::Strict;
        match (result, self.put_back(is_kept)) {
            // What has failed first is the reason, and the file is not to be forgotten over it.
            (Err(error), Err(also)) => {
                let error = error.with(format!("also: {} (step {})", also.message, also.step));
                Err(also.details.into_iter().fold(error, FlowError::with))
            }
            (result, put_back) => result.and(put_back),
        }
    }

    /// Step 7.
    fn write_images(&mut self, selection: &Selection, images: &Images) -> Result<(), FlowError> {
        let file = self.flow.file;
        let named = name_images(file, &selection.services, images);
        let replaced = Replaced::with_images(self.kept_in()?, self.path, self.source, &named);
        self.replaced = Some(replaced.map_err(|error| not_updated(&error))?);
        for named in &named {
            for &build in &named.builds {
                self.progress.named.insert((named.service, build));
            }
        }
        for (build, image) in images {
            let id = file.services[*build].id;
            if self.progress.named.iter().any(|(_, named)| named == build) {
                self.flow.say(format!(
                    "✓ Updated aramb.toml: {id}.outputs.IMAGE_URL -> {image}"
                ));
            } else {
                let name = &file.services[*build].name;
                self.flow
                    .say(format!("WARNING: nothing names the image of {name}"));
            }
        }
        Ok(())
    }

    /// Where the file is kept while it is another one.
    pub(super) fn kept_in(&self) -> Result<&'a State, FlowError> {
        self.state.ok_or_else(|| {
            let message = "Failed to update aramb.toml";
            FlowError::new(FlowStep::Update, "state_unwritable", Exit::Other, message).with(
                "the file is kept in the repository's own folder first, and that cannot be written",
            )
        })
    }

    /// The end of step 7: the file as its owner had it, unless he wants the images.
    fn put_back(&mut self, is_kept: bool) -> Result<(), FlowError> {
        let Some(replaced) = self.replaced.take() else {
            return Ok(());
        };
        if self.request.write_back && is_kept {
            return replaced.keep().map_err(|error| not_updated(&error.into()));
        }
        match replaced.restore() {
            Ok(Restored::Already | Restored::Whole) => {}
            Ok(Restored::WithoutNotes) => self.flow.say(
                "WARNING: the control plane has noted ids and slugs in aramb.toml, which are not kept: --write-back keeps them",
            ),
            Ok(Restored::ImagesAlone) => self.flow.say(
                "WARNING: aramb.toml was changed meanwhile: only the images were taken out again",
            ),
            Err(error) => {
                let message = "aramb.toml could not be put back";
                return Err(FlowError::new(
                    FlowStep::Update,
                    "aramb_not_restored",
                    Exit::Other,
                    message,
                )
                .with(error.to_string())
                .with("the next deployment tries it again; git restores it as well"));
            }
        }
        Ok(())
    }

    /// Steps 8 and 9; where the policy asks for it, with a return to what was well before.
    fn with_way_back(&mut self, selection: &Selection, images: &Images) -> Result<(), FlowError> {
        let result = self.roll_out(selection, images);
        if self.request.policy == Policy::Strict {
            return result;
        }
        match result {
            Ok(()) => {
                self.note_good(selection);
                Ok(())
            }
            // The control plane goes on without us.
            Err(error) if error.exit == Exit::Interrupted => Err(error),
            Err(error) => Err(self.way_back(error)),
        }
    }

    fn roll_out(&mut self, selection: &Selection, images: &Images) -> Result<(), FlowError> {
        self.progress.asked = Some(selection.services.clone());
        let in_stages = self.request.policy == Policy::Guarded && !self.plane.is_transaction();
        let file = self.flow.file;
        let rank = |position: &usize| file.services[*position].kind.rank();
        let stages: Vec<&[usize]> = if in_stages {
            selection
                .services
                .chunk_by(|a, b| rank(a) == rank(b))
                .collect()
        } else {
            vec![&selection.services]
        };
        let is_everything = selection.is_everything && stages.len() == 1;
        for services in stages {
            if self.flow.interrupts.any() {
                return Err(self.interrupted_between());
            }
            self.flow.say("Deploying services from aramb.toml...");
            let deployment = Deployment {
                services,
                is_everything,
                images,
            };
            self.touched.extend(services);
            self.plane.deploy(self.flow, &deployment)?;
            self.flow.say("✓ Deployment initiated");
            let waited = self.plane.wait(self.flow, services);
            self.progress.deployed.extend(waited.services);
            if let Some(error) = waited.error {
                return Err(error);
            }
        }
        self.tell_outputs();
        Ok(())
    }

    fn interrupted_between(&self) -> FlowError {
        if self.touched.is_empty() {
            return interrupted(FlowStep::Deploy);
        }
        let names = self.names(&self.touched).join(", ");
        let step = FlowStep::Deploy;
        FlowError::new(step, "interrupted", Exit::Interrupted, "Interrupted").with(format!(
            "these are deployed, and nothing else is: {names}; the same command takes it up again"
        ))
    }

    /// Step 9: the addresses, or that there are none.
    fn tell_outputs(&self) {
        let file = self.flow.file;
        let kinds = self
            .progress
            .deployed
            .iter()
            .map(|service| file.services[service.service].kind);
        let has_backend = kinds.clone().any(|kind| kind == ServiceType::Backend);
        if !has_backend {
            self.flow
                .say("WARNING: No backend service found for PUBLIC_URL extraction");
        }
        let Some(main) = self.progress.main(file) else {
            return;
        };
        let name = &file.services[main.service].name;
        match main.output(OutputName::PublicUrl) {
            Some(url) => self.flow.say(format!("✓ {name} PUBLIC_URL: {url}")),
            None if has_backend => self
                .flow
                .say("WARNING: PUBLIC_URL not found in backend deployment outputs"),
            None => {}
        }
    }

    /// What the control plane was given is what a later failure returns to.
    fn note_good(&mut self, selection: &Selection) {
        let Some(state) = self.state else {
            return;
        };
        let text = self
            .replaced
            .as_ref()
            .map_or(self.source, Replaced::written);
        let mut good = Good::of(state);
        let file = self.flow.file;
        let there: BTreeSet<_> = file
            .services
            .iter()
            .map(|service| service.name.as_str())
            .collect();
        good.keep_only(|name| there.contains(name));
        let known = &self.progress.deployed;
        let is_well = |position: &&usize| {
            known
                .iter()
                .any(|service| service.service == **position && service.is_healthy)
        };
        // What nobody could tell of is nothing to return to.
        let names = selection.services.iter().filter(is_well);
        good.note(
            names.map(|position| file.services[*position].name.as_str()),
            text,
        );
        if let Err(error) = good.keep(state) {
            self.flow.say(format!(
                "WARNING: what is deployed now could not be noted, and a later failure cannot return to it: {error}"
            ));
        }
    }
}

pub(super) fn not_updated(error: &FileError) -> FlowError {
    let message = "Failed to update aramb.toml";
    FlowError::new(FlowStep::Update, "aramb_not_updated", Exit::Other, message)
        .with(error.to_string())
        .with("nobody else may change it during a deployment: deploy again")
}

//! The image of a build: planned, made and sent as that of a project of one service.

use std::sync::Arc;
use std::time::Instant;

use deploy_plan::aramb::{FlowError, FlowStep};
use deploy_plan::exit::Exit;
use deploy_plan::failure::Failure;
use deploy_plan::plan::Request;

use super::{OwnPlatform, Planned, internal, make_folder, names};
use crate::aramb::plane::{Build, Built, Flow};
use crate::deploy::{Execution, Prepared, prepare};
use crate::push;

impl OwnPlatform {
    pub(super) fn plan_build(
        &mut self,
        flow: &Flow<'_>,
        build: &Build,
    ) -> Result<Planned, FlowError> {
        let source = self.source(flow, build.service);
        let source = source.map_err(|failure| build_failed(flow, build, &failure))?;
        let names = names(flow)?;
        let settings = self.settings_for(flow, |config| source.apply(config));
        let request = Request {
            tag: Some(format!("{}-{}", names.fitting(build.service), build.tag)),
            ..self.request.clone()
        };
        let planned = self.plan(flow, settings, &request, std::iter::empty());
        planned.map_err(|failures| {
            let mut failures = failures.iter();
            let first = failures
                .next()
                .map(|first| build_failed(flow, build, first));
            let mut error = first.unwrap_or_else(|| internal(FlowStep::Build));
            for more in failures {
                error.details.push(more.details.clone());
                error.details.push(more.resolution.clone());
            }
            error
        })
    }

    /// Makes the image of a build and brings it to the tenant's repository.
    pub(super) fn make(
        &mut self,
        flow: &Flow<'_>,
        build: &Build,
        planned: Planned,
    ) -> Result<Built, FlowError> {
        let begun = Instant::now();
        let Planned {
            settings,
            plan,
            found,
        } = planned;
        let mut execution = Execution {
            settings: &settings,
            plan: &plan,
            found,
            shared: Arc::clone(&self.shared),
        };
        let mut run = self.run(flow, flow.reporter);
        let made = make_folder(flow.folder).and_then(|()| {
            let Prepared { release, .. } = prepare(&mut run, &mut execution)?;
            let digest = match release.app.digest {
                Some(digest) => digest,
                // Docker does not always tell.
                None => push::verify(&mut run, &release.destination, &settings)?,
            };
            Ok((release.app.image, digest.to_string()))
        });
        self.outcome = run.outcome;
        let (image, digest) = made.map_err(|failure| build_failed(flow, build, &failure))?;
        self.has_built = true;
        let live = plan.live.iter();
        let mut live = live.flat_map(|live| live.services.values().chain([&live.digest]));
        Ok(Built {
            service: build.service,
            reused: live.any(|live| *live == digest),
            image: format!("{image}@{digest}"),
            took: begun.elapsed(),
        })
    }
}

fn build_failed(flow: &Flow<'_>, build: &Build, failure: &Failure) -> FlowError {
    if failure.exit == Exit::Interrupted {
        return FlowError::of(FlowStep::Build, failure);
    }
    let name = &flow.file.services[build.service].name;
    let message = format!("Build failed for {name}");
    let mut error = FlowError::new(FlowStep::Build, failure.code, failure.exit, message)
        .with(format!("Image {}", build.image()));
    error
        .details
        .extend(failure.details.lines().map(str::to_owned));
    error.with(failure.resolution.clone())
}

//! The image of a build: planned, made and sent as that of a project of one service.

use std::sync::Arc;
use std::time::Instant;

use deploy_plan::aramb::{FlowError, FlowStep};
use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};
use deploy_plan::plan::Request;

use super::sources::Source;
use super::{OwnPlatform, Planned, internal, make_folder, names};
use crate::aramb::plane::{Build, Built, Flow};
use crate::base::Registries;
use crate::deploy::{self, Execution, Prepared, SharedReporter, prepare};
use crate::image::{self, Maker};
use crate::run::Run;
use crate::{docker, push, sweep};

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

    /// Whether our own builder makes the image of a build: one of a package of Cargo's.
    pub(in crate::aramb) fn is_package(&mut self, flow: &Flow<'_>, build: usize) -> bool {
        matches!(self.source(flow, build), Ok(Source::Program { .. }))
    }

    /// Makes the image of a build and leaves it where the `aramb` command leaves those that it builds: in this machine's
    /// Docker, under the build's name. From there it goes to a registry where that is wanted.
    pub(in crate::aramb) fn make_for_docker(
        &mut self,
        flow: &Flow<'_>,
        build: &Build,
    ) -> Result<Built, FlowError> {
        let begun = Instant::now();
        let planned = self.plan_build(flow, build)?;
        let mut run = self.run(flow, flow.reporter);
        let made =
            make_folder(flow.folder).and_then(|()| load(&mut run, planned, &self.shared, build));
        self.outcome = run.outcome;
        made.map_err(|failure| build_failed(flow, build, &failure))?;
        Ok(Built {
            service: build.service,
            image: build.image(),
            took: begun.elapsed(),
            reused: false,
        })
    }
}

fn load(
    run: &mut Run<'_>,
    planned: Planned,
    shared: &SharedReporter,
    build: &Build,
) -> Result<(), Failure> {
    let Planned {
        settings,
        plan,
        found,
    } = planned;
    let execution = Execution {
        settings: &settings,
        plan: &plan,
        found,
        shared: Arc::clone(shared),
    };
    let image = plan.image.as_ref().ok_or_else(|| {
        Failure::new(
            Step::Image,
            "internal",
            Exit::Other,
            "no image was planned",
            "this is a fault of the tool: please report it",
        )
    })?;
    sweep::abandoned(&execution.state());
    let binaries = deploy::build(run, &execution)?;
    let cannot = |error: std::io::Error| {
        Failure::new(
            Step::Image,
            "archive_failed",
            Exit::Build,
            format!("the image cannot be written for Docker: {error}"),
            "make room on the disk",
        )
    };
    // Beside the layers, and gone with its name whatever happens: at the latest by the next run.
    let folder = image::cache_folder(&settings);
    std::fs::create_dir_all(&folder).map_err(cannot)?;
    let archive = Temporary(folder.join(format!("docker.tar.{}.new", std::process::id())));
    run.step(Step::Image, |run| {
        let store = image::store(&settings)?;
        let registries = Registries::default();
        let mut maker = Maker::new(run, &execution, &store, image, &registries)?;
        let out = std::fs::File::create(&archive.0).map_err(cannot)?;
        let out = std::io::BufWriter::new(out);
        maker.export(run, image, &binaries, &build.image(), out)?;
        maker.finish(run).sweep();
        docker::load(run, &settings.root, &archive.0)?;
        Ok(((), format!("{} is in Docker", build.image())))
    })?;
    if build.push {
        run.step(Step::Push, |run| {
            docker::push_as_logged_in(run, &settings.root, &build.image())?;
            Ok(((), build.image()))
        })?;
    }
    Ok(())
}

/// A file that nobody needs later.
struct Temporary(std::path::PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
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

//! Images that the command builds.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use deploy_plan::aramb::{EdgeKind, FlowError, FlowStep};
use deploy_plan::exit::Exit;

use super::Cli;
use super::answers::image_url;
use super::call::Call;
use crate::aramb::interrupted;
use crate::aramb::plane::{Build, Built, Flow};
use crate::interrupt::Interrupts;

/// How long one image may take.
const BUILD: Duration = Duration::from_hours(1);

impl Cli {
    /// Whether our own builder makes the image of a build.
    pub(super) fn is_native(&mut self, flow: &Flow<'_>, build: usize) -> bool {
        let native = self.native.as_mut();
        native.is_some_and(|native| native.is_package(flow, build))
    }

    /// The images of Cargo packages, which take those of no others; cargo uses all processors by itself.
    pub(super) fn build_natively(
        &mut self,
        flow: &Flow<'_>,
        builds: &[Build],
    ) -> Result<Vec<(usize, Built)>, FlowError> {
        let mut built = Vec::new();
        let Some(native) = &mut self.native else {
            return Ok(built);
        };
        for (position, build) in builds.iter().enumerate() {
            if native.is_package(flow, build.service) {
                flow.say(format!("Building: {}", build.image()));
                built.push((position, native.make_for_docker(flow, build)?));
                flow.say(format!("✓ Built: {}", build.image()));
            }
        }
        Ok(built)
    }

    /// Builds that do not depend on each other; several at a time where that is allowed.
    pub(super) fn build_level(
        &self,
        flow: &Flow<'_>,
        builds: &[Build],
        level: &[usize],
    ) -> Result<Vec<(usize, Built)>, FlowError> {
        let part = flow.interrupts.of_part();
        let next = AtomicUsize::new(0);
        let results = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.min(level.len()) {
                scope.spawn(|| {
                    while let Some(&position) = level.get(next.fetch_add(1, Ordering::SeqCst)) {
                        if part.any() {
                            return;
                        }
                        let result = self.build_one(flow, &builds[position], &part);
                        if result.is_err() {
                            // The others would be built for nothing.
                            part.raise();
                        }
                        let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                        results.push((position, result));
                    }
                });
            }
        });
        // The first that has failed is the one that has ended the others.
        let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        let built: Result<Vec<_>, _> = results
            .into_iter()
            .map(|(position, result)| result.map(|built| (position, built)))
            .collect();
        let built = built?;
        if built.len() < level.len() {
            return Err(interrupted(FlowStep::Build));
        }
        Ok(built)
    }

    fn build_one(
        &self,
        flow: &Flow<'_>,
        build: &Build,
        interrupts: &Interrupts,
    ) -> Result<Built, FlowError> {
        let service = &flow.file.services[build.service];
        let flags = self.flags();
        let settings = &service.settings;
        let path = settings.build_path.as_ref().map(|path| path.text.as_str());
        let folder = flow.folder.join(path.unwrap_or("."));
        let mut arguments = vec!["build", "--name", &build.repository, "--tag", &build.tag];
        if build.push {
            arguments.push("--push");
        }
        if let Some(slug) = service.slug.as_deref().filter(|_| flags.service) {
            arguments.extend(["--service", slug]);
        }
        let static_files = settings.static_out_dir.as_ref();
        if let Some(out) = static_files.filter(|_| flags.static_outdir) {
            arguments.extend(["--static-outdir", &out.text]);
        }
        let hear = |line: &str| {
            if self.jobs > 1 {
                flow.say(format!("[{}] {line}", service.name));
            } else {
                flow.say(line);
            }
        };
        let call = Call {
            repository: Some(&build.repository),
            hear: Some(&hear),
            ..Call::new(&folder, &arguments, BUILD)
        };
        flow.say(format!("Building: {}", build.image()));
        let begun = Instant::now();
        let said = self.ask(call, interrupts);
        if flow.interrupts.any() {
            return Err(interrupted(FlowStep::Build));
        }
        let lines = match said {
            Ok(said) if said.is_good => {
                let image = image_url(&said.output).unwrap_or_else(|| build.image());
                flow.say(format!("✓ Built: {image}"));
                return Ok(Built {
                    service: build.service,
                    image,
                    took: begun.elapsed(),
                    reused: false,
                });
            }
            Ok(said) => said.words(),
            Err(error) => vec![error],
        };
        let message = format!("Build failed for {}", service.name);
        let error = FlowError::new(FlowStep::Build, "aramb_build_failed", Exit::Build, message)
            .with(format!("Image {}", build.image()))
            .with(format!("Command: {}", call.shown()));
        Err(lines.into_iter().fold(error, FlowError::with))
    }
}

/// The builds in groups, each of which takes images of earlier ones alone.
pub(super) fn levels(flow: &Flow<'_>, builds: &[Build]) -> Vec<Vec<usize>> {
    let of_service: BTreeMap<usize, usize> = builds
        .iter()
        .enumerate()
        .map(|(position, build)| (build.service, position))
        .collect();
    let mut taken: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for edge in &flow.graph.edges {
        if edge.kind == EdgeKind::Image
            && let Some(other) = of_service.get(&edge.to)
        {
            taken.entry(edge.from).or_default().push(*other);
        }
    }
    let mut level = vec![0_usize; builds.len()];
    // They stand in an order in which they can be built: who is taken from comes first.
    for (position, build) in builds.iter().enumerate() {
        let below = taken.get(&build.service).into_iter().flatten();
        level[position] = below.map(|other| level[*other] + 1).max().unwrap_or(0);
    }
    let count = level.iter().max().map_or(0, |most| most + 1);
    let mut levels = vec![Vec::new(); count];
    for (position, level) in level.into_iter().enumerate() {
        levels[level].push(position);
    }
    levels
}

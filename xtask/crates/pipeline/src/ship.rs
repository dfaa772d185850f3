//! The images of a release: made, copied or found, and all of them in the tenant's repository before anything is asked for.

use std::collections::BTreeMap;

use deploy_plan::config::APP;
use deploy_plan::failure::{Failure, Step};
use deploy_plan::plan::Tag as PlannedTag;
use deploy_plan::plan::{AppImage, Copied, Image, ImageBuilder, Plan, ServiceImage};
use oci::{Client, Digest, Tag};

use crate::attest::Papers;
use crate::base::Registries;
use crate::build::Binaries;
use crate::control::Control;
use crate::deploy::Execution;
use crate::docker;
use crate::events::Event;
use crate::image::{self, Made, Maker};
use crate::push::{self, Delivery, Destination, Sent, TagState, Tagged};
use crate::run::Run;
use crate::sweep::Held;
use crate::tagging::{self, Tagging};

const RELEASE_TAG: &str =
    "name the tag of a release with all its services, or deploy without --skip-push";

/// The images of a release in a registry.
pub(crate) struct Release {
    /// Where images of its tag go.
    pub(crate) destination: Destination,
    /// That of `app`.
    pub(crate) app: InRegistry,
    /// Those of the other services, by name.
    pub(crate) services: BTreeMap<String, InRegistry>,
}

/// An image in a registry.
#[derive(Debug, Clone)]
pub(crate) struct InRegistry {
    /// `registry/repository:tag`, or the digest in place of the tag.
    pub(crate) image: String,
    pub(crate) digest: Option<Digest>,
}

/// A service whose image is not that of another one.
struct Part<'a> {
    name: &'a str,
    from: Source<'a>,
}

/// Where an image comes from.
#[derive(Clone, Copy)]
enum Source<'a> {
    Native(&'a Image),
    Docker(&'a Image),
    Copied(&'a Copied),
    There,
}

/// An image that is here, and on its way.
struct Ready<'p, 'c> {
    part: &'p Part<'p>,
    made: Made,
    delivery: Delivery<'c>,
}

/// Asks registries for the finished images, before anything is built: their layers are fetched when they are sent.
pub(crate) fn look_for_copies(
    run: &Run<'_>,
    execution: &Execution<'_>,
    registries: &Registries,
) -> Result<(), Failure> {
    let parts = parts(execution.plan);
    let mut copies = parts.iter().filter_map(|part| match part.from {
        Source::Copied(copied) => Some((part.name, copied)),
        Source::Native(_) | Source::Docker(_) | Source::There => None,
    });
    let (Some(of_app), Some(first)) = (&execution.plan.image, copies.next()) else {
        return Ok(());
    };
    let store = image::store(execution.settings)?;
    let mut maker = Maker::new(run, execution, &store, of_app, registries)?;
    for (name, copied) in std::iter::once(first).chain(copies) {
        maker.copy(copied, None).map_err(|failure| {
            let step = Step::Preflight;
            of_service(name, Failure { step, ..failure })
        })?;
    }
    Ok(())
}

/// What making images takes.
struct Making<'a, 'c> {
    execution: &'a Execution<'a>,
    of_app: &'a Image,
    binaries: &'a Binaries,
    client: &'c Client,
    destination: &'a Destination,
    registries: &'a Registries,
}

pub(crate) fn ship(
    run: &mut Run<'_>,
    execution: &Execution<'_>,
    control: &Control,
    binaries: &Binaries,
    registries: &Registries,
) -> Result<Release, Failure> {
    let parts = parts(execution.plan);
    let mut digests = BTreeMap::new();
    let Some(of_app) = &execution.plan.image else {
        run.skip(Step::Image, "--skip-push");
        let destination = token(run, execution, control)?;
        find(run, execution, &parts, &destination, &mut digests)?;
        return note_release(run, execution.plan, destination, &digests);
    };
    // Before the images, because their first layers are sent while the last ones are compressed.
    let mut destination = token(run, execution, control)?;
    if parts.is_empty() {
        run.skip(Step::Image, "all images are in the repository");
        return note_release(run, execution.plan, destination, &digests);
    }
    let (by_docker, ours): (Vec<_>, Vec<_>) = parts
        .iter()
        .partition(|part| matches!(part.from, Source::Docker(_)));
    let client = match ours[..] {
        [] => None,
        _ => Some(push::sender(run, &destination, execution)?),
    };
    let (mut ready, mut held) = (Vec::new(), None);
    if let Some(client) = &client {
        let making = Making {
            execution,
            of_app,
            binaries,
            client,
            destination: &destination,
            registries,
        };
        let made = make_all(run, &making, &ours)?;
        (ready, held) = (made.0, Some(made.1));
    }
    let made = ready
        .iter()
        .map(|ready| (ready.part.name, ready.made.digest));
    digests.extend(made);
    if by_docker.is_empty() {
        reuse_live_tag(execution.plan, &digests, &mut destination);
    }
    // All that is likely to fail comes before the first tag that moves.
    let built = build_all(run, execution, binaries, &by_docker, &destination)?;
    let mut tags = Vec::new();
    if let Some(client) = &client {
        let sending = Sending {
            execution,
            of_app,
            client,
            destination: &destination,
            tagged: match parts[..] {
                [_] => Tagged::Now,
                _ => Tagged::Later,
            },
        };
        tags = push_all(run, &sending, ready)?;
    }
    if let Some(held) = held {
        held.sweep();
    }
    let moved = push_built(run, execution, binaries, &built, &tags)?;
    digests.extend(moved.digests);
    if let Some(client) = client.filter(|_| !tags.is_empty()) {
        run.step(Step::Push, |run| {
            let count = tags.len();
            tagging::move_all(run, &client, tags, moved.tags)?;
            let tags = if count == 1 { "tag" } else { "tags" };
            Ok(((), format!("{count} {tags} of the release set")))
        })?;
    }
    note_release(run, execution.plan, destination, &digests)
}

/// An image that Docker has built and not pushed yet.
struct ByDocker<'p> {
    name: &'p str,
    image: &'p Image,
    to: Destination,
    built: docker::Built,
}

fn build_all<'p>(
    run: &mut Run<'_>,
    execution: &Execution<'_>,
    binaries: &Binaries,
    parts: &[&'p Part<'p>],
    destination: &Destination,
) -> Result<Vec<ByDocker<'p>>, Failure> {
    let mut all = Vec::new();
    for part in parts {
        let Source::Docker(image) = part.from else {
            continue;
        };
        let to = destination_of(part.name, destination)?;
        let built = docker::build(run, execution, image, binaries, &to)
            .map_err(|failure| of_service(part.name, failure))?;
        all.push(ByDocker {
            name: part.name,
            image,
            to,
            built,
        });
    }
    Ok(all)
}

/// What Docker has pushed.
#[derive(Default)]
struct Moved<'p> {
    digests: Vec<(&'p str, Digest)>,
    tags: Vec<String>,
}

/// Pushes what Docker has built. It knows no push without a tag, so these move one after the other; `app` comes last, as the
/// release is looked for by its tag. `waiting` are to move afterwards.
fn push_built<'p>(
    run: &mut Run<'_>,
    execution: &Execution<'_>,
    binaries: &Binaries,
    built: &[ByDocker<'p>],
    waiting: &[Tagging],
) -> Result<Moved<'p>, Failure> {
    let mut moved = Moved::default();
    let (app, others): (Vec<_>, Vec<_>) = built.iter().partition(|image| image.name == APP);
    let mut left = others.into_iter().chain(app);
    while let Some(ByDocker {
        name,
        image,
        to,
        built,
    }) = left.next()
    {
        let pushed = docker::push(run, execution, image, binaries, to, built);
        let digest = pushed.map_err(|failure| {
            let later = left.by_ref().map(|image| image.to.tag.to_string());
            let progress = tagging::Progress {
                moved: std::mem::take(&mut moved.tags),
                unknown: Vec::new(),
                not_moved: later.chain(waiting.iter().map(Tagging::tag)).collect(),
            };
            progress.told(of_service(name, failure))
        })?;
        moved.digests.extend(digest.map(|digest| (*name, digest)));
        moved.tags.push(to.tag.to_string());
    }
    Ok(moved)
}

/// `app`, and every service with an image of its own, but for those whose images stay as they are.
fn parts(plan: &Plan) -> Vec<Part<'_>> {
    fn made(image: &Image) -> Source<'_> {
        match image.builder {
            ImageBuilder::Native => Source::Native(image),
            ImageBuilder::Docker => Source::Docker(image),
        }
    }
    let of_app = match (&plan.app, &plan.image) {
        (AppImage::Kept(_), _) => None,
        (_, None) => Some(Source::There),
        (AppImage::Copied(copied), _) => Some(Source::Copied(copied)),
        (AppImage::Made, Some(image)) => Some(made(image)),
    };
    let of_app = of_app.map(|from| Part { name: APP, from });
    let others = plan.services.iter().filter_map(|service| {
        let from = match &service.image {
            ServiceImage::OfApp | ServiceImage::Kept(_) => return None,
            ServiceImage::Made(image) => made(image),
            ServiceImage::Copied(copied) => Source::Copied(copied),
            ServiceImage::There => Source::There,
        };
        Some(Part {
            name: &service.name,
            from,
        })
    });
    of_app.into_iter().chain(others).collect()
}

/// Makes sure that all images are in the repository that nobody makes here.
fn find<'p>(
    run: &mut Run<'_>,
    execution: &Execution<'_>,
    parts: &[Part<'p>],
    destination: &Destination,
    digests: &mut BTreeMap<&'p str, Digest>,
) -> Result<(), Failure> {
    run.step(Step::Push, |run| {
        for part in parts {
            let to = destination_of(part.name, destination)?;
            let digest = push::verify(run, &to, execution.settings).map_err(|mut failure| {
                if part.name != APP && failure.code == "tag_not_found" {
                    RELEASE_TAG.clone_into(&mut failure.resolution);
                }
                of_service(part.name, failure)
            })?;
            digests.insert(part.name, digest);
        }
        let summary = match parts.len() {
            1 => format!("{} is there", destination.image()),
            many => format!(
                "{} is there, and {} images of services",
                destination.image(),
                many - 1
            ),
        };
        Ok(((), summary))
    })
}

/// Makes the images, one after the other: each uses all processors, and what they share is made once. Their blobs stay until they
/// are sent.
fn make_all<'p, 'c>(
    run: &mut Run<'_>,
    making: &Making<'_, 'c>,
    parts: &[&'p Part<'p>],
) -> Result<(Vec<Ready<'p, 'c>>, Held), Failure> {
    let &Making {
        execution,
        of_app,
        binaries,
        client,
        destination,
        registries,
    } = making;
    let cache = execution.state().join("cache");
    let live = execution.plan.live.as_ref();
    run.step(Step::Image, |run| {
        let store = image::store(execution.settings)?;
        let mut maker = Maker::new(run, execution, &store, of_app, registries)?;
        let mut all = Vec::new();
        for part in parts {
            run.stop_if_interrupted(Step::Image)?;
            let live = live.and_then(|live| match part.name {
                APP => Some(live.digest.as_str()),
                name => live.services.get(name).map(String::as_str),
            });
            let delivery = Delivery::begin(client, destination, &cache);
            let made = match part.from {
                Source::Native(image) => maker.make(run, image, binaries, &delivery, live),
                Source::Copied(copied) => maker.copy(copied, live),
                Source::Docker(_) | Source::There => continue,
            };
            let made = made.map_err(|failure| of_service(part.name, failure))?;
            all.push(Ready {
                part,
                made,
                delivery,
            });
        }
        let held = maker.finish(run);
        for ready in &all {
            run.outcome.note_image(ready.part.name, &ready.made.report);
        }
        let summary = told(run, &all);
        Ok(((all, held), summary))
    })
}

/// What was made, in words; of several images each in a line of its own before.
fn told(run: &Run<'_>, all: &[Ready<'_, '_>]) -> String {
    if let [only] = all {
        return only.made.summary();
    }
    for Ready { part, made, .. } in all {
        let line = format!("        {}: {}", part.name, made.summary());
        run.reporter.event(Event::Output(line));
    }
    let sum = |of: fn(&Made) -> u64| all.iter().map(|ready| of(&ready.made)).sum::<u64>();
    let (size, new) = (sum(|made| made.report.size), sum(|made| made.report.new));
    let (images, size) = (all.len(), image::megabytes(size));
    match new {
        0 => format!("{images} images, {size}; all of it serves already"),
        new => format!("{images} images, {size}, {} new", image::megabytes(new)),
    }
}

/// What sending images takes.
struct Sending<'a> {
    execution: &'a Execution<'a>,
    of_app: &'a Image,
    client: &'a Client,
    destination: &'a Destination,
    tagged: Tagged,
}

/// Sends the images. The tags that are still to be moved come back.
fn push_all(
    run: &mut Run<'_>,
    sending: &Sending<'_>,
    ready: Vec<Ready<'_, '_>>,
) -> Result<Vec<Tagging>, Failure> {
    let &Sending {
        execution,
        of_app,
        client,
        destination,
        tagged,
    } = sending;
    run.step(Step::Push, |run| {
        let images = ready.len();
        let mut sent = Sent::default();
        let mut tags = Vec::new();
        for Ready {
            part,
            made,
            delivery,
        } in ready
        {
            let papers = match part.from {
                Source::Native(image) | Source::Docker(image) => Papers::of(execution, image),
                Source::Copied(_) | Source::There => Papers::of(execution, of_app).of_copy(),
            };
            let to = destination_of(part.name, destination)?;
            let arrived = push::push(run, &to, &made, &papers, delivery, tagged)
                .map_err(|failure| of_service(part.name, failure))?;
            sent.add(&arrived.pushed);
            if arrived.tag == TagState::ToBeMoved {
                tags.push(Tagging::of(part.name, &to, &made));
            }
        }
        // What is counted on the way belongs to the one client that they share.
        sent.count(client);
        Ok((tags, sent.summary(&destination.image(), images)))
    })
}

/// The very images that serve already keep their tags: a second deploy without changes sends nothing. Where one of them
/// has changed, all get new ones: a tag stands for a whole release.
fn reuse_live_tag(plan: &Plan, made: &BTreeMap<&str, Digest>, destination: &mut Destination) {
    let PlannedTag::Generated(_) = plan.tag else {
        return;
    };
    let Some(live) = &plan.live else {
        return;
    };
    let serves = |name: &str| match name {
        APP => Some(&live.digest),
        name => live.services.get(name),
    };
    let mut made = made.iter();
    if made.all(|(name, digest)| serves(name) == Some(&digest.to_string()))
        && let Some(tag) = live.tag.as_ref().and_then(|tag| tag.parse().ok())
    {
        destination.tag = tag;
    }
}

/// Where the image of a service goes, that of `app` going to `destination`.
fn destination_of(name: &str, destination: &Destination) -> Result<Destination, Failure> {
    if name == APP {
        return Ok(destination.tagged(destination.tag.clone()));
    }
    let text = format!("{name}-{}", destination.tag);
    let tag: Tag = text.parse().map_err(|e| {
        Failure::new(
            Step::Push,
            "image_name_invalid",
            deploy_plan::exit::Exit::Configuration,
            format!("{text} is not a tag: {e}"),
            "use a shorter --tag: the names of services come in front of it",
        )
    })?;
    Ok(destination.tagged(tag))
}

/// Says whose image it was.
fn of_service(name: &str, mut failure: Failure) -> Failure {
    if name != APP {
        failure.details = format!("services.{name}: {}", failure.details);
    }
    failure
}

fn note_release(
    run: &mut Run<'_>,
    plan: &Plan,
    destination: Destination,
    digests: &BTreeMap<&str, Digest>,
) -> Result<Release, Failure> {
    let of_app = match &plan.app {
        AppImage::Kept(digest) => kept(&destination, digest)?,
        AppImage::Made | AppImage::Copied(_) => InRegistry {
            image: destination.image(),
            digest: digests.get(APP).copied(),
        },
    };
    let mut services = BTreeMap::new();
    for service in &plan.services {
        let own = match &service.image {
            ServiceImage::Kept(digest) => Some(kept(&destination, digest)?),
            _ => service.tag(destination.tag.as_str()).map(|tag| InRegistry {
                image: format!("{}/{}:{tag}", destination.registry, destination.repository),
                digest: digests.get(service.name.as_str()).copied(),
            }),
        };
        services.insert(service.name.clone(), own.unwrap_or_else(|| of_app.clone()));
    }
    run.outcome.image = Some(of_app.image.clone());
    run.outcome.tag = Some(destination.tag.to_string());
    run.outcome.digest = of_app.digest.map(|digest| digest.to_string());
    for (name, service) in &services {
        let digest = service.digest.map(|digest| digest.to_string());
        run.outcome
            .services
            .note_pushed(name, &service.image, digest);
    }
    Ok(Release {
        app: of_app,
        destination,
        services,
    })
}

/// An image that is in the repository under whatever tag.
fn kept(destination: &Destination, digest: &str) -> Result<InRegistry, Failure> {
    let digest: Digest = digest.parse().map_err(|e| {
        Failure::new(
            Step::Push,
            "image_name_invalid",
            deploy_plan::exit::Exit::Other,
            format!("{digest} is not a digest: {e}"),
            "this is a fault of the platform or of the tool: please report it",
        )
    })?;
    let Destination {
        registry,
        repository,
        ..
    } = destination;
    Ok(InRegistry {
        image: format!("{registry}/{repository}@{digest}"),
        digest: Some(digest),
    })
}

fn token(
    run: &mut Run<'_>,
    execution: &Execution<'_>,
    control: &Control,
) -> Result<Destination, Failure> {
    run.step(Step::Token, |run| {
        let destination = push::destination(run, control, execution.plan)?;
        let summary = format!("for {}/{}", destination.registry, destination.repository);
        Ok((destination, summary))
    })
}

//! `cargo xtask lock`: which base images an environment stands on, what they are pinned to, and
//! pinning them anew.

use std::collections::BTreeMap;

use deploy_config::{Settings, project};
use deploy_image::{Dockerfile, base_images};
use deploy_plan::config::{Base, Config};
use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};
use deploy_plan::plan::{Attach, Copied, Image, ImageBuilder, LayerCompression};
use oci::{Digest, Platform, Reference};

use crate::aramb::pins;
use crate::authorities;
use crate::base::{self, Access, BaseError};
use crate::control::with_causes;
use crate::deploy::SharedReporter;
use crate::docker_config::DockerConfig;
use crate::events::Event;
use crate::image::{options, platform, platform_of, text_of};
use crate::interrupt::Interrupts;
use crate::lock::{Lock, Pin};
use crate::redact::Redactor;

/// Which pins are made anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// None: only those that are missing are made.
    Missing,
    /// All of them, also those of other environments.
    All,
    /// Those of one image, by its name.
    Image(String),
}

/// A base image and what it is pinned to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// Name and platform.
    pub pin: Pin,
    /// The digest now; none where it was dropped.
    pub digest: Option<Digest>,
    /// The digest before; the same where nothing has changed.
    pub before: Option<Digest>,
}

/// What asking registries takes.
pub struct Asking<'a> {
    /// The project's settings.
    pub settings: &'a Settings,
    /// Learns the passwords that credential helpers give.
    pub redactor: &'a Redactor,
    /// Ends what takes too long for the user.
    pub interrupts: &'a Interrupts,
    /// The settings of every environment: pins that none of them needs are dropped. None where one
    /// environment alone is asked about; then nothing is dropped.
    pub everywhere: Option<&'a [Settings]>,
    /// Is told what deserves a look.
    pub tell: SharedReporter,
}

/// The base images of an image that is planned, with the digests in the lock. Asks nobody.
pub fn pinned(settings: &Settings, image: &Image) -> Result<Vec<Pinned>, Failure> {
    let lock = read(settings)?;
    let wanted = wanted(settings, image)?.into_iter();
    Ok(wanted.map(|wanted| in_lock(&lock, wanted)).collect())
}

/// A finished image that is copied, with its digest in the lock. Asks nobody.
pub fn pinned_copy(settings: &Settings, copied: &Copied) -> Result<Pinned, Failure> {
    let lock = read(settings)?;
    let platform = platform_of(copied.platform.as_ref());
    Ok(in_lock(&lock, Wanted::of(&copied.reference, &platform)?))
}

fn in_lock(lock: &Lock, wanted: Wanted) -> Pinned {
    let digest = wanted.digest.or_else(|| lock.get(&wanted.pin));
    Pinned {
        pin: wanted.pin,
        digest,
        before: digest,
    }
}

/// Pins what is missing in the lock, and anew what `update` says; drops what nobody needs.
pub fn lock(asking: &Asking<'_>, update: &Update) -> Result<Vec<Pinned>, Failure> {
    let settings = asking.settings;
    authorities::check_registries(settings)?;
    let dropped = match asking.everywhere {
        Some(everywhere) => drop_unused(asking, everywhere)?,
        None => Vec::new(),
    };
    let lock = read(settings)?;
    let mut pins: Vec<Pin> = Vec::new();
    for wanted in wanted_here(settings)? {
        // A digest in the name itself needs no pin.
        if wanted.digest.is_none() && !pins.contains(&wanted.pin) {
            pins.push(wanted.pin);
        }
    }
    let known = lock.pins().map(|(pin, _)| pin.clone());
    let others: Vec<Pin> = known.filter(|pin| !pins.contains(pin)).collect();
    pins.extend(others);
    let named = named(update, &pins)?;
    let folder = settings.root.join(project::FOLDER);
    let access = Access {
        insecure: settings.config.api.insecure_registries.clone(),
        certificates: authorities::of_registries(settings),
        docker: DockerConfig::of_environment(asking.redactor),
        redactor: asking.redactor.clone(),
        interrupts: asking.interrupts.clone(),
        tell: asking.tell.clone(),
    };
    let pinned = pins.into_iter().map(|pin| {
        let before = lock.get(&pin);
        let anew = match update {
            Update::Missing => before.is_none(),
            Update::All => true,
            Update::Image(_) => named.as_ref() == Some(&pin.reference),
        };
        let digest = if anew {
            Some(base::update(&folder, &access, &pin).map_err(|e| e.failure(Step::Image))?)
        } else {
            before
        };
        Ok(Pinned {
            pin,
            digest,
            before,
        })
    });
    let pinned: Result<Vec<_>, Failure> = pinned.collect();
    Ok([pinned?, dropped].concat())
}

/// Takes the pins out of the lock that no environment needs. Where it cannot be known what one of
/// them needs, nothing is taken out.
fn drop_unused(asking: &Asking<'_>, everywhere: &[Settings]) -> Result<Vec<Pinned>, Failure> {
    let mut lock = read(asking.settings)?;
    if lock.pins().next().is_none() {
        return Ok(Vec::new());
    }
    let needed = match everywhere.iter().map(needs).collect::<Result<Vec<_>, _>>() {
        Ok(needed) => needed.concat(),
        Err(failure) => {
            let words = format!("no pin is dropped: {}", failure.details);
            (asking.tell)(Event::Warning(asking.redactor.clean(&words)));
            return Ok(Vec::new());
        }
    };
    let unused = lock
        .pins()
        .filter(|(pin, _)| !needed.iter().any(|need| need.covers(pin)));
    let dropped: Vec<Pinned> = unused
        .map(|(pin, digest)| Pinned {
            pin: pin.clone(),
            digest: None,
            before: Some(*digest),
        })
        .collect();
    let pins: Vec<Pin> = dropped.iter().map(|pinned| pinned.pin.clone()).collect();
    lock.remove(&pins)
        .map_err(|e| BaseError::from(e).failure(Step::Image))?;
    Ok(dropped)
}

/// What an environment needs a pin for.
#[derive(Clone)]
struct Need {
    pin: Pin,
    /// Where the settings name no machines, each machine that builds has a pin of its own.
    any_platform: bool,
}

impl Need {
    fn covers(&self, pin: &Pin) -> bool {
        self.pin.reference == pin.reference
            && (self.any_platform || self.pin.platform == pin.platform)
    }
}

fn needs(settings: &Settings) -> Result<Vec<Need>, Failure> {
    let any_platform = settings.config.image.platform.is_none();
    let wanted = wanted_here(settings).map_err(|mut failure| {
        failure.details = format!("environment {}: {}", settings.environment, failure.details);
        failure
    })?;
    let unpinned = wanted.into_iter().filter(|wanted| wanted.digest.is_none());
    let needs = unpinned.map(|wanted| Need {
        pin: wanted.pin,
        any_platform,
    });
    Ok(needs.collect())
}

/// The full name of the one image that is to be pinned anew.
fn named(update: &Update, pins: &[Pin]) -> Result<Option<String>, Failure> {
    let Update::Image(text) = update else {
        return Ok(None);
    };
    let reference = parse(text)?;
    let name = Pin::of(&reference, &Platform::host()).reference;
    if pins.iter().any(|pin| pin.reference == name) {
        return Ok(Some(name));
    }
    let known: Vec<&str> = pins.iter().map(|pin| pin.reference.as_str()).collect();
    let known = match known[..] {
        [] => "there are none".to_owned(),
        _ => format!("they are {}", known.join(", ")),
    };
    Err(Failure::new(
        Step::Image,
        "base_unknown",
        Exit::Configuration,
        format!("{name} is none of the base images; {known}"),
        "name one of them, or leave the name out to look for newer versions of all",
    ))
}

struct Wanted {
    pin: Pin,
    /// The digest that the name itself carries.
    digest: Option<Digest>,
}

impl Wanted {
    fn of(text: &str, platform: &Platform) -> Result<Self, Failure> {
        let reference = parse(text)?;
        Ok(Self {
            pin: Pin::of(&reference, platform),
            digest: reference.digest().copied(),
        })
    }
}

/// What is wanted by the project's configuration, and by the `aramb.toml` beside it.
fn wanted_here(settings: &Settings) -> Result<Vec<Wanted>, Failure> {
    let needed = pins::needed(settings)?;
    let mut all = if needed.alone {
        Vec::new()
    } else {
        wanted_by_all(settings)?
    };
    let platform = platform(&planned(&settings.config));
    for image in &needed.images {
        all.push(Wanted::of(image, &platform)?);
    }
    for build in &needed.builds {
        all.extend(wanted_by_all(build)?);
    }
    Ok(all)
}

/// What all images of a release stand on, and the finished ones among them.
fn wanted_by_all(settings: &Settings) -> Result<Vec<Wanted>, Failure> {
    let image = planned(&settings.config);
    let services = &settings.config.services;
    let mut all = match (services.image_of_app(), services.binary_of_app()) {
        (Some(reference), _) => vec![Wanted::of(reference, &platform(&image))?],
        // Nothing but what the configuration names itself.
        (None, Some(_)) if image.base == Base::Dockerfile => Vec::new(),
        (None, _) => wanted(settings, &image)?,
    };
    for service in services.others.values() {
        if let Some(reference) = &service.image {
            all.push(Wanted::of(reference, &platform(&image))?);
        }
        if let Some(dockerfile) = &service.dockerfile {
            let image = Image {
                dockerfile: dockerfile.clone(),
                ..image.clone()
            };
            all.extend(wanted(settings, &image)?);
        }
    }
    Ok(all)
}

fn wanted(settings: &Settings, image: &Image) -> Result<Vec<Wanted>, Failure> {
    let named = match &image.base {
        Base::Image(reference) => vec![(reference.clone(), platform(image))],
        Base::Host | Base::Scratch => Vec::new(),
        Base::Dockerfile => of_dockerfile(settings, image)?,
    };
    let wanted = named.into_iter();
    wanted
        .map(|(text, platform)| Wanted::of(&text, &platform))
        .collect()
}

fn of_dockerfile(settings: &Settings, image: &Image) -> Result<Vec<(String, Platform)>, Failure> {
    let name = image.dockerfile.display().to_string();
    let text = text_of(settings, image)?;
    let options = options(image)?;
    Dockerfile::parse(&name, &text)
        .and_then(|dockerfile| base_images(&dockerfile, &options))
        .map_err(|e| Failure::preflight("dockerfile_invalid", with_causes(&e), e.resolution()))
}

fn parse(text: &str) -> Result<Reference, Failure> {
    text.parse().map_err(|source| {
        let text = text.to_owned();
        BaseError::Reference { text, source }.failure(Step::Image)
    })
}

fn read(settings: &Settings) -> Result<Lock, Failure> {
    Lock::read(&settings.root.join(project::FOLDER))
        .map_err(|e| BaseError::from(e).failure(Step::Image))
}

/// As much of a plan as says which base images it stands on.
fn planned(config: &Config) -> Image {
    let image = &config.image;
    Image {
        builder: ImageBuilder::Native,
        base: image.base.clone(),
        platform: image.platform.clone(),
        check_libraries: image.check_libraries,
        locked: config.build.locked,
        dockerfile: image.dockerfile.clone(),
        text: None,
        context: image.context.clone(),
        build_args: image.build_args.clone(),
        artifacts: BTreeMap::new(),
        compression: LayerCompression::None,
        verify: false,
        allow_secrets: Vec::new(),
        attach: Attach::default(),
    }
}

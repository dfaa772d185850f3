//! A file in the terms of our own platform: services of one release, with everything that they say.
//!
//! Pure, and nothing is guessed: what the platform does not have is told, all of it at once.

mod amounts;
mod command;
mod names;
mod refused;
mod service;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{ArambFile, EdgeKind, Graph, Service};
use crate::config::{self, AppService, Config, Health, HealthKind, Protocol, Services};

pub use names::Names;
use service::Translation;
use values::Values;

/// Set by the platform, another one for each instance.
const PORT: &str = "PORT";
/// How long a program that listens nowhere has to run until it counts as well.
const PROOF: config::Duration = config::Duration::from_secs(2);

/// Something that our own platform cannot do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Stable, for programs.
    pub code: &'static str,
    /// What, and of which service.
    pub message: String,
    /// What to do.
    pub help: String,
}

impl Fault {
    pub(super) fn new(
        code: &'static str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            code,
            message: message.into(),
            help: help.into(),
        }
    }

    /// A setting of a service that means nothing.
    pub(super) fn invalid(
        code: &'static str,
        service: &Service,
        key: &str,
        text: &str,
        help: &'static str,
    ) -> Self {
        let name = &service.name;
        Self::new(
            code,
            format!("{key} of `{name}`: `{text}` means nothing here"),
            help,
        )
    }
}

/// What is translated.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The file.
    pub file: &'a ArambFile,
    /// Who takes what from whom in it.
    pub graph: &'a Graph,
    /// What its services are called on the platform.
    pub names: &'a Names,
    /// Positions of the services that run when the release serves.
    pub services: &'a BTreeSet<usize>,
    /// The images of builds, by the position of the build: what `IMAGE_URL` is in values.
    pub images: &'a BTreeMap<usize, String>,
    /// The builds whose image holds one program and nothing else, with that.
    pub programs: &'a BTreeMap<usize, String>,
    /// The host below which public services have theirs, but for the one that gets all else.
    pub host: &'a str,
}

/// Values of secrets by their names. Nobody sees them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TenantSecrets(pub BTreeMap<String, String>);

impl fmt::Debug for TenantSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A file in the platform's terms.
#[derive(Debug, Clone, PartialEq)]
pub struct Translated {
    /// Secrets that the tenant has to have.
    pub secrets: TenantSecrets,
    /// Which service runs which build: positions.
    pub builds: BTreeMap<usize, usize>,
    /// What is not as the file says it, and deserves a look.
    pub notes: Vec<String>,
    app: config::Service,
    /// Whether `app` gets what is for no other service.
    is_app_public: bool,
    others: Services,
}

impl Translated {
    /// Says of services what the file says, and nothing of what they said before. How images are made, where to and by which
    /// strategy stays.
    pub fn apply(&self, config: &mut Config) {
        let app = self.app.clone();
        config.env = app.env;
        config.deploy.release_command = Vec::new();
        config.deploy.require_env = Vec::new();
        config.deploy.replicas = 1;
        config.deploy.restart = app.restart;
        config.liveness = config::Liveness::default();
        config.health = match app.protocol {
            Protocol::None => Health {
                kind: HealthKind::Process,
                start_period: PROOF,
                ..Health::default()
            },
            Protocol::Http | Protocol::Tcp => Health {
                kind: HealthKind::Tcp,
                ..Health::default()
            },
        };
        // A file is written for machines that can bound what runs; this one may not.
        let best_effort =
            config.resources.best_effort || config.control_plane == config::ControlPlane::Embedded;
        config.resources = app.resources;
        config.resources.best_effort = best_effort;
        config.services = self.others.clone();
        for service in config.services.others.values_mut() {
            service.resources.best_effort = best_effort;
        }
        config.services.app = Some(AppService {
            binary: None,
            image: app.image,
            command: app.command,
            depends_on: app.depends_on,
            volumes: app.volumes,
            routes: (!self.is_app_public).then(Vec::new),
        });
    }
}

/// Translates a file.
///
/// # Errors
///
/// Everything in it that the platform cannot do.
pub fn translate(wanted: &Wanted<'_>) -> Result<Translated, Vec<Fault>> {
    let mut faults = Vec::new();
    for position in wanted.services {
        faults.extend(refused::refused(&wanted.file.services[*position]));
    }
    let app = wanted.names.app();
    match app {
        None => faults.push(Fault::new(
            "app_missing",
            "the file has no backend and no frontend, and a release of this platform has one service that is no database",
            "describe a backend too",
        )),
        Some(app) if !wanted.services.contains(&app) => faults.push(Fault::new(
            "service_not_live",
            format!(
                "`{}` is neither deployed now nor live, and no release of this file is without it",
                wanted.names.said(app)
            ),
            "deploy it too, or everything",
        )),
        Some(_) => {}
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let listening = listening(wanted);
    let mut translation = Translation {
        wanted,
        listening: &listening,
        values: Values::new(
            wanted.file,
            wanted.names,
            wanted.services,
            &listening,
            wanted.images,
        ),
        builds: BTreeMap::new(),
        notes: Vec::new(),
        faults,
    };
    let mut of_app = config::Service::default();
    let mut others = Services::default();
    for position in wanted.services {
        let service = translation.service(*position);
        if Some(*position) == app {
            of_app = service;
        } else if let Ok(name) = wanted.names.on_platform(*position).parse() {
            others.others.insert(name, service);
        }
    }
    if !translation.faults.is_empty() {
        return Err(translation.faults);
    }
    let is_app_public =
        app.is_some_and(|app| wanted.file.services[app].settings.public_net == Some(true));
    Ok(Translated {
        secrets: TenantSecrets(translation.values.secrets),
        builds: translation.builds,
        notes: translation.notes,
        app: of_app,
        is_app_public,
        others,
    })
}

/// What listens: databases, what says a port or is public, and what somebody takes an address of.
fn listening(wanted: &Wanted<'_>) -> BTreeSet<usize> {
    let edges = wanted.graph.edges.iter();
    let asked: BTreeSet<usize> = edges
        .filter(|edge| edge.kind == EdgeKind::Url)
        .map(|edge| edge.to)
        .collect();
    let listens = |position: &usize| {
        let service = &wanted.file.services[*position];
        service.kind.is_database()
            || service.settings.command_port.is_some()
            || service.settings.public_net == Some(true)
            || asked.contains(position)
    };
    wanted.services.iter().copied().filter(listens).collect()
}

#[cfg(test)]
mod tests;

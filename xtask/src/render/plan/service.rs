//! The services of a plan: where the image of each comes from, who reaches it, what it may use.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use deploy_pipeline::locking::Pinned;
use deploy_plan::config::{self, APP, Config, Protocol, Resources, ServiceHealthKind};
use deploy_plan::plan::{self, Plan, ServiceImage};
use deploy_plan::report::ImageReport;
use serde::Serialize;

use super::{Image, Previews, check_text};
use crate::render::bytes;

/// A service beside `app`.
#[derive(Serialize)]
pub(super) struct Service {
    name: String,
    /// `app`, `dockerfile`, `binary`, `image` or `registry`, and what of it.
    source: Source,
    /// The tag of its image, unless the server sends one for `app`; none where it runs that of `app`.
    tag: Option<String>,
    /// Of an image that is copied, once it is pinned.
    digest: Option<String>,
    /// Bytes of all its layers, where all are known.
    bytes: Option<u64>,
    /// Of an image that is made here.
    image: Option<Image>,
    /// Of an image that is copied, once it is known.
    copy: Option<ImageReport>,
    command: Vec<String>,
    depends_on: Vec<String>,
    routes: Vec<String>,
    protocol: Protocol,
    replicas: u32,
    restart: String,
    health: String,
    limits: Limits,
    env: Vec<String>,
    /// Names of variables, each with the name of a secret.
    secrets: BTreeMap<String, String>,
    volumes: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Source {
    kind: &'static str,
    name: Option<String>,
}

/// What is known of the image of a service before anything is done.
pub(super) struct Known {
    /// Of one that is made here.
    pub(super) image: Option<Image>,
    /// What a copied one is pinned to.
    pub(super) pinned: Option<Pinned>,
    /// What is in a copied one.
    pub(super) copy: Option<ImageReport>,
}

/// The services of a plan, in the order in which they start.
pub(super) fn services(
    plan: &Plan,
    config: &Config,
    tag: &str,
    previews: &Previews,
    bases: &BTreeMap<String, Vec<Pinned>>,
) -> Vec<Service> {
    let order = plan.order.iter().filter(|name| *name != APP);
    let found = order.filter_map(|name| {
        let planned = plan.services.iter().find(|planned| planned.name == *name)?;
        let mut said = config.services.others.iter();
        let (_, said) = said.find(|(known, _)| known.as_str() == name)?;
        let pinned = bases.get(name).map_or(&[][..], Vec::as_slice);
        let layers = previews.services.get(name).map_or(&[][..], Vec::as_slice);
        let known = Known {
            image: match &planned.image {
                ServiceImage::Made(image) => Some(Image::new(image, layers, pinned)),
                _ => None,
            },
            pinned: pinned.first().cloned(),
            copy: previews.copies.get(name).cloned(),
        };
        Some(Service::new(planned, said, tag, known))
    });
    found.collect()
}

impl Service {
    fn new(planned: &plan::Service, said: &config::Service, tag: &str, known: Known) -> Self {
        let copied = matches!(planned.image, ServiceImage::Copied(_));
        let pinned = known.pinned.filter(|_| copied);
        let bytes = match (&known.image, &known.copy) {
            (Some(image), _) => image.bytes(),
            (None, Some(copy)) => Some(copy.size),
            (None, None) => None,
        };
        Self {
            name: planned.name.clone(),
            source: source(planned, said),
            tag: planned.tag(tag),
            digest: pinned
                .and_then(|pinned| pinned.digest)
                .map(|digest| digest.to_string()),
            bytes,
            image: known.image,
            copy: known.copy,
            command: said.command.clone(),
            depends_on: said.depends_on.clone(),
            routes: said.routes.iter().map(ToString::to_string).collect(),
            protocol: said.speaks(),
            replicas: said.replicas,
            restart: said.restart.to_string(),
            health: health(said),
            limits: Limits::of(&said.resources),
            env: said.env.iter().map(|(name, _)| name.to_owned()).collect(),
            secrets: said.secrets.clone(),
            volumes: said.volumes.clone(),
        }
    }

    pub(super) fn write(&self, text: &mut String) {
        let Self { name, .. } = self;
        let _ = writeln!(text, "service      {name}: {}", self.what());
        if let Some(tag) = &self.tag {
            let live = self.copy.as_ref().is_some_and(|copy| copy.new == 0);
            let bytes = match self.bytes {
                Some(size) if live => format!(", {}, the same as live", bytes(size)),
                Some(size) => format!(", {}", bytes(size)),
                None => String::new(),
            };
            let digest = match &self.digest {
                Some(digest) => format!(", pinned to {digest}"),
                None if self.source.kind == "image" => {
                    ", not in deploy.lock yet: it would be looked up and pinned".to_owned()
                }
                None => String::new(),
            };
            let _ = writeln!(
                text,
                "  image      {} as {tag}{digest}{bytes}",
                self.source.text()
            );
        } else {
            let _ = writeln!(text, "  image      {}", self.source.text());
        }
        if let Some(image) = &self.image {
            image.write_parts(text);
        }
        if !self.command.is_empty() {
            let _ = writeln!(text, "  command    {}", self.command.join(" "));
        }
        if !self.depends_on.is_empty() {
            let _ = writeln!(text, "  after      {}", self.depends_on.join(", "));
        }
        let _ = writeln!(text, "  health     {}", self.health);
        let _ = writeln!(text, "  limits     {}", self.limits.text());
        if !self.env.is_empty() {
            let _ = writeln!(text, "  env        {}", self.env.join(", "));
        }
        if !self.secrets.is_empty() {
            let told = self.secrets.iter().map(|(variable, secret)| {
                if variable == secret {
                    variable.clone()
                } else {
                    format!("{variable} ({secret})")
                }
            });
            let told: Vec<_> = told.collect();
            let _ = writeln!(text, "  secrets    {}", told.join(", "));
        }
        for (volume, path) in &self.volumes {
            let _ = writeln!(text, "  volume     {volume} at {path}");
        }
    }

    /// Who reaches it, and how many of it run.
    fn what(&self) -> String {
        let reached = match self.protocol {
            Protocol::None => "listens nowhere".to_owned(),
            Protocol::Http | Protocol::Tcp if self.routes.is_empty() => {
                format!("{} for the other services", self.protocol)
            }
            Protocol::Http | Protocol::Tcp => format!("routes {}", self.routes.join(", ")),
        };
        let replicas = match self.replicas {
            1 => String::new(),
            several => format!(", {several} instances"),
        };
        let restart = match self.restart.as_str() {
            "always" => String::new(),
            restart => format!(", restarted {restart}"),
        };
        format!("{reached}{replicas}{restart}")
    }
}

impl Source {
    fn text(&self) -> String {
        let name = self.name.as_deref().unwrap_or_default();
        match self.kind {
            "app" => format!("that of {APP}"),
            "image" => format!("a copy of {name}"),
            "registry" => "the one in the registry".to_owned(),
            kind => format!("{kind} {name}"),
        }
    }
}

fn source(planned: &plan::Service, said: &config::Service) -> Source {
    let (kind, name) = match &planned.image {
        ServiceImage::OfApp => ("app", None),
        ServiceImage::There | ServiceImage::Kept(_) => ("registry", None),
        ServiceImage::Copied(copied) => ("image", Some(copied.reference.clone())),
        ServiceImage::Made(image) => match &said.binary {
            Some(binary) => ("binary", Some(binary.clone())),
            None => ("dockerfile", Some(image.dockerfile.display().to_string())),
        },
    };
    Source { kind, name }
}

fn health(said: &config::Service) -> String {
    let Some(check) = &said.asked_health() else {
        return "as its image says, else as it speaks".to_owned();
    };
    match said.health_kind() {
        Some(ServiceHealthKind::Process) => "its program runs".to_owned(),
        Some(ServiceHealthKind::Tcp) => check_text("tcp", check),
        Some(ServiceHealthKind::Command) => check_text("command", check),
        Some(ServiceHealthKind::Image) => check_text("image", check),
        Some(ServiceHealthKind::Http | ServiceHealthKind::Auto) | None => check_text("http", check),
    }
}

/// What an instance may use.
#[derive(Serialize)]
pub(super) struct Limits {
    memory_bytes: Option<u64>,
    cpus: Option<f64>,
    pids: Option<u32>,
    read_only: bool,
    best_effort: bool,
    #[serde(skip)]
    memory: Option<String>,
}

impl Limits {
    pub(super) fn of(resources: &Resources) -> Self {
        Self {
            memory_bytes: resources.memory.map(config::Memory::bytes),
            cpus: resources
                .cpus
                .millis()
                .map(|millis| f64::from(millis) / 1000.0),
            pids: (resources.pids > 0).then_some(resources.pids),
            read_only: resources.read_only,
            best_effort: resources.best_effort,
            memory: resources.memory.map(|memory| memory.to_string()),
        }
    }

    pub(super) fn text(&self) -> String {
        let mut parts = Vec::new();
        parts.extend(
            self.memory
                .as_ref()
                .map(|memory| format!("{memory} of memory")),
        );
        parts.extend(self.cpus.map(|cpus| match cpus {
            1.0 => "1 processor".to_owned(),
            several => format!("{several} processors"),
        }));
        parts.extend(self.pids.map(|pids| format!("{pids} processes")));
        if self.read_only {
            parts.push("nothing of the image can be written to".to_owned());
        }
        if parts.is_empty() {
            return "none".to_owned();
        }
        if self.best_effort {
            parts.push("as far as the platform can enforce them".to_owned());
        }
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_in_words() {
        let text = |service| health(&serde_json::from_value(service).unwrap());
        assert_eq!(
            text(serde_json::json!({ "protocol": "http" })),
            "as its image says, else as it speaks"
        );
        // As it is asked for: the platform takes both together.
        let lives = serde_json::json!({ "kind": "command", "command": ["true"] });
        assert_eq!(
            text(serde_json::json!({ "protocol": "http", "liveness": lives })),
            "GET /api/v1/health -> 200"
        );
        assert_eq!(
            text(serde_json::json!({ "liveness": lives })),
            "its program runs"
        );
    }

    #[test]
    fn limits_in_words() {
        let text = |resources: &Resources| Limits::of(resources).text();
        assert_eq!(text(&Resources::default()), "none");
        let limited = Resources {
            memory: Some("512M".parse().unwrap()),
            cpus: serde_json::from_str("1.5").unwrap(),
            pids: 100,
            read_only: true,
            best_effort: true,
        };
        assert_eq!(
            text(&limited),
            "512M of memory, 1.5 processors, 100 processes, nothing of the image can be written to, as far as the platform \
             can enforce them"
        );
    }
}

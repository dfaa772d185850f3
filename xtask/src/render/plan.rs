//! A plan as people and programs see it: what `--dry-run` prints.

mod service;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use deploy_pipeline::image::LayerPreview;
use deploy_pipeline::locking::Pinned;
use deploy_plan::config::{APP, AppService, Config, ControlPlane, Health};
use deploy_plan::plan::{self, AppImage, ImageBuilder, Plan, Tag};
use deploy_plan::report::ImageReport;
use serde::Serialize;

use super::bytes;
use service::{Limits, Service};

/// What is known of images before any is made.
#[derive(Default)]
pub(crate) struct Previews {
    /// The layers of that of `app`.
    pub(crate) app: Vec<LayerPreview>,
    /// Those of services that have one made here, by name.
    pub(crate) services: BTreeMap<String, Vec<LayerPreview>>,
    /// What is in those that are copied, where that is known here.
    pub(crate) copies: BTreeMap<String, ImageReport>,
}

/// The plan as a record with a version of its own.
#[derive(Serialize)]
pub(crate) struct Document {
    schema: &'static str,
    status: &'static str,
    environment: String,
    target: Target,
    tag: TagRecord,
    build: Option<Build>,
    image: Option<Image>,
    /// In its place, the finished image that `app` runs.
    copy: Option<BaseImage>,
    rollout: Rollout,
    /// What `app` has besides, where it is one of several services.
    app: Option<AppService>,
    /// The services beside `app`, in the order in which they start.
    services: Vec<Service>,
    /// All services in that order; nothing for a release of one.
    order: Vec<String>,
    changes: Vec<String>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Target {
    control_plane: ControlPlane,
    api_url: Option<String>,
    tenant: Option<String>,
    repository: Option<String>,
}

#[derive(Serialize)]
struct TagRecord {
    value: String,
    pinned: bool,
}

#[derive(Serialize)]
struct Build {
    profile: String,
    locked: bool,
    web: Option<String>,
    packages: Vec<String>,
    cargo_runs: usize,
}

#[derive(Serialize)]
struct Image {
    builder: ImageBuilder,
    dockerfile: String,
    base: String,
    bases: Vec<BaseImage>,
    layers: Vec<Layer>,
}

/// An image of a registry that the image stands on.
#[derive(Serialize)]
struct BaseImage {
    reference: String,
    platform: String,
    /// None until it is pinned.
    digest: Option<String>,
}

#[derive(Serialize)]
struct Layer {
    line: usize,
    instruction: String,
    destination: String,
    files: Vec<String>,
    bytes: Option<u64>,
    live: Option<bool>,
}

impl Image {
    fn new(image: &plan::Image, layers: &[LayerPreview], bases: &[Pinned]) -> Self {
        Self {
            builder: image.builder,
            dockerfile: image.dockerfile.display().to_string(),
            base: image.base.to_string(),
            bases: bases.iter().map(base_image).collect(),
            layers: layers.iter().map(layer).collect(),
        }
    }

    /// Of its layers, where all are known; those of its base come on top.
    fn bytes(&self) -> Option<u64> {
        let sizes = self.layers.iter().map(|layer| layer.bytes);
        sizes.sum::<Option<u64>>().filter(|sum| *sum > 0)
    }

    /// What it stands on, and what it is made of.
    fn write_parts(&self, text: &mut String) {
        for base in &self.bases {
            let _ = writeln!(text, "  base       {}", base.text());
        }
        for layer in &self.layers {
            let _ = writeln!(
                text,
                "  line {:>3}   {} ({})",
                layer.line,
                layer.instruction,
                layer.state()
            );
            for file in layer.files.iter().take(FILES_SHOWN) {
                let _ = writeln!(text, "             {file}");
            }
            if layer.files.len() > FILES_SHOWN {
                let more = layer.files.len() - FILES_SHOWN;
                let _ = writeln!(text, "             and {more} more");
            }
        }
    }
}

impl BaseImage {
    fn text(&self) -> String {
        let Self {
            reference,
            platform,
            digest,
        } = self;
        let pinned = match digest {
            Some(digest) => format!("pinned to {digest}"),
            None => "not in deploy.lock yet: it would be looked up and pinned".to_owned(),
        };
        format!("{reference} {platform}, {pinned}")
    }
}

impl Layer {
    /// Its size, and what it would change.
    fn state(&self) -> String {
        match (self.bytes, self.live) {
            (Some(size), Some(true)) => format!("{}, the same as live", bytes(size)),
            (Some(size), Some(false)) => format!("{}, changed", bytes(size)),
            (Some(size), None) => bytes(size),
            (None, Some(true)) => "as last built it is live".to_owned(),
            (None, Some(false)) => "as last built it differs from live".to_owned(),
            (None, None) => "not built yet".to_owned(),
        }
    }
}

#[derive(Serialize)]
struct Rollout {
    strategy: String,
    replicas: u32,
    timeout_seconds: u64,
    watched_seconds: u64,
    wait: bool,
    force: bool,
    health: String,
    limits: Limits,
    env: Vec<String>,
}

impl Rollout {
    fn text(&self) -> String {
        let Self {
            strategy,
            replicas,
            timeout_seconds,
            watched_seconds,
            health,
            ..
        } = self;
        let replicas = match replicas {
            1 => String::new(),
            several => format!(", {several} instances"),
        };
        let watched = match watched_seconds {
            0 => String::new(),
            seconds => format!(" and {seconds} s of watching"),
        };
        format!("{strategy}{replicas}, at most {timeout_seconds} s{watched}, {health}")
    }
}

impl Document {
    pub(crate) fn new(
        plan: &Plan,
        previews: &Previews,
        bases: &BTreeMap<String, Vec<Pinned>>,
        config: &Config,
    ) -> Self {
        let tag = tag(&plan.tag);
        let of_app = bases.get(APP).map_or(&[][..], Vec::as_slice);
        let services = service::services(plan, config, &tag.value, previews, bases);
        let several = !config.services.is_empty();
        Self {
            schema: "deploy-plan/1",
            status: "planned",
            environment: plan.environment.clone(),
            target: Target {
                control_plane: plan.target.control_plane,
                api_url: plan.target.api_url.clone(),
                tenant: plan.target.tenant.clone(),
                repository: plan.target.repository.clone(),
            },
            tag,
            build: plan.build.as_ref().map(build),
            image: plan
                .image
                .as_ref()
                .filter(|_| plan.app == AppImage::Made)
                .map(|image| Image::new(image, &previews.app, of_app)),
            copy: match plan.app {
                AppImage::Copied(_) => of_app.first().map(base_image),
                AppImage::Made | AppImage::Kept(_) => None,
            },
            rollout: Rollout {
                strategy: plan.rollout.strategy.to_string(),
                replicas: plan.rollout.replicas,
                timeout_seconds: plan.rollout.timeout_seconds,
                watched_seconds: plan.rollout.watched_seconds,
                wait: plan.rollout.wait,
                force: plan.rollout.force,
                health: check_text(config.health.kind.as_str(), &config.health),
                limits: Limits::of(&config.resources),
                env: plan.rollout.env.clone(),
            },
            app: config.services.app.clone().filter(|_| several),
            services,
            order: if several {
                plan.order.clone()
            } else {
                Vec::new()
            },
            changes: changes(plan),
            warnings: plan.warnings.clone(),
        }
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let Target {
            api_url, tenant, ..
        } = &self.target;
        let api = api_url.as_deref().unwrap_or("the platform on this machine");
        let tenant = tenant.as_deref().unwrap_or("the only one the token sees");
        let _ = writeln!(
            text,
            "environment  {} ({api}, tenant {tenant})",
            self.environment
        );
        let pinned = if self.tag.pinned {
            ""
        } else {
            ", unless the server sends one"
        };
        let _ = writeln!(text, "tag          {}{pinned}", self.tag.value);
        self.build_text(&mut text);
        self.image_text(&mut text);
        let _ = writeln!(text, "rollout      {}", self.rollout.text());
        let _ = writeln!(text, "limits       {}", self.rollout.limits.text());
        if !self.rollout.env.is_empty() {
            let _ = writeln!(text, "env          {}", self.rollout.env.join(", "));
        }
        self.services_text(&mut text);
        for change in &self.changes {
            let _ = writeln!(text, "change       {change}");
        }
        for warning in &self.warnings {
            let _ = writeln!(text, "warning      {warning}");
        }
        text.push_str("\nnothing was done; leave out --dry-run to do it\n");
        text
    }

    fn build_text(&self, text: &mut String) {
        let Some(build) = &self.build else {
            text.push_str("build        nothing\n");
            return;
        };
        if let Some(web) = &build.web {
            let _ = writeln!(text, "web          npm ci && npm run build in {web}");
        }
        let _ = writeln!(
            text,
            "build        cargo, profile {}: {}",
            build.profile,
            build.packages.join(", ")
        );
    }

    fn image_text(&self, text: &mut String) {
        if let Some(copy) = &self.copy {
            let _ = writeln!(text, "image        a copy of {}", copy.text());
            return;
        }
        let Some(image) = &self.image else {
            text.push_str("image        the one in the registry\n");
            return;
        };
        let builder = match image.builder {
            ImageBuilder::Native => "without an engine",
            ImageBuilder::Docker => "with docker",
        };
        let _ = writeln!(
            text,
            "image        {}, base {}, {builder}",
            image.dockerfile, image.base
        );
        image.write_parts(text);
    }

    fn services_text(&self, text: &mut String) {
        if self.order.is_empty() {
            return;
        }
        let app = self.app.clone().unwrap_or_default();
        if !app.command.is_empty() {
            let _ = writeln!(text, "command      {}", app.command.join(" "));
        }
        for (volume, path) in &app.volumes {
            let _ = writeln!(text, "volume       {volume} at {path}");
        }
        let routes = match app.routes {
            None => "all that are for no other service".to_owned(),
            Some(routes) if routes.is_empty() => "none".to_owned(),
            Some(routes) => routes
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", "),
        };
        let _ = writeln!(text, "routes       {routes}");
        for service in &self.services {
            service.write(text);
        }
        let _ = writeln!(text, "order        {}", self.order.join(", "));
    }
}

/// Commits listed as changes.
const COMMITS_SHOWN: usize = 10;
/// Files listed for a layer; JSON lists them all.
const FILES_SHOWN: usize = 4;

fn tag(tag: &Tag) -> TagRecord {
    match tag {
        Tag::Pinned(value) => TagRecord {
            value: value.clone(),
            pinned: true,
        },
        Tag::Generated(value) => TagRecord {
            value: value.clone(),
            pinned: false,
        },
    }
}

fn build(build: &deploy_plan::plan::Build) -> Build {
    Build {
        profile: build.profile.clone(),
        locked: build.locked,
        web: build
            .web
            .as_ref()
            .map(|folder| folder.display().to_string()),
        packages: build
            .invocations
            .iter()
            .flat_map(|invocation| invocation.packages.iter().cloned())
            .collect(),
        cargo_runs: build.invocations.len(),
    }
}

fn base_image(pinned: &Pinned) -> BaseImage {
    BaseImage {
        reference: pinned.pin.reference.clone(),
        platform: pinned.pin.platform.clone(),
        digest: pinned.digest.map(|digest| digest.to_string()),
    }
}

fn layer(preview: &LayerPreview) -> Layer {
    Layer {
        line: preview.line,
        instruction: preview.instruction.clone(),
        destination: preview.destination.clone(),
        files: preview.files.clone(),
        bytes: preview.size,
        live: preview.live,
    }
}

/// What a health check of a kind asks.
fn check_text<K>(kind: &str, check: &Health<K>) -> String {
    match kind {
        "tcp" => "a connection to PORT".to_owned(),
        "command" => format!("`{}` -> 0", check.command.join(" ")),
        "image" => "the image's HEALTHCHECK".to_owned(),
        _ => format!("GET {} -> {}", check.path, check.status),
    }
}

/// What would be different from what serves now.
fn changes(plan: &Plan) -> Vec<String> {
    let Some(live) = &plan.live else {
        return vec!["nothing is known to serve now: this would be the first release".to_owned()];
    };
    let from = live.tag.as_deref().unwrap_or("an image without a tag");
    let mut changes = vec![format!(
        "deployment {} ({from}) would be replaced",
        live.deployment
    )];
    let Some(sha) = &live.git_sha else {
        return changes;
    };
    match &live.commits_since {
        Some(commits) if commits.is_empty() => {
            changes.push(format!("no commit since {sha}, which is live"));
        }
        Some(commits) => {
            let count = match commits.len() {
                1 => "1 commit".to_owned(),
                many => format!("{many} commits"),
            };
            changes.push(format!("{count} since {sha}, which is live:"));
            let shown = commits.iter().take(COMMITS_SHOWN);
            changes.extend(shown.map(|commit| format!("  {commit}")));
        }
        None => changes.push(format!("the live release was built from commit {sha}")),
    }
    changes
}

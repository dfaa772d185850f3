//! A plan as people and programs see it: what `--dry-run` prints.

use std::fmt::Write as _;

use deploy_pipeline::image::LayerPreview;
use deploy_pipeline::locking::Pinned;
use deploy_plan::config::{Config, ControlPlane, Health, HealthKind};
use deploy_plan::plan::{ImageBuilder, Plan, Tag};
use serde::Serialize;

use super::bytes;

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
    rollout: Rollout,
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
        layers: &[LayerPreview],
        bases: &[Pinned],
        config: &Config,
    ) -> Self {
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
            tag: tag(&plan.tag),
            build: plan.build.as_ref().map(build),
            image: plan.image.as_ref().map(|image| Image {
                builder: image.builder,
                dockerfile: image.dockerfile.display().to_string(),
                base: image.base.to_string(),
                bases: bases.iter().map(base_image).collect(),
                layers: layers.iter().map(layer).collect(),
            }),
            rollout: Rollout {
                strategy: plan.rollout.strategy.to_string(),
                replicas: plan.rollout.replicas,
                timeout_seconds: plan.rollout.timeout_seconds,
                watched_seconds: plan.rollout.watched_seconds,
                wait: plan.rollout.wait,
                force: plan.rollout.force,
                health: health(&config.health),
                env: plan.rollout.env.clone(),
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
        if !self.rollout.env.is_empty() {
            let _ = writeln!(text, "env          {}", self.rollout.env.join(", "));
        }
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
        for base in &image.bases {
            let BaseImage {
                reference,
                platform,
                digest,
            } = base;
            let pinned = match digest {
                Some(digest) => format!("pinned to {digest}"),
                None => "not in deploy.lock yet: it would be looked up and pinned".to_owned(),
            };
            let _ = writeln!(text, "  base       {reference} {platform}, {pinned}");
        }
        for layer in &image.layers {
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

fn health(check: &Health) -> String {
    match check.kind {
        HealthKind::Http => format!("GET {} -> {}", check.path, check.status),
        HealthKind::Tcp => "a connection to PORT".to_owned(),
        HealthKind::Command => format!("`{}` -> 0", check.command.join(" ")),
        HealthKind::Image => "the image's HEALTHCHECK".to_owned(),
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

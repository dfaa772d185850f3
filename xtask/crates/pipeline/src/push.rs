//! The registry: credentials for it, what it holds, sending an image to it.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use deploy_config::Settings;
use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};
use deploy_plan::plan::Plan;
use management_api::tag;
use management_api::types::RegistryToken;
use oci::{
    Ahead, BlobSource, BlobState, Client, ClientError, ClientOptions, Credentials, Descriptor,
    Digest, ImagePush, PlainHttp, ProgressHook, Pushed, Reference, Repository, Tag, TagOrDigest,
};

use crate::attest::{About, Papers};
use crate::authorities;
use crate::base::BaseError;
use crate::control::{self, Control};
use crate::deploy::Execution;
use crate::events::{Event, LayerState};
use crate::holdings::Holdings;
use crate::image::{self, Made};
use crate::interrupt::Interrupts;
use crate::run::{Run, interrupted};

/// What to do about a registry whose certificate is not believed.
pub(crate) const AUTHORITY: &str = "name the certificate of its authority: api.registry_ca_file in \
     .systemprompt/deploy.toml, or SSL_CERT_FILE=FILE";
/// How many tags are named when the one wanted is not there.
const LATEST: usize = 5;

/// Where an image goes, and with what.
pub struct Destination {
    /// `host[:port]`.
    pub registry: String,
    /// The repository in it.
    pub repository: Repository,
    /// The tag.
    pub tag: Tag,
    /// Name and password.
    pub credentials: Credentials,
}

impl Destination {
    /// The same place with another tag.
    pub(crate) fn tagged(&self, tag: Tag) -> Self {
        Self {
            registry: self.registry.clone(),
            repository: self.repository.clone(),
            tag,
            credentials: self.credentials.clone(),
        }
    }

    /// `registry/repository:tag`, as the Management API takes it.
    #[must_use]
    pub fn image(&self) -> String {
        format!("{}/{}:{}", self.registry, self.repository, self.tag)
    }
}

/// Fetches credentials and settles registry, repository and tag.
pub fn destination(
    run: &mut Run<'_>,
    control: &Control,
    plan: &Plan,
) -> Result<Destination, Failure> {
    let token = control
        .client
        .registry_token(&control.tenant)
        .map_err(|e| control::failure(Step::Token, &e))?;
    run.redactor.learn(&token.token);
    let repository = plan
        .target
        .repository
        .clone()
        .or_else(|| token.repository.clone())
        .unwrap_or_else(|| control.default_repository.clone());
    let tag = plan.tag.resolve(token.tag.as_deref());
    named(&token, &repository, &tag)
}

fn named(token: &RegistryToken, repository: &str, tag: &str) -> Result<Destination, Failure> {
    let registry = token
        .registry
        .trim_start_matches("https://")
        .trim_end_matches('/');
    let image = format!("{registry}/{repository}:{tag}");
    let reference: Reference = image.parse().map_err(|e| {
        Failure::new(
            Step::Token,
            "image_name_invalid",
            Exit::Configuration,
            format!("{image} is not an image name: {e}"),
            "check image.repository in .systemprompt/deploy.toml and what the platform answers",
        )
    })?;
    let (Some(tag), repository) = (reference.tag().cloned(), reference.repository().clone()) else {
        return Err(Failure::new(
            Step::Token,
            "image_name_invalid",
            Exit::Configuration,
            format!("{image} has no tag"),
            "use --tag with letters, digits, `_`, `.` and `-`",
        ));
    };
    Ok(Destination {
        registry: registry.to_owned(),
        repository,
        tag,
        credentials: Credentials {
            username: token.username.clone(),
            password: token.token.clone(),
        },
    })
}

pub(crate) fn client(
    destination: &Destination,
    settings: &Settings,
    progress: Option<ProgressHook>,
    interrupts: &Interrupts,
) -> Result<Client, Failure> {
    let interrupts = interrupts.clone();
    let options = ClientOptions {
        interrupt: Some(Arc::new(move || interrupts.any())),
        credentials: Some(destination.credentials.clone()),
        plain_http: PlainHttp {
            loopback: true,
            registries: settings.config.api.insecure_registries.clone(),
        },
        further_certificates: authorities::of_registries(settings),
        progress,
        ..ClientOptions::default()
    };
    Client::new(&destination.registry, options).map_err(|e| failure(&e))
}

/// Makes sure that a tag is there, and says which digest it names.
pub fn verify(
    run: &mut Run<'_>,
    destination: &Destination,
    settings: &Settings,
) -> Result<Digest, Failure> {
    let client = client(destination, settings, None, run.interrupts)?;
    let found = client
        .manifest_exists(&destination.repository, TagOrDigest::Tag(&destination.tag))
        .map_err(|e| failure(&e))?;
    if let Some(descriptor) = found {
        return Ok(descriptor.digest);
    }
    // A registry that does not list tags still said clearly that this one is not there.
    let of_releases =
        |tag: &str, all: &HashSet<&str>| tag::is_of_a_release(tag, |other| all.contains(other));
    let latest = client
        .latest_tags(&destination.repository, LATEST, of_releases)
        .unwrap_or_default();
    let known = if latest.is_empty() {
        "the repository has no release".to_owned()
    } else {
        let names: Vec<String> = latest.iter().map(ToString::to_string).collect();
        format!("the latest releases are {}", names.join(", "))
    };
    run.stop_if_interrupted(Step::Push)?;
    Err(Failure::new(
        Step::Push,
        "tag_not_found",
        Exit::Push,
        format!("{} is not in the registry; {known}", destination.image()),
        "use one of these with --tag, or deploy without --skip-push",
    ))
}

/// A client of the registry that tells how each layer comes along.
pub(crate) fn sender(
    run: &Run<'_>,
    destination: &Destination,
    execution: &Execution<'_>,
) -> Result<Client, Failure> {
    let progress = progress(&execution.shared);
    client(
        destination,
        execution.settings,
        Some(progress),
        run.interrupts,
    )
}

/// An image on its way: layers go while others are still compressed.
pub struct Delivery<'c> {
    client: &'c Client,
    host: String,
    repository: Repository,
    holdings: Holdings,
    ahead: Ahead<'c>,
}

impl<'c> Delivery<'c> {
    /// Nothing is sent yet.
    pub(crate) fn begin(client: &'c Client, to: &Destination, cache_folder: &Path) -> Self {
        Self {
            client,
            host: to.registry.clone(),
            repository: to.repository.clone(),
            holdings: Holdings::open(cache_folder),
            ahead: Ahead::new(client, to.repository.clone()),
        }
    }

    /// Sends a layer that has just been made. A failure is the push's, which comes later.
    pub(crate) fn send(&self, layer: &Descriptor, source: &dyn BlobSource) {
        let blob = [layer.digest];
        let known = self
            .holdings
            .known(&self.host, &self.repository, &blob, &blob);
        self.ahead.send(layer, source, &known);
    }
}

/// When an image gets its tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tagged {
    /// As soon as it is there.
    Now,
    /// Later, together with others.
    Later,
}

/// An image that is in the registry by its digest.
pub(crate) struct Arrived {
    /// What that took.
    pub(crate) pushed: Pushed,
    /// What its tag means now.
    pub(crate) tag: TagState,
}

/// What the tag of an image means that is in the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TagState {
    /// The image.
    Moved,
    /// Another image, or nothing.
    ToBeMoved,
}

/// Sends an image; what the registry has is not sent again. What it has then is noted in the cache
/// folder, so that its other repositories get the same blobs without sending.
pub(crate) fn push(
    run: &mut Run<'_>,
    destination: &Destination,
    made: &Made,
    papers: &Papers<'_>,
    delivery: Delivery<'_>,
    tagged: Tagged,
) -> Result<Arrived, Failure> {
    let Delivery {
        client,
        host,
        repository,
        mut holdings,
        ahead,
    } = delivery;
    let (host, repository) = (host.as_str(), &repository);
    let blobs = made.blobs();
    let mut known = holdings.known(host, repository, &blobs, &made.produced);
    for base in made.holders.iter().filter(|base| base.registry == host) {
        known.held_by(base.layer, base.repository.clone());
    }
    let image = ImagePush {
        repository,
        manifest: &made.manifest,
        sources: &made.sources,
        tag: Some(&destination.tag),
        mount_from: &[],
        known: &known,
        store: made.registry.as_ref(),
        ahead: Some(&ahead),
    };
    let arrived = match tagged {
        Tagged::Now if papers.wanted() => {
            with_papers(run, client, &image, destination, made, papers)?
        }
        Tagged::Now => {
            let pushed = oci::push_image_as(client, &image, &made.bytes);
            Arrived {
                pushed: pushed.map_err(|e| failure(&e))?,
                tag: TagState::Moved,
            }
        }
        Tagged::Later => untagged(run, client, &image, destination, made, papers)?,
    };
    if let Err(error) = holdings.note(host, repository, &blobs) {
        // The next push asks more questions, that is all.
        run.reporter.event(Event::Warning(format!(
            "what the registry has cannot be noted: {error}"
        )));
    }
    run.stop_if_interrupted(Step::Push)?;
    Ok(arrived)
}

/// What the pushes of a release did together.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    uploaded: usize,
    existing: usize,
    mounted: usize,
    placed: usize,
    bytes: u64,
    requests: u64,
}

impl Sent {
    pub(crate) fn add(&mut self, pushed: &Pushed) {
        self.uploaded += pushed.uploaded;
        self.existing += pushed.existing;
        self.mounted += pushed.mounted;
        self.placed += pushed.placed;
    }

    /// Bytes and requests as the client has counted them.
    pub(crate) fn count(&mut self, client: &Client) {
        let counters = client.counters();
        (self.bytes, self.requests) = (counters.bytes_sent, counters.requests);
    }

    /// In words, for so many images of which `image` is that of `app`.
    pub(crate) fn summary(&self, image: &str, images: usize) -> String {
        let requests = match self.requests {
            1 => "1 request".to_owned(),
            many => format!("{many} requests"),
        };
        let (image, are) = match images {
            0 | 1 => (image.to_owned(), "is"),
            2 => (format!("{image} and the image of a service"), "are"),
            many => (
                format!("{image} and {} images of services", many - 1),
                "are",
            ),
        };
        if self.uploaded == 0 && self.mounted == 0 && self.placed == 0 {
            return format!("{image} {are} there, nothing sent ({requests})");
        }
        let mut parts = Vec::new();
        if self.uploaded > 0 {
            let (sent, blobs) = (image::megabytes(self.bytes), self.uploaded);
            parts.push(format!("{sent} in {blobs} blobs"));
        }
        for (count, what) in [
            (self.existing, "there"),
            (self.mounted, "mounted"),
            (self.placed, "in place"),
        ] {
            if count > 0 {
                parts.push(format!("{count} {what}"));
            }
        }
        format!("{image}: {} ({requests})", parts.join(", "))
    }
}

fn progress(reporter: &Arc<dyn Fn(Event) + Send + Sync>) -> ProgressHook {
    let tell = Arc::clone(reporter);
    Arc::new(move |progress: oci::Progress| {
        let state = match progress.state {
            BlobState::Exists => LayerState::Exists,
            BlobState::Mounted => LayerState::Mounted,
            BlobState::Placed => LayerState::Placed,
            BlobState::Sending => LayerState::Sending,
            BlobState::Sent => LayerState::Sent,
        };
        tell(Event::Layer {
            digest: short(&progress.digest),
            state,
            sent: progress.sent,
            size: progress.total,
        });
    })
}

/// Sends an image and what is about it. The tag comes last: where it is, everything is.
fn with_papers(
    run: &Run<'_>,
    client: &Client,
    image: &ImagePush<'_>,
    destination: &Destination,
    made: &Made,
    papers: &Papers<'_>,
) -> Result<Arrived, Failure> {
    let mut arrived = untagged(run, client, image, destination, made, papers)?;
    if arrived.tag == TagState::ToBeMoved {
        let (repository, tag) = (&destination.repository, &destination.tag);
        client
            .put_manifest(repository, tag, &made.bytes, made.manifest.media_type())
            .map_err(|e| failure(&e))?;
        arrived.tag = TagState::Moved;
    }
    let (counters, pushed) = (client.counters(), &mut arrived.pushed);
    (pushed.requests, pushed.bytes) = (counters.requests, counters.bytes_sent);
    Ok(arrived)
}

/// Sends an image by its digest alone, and what is about it.
fn untagged(
    run: &Run<'_>,
    client: &Client,
    image: &ImagePush<'_>,
    destination: &Destination,
    made: &Made,
    papers: &Papers<'_>,
) -> Result<Arrived, Failure> {
    let found = client
        .manifest_exists(&destination.repository, &destination.tag)
        .map_err(|e| failure(&e))?;
    let tag = match found {
        Some(found) if found.digest == made.digest => TagState::Moved,
        _ => TagState::ToBeMoved,
    };
    if tag == TagState::Moved && !papers.again {
        let pushed = nothing_sent(client, made);
        return Ok(Arrived { pushed, tag });
    }
    let untagged = ImagePush {
        tag: None,
        ..*image
    };
    let pushed = oci::push_image_as(client, &untagged, &made.bytes).map_err(|e| failure(&e))?;
    if papers.wanted() {
        papers.send(run, client, destination, &About::made(made))?;
    }
    Ok(Arrived { pushed, tag })
}

fn nothing_sent(client: &Client, made: &Made) -> Pushed {
    let counters = client.counters();
    Pushed {
        digest: made.digest,
        uploaded: 0,
        existing: made.manifest.blobs().count(),
        mounted: 0,
        placed: 0,
        bytes: counters.bytes_sent,
        requests: counters.requests,
    }
}

/// The first characters of a digest, as people know them.
#[must_use]
pub fn short(digest: &Digest) -> String {
    digest.hex().chars().take(12).collect()
}

pub(crate) fn failure(error: &ClientError) -> Failure {
    if matches!(error, ClientError::Interrupted) {
        return interrupted(Step::Push);
    }
    if let Some(failure) = BaseError::behind_push(error) {
        return failure;
    }
    let (code, exit, resolution) = match error {
        ClientError::Unauthorized { .. } | ClientError::Denied { .. } => (
            "registry_unauthorized",
            Exit::Authentication,
            "check your credentials and log in again: cargo xtask login",
        ),
        ClientError::Throttled { .. } => (
            "registry_throttled",
            Exit::Push,
            "wait a minute, then run the same command again; what was sent stays",
        ),
        ClientError::Unreachable { .. } | ClientError::TimedOut { .. } => (
            "registry_unreachable",
            Exit::Push,
            "check the network, then run the same command again; what was sent stays",
        ),
        ClientError::Untrusted { .. } => ("registry_untrusted", Exit::Push, AUTHORITY),
        // Those that the settings name were looked at before.
        ClientError::RootCertificates(_) => (
            "ca_file_invalid",
            Exit::Configuration,
            "correct SSL_CERT_FILE: a file with certificates in PEM",
        ),
        ClientError::Insecure { .. } => (
            "registry_insecure",
            Exit::Configuration,
            "use https, or name the registry in api.insecure_registries",
        ),
        ClientError::Unavailable { answer, .. } if answer.status == 507 => (
            "registry_full",
            Exit::Push,
            "make room on the registry's disk, then run the same command again; what was sent stays",
        ),
        _ => (
            "push_failed",
            Exit::Push,
            "run the same command again; if it fails again, check the registry's status",
        ),
    };
    Failure::new(
        Step::Push,
        code,
        exit,
        control::with_causes(error),
        resolution,
    )
}

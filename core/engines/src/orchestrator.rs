//! What every engine with a rollout of its own does.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::stream::BoxStream;
use oci::{Digest, Repository};

use crate::engine::BoxFuture;
use crate::error::EngineError;
use crate::instance::Exit;
use crate::resources::Resources;

/// Replaces the releases of tenants by itself: it is told what a tenant is to run, and gets there in its own way. Every method may
/// be called again after a failure.
///
/// There is no way back of its own: that is [`apply`](Self::apply) of the release before, with a new turn. So there is one way to
/// change something, and asking for it twice does it once.
///
/// How to write another one: `docs/guides/adding-an-engine.md`. What it has to do is held by the conformance suite,
/// `core/tests/server/conformance.rs`.
pub trait Orchestrator: Send + Sync + 'static {
    /// One word, as people choose it in the settings.
    fn name(&self) -> &'static str;

    /// What people should know about it, a sentence each.
    fn notes(&self) -> &[String];

    /// What of `resources` it cannot enforce, and why, if there is anything.
    fn lacks(&self, resources: &Resources) -> Option<String>;

    /// Where a tenant is reached, and where its services reach each other. The same for the same names for as long as the tenant
    /// is there, whatever it runs: applications are told of it before they are started.
    fn place(
        &self,
        tenant: String,
        services: Vec<String>,
    ) -> BoxFuture<'_, Result<Place, EngineError>>;

    /// Wants this to be what the tenant runs. Returns when it has that written down. The same turn once more is the same; a lower
    /// one than that which it has is [`EngineError::Outdated`]: a late server undoes nothing. What is the same in both releases
    /// runs on, unless `restart` is said.
    fn apply(&self, wanted: Wanted) -> BoxFuture<'_, Result<(), EngineError>>;

    /// What there is now, asked and not remembered. `None`: nothing was ever wanted for this tenant, or it is removed.
    fn observe(&self, tenant: String) -> BoxFuture<'_, Result<Option<Observed>, EngineError>>;

    /// Runs a command to its end, in an instance that gets no traffic. Turns are compared as in [`apply`](Self::apply). When the
    /// caller gives up, or the server dies, the command is ended, and nothing else of the tenant is begun before that is over.
    fn run_once(&self, task: Task) -> BoxFuture<'_, Result<Ran, EngineError>>;

    /// Ends all of a tenant and forgets it. One that is not there is fine.
    fn remove(&self, tenant: String) -> BoxFuture<'_, Result<(), EngineError>>;

    /// What the instances of a tenant write, behind the line of this number, and on as it comes.
    fn logs(
        &self,
        tenant: String,
        after: u64,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<LoggedLine, EngineError>>, EngineError>>;
}

/// Where a tenant is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// By everybody, without a path.
    pub url: String,
    /// By its services: each of those that were asked for.
    pub services: BTreeMap<String, Address>,
}

/// Where other services reach one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// A name or an address.
    pub host: String,
    /// The port there, which need not be the one that an instance listens on.
    pub port: u16,
}

/// A release as it is to run: resolved, with the values of its secrets. Says nothing of them when it is printed.
#[derive(Clone)]
pub struct Wanted {
    /// Whose.
    pub tenant: String,
    /// Grows with each one that is applied, a way back included.
    pub turn: u64,
    /// The deployment whose release this is; 0 where nothing is to run.
    pub deployment: u64,
    /// Whether what is the same as before is started anew as well.
    pub restart: bool,
    /// So many instances of a service above its replicas while it is replaced.
    pub surge: u32,
    /// So many below them.
    pub unavailable: u32,
    /// Each behind those that it depends on.
    pub services: Vec<WantedService>,
}

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wanted")
            .field("tenant", &self.tenant)
            .field("turn", &self.turn)
            .field("deployment", &self.deployment)
            .finish_non_exhaustive()
    }
}

/// One service of a [`Wanted`].
#[derive(Clone)]
pub struct WantedService {
    /// As other services call it.
    pub name: String,
    /// The repository of the platform's registry that holds the image.
    pub repository: Repository,
    /// The image's manifest, or an index that has one for the machine.
    pub image: Digest,
    /// Replaces the image's `CMD`; `${PORT}` in it is the port to listen on.
    pub command: Option<Vec<String>>,
    /// Added to the image's own; values are secrets as far as the engine knows. `PORT` and `HOST` are the engine's to set.
    pub env: BTreeMap<String, String>,
    /// How many instances there are.
    pub replicas: u32,
    /// What each may use.
    pub resources: Resources,
    /// How one proves that it works.
    pub health: HealthCheck,
    /// Which instances are started again that have ended.
    pub restart: RestartPolicy,
    /// Those that serve before it is started.
    pub depends_on: Vec<String>,
    /// What it speaks on its port, if it listens.
    pub protocol: Option<Protocol>,
    /// Requests at the tenant's URL that are for it.
    pub routes: Vec<Route>,
}

/// What a service speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP.
    Http,
    /// Anything on connections.
    Tcp,
}

/// Requests by host and path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// A host name, or `*.` and one; whatever the host where there is none.
    pub host: Option<String>,
    /// A path; those below it are meant too.
    pub path: String,
}

/// Which instances are started again that have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// All.
    Always,
    /// Those that ended with anything but 0.
    OnFailure,
    /// None.
    Never,
}

/// How an instance proves that it works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// Between two questions to one that runs.
    pub interval: Duration,
    /// For one answer.
    pub timeout: Duration,
    /// After the start, in which failures do not count.
    pub start_period: Duration,
    /// Failures in a row that are believed.
    pub retries: u32,
    /// When one that runs is started again; where there is none, when the other check fails.
    pub liveness: Option<Liveness>,
}

/// When an instance is started again that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Liveness {
    /// What is asked.
    pub probe: Probe,
    /// Between two questions.
    pub interval: Duration,
    /// For one answer.
    pub timeout: Duration,
    /// Failures in a row that are believed.
    pub retries: u32,
}

/// One question to an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// `GET` of a path.
    Http {
        /// Begins with `/`.
        path: String,
        /// Of a good answer.
        status: u16,
        /// What a good answer holds.
        body: Option<String>,
    },
    /// It takes connections.
    Tcp,
    /// A command inside it ends with 0.
    Command(Vec<String>),
    /// It has not ended.
    Process,
}

/// A command that runs once.
#[derive(Clone)]
pub struct Task {
    /// Whose.
    pub tenant: String,
    /// See [`Wanted::turn`].
    pub turn: u64,
    /// The deployment that it runs for; what it writes is of that one and its service.
    pub deployment: u64,
    /// What it runs in. One instance, whatever the service says of replicas, health and routes.
    pub service: WantedService,
}

/// How a command has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// How.
    pub exit: Exit,
    /// The last lines that it wrote, 20 at most.
    pub log_tail: Vec<String>,
}

/// What an orchestrator has of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// What it was told last.
    pub turn: u64,
    /// The deployment that was told with it.
    pub deployment: u64,
    /// The turn of which all instances are that have traffic, each service with as many as it should have; none while it is on the
    /// way. Falls back to an older turn where the orchestrator has returned by itself.
    pub serving: Option<u64>,
    /// How its services are.
    pub services: BTreeMap<String, Counted>,
    /// Why it does not go on towards what it was told last, if it does not.
    pub failed: Option<GivenUp>,
}

/// One service of an [`Observed`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    /// The deployment that has started what serves; an older one where it was the same in both.
    pub deployment: u64,
    /// Names of its instances that have traffic, or would if it had any.
    pub ready: Vec<String>,
    /// How often one was started again since the tenant is there.
    pub restarts: u64,
    /// Why the last one ended that did, or is not ready.
    pub reason: Option<String>,
    /// Whether all have ended that will: none is started again.
    pub over: Option<Over>,
}

/// How a service is whose instances are not started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// They have done their work.
    Well,
    /// One of them has failed.
    Failed,
}

/// Why an orchestrator does not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUp {
    /// What kind of failure it is.
    pub cause: Cause,
    /// For people.
    pub message: String,
    /// Whose, where there are several services.
    pub service: Option<String>,
    /// The last lines of the instance, 20 at most.
    pub log_tail: Vec<String>,
}

/// What keeps a release from serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// An instance has ended before it was ready.
    Ended(Exit),
    /// It answers, and not as it should.
    Unhealthy,
    /// It does not answer in time.
    Silent,
    /// The registry does not have the image.
    ImageNotFound,
    /// Anything else.
    NotStarted,
}

/// One line of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedLine {
    /// Greater than those of all lines of this tenant before it.
    pub number: u64,
    /// When it was written.
    pub at: DateTime<Utc>,
    /// Of the deployment that has started the instance.
    pub deployment: u64,
    /// Which service it is an instance of.
    pub service: String,
    /// Which one, if that is told.
    pub instance: Option<String>,
    /// Whether it was written to standard error.
    pub is_error: bool,
    /// Without the line feed.
    pub text: String,
}

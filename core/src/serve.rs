//! The life of a server: start, recovery, service, end.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use engines::Engine;
use engines::docker::DockerEngine;
use engines::process::{IsolationMode, Launcher, ProcessEngine};
use management_api::types::Role;
use secrecy::{ExposeSecret, SecretString};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::{Issue, RegistryAccess, Signer, authenticate, issue};
use crate::cli::{Isolation, ServeArgs};
use crate::data_dir::{DataDir, ServerFile, start_time_ticks};
use crate::http::{Limiter, Listener, router};
use crate::key::KeySource;
use crate::metrics::Metrics;
use crate::platform::{App, Platform, collect_regularly};
use crate::rekey::open_vault;
use crate::rollout::{self, Adopted};
use crate::settings::{EngineKind, Settings};
use crate::store::{Actor, Store, TokenKind};
use crate::tenant::Tenant;
use crate::tenants::Tenants;
use crate::tls::{self, Tls, TlsError};

/// The tenant that every server has from its first start.
const FIRST_TENANT: &str = "local";
/// For requests, to the API and to the tenants, when the server ends.
const DRAIN: Duration = Duration::from_secs(10);
/// For everything else, rollouts that are being undone included: this, and what instances may take.
const WIND_DOWN: Duration = Duration::from_mins(1);
/// The pid namespace that the kernel begins with, on every machine (`PROC_PID_INIT_INO` of Linux).
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Runs a server until it is told to end.
pub(crate) async fn run(arguments: ServeArgs) -> anyhow::Result<()> {
    let mut stop = StopSignals::listen()?;
    let settings = match &arguments.services {
        Some(folder) => Settings::load(folder)?,
        None => Settings::default(),
    };
    let tls = tls(&arguments, &settings)?;
    let addresses = arguments.addresses(tls.is_some())?;
    let data = DataDir::open(&arguments.data)?;
    let listener = Listener::bind(&addresses)
        .await
        .context("cannot listen; choose another address with --listen")?;
    let app = build(&arguments, settings, data, tls, &listener).await?;
    recover(&app).await?;
    let web = arguments.web.as_deref().filter(|folder| is_there(folder));
    let router = router(&app, web);
    announce(&app)?;
    app.tasks.spawn(collect_regularly(App::clone(&app)));
    if let Some(tls) = app.tls.clone() {
        app.tasks.spawn(tls.watch(app.shutdown.clone()));
    }
    let serving = tokio::spawn(listener.serve(
        router,
        app.tls.as_ref().map(Tls::acceptor),
        app.settings.limits.max_connections,
        app.shutdown.clone(),
        DRAIN,
    ));
    let instances = Instances::after(stop.first().await, &app);
    end(&app, serving, stop, instances).await;
    Ok(())
}

/// The certificate that the command line names, else that of the settings.
fn tls(arguments: &ServeArgs, settings: &Settings) -> Result<Option<Tls>, TlsError> {
    let named = arguments
        .tls_certificate
        .clone()
        .zip(arguments.tls_key.clone());
    let set = settings.tls.clone();
    let files = named.or_else(|| set.map(|files| (files.certificate, files.key)));
    let open = |(certificate, key)| Tls::open(tls::Files { certificate, key });
    files.map(open).transpose()
}

async fn build(
    arguments: &ServeArgs,
    settings: Settings,
    data: DataDir,
    tls: Option<Tls>,
    listener: &Listener,
) -> anyhow::Result<App> {
    data.prepare_database()?;
    let store = Store::open(&data.database()).context("cannot open the state database")?;
    let key = arguments.secrets_key.source(&data);
    let vault = open_vault(&store, &key)
        .await
        .context("cannot keep secrets")?;
    let key = KeySource::File(data.registry_key()).read();
    let signer = Signer::new(&key.context("cannot sign registry tokens")?);
    let images = oci::Store::open(data.registry()).context("cannot open the registry")?;
    let images = Arc::new(images);
    let registry = Arc::new(RegistryAccess::new(store.clone(), signer));
    let engine = engine(arguments, &settings, &data, &images, &registry, listener).await?;
    for note in engine.notes() {
        tracing::info!(note, engine = engine.name(), "how instances run");
    }
    Ok(Arc::new(Platform {
        data,
        registry,
        limiter: Limiter::new(&settings.limits),
        tls,
        settings,
        store,
        vault: Arc::new(vault),
        images,
        engine,
        tenants: Tenants::default(),
        metrics: Metrics::new(),
        keeping: Arc::default(),
        listen: listener.address(),
        shutdown: CancellationToken::new(),
        tasks: TaskTracker::new(),
    }))
}

async fn engine(
    arguments: &ServeArgs,
    settings: &Settings,
    data: &DataDir,
    images: &Arc<oci::Store>,
    access: &Arc<RegistryAccess>,
    listener: &Listener,
) -> anyhow::Result<Arc<dyn Engine>> {
    let docker = &settings.engine.docker;
    let engine: Arc<dyn Engine> = match settings.engine.kind {
        EngineKind::Process => Arc::new(
            ProcessEngine::new(engines::process::Settings {
                store: Arc::clone(images),
                root: data.engine(),
                launcher: Launcher::this_program([crate::LAUNCH]),
                isolation: match arguments.isolation {
                    Isolation::Auto => IsolationMode::Auto,
                    Isolation::Off => IsolationMode::Off,
                },
                orphan: settings.engine.orphan(),
            })
            .context("cannot start the engine")?,
        ),
        EngineKind::Docker => {
            let host = docker.registry.clone();
            let registry = OwnRegistry {
                host: host.unwrap_or_else(|| reachable(listener.address()).to_string()),
                access: Arc::clone(access),
            };
            let engine = DockerEngine::new(engines::docker::Settings {
                socket: docker.socket.clone(),
                root: data.engine(),
                network: docker.network(),
                registry: Arc::new(registry),
            });
            Arc::new(
                engine
                    .await
                    .context("cannot use the Docker Engine; see `[engine]` in platform.toml")?,
            )
        }
    };
    Ok(engine)
}

/// This server's registry, as a Docker Engine on this machine reaches it.
struct OwnRegistry {
    host: String,
    access: Arc<RegistryAccess>,
}

impl engines::docker::Registry for OwnRegistry {
    fn host(&self) -> String {
        self.host.clone()
    }

    fn token(&self, repository: &oci::Repository) -> SecretString {
        self.access.issue_for_engine(repository.as_str()).token
    }
}

/// An address of this machine at which a server that listens on `address` is reached.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    address
}

/// From whatever the last server left to a state in which requests can be served.
async fn recover(app: &App) -> anyhow::Result<()> {
    let adopted = app.engine.adopt().await;
    let adopted = adopted.context("cannot look for what the last server left running")?;
    let mut adopted = Adopted::of(adopted);
    app.engine
        .sweep()
        .await
        .context("cannot remove what the last server left running")?;
    rollout::finish_interrupted(&app.store).await?;
    app.store.release_keys_in_flight().await?;
    operator_token(app).await?;
    let tenants = app.store.tenants().await?;
    let mut opening = Vec::new();
    for tenant in &tenants {
        opening.push(app.open_tenant(tenant, adopted.of_tenant(tenant)));
    }
    // One that has to wait keeps no other waiting.
    futures_util::future::try_join_all(opening).await?;
    // Those of tenants that are gone.
    let (app_, rest) = (App::clone(app), adopted.rest());
    app.tasks.spawn(async move { app_.stop_all(&rest).await });
    if tenants.is_empty() && app.store.is_new().await? {
        app.create_tenant(FIRST_TENANT, FIRST_TENANT, &Actor::server())
            .await?;
    }
    Ok(())
}

/// Sees to it that the file `token` holds a valid operator's token. Whoever can remove the file can
/// also read the database beside it, so making a new one gives nothing away.
async fn operator_token(app: &App) -> anyhow::Result<()> {
    let path = app.data.token();
    if let Ok(text) = std::fs::read_to_string(&path) {
        let token = SecretString::from(text.trim());
        if authenticate(&app.store, &token).await?.is_some() {
            return Ok(());
        }
        tracing::warn!("the token in the data folder is not valid any more; a new one is made");
    }
    app.store.revoke_bootstrap_tokens().await?;
    let wanted = Issue {
        kind: TokenKind::Bootstrap,
        name: "operator".to_owned(),
        role: Role::Operator,
        tenant: None,
        parent: None,
        expires_in: None,
    };
    let (_, token) = issue(&app.store, wanted, &Actor::server()).await?;
    let text = format!("{}\n", token.expose_secret());
    Ok(app.data.write_private(&path, &text)?)
}

#[expect(
    clippy::print_stderr,
    reason = "the one line that tells a person where the server is, whatever the log's format"
)]
fn announce(app: &App) -> anyhow::Result<()> {
    let url = format!("{}://{}", app.scheme(), reachable(app.listen));
    app.data.announce(&ServerFile {
        pid: std::process::id(),
        address: app.listen,
        url: url.clone(),
        version: env!("CARGO_PKG_VERSION"),
        started_at: chrono::Utc::now(),
        start_time_ticks: start_time_ticks(),
        folder: app.data.id()?,
        registry_store: app.data.registry_place(),
    })?;
    eprintln!(
        "systemprompt {} listens on {url}",
        env!("CARGO_PKG_VERSION")
    );
    if !app.listen.ip().is_loopback() && app.tls.is_none() {
        tracing::warn!(
            address = %app.listen,
            "the server listens beyond this machine without TLS, as --insecure says: only a proxy with TLS may reach it"
        );
    }
    Ok(())
}

/// What becomes of the instances when the server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Instances {
    Stop,
    /// They run on, for the next server to take them over.
    Leave,
}

impl Instances {
    /// SIGINT is a person who has had enough; SIGTERM may be a restart. Nothing outlives a container.
    fn after(signal: SignalKind, app: &App) -> Self {
        let outlive = !app.settings.engine.orphan().is_zero() && !ends_with_us();
        if signal == SignalKind::terminate() && outlive {
            Self::Leave
        } else {
            Self::Stop
        }
    }

    /// Leave them only if both do.
    fn or(self, other: Self) -> Self {
        if self == Self::Stop { self } else { other }
    }
}

/// Whether the end of this process is the end of everything that runs with it: it is process 1, or the child of the process 1
/// of a container, which ends with its child.
fn ends_with_us() -> bool {
    let namespace = std::fs::metadata("/proc/self/ns/pid");
    let in_container = namespace.is_ok_and(|namespace| namespace.ino() != FIRST_PID_NAMESPACE);
    let parent = std::os::unix::process::parent_id();
    is_first(std::process::id(), parent, in_container)
}

fn is_first(own: u32, parent: u32, in_container: bool) -> bool {
    own == 1 || (parent == 1 && in_container)
}

/// Ends everything in order: no new requests, the running ones finished, rollouts undone,
/// instances stopped or left.
async fn end(
    app: &App,
    serving: tokio::task::JoinHandle<()>,
    mut stop: StopSignals,
    instances: Instances,
) {
    tracing::info!(
        ?instances,
        "the server ends; a second signal ends it at once"
    );
    app.data.withdraw();
    app.shutdown.cancel();
    let orderly = async {
        for_all_tenants(app, async |_, tenant| {
            if let Some(proxy) = tenant.proxy() {
                proxy.shutdown(DRAIN).await;
            }
        })
        .await;
        // Its own errors were logged; a panic in it must not keep the instances running.
        let _ = serving.await;
        app.tasks.close();
        app.tasks.wait().await;
        for_all_tenants(app, async |app, tenant| match instances {
            Instances::Stop => app.stop_live(&tenant).await,
            Instances::Leave => app.stop_spare(&tenant).await,
        })
        .await;
    };
    let rollout = &app.settings.rollout;
    let limit = WIND_DOWN + rollout.drain() + rollout.stop_grace();
    let cut_short = tokio::select! {
        done = tokio::time::timeout(limit, orderly) => {
            if done.is_ok() {
                return;
            }
            tracing::warn!("not everything ended in time");
            instances
        }
        second = stop.first() => {
            tracing::warn!("ended at once");
            instances.or(Instances::after(second, app))
        }
    };
    // Nobody waits for them any more, and no other server is to find them.
    if cut_short == Instances::Stop
        && let Err(error) = app.engine.end_all().await
    {
        tracing::error!(error = %crate::chain(&error), "not all instances have ended");
    }
}

/// Does `work` for all tenants at once.
async fn for_all_tenants(app: &App, work: impl AsyncFn(App, Arc<Tenant>)) {
    let tenants = app.tenants.all();
    let all = tenants
        .into_iter()
        .map(|tenant| work(App::clone(app), tenant));
    futures_util::future::join_all(all).await;
}

/// SIGTERM and SIGINT, from the moment on that they are listened to.
struct StopSignals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl StopSignals {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next of either.
    async fn first(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
        }
    }
}

fn is_there(folder: &Path) -> bool {
    let there = folder.is_dir();
    if !there {
        tracing::warn!(path = %folder.display(), "the dashboard's folder is missing");
    }
    there
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_process_of_a_container_and_its_child_take_everything_with_them() {
        assert!(is_first(1, 0, true));
        // Behind an init, as `docker run --init` has it.
        assert!(is_first(7, 1, true));
        assert!(!is_first(7, 6, true));
        // A service of the machine's own first process.
        assert!(!is_first(700, 1, false));
    }
}

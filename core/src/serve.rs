//! The life of a server: start, recovery, service, end.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use management_api::types::Role;
use secrecy::{ExposeSecret, SecretString};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::{Issue, authenticate, issue};
use crate::cli::ServeArgs;
use crate::data_dir::{DataDir, ServerFile, start_time_ticks};
use crate::files;
use crate::http::{Limiter, Listener, router};
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::platform::{App, Platform, TIDY_REST, collect_regularly};
use crate::ports::reachable;
use crate::rekey::open_vault;
use crate::rollout::{self, Adopted};
use crate::runner::{Runner, Wanted};
use crate::settings::{Limits, Settings};
use crate::sockets::{self, Sockets};
use crate::standby::{self, Lost, Standby};
use crate::store::{Actor, Candidate, DatabaseServer, Store, TokenKind};
use crate::tenant::Tenant;
use crate::tenants::Tenants;
use crate::tls::{self, Tls, TlsError};
use crate::told;

/// The tenant that every server has from its first start.
const FIRST_TENANT: &str = "local";
/// For requests, to the API and to the tenants, when the server ends.
const DRAIN: Duration = Duration::from_secs(10);
/// For requests between services, of which nobody from outside waits for the answer any more.
const DOORS: Duration = Duration::from_secs(1);
/// For everything else, rollouts that are being undone included: this, and what instances may take.
const WIND_DOWN: Duration = Duration::from_mins(1);
/// The pid namespace that the kernel begins with, on every machine (`PROC_PID_INIT_INO` of Linux).
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Runs a server until it is told to end.
pub(crate) async fn run(arguments: ServeArgs, settings: Settings) -> anyhow::Result<()> {
    let stop = StopSignals::listen()?;
    let tls = tls(&arguments, &settings)?;
    let addresses = arguments.addresses(tls.is_some())?;
    let database = arguments.database.server()?;
    if database.is_none() && arguments.database.shared(&arguments.data) != arguments.data {
        bail!(
            "--shared is for several servers of one database: name it with DATABASE_URL or --database-url-file"
        );
    }
    let data = arguments.database.open(&arguments.data)?;
    let sockets = Sockets::inherited();
    let listener = Listener::bind(&sockets, &addresses)
        .await
        .context("cannot listen; choose another address with --listen")?;
    let images = oci::Store::open(data.registry()).context("cannot open the registry")?;
    let images = Arc::new(images);
    let ground = Ground {
        settings,
        data,
        tls,
        images,
        sockets,
        shutdown: CancellationToken::new(),
    };
    if let Some(database) = database {
        return run_among_others(&arguments, ground, &database, listener, stop).await;
    }
    ground.data.prepare_database()?;
    let store = Store::open(&ground.data.database()).context("cannot open the state database")?;
    let runner = ground.runner(&arguments, &store, &listener).await?;
    let parts = Parts {
        ground,
        store,
        runner,
    };
    serve(&arguments, parts, listener, stop).await
}

/// Stands by until this server leads, then serves for as long as it does.
async fn run_among_others(
    arguments: &ServeArgs,
    ground: Ground,
    database: &DatabaseServer,
    listener: Listener,
    mut stop: StopSignals,
) -> anyhow::Result<()> {
    let place = Place::of(&listener, ground.tls.as_ref());
    let candidate = Candidate {
        id: ground.data.server_id()?,
        address: place.url(),
        lease: ground.settings.database.lease(),
    };
    let acceptor = ground.tls.as_ref().map(Tls::acceptor);
    let leading = async {
        let mut standby = Standby::new(&listener, &ground.sockets, acceptor);
        let (store, lead) = standby.connect(database, candidate).await?;
        let runner = ground.runner(arguments, &store, &listener).await?;
        // What is left of a time in which this server led would run beside what the other one has started.
        let seen = async || {
            announce(&ground.data, place, "stands by")?;
            let ended = runner.engine.end_all().await;
            ended.context("cannot end the instances of before")
        };
        let since = standby.wait_to_lead(&lead, seen).await?;
        anyhow::Ok((store, lead, since, runner))
    };
    let (store, lead, since, runner) = tokio::select! {
        leads = leading => leads?,
        _ = stop.first() => {
            ground.data.withdraw();
            return Ok(());
        }
    };
    // Nothing else that this server does holds it up.
    let keeping = lead.clone();
    let keeping = tokio::spawn(async move { standby::keep(&keeping, since).await });
    let (engine, shutdown) = (runner.engine.clone(), ground.shutdown.clone());
    let parts = Parts {
        ground,
        store,
        runner,
    };
    let lost = tokio::select! {
        ended = serve(arguments, parts, listener, stop) => {
            standby::give_back(&lead).await;
            return ended;
        }
        lost = keeping => lost?,
    };
    tracing::error!(reason = %lost, "this server leads no more");
    if lost == Lost::Taken {
        // Nobody starts another one meanwhile.
        shutdown.cancel();
        engine.end_all().await.context("cannot end the instances")?;
    }
    Err(lost.into())
}

/// What a server stands on, whatever its database.
struct Ground {
    settings: Settings,
    data: DataDir,
    tls: Option<Tls>,
    images: Arc<oci::Store>,
    sockets: Sockets,
    shutdown: CancellationToken,
}

impl Ground {
    async fn runner(
        &self,
        arguments: &ServeArgs,
        store: &Store,
        listener: &Listener,
    ) -> anyhow::Result<Runner> {
        let wanted = Wanted {
            settings: &self.settings.engine,
            isolation: arguments.isolation,
            data: &self.data,
            images: &self.images,
            store,
            address: listener.address(),
            has_tls: self.tls.is_some(),
        };
        Runner::new(wanted).await
    }
}

/// What it takes to serve.
struct Parts {
    ground: Ground,
    store: Store,
    runner: Runner,
}

/// Where a server is found.
#[derive(Debug, Clone, Copy)]
struct Place {
    address: SocketAddr,
    scheme: &'static str,
}

impl Place {
    fn of(listener: &Listener, tls: Option<&Tls>) -> Self {
        Self {
            address: listener.address(),
            scheme: if tls.is_some() { "https" } else { "http" },
        }
    }

    /// As clients of this machine call it.
    fn url(self) -> String {
        format!("{}://{}", self.scheme, reachable(self.address))
    }
}

/// Serves, from whatever the last server has left to an end in order.
async fn serve(
    arguments: &ServeArgs,
    parts: Parts,
    listener: Listener,
    mut stop: StopSignals,
) -> anyhow::Result<()> {
    // Whoever leads, and no other one.
    let migrated = parts.store.migrate().await;
    migrated.context("cannot open the state database")?;
    if parts.store.is_new().await? {
        parts.ground.data.check_new_database()?;
    }
    let place = Place::of(&listener, parts.ground.tls.as_ref());
    let app = build(arguments, parts, &listener).await?;
    recover(&app).await?;
    app.sockets.forget_left();
    let web = arguments.web.as_deref().filter(|folder| is_there(folder));
    let router = router(&app, web);
    announce(&app.data, place, "listens")?;
    warn_of_plain_text(&app);
    app.tasks.spawn(collect_regularly(App::clone(&app)));
    if let Some(tls) = app.tls.clone() {
        let hang_up = tls::hang_up().context("cannot listen to signals")?;
        app.tasks.spawn(tls.watch(hang_up, app.shutdown.clone()));
    }
    let serving = tokio::spawn(listener.serve(
        router,
        app.tls.as_ref().map(Tls::acceptor),
        connections(&app.settings.limits),
        app.shutdown.clone(),
        DRAIN,
    ));
    let instances = Instances::after(stop.first().await, &app);
    end(&app, serving, stop, instances).await;
    if let Err(error) = app.store.settle().await {
        tracing::warn!(error = %crate::chain(&error), "the state stays in its log, which the next start reads");
    }
    Ok(())
}

/// The certificate that the command line names, else that of the settings.
fn tls(arguments: &ServeArgs, settings: &Settings) -> Result<Option<Tls>, TlsError> {
    let certificate = arguments.shown.tls_certificate.clone();
    let named = certificate.zip(arguments.tls_key.clone());
    let set = settings.tls.clone();
    let files = named.or_else(|| set.map(|files| (files.certificate, files.key)));
    let open = |(certificate, key)| Tls::open(tls::Files { certificate, key });
    files.map(open).transpose()
}

/// How many connections to take: each may need two files, its own and what is read or written for it, and there have to
/// be some for everything else.
fn connections(limits: &Limits) -> usize {
    let wanted = limits.max_connections;
    let Some(files) = files::allowed() else {
        return wanted;
    };
    let possible = (files / 4).max(1);
    if wanted > possible {
        tracing::info!(
            files,
            wanted,
            possible,
            "this process may have too few files open for [limits] max_connections: raise LimitNOFILE of its service, or \
             `ulimit -n`"
        );
    }
    wanted.min(possible)
}

async fn build(arguments: &ServeArgs, parts: Parts, listener: &Listener) -> anyhow::Result<App> {
    let Parts {
        ground,
        store,
        runner,
    } = parts;
    let Ground {
        settings,
        data,
        tls,
        images,
        sockets,
        shutdown,
    } = ground;
    let key = arguments.secrets_key.source(&data);
    let vault = open_vault(&store, &key)
        .await
        .context("cannot keep secrets")?;
    Ok(Arc::new(Platform {
        data,
        registry: runner.access,
        limiter: Limiter::new(&settings.limits),
        tls,
        settings,
        store,
        vault: Arc::new(vault),
        images,
        engine: runner.engine,
        tenants: Tenants::default(),
        metrics: Metrics::new(),
        keeping: Arc::default(),
        tidying: Pace::new(TIDY_REST),
        listen: listener.address(),
        sockets,
        shutdown,
        tasks: TaskTracker::new(),
    }))
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
    let deleted = app.store.deleted_tenants().await?;
    if app.engine.orchestrator().is_some() {
        rollout::forget_all(app, deleted.clone());
    }
    // Those of tenants that are gone, and then what they wrote.
    let (app_, rest) = (App::clone(app), adopted.rest());
    app.tasks.spawn(async move {
        app_.stop_all(&rest).await;
        app_.remove_logs(&deleted);
    });
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

fn announce(data: &DataDir, place: Place, does: &str) -> anyhow::Result<()> {
    let url = place.url();
    data.announce(&ServerFile {
        pid: std::process::id(),
        address: place.address,
        url: url.clone(),
        version: env!("CARGO_PKG_VERSION"),
        started_at: chrono::Utc::now(),
        start_time_ticks: start_time_ticks(),
        folder: data.id()?,
        registry_store: data.registry_place(),
    })?;
    let version = env!("CARGO_PKG_VERSION");
    // The one line that tells a person where the server is, whatever the log's format.
    told::remark(&format!("systemprompt {version} {does} on {url}"));
    sockets::tell_ready(&format!("{does} on {url}"));
    Ok(())
}

fn warn_of_plain_text(app: &App) {
    if !app.listen.ip().is_loopback() && app.tls.is_none() {
        tracing::warn!(
            address = %app.listen,
            "the server listens beyond this machine without TLS, as --insecure says: only a proxy with TLS may reach it"
        );
    }
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
    sockets::tell_ending();
    app.data.withdraw();
    app.shutdown.cancel();
    let orderly = async {
        for_all_tenants(app, async |_, tenant| {
            if let Some(proxy) = tenant.proxy() {
                proxy.shutdown(DRAIN).await;
            }
            // Requests from outside may have needed these to the end.
            let doors = tenant.doors().into_values();
            let doors: Vec<_> = doors.collect();
            futures_util::future::join_all(doors.iter().map(|door| door.shutdown(DOORS))).await;
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

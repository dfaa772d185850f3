//! The platform: everything the handlers and the rollouts work with.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use engines::{EngineError, Instance};
use futures_util::future::join_all;
use management_api::types::Collection;
use proxy::{Front, Proxy};
use tokio::sync::RwLock;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::auth::RegistryAccess;
use crate::data_dir::DataDir;
use crate::engine::AnyEngine;
use crate::files;
use crate::http::Limiter;
use crate::metrics::Metrics;
use crate::origin::Origin;
use crate::pace::Pace;
use crate::retention::{CollectError, Collector};
use crate::rollout::{LeftRunning, Release, Unchanged};
use crate::settings::Settings;
use crate::sockets::{self, Sockets};
use crate::store::{Actor, DeploymentRow, Store, StoreError, TenantRow, now};
use crate::tenant::Tenant;
use crate::tenants::Tenants;
use crate::tls::Tls;
use crate::vault::Vault;
use crate::{logs, ports, rollout};

/// A handle that is cheap to clone.
pub(crate) type App = Arc<Platform>;

/// How long a port that belongs to a tenant is tried for, in the background.
const BIND_TRIES: u32 = 300;
const BIND_PAUSE: Duration = Duration::from_millis(200);
/// A server that is started anew every few minutes collects as well, but not while it starts.
const FIRST_COLLECTION: Duration = Duration::from_mins(5);
/// From one look at all images to the next one, while a deployment follows the other.
pub(crate) const TIDY_REST: Duration = Duration::from_secs(30);
/// For the requests on a deleted tenant's URL.
const DELETE_GRACE: Duration = Duration::from_secs(5);

/// The parts of a running server.
pub(crate) struct Platform {
    pub(crate) data: DataDir,
    pub(crate) settings: Settings,
    pub(crate) store: Store,
    pub(crate) vault: Arc<Vault>,
    /// Who may do what in the registry.
    pub(crate) registry: Arc<RegistryAccess>,
    /// How often somebody may try.
    pub(crate) limiter: Limiter,
    /// The certificate that is shown, if there is one.
    pub(crate) tls: Option<Tls>,
    pub(crate) images: Arc<oci::Store>,
    pub(crate) engine: AnyEngine,
    pub(crate) tenants: Tenants,
    pub(crate) metrics: Metrics,
    /// Held by many while a deployment looks for its image and begins, by one while images are collected.
    pub(crate) keeping: Arc<RwLock<()>>,
    /// When all that there is may be looked at again after deployments.
    pub(crate) tidying: Pace,
    /// Where the API listens.
    pub(crate) listen: SocketAddr,
    /// What it and the tenants listen with.
    pub(crate) sockets: Sockets,
    /// Cancelled when the server is to end.
    pub(crate) shutdown: CancellationToken,
    /// Background work that the end of the server waits for.
    pub(crate) tasks: TaskTracker,
}

impl Platform {
    /// Makes a tenant with a listener of its own.
    pub(crate) async fn create_tenant(
        self: &Arc<Self>,
        id: &str,
        name: &str,
        by: &Actor,
    ) -> Result<TenantRow, StoreError> {
        let (proxy, address) = self.listen_for_new_tenant().await?;
        let tenant = Arc::new(self.tenant(id, address));
        if self.engine.orchestrator().is_none() {
            tenant.set_proxy(proxy);
        } else {
            self.close(&proxy, Duration::ZERO).await;
        }
        // Before it is in the store: whoever finds it there can deploy to it.
        if !self.tenants.add(Arc::clone(&tenant)) {
            sockets::forget(address);
            return Err(StoreError::TenantTaken { id: id.to_owned() });
        }
        let row = TenantRow {
            id: id.to_owned(),
            name: name.to_owned(),
            port: address.port(),
            live: None,
            stand_in: None,
        };
        if let Err(error) = self.store.create_tenant(row.clone(), by).await {
            // With it goes the proxy, and its port is free again.
            drop(self.tenants.remove(id));
            sockets::forget(address);
            return Err(error);
        }
        rollout::keep_orders(self, &tenant).await;
        tracing::info!(tenant = id, url = tenant.known_url(), "a tenant was made");
        Ok(row)
    }

    fn tenant(&self, id: &str, address: SocketAddr) -> Tenant {
        let tenant = match self.engine.orchestrator() {
            None => Tenant::new(id, address, self.scheme()),
            Some(_) => Tenant::ordered(id, address, self.scheme()),
        };
        tenant.reached_at(self.settings.tenants.url_of(id, address.port()))
    }

    /// Removes a tenant: its history stays, its instance, listener and log go.
    pub(crate) async fn delete_tenant(
        self: &Arc<Self>,
        id: &str,
        by: &Actor,
    ) -> Result<(), StoreError> {
        self.store.delete_tenant(id, by).await?;
        let Some(tenant) = self.tenants.remove(id) else {
            return Ok(());
        };
        tenant.changed();
        tenant.deleted.cancel();
        rollout::forget(self, id.to_owned()).await;
        if let Some(proxy) = tenant.proxy() {
            self.close(&proxy, DELETE_GRACE).await;
        }
        self.stop_live(&tenant).await;
        for door in tenant.close_doors(&BTreeSet::new()) {
            self.close(&door, Duration::ZERO).await;
        }
        // It knows its tenant: nobody else would let go of either.
        tenant.set_live(None);
        self.remove_logs(&[id.to_owned()]);
        tracing::info!(tenant = id, "a tenant was deleted");
        self.tell_volumes_left(id).await;
        Ok(())
    }

    /// Removes the logs of tenants that were deleted. It is blocking, and nobody waits for it.
    pub(crate) fn remove_logs(&self, tenants: &[String]) {
        let folders: Vec<_> = tenants.iter().map(|id| self.data.logs(id)).collect();
        tokio::task::spawn_blocking(move || {
            for folder in folders {
                // Of most there is none any more.
                let _ = std::fs::remove_dir_all(folder);
            }
        });
    }

    /// What nobody can make again is not removed along with something else.
    async fn tell_volumes_left(&self, tenant: &str) {
        match self.engine.volumes(tenant.to_owned()).await {
            Ok(left) => {
                for volume in left {
                    tracing::warn!(
                        tenant,
                        volume = volume.name,
                        "a volume of a deleted tenant stays until somebody removes it"
                    );
                }
            }
            Err(error) => {
                tracing::warn!(tenant, error = %crate::chain(&error), "volumes cannot be listed");
            }
        }
    }

    /// Brings a tenant of the database to life: its live release, beginning with those of its
    /// instances that run already, then its listener, so that no request comes too early.
    pub(crate) async fn open_tenant(
        self: &Arc<Self>,
        row: &TenantRow,
        left: LeftRunning,
    ) -> Result<(), StoreError> {
        let address = SocketAddr::new(self.listen.ip(), row.port);
        let tenant = Arc::new(self.tenant(&row.id, address));
        self.tenants.add(Arc::clone(&tenant));
        if self.engine.orchestrator().is_some() {
            rollout::restore_order(self, &tenant).await?;
            rollout::keep_orders(self, &tenant).await;
            return Ok(());
        }
        rollout::restore_live(self, &tenant, left).await?;
        match self.listen_at(address).await {
            Ok(proxy) => tenant.set_proxy(proxy),
            Err(error) => {
                tracing::warn!(tenant = row.id, %address, %error, "the tenant's port is not free");
                let (app, tenant) = (App::clone(self), Arc::clone(&tenant));
                self.tasks
                    .spawn(async move { app.listen_later(&tenant).await });
            }
        }
        Ok(())
    }

    /// Stops the tenant's instances and does not start others.
    pub(crate) async fn stop_live(&self, tenant: &Tenant) {
        if let Some(live) = tenant.live() {
            self.stop_all(&live.let_go().await).await;
        }
        self.stop_warm(tenant).await;
    }

    /// Stops the set that is kept for a quick return; not the release that somebody stands in for, which is to come back.
    pub(crate) async fn stop_spare(&self, tenant: &Tenant) {
        if !tenant.is_standing_in() {
            self.stop_warm(tenant).await;
        }
    }

    async fn stop_warm(&self, tenant: &Tenant) {
        if let Some(warm) = tenant.take_warm() {
            self.stop_all(&warm.let_go().await).await;
        }
    }

    /// Stops instances, all at once.
    pub(crate) async fn stop_all(&self, instances: &[Instance]) {
        let grace = self.settings.rollout.stop_grace();
        join_all(instances.iter().map(|instance| instance.stop(grace))).await;
    }

    /// Runs `work` to its end even when the client that asked for it hangs up: what was begun in the
    /// store must be carried on here.
    pub(crate) async fn detached<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let task = self.tasks.spawn(work.in_current_span());
        task.await.map_err(|_| StoreError::Stopped)?
    }

    /// Starts the rollout of a deployment that was accepted.
    pub(crate) fn start_rollout(self: &Arc<Self>, row: DeploymentRow, unchanged: Unchanged) {
        let Some(tenant) = self.tenants.get(&row.tenant) else {
            // Deleted a moment ago; the next start gives the deployment its end.
            return;
        };
        tenant.changed();
        let signals = tenant.begin_rollout(row.number);
        let rollout = rollout::run(Arc::clone(self), tenant, row, unchanged, signals);
        self.tasks.spawn(rollout.in_current_span());
    }

    /// Frees what no rollback within the configured window needs, and measures what is left.
    /// The tenant's own at once. What is a look at all that there is, of all tenants, is done at once too, and again no sooner than
    /// [`TIDY_REST`] later, however many deployments there are.
    pub(crate) async fn tidy(self: &Arc<Self>, tenant: &str) {
        if let Err(error) = self.prune_logs(tenant).await {
            tracing::warn!(error = %crate::chain(&error), "old logs were not removed");
        }
        self.measure_volumes(tenant).await;
        // Whoever waits for the next round is no deployment any more.
        let app = App::clone(self);
        self.tasks.spawn(async move {
            let round = tokio::select! {
                // One that need not be waited for comes about although the server ends.
                biased;
                round = app.tidying.round() => round,
                // The next server does it after its first deployment, or when it collects.
                () = app.shutdown.cancelled() => None,
            };
            if let Some(_round) = round {
                app.tidy_all().await;
            }
        });
    }

    async fn tidy_all(&self) {
        if let Err(error) = self.free_unpacked(None).await {
            tracing::warn!(error = %crate::chain(&error), "unpacked images were not freed");
        }
        let blobs = self.images.root().join("blobs");
        let work = tokio::task::spawn_blocking(move || folder_size(&blobs));
        if let Ok(size) = work.await {
            self.metrics.set_registry_bytes(size);
        }
    }

    /// Removes images, versions of secrets and logs that nothing needs any more, or says what would go. One at a time.
    pub(crate) async fn collect(
        &self,
        by: &Actor,
        dry_run: bool,
    ) -> Result<Collection, CollectError> {
        let collector = Collector {
            store: self.store.clone(),
            images: Arc::clone(&self.images),
            rules: self.settings.retention.rules(),
        };
        if dry_run {
            return Ok(collector.look(now()).await?.collection);
        }
        let alone = self.keeping.write().await;
        let outcome = collector.collect(by, now(), alone).await?;
        self.metrics.set_registry_bytes(outcome.left);
        let mut collection = outcome.collection;
        match self.free_unpacked(Some(&outcome.kept)).await {
            Ok(bytes) => collection.unpacked_bytes = Some(bytes),
            Err(error) => {
                tracing::warn!(error = %crate::chain(&error), "unpacked images were not freed");
            }
        }
        for tenant in self.store.tenants().await? {
            if let Err(error) = self.prune_logs(&tenant.id).await {
                tracing::warn!(error = %crate::chain(&error), "old logs were not removed");
            }
            self.measure_volumes(&tenant.id).await;
        }
        tracing::info!(
            releases = collection.releases.len(),
            blobs = collection.blobs,
            bytes = collection.bytes,
            secret_versions = collection.secret_versions,
            over = collection.bytes_over,
            "collected what nothing needs"
        );
        Ok(collection)
    }

    /// Nothing is ever removed of them here: what is in them nobody can make again.
    async fn measure_volumes(&self, tenant: &str) {
        match self.engine.volumes(tenant.to_owned()).await {
            Ok(volumes) => {
                for volume in volumes {
                    self.metrics
                        .set_volume_bytes(tenant, &volume.name, volume.bytes);
                }
            }
            Err(error) => {
                tracing::warn!(tenant, error = %crate::chain(&error), "volumes were not measured");
            }
        }
    }

    /// Removes unpacked images that are neither of the newest deployments nor in use; those too whose image is not among
    /// `kept`. Says how many bytes.
    async fn free_unpacked(&self, kept: Option<&BTreeSet<String>>) -> Result<u64, FreeError> {
        let newest = self.settings.limits.max_deployments_kept;
        let digests = self.store.digests_in_use(newest).await?;
        let stays = |digest: &&String| kept.is_none_or(|kept| kept.contains(*digest));
        let digests = digests.iter().filter(stays);
        let digests: Vec<_> = digests.filter_map(|digest| digest.parse().ok()).collect();
        Ok(self.engine.retain(digests).await?)
    }

    async fn prune_logs(&self, tenant: &str) -> Result<(), FreeError> {
        let (limits, retention) = (&self.settings.limits, &self.settings.retention);
        let row = self.store.tenant(tenant).await?;
        let serving = row.map(|row| [row.live, row.stand_in]);
        let running = self.store.running(tenant).await?.map(|row| row.number);
        // What was carried over writes on where it did.
        let kept = self.tenants.get(tenant).into_iter();
        let kept = kept.flat_map(|tenant| {
            let warm = tenant.warm().map(Release::Kept);
            tenant.release().into_iter().chain(warm)
        });
        let kept: Vec<u64> = kept.flat_map(|release| release.deployments()).collect();
        let kept = logs::Kept {
            deployments: limits.max_deployments_kept as usize,
            in_use: serving
                .into_iter()
                .flatten()
                .flatten()
                .chain(running)
                .chain(kept)
                .collect(),
            bytes_each: limits.log_bytes_kept,
            age: retention.log_age(),
            bytes: retention.tenant_log_bytes(),
        };
        let folder = self.data.logs(tenant);
        let work = tokio::task::spawn_blocking(move || logs::prune(&folder, &kept));
        Ok(work.await.map_err(|_| StoreError::Stopped)??)
    }

    /// How the API, the registry and the tenants are called.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// The names under which clients know the registry, the one to tell them first: what this
    /// client itself called the server, which is right behind port mappings too.
    pub(crate) fn registry_hosts(&self, headers: &HeaderMap) -> Vec<String> {
        let called = Origin::of(headers).host();
        let port = self.listen.port();
        let mut hosts: Vec<String> = called.map(str::to_owned).into_iter().collect();
        let mut own = BTreeSet::from([self.listen.to_string()]);
        if self.is_local() {
            own.extend([format!("127.0.0.1:{port}"), format!("localhost:{port}")]);
        }
        hosts.extend(own);
        hosts
    }

    /// Whether clients of this machine reach the server through loopback.
    fn is_local(&self) -> bool {
        let ip: IpAddr = self.listen.ip();
        ip.is_loopback() || ip.is_unspecified()
    }

    async fn listen_for_new_tenant(&self) -> Result<(Proxy, SocketAddr), StoreError> {
        for address in ports::for_tenant(self.listen.ip()) {
            if let Ok(proxy) = self.listen_at(address).await {
                let address = proxy.local_addr();
                return Ok((proxy, address));
            }
        }
        Err(StoreError::NoPort)
    }

    /// A tenant's listener, with TLS where the server has it.
    async fn listen_at(&self, address: SocketAddr) -> std::io::Result<Proxy> {
        let mut settings = proxy::Settings {
            forwarded: self.settings.tenants.forwarded(),
            ..proxy::Settings::default()
        };
        // Each takes two files, the client's connection and the instance's. No tenant alone gets all that there are.
        if let Some(files) = files::allowed() {
            settings.max_connections = settings.max_connections.min(files / 4);
        }
        let tls = self.tls.as_ref();
        let front = tls.map_or(Front::Http, |tls| Front::Tls(tls.acceptor()));
        Proxy::on(self.sockets.listen(address).await?, front, settings)
    }

    /// The last server's listener may take a moment to go; a program that took the port may end.
    async fn listen_later(&self, tenant: &Tenant) {
        for _ in 0..BIND_TRIES {
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = tokio::time::sleep(BIND_PAUSE) => {}
            }
            if let Ok(proxy) = self.listen_at(tenant.address).await {
                tenant.set_proxy(proxy);
                return;
            }
        }
        tracing::error!(
            tenant = tenant.id,
            address = %tenant.address,
            "the tenant's port stays in use by another program: free it and restart the server"
        );
    }

    /// Ends a listener for good, after requests have had so much time to end.
    pub(crate) async fn close(&self, proxy: &Proxy, grace: Duration) {
        sockets::forget(proxy.local_addr());
        proxy.shutdown(grace).await;
    }
}

/// Why something old was not removed.
#[derive(Debug, thiserror::Error)]
enum FreeError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("cannot prune the logs")]
    Logs(#[from] std::io::Error),
}

/// Collects at a steady interval, until the server ends.
pub(crate) async fn collect_regularly(app: App) {
    let Some(interval) = app.settings.retention.interval() else {
        return;
    };
    let mut pause = interval.min(FIRST_COLLECTION);
    loop {
        tokio::select! {
            () = app.shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = interval;
        if let Err(error) = app.collect(&Actor::server(), false).await {
            tracing::warn!(error = %crate::chain(&error), "nothing was collected");
        }
    }
}

/// Bytes of the files in a folder and those below it; what cannot be read counts nothing.
fn folder_size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => folder_size(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

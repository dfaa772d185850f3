//! An engine with a rollout of its own, as any server sees it: behind a socket, in a process that is not the server's and that no
//! death of a server touches. It replaces instances one by one, asks them itself, has listeners of its own and starts again what
//! ends. Written from the protocol in `docs/guides/adding-an-engine.md`, not with the server's own types.

mod images;
mod instances;
mod lines;
mod protocol;
mod tenant;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engines::process::{IsolationMode, Launcher, ProcessEngine, Settings};
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use tenant::Tenant;

/// A running orchestrator; with it go all of its instances.
pub(crate) struct Orchestrator {
    folder: tempfile::TempDir,
    world: Arc<World>,
    listener: Mutex<Option<JoinHandle<()>>>,
    runtime: Option<Runtime>,
}

/// All that it has.
struct World {
    folder: PathBuf,
    engine: ProcessEngine,
    images: Arc<oci::Store>,
    tenants: Mutex<BTreeMap<String, Arc<Tenant>>>,
}

impl Orchestrator {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let images = Arc::new(oci::Store::open(data.join("images")).unwrap());
        let settings = Settings {
            store: Arc::clone(&images),
            root: data.join("engine"),
            launcher: Launcher {
                program: env!("CARGO_BIN_EXE_systemprompt").into(),
                arguments: vec!["launch".into()],
            },
            isolation: IsolationMode::Auto,
            orphan: Duration::ZERO,
            volumes: data.join("volumes"),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let engine = {
            let _inside = runtime.enter();
            ProcessEngine::new(settings).unwrap()
        };
        let orchestrator = Self {
            world: Arc::new(World {
                folder: data,
                engine,
                images,
                tenants: Mutex::default(),
            }),
            folder,
            listener: Mutex::default(),
            runtime: Some(runtime),
        };
        orchestrator.listen();
        orchestrator
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("engine.sock")
    }

    /// Where its instances have their records.
    pub(crate) fn data(&self) -> &Path {
        &self.world.folder
    }

    /// Takes questions again.
    pub(crate) fn listen(&self) {
        let runtime = self.runtime.as_ref().unwrap();
        let _inside = runtime.enter();
        let _ = std::fs::remove_file(self.socket());
        let listener = UnixListener::bind(self.socket()).unwrap();
        let router = protocol::router(&self.world);
        let serving = runtime.spawn(async move { axum::serve(listener, router).await.unwrap() });
        *self.listener.lock().unwrap() = Some(serving);
    }

    /// Takes no questions any more; what it runs runs on.
    pub(crate) fn hang_up(&self) {
        std::fs::remove_file(self.socket()).unwrap();
        if let Some(serving) = self.listener.lock().unwrap().take() {
            serving.abort();
        }
    }

    /// Knows nothing of a tenant any more, as after a loss of its own state.
    pub(crate) fn forget(&self, tenant: &str) {
        let runtime = self.runtime.as_ref().unwrap();
        let known = self.world.tenants.lock().unwrap().get(tenant).cloned();
        if let Some(known) = known {
            runtime.block_on(known.forget());
        }
    }

    /// Whether it knows a tenant.
    pub(crate) fn has(&self, tenant: &str) -> bool {
        self.world.tenants.lock().unwrap().contains_key(tenant)
    }

    /// The deployment whose release a tenant is to run.
    pub(crate) fn deployment(&self, tenant: &str) -> Option<u64> {
        let tenants = self.world.tenants.lock().unwrap();
        tenants.get(tenant)?.deployment()
    }

    /// The turn that it has of a tenant.
    pub(crate) fn turn(&self, tenant: &str) -> Option<u64> {
        let tenants = self.world.tenants.lock().unwrap();
        tenants.get(tenant)?.turn()
    }
}

impl Drop for Orchestrator {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else {
            return;
        };
        let world = Arc::clone(&self.world);
        // Those that are just being started too.
        runtime.block_on(async move {
            let tenants = std::mem::take(&mut *world.tenants.lock().unwrap());
            for tenant in tenants.into_values() {
                tenant.end().await;
            }
            let _ = world.engine.end_all().await;
        });
        runtime.shutdown_timeout(Duration::from_secs(5));
        let mut chmod = std::process::Command::new("chmod");
        // Of the overlays of instances that were killed.
        let _ = chmod.args(["-R", "u+rwX"]).arg(self.folder.path()).output();
    }
}

//! What runs instances, as the settings want it, and how it gets their images.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use engines::docker::DockerEngine;
use engines::external::External;
use engines::process::{IsolationMode, Launcher, ProcessEngine};
use secrecy::SecretString;

use crate::auth::{RegistryAccess, Signer};
use crate::cli::Isolation;
use crate::data_dir::DataDir;
use crate::engine::AnyEngine;
use crate::key::KeySource;
use crate::ports::reachable;
use crate::settings::{self, EngineKind};
use crate::store::Store;

/// What an engine is made for.
pub(crate) struct Wanted<'a> {
    pub(crate) settings: &'a settings::Engine,
    pub(crate) isolation: Isolation,
    pub(crate) data: &'a DataDir,
    pub(crate) images: &'a Arc<oci::Store>,
    pub(crate) store: &'a Store,
    /// Where this server listens.
    pub(crate) address: SocketAddr,
    /// Whether it speaks TLS there.
    pub(crate) has_tls: bool,
}

/// An engine, and who may get images.
pub(crate) struct Runner {
    pub(crate) access: Arc<RegistryAccess>,
    pub(crate) engine: AnyEngine,
}

impl Runner {
    pub(crate) async fn new(wanted: Wanted<'_>) -> anyhow::Result<Self> {
        let key = KeySource::File(wanted.data.registry_key()).read();
        let signer = Signer::new(&key.context("cannot sign registry tokens")?);
        let access = Arc::new(RegistryAccess::new(wanted.store.clone(), signer));
        let engine = match wanted.settings.kind {
            EngineKind::Process => AnyEngine::Instances(Arc::new(process(&wanted)?)),
            EngineKind::Docker => AnyEngine::Instances(Arc::new(docker(&wanted, &access).await?)),
            EngineKind::External => {
                AnyEngine::Releases(Arc::new(external(&wanted, &access).await?))
            }
        };
        for note in engine.notes() {
            tracing::info!(note, engine = engine.name(), "how instances run");
        }
        Ok(Self { access, engine })
    }
}

fn process(wanted: &Wanted<'_>) -> anyhow::Result<ProcessEngine> {
    ProcessEngine::new(engines::process::Settings {
        store: Arc::clone(wanted.images),
        root: wanted.data.engine(),
        launcher: Launcher::this_program([crate::LAUNCH]),
        isolation: match wanted.isolation {
            Isolation::Auto => IsolationMode::Auto,
            Isolation::Off => IsolationMode::Off,
        },
        orphan: wanted.settings.orphan(),
        volumes: wanted.data.volumes(),
    })
    .context("cannot start the engine")
}

async fn docker(wanted: &Wanted<'_>, access: &Arc<RegistryAccess>) -> anyhow::Result<DockerEngine> {
    let docker = &wanted.settings.docker;
    DockerEngine::new(engines::docker::Settings {
        socket: docker.socket.clone(),
        root: wanted.data.engine(),
        network: docker.network(),
        registry: OwnRegistry::of(wanted, docker.registry.as_ref(), access),
    })
    .await
    .context("cannot use the Docker Engine; see `[engine]` in platform.toml")
}

async fn external(wanted: &Wanted<'_>, access: &Arc<RegistryAccess>) -> anyhow::Result<External> {
    let external = &wanted.settings.external;
    External::new(engines::external::Settings {
        socket: external.socket.clone(),
        registry: OwnRegistry::of(wanted, external.registry.as_ref(), access),
    })
    .await
    .context("cannot use the external engine; start it, or see `[engine]` in platform.toml")
}

/// This server's registry, as an engine on this machine reaches it that fetches images by itself.
struct OwnRegistry {
    host: String,
    has_tls: bool,
    access: Arc<RegistryAccess>,
}

impl OwnRegistry {
    /// Where the settings say, else where this server listens.
    fn of(wanted: &Wanted<'_>, host: Option<&String>, access: &Arc<RegistryAccess>) -> Arc<Self> {
        let host = host.cloned();
        Arc::new(Self {
            host: host.unwrap_or_else(|| reachable(wanted.address).to_string()),
            has_tls: wanted.has_tls,
            access: Arc::clone(access),
        })
    }
}

impl engines::Registry for OwnRegistry {
    fn host(&self) -> String {
        self.host.clone()
    }

    fn has_tls(&self) -> bool {
        self.has_tls
    }

    fn token(&self, repository: &oci::Repository) -> SecretString {
        self.access.issue_for_engine(repository.as_str()).token
    }
}

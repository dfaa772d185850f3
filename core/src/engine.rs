//! Either kind of engine: one that runs instances, whose rollouts are the server's, or one that replaces releases by itself.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use engines::{
    Clearing, Engine, EngineError, Instance, InstanceSpec, Orchestrator, Resources, VolumeId,
    VolumeInfo,
};
use oci::Digest;

/// What runs releases. What only the other kind has is empty, or refused by name.
#[derive(Clone)]
pub(crate) enum AnyEngine {
    /// It runs instances.
    Instances(Arc<dyn Engine>),
    /// It runs releases, and outlives the server with all that it runs.
    Releases(Arc<dyn Orchestrator>),
}

impl AnyEngine {
    /// Whoever replaces releases by itself, if that is what it does.
    pub(crate) fn orchestrator(&self) -> Option<&Arc<dyn Orchestrator>> {
        match self {
            Self::Instances(_) => None,
            Self::Releases(orchestrator) => Some(orchestrator),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Instances(engine) => engine.name(),
            Self::Releases(orchestrator) => orchestrator.name(),
        }
    }

    pub(crate) fn notes(&self) -> &[String] {
        match self {
            Self::Instances(engine) => engine.notes(),
            Self::Releases(orchestrator) => orchestrator.notes(),
        }
    }

    pub(crate) fn lacks(&self, resources: &Resources) -> Option<String> {
        match self {
            Self::Instances(engine) => engine.lacks(resources),
            Self::Releases(orchestrator) => orchestrator.lacks(resources),
        }
    }

    pub(crate) fn lacks_volumes(&self) -> Option<String> {
        match self {
            Self::Instances(engine) => engine.lacks_volumes(),
            Self::Releases(_) => Some("its engine replaces releases by itself".to_owned()),
        }
    }

    /// See [`Engine::host`].
    pub(crate) fn host(&self) -> IpAddr {
        match self {
            Self::Instances(engine) => engine.host(),
            Self::Releases(_) => Ipv4Addr::LOCALHOST.into(),
        }
    }

    pub(crate) async fn start(&self, spec: InstanceSpec) -> Result<Instance, EngineError> {
        match self {
            Self::Instances(engine) => engine.start(spec).await,
            Self::Releases(_) => Err(EngineError::NoInstances { id: spec.id }),
        }
    }

    pub(crate) async fn adopt(&self) -> Result<Vec<Instance>, EngineError> {
        match self {
            Self::Instances(engine) => engine.adopt().await,
            Self::Releases(_) => Ok(Vec::new()),
        }
    }

    pub(crate) async fn sweep(&self) -> Result<(), EngineError> {
        match self {
            Self::Instances(engine) => engine.sweep().await,
            Self::Releases(_) => Ok(()),
        }
    }

    pub(crate) async fn end_all(&self) -> Result<(), EngineError> {
        match self {
            Self::Instances(engine) => engine.end_all().await,
            Self::Releases(_) => Ok(()),
        }
    }

    pub(crate) async fn volumes(&self, owner: String) -> Result<Vec<VolumeInfo>, EngineError> {
        match self {
            Self::Instances(engine) => engine.volumes(owner).await,
            Self::Releases(_) => Ok(Vec::new()),
        }
    }

    pub(crate) async fn remove_volume(
        &self,
        volume: VolumeId,
    ) -> Result<Option<Clearing>, EngineError> {
        match self {
            Self::Instances(engine) => engine.remove_volume(volume).await,
            Self::Releases(_) => Ok(None),
        }
    }

    pub(crate) async fn retain(&self, images: Vec<Digest>) -> Result<u64, EngineError> {
        match self {
            Self::Instances(engine) => engine.retain(images).await,
            Self::Releases(_) => Ok(0),
        }
    }
}

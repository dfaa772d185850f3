//! The engine: a connection to a Docker Engine, and the containers there that are this server's.

use std::collections::HashMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{
    ContainerSummary, ContainerSummaryStateEnum, IpamConfig, NetworkCreateRequest, SystemInfo,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
    ListNetworksOptionsBuilder, StartContainerOptions,
};
use oci::Digest;
use tokio::sync::watch;

use super::container::{self, HOST, Labels, SERVER};
use super::errors::{failed, is_conflict, is_refusal, reason};
use super::images;
use super::instance::{Monitor, Seen, Tended, remove};
use super::logs::Log;
use super::record::Records;
use super::subnet::Subnet;
use super::volumes::Volumes;
use crate::engine::{BoxFuture, Engine, InstanceSpec, run_to_its_end};
use crate::error::EngineError;
use crate::folder;
use crate::instance::{Instance, Life};
use crate::registry::Registry;
use crate::resources::Resources;
use crate::seats::{Seat, Seats};
use crate::volumes::{Clearing, Hold, Holders, VolumeId, VolumeInfo};

/// For one request, in seconds. A machine that swaps takes long to start a container.
const REQUEST_SECONDS: u64 = 120;

/// What an engine is made of.
#[derive(Clone)]
pub struct Settings {
    /// The socket of the Docker Engine.
    pub socket: PathBuf,
    /// What the engine writes down. Created when absent; one engine at a time may work in it.
    pub root: PathBuf,
    /// Where instances are reached.
    pub network: Network,
    /// Where images come from.
    pub registry: Arc<dyn Registry>,
}

/// The network of instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// The machine's own: instances listen on loopback, each on a port of its own.
    Host,
    /// A network of Docker's, in which each instance has an address of its own. It is made when it is not there.
    Named(String),
}

/// Runs images as containers. A handle: clones are the same engine.
#[derive(Clone)]
pub struct DockerEngine {
    inner: Arc<Inner>,
}

struct Inner {
    docker: Docker,
    server: String,
    root: PathBuf,
    network: Network,
    /// The machine, as instances see it.
    host: IpAddr,
    registry: Arc<dyn Registry>,
    records: Records,
    info: SystemInfo,
    notes: Vec<String>,
    seats: Seats,
    holders: Holders,
    /// Held for as long as the engine lives.
    _lock: File,
}

impl DockerEngine {
    /// Connects to the Docker Engine, takes the directory and makes the network.
    pub async fn new(settings: Settings) -> Result<Self, EngineError> {
        let Settings {
            socket,
            root,
            network,
            registry,
        } = settings;
        let (root, lock) = folder::take(&root)?;
        let records = Records::open(&root)?;
        let server = records.server()?;
        let path = socket.to_string_lossy();
        let docker =
            Docker::connect_with_unix(&path, REQUEST_SECONDS, bollard::API_DEFAULT_VERSION);
        let docker = docker.map_err(failed("connect"))?;
        let docker = docker.negotiate_version().await;
        let docker = docker.map_err(failed("connect"))?;
        let info = docker.info().await.map_err(failed("ask what it can do"))?;
        let joined = join(&docker, &network).await?;
        let host = host(&docker, &network, &joined).await?;
        let inner = Inner {
            host,
            docker,
            server,
            root,
            notes: notes(&info, &network),
            network,
            registry,
            records,
            info,
            seats: Seats::default(),
            holders: Holders::default(),
            _lock: lock,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    async fn bring_up(&self, spec: InstanceSpec) -> Result<Instance, EngineError> {
        let inner = &self.inner;
        let lacking = inner.lacks(&spec.resources);
        if !lacking.is_empty() {
            let lacking = lacking.join("; ");
            if !spec.resources.best_effort {
                return Err(EngineError::Resources { lacking });
            }
            tracing::warn!(id = spec.id, lacking, "an instance runs without bounds");
        }
        spec.check_environment()?;
        let seat = inner.seats.take(&spec.id)?;
        let volumes = inner.holders.take(spec.volume_ids(), &spec.id)?;
        self.free(&spec).await?;
        let image = images::ensure(
            &inner.docker,
            &*inner.registry,
            &spec.repository,
            spec.image,
        )
        .await?;
        inner.volumes().check_image(&image, &spec.volumes).await?;
        let id = inner.create(&spec, &image).await?;
        let started = inner
            .docker
            .start_container(&id, None::<StartContainerOptions>);
        if let Err(error) = started.await {
            inner.take_away(&id).await;
            return Err(explain(&spec, &error));
        }
        let labels = Labels {
            volumes: volumes.volumes.clone(),
            instance: spec.id,
            port: spec.port,
            log: spec.log,
        };
        let attached = self.attach(&id, labels, (seat, volumes)).await;
        if attached.is_err() {
            inner.take_away(&id).await;
        }
        attached
    }

    /// Sees to it that no container has the volumes of an instance that is to be started: one that was given up may run still.
    async fn free(&self, spec: &InstanceSpec) -> Result<(), EngineError> {
        let inner = &self.inner;
        let volumes = inner.volumes();
        for volume in spec.volume_ids() {
            for container in volumes.users(&volume).await? {
                let of = Labels::read(&container, &inner.root).map(|labels| labels.instance);
                let is_nobodys = of.as_ref().is_some_and(|of| !inner.seats.is_taken(of));
                if let Some(id) = container.id.as_ref().filter(|_| is_nobodys) {
                    let removed = remove(&inner.docker, id).await;
                    removed.map_err(failed("remove a container that nobody knows"))?;
                }
            }
            if let Some(user) = volumes.users(&volume).await?.into_iter().next() {
                let holder = Labels::read(&user, &inner.root).map(|labels| labels.instance);
                let holder = holder.or(user.id).unwrap_or_default();
                return Err(EngineError::VolumeInUse { volume, holder });
            }
        }
        Ok(())
    }

    /// The handle to a container, and the task that stays with it.
    async fn attach(
        &self,
        container: &str,
        labels: Labels,
        (seat, volumes): (Seat, Hold),
    ) -> Result<Instance, EngineError> {
        let inner = &self.inner;
        let options = None::<InspectContainerOptions>;
        let found = inner.docker.inspect_container(container, options).await;
        let found = found.map_err(failed("look at a container"))?;
        let seen = Seen::of(&found, labels.port);
        let (changed, life) = watch::channel(Life::Running);
        let (unwanted, is_unwanted) = watch::channel(false);
        let monitor = Monitor {
            docker: inner.docker.clone(),
            id: container.to_owned(),
            instance: labels.instance.clone(),
            records: inner.records.clone(),
            log: Log::open(&labels.instance, &labels.log, inner.records.clone()),
            life: changed,
            unwanted: is_unwanted,
            seat,
            volumes,
        };
        tokio::spawn(monitor.watch());
        Ok(Instance::of(Tended {
            docker: inner.docker.clone(),
            container: container.to_owned(),
            id: labels.instance,
            address: seen.address,
            pid: seen.pid,
            stop_signal: seen.stop_signal,
            own_network: seen.own_network,
            log: labels.log,
            life,
            unwanted,
        }))
    }

    async fn take_over(&self) -> Result<Vec<Instance>, EngineError> {
        let mut adopted = Vec::new();
        for container in self.inner.containers().await? {
            // One that was never started says nothing, and is swept away.
            if container.state == Some(ContainerSummaryStateEnum::CREATED) {
                continue;
            }
            let Some(labels) = Labels::read(&container, &self.inner.root) else {
                continue;
            };
            let (Some(id), Ok(seat), Ok(volumes)) = (
                &container.id,
                self.inner.seats.take(&labels.instance),
                self.inner
                    .holders
                    .take(labels.volumes.clone(), &labels.instance),
            ) else {
                continue;
            };
            let ended = container.state != Some(ContainerSummaryStateEnum::RUNNING)
                && container.state != Some(ContainerSummaryStateEnum::PAUSED);
            let name = labels.instance.clone();
            match self.attach(id, labels, (seat, volumes)).await {
                Ok(instance) => {
                    if ended {
                        // Docker knows how it ended and what it said; there is nothing to wait for but that.
                        instance.wait().await;
                    }
                    adopted.push(instance);
                }
                Err(error) => tracing::warn!(id = name, %error, "an instance is not taken over"),
            }
        }
        Ok(adopted)
    }

    /// Removes those containers of this server that are nobody's. Returns why one of them did not go.
    async fn remove_unless(
        &self,
        spared: impl Fn(&str) -> bool,
    ) -> Result<Option<Error>, EngineError> {
        let inner = &self.inner;
        let mut failure = None;
        for container in inner.containers().await? {
            let labels = Labels::read(&container, &inner.root);
            if labels.is_some_and(|labels| spared(&labels.instance)) {
                continue;
            }
            // One that does not go keeps no other.
            if let Some(id) = &container.id
                && let Err(error) = remove(&inner.docker, id).await
            {
                tracing::warn!(id, error = reason(&error), "a container is not removed");
                failure.get_or_insert(error);
            }
        }
        Ok(failure)
    }
}

impl Engine for DockerEngine {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn notes(&self) -> &[String] {
        &self.inner.notes
    }

    fn lacks(&self, resources: &Resources) -> Option<String> {
        let lacking = self.inner.lacks(resources);
        (!lacking.is_empty()).then(|| lacking.join("; "))
    }

    fn host(&self) -> IpAddr {
        self.inner.host
    }

    fn start(&self, spec: InstanceSpec) -> BoxFuture<'_, Result<Instance, EngineError>> {
        let engine = self.clone();
        Box::pin(run_to_its_end(async move { engine.bring_up(spec).await }))
    }

    fn adopt(&self) -> BoxFuture<'_, Result<Vec<Instance>, EngineError>> {
        Box::pin(self.take_over())
    }

    fn sweep(&self) -> BoxFuture<'_, Result<(), EngineError>> {
        Box::pin(async {
            // What does not go now has been told of, and is tried again; it keeps no server from starting.
            self.remove_unless(|id| self.inner.seats.is_taken(id))
                .await
                .map(drop)
        })
    }

    fn end_all(&self) -> BoxFuture<'_, Result<(), EngineError>> {
        Box::pin(async {
            match self.remove_unless(|_| false).await? {
                None => Ok(()),
                Some(error) => Err(failed("remove a container")(error)),
            }
        })
    }

    fn volumes(&self, owner: String) -> BoxFuture<'_, Result<Vec<VolumeInfo>, EngineError>> {
        Box::pin(async move {
            let mut listed = self.inner.volumes().list(&owner).await?;
            for volume in &mut listed {
                volume.in_use_by = self.inner.holders.holder(&VolumeId {
                    owner: owner.clone(),
                    name: volume.name.clone(),
                });
            }
            Ok(listed)
        })
    }

    fn remove_volume(
        &self,
        volume: VolumeId,
    ) -> BoxFuture<'_, Result<Option<Clearing>, EngineError>> {
        Box::pin(async move {
            let hold = self.inner.holders.take([volume.clone()], "its removal")?;
            let volumes = self.inner.volumes();
            if !volumes.has(&volume).await? {
                return Ok(None);
            }
            // Docker calls nothing by another name: until it has gone, whoever wants it is told that it is in use.
            let inner = Arc::clone(&self.inner);
            let clearing = tokio::spawn(async move {
                let removed = inner.volumes().remove(&volume).await;
                drop(hold);
                removed
            });
            Ok(Some(Clearing::of(async {
                clearing.await.map_err(|_| EngineError::ShuttingDown)?
            })))
        })
    }

    fn retain(&self, images: Vec<Digest>) -> BoxFuture<'_, Result<u64, EngineError>> {
        Box::pin(async move {
            // What was given up while Docker did not answer may be there after all.
            self.sweep().await?;
            let inner = &self.inner;
            images::retain(&inner.docker, &*inner.registry, &images).await
        })
    }
}

impl Inner {
    async fn create(&self, spec: &InstanceSpec, image: &str) -> Result<String, EngineError> {
        let labels = Labels::write(spec, &self.server, &self.root);
        let enforced = self.enforced(&spec.resources);
        // Somebody may have removed it while nothing was in it.
        let network = join(&self.docker, &self.network).await?;
        let mounts = self.volumes().ensure(&spec.volumes).await?;
        let body = container::body(spec, image, labels, mounts, &network, &enforced);
        let options = CreateContainerOptionsBuilder::default()
            .name(&container::name(&self.server, &spec.id))
            .build();
        match self.docker.create_container(Some(options), body).await {
            Ok(created) => Ok(created.id),
            Err(error) if is_conflict(&error) => Err(EngineError::DuplicateId {
                id: spec.id.clone(),
            }),
            Err(error) => Err(explain(spec, &error)),
        }
    }

    fn volumes(&self) -> Volumes<'_> {
        Volumes {
            docker: &self.docker,
            server: &self.server,
        }
    }

    /// All containers of this server, running or not.
    async fn containers(&self) -> Result<Vec<ContainerSummary>, EngineError> {
        let of_server = vec![format!("{SERVER}={}", self.server)];
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&HashMap::from([("label", of_server)]))
            .build();
        let listed = self.docker.list_containers(Some(options)).await;
        listed.map_err(failed("list containers"))
    }

    /// For one whose start has failed. What stays is removed by the next sweep.
    async fn take_away(&self, id: &str) {
        if let Err(error) = remove(&self.docker, id).await {
            tracing::warn!(id, error = reason(&error), "a container is not removed");
        }
    }

    fn lacks(&self, resources: &Resources) -> Vec<String> {
        let enforced = self.enforced(resources);
        let bounds = [
            (
                "memory",
                resources.memory.is_some() != enforced.memory.is_some(),
            ),
            (
                "cpu",
                resources.cpu_millis.is_some() != enforced.cpu_millis.is_some(),
            ),
            ("pids", resources.pids.is_some() != enforced.pids.is_some()),
        ];
        let lacking = bounds.into_iter().filter(|(_, lacks)| *lacks);
        lacking
            .map(|(name, _)| format!("{name}: Docker says that the kernel does not have it"))
            .collect()
    }

    /// Those bounds that Docker can enforce here.
    fn enforced(&self, resources: &Resources) -> Resources {
        let can = |flag: Option<bool>| flag.unwrap_or_default();
        let info = &self.info;
        // Docker refuses more than there is, which would bound nothing.
        let all = info.ncpu.and_then(|cpus| u32::try_from(cpus).ok());
        let all = all.map_or(u32::MAX, |cpus| cpus.saturating_mul(1000));
        let bounded = resources.cpu_millis.filter(|_| can(info.cpu_cfs_quota));
        Resources {
            memory: resources.memory.filter(|_| can(info.memory_limit)),
            cpu_millis: bounded.map(|cpu| cpu.min(all)),
            pids: resources.pids.filter(|_| can(info.pids_limit)),
            ..resources.clone()
        }
    }
}

/// What people should know about instances here.
fn notes(info: &SystemInfo, network: &Network) -> Vec<String> {
    let version = info.server_version.as_deref().unwrap_or("unknown");
    let place = match network {
        Network::Host => "the machine's network".to_owned(),
        Network::Named(name) => format!("network `{name}`"),
    };
    let mut notes = vec![format!(
        "instances are containers of Docker Engine {version}, in {place}"
    )];
    if info.live_restore_enabled != Some(true) {
        notes.push(
            "a restart of the Docker Engine ends instances: `\"live-restore\": true` in its daemon.json keeps them".to_owned(),
        );
    }
    notes
}

/// What containers are told to join: a network by its id, for Docker does not mind two of one name.
async fn join(docker: &Docker, network: &Network) -> Result<String, EngineError> {
    let Network::Named(name) = network else {
        return Ok(HOST.to_owned());
    };
    if let Some(id) = oldest(docker, name).await? {
        return Ok(id);
    }
    let wanted = NetworkCreateRequest {
        name: name.clone(),
        driver: Some("bridge".to_owned()),
        ..NetworkCreateRequest::default()
    };
    let made = match docker.create_network(wanted).await {
        Ok(made) => made,
        // Newer ones refuse a second one of the name.
        Err(error) => {
            let there = oldest(docker, name).await?;
            return there.ok_or_else(|| failed("make the network of instances")(error));
        }
    };
    // Another server may have made one at the same time.
    Ok(oldest(docker, name).await?.unwrap_or(made.id))
}

/// The network of this name that was there first. Others of its name go: Docker starts no container by a name that two have.
async fn oldest(docker: &Docker, name: &str) -> Result<Option<String>, EngineError> {
    // Docker finds parts of names, too.
    let filters = HashMap::from([("name", vec![name])]);
    let options = ListNetworksOptionsBuilder::default()
        .filters(&filters)
        .build();
    let found = docker.list_networks(Some(options)).await;
    let found = found.map_err(failed("look for the network of instances"))?;
    let mut named: Vec<_> = found
        .into_iter()
        .filter(|network| network.name.as_deref() == Some(name))
        .collect();
    named.sort_by_key(|network| (network.created.clone(), network.id.clone()));
    let mut ids = named.into_iter().filter_map(|network| network.id);
    let first = ids.next();
    for id in ids {
        if let Err(error) = docker.remove_network(&id).await {
            let why = reason(&error);
            tracing::warn!(name, error = why, "a second network is not removed");
        }
    }
    Ok(first)
}

/// The machine's address in the network of instances: the gateway of that. Docker knows of none where somebody has made the
/// network with nothing but a subnet; there it is the address by which this machine is in it.
async fn host(docker: &Docker, network: &Network, joined: &str) -> Result<IpAddr, EngineError> {
    let loopback = Ipv4Addr::LOCALHOST.into();
    let Network::Named(name) = network else {
        return Ok(loopback);
    };
    let found = docker.inspect_network(joined, None).await;
    let found = found.map_err(failed("look at the network of instances"))?;
    let ranges = found.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
    // Written with the length of its prefix by some versions.
    let gateway = |range: &IpamConfig| range.gateway.as_ref()?.split('/').next()?.parse().ok();
    let own = |range: &IpamConfig| Subnet::parse(range.subnet.as_ref()?)?.own_address();
    let known = ranges.iter().find_map(gateway);
    if let Some(address) = known.or_else(|| ranges.iter().find_map(own)) {
        return Ok(address);
    }
    tracing::warn!(
        network = name,
        "this machine has no address in the network of instances: services do not reach each other; make it with `docker \
         network create --gateway`"
    );
    Ok(loopback)
}

/// Docker tells in words why a container cannot be made or started.
fn explain(spec: &InstanceSpec, error: &Error) -> EngineError {
    let said = reason(error);
    if !is_refusal(error) && !matches!(error, Error::DockerResponseServerError { .. }) {
        return failed("start a container")(Error::DockerStreamError { error: said });
    }
    let image = spec.image;
    if said.contains("No command specified") || said.contains("no command specified") {
        return EngineError::NoCommand { image };
    }
    if let Some(user) = between(&said, "unable to find user ", ":") {
        return EngineError::UserNotFound { user };
    }
    if let Some(path) = between(&said, "Cannot mkdir: ", " is not a directory") {
        let (what, path) = ("WORKDIR", path.into());
        return EngineError::NotADirectory { what, path };
    }
    EngineError::launch(&spec.id, "start its container", said)
}

fn between(text: &str, before: &str, after: &str) -> Option<String> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.split_once(after)?.0.to_owned())
}

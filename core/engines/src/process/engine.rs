//! The engine: one directory, its images and its instances.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use oci::{Digest, Store};
use tokio::task::{JoinSet, spawn_blocking};

use super::adopt::{self, Greeted};
use super::cgroup::{Cgroups, Groups, Hold};
use super::ending;
use super::image::{Images, PreparedImage};
use super::instance::{self, Found};
use super::isolation::{self, Isolation, IsolationMode, Level};
use super::launch::GUARD;
use super::launch::protocol::{Launch, Supervision, Volume};
use super::owner;
use super::place::Place;
use super::plan;
use super::record::InstanceRecord;
use super::unpack::{Limits, Rules};
use super::volumes::{self, Volumes};
use crate::engine::{BoxFuture, Engine, InstanceSpec, run_to_its_end};
use crate::error::EngineError;
use crate::folder;
use crate::instance::Instance;
use crate::resources::Resources;
use crate::seats::{Seats, is_valid};
use crate::volumes::{Clearing, Holders, VolumeId, VolumeInfo};

/// What an engine is made of.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where images come from.
    pub store: Arc<Store>,
    /// Unpacked images and the directories of instances. Created when absent; one engine at a
    /// time may work in it.
    pub root: PathBuf,
    /// The program that calls [`launch_main`](super::launch_main).
    pub launcher: Launcher,
    /// Whether to use namespaces.
    pub isolation: IsolationMode,
    /// How long instances go on without a server, for the next one to take them over. Zero ends
    /// them with their server.
    pub orphan: Duration,
    /// The volumes of instances, which outlive them. Created when absent.
    pub volumes: PathBuf,
}

/// A program and the arguments that make it call [`launch_main`](super::launch_main).
#[derive(Debug, Clone)]
pub struct Launcher {
    /// The program's file.
    pub program: PathBuf,
    /// Its leading arguments: the name of the hidden subcommand.
    pub arguments: Vec<OsString>,
}

impl Launcher {
    /// The running program itself, also when its file has been replaced since it was started.
    #[must_use]
    pub fn this_program<A: Into<OsString>>(arguments: impl IntoIterator<Item = A>) -> Self {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Self {
            program: PathBuf::from("/proc/self/exe"),
            arguments,
        }
    }

    pub(crate) fn guard_arguments(&self) -> Vec<OsString> {
        let mut arguments = self.arguments.clone();
        arguments.push(GUARD.into());
        arguments
    }
}

/// Runs images as processes. A handle: clones are the same engine.
#[derive(Clone)]
pub struct ProcessEngine {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    launcher: Launcher,
    isolation: Isolation,
    orphan: Duration,
    cgroups: Arc<Cgroups>,
    images: Arc<Images>,
    volumes: Arc<Volumes>,
    holders: Holders,
    seats: Seats,
    /// Held for as long as the engine lives.
    _lock: File,
}

impl ProcessEngine {
    /// Takes the directory and finds out what the machine allows. Blocks for a few hundredths of
    /// a second.
    pub fn new(settings: Settings) -> Result<Self, EngineError> {
        Self::with_limits(settings, Limits::default())
    }

    /// Like [`ProcessEngine::new`], with bounds of one's own on what an image may hold.
    pub fn with_limits(settings: Settings, limits: Limits) -> Result<Self, EngineError> {
        let Settings {
            store,
            root,
            launcher,
            isolation,
            orphan,
            volumes,
        } = settings;
        let (root, lock) = folder::take(&root)?;
        for name in ["images", "layers", "instances", "tmp"] {
            let path = root.join(name);
            fs::create_dir_all(&path).map_err(EngineError::files("create", &path))?;
        }
        let isolation = isolation::find(isolation, &launcher, &root, &isolation::scratch(&root))?;
        close(&root, &isolation)?;
        let cgroups = Arc::new(Cgroups::find(&root));
        let rules = Rules {
            limits,
            keep_owners: owner::are_kept() && isolation.level != Level::UserNamespaces,
        };
        let volumes = Arc::new(Volumes::open(&volumes, rules.keep_owners)?);
        volumes.clear_left()?;
        let images = Images::new(
            store,
            root.join("images"),
            root.join("layers"),
            root.join("tmp"),
            rules,
        );
        let images = Arc::new(images);
        let inner = Inner {
            root,
            launcher,
            isolation,
            orphan,
            cgroups,
            images,
            volumes,
            holders: Holders::default(),
            seats: Seats::default(),
            _lock: lock,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// What instances are isolated by, and what people should know about it.
    #[must_use]
    pub fn isolation(&self) -> &Isolation {
        &self.inner.isolation
    }

    /// Unpacks an image unless it has been. Concurrent calls do the work once.
    pub async fn prepare(&self, image: &Digest) -> Result<PreparedImage, EngineError> {
        self.inner.images.prepare(*image).await
    }

    /// See [`Engine::start`].
    pub async fn start(&self, spec: InstanceSpec) -> Result<Instance, EngineError> {
        let engine = self.clone();
        run_to_its_end(async move { engine.bring_up(spec).await }).await
    }

    /// Removes unpacked images that are neither in `images` nor in use; returns the bytes freed.
    pub async fn retain(&self, images: &[Digest]) -> Result<u64, EngineError> {
        self.inner.images.retain(images).await
    }

    /// Takes over the instances that an earlier server has left running, and those that have ended
    /// since. For the start of a server, before [`ProcessEngine::sweep`], which ends those that are
    /// not among them.
    pub async fn adopt(&self) -> Result<Vec<Instance>, EngineError> {
        let mut asked = JoinSet::new();
        for directory in ending::children(&self.inner.root.join("instances"))? {
            let engine = self.clone();
            asked.spawn(async move { engine.adopt_from(&directory).await });
        }
        Ok(asked.join_all().await.into_iter().flatten().collect())
    }

    async fn adopt_from(&self, directory: &Path) -> Option<Instance> {
        let mut record = InstanceRecord::read(directory).filter(InstanceRecord::is_adoptable)?;
        let id = directory.file_name()?.to_str()?.to_owned();
        let seat = self.inner.seats.take(&id).ok()?;
        let place = Place::new(&self.inner.root, &id);
        let held = self.inner.images.hold(record.image);
        let volumes = self.inner.holders.take(record.volumes.clone(), &id).ok()?;
        let greeted = adopt::greet(directory, &record).await;
        let greeted = greeted
            .inspect_err(|error| tracing::warn!(id, %error, "an instance is not taken over"));
        let Greeted { guard, pid, ended } = greeted.ok()?;
        let pid = record.started(pid);
        if let Err(error) = record.write(directory) {
            // what it said before is enough to find the guard by
            tracing::warn!(id, %error, "an instance's record is not renewed");
        }
        let found = Found {
            id,
            place,
            record,
            guard,
            seat,
            held,
            volumes,
        };
        let instance = found.attach(pid);
        if ended {
            // the guard has nothing else to do
            instance.wait().await;
        }
        Some(instance)
    }

    /// Ends and removes what an earlier server has left. For the start of a server; the instances
    /// of this engine are not touched.
    pub async fn sweep(&self) -> Result<(), EngineError> {
        self.end_unless(|inner, id| inner.seats.is_taken(id)).await
    }

    /// Ends every instance at once, without asking it first. For a server that may not wait and leaves nothing to another
    /// one.
    pub async fn end_all(&self) -> Result<(), EngineError> {
        self.end_unless(|_, _| false).await
    }

    async fn end_unless(&self, spared: fn(&Inner, &str) -> bool) -> Result<(), EngineError> {
        let inner = Arc::clone(&self.inner);
        spawn_blocking(move || inner.end_unless(spared))
            .await
            .map_err(|_| EngineError::ShuttingDown)?
    }

    async fn bring_up(&self, spec: InstanceSpec) -> Result<Instance, EngineError> {
        if let Some(lacking) = self.lacks(&spec.resources) {
            if !spec.resources.best_effort {
                return Err(EngineError::Resources { lacking });
            }
            tracing::warn!(id = spec.id, lacking, "an instance runs without bounds");
        }
        if !spec.volumes.is_empty()
            && let Some(why) = self.lacks_volumes()
        {
            return Err(EngineError::NoVolumes { why });
        }
        let seat = self.inner.seats.take(&spec.id)?;
        let volumes = self.inner.holders.take(spec.volume_ids(), &spec.id)?;
        let place = Place::new(&self.inner.root, &spec.id);
        let held = self.inner.images.hold(spec.image);
        let image = self.inner.images.prepare(spec.image).await?;
        let isolation = self
            .inner
            .isolation
            .of(&spec.resources, !spec.volumes.is_empty());
        let stop_signal = super::signal::stop_signal(image.config.stop_signal.as_deref());
        let supervision = Supervision {
            log: place.log(&spec.log),
            directory: place.relative(&place.directory),
            orphan_ms: u64::try_from(self.inner.orphan.as_millis()).unwrap_or(u64::MAX),
            stop_signal: stop_signal as i32,
            groups: Groups::default(),
            memory: spec.resources.memory,
        };
        let (planned_place, planned_spec) = (place.clone(), spec.clone());
        let cgroups = Arc::clone(&self.inner.cgroups);
        let folders = Arc::clone(&self.inner.volumes);
        let work = spawn_blocking(move || {
            let (place, spec) = (planned_place, planned_spec);
            place.create(&image, isolation.root)?;
            let mounted = spec.volumes.iter().map(|mounted| {
                let source = folders.prepare(mounted, &image)?;
                let path = mounted.path.clone();
                Ok(Volume { source, path })
            });
            let mounted = mounted.collect::<Result<_, EngineError>>()?;
            let launch = plan::launch(&spec, &image, &place, &isolation, mounted)?;
            let hold = if isolation.has_namespaces() {
                Hold::Bounded
            } else {
                Hold::Always
            };
            let groups = cgroups.create(&spec.id, &spec.resources, hold);
            let groups = groups
                .map_err(|error| EngineError::launch(&spec.id, "make its control groups", error))?;
            let supervision = Some(Supervision {
                groups: groups.clone(),
                ..supervision
            });
            let launch = Launch {
                supervision,
                ..launch
            };
            Ok((launch, groups))
        });
        let made = work.await.map_err(|_| EngineError::ShuttingDown)?;
        let (launch, groups) = match made {
            Ok((launch, groups)) => (Ok(launch), groups),
            Err(error) => (Err(error), Groups::default()),
        };
        let birth = instance::Birth {
            spec,
            place,
            stop_signal,
            groups,
            seat,
            held,
            volumes,
        };
        match launch {
            Ok(launch) => birth.launch(&self.inner.launcher, launch).await,
            Err(error) => {
                birth.abandon().await;
                Err(error)
            }
        }
    }

    /// What of `resources` this machine cannot enforce, and why, if there is anything.
    #[must_use]
    pub fn lacks(&self, resources: &Resources) -> Option<String> {
        let mut lacking = self.inner.cgroups.lacks(resources);
        if resources.read_only && !self.inner.isolation.has_namespaces() {
            lacking.push("read-only root: there are no namespaces here".to_owned());
        }
        (!lacking.is_empty()).then(|| lacking.join("; "))
    }
}

impl ProcessEngine {
    async fn list_volumes(&self, owner: String) -> Result<Vec<VolumeInfo>, EngineError> {
        // it becomes part of a path
        if !is_valid(&owner) {
            return Ok(Vec::new());
        }
        let (inner, of) = (Arc::clone(&self.inner), owner.clone());
        let listed = spawn_blocking(move || inner.volumes.list(&of)).await;
        let mut listed = listed.map_err(|_| EngineError::ShuttingDown)??;
        for volume in &mut listed {
            volume.in_use_by = self.inner.holders.holder(&VolumeId {
                owner: owner.clone(),
                name: volume.name.clone(),
            });
        }
        Ok(listed)
    }

    async fn forget_volume(&self, volume: VolumeId) -> Result<Option<Clearing>, EngineError> {
        let hold = self.inner.holders.take([volume.clone()], "its removal")?;
        let inner = Arc::clone(&self.inner);
        let put_aside = spawn_blocking(move || {
            let gone = inner.volumes.put_aside(&volume);
            // to its end, whoever waits for it
            drop(hold);
            gone
        });
        let gone = put_aside.await.map_err(|_| EngineError::ShuttingDown)??;
        Ok(gone.map(|gone| {
            let clearing = spawn_blocking(move || volumes::clear(&gone));
            Clearing::of(async { clearing.await.map_err(|_| EngineError::ShuttingDown)? })
        }))
    }
}

impl Engine for ProcessEngine {
    fn name(&self) -> &'static str {
        "process"
    }

    fn notes(&self) -> &[String] {
        &self.isolation().notes
    }

    fn lacks(&self, resources: &Resources) -> Option<String> {
        self.lacks(resources)
    }

    fn start(&self, spec: InstanceSpec) -> BoxFuture<'_, Result<Instance, EngineError>> {
        Box::pin(self.start(spec))
    }

    fn adopt(&self) -> BoxFuture<'_, Result<Vec<Instance>, EngineError>> {
        Box::pin(self.adopt())
    }

    fn sweep(&self) -> BoxFuture<'_, Result<(), EngineError>> {
        Box::pin(self.sweep())
    }

    fn end_all(&self) -> BoxFuture<'_, Result<(), EngineError>> {
        Box::pin(self.end_all())
    }

    fn lacks_volumes(&self) -> Option<String> {
        let isolation = self.isolation();
        if isolation.has_namespaces() {
            return None;
        }
        let why = isolation.notes.first().cloned();
        Some(why.unwrap_or_else(|| "there are no mount namespaces".to_owned()))
    }

    fn volumes(&self, owner: String) -> BoxFuture<'_, Result<Vec<VolumeInfo>, EngineError>> {
        Box::pin(self.list_volumes(owner))
    }

    fn remove_volume(
        &self,
        volume: VolumeId,
    ) -> BoxFuture<'_, Result<Option<Clearing>, EngineError>> {
        Box::pin(self.forget_volume(volume))
    }

    fn retain(&self, images: Vec<Digest>) -> BoxFuture<'_, Result<u64, EngineError>> {
        Box::pin(async move { self.retain(&images).await })
    }
}

impl Inner {
    /// Mounts need no care: they lived in the namespaces of the processes that are ended here.
    fn end_unless(&self, spared: fn(&Self, &str) -> bool) -> Result<(), EngineError> {
        let mut directories = ending::children(&self.root.join("instances"))?;
        directories.retain(|directory| !spared(self, &ending::name(directory)));
        let ended = ending::end_all(&directories);
        self.cgroups.sweep(|id| spared(self, id));
        ended.and(self.images.clear_scratch())
    }
}

/// Instances may make set-uid files, which must be out of reach of the machine's other users. What
/// runs without namespaces has to pass through here, so then it is closed to the eye only.
fn close(root: &Path, isolation: &Isolation) -> Result<(), EngineError> {
    let mode = if isolation.has_namespaces() {
        0o700
    } else {
        0o711
    };
    fs::set_permissions(root, Permissions::from_mode(mode))
        .map_err(EngineError::files("close", root))
}

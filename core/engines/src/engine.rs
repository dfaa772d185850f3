//! What every engine does.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use oci::{Digest, Repository};
use tokio::sync::oneshot;

use crate::error::EngineError;
use crate::instance::Instance;
use crate::resources::Resources;
use crate::volumes::{Clearing, Mounted, VolumeId, VolumeInfo};

/// A future that can be kept behind a `dyn` trait.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Runs images. Whatever is asked twice is done once: every method may be called again after a failure.
///
/// How to write another one: `docs/guides/adding-an-engine.md`. What it has to do is held by the conformance suite,
/// `core/tests/server/conformance/`.
pub trait Engine: Send + Sync + 'static {
    /// One word, as people choose it in the settings.
    fn name(&self) -> &'static str;

    /// What people should know about this engine on this machine, a sentence each.
    fn notes(&self) -> &[String];

    /// What of `resources` this engine cannot enforce, and why, if there is anything.
    fn lacks(&self, resources: &Resources) -> Option<String>;

    /// The address by which instances reach what listens on this machine for them.
    fn host(&self) -> IpAddr {
        Ipv4Addr::LOCALHOST.into()
    }

    /// Starts an instance; fetches its image when that has not been done. Returns when the program has been executed, which
    /// says nothing about whether it serves yet. A caller who gives up waiting leaves nothing running.
    fn start(&self, spec: InstanceSpec) -> BoxFuture<'_, Result<Instance, EngineError>>;

    /// Takes over the instances that an earlier server of this data folder has left running, and those that have ended since.
    /// For the start of a server, before [`Engine::sweep`], which ends those that are not among them.
    fn adopt(&self) -> BoxFuture<'_, Result<Vec<Instance>, EngineError>>;

    /// Ends and removes what an earlier server of this data folder has left and nobody took over.
    fn sweep(&self) -> BoxFuture<'_, Result<(), EngineError>>;

    /// Ends every instance at once, without asking it first. For a server that may not wait and leaves nothing to another
    /// one.
    fn end_all(&self) -> BoxFuture<'_, Result<(), EngineError>>;

    /// Why instances can have no volumes here, if they cannot.
    fn lacks_volumes(&self) -> Option<String> {
        None
    }

    /// The volumes of an owner, by name.
    fn volumes(&self, owner: String) -> BoxFuture<'_, Result<Vec<VolumeInfo>, EngineError>>;

    /// Removes a volume with all that is in it; `None` where there is none. Refused while an instance has it. The volume is out
    /// of the way when this returns, soon: no instance gets what was in it any more. Its files go in the time that it takes.
    fn remove_volume(
        &self,
        volume: VolumeId,
    ) -> BoxFuture<'_, Result<Option<Clearing>, EngineError>>;

    /// Frees what it keeps of images that are neither among these nor in use; returns the bytes freed.
    fn retain(&self, images: Vec<Digest>) -> BoxFuture<'_, Result<u64, EngineError>>;
}

/// What to run.
#[derive(Clone)]
pub struct InstanceSpec {
    /// A name that no other living instance of the engine has.
    pub id: String,
    /// The repository of the platform's registry that holds the image.
    pub repository: Repository,
    /// The image's manifest, or an index that has one for this machine.
    pub image: Digest,
    /// Added to the image's own; values are secrets as far as the engine knows.
    pub env: BTreeMap<String, String>,
    /// Where the program is to listen; it learns this from `PORT`, and on which address from `HOST`.
    pub port: u16,
    /// The file that takes what the program writes.
    pub log: PathBuf,
    /// Replaces the image's `CMD`.
    pub command: Option<Vec<String>>,
    /// What it may use of the machine.
    pub resources: Resources,
    /// Volumes that it has, and nobody else as long as anything of it runs.
    pub volumes: Vec<Mounted>,
}

impl InstanceSpec {
    pub(crate) fn volume_ids(&self) -> impl Iterator<Item = VolumeId> {
        self.volumes.iter().map(|mounted| mounted.volume.clone())
    }

    /// Refuses what no system could pass on. Says nothing of values: they may be secrets.
    pub(crate) fn check_environment(&self) -> Result<(), EngineError> {
        let name_is_wrong = |name: &str| name.is_empty() || name.contains(['=', '\0']);
        let wrong = self
            .env
            .iter()
            .find(|(name, value)| name_is_wrong(name) || value.contains('\0'));
        let Some((name, _)) = wrong else {
            return Ok(());
        };
        let reason = format!(
            "variable `{}` has a name or value that is not allowed",
            name.escape_debug()
        );
        Err(EngineError::launch(&self.id, "set the environment", reason))
    }
}

/// Runs the start of an instance to its end, whoever waits for it: half a start is nothing that could be left where it is.
/// When the caller gives up, the instance that comes of it is stopped.
pub(crate) async fn run_to_its_end(
    start: impl Future<Output = Result<Instance, EngineError>> + Send + 'static,
) -> Result<Instance, EngineError> {
    let (give, take) = oneshot::channel();
    tokio::spawn(async move {
        let started = start.await.map(Unclaimed::of);
        // Whatever is not taken out of the channel is dropped, and stops its instance.
        drop(give.send(started));
    });
    let started = take.await.map_err(|_| EngineError::ShuttingDown)?;
    started.map(Unclaimed::claim)
}

/// An instance on its way to whoever asked for it, who may be gone by now.
struct Unclaimed(Option<Instance>);

impl Unclaimed {
    fn of(instance: Instance) -> Self {
        Self(Some(instance))
    }

    #[expect(
        clippy::expect_used,
        reason = "only this takes it out, and it consumes"
    )]
    fn claim(mut self) -> Instance {
        self.0.take().expect("an instance is claimed once")
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(unwanted) = self.0.take() {
            // Without a runtime the server ends; nobody knows this one, so the next server ends it.
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move { unwanted.stop(Duration::ZERO).await });
            }
        }
    }
}

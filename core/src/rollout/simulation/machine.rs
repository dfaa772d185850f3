//! A machine for simulations: it runs instances as an engine does, and outlives the servers that use it. What an image's digest
//! consists of says how its programs behave.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engines::{
    BoxFuture, Clearing, Command, CommandOutcome, Engine, EngineError, Exit, Instance,
    InstanceSpec, Life, Resources, Running, VolumeId, VolumeInfo,
};
use oci::Digest;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::deployments::{Capsule, Strategy};
use crate::rollout::instances::Name;

/// How a program behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behaviour {
    Good,
    /// It needs a while.
    Slow,
    /// It runs, and does not answer as it should.
    Unhealthy,
    /// It ends as soon as it was started.
    Ends,
    /// It cannot be started.
    Missing,
    /// It answers well, and ends after a while.
    Dies,
}

impl Behaviour {
    /// By the digit that a digest repeats.
    pub(super) fn of(digest: &str) -> Self {
        match digest.chars().next_back() {
            Some('4') => Self::Slow,
            Some('5') => Self::Unhealthy,
            Some('6') => Self::Ends,
            Some('7') => Self::Missing,
            Some('8') => Self::Dies,
            _ => Self::Good,
        }
    }
}

/// Before a slow one answers.
const SLOW: Duration = Duration::from_secs(2);
/// Before one ends that answered well.
const LIFE: Duration = Duration::from_millis(700);

/// What runs, and what is known of it.
#[derive(Default)]
pub(super) struct Machine {
    programs: Mutex<BTreeMap<String, Arc<Program>>>,
    /// What was asked for, by the numbers of deployments.
    releases: Mutex<BTreeMap<u64, (Capsule, Strategy)>>,
    /// What should never have happened.
    breaches: Mutex<Vec<String>>,
    /// Whether instances have ended by themselves since everything was whole.
    hurt: AtomicBool,
    /// Decides how long things take.
    dice: AtomicU64,
}

/// The program of one instance.
pub(super) struct Program {
    pub(super) id: String,
    pub(super) service: String,
    /// The deployment that has started it.
    pub(super) deployment: u64,
    slow: bool,
    life: watch::Sender<Life>,
    /// It has answered well.
    proved: AtomicBool,
    /// Whether it answers; one that is slow does so when its server has changed, too: the clock begins anew with each.
    answers: AtomicBool,
    /// How long a stop takes.
    takes: Duration,
}

impl Program {
    pub(super) fn runs(&self) -> bool {
        *self.life.borrow() == Life::Running
    }

    pub(super) fn is_well(&self) -> bool {
        self.runs() && self.answers.load(Ordering::Relaxed)
    }

    fn end(&self, exit: Exit) {
        self.life.send_if_modified(|life| {
            let runs = *life == Life::Running;
            if runs {
                *life = Life::Exited(exit);
            }
            runs
        });
    }

    /// Nothing is left of it.
    fn go(&self, exit: Exit) {
        self.life.send_modify(|life| {
            *life = match *life {
                Life::Running => Life::Gone(exit),
                Life::Exited(exit) | Life::Gone(exit) => Life::Gone(exit),
            };
        });
    }
}

impl Machine {
    pub(super) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            dice: AtomicU64::new(seed | 1),
            ..Self::default()
        })
    }

    pub(super) fn announce(&self, number: u64, capsule: Capsule, strategy: Strategy) {
        locked(&self.releases).insert(number, (capsule, strategy));
    }

    pub(super) fn release(&self, number: u64) -> Option<(Capsule, Strategy)> {
        locked(&self.releases).get(&number).cloned()
    }

    /// The deployment that was asked for last.
    pub(super) fn newest(&self) -> Option<u64> {
        locked(&self.releases).keys().next_back().copied()
    }

    /// Everything of which something is left.
    pub(super) fn programs(&self) -> Vec<Arc<Program>> {
        let mut programs = locked(&self.programs);
        programs.retain(|_, program| !matches!(*program.life.borrow(), Life::Gone(_)));
        programs.values().cloned().collect()
    }

    /// Everything is whole.
    pub(super) fn is_whole(&self) {
        self.hurt.store(false, Ordering::Relaxed);
    }

    pub(super) fn kill(&self, program: &Program) {
        self.hurt.store(true, Ordering::Relaxed);
        program.end(Exit::Signal(9));
    }

    pub(super) fn breaches(&self) -> Vec<String> {
        std::mem::take(&mut locked(&self.breaches))
    }

    fn breach(&self, what: String) {
        locked(&self.breaches).push(what);
    }

    /// Up to `most`; xorshift, as George Marsaglia has it.
    fn some_time(&self, most: u64) -> Duration {
        let mut dice = self.dice.load(Ordering::Relaxed);
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        self.dice.store(dice, Ordering::Relaxed);
        Duration::from_millis(dice % most)
    }

    /// What must be true whenever an instance is started.
    fn check_start(&self, name: &Name<'_>) {
        let Some((capsule, _)) = self.release(name.deployment) else {
            return self.breach(format!("{name} is started for no deployment"));
        };
        let Some(service) = capsule.service(name.service) else {
            return self.breach(format!("{name} is of no service"));
        };
        let programs = self.programs();
        for needed in &service.depends_on {
            let is_there =
                |one: &Arc<Program>| one.service == *needed && one.proved.load(Ordering::Relaxed);
            // What it needs may end while it starts.
            let is_hurt = self.hurt.load(Ordering::Relaxed);
            if !is_hurt && !programs.iter().any(is_there) {
                self.breach(format!(
                    "{name} is started, and nothing of {needed} has proved itself"
                ));
            }
        }
        let Some(newest) = self.newest() else { return };
        let is_alone = self
            .release(newest)
            .is_some_and(|(_, strategy)| strategy == Strategy::Recreate);
        // Others may run beside each other, whatever comes after them.
        let clashes = |one: &&Arc<Program>| {
            let newest_is_one = [one.deployment, name.deployment].contains(&newest);
            newest_is_one
                && one.service == name.service
                && one.deployment != name.deployment
                && one.runs()
        };
        if let Some(other) = programs.iter().find(clashes).filter(|_| is_alone) {
            self.breach(format!("{name} is started while {} runs", other.id));
        }
    }

    async fn begin(self: Arc<Self>, spec: InstanceSpec) -> Result<Instance, EngineError> {
        // A caller who gives up here leaves nothing running.
        sleep(self.some_time(200)).await;
        let behaviour = Behaviour::of(&spec.image.to_string());
        let name = Name::of(&spec.id).expect("the id says whose it is");
        self.check_start(&name);
        if behaviour == Behaviour::Missing {
            let image = spec.image;
            return Err(EngineError::ImageNotFound {
                image,
                missing: image,
            });
        }
        let program = Arc::new(Program {
            id: spec.id.clone(),
            service: name.service.to_owned(),
            deployment: name.deployment,
            slow: behaviour == Behaviour::Slow,
            life: watch::Sender::new(Life::Running),
            proved: AtomicBool::new(false),
            answers: AtomicBool::new(!matches!(behaviour, Behaviour::Slow | Behaviour::Unhealthy)),
            takes: self.some_time(400),
        });
        locked(&self.programs).insert(spec.id.clone(), Arc::clone(&program));
        match behaviour {
            Behaviour::Slow => {
                let program = Arc::clone(&program);
                tokio::spawn(async move {
                    sleep(SLOW).await;
                    program.answers.store(true, Ordering::Relaxed);
                });
            }
            Behaviour::Ends => program.end(Exit::Code(3)),
            Behaviour::Dies => {
                let program = Arc::clone(&program);
                tokio::spawn(async move {
                    sleep(LIFE).await;
                    self.hurt.store(true, Ordering::Relaxed);
                    program.end(Exit::Code(4));
                });
            }
            _ => {}
        }
        Ok(Instance::of(Handle(program)))
    }
}

/// The engine of one server on a machine.
pub(super) struct Simulated(pub(super) Arc<Machine>);

impl Engine for Simulated {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn notes(&self) -> &[String] {
        &[]
    }

    fn lacks(&self, _: &Resources) -> Option<String> {
        None
    }

    fn start(&self, spec: InstanceSpec) -> BoxFuture<'_, Result<Instance, EngineError>> {
        Box::pin(Arc::clone(&self.0).begin(spec))
    }

    fn adopt(&self) -> BoxFuture<'_, Result<Vec<Instance>, EngineError>> {
        let adopted = self.0.programs().into_iter().map(|program| {
            program.answers.fetch_or(program.slow, Ordering::Relaxed);
            Instance::of(Handle(program))
        });
        let adopted = adopted.collect();
        Box::pin(async { Ok(adopted) })
    }

    fn sweep(&self) -> BoxFuture<'_, Result<(), EngineError>> {
        Box::pin(async { Ok(()) })
    }

    fn end_all(&self) -> BoxFuture<'_, Result<(), EngineError>> {
        Box::pin(async { Ok(()) })
    }

    fn lacks_volumes(&self) -> Option<String> {
        Some("nothing here has a disk".to_owned())
    }

    fn volumes(&self, _: String) -> BoxFuture<'_, Result<Vec<VolumeInfo>, EngineError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn remove_volume(&self, _: VolumeId) -> BoxFuture<'_, Result<Option<Clearing>, EngineError>> {
        Box::pin(async { Ok(None) })
    }

    fn retain(&self, _: Vec<Digest>) -> BoxFuture<'_, Result<u64, EngineError>> {
        Box::pin(async { Ok(0) })
    }
}

struct Handle(Arc<Program>);

impl Running for Handle {
    fn id(&self) -> &str {
        &self.0.id
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, 1))
    }

    fn pid(&self) -> u32 {
        1
    }

    fn log(&self) -> &Path {
        Path::new("/dev/null")
    }

    fn life(&self) -> watch::Receiver<Life> {
        self.0.life.subscribe()
    }

    fn ask_to_end(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            sleep(self.0.takes).await;
            self.0.go(Exit::Code(0));
        })
    }

    fn kill(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.0.go(Exit::Signal(9)) })
    }

    fn run(&self, _: Command) -> BoxFuture<'_, Result<CommandOutcome, EngineError>> {
        Box::pin(async {
            sleep(Duration::from_millis(20)).await;
            let well = self.0.is_well();
            self.0.proved.fetch_or(well, Ordering::Relaxed);
            Ok(CommandOutcome {
                exit: Some(Exit::Code(i32::from(!well))),
                output: String::new(),
            })
        })
    }

    fn listening_ports(&self) -> Option<Vec<u16>> {
        None
    }
}

/// The numbers of the deployments that have started instances, by service.
pub(super) fn ids(programs: &[Arc<Program>], service: &str) -> BTreeSet<String> {
    let of_service = programs.iter().filter(|one| one.service == service);
    of_service.map(|one| one.id.clone()).collect()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

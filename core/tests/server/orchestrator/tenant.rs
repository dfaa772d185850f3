//! What a tenant is to run, and how it gets there: one instance after the other.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use engines::Instance;
use futures_util::future::join_all;
use proxy::{Group, Proxy, Retired, Rule, Share, Target};
use serde_json::{Value, json};
use tokio::sync::{Notify, OwnedMutexGuard};
use tokio::task::JoinHandle;

use super::World;
use super::instances::{self, Failure, add_exit};
use super::lines::Lines;
use super::protocol::{Service, Task, Wanted};

const GRACE: Duration = Duration::from_secs(2);
const DRAIN: Duration = Duration::from_secs(5);
/// Before one that has ended is started again, doubled each time up to the limit. Longer than anybody takes to see it.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

pub(super) struct Tenant {
    id: String,
    world: Weak<World>,
    /// Its URL.
    proxy: Proxy,
    /// Where its services reach each other.
    doors: Mutex<BTreeMap<String, Proxy>>,
    state: Mutex<State>,
    changed: Notify,
    /// Held while a command runs: nothing else is begun before it is over.
    busy: Arc<tokio::sync::Mutex<()>>,
    pub(super) lines: Lines,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct State {
    /// The highest turn that it has heard of.
    turn: u64,
    wanted: Option<Wanted>,
    /// Of each service, what its instances have to be.
    versions: BTreeMap<String, Version>,
    slots: Vec<Slot>,
    /// The turn that all of them are of.
    serving: Option<u64>,
    failed: Option<Value>,
    restarts: BTreeMap<String, u64>,
    reasons: BTreeMap<String, String>,
}

/// What instances have in common.
#[derive(Clone, PartialEq)]
struct Version {
    /// What they are made of.
    key: String,
    /// The deployment and the turn that have started them.
    deployment: u64,
    turn: u64,
}

/// A place for an instance.
struct Slot {
    service: String,
    version: Version,
    instance: Instance,
    is_ready: bool,
}

impl Slot {
    fn target(&self) -> Target {
        Target {
            id: self.instance.id().to_owned(),
            address: self.instance.address(),
        }
    }
}

impl Tenant {
    pub(super) async fn new(world: &Arc<World>, id: &str) -> Arc<Self> {
        let tenant = Arc::new(Self {
            id: id.to_owned(),
            world: Arc::downgrade(world),
            proxy: listen().await,
            doors: Mutex::default(),
            state: Mutex::default(),
            changed: Notify::new(),
            busy: Arc::default(),
            lines: Lines::new(world.folder.join("logs").join(id)),
            tasks: Mutex::default(),
        });
        let (reader, worker) = (Arc::clone(&tenant), Arc::clone(&tenant));
        let tasks = vec![
            tokio::spawn(async move { reader.lines.collect().await }),
            tokio::spawn(async move { worker.work().await }),
        ];
        *tenant.tasks.lock().unwrap() = tasks;
        tenant
    }

    pub(super) async fn place(&self, services: Vec<String>) -> Value {
        for service in &services {
            if !self.doors.lock().unwrap().contains_key(service) {
                let door = listen().await;
                let mut doors = self.doors.lock().unwrap();
                doors.entry(service.clone()).or_insert(door);
            }
        }
        drop(self.direct());
        let doors = self.doors.lock().unwrap();
        let address = |service: String| {
            let address = doors.get(&service)?.local_addr();
            let (host, port) = (address.ip().to_string(), address.port());
            Some((service, json!({ "host": host, "port": port })))
        };
        let services: serde_json::Map<String, Value> =
            services.into_iter().filter_map(address).collect();
        json!({
            "url": format!("http://{}", self.proxy.local_addr()),
            "services": services,
        })
    }

    /// Wants something else, unless it has a newer turn, which it says then.
    pub(super) async fn want(&self, wanted: Wanted) -> Result<(), u64> {
        let _busy = self.busy.lock().await;
        let mut state = self.state();
        if wanted.turn < state.turn {
            return Err(state.turn);
        }
        let is_same = |known: &Wanted| known.turn == wanted.turn;
        if state.wanted.as_ref().is_some_and(is_same) {
            return Ok(());
        }
        let versions = wanted.services.iter();
        let versions =
            versions.map(|service| (service.name.clone(), state.version(&wanted, service)));
        state.versions = versions.collect();
        state.turn = wanted.turn;
        state.wanted = Some(wanted);
        state.serving = None;
        state.failed = None;
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    pub(super) fn observed(&self) -> Option<Value> {
        let state = self.state();
        let wanted = state.wanted.as_ref()?;
        let mut services = serde_json::Map::new();
        for service in &wanted.services {
            let name = &service.name;
            let ready = state.slots.iter();
            let ready = ready.filter(|slot| slot.is_ready && slot.service == *name);
            let ids: Vec<&str> = ready.clone().map(|slot| slot.instance.id()).collect();
            let deployment = ready.map(|slot| slot.version.deployment).max();
            let told = json!({
                "deployment": deployment.unwrap_or(state.versions[name].deployment),
                "ready": ids,
                "restarts": state.restarts.get(name).copied().unwrap_or_default(),
                "reason": state.reasons.get(name),
            });
            services.insert(name.clone(), told);
        }
        Some(json!({
            "turn": wanted.turn,
            "deployment": wanted.deployment,
            "serving": state.serving,
            "services": services,
            "failed": state.failed,
        }))
    }

    /// Runs a command to its end; hangs up on it when nobody waits any more. Fails with a newer turn, or without the image.
    pub(super) async fn run_once(&self, task: Task) -> Result<Value, Option<u64>> {
        let busy = Arc::clone(&self.busy).lock_owned().await;
        {
            let mut state = self.state();
            if task.turn < state.turn {
                return Err(Some(state.turn));
            }
            state.turn = task.turn;
        }
        let log = self.lines.file(task.deployment, &task.service.name);
        let world = self.world();
        let whose = (self.id.as_str(), task.deployment);
        let started = instances::start(&world, whose, &task.service, log).await;
        let running = Running {
            instance: started.map_err(|_| None)?,
            busy: Some(busy),
        };
        let exit = running.instance.wait().await;
        let mut ran = json!({ "log_tail": running.instance.log_tail(20) });
        add_exit(&mut ran, exit);
        Ok(ran)
    }

    /// Ends all that it has.
    pub(super) async fn end(&self) {
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap());
        for task in tasks {
            task.abort();
            let _ = task.await;
        }
        self.end_instances().await;
        self.proxy.shutdown(Duration::ZERO).await;
    }

    /// Knows nothing any more.
    pub(super) async fn forget(&self) {
        {
            let mut state = self.state();
            let slots = std::mem::take(&mut state.slots);
            *state = State {
                slots,
                ..State::default()
            };
        }
        self.changed.notify_one();
        self.end_instances().await;
    }

    pub(super) fn deployment(&self) -> Option<u64> {
        let state = self.state();
        state.wanted.as_ref().map(|wanted| wanted.deployment)
    }

    pub(super) fn turn(&self) -> Option<u64> {
        self.state().turn_wanted()
    }

    async fn end_instances(&self) {
        let slots = std::mem::take(&mut self.state().slots);
        drop(self.direct());
        join_all(slots.iter().map(|slot| slot.instance.stop(GRACE))).await;
    }

    /// Does what is wanted, whatever that is by now.
    async fn work(&self) {
        loop {
            let wanted = self.state().wanted.clone();
            tokio::select! {
                () = self.changed.notified() => {}
                () = self.bring_about(wanted) => {}
            }
        }
    }

    async fn bring_about(&self, wanted: Option<Wanted>) {
        let Some(wanted) = wanted else {
            return std::future::pending().await;
        };
        for service in &wanted.services {
            if let Err(failure) = self.replace(service).await {
                self.give_up(&wanted, service, failure);
                return std::future::pending().await;
            }
        }
        let is_wanted = |slot: &Slot| wanted.services.iter().any(|one| one.name == slot.service);
        self.retire(|slot| !is_wanted(slot), usize::MAX).await;
        self.state().serving = Some(wanted.turn);
        let services = wanted.services.iter();
        let kept = services.flat_map(|service| (0..service.replicas).map(move |at| (service, at)));
        join_all(kept.map(|(service, at)| self.keep(&wanted, service, at))).await;
        std::future::pending::<()>().await;
    }

    fn give_up(&self, wanted: &Wanted, service: &Service, failure: Failure) {
        let mut state = self.state();
        let reason = failure.message.clone();
        state.reasons.insert(service.name.clone(), reason);
        // Something else may be wanted by now.
        if state.turn_wanted() == Some(wanted.turn) {
            state.failed = Some(failure.of(&service.name));
        }
    }

    /// Until all instances of a service are what they should be: one more, then one less.
    async fn replace(&self, service: &Service) -> Result<(), Failure> {
        let version = self.state().versions[&service.name].clone();
        let name = &service.name;
        let is_new = |slot: &Slot| slot.service == *name && slot.version == version;
        // Of an attempt that was broken off.
        self.retire(
            |slot| is_new(slot) && (!slot.is_ready || slot.instance.exited().is_some()),
            usize::MAX,
        )
        .await;
        loop {
            let count = self
                .state()
                .slots
                .iter()
                .filter(|slot| is_new(slot))
                .count();
            if count >= service.replicas {
                break;
            }
            let id = self.start(service, &version).await?;
            if let Err(failure) = self.until_ready(service, &id).await {
                self.retire(|slot| slot.instance.id() == id, 1).await;
                return Err(failure);
            }
            self.retire(|slot| slot.service == *name && !is_new(slot), 1)
                .await;
        }
        self.retire(|slot| slot.service == *name && !is_new(slot), usize::MAX)
            .await;
        let surplus = self
            .state()
            .slots
            .iter()
            .filter(|slot| is_new(slot))
            .count();
        self.retire(is_new, surplus.saturating_sub(service.replicas))
            .await;
        Ok(())
    }

    async fn start(&self, service: &Service, version: &Version) -> Result<String, Failure> {
        let log = self.lines.file(version.deployment, &service.name);
        let instance = {
            let whose = (self.id.as_str(), version.deployment);
            instances::start(&self.world(), whose, service, log).await?
        };
        let id = instance.id().to_owned();
        self.state().slots.push(Slot {
            service: service.name.clone(),
            version: version.clone(),
            instance,
            is_ready: false,
        });
        Ok(id)
    }

    /// Gives it traffic then.
    async fn until_ready(&self, service: &Service, id: &str) -> Result<(), Failure> {
        let Some(instance) = self.instance(id) else {
            return std::future::pending().await;
        };
        instances::until_ready(&instance, &service.health).await?;
        self.set_ready(id, true);
        self.state().reasons.remove(&service.name);
        Ok(())
    }

    /// Starts one again whenever it is lost, for as long as this is wanted.
    async fn keep(&self, wanted: &Wanted, service: &Service, at: usize) {
        let mut pause = FIRST_PAUSE;
        let name = &service.name;
        let mut id = {
            let state = self.state();
            let mut slots = state.slots.iter().filter(|slot| slot.service == *name);
            slots.nth(at).map(|slot| slot.instance.id().to_owned())
        };
        let version = self.state().versions[name].clone();
        loop {
            if let Some(instance) = id.as_deref().and_then(|id| self.instance(id)) {
                let why = instances::until_lost(&instance, &service.health).await;
                self.lose(name, &id.take().unwrap_or_default(), why).await;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            match self.start(service, &version).await {
                Ok(started) => match self.until_ready(service, &started).await {
                    Ok(()) => id = Some(started),
                    Err(failure) => self.lose(name, &started, failure.message).await,
                },
                Err(failure) => drop(self.state().reasons.insert(name.clone(), failure.message)),
            }
            let mut state = self.state();
            let all: usize = wanted.services.iter().map(|one| one.replicas).sum();
            let ready = state.slots.iter().filter(|slot| slot.is_ready).count();
            state.serving = (ready == all).then_some(wanted.turn);
        }
    }

    async fn lose(&self, service: &str, id: &str, why: String) {
        {
            let mut state = self.state();
            state.serving = None;
            state.reasons.insert(service.to_owned(), why);
            *state.restarts.entry(service.to_owned()).or_default() += 1;
        }
        self.retire(|slot| slot.instance.id() == id, 1).await;
    }

    fn set_ready(&self, id: &str, is_ready: bool) {
        let mut state = self.state();
        let slot = state.slots.iter_mut().find(|slot| slot.instance.id() == id);
        if let Some(slot) = slot {
            slot.is_ready = is_ready;
        }
        drop(state);
        drop(self.direct());
    }

    /// Takes so many away. They finish their requests, whoever waits for that.
    async fn retire(&self, which: impl Fn(&Slot) -> bool, most: usize) {
        let mut gone = Vec::new();
        {
            let mut state = self.state();
            while gone.len() < most
                && let Some(at) = state.slots.iter().position(&which)
            {
                gone.push(state.slots.remove(at).instance);
            }
        }
        if gone.is_empty() {
            return;
        }
        let retired = self.direct();
        let ending = tokio::spawn(async move {
            join_all(retired.iter().map(|retired| retired.drained(DRAIN))).await;
            join_all(gone.iter().map(|instance| instance.stop(GRACE))).await;
        });
        let _ = ending.await;
    }

    /// Sends requests to whoever is ready.
    fn direct(&self) -> Vec<Retired> {
        let state = self.state();
        let mut ready: BTreeMap<&str, Vec<Target>> = BTreeMap::new();
        for slot in state.slots.iter().filter(|slot| slot.is_ready) {
            ready.entry(&slot.service).or_default().push(slot.target());
        }
        let share = |name: &str| Share {
            targets: ready.get(name).cloned().unwrap_or_default(),
            weight: 1,
        };
        let mut retired = Vec::new();
        for (name, door) in &*self.doors.lock().unwrap() {
            retired.extend(door.direct(&[share(name)]));
        }
        let (mut groups, mut rules) = (Vec::new(), Vec::new());
        for service in state.wanted.iter().flat_map(|wanted| &wanted.services) {
            groups.push(Group {
                name: service.name.clone(),
                shares: vec![share(&service.name)],
                awaited: false,
            });
            rules.extend(service.routes.iter().map(|route| Rule {
                host: route.host.clone(),
                prefix: route.path.clone(),
                group: service.name.clone(),
            }));
        }
        retired.extend(self.proxy.divide(&groups, &rules));
        retired
    }

    fn instance(&self, id: &str) -> Option<Instance> {
        let state = self.state();
        let slot = state.slots.iter().find(|slot| slot.instance.id() == id);
        slot.map(|slot| slot.instance.clone())
    }

    fn world(&self) -> Arc<World> {
        self.world.upgrade().unwrap()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    fn turn_wanted(&self) -> Option<u64> {
        self.wanted.as_ref().map(|wanted| wanted.turn)
    }

    /// What instances of a service have to be: those that run, where they are the same.
    fn version(&self, wanted: &Wanted, service: &Service) -> Version {
        let key = service.key();
        let same = |slot: &&Slot| slot.service == service.name && slot.version.key == key;
        let running = self.slots.iter().rfind(same).filter(|_| !wanted.restart);
        running.map_or(
            Version {
                key: key.clone(),
                deployment: wanted.deployment,
                turn: wanted.turn,
            },
            |slot| slot.version.clone(),
        )
    }
}

/// A command that runs. Whoever drops it ends it.
struct Running {
    instance: Instance,
    busy: Option<OwnedMutexGuard<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let (instance, busy) = (self.instance.clone(), self.busy.take());
        tokio::spawn(async move {
            instance.stop(Duration::ZERO).await;
            drop(busy);
        });
    }
}

async fn listen() -> Proxy {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let proxy = Proxy::bind(address, proxy::Settings::default()).await;
    proxy.unwrap()
}

//! Releases of several services on a simulated machine: the server's own code, with a database, a clock that stands until nothing
//! is left to do, and instances that answer, hang, end and are killed. Servers die at records and between them, requests come
//! twice, operators abort, promote and settle.
//!
//! What must be true is looked at all the time (one release has all of the traffic and all of the routes, somebody well answers)
//! and after everything has come to rest (what lives is the release that was committed last, whole, and nothing else).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use management_api::types::{CanaryStep, HealthCheck, Probe, ProbeKind, RolloutSettings, Route};
use proptest::prelude::*;
use secrecy::SecretSlice;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::instances::Adopted;
use super::super::live::{LiveState, rules};
use super::super::{Unchanged, finish_interrupted, restore_live, settle as settled_by};
use super::machine::{Behaviour, Machine, Program, Simulated, ids};
use super::{TENANT, cases, check_history, folder};
use crate::auth::{RegistryAccess, Signer};
use crate::data_dir::DataDir;
use crate::deployments::{self, APP, Capsule, Group, Service, State, capsule_fixture, settle};
use crate::die::simulated::{die_at, has_died};
use crate::http::Limiter;
use crate::metrics::Metrics;
use crate::platform::{App, Platform};
use crate::settings::Settings;
use crate::store::deployment_fixtures::{request, tenant};
use crate::store::fixtures::make_keys_older;
use crate::store::{
    Begun, DeploymentRow, IdempotencyKey, NewDeployment, Store, StoreError, StoredAnswer,
};
use crate::tenant::Tenant;
use crate::tenants::Tenants;
use crate::vault::fixtures::vault;

const API: &str = "api";
const WORKER: &str = "worker";
/// Between two looks at everything.
const LOOK: Duration = Duration::from_millis(50);
/// Of a deployment.
const TIMEOUT_SECONDS: u64 = 10;
/// For which an old set stays started.
const WARM_MILLIS: u64 = 1_500;
/// In which everything comes to rest, on the clock of the simulation: the longest pause before a start, the longest undoing, the
/// deadline.
const REST: Duration = Duration::from_mins(10);

/// What happens next.
#[derive(Debug, Clone)]
enum Event {
    /// A request with this key.
    Request {
        key: u8,
        wanted: Wanted,
    },
    /// So much time passes.
    Wait {
        millis: u64,
    },
    /// Until nothing moves any more.
    Rest,
    /// The server dies, and another one starts, which may die soon as well.
    Crash {
        again: Option<u64>,
    },
    /// The server will die at the nth record from now on.
    Doom {
        record: u32,
    },
    /// An instance is killed.
    Kill {
        which: usize,
    },
    Abort,
    Promote,
    /// An operator says that it is settled.
    Settle,
    /// The machine's clock jumps by so many hours.
    Jump {
        hours: i8,
    },
}

/// A release and how it is to come.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    /// What the images of `app`, `api` and `worker` consist of; there may be no worker.
    images: (u8, u8, Option<u8>),
    replicas: u32,
    strategy: usize,
    /// What has not changed is started anew as well.
    restarts: bool,
    /// Its server dies when it has written the request, and before it does anything.
    dies: bool,
}

fn image() -> impl Strategy<Value = u8> {
    prop_oneof![12 => 0..3_u8, 1 => Just(4_u8), 1 => 5..8_u8, 1 => Just(8_u8)]
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let images = (image(), image(), prop::option::weighted(0.8, image()));
    let dies = prop::bool::weighted(0.05);
    (
        images,
        1..3_u32,
        0..4_usize,
        prop::bool::weighted(0.1),
        dies,
    )
        .prop_map(|(images, replicas, strategy, restarts, dies)| Wanted {
            images,
            replicas,
            strategy,
            restarts,
            dies,
        })
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (any::<u8>(), wanted()).prop_map(|(key, wanted)| Event::Request { key: key % 16, wanted }),
        6 => (0..3000_u64).prop_map(|millis| Event::Wait { millis }),
        5 => Just(Event::Rest),
        2 => prop::option::of(0..300_u64).prop_map(|again| Event::Crash { again }),
        2 => (1..8_u32).prop_map(|record| Event::Doom { record }),
        2 => any::<usize>().prop_map(|which| Event::Kill { which }),
        1 => Just(Event::Abort),
        2 => Just(Event::Promote),
        1 => Just(Event::Settle),
        1 => (-48..48_i8).prop_map(|hours| Event::Jump { hours }),
    ]
}

/// A server that runs.
struct Server {
    runtime: tokio::runtime::Runtime,
    app: App,
    tenant: Arc<Tenant>,
}

impl Server {
    /// Everything of it goes at once, wherever it is.
    fn die(self) {
        let Self {
            runtime,
            app,
            tenant,
        } = self;
        drop(runtime);
        // These know each other, and would stay for ever.
        tenant.set_live(None);
        drop(tenant.take_warm());
        drop(app);
    }
}

/// What ran when a deployment was asked for, with nothing else on its way.
struct Before {
    number: u64,
    live: Option<u64>,
    instances: BTreeMap<String, BTreeSet<String>>,
}

struct World {
    store: Store,
    folder: tempfile::TempDir,
    machine: Arc<Machine>,
    server: Option<Server>,
    /// How many there have been.
    servers: u32,
    /// What each key was answered, with the request that it was for. Forgotten when the store may have forgotten it.
    answers: BTreeMap<u8, (Wanted, u64)>,
    /// Records of each deployment.
    records: BTreeMap<u64, usize>,
    /// Whether nothing has been done to instances since everything was whole.
    unhurt: bool,
    /// Of the last deployment, as long as it has nobody to blame but itself.
    before: Option<Before>,
}

impl World {
    fn new(seed: u64) -> Self {
        let folder = folder();
        let store = Store::open(&folder.path().join("state.db")).unwrap();
        let runtime = super::runtime();
        runtime.block_on(tenant(&store));
        let mut world = Self {
            store,
            folder,
            machine: Machine::new(seed),
            server: None,
            servers: 0,
            answers: BTreeMap::new(),
            records: BTreeMap::new(),
            unhurt: true,
            before: None,
        };
        world.start(None);
        world
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Request { key, wanted } => self.request(*key, wanted),
            Event::Wait { millis } => self.pass(Duration::from_millis(*millis)),
            Event::Rest => self.rest(),
            Event::Crash { again } => {
                self.crash(*again);
            }
            Event::Doom { record } => die_at(Some(*record)),
            Event::Kill { which } => self.kill(*which),
            Event::Abort => self.signal(|tenant, number| tenant.abort_rollout(number)),
            Event::Promote => {
                self.with(async |server| {
                    if let Some(number) = server.tenant.rollout() {
                        server.tenant.promote_rollout(number);
                    }
                });
            }
            Event::Settle => self.settle(),
            Event::Jump { hours } => {
                let millis = i64::from(*hours) * 60 * 60 * 1000;
                let store = self.store.clone();
                self.with(async |_| make_keys_older(&store, millis).await);
                if *hours > 0 {
                    self.answers.clear();
                }
            }
        }
        if has_died() {
            self.crash(None);
        }
        self.check_machine();
    }

    fn with<T>(&self, work: impl AsyncFnOnce(&Server) -> T) -> T {
        let server = self.server.as_ref().expect("there is always a server");
        server.runtime.block_on(work(server))
    }

    fn signal(&mut self, tell: impl Fn(&Tenant, u64) -> bool) {
        self.with(async |server| {
            if let Some(number) = server.tenant.rollout() {
                tell(&server.tenant, number);
            }
        });
        self.before = None;
    }

    /// A server on the machine; one that dies after so many milliseconds of its start is followed by another one.
    fn start(&mut self, dies: Option<u64>) {
        self.servers += 1;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let data = self.folder.path().join(self.servers.to_string());
        let app = platform(&data, &self.store, &self.machine);
        let recovered = runtime.block_on(async {
            let recover = recover(&app);
            match dies {
                Some(millis) => tokio::time::timeout(Duration::from_millis(millis), recover).await,
                None => Ok(recover.await),
            }
        });
        let tenant = app.tenants.get(TENANT);
        let Some(tenant) = tenant else {
            // It did not come so far.
            drop(runtime);
            return self.start(None);
        };
        let server = Server {
            runtime,
            app,
            tenant,
        };
        if recovered.is_err() {
            server.die();
            return self.start(None);
        }
        self.server = Some(server);
    }

    fn crash(&mut self, again: Option<u64>) {
        die_at(None);
        if let Some(server) = self.server.take() {
            server.die();
        }
        self.before = None;
        self.start(again);
    }

    /// As `http::idempotency::once` and `http::deploy::begin` do it.
    fn request(&mut self, key: u8, wanted: &Wanted) {
        let claim = IdempotencyKey {
            scope: "deploy".into(),
            key: key.to_string(),
            body_hash: format!("{wanted:?}").into_bytes(),
        };
        let store = self.store.clone();
        let known = self.answers.get(&key).cloned();
        let begun = self.with(async |_| store.claim_key(claim.clone()).await.unwrap());
        match begun {
            Begun::Replay(answer) => {
                let number: u64 = answer.body.parse().unwrap();
                assert!(known.is_none_or(|known| known == (wanted.clone(), number)));
                return;
            }
            Begun::Mismatch => {
                assert!(known.is_none_or(|(other, _)| other != *wanted));
                return;
            }
            Begun::InFlight => unreachable!("one request at a time, and a start forgets the rest"),
            Begun::New => assert_eq!(known, None, "key {key}"),
        }
        let new = deployment(wanted, claim.clone());
        let (capsule, strategy) = (new.capsule.clone(), new.strategy);
        let answer = |number: u64| StoredAnswer {
            status: 202,
            location: None,
            body: number.to_string(),
        };
        let begun = self.with(async |_| store.begin_deployment(new, answer).await);
        let row = match begun {
            Ok(row) => row,
            Err(StoreError::InProgress { number }) => {
                assert_eq!(self.machine.newest(), Some(number));
                return self.with(async |_| store.release_key(claim).await.unwrap());
            }
            Err(error) => panic!("{error}"),
        };
        let unfinished = self.with(async |_| store.unfinished().await.unwrap());
        assert_eq!(unfinished.len(), 1, "two at a time: {}", self.told());
        self.answers.insert(key, (wanted.clone(), row.number));
        self.machine.announce(row.number, capsule, strategy);
        if wanted.dies {
            self.crash(None);
            return;
        }
        self.unhurt &= strategy != deployments::Strategy::Recreate;
        self.before = self.remember(&row);
        let unchanged = if wanted.restarts {
            self.before = None;
            Unchanged::Restarts
        } else {
            Unchanged::RunsOn
        };
        self.with(async |server| server.app.start_rollout(row, unchanged));
    }

    /// Only where the live release is whole can be said what becomes of it.
    fn remember(&self, row: &DeploymentRow) -> Option<Before> {
        let programs = self.machine.programs();
        let live = self.with(async |server| server.tenant.live());
        let is_good = live.as_ref().is_none_or(|live| self.is_good(live.number));
        let is_whole = self.unhurt && is_good && self.is_at_rest();
        is_whole.then(|| Before {
            number: row.number,
            live: live.map(|live| live.number),
            instances: [APP, API, WORKER]
                .map(|name| (name.to_owned(), ids(&programs, name)))
                .into(),
        })
    }

    fn kill(&mut self, which: usize) {
        let programs = self.machine.programs();
        if programs.is_empty() {
            return;
        }
        self.machine.kill(&programs[which % programs.len()]);
        self.unhurt = false;
        self.before = None;
    }

    fn settle(&mut self) {
        let store = self.store.clone();
        self.with(async |server| {
            let waiting = store.running(TENANT).await.unwrap();
            if let Some(row) = waiting.filter(|row| row.state == State::NeedsOperator) {
                settled_by(&server.app, &row, "somebody").await.unwrap();
            }
        });
    }

    /// Lets time pass and looks, again and again.
    fn pass(&mut self, time: Duration) {
        let mut left = time;
        while !left.is_zero() {
            let now = left.min(LOOK);
            left -= now;
            self.with(async |_| sleep(now).await);
            if has_died() {
                self.crash(None);
            }
            self.look();
        }
    }

    /// Until no rollout runs, and what is to live does.
    fn rest(&mut self) {
        let mut left = REST;
        while !self.is_at_rest() {
            assert!(!left.is_zero(), "it never comes to rest: {}", self.told());
            self.pass(LOOK);
            left -= LOOK;
        }
        self.check_at_rest();
    }

    fn is_at_rest(&self) -> bool {
        self.with(async |server| {
            if server.tenant.rollout().is_some() || server.tenant.is_standing_in() {
                return server.tenant.rollout().is_none() && server.tenant.is_standing_in();
            }
            let programs = self.machine.programs();
            let Some(live) = server.tenant.live() else {
                return programs.is_empty();
            };
            let services = live.row.capsule.services();
            if services
                .values()
                .any(|service| Behaviour::of(&service.digest) == Behaviour::Dies)
            {
                // It never does.
                return true;
            }
            live.state() == LiveState::Serving
                && server.tenant.warm().is_none()
                && programs.iter().all(|one| one.is_well())
                && self.is_whole(&live.row.capsule, &programs)
        })
    }

    /// What must be true at any moment.
    fn look(&self) {
        let (live, lost, running, (rules_now, services)) = self.with(async |server| {
            let tenant = &server.tenant;
            let row = self.store.tenant(TENANT).await.unwrap();
            let live = row.and_then(|row| row.live);
            let lost = tenant
                .is_standing_in()
                .then(|| tenant.live().map(|live| live.number));
            (
                live,
                lost.flatten(),
                tenant.rollout(),
                tenant.public_traffic(),
            )
        });
        let told = || format!("live {live:?}, running {running:?}: {}", self.told());
        let named: BTreeSet<u64> = [live, lost, running].into_iter().flatten().collect();
        let releases: Vec<(u64, Capsule)> = named
            .into_iter()
            .filter_map(|number| Some((number, self.machine.release(number)?.0)))
            .collect();
        if services.is_empty() {
            return;
        }
        // Whether what a part of the traffic goes to is what a release has for that service.
        let is_of = |number: u64, service: &str, capsule: &Capsule| {
            let started = self.machine.release(number).map(|(capsule, _)| capsule);
            let started = started.and_then(|started| started.fingerprint_of(service));
            started.is_some() && started == capsule.fingerprint_of(service)
        };
        let whole = releases.iter().find(|(_, capsule)| {
            rules(capsule) == rules_now
                && services
                    .iter()
                    .all(|(name, parts)| parts.iter().any(|part| is_of(part.number, name, capsule)))
        });
        let Some((_, capsule)) = whole else {
            panic!(
                "traffic of several releases: {services:?}, {rules_now:?}, {}",
                told()
            );
        };
        for (name, parts) in &services {
            let others = parts
                .iter()
                .filter(|part| !is_of(part.number, name, capsule));
            let others: Vec<_> = others.collect();
            // A part of the traffic is for a release that is on its way.
            let is_tried = others.iter().all(|part| Some(part.number) == running);
            assert!(
                is_tried && parts.len() <= 2,
                "{name} of {parts:?}, {}",
                told()
            );
        }
        if self.unhurt && live.is_some() && lost.is_none() {
            let programs = self.machine.programs();
            for (name, service) in capsule.services() {
                let is_good = |digest: &str| {
                    matches!(Behaviour::of(digest), Behaviour::Good | Behaviour::Slow)
                };
                if !service.is_routed()
                    || !is_good(&service.digest)
                    || running.is_some_and(|n| !self.is_good(n))
                {
                    continue;
                }
                let parts = services.get(&name).into_iter().flatten();
                let mut targets = parts.flat_map(|part| &part.targets);
                let is_well = targets.any(|target| {
                    programs
                        .iter()
                        .any(|one| one.id == target.id && one.is_well())
                });
                assert!(
                    is_well,
                    "nobody answers for {name}: {services:?}, {}",
                    told()
                );
            }
        }
    }

    /// Whether everything of a release is good.
    fn is_good(&self, number: u64) -> bool {
        let (capsule, _) = self.machine.release(number).unwrap();
        capsule.services().values().all(|service| {
            matches!(
                Behaviour::of(&service.digest),
                Behaviour::Good | Behaviour::Slow
            )
        })
    }

    fn check_machine(&self) {
        let breaches = self.machine.breaches();
        assert!(breaches.is_empty(), "{breaches:?}, {}", self.told());
    }

    fn check_at_rest(&mut self) {
        self.check_machine();
        let store = self.store.clone();
        let rows = self.with(async |_| store.deployments(TENANT, 1000).await.unwrap());
        let mut committed = None;
        for row in rows.iter().rev() {
            let events =
                self.with(async |_| store.events_after(TENANT, row.number, 0).await.unwrap());
            if events
                .iter()
                .any(|event| event.state == State::Verified.as_str())
            {
                committed = Some(row.number);
            }
        }
        let mut records = std::mem::take(&mut self.records);
        self.with(async |_| check_history(&store, None, committed, &mut records).await);
        self.records = records;
        let (live, standing_in) =
            self.with(async |server| (server.tenant.live(), server.tenant.is_standing_in()));
        if standing_in {
            return;
        }
        assert_eq!(
            live.as_ref().map(|live| live.number),
            committed,
            "{}",
            self.told()
        );
        let programs = self.machine.programs();
        let is_whole = live.as_ref().is_none_or(|live| self.is_good(live.number));
        self.check_before(
            rows.first(),
            live.as_ref().map(|live| &live.row.capsule),
            &programs,
        );
        self.unhurt = is_whole;
        if is_whole {
            self.machine.is_whole();
        }
        self.look();
    }

    /// Whether there are as many of each service as there are to be, each of what the release has for it, and nothing else.
    fn is_whole(&self, capsule: &Capsule, programs: &[Arc<Program>]) -> bool {
        let is_of_it = |one: &Arc<Program>| {
            let (started, _) = self.machine.release(one.deployment).unwrap();
            let wanted = capsule.fingerprint_of(&one.service);
            wanted.is_some() && wanted == started.fingerprint_of(&one.service)
        };
        let mut services = capsule.services().into_iter();
        let is_complete = |(name, service): (String, Service)| {
            ids(programs, &name).len() == service.replicas as usize
        };
        programs.iter().all(is_of_it) && services.all(is_complete)
    }

    /// What has not changed is the very same as before; where a deployment failed that takes nothing away, that is everything.
    fn check_before(
        &mut self,
        last: Option<&DeploymentRow>,
        live: Option<&Capsule>,
        programs: &[Arc<Program>],
    ) {
        let Some((before, last)) = self.before.take().zip(last) else {
            return;
        };
        assert_eq!(before.number, last.number);
        let Some(live) = live else { return };
        let old = before.live.and_then(|number| self.machine.release(number));
        let Some((old, _)) = old else { return };
        let is_same = |name: &str| match last.state {
            State::Succeeded => old.fingerprint_of(name) == live.fingerprint_of(name),
            _ => matches!(
                last.strategy,
                deployments::Strategy::BlueGreen | deployments::Strategy::Canary
            ),
        };
        for (name, ids_before) in &before.instances {
            if is_same(name) && live.service(name).is_some() {
                assert_eq!(
                    *ids_before,
                    ids(programs, name),
                    "{name} is not the same: {}",
                    self.told()
                );
            }
        }
    }

    /// For whoever has to find out what went wrong.
    fn told(&self) -> String {
        let store = self.store.clone();
        let rows = self.with(async |_| store.deployments(TENANT, 1000).await.unwrap());
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                format!(
                    "{} {} {:?} {:?}",
                    row.number, row.state, row.strategy, row.failure
                )
            })
            .collect();
        let programs = self.machine.programs();
        let programs: Vec<_> = programs
            .iter()
            .map(|one| format!("{} runs {} well {}", one.id, one.runs(), one.is_well()))
            .collect();
        let live = self.with(async |server| server.tenant.live_state());
        format!("{rows:#?} {programs:#?} {live:?}")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        die_at(None);
        if let Some(server) = self.server.take() {
            server.die();
        }
    }
}

/// As `serve::recover` does it; the tenant listens nowhere.
async fn recover(app: &App) {
    let mut adopted = Adopted::of(app.engine.adopt().await.unwrap());
    finish_interrupted(&app.store).await.unwrap();
    app.store.release_keys_in_flight().await.unwrap();
    for row in app.store.tenants().await.unwrap() {
        let tenant = Arc::new(Tenant::new(&row.id, app.listen, "http"));
        app.tenants.add(Arc::clone(&tenant));
        restore_live(app, &tenant, adopted.of_tenant(&row))
            .await
            .unwrap();
    }
}

fn platform(data: &std::path::Path, store: &Store, machine: &Arc<Machine>) -> App {
    let mut settings = Settings::default();
    settings.rollout.restore_seconds = 10;
    settings.rollout.drain_seconds = 1;
    settings.rollout.stop_grace_seconds = 1;
    let data = DataDir::open(data).unwrap();
    let signer = Signer::new(&SecretSlice::from(vec![0; 32]));
    Arc::new(Platform {
        registry: Arc::new(RegistryAccess::new(store.clone(), signer)),
        limiter: Limiter::new(&settings.limits),
        tls: None,
        settings,
        store: store.clone(),
        vault: Arc::new(vault()),
        images: Arc::new(oci::Store::open(data.registry()).unwrap()),
        data,
        engine: Arc::new(Simulated(Arc::clone(machine))),
        tenants: Tenants::default(),
        metrics: Metrics::new(),
        keeping: Arc::default(),
        listen: ([127, 0, 0, 1], 0).into(),
        shutdown: CancellationToken::new(),
        tasks: TaskTracker::new(),
    })
}

fn deployment(wanted: &Wanted, key: IdempotencyKey) -> NewDeployment {
    let capsule = capsule(wanted);
    let strategy = [
        deployments::Strategy::Rolling,
        deployments::Strategy::Recreate,
        deployments::Strategy::BlueGreen,
        deployments::Strategy::Canary,
    ][wanted.strategy];
    let asked = match strategy {
        deployments::Strategy::BlueGreen => RolloutSettings {
            keep_warm_ms: Some(WARM_MILLIS),
            ..RolloutSettings::default()
        },
        deployments::Strategy::Canary => RolloutSettings {
            steps: Some(vec![CanaryStep {
                weight: 50,
                pause_ms: Some(500),
            }]),
            ..RolloutSettings::default()
        },
        _ => RolloutSettings::default(),
    };
    NewDeployment {
        rollout: settle(strategy, capsule.replicas, &asked).unwrap(),
        strategy,
        timeout_seconds: TIMEOUT_SECONDS,
        key: Some(key),
        ..request(capsule)
    }
}

/// An application that asks an interface, and a worker that does. Each version of the application has a route of its own.
fn capsule(wanted: &Wanted) -> Capsule {
    let of = |image: u8| {
        let digit = char::from_digit(image.into(), 10).unwrap();
        Capsule {
            health: health(),
            ..capsule_fixture(digit)
        }
    };
    let route = |path: String| Route { host: None, path };
    let (app, api, worker) = wanted.images;
    let api = Service {
        protocol: None,
        routes: vec![route(format!("/api-{api}"))],
        replicas: wanted.replicas,
        ..of(api).app()
    };
    let needs_api = BTreeSet::from([API.to_owned()]);
    let mut services = BTreeMap::from([(API.to_owned(), api)]);
    if let Some(worker) = worker {
        let worker = Service {
            protocol: None,
            routes: Vec::new(),
            depends_on: needs_api.clone(),
            ..of(worker).app()
        };
        services.insert(WORKER.to_owned(), worker);
    }
    Capsule {
        replicas: wanted.replicas,
        group: Group {
            depends_on: needs_api,
            routes: Some(vec![route("/".to_owned()), route(format!("/app-{app}"))]),
            services,
            ..Group::default()
        },
        ..of(app)
    }
}

fn health() -> HealthCheck {
    HealthCheck {
        probe: Probe {
            kind: ProbeKind::Command,
            command: vec!["check".to_owned()],
            ..Probe::default()
        },
        interval_ms: 200,
        timeout_ms: 1000,
        start_period_ms: 3000,
        retries: 2,
        liveness: None,
    }
}

proptest! {
    // Each of them takes long, because all of it is real but the machine and the clock.
    #![proptest_config(ProptestConfig { cases: cases() / 4, ..ProptestConfig::default() })]

    #[test]
    fn services_of_a_release_change_together_or_not_at_all(
        seed in any::<u64>(),
        events in prop::collection::vec(event(), 1..25),
    ) {
        let mut world = World::new(seed);
        for event in &events {
            world.happen(event);
        }
        // However it went: the next server finds its way, and somebody can deploy again.
        world.crash(None);
        world.settle();
        world.rest();
    }
}

//! Releases of several services on a simulated machine: the server's own code, with a database, a clock that stands until nothing
//! is left to do, and instances that answer, hang, end and are killed. Servers die at records and between them, requests come
//! twice, operators abort, promote and settle.
//!
//! What must be true is looked at all the time (one release has all of the traffic and all of the routes, somebody well answers)
//! and after everything has come to rest (what lives is the release that was committed last, whole, and nothing else).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::sleep;

use super::machine::{Behaviour, Machine, ids};
use super::scene::{API, WORKER, deployment, platform, recover};
use super::{TENANT, cases, folder};
use crate::deployments::{self, APP, State};
use crate::die::simulated::{die_at, has_died};
use crate::platform::App;
use crate::rollout::LiveState;
use crate::rollout::{Unchanged, settle as settled_by};
use crate::store::deployment_fixtures::tenant;
use crate::store::fixtures::make_keys_older;
use crate::store::{Begun, DeploymentRow, IdempotencyKey, Store, StoreError, StoredAnswer};
use crate::tenant::Tenant;

/// Between two looks at everything.
const LOOK: Duration = Duration::from_millis(50);
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
pub(super) struct Wanted {
    /// What the images of `app`, `api` and `worker` consist of; there may be no worker.
    pub(super) images: (u8, u8, Option<u8>),
    pub(super) replicas: u32,
    pub(super) strategy: usize,
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
pub(super) struct Server {
    runtime: tokio::runtime::Runtime,
    app: App,
    pub(super) tenant: Arc<Tenant>,
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
pub(super) struct Before {
    pub(super) number: u64,
    pub(super) live: Option<u64>,
    pub(super) instances: BTreeMap<String, BTreeSet<String>>,
}

pub(super) struct World {
    pub(super) store: Store,
    folder: tempfile::TempDir,
    pub(super) machine: Arc<Machine>,
    server: Option<Server>,
    /// How many there have been.
    servers: u32,
    /// What each key was answered, with the request that it was for. Forgotten when the store may have forgotten it.
    answers: BTreeMap<u8, (Wanted, u64)>,
    /// Records of each deployment.
    pub(super) records: BTreeMap<u64, usize>,
    /// Whether nothing has been done to instances since everything was whole.
    pub(super) unhurt: bool,
    /// Of the last deployment, as long as it has nobody to blame but itself.
    pub(super) before: Option<Before>,
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
            Event::Abort => {
                self.before = None;
                self.signal(Tenant::abort_rollout);
            }
            Event::Promote => self.signal(Tenant::promote_rollout),
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

    pub(super) fn with<T>(&self, work: impl AsyncFnOnce(&Server) -> T) -> T {
        let server = self.server.as_ref().expect("there is always a server");
        server.runtime.block_on(work(server))
    }

    fn signal(&self, tell: fn(&Tenant, u64) -> bool) {
        self.with(async |server| {
            if let Some(number) = server.tenant.rollout() {
                tell(&server.tenant, number);
            }
        });
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
            let limit = dies.map_or(REST, Duration::from_millis);
            tokio::time::timeout(limit, recover(&app)).await
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
}

impl Drop for World {
    fn drop(&mut self) {
        die_at(None);
        if let Some(server) = self.server.take() {
            server.die();
        }
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

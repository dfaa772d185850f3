//! Deployments as the database sees them, driven by hand: crashes at any point, requests that come twice or late,
//! answers that are lost, executors that wake up after their server has died, a clock that jumps.
//!
//! The store, the rules of the states, the recovery and the idempotency keys are the real ones. Only instances and
//! sockets are missing: what serves is what the last record says. That the records are followed is for the tests in
//! `core/tests/server/records.rs`, which kill a real server at each of them.

mod checks;
mod machine;
pub(crate) mod scene;
mod services;

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::finish_interrupted;
use crate::deployments::{Capsule, State, capsule_fixture};
use crate::store::deployment_fixtures::{request, step, tenant};
use crate::store::fixtures::{make_keys_older, postgres};
use crate::store::{
    Begun, DeploymentRow, IdempotencyKey, NewDeployment, Store, StoreError, StoredAnswer,
};

const TENANT: &str = "a";
const DAY_MILLIS: i64 = 24 * 60 * 60 * 1000;

/// What happens next.
#[derive(Debug, Clone)]
enum Event {
    /// A request with this key, for this image; how far it gets before its server dies, if it does.
    Request {
        key: u8,
        image: u8,
        dies: Option<Death>,
    },
    /// The running deployment writes its next record, chosen among those that it may write. The answer may be lost.
    Step { choice: usize, answer_lost: bool },
    /// The server dies, and another one starts.
    Crash,
    /// An executor of a server that is dead writes what it was about to write.
    Ghost { which: usize, choice: usize },
    /// An operator says that it is settled.
    Settle,
    /// The machine's clock jumps by so many hours.
    Jump { hours: i8 },
}

/// Where a server dies that answers a request.
#[derive(Debug, Clone, Copy)]
enum Death {
    /// The key is claimed, and nothing begun.
    AfterClaim,
    /// All is written, and nobody told.
    AfterBegin,
}

fn event() -> impl Strategy<Value = Event> {
    let death = prop_oneof![
        8 => Just(None),
        1 => Just(Some(Death::AfterClaim)),
        1 => Just(Some(Death::AfterBegin)),
    ];
    prop_oneof![
        4 => (0..6_u8, 0..3_u8, death).prop_map(|(key, image, dies)| Event::Request { key, image, dies }),
        10 => (any::<usize>(), prop::bool::weighted(0.1))
            .prop_map(|(choice, answer_lost)| Event::Step { choice, answer_lost }),
        1 => Just(Event::Crash),
        2 => (any::<usize>(), any::<usize>()).prop_map(|(which, choice)| Event::Ghost { which, choice }),
        1 => Just(Event::Settle),
        1 => (-48..48_i8).prop_map(|hours| Event::Jump { hours }),
    ]
}

/// The code that carries out a deployment, and the state that it believes in.
#[derive(Debug, Clone)]
struct Executor {
    row: DeploymentRow,
    state: State,
}

struct World {
    store: Store,
    running: Option<Executor>,
    /// Those of servers that have died.
    ghosts: Vec<Executor>,
    /// What each key was answered, with the image that it was for. Forgotten when the store may have forgotten it.
    answers: BTreeMap<u8, (u8, u64)>,
    /// Records of each deployment.
    records: BTreeMap<u64, usize>,
    /// The last one that was committed.
    committed: Option<u64>,
}

impl World {
    async fn new(store: Store) -> Self {
        tenant(&store).await;
        Self {
            store,
            running: None,
            ghosts: Vec::new(),
            answers: BTreeMap::new(),
            records: BTreeMap::new(),
            committed: None,
        }
    }

    async fn happen(&mut self, event: &Event) {
        match *event {
            Event::Request { key, image, dies } => self.request(key, image, dies).await,
            Event::Step {
                choice,
                answer_lost,
            } => self.step(choice, answer_lost).await,
            Event::Crash => self.crash().await,
            Event::Ghost { which, choice } => self.ghost(which, choice).await,
            Event::Settle => self.settle().await,
            Event::Jump { hours } => self.jump(hours).await,
        }
    }

    /// As `http::idempotency::once` and `http::deploy::begin` do it.
    async fn request(&mut self, key: u8, image: u8, dies: Option<Death>) {
        let claim = IdempotencyKey {
            scope: "deploy".into(),
            key: key.to_string(),
            body_hash: vec![image],
        };
        let known = self.answers.get(&key).copied();
        match self.store.claim_key(claim.clone()).await.unwrap() {
            Begun::Replay(answer) => {
                let number: u64 = answer.body.parse().unwrap();
                assert!(known.is_none_or(|known| known == (image, number)));
                return;
            }
            Begun::Mismatch => {
                assert!(known.is_none_or(|(other, _)| other != image));
                return;
            }
            Begun::InFlight => unreachable!("one request at a time, and a start forgets the rest"),
            // A request that was answered within the day is never carried out again.
            Begun::New => assert_eq!(known, None, "key {key}"),
        }
        if matches!(dies, Some(Death::AfterClaim)) {
            return self.crash().await;
        }
        let new = NewDeployment {
            key: Some(claim.clone()),
            ..request(capsule(image))
        };
        let busy = self.store.running(TENANT).await.unwrap();
        let answer = |number: u64| StoredAnswer {
            status: 202,
            location: None,
            body: number.to_string(),
        };
        match self.store.begin_deployment(new, answer).await {
            Ok(row) => {
                assert!(busy.is_none(), "two at a time: {busy:?}");
                self.answers.insert(key, (image, row.number));
                self.running = Some(Executor {
                    state: row.state,
                    row,
                });
                if matches!(dies, Some(Death::AfterBegin)) {
                    self.crash().await;
                }
            }
            Err(StoreError::InProgress { number }) => {
                assert_eq!(busy.map(|row| row.number), Some(number));
                self.store.release_key(claim).await.unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }

    async fn step(&mut self, choice: usize, answer_lost: bool) {
        let Some(executor) = &mut self.running else {
            return;
        };
        let Some(to) = next(executor.state, choice) else {
            return;
        };
        let step = step(&executor.row, executor.state, to);
        self.store.advance(step).await.unwrap();
        if answer_lost {
            // What `Rollout::is_written` looks at.
            let row = self.store.deployment(TENANT, executor.row.number).await;
            assert_eq!(row.unwrap().unwrap().state, to);
        }
        executor.state = to;
        if to == State::Verified {
            self.committed = Some(executor.row.number);
        }
        if to.is_final() {
            self.running = None;
        }
    }

    async fn crash(&mut self) {
        self.ghosts.extend(self.running.take());
        finish_interrupted(&self.store).await.unwrap();
        self.store.release_keys_in_flight().await.unwrap();
        // What the last server left is settled, and nothing else touched.
        let left = self.store.unfinished().await.unwrap();
        assert!(left.iter().all(|row| row.state == State::NeedsOperator));
    }

    /// Its deployment was settled when the next server started: it must change nothing.
    async fn ghost(&mut self, which: usize, choice: usize) {
        if self.ghosts.is_empty() {
            return;
        }
        let ghost = &self.ghosts[which % self.ghosts.len()];
        let Some(to) = next(ghost.state, choice) else {
            return;
        };
        let written = self.store.advance(step(&ghost.row, ghost.state, to)).await;
        assert!(
            matches!(written, Err(StoreError::Stale { .. })),
            "{ghost:?}"
        );
    }

    async fn settle(&mut self) {
        let waiting = self.store.running(TENANT).await.unwrap();
        if let Some(row) = waiting.filter(|row| row.state == State::NeedsOperator) {
            let settled = step(&row, row.state, State::RolledBack);
            self.store.advance(settled).await.unwrap();
        }
    }

    /// As if everything had been written at another time. Forwards the store may forget what it answered.
    async fn jump(&mut self, hours: i8) {
        let millis = i64::from(hours) * DAY_MILLIS / 24;
        make_keys_older(&self.store, millis).await;
        if hours > 0 {
            self.answers.clear();
        }
    }

    /// What must be true after everything that may happen.
    async fn check(&mut self) {
        let running = self.running.as_ref().map(|executor| executor.row.number);
        check_history(&self.store, running, self.committed, &mut self.records).await;
    }
}

/// What is written of a tenant's deployments, of which one may be carried out, and one was committed last.
async fn check_history(
    store: &Store,
    running: Option<u64>,
    committed: Option<u64>,
    records: &mut BTreeMap<u64, usize>,
) {
    let live = store.tenant(TENANT).await.unwrap().unwrap().live;
    assert_eq!(
        live, committed,
        "the release that serves is the last that was committed"
    );
    let rows = store.deployments(TENANT, 1000).await.unwrap();
    let unfinished = rows.iter().filter(|row| row.finished_at.is_none());
    let unfinished: Vec<_> = unfinished.collect();
    assert!(unfinished.len() <= 1, "{unfinished:?}");
    for row in &unfinished {
        assert!(
            running == Some(row.number) || row.state == State::NeedsOperator,
            "a lock without an owner: {row:?}"
        );
    }
    assert_eq!(
        rows.iter().filter(|row| row.live).count(),
        usize::from(live.is_some())
    );
    let numbers = rows.iter().rev().map(|row| row.number);
    assert!(numbers.eq(1..=rows.len() as u64), "a deployment is missing");
    for row in &rows {
        let events = store.events_after(TENANT, row.number, 0).await.unwrap();
        let known = records.insert(row.number, events.len()).unwrap_or(1);
        assert!(
            events.len() >= known,
            "a record of deployment {} is lost",
            row.number
        );
        assert_eq!(
            events.last().map(|event| event.state.as_str()),
            Some(row.state.as_str())
        );
    }
    store.check_chain(None).await.unwrap();
}

fn capsule(image: u8) -> Capsule {
    capsule_fixture(char::from(b'a' + image))
}

/// One of the states that may follow.
fn next(state: State, choice: usize) -> Option<State> {
    let allowed = State::ALL
        .into_iter()
        .filter(|next| state.may_become(*next));
    // Only an operator ends that.
    let allowed: Vec<State> = match state {
        State::NeedsOperator => Vec::new(),
        _ => allowed.collect(),
    };
    (!allowed.is_empty()).then(|| allowed[choice % allowed.len()])
}

/// On a memory disk where there is one: thousands of histories are thousands of flushes.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    tempfile::tempdir_in(memory).unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn no_history_strands_a_tenant(events in prop::collection::vec(event(), 1..40)) {
        let folder = folder();
        let store = Store::open(&folder.path().join("state.db")).unwrap();
        runtime().block_on(live(store, &events));
    }
}

/// The same history with the other database: fewer of them, because each answer takes its way.
#[test]
fn real_postgres_no_history_strands_a_tenant() {
    let postgres = runtime().block_on(postgres());
    let config = ProptestConfig {
        cases: cases() / 20,
        ..ProptestConfig::default()
    };
    let histories = prop::collection::vec(event(), 1..40);
    let ran = TestRunner::new(config).run(&histories, |events| {
        runtime().block_on(async {
            live(postgres.fresh().await, &events).await;
        });
        Ok(())
    });
    ran.unwrap();
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.build().unwrap()
}

async fn live(store: Store, events: &[Event]) {
    let mut world = World::new(store).await;
    for event in events {
        world.happen(event).await;
        world.check().await;
    }
    // However it went: the next server finds its way, and somebody can deploy again.
    world.crash().await;
    world.settle().await;
    world.check().await;
    assert!(world.store.running(TENANT).await.unwrap().is_none());
}

fn cases() -> u32 {
    let asked = std::env::var("SYSTEMPROMPT_TEST_HISTORIES");
    asked.map_or(500, |cases| cases.parse().unwrap())
}

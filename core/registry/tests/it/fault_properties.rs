//! Whatever goes wrong and whenever: a push completes with exactly the right content in the registry,
//! or ends in a named error in bounded time, and the next push completes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use oci::{Client, ClientError, Descriptor, Digest, RetryPolicy};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use crate::faulty::{Call, Fault, Faulty};
use crate::image::{TestImage, client, options, repository, tag};
use crate::server::{ALICE, Server};

/// A push of a few hundred kilobytes, with pauses of milliseconds. The rest is for a busy machine.
const BOUND: Duration = Duration::from_secs(30);

/// The calls of a push.
const CALLS: [(&str, &str); 7] = [
    ("HEAD", "/manifests/"),
    ("HEAD", "/blobs/"),
    ("POST", "mount="),
    ("POST", "/blobs/uploads/"),
    ("PATCH", "/blobs/uploads/"),
    ("PUT", "/blobs/uploads/"),
    ("PUT", "/manifests/"),
];

/// Two registries: one that is well, and one in front of it that is not.
struct World {
    behind: String,
    faulty: Faulty,
    pushes: AtomicU64,
}

impl World {
    fn new(behind: String, faulty: Faulty) -> Self {
        Self {
            behind,
            faulty,
            pushes: AtomicU64::new(1),
        }
    }

    /// An image and a repository that no other push uses.
    fn fresh(&self, lengths: &[usize]) -> Push<'_> {
        let number = self.pushes.fetch_add(1, Ordering::SeqCst);
        Push {
            world: self,
            image: TestImage::new(9000 + number, lengths),
            name: format!("alice/n{number}"),
        }
    }
}

struct Push<'a> {
    world: &'a World,
    image: TestImage,
    name: String,
}

impl Push<'_> {
    /// The first layer lies in a repository next door.
    fn offer_first_layer(&self) {
        let (descriptor, bytes) = &self.image.blobs[0];
        client(&self.world.behind, Some(ALICE))
            .push_blob(&repository("alice/source"), descriptor, bytes)
            .unwrap();
    }

    fn run(&self) -> Result<(), ClientError> {
        let client = Client::new(&self.world.faulty.host(), impatient()).unwrap();
        let from = [repository("alice/source")];
        let started = Instant::now();
        let done = self.image.try_push(&client, &self.name, "v1", &from);
        assert!(started.elapsed() < BOUND, "it took {:?}", started.elapsed());
        done.map(drop)
    }

    /// Right now or after the next push, with nothing lost and nobody's password elsewhere.
    fn check(&self, outcome: Result<(), ClientError>) {
        self.world.faulty.heal();
        match outcome {
            Ok(()) => self.is_whole(),
            Err(error) => {
                is_named(&error);
                self.run().unwrap();
                self.is_whole();
            }
        }
        let leaks = self.world.faulty.seen().leaks.load(Ordering::SeqCst);
        assert_eq!(leaks, 0, "credentials went to another host");
    }

    fn is_whole(&self) {
        let client = client(&self.world.behind, Some(ALICE));
        let name = repository(&self.name);
        let manifest = client.get_manifest(&name, &tag("v1")).unwrap();
        assert_eq!(manifest.bytes, self.image.manifest.to_vec());
        for (descriptor, bytes) in &self.image.blobs {
            let copy = blob(&client, &self.name, descriptor);
            assert!(copy == *bytes && Digest::of(&copy) == descriptor.digest);
        }
    }
}

fn blob(client: &Client, name: &str, descriptor: &Descriptor) -> Vec<u8> {
    let mut copy = Vec::new();
    client
        .get_blob(&repository(name), descriptor, &mut copy)
        .unwrap();
    copy
}

/// It says which call failed at which address, and blames nobody's file.
fn is_named(error: &ClientError) {
    let text = error.to_string();
    assert!(text.contains("http://127.0.0.1:"), "{text}");
    let ours = matches!(
        error,
        ClientError::Source { .. } | ClientError::NoSource { .. } | ClientError::Interrupted
    );
    assert!(!ours, "{text}");
}

/// The usual number of tries, with next to no pauses.
fn impatient() -> oci::ClientOptions {
    oci::ClientOptions {
        retry: RetryPolicy {
            total: Duration::from_secs(20),
            first_pause: Duration::from_millis(1),
            longest_pause: Duration::from_millis(4),
            ..RetryPolicy::default()
        },
        ..options(Some(ALICE))
    }
}

#[test]
fn every_fault_at_every_call_passes_or_is_named() {
    let server = Server::start();
    let world = World::new(server.host(), Faulty::before(&server.host()));
    for (method, part) in CALLS {
        for fault in Fault::ALL {
            let part = part.to_owned();
            at(&world, Call { method, part }, fault);
        }
    }
}

fn at(world: &World, call: Call, fault: Fault) {
    let name = format!("{fault:?} at {} {}", call.method, call.part);
    let chunked = call.method == "PATCH";
    let push = world.fresh(if chunked { &[300_000] } else { &[70_000, 900] });
    if chunked {
        let whole = Call {
            method: "PUT",
            part: push.image.blobs[0].0.digest.hex(),
        };
        world.faulty.fail_once(whole, Fault::Status(413));
    } else {
        push.offer_first_layer();
    }
    world.faulty.fail_once(call, fault);
    let outcome = push.run();
    assert!(world.faulty.has_failed(), "{name} never was");
    match &outcome {
        Ok(()) => {}
        Err(error) if fault.passes() => panic!("{name}: {error:?}"),
        Err(error) => assert!(says_what_happened(error, fault), "{name}: {error:?}"),
    }
    push.check(outcome);
}

/// The error is the one that the fault means.
fn says_what_happened(error: &ClientError, fault: Fault) -> bool {
    match fault {
        Fault::Status(401) => matches!(error, ClientError::Unauthorized { .. }),
        Fault::Status(status) => error.answer().is_some_and(|answer| answer.status == status),
        Fault::WrongDigest => matches!(error, ClientError::DigestMismatch { .. }),
        Fault::Garbage => matches!(error, ClientError::Protocol { .. }),
        _ => false,
    }
}

/// Layers of each kind: empty, of a byte, in one segment, with and without a word to go on.
const LAYERS: [usize; 5] = [0, 1, 900, 70_000, 300_000];

fn faults(which: fn(&Fault) -> bool) -> impl Strategy<Value = Fault> {
    let all: Vec<Fault> = Fault::ALL.into_iter().filter(which).collect();
    prop::sample::select(all)
}

/// The same cases in every run: a failure must be there again the next time.
fn for_each_case<S: Strategy>(cases: u32, strategy: S, check: impl Fn(S::Value)) {
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    };
    let random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, random);
    let run = runner.run(&strategy, |value| {
        check(value);
        Ok::<(), TestCaseError>(())
    });
    if let Err(error) = run {
        panic!("{error}");
    }
}

fn any_schedule() -> impl Strategy<Value = Vec<Option<Fault>>> {
    prop::collection::vec(prop::option::weighted(0.35, faults(|_| true)), 1..30)
}

/// Fewer faults than one operation has tries, each of which passes.
fn passing_schedule() -> impl Strategy<Value = Vec<Option<Fault>>> {
    (
        prop::collection::vec(faults(|fault| fault.passes()), 1..5),
        Just(vec![None; 20]),
    )
        .prop_map(|(faults, rest)| faults.into_iter().map(Some).chain(rest).collect::<Vec<_>>())
        .prop_shuffle()
}

fn any_faults(world: &World, cases: u32) {
    for_each_case(cases, any_schedule(), |schedule| {
        let push = world.fresh(&LAYERS);
        push.offer_first_layer();
        world.faulty.schedule(&schedule);
        push.check(push.run());
    });
}

#[test]
fn any_schedule_of_faults_ends_whole_or_named() {
    let server = Server::start();
    let world = World::new(server.host(), Faulty::before(&server.host()));
    any_faults(&world, 80);
}

#[test]
fn any_schedule_of_faults_ends_whole_or_named_with_tokens_that_end() {
    let server = Server::start();
    // More uses than there are uploads at a time: else others may use a token up, again and again,
    // before one of them comes to it.
    let faulty = Faulty::with_tokens(&server.host(), 8);
    let world = World::new(server.host(), faulty);
    any_faults(&world, 40);
}

/// The same against a registry that nobody here wrote.
pub(crate) fn any_schedule_ends_whole_or_named(behind: &str) {
    let world = World::new(behind.to_owned(), Faulty::before(behind));
    any_faults(&world, 24);
}

#[test]
fn a_few_faults_that_pass_are_got_over() {
    let server = Server::start();
    let world = World::new(server.host(), Faulty::before(&server.host()));
    for_each_case(60, passing_schedule(), |schedule| {
        let push = world.fresh(&LAYERS);
        push.offer_first_layer();
        world.faulty.schedule(&schedule);
        let outcome = push.run();
        assert!(outcome.is_ok(), "{outcome:?}");
        push.check(outcome);
    });
}

//! What a push may cost: requests, bytes and connections, counted at the registry's door. Time is
//! for benchmarks; a request more than here is a regression.

use std::sync::atomic::Ordering;

use oci::{ImagePush, Known, Pushed, push_image};

use crate::faulty::Faulty;
use crate::image::{TestImage, client, repository};
use crate::server::{ALICE, Server};

/// Layers of the images.
const LAYERS: [usize; 4] = [200_000, 90_000, 3_000, 10];
const L: usize = LAYERS.len();
/// Blobs that go at the same time.
const PARALLEL: usize = 6;

/// A registry whose door is watched.
struct Watched {
    door: Faulty,
}

/// What went through the door.
#[derive(Debug, PartialEq, Eq)]
struct Cost {
    requests: usize,
    blob_bytes: usize,
}

impl Watched {
    /// Pushes with a new client, as a new process would, and holds it to its own count.
    fn push(&self, image: &TestImage, name: &str, tag: &str, known: &Known) -> (Pushed, Cost) {
        let seen = self.door.seen();
        let before = (
            seen.requests.load(Ordering::SeqCst),
            seen.blob_bytes.load(Ordering::SeqCst),
            seen.connections.load(Ordering::SeqCst),
        );
        let client = client(&self.door.host(), Some(ALICE));
        let pushed = image.push_knowing(&client, name, tag, &[], known).unwrap();
        let cost = Cost {
            requests: seen.requests.load(Ordering::SeqCst) - before.0,
            blob_bytes: usize::try_from(seen.blob_bytes.load(Ordering::SeqCst) - before.1).unwrap(),
        };
        assert_eq!(pushed.requests, cost.requests as u64);
        let connections = seen.connections.load(Ordering::SeqCst) - before.2;
        let at_most = if cost.requests == 1 { 1 } else { PARALLEL };
        assert!(connections <= at_most, "{connections} connections");
        (pushed, cost)
    }
}

fn all_new(image: &TestImage) -> Known {
    let mut known = Known::new();
    for (descriptor, _) in &image.blobs {
        known.produced(descriptor.digest);
    }
    known
}

fn held_by(image: &TestImage, name: &str) -> Known {
    let mut known = Known::new();
    for (descriptor, _) in &image.blobs {
        known.held_by(descriptor.digest, repository(name));
    }
    known
}

fn size(image: &TestImage) -> usize {
    image.blobs.iter().map(|(_, bytes)| bytes.len()).sum()
}

/// The table of `oci::push_image`.
pub(crate) fn pushes_keep_to_their_budget(address: &str) {
    let watched = Watched {
        door: Faulty::before(address),
    };
    let (nothing, image) = (Known::new(), TestImage::new(80, &LAYERS));
    let cost = |requests, blob_bytes| Cost {
        requests,
        blob_bytes,
    };
    let first = watched.push(&image, "alice/a", "v1", &all_new(&image));
    assert_eq!(first.1, cost(2 * L + 4, size(&image)), "a first push");

    let again = watched.push(&image, "alice/a", "v1", &nothing);
    assert_eq!(again.1, cost(1, 0), "nothing changed");

    let retagged = watched.push(&image, "alice/a", "v2", &held_by(&image, "alice/a"));
    assert_eq!(retagged.1, cost(3, 0), "a new tag");

    let (changed, mut known) = one_changed(&image);
    let bytes = changed.blobs[0].1.len() + changed.blobs[L].1.len();
    let (pushed, spent) = watched.push(&changed, "alice/a", "v3", &known);
    assert_eq!(spent, cost(L + 5, bytes), "one layer changed");
    assert_eq!((pushed.uploaded, pushed.existing), (2, L - 1));

    known = held_by(&image, "alice/a");
    let (pushed, spent) = watched.push(&image, "alice/b", "v1", &known);
    assert_eq!(spent, cost(L + 3, 0), "another repository");
    assert_eq!((pushed.mounted, pushed.uploaded), (L + 1, 0));

    let other = TestImage::new(82, &LAYERS);
    let (_, spent) = watched.push(&other, "alice/a", "v4", &nothing);
    assert_eq!(spent, cost(3 * L + 5, size(&other)), "nothing is known");
}

/// The image with another first layer, and what a second run of the tool knows of it.
fn one_changed(image: &TestImage) -> (TestImage, Known) {
    let mut blobs = image.blobs[1..L].to_vec();
    blobs.insert(0, TestImage::new(81, &LAYERS[..1]).blobs[0].clone());
    let changed = TestImage::of(blobs);
    let mut known = Known::new();
    known.produced(changed.blobs[0].0.digest);
    for (descriptor, _) in &changed.blobs[1..L] {
        known.held_by(descriptor.digest, repository("alice/a"));
    }
    (changed, known)
}

/// The same image for many tenants: its bytes go once, and each further one costs the same.
pub(crate) fn further_repositories_send_no_blobs(address: &str, repositories: usize) {
    let watched = Watched {
        door: Faulty::before(address),
    };
    let image = TestImage::new(83, &LAYERS);
    let first = watched.push(&image, "alice/t1", "v1", &all_new(&image));
    assert_eq!(first.1.blob_bytes, size(&image));
    let known = held_by(&image, "alice/t1");
    for number in 2..=repositories {
        let name = format!("alice/t{number}");
        let (pushed, spent) = watched.push(&image, &name, "v1", &known);
        let expected = Cost {
            requests: L + 3,
            blob_bytes: 0,
        };
        assert_eq!(spent, expected, "repository {number}");
        assert_eq!(pushed.mounted, L + 1);
    }
    let sent = watched.door.seen().blob_bytes.load(Ordering::SeqCst);
    assert_eq!(sent, size(&image) as u64);
}

/// Without a tag the digest is all there is to look for.
#[test]
fn a_push_by_digest_asks_for_the_digest() {
    let server = Server::start();
    let client = client(&server.host(), Some(ALICE));
    let image = TestImage::new(85, &LAYERS);
    let push = ImagePush {
        repository: &repository("alice/a"),
        manifest: &image.manifest,
        sources: &image.sources(),
        tag: None,
        mount_from: &[],
        known: &Known::new(),
        store: None,
        ahead: None,
    };
    let first = push_image(&client, &push).unwrap();
    // One look less than with a tag.
    assert_eq!(first.requests, 3 * L as u64 + 4);
    let again = push_image(&client, &push).unwrap();
    assert_eq!((again.requests, again.bytes), (1, 0));
}

/// What is known may be wrong: it costs requests, and nothing else.
#[test]
fn wrong_knowledge_costs_requests_only() {
    let server = Server::start();
    let client = client(&server.host(), Some(ALICE));
    let image = TestImage::new(84, &LAYERS);
    let known = held_by(&image, "alice/never");
    let pushed = image
        .push_knowing(&client, "alice/a", "v1", &[], &known)
        .unwrap();
    assert_eq!(
        (pushed.uploaded, pushed.requests),
        (L + 1, 3 * (L as u64 + 1) + 2)
    );
    // Called new, and there all the same.
    let pushed = image
        .push_knowing(&client, "alice/a", "v2", &[], &all_new(&image))
        .unwrap();
    assert_eq!(pushed.uploaded, L + 1);
    // Said to be elsewhere only, and from there it may not be taken.
    let known = held_by(&image, "bob/secret");
    let pushed = image
        .push_knowing(&client, "alice/a", "v3", &[], &known)
        .unwrap();
    assert_eq!((pushed.existing, pushed.uploaded), (L + 1, 0));
}

//! Registries that bound the bodies they take, each in its own way.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use oci::{Descriptor, media_type};
use registry::Limits;

use crate::image::{client, noise, repository};
use crate::server::{ALICE, Server};

/// The lengths of the bodies that passed, by method.
type Passed = Arc<Mutex<Vec<(Method, u64)>>>;

/// A server whose bodies are bounded, and what it lets through.
struct Bounded {
    longest: u64,
    refusal: StatusCode,
    /// `OCI-Chunk-Min-Length`, and what becomes of shorter ones.
    least: Option<u64>,
}

impl Bounded {
    fn start(self) -> (Server, Passed) {
        let passed = Passed::default();
        let seen = Arc::clone(&passed);
        let bounds = Arc::new(self);
        let server = Server::with(Limits::default(), |router: Router| {
            router.layer(middleware::from_fn(move |request: Request, next: Next| {
                let (bounds, seen) = (Arc::clone(&bounds), Arc::clone(&seen));
                async move { bounds.answer(request, next, &seen).await }
            }))
        });
        (server, passed)
    }

    async fn answer(&self, request: Request, next: Next, passed: &Passed) -> Response {
        let length = length(request.headers());
        if length > self.longest {
            return self.refusal.into_response();
        }
        if length > 0 {
            let method = request.method().clone();
            passed.lock().unwrap().push((method, length));
        }
        let begins = request.method() == Method::POST;
        let mut response = next.run(request).await;
        if let (true, Some(least)) = (begins, self.least) {
            let value = HeaderValue::from(least);
            response.headers_mut().insert("oci-chunk-min-length", value);
        }
        response
    }
}

fn length(headers: &HeaderMap) -> u64 {
    let length = headers.get(header::CONTENT_LENGTH);
    length
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .unwrap_or_default()
}

/// Pushes blobs of ten million bytes one after the other; they must arrive, with no byte sent twice.
fn push(server: &Server, blobs: u64) -> u64 {
    let client = client(&server.host(), Some(ALICE));
    let name = repository("alice/app");
    for seed in 0..blobs {
        let bytes = noise(6400 + seed, SIZE);
        let descriptor = Descriptor::of(media_type::OCI_LAYER, &bytes);
        client.push_blob(&name, &descriptor, &bytes).unwrap();
        assert!(client.blob_exists(&name, &descriptor.digest).unwrap());
    }
    let counters = client.counters();
    assert_eq!(counters.bytes_sent, blobs * SIZE as u64);
    counters.requests
}

const SIZE: usize = 10_000_000;

/// As a large registry does it: 416 for what is too large, at the right place.
#[test]
fn a_range_refused_for_its_size_makes_chunks() {
    let bounded = Bounded {
        longest: 4 * 1024 * 1024,
        refusal: StatusCode::RANGE_NOT_SATISFIABLE,
        least: None,
    };
    let (server, passed) = bounded.start();
    push(&server, 1);
    let passed = passed.lock().unwrap();
    assert!(passed.iter().all(|(method, _)| method == Method::PATCH));
    assert_eq!(passed.len(), 3, "{passed:?}");
}

#[test]
fn what_one_blob_has_learnt_holds_for_the_next() {
    let bounded = |longest| Bounded {
        longest,
        refusal: StatusCode::PAYLOAD_TOO_LARGE,
        least: None,
    };
    let (server, _) = bounded(5_000_000).start();
    let one = push(&server, 1);
    let (server, _) = bounded(5_000_000).start();
    // Begin, three chunks, end, and the look of the test: no refusal, no second beginning.
    assert_eq!(push(&server, 2) - one, 1 + 3 + 1 + 1);
}

#[test]
fn the_least_length_of_a_chunk_is_kept_to() {
    const LEAST: u64 = 4_500_000;
    let bounded = Bounded {
        longest: 5_000_000,
        refusal: StatusCode::PAYLOAD_TOO_LARGE,
        least: Some(LEAST),
    };
    let (server, passed) = bounded.start();
    push(&server, 1);
    let lengths: Vec<u64> = passed.lock().unwrap().iter().map(|(_, n)| *n).collect();
    assert_eq!(lengths, [LEAST, LEAST, 1_000_000]);
}

/// Larger than it takes: nothing helps, and the refusal is told at once.
#[test]
fn a_registry_that_contradicts_itself_is_told_so() {
    let bounded = Bounded {
        longest: 1_000_000,
        refusal: StatusCode::PAYLOAD_TOO_LARGE,
        least: Some(20_000_000),
    };
    let (server, _) = bounded.start();
    let client = client(&server.host(), Some(ALICE));
    let bytes = noise(6500, SIZE);
    let descriptor = Descriptor::of(media_type::OCI_LAYER, &bytes);
    let error = client
        .push_blob(&repository("alice/app"), &descriptor, &bytes)
        .unwrap_err();
    assert_eq!(error.answer().unwrap().status, 413, "{error}");
    assert!(client.counters().requests < 8);
}

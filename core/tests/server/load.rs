//! Requests during deployments: none may fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::harness::{BOUND, Server};
use crate::image::push;

const DEPLOYMENTS: u32 = 20;

/// Asks until told to stop; counts answers and panics at the first that is not 200. With
/// `keep_alive` on one connection, else on a new one each time.
fn load(
    url: String,
    keep_alive: bool,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(BOUND))
            .max_idle_connections(usize::from(keep_alive))
            .build()
            .new_agent();
        while !stop.load(Ordering::Relaxed) {
            let body = agent
                .get(&url)
                .call()
                .and_then(|mut answer| answer.body_mut().read_to_string());
            match body {
                Ok(body) => assert!(body.starts_with('v'), "{body}"),
                Err(error) => panic!("request {} failed: {error}", count.load(Ordering::Relaxed)),
            }
            count.fetch_add(1, Ordering::Relaxed);
        }
    })
}

#[test]
fn twenty_deployments_under_load_fail_no_request() {
    let server = Server::start();
    for number in 0..=DEPLOYMENTS {
        let version = format!("v{number}");
        push(&server, "local", &version, &[("VERSION", &version)]);
    }
    assert_eq!(server.deploy_and_wait("v0").state, "succeeded");
    let (stop, count) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let url = server.app_url();
    let threads: Vec<_> = [
        ("/version", true),
        ("/version", true),
        ("/version", false),
        ("/version", false),
        ("/slow/150", true),
        ("/slow/150", false),
    ]
    .map(|(path, keep_alive)| {
        load(
            format!("{url}{path}"),
            keep_alive,
            Arc::clone(&stop),
            Arc::clone(&count),
        )
    })
    .into();
    for number in 1..=DEPLOYMENTS {
        let version = format!("v{number}");
        let done = server.deploy_and_wait(&version);
        assert_eq!(done.state, "succeeded", "{done:?}");
        assert_eq!(server.version(), Some(version));
    }
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    let answered = count.load(Ordering::Relaxed);
    assert!(
        answered > u64::from(DEPLOYMENTS) * 10,
        "only {answered} requests"
    );
}

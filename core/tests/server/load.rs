//! Requests during deployments: none may fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::{BOUND, Server};
use crate::image::push;

const DEPLOYMENTS: u32 = 20;
/// Between two requests of a client. Without it the clients have the processors to themselves, and it is them that a deployment
/// waits for.
const PAUSE: Duration = Duration::from_millis(10);

/// Requests that go on beside whatever a test does.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Load {
    /// On connections that stay open and on new ones, quick answers and slow ones.
    pub(crate) fn start(server: &Server) -> Self {
        Self::of(
            server,
            &[
                ("/version", true),
                ("/version", true),
                ("/version", false),
                ("/version", false),
                ("/slow/150", true),
                ("/slow/150", false),
            ],
        )
    }

    fn of(server: &Server, clients: &[(&str, bool)]) -> Self {
        let (stop, count) = (Arc::default(), Arc::default());
        let url = server.app_url();
        let threads = clients.iter().map(|(path, keep_alive)| {
            let url = format!("{url}{path}");
            load(url, *keep_alive, Arc::clone(&stop), Arc::clone(&count))
        });
        Self {
            threads: threads.collect(),
            stop,
            count,
        }
    }

    /// How many were answered; fails if one was not answered 200.
    pub(crate) fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        self.count.load(Ordering::Relaxed)
    }
}

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
                Ok(body) => assert!(!body.is_empty()),
                Err(error) => panic!("request {} failed: {error}", count.load(Ordering::Relaxed)),
            }
            count.fetch_add(1, Ordering::Relaxed);
            thread::sleep(PAUSE);
        }
    })
}

#[test]
pub(crate) fn twenty_deployments_under_load_fail_no_request() {
    let server = Server::start();
    for number in 0..=DEPLOYMENTS {
        let version = format!("v{number}");
        push(&server, "local", &version, &[("VERSION", &version)]);
    }
    assert_eq!(server.deploy_and_wait("v0").state, "succeeded");
    let load = Load::start(&server);
    for number in 1..=DEPLOYMENTS {
        let version = format!("v{number}");
        let done = server.deploy_and_wait(&version);
        assert_eq!(done.state, "succeeded", "{done:?}");
        assert_eq!(server.version(), Some(version));
    }
    let answered = load.stop();
    assert!(
        answered > u64::from(DEPLOYMENTS) * 10,
        "only {answered} requests"
    );
}

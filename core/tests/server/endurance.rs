//! Deployments one after the other under everything that clients do at once: none of it may fail.
//!
//! Three of each strategy by default. `SYSTEMPROMPT_TEST_DEPLOYMENTS=200` makes it as many as that;
//! `docs/tools/bench-platform` does, and keeps the figures.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use management_api::types::{AnalysisSettings, CanaryStep, DeployRequest, RolloutSettings};

use crate::harness::{BOUND, Server};
use crate::image::push;

const CLIENTS: usize = 32;
/// Of 1.6 s each.
const DOWNLOADS: usize = 4;
const CHUNKS: usize = 64;
const CHUNK: usize = 64 * 1024;
/// Of a second each.
const CONVERSATIONS: usize = 4;
const LINES: usize = 20;
/// Between two requests of a client: all of them together keep one processor busy, not two.
const PACE: Duration = Duration::from_millis(20);

/// What the clients have done so far.
#[derive(Default)]
struct Done {
    stop: AtomicBool,
    kept: AtomicU64,
    fresh: AtomicU64,
    downloads: AtomicU64,
    conversations: AtomicU64,
}

/// Clients of one URL, until they are told to stop.
struct Clients {
    done: Arc<Done>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    fn start(server: &Server) -> Self {
        let mut clients = Self {
            done: Arc::default(),
            threads: Vec::new(),
        };
        let url = server.app_url();
        for _ in 0..CLIENTS {
            let (kept, fresh) = (agent(1), agent(0));
            clients.add(&url, |done| &done.kept, move |url| ask(&kept, url, PACE));
            clients.add(&url, |done| &done.fresh, move |url| ask(&fresh, url, PACE));
        }
        for _ in 0..DOWNLOADS {
            clients.add(&url, |done| &done.downloads, download);
        }
        for _ in 0..CONVERSATIONS {
            clients.add(&url, |done| &done.conversations, converse);
        }
        clients
    }

    /// Does `work` again and again; a panic in it is the end of the client, and of the test.
    fn add(
        &mut self,
        url: &str,
        count: fn(&Done) -> &AtomicU64,
        work: impl Fn(&str) + Send + 'static,
    ) {
        let (url, done) = (url.to_owned(), Arc::clone(&self.done));
        self.threads.push(thread::spawn(move || {
            while !done.stop.load(Ordering::Relaxed) {
                work(&url);
                count(&done).fetch_add(1, Ordering::Relaxed);
            }
        }));
    }

    /// What was done, in words; fails if anything of it has.
    fn stop(self) -> String {
        self.done.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        let count = |count: &AtomicU64| {
            let count = count.load(Ordering::Relaxed);
            assert!(count > 0);
            count
        };
        format!(
            "{} requests on kept and {} on fresh connections, {} downloads, {} upgraded connections, none failed",
            count(&self.done.kept),
            count(&self.done.fresh),
            count(&self.done.downloads),
            count(&self.done.conversations)
        )
    }
}

fn agent(idle: usize) -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(BOUND))
        .max_idle_connections(idle)
        .build()
        .new_agent()
}

fn ask(agent: &ureq::Agent, url: &str, pace: Duration) {
    let answer = agent.get(format!("{url}/version")).call();
    let body = answer.and_then(|mut answer| answer.body_mut().read_to_string());
    assert!(body.unwrap().starts_with('v'));
    thread::sleep(pace);
}

fn download(url: &str) {
    let mut answer = agent(0)
        .get(format!("{url}/download/{CHUNKS}"))
        .call()
        .unwrap();
    let mut reader = answer.body_mut().as_reader();
    let (mut buffer, mut read) = (vec![0; CHUNK], 0);
    loop {
        match reader.read(&mut buffer).unwrap() {
            0 => break,
            count => read += count,
        }
    }
    assert_eq!(read, CHUNKS * CHUNK);
}

/// A connection that changes its protocol, as a WebSocket does, and says a line every 50 ms.
fn converse(url: &str) {
    let address = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    let head = format!(
        "GET /echo HTTP/1.1\r\nhost: {address}\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(line.starts_with("HTTP/1.1 101"), "{line}");
    while line.trim() != "" {
        line.clear();
        reader.read_line(&mut line).unwrap();
    }
    for number in 0..LINES {
        let said = format!("line {number}\n");
        stream.write_all(said.as_bytes()).unwrap();
        line.clear();
        reader.read_line(&mut line).unwrap();
        assert_eq!(line, said);
        thread::sleep(Duration::from_millis(50));
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the figures are read by docs/tools/bench-platform"
)]
fn endure(strategy: &str, rollout: &RolloutSettings) {
    let deployments = std::env::var("SYSTEMPROMPT_TEST_DEPLOYMENTS");
    let deployments: u32 = deployments.map_or(3, |count| count.parse().unwrap());
    let server = Server::start();
    push(&server, "local", "a", &[("VERSION", "va")]);
    push(&server, "local", "b", &[("VERSION", "vb")]);
    let request = |tag: &str| DeployRequest {
        replicas: Some(2),
        strategy: Some(strategy.to_owned()),
        rollout: rollout.clone(),
        ..server.request(tag)
    };
    let deploy = |tag: &str| {
        let number = server.deploy(&request(tag)).deployment.unwrap();
        let done = server.wait(number);
        assert_eq!(done.state, "succeeded", "{done:?}");
    };
    deploy("a");
    let clients = Clients::start(&server);
    let begun = Instant::now();
    for number in 0..deployments {
        deploy(if number % 2 == 0 { "b" } else { "a" });
    }
    let seconds = begun.elapsed().as_secs_f64();
    let done = clients.stop();
    eprintln!("endured: {strategy}: {deployments} deployments in {seconds:.0} s: {done}");
}

#[test]
fn rolling_under_every_kind_of_load() {
    endure("rolling", &RolloutSettings::default());
}

/// There are moments without an instance, in which everybody waits.
#[test]
fn recreate_under_every_kind_of_load() {
    endure("recreate", &RolloutSettings::default());
}

#[test]
fn blue_green_under_every_kind_of_load() {
    let settings = RolloutSettings {
        keep_warm_ms: Some(100),
        ..RolloutSettings::default()
    };
    endure("blue-green", &settings);
}

#[test]
fn canary_under_every_kind_of_load() {
    let settings = RolloutSettings {
        steps: Some(vec![CanaryStep {
            weight: 25,
            pause_ms: Some(300),
        }]),
        // How fast a release answers on a machine that is kept busy by all these clients is no verdict on it.
        analysis: Some(AnalysisSettings {
            max_p95_ms: Some(60_000),
            max_p95_ratio: Some(1000.0),
            ..AnalysisSettings::default()
        }),
        ..RolloutSettings::default()
    };
    endure("canary", &settings);
}

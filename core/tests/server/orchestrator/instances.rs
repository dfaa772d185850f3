//! One instance: started, asked whether it is ready, and whether it still is.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use engines::{EngineError, Exit, Instance, InstanceSpec};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::protocol::{Health, Probe, Service};
use super::{World, images};

static COUNT: AtomicU64 = AtomicU64::new(1);
/// Between two questions to one that starts.
const EAGER: Duration = Duration::from_millis(75);

/// Why one does not get ready.
pub(super) struct Failure {
    pub(super) message: String,
    told: Value,
}

impl Failure {
    fn new(cause: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            told: json!({ "cause": cause, "message": message }),
            message,
        }
    }

    fn ended(exit: Exit) -> Self {
        let mut failure = Self::new("ended", format!("it ended with {exit}"));
        add_exit(&mut failure.told, exit);
        failure
    }

    /// As it travels.
    pub(super) fn of(mut self, service: &str) -> Value {
        self.told["service"] = json!(service);
        self.told
    }

    fn with_lines(mut self, instance: &Instance) -> Self {
        self.told["log_tail"] = json!(instance.log_tail(20));
        self
    }
}

/// How a program has ended, as it travels.
pub(super) fn add_exit(to: &mut Value, exit: Exit) {
    to["exit_code"] = json!(exit.code());
    to["signal"] = json!(exit.signal());
    if let Exit::OutOfMemory { limit } = exit {
        to["out_of_memory"] = json!(limit);
    }
}

/// Starts one; its output goes to `log`.
pub(super) async fn start(
    world: &Arc<World>,
    (tenant, deployment): (&str, u64),
    service: &Service,
    log: PathBuf,
) -> Result<Instance, Failure> {
    let (images, image) = (Arc::clone(&world.images), service.image.clone());
    let fetched = tokio::task::spawn_blocking(move || images::fetch(&images, &image));
    let missing = || Failure::new("image_not_found", "the image is not there: push it again");
    let image = fetched.await.unwrap().ok_or_else(missing)?;
    let port = free_port();
    let command = service.command.clone().map(|words| {
        let words = words.into_iter();
        words
            .map(|word| word.replace("${PORT}", &port.to_string()))
            .collect()
    });
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let spec = InstanceSpec {
        id: match service.name.as_str() {
            "app" => format!("{tenant}-{deployment}-{count}"),
            other => format!("{tenant}--{other}-{deployment}-{count}"),
        },
        repository: tenant.parse().unwrap(),
        image,
        env: service.env.clone(),
        port,
        log,
        command,
        resources: engines::Resources {
            memory: service.resources.memory_bytes,
            cpu_millis: service.resources.cpu_millis,
            pids: service.resources.pids,
            read_only: service.resources.read_only,
            best_effort: service.resources.best_effort,
        },
        volumes: Vec::new(),
    };
    let started = world.engine.start(spec).await;
    started.map_err(|error| match error {
        EngineError::ImageNotFound { .. } => missing(),
        error => Failure::new("start", error.to_string()),
    })
}

/// One that no other instance of a test gets at the same time, of a range that no platform gives out.
fn free_port() -> u16 {
    let first = u64::from(std::process::id()) * 31;
    for _ in 0..1000 {
        let offset = (first + COUNT.fetch_add(1, Ordering::Relaxed) * 7) % 2_000;
        let port = 8_000 + u16::try_from(offset).unwrap();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

/// Returns when it answers as it should; its failure when it will not.
pub(super) async fn until_ready(instance: &Instance, health: &Health) -> Result<(), Failure> {
    let began = Instant::now();
    let start_period = Duration::from_millis(health.start_period_ms);
    if matches!(health.probe, Probe::Process) {
        // Nobody can be asked: to have run for a while is the answer.
        return match timeout(start_period, instance.wait()).await {
            Ok(exit) => Err(Failure::ended(exit).with_lines(instance)),
            Err(_) => Ok(()),
        };
    }
    let mut failures = 0;
    loop {
        let answer = tokio::select! {
            exit = instance.wait() => return Err(Failure::ended(exit).with_lines(instance)),
            answer = ask(instance.address(), health) => answer,
        };
        let pause = match answer {
            Answer::Good => return Ok(()),
            _ if began.elapsed() < start_period => EAGER,
            answer => {
                failures += 1;
                if failures >= health.retries {
                    return Err(answer.failure().with_lines(instance));
                }
                Duration::from_millis(health.interval_ms)
            }
        };
        tokio::select! {
            _ = instance.wait() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Returns why, when one that was ready has ended or answers no more as it should.
pub(super) async fn until_lost(instance: &Instance, health: &Health) -> String {
    let mut failures = 0;
    loop {
        tokio::select! {
            exit = instance.wait() => return format!("it ended with {exit}"),
            () = tokio::time::sleep(Duration::from_millis(health.interval_ms)) => {}
        }
        match ask(instance.address(), health).await {
            Answer::Good => failures = 0,
            answer => {
                failures += 1;
                if failures >= health.retries && instance.exited().is_none() {
                    return answer.failure().message;
                }
            }
        }
    }
}

enum Answer {
    Good,
    Status(String),
    Silent,
}

impl Answer {
    fn failure(&self) -> Failure {
        match self {
            Self::Good => Failure::new("unhealthy", "it answers"),
            Self::Status(line) => Failure::new("unhealthy", format!("it answers {line}")),
            Self::Silent => Failure::new("silent", "it does not answer in time"),
        }
    }
}

async fn ask(address: SocketAddr, health: &Health) -> Answer {
    let limit = Duration::from_millis(health.timeout_ms);
    let asked = async {
        let (path, status) = match &health.probe {
            Probe::Process => return Ok(Answer::Good),
            Probe::Tcp => return TcpStream::connect(address).await.map(|_| Answer::Good),
            Probe::Http { path, status } => (path, status),
        };
        let mut stream = TcpStream::connect(address).await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let line = text.lines().next().unwrap_or_default().to_owned();
        let is_good = line.split(' ').nth(1) == Some(status.to_string().as_str());
        std::io::Result::Ok(if is_good {
            Answer::Good
        } else {
            Answer::Status(line)
        })
    };
    match timeout(limit, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) | Err(_) => Answer::Silent,
    }
}

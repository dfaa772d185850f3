//! Waiting until a new instance proves that it works, and finding out early that it will not.

use std::net::SocketAddr;
use std::time::Duration;

use engines::Instance;
use management_api::types::{Failure, HealthCheck, Liveness, Probe, ProbeKind};
use tokio::time::Instant;

use super::failure;
use super::probe::{Probed, ask_instance, probe, wrong};
use super::restart::is_done;
use crate::deployments::Service;
use crate::ports;

/// Between the first two checks. Until the first success it is twice as long each time, so that a start is noticed at once: most
/// programs listen within milliseconds.
const SOON: Duration = Duration::from_millis(5);
/// The longest that it becomes.
const EAGER: Duration = Duration::from_millis(75);
/// The same for commands, each of which is a program to start.
const SOON_COMMAND: Duration = Duration::from_millis(20);
const EAGER_COMMAND: Duration = Duration::from_millis(300);
/// How long an instance must listen on other ports only to be told that it is wrong. Programs open
/// auxiliary ports before their main one.
const WRONG_PORT_EVIDENCE: Duration = Duration::from_secs(3);
/// Before the first look at the ports and between two: they are read from `/proc`.
const PORTS_INTERVAL: Duration = Duration::from_millis(500);

/// Returns how long it took until `instance` answered as its release wants, or has done its work.
pub(super) async fn until_healthy(
    instance: &Instance,
    service: &Service,
) -> Result<Duration, Failure> {
    let check = &service.health;
    if check.probe.kind == ProbeKind::Process {
        return until_proved(instance, service).await;
    }
    let mut wait = Wait::new(instance, check);
    let ended = |exit, began: Instant| {
        if is_done(service.restart, exit) {
            Ok(began.elapsed())
        } else if is_taken(instance) {
            let port = instance.address().port();
            Err(failure::port_taken(port, Some(exit)))
        } else {
            Err(failure::ended(exit))
        }
    };
    loop {
        let probed = tokio::select! {
            exit = instance.wait() => return ended(exit, wait.started),
            probed = ask_instance(instance, &check.probe, wait.limit()) => probed,
        };
        match probed {
            Probed::Good if !wait.is_anothers().await? => return Ok(wait.started.elapsed()),
            Probed::Good => {
                tokio::time::sleep(wait.pauses.take()).await;
                continue;
            }
            Probed::Impossible(_) => return Err(wait.verdict(&probed)),
            _ => {}
        }
        let pause = wait.count(probed).await?;
        tokio::select! {
            exit = instance.wait() => return ended(exit, wait.started),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Whether somebody listens on this machine where the instance is expected.
fn is_taken(instance: &Instance) -> bool {
    let address = instance.address();
    address.ip().is_loopback() && !ports::is_free(address.port())
}

/// Nobody can be asked: to have run for a while is the answer.
async fn until_proved(instance: &Instance, service: &Service) -> Result<Duration, Failure> {
    let began = Instant::now();
    let proof = Duration::from_millis(service.health.start_period_ms);
    match tokio::time::timeout(proof, instance.wait()).await {
        Ok(exit) if is_done(service.restart, exit) => Ok(began.elapsed()),
        Ok(exit) => Err(failure::ended(exit)),
        Err(_) => Ok(proof),
    }
}

/// Whether a running instance answers as `check` wants. One that is slow is asked a second time, if the check would do so too:
/// a moment in which the machine is busy costs no instance its traffic.
pub(super) async fn is_healthy(instance: &Instance, check: &HealthCheck) -> bool {
    let limit = Duration::from_millis(check.timeout_ms);
    for _ in 0..check.retries.clamp(1, 2) {
        if instance.exited().is_some() {
            return false;
        }
        match ask_instance(instance, &check.probe, limit).await {
            Probed::Good => return true,
            Probed::TimedOut => {}
            _ => return false,
        }
    }
    false
}

/// Whether whoever listens there answers as it should, once.
pub(super) async fn answers(address: SocketAddr, asked: &Probe, limit: Duration) -> bool {
    probe(address, asked, limit).await == Probed::Good
}

struct Wait<'a> {
    instance: &'a Instance,
    check: &'a HealthCheck,
    started: Instant,
    failures: u32,
    /// Since when it listens on other ports only.
    elsewhere: Option<Instant>,
    /// Since when another program answers in its place.
    replaced: Option<Instant>,
    ports_read: Instant,
    pauses: Pauses,
}

/// The pauses between checks while failures do not count.
struct Pauses {
    next: Duration,
    longest: Duration,
}

impl Pauses {
    fn of(kind: ProbeKind) -> Self {
        let (next, longest) = match kind {
            ProbeKind::Command | ProbeKind::Image => (SOON_COMMAND, EAGER_COMMAND),
            ProbeKind::Http | ProbeKind::Tcp | ProbeKind::Process => (SOON, EAGER),
        };
        Self { next, longest }
    }

    fn take(&mut self) -> Duration {
        let taken = self.next;
        self.next = (2 * taken).min(self.longest);
        taken
    }
}

impl<'a> Wait<'a> {
    fn new(instance: &'a Instance, check: &'a HealthCheck) -> Self {
        Self {
            instance,
            check,
            started: Instant::now(),
            failures: 0,
            elsewhere: None,
            replaced: None,
            ports_read: Instant::now(),
            pauses: Pauses::of(check.probe.kind),
        }
    }

    fn limit(&self) -> Duration {
        Duration::from_millis(self.check.timeout_ms)
    }

    /// Takes note of a failed check; returns the pause before the next one, or the verdict.
    async fn count(&mut self, probed: Probed) -> Result<Duration, Failure> {
        if probed == Probed::Refused {
            self.look_at_ports().await?;
        } else {
            self.elsewhere = None;
        }
        let start_period = Duration::from_millis(self.check.start_period_ms);
        if self.started.elapsed() < start_period {
            return Ok(self.pauses.take());
        }
        self.failures += 1;
        if self.failures >= self.check.retries {
            return Err(self.verdict(&probed));
        }
        Ok(Duration::from_millis(self.check.interval_ms))
    }

    /// Whether the answer was that of another program on the instance's port; an error when it has been for a while. Where
    /// ports cannot be seen, and in networks of the instances' own, an answer is the instance's.
    async fn is_anothers(&mut self) -> Result<bool, Failure> {
        let kind = self.check.probe.kind;
        if !matches!(kind, ProbeKind::Http | ProbeKind::Tcp) {
            return Ok(false);
        }
        let port = self.instance.address().port();
        let instance = self.instance.clone();
        let listens = tokio::task::spawn_blocking(move || instance.listens_on(port)).await;
        if listens.ok().flatten() != Some(false) || !is_taken(self.instance) {
            self.replaced = None;
            return Ok(false);
        }
        let since = *self.replaced.get_or_insert_with(Instant::now);
        if since.elapsed() < WRONG_PORT_EVIDENCE {
            return Ok(true);
        }
        Err(failure::port_taken(port, None))
    }

    async fn listening_ports(&self) -> Option<Vec<u16>> {
        let instance = self.instance.clone();
        let ports = tokio::task::spawn_blocking(move || instance.listening_ports());
        ports.await.ok().flatten()
    }

    async fn look_at_ports(&mut self) -> Result<(), Failure> {
        if self.ports_read.elapsed() < PORTS_INTERVAL {
            return Ok(());
        }
        let ports = self.listening_ports().await.unwrap_or_default();
        self.ports_read = Instant::now();
        let expected = self.instance.address().port();
        if ports.is_empty() || ports.contains(&expected) {
            self.elsewhere = None;
            return Ok(());
        }
        let since = *self.elsewhere.get_or_insert_with(Instant::now);
        if since.elapsed() < WRONG_PORT_EVIDENCE {
            return Ok(());
        }
        let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
        Err(failure::plain(
            "wrong_port",
            format!(
                "the application listens on {} and not on {expected}; it must listen on the port \
                 that the environment variable PORT names",
                ports.join(", ")
            ),
        ))
    }

    fn verdict(&self, probed: &Probed) -> Failure {
        let seconds = self.started.elapsed().as_secs();
        let code = match probed {
            Probed::Status(_) | Probed::Lacking | Probed::Failed { .. } | Probed::Impossible(_) => {
                "unhealthy"
            }
            _ => "health_timeout",
        };
        let port = self.instance.address().port();
        let what = wrong(&self.check.probe, self.limit(), port, probed);
        failure::plain(code, format!("{what} after {seconds} s"))
    }
}

/// Returns after as many failed checks in a row as `check` allows.
pub(super) async fn until_unhealthy(instance: &Instance, check: &HealthCheck) {
    let (interval, limit) = (check.interval_ms, check.timeout_ms);
    until_silent(instance, &check.probe, interval, limit, check.retries).await;
}

/// Returns when an instance has to be started again although it runs.
pub(super) async fn until_dead(instance: &Instance, check: &Liveness) {
    let (interval, limit) = (check.interval_ms, check.timeout_ms);
    until_silent(instance, &check.probe, interval, limit, check.retries).await;
}

/// Returns after the first good answer.
pub(super) async fn until_well(instance: &Instance, check: &HealthCheck) {
    while !is_healthy(instance, check).await {
        tokio::time::sleep(Duration::from_millis(check.interval_ms)).await;
    }
}

async fn until_silent(
    instance: &Instance,
    asked: &Probe,
    interval_ms: u64,
    limit_ms: u64,
    retries: u32,
) {
    let mut failures = 0;
    while failures < retries {
        tokio::time::sleep(Duration::from_millis(interval_ms)).await;
        let limit = Duration::from_millis(limit_ms);
        if ask_instance(instance, asked, limit).await == Probed::Good {
            failures = 0;
        } else {
            failures += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_noticed_at_once_and_a_slow_one_not_asked_all_the_time() {
        let pauses = |kind, count| {
            let mut pauses = Pauses::of(kind);
            let taken = (0..count).map(|_| pauses.take().as_millis());
            taken.collect::<Vec<_>>()
        };
        assert_eq!(pauses(ProbeKind::Http, 6), [5, 10, 20, 40, 75, 75]);
        assert_eq!(pauses(ProbeKind::Command, 6), [20, 40, 80, 160, 300, 300]);
    }
}

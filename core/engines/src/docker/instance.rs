//! One container as an instance, and the task that stays with it until it is gone.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{ContainerInspectResponse, ContainerState};
use bollard::query_parameters::{
    InspectContainerOptions, KillContainerOptionsBuilder, RemoveContainerOptionsBuilder,
};
use nix::sys::signal::Signal;
use tokio::sync::watch;

use super::commands;
use super::container::HOST;
use super::errors::{is_conflict, is_missing, reason};
use super::logs::Log;
use super::record::Records;
use crate::command::{Command, CommandOutcome};
use crate::engine::BoxFuture;
use crate::error::EngineError;
use crate::instance::{Exit, Life, Running};
use crate::process::proc;
use crate::seats::Seat;
use crate::volumes::Hold;

/// Before Docker is asked again about a container, doubled up to the limit.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a Docker that does not answer may keep those waiting who want to end an instance.
const END_PATIENCE: Duration = Duration::from_secs(30);
/// How often the output of a container that has ended is asked for, when that fails.
const LOG_TRIES: u32 = 3;
/// Programs that end by a signal are told by shells, and by the init of a container, as this and its number.
const SIGNALLED: i64 = 128;

/// What there is to one instance of this engine.
pub(super) struct Tended {
    pub(super) docker: Docker,
    pub(super) container: String,
    pub(super) id: String,
    pub(super) address: SocketAddr,
    pub(super) pid: u32,
    pub(super) stop_signal: String,
    pub(super) own_network: bool,
    pub(super) log: PathBuf,
    pub(super) life: watch::Receiver<Life>,
    /// Somebody wants its end, whatever Docker says to that.
    pub(super) unwanted: watch::Sender<bool>,
}

impl Running for Tended {
    fn id(&self) -> &str {
        &self.id
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn pid(&self) -> u32 {
        self.pid
    }

    fn log(&self) -> &Path {
        &self.log
    }

    fn life(&self) -> watch::Receiver<Life> {
        self.life.clone()
    }

    fn ask_to_end(&self) -> BoxFuture<'_, ()> {
        Box::pin(signal(&self.docker, &self.container, &self.stop_signal))
    }

    fn kill(&self) -> BoxFuture<'_, ()> {
        self.unwanted.send_replace(true);
        Box::pin(signal(&self.docker, &self.container, "SIGKILL"))
    }

    fn run(&self, command: Command) -> BoxFuture<'_, Result<CommandOutcome, EngineError>> {
        let (docker, container, init) = (self.docker.clone(), self.container.clone(), self.pid);
        Box::pin(async move {
            // It comes to its end, or to its limit, whoever waits for it.
            let running = async move { commands::run(&docker, (&container, init), command).await };
            let ended = tokio::spawn(running).await;
            ended.unwrap_or(Err(EngineError::ShuttingDown))
        })
    }

    fn listening_ports(&self) -> Option<Vec<u16>> {
        let pid = i32::try_from(self.pid).unwrap_or_default();
        if !proc::is_in_group(pid, &self.container) {
            return None;
        }
        if self.own_network {
            return Some(proc::ports_of_network(self.pid));
        }
        proc::listening_ports(&proc::descendants(pid))
    }
}

/// Most often one that does not arrive was for a container that has ended by itself; whoever waits for it is told so.
async fn signal(docker: &Docker, container: &str, signal: &str) {
    let options = KillContainerOptionsBuilder::default()
        .signal(signal)
        .build();
    let told = answer(docker.kill_container(container, Some(options))).await;
    if let Err(error) = told {
        tracing::debug!(container, error = reason(&error), "a signal did not arrive");
    }
}

/// What Docker answers, if it does so in time.
async fn answer<T>(asked: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let answered = tokio::time::timeout(END_PATIENCE, asked).await;
    answered.unwrap_or(Err(Error::RequestTimeoutError))
}

/// Returns when somebody has wanted the end of an instance for so long that what Docker says of it is looked at.
async fn overdue(mut unwanted: watch::Receiver<bool>) {
    if unwanted.wait_for(|unwanted| *unwanted).await.is_err() {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(END_PATIENCE).await;
}

/// What Docker says of a container that runs or has ended.
pub(super) struct Seen {
    pub(super) pid: u32,
    pub(super) address: SocketAddr,
    pub(super) own_network: bool,
    pub(super) stop_signal: String,
}

impl Seen {
    /// Of a program that is expected to listen on `port`.
    pub(super) fn of(found: &ContainerInspectResponse, port: u16) -> Self {
        let state = found.state.as_ref();
        let pid = state.and_then(|state| state.pid).unwrap_or_default();
        let config = found.config.as_ref();
        let stop_signal = config.and_then(|config| config.stop_signal.clone());
        Self {
            pid: u32::try_from(pid).unwrap_or_default(),
            address: address(found, port),
            own_network: !is_in_host_network(found),
            stop_signal: stop_signal
                .filter(|signal| !signal.is_empty())
                .unwrap_or_else(|| "SIGTERM".to_owned()),
        }
    }
}

/// Whatever the setting is by now.
fn is_in_host_network(found: &ContainerInspectResponse) -> bool {
    let host = found.host_config.as_ref();
    host.and_then(|host| host.network_mode.as_deref()) == Some(HOST)
}

/// A container that has ended has no address. Port 0 is nobody's.
fn address(found: &ContainerInspectResponse, port: u16) -> SocketAddr {
    if is_in_host_network(found) {
        return SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    }
    let settings = found.network_settings.as_ref();
    let networks = settings.and_then(|settings| settings.networks.as_ref());
    // It is in one only.
    let ips = networks.into_iter().flat_map(|networks| networks.values());
    let mut ips = ips.filter_map(|network| network.ip_address.as_ref()?.parse::<IpAddr>().ok());
    ips.next().map_or_else(
        || SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        |ip| SocketAddr::new(ip, port),
    )
}

/// Stays with a container until nothing is left of it.
pub(super) struct Monitor {
    pub(super) docker: Docker,
    pub(super) id: String,
    pub(super) instance: String,
    pub(super) records: Records,
    pub(super) log: Log,
    pub(super) life: watch::Sender<Life>,
    pub(super) unwanted: watch::Receiver<bool>,
    pub(super) seat: Seat,
    pub(super) volumes: Hold,
}

impl Monitor {
    pub(super) async fn watch(mut self) {
        let exit = self.until_ended().await;
        let last_word = match exit {
            Exit::OutOfMemory { .. } => Some(exit.to_string()),
            Exit::Code(_) | Exit::Signal(_) => None,
        };
        self.log.finish(last_word.as_deref()).await;
        self.life.send_replace(Life::Exited(exit));
        match remove(&self.docker, &self.id).await {
            Ok(()) => self.records.forget(&self.instance),
            // The next sweep tries again; who takes it over until then goes on in its log.
            Err(error) => {
                let (id, why) = (self.instance, reason(&error));
                tracing::warn!(id, error = why, "a container is not removed");
            }
        }
        // Whether a container has them that did not go, Docker is asked when they are wanted.
        drop(self.volumes);
        drop(self.seat);
        self.life.send_replace(Life::Gone(exit));
    }

    /// Writes its log until it has ended, and says how.
    async fn until_ended(&mut self) -> Exit {
        let mut pause = FIRST_PAUSE;
        let mut unanswered: Option<Instant> = None;
        let mut incomplete = 0;
        loop {
            let followed = tokio::select! {
                followed = self.log.follow(&self.docker, &self.id) => followed,
                () = overdue(self.unwanted.clone()) => Err(Error::RequestTimeoutError),
            };
            let options = None::<InspectContainerOptions>;
            let looked = self.docker.inspect_container(&self.id, options);
            match answer(looked).await {
                Ok(found) => {
                    unanswered = None;
                    if let Some(exit) = exit_of(&found) {
                        incomplete += u32::from(followed.is_err());
                        if followed.is_ok() || incomplete >= LOG_TRIES {
                            return exit;
                        }
                    } else {
                        if *self.unwanted.borrow() {
                            // The signal has not arrived.
                            signal(&self.docker, &self.id, "SIGKILL").await;
                        }
                        if followed.is_ok() {
                            pause = FIRST_PAUSE;
                        }
                    }
                }
                Err(error) if is_missing(&error) => {
                    tracing::warn!(id = self.instance, "somebody else has removed a container");
                    return Exit::Signal(Signal::SIGKILL as i32);
                }
                Err(error) => {
                    let since = *unanswered.get_or_insert_with(Instant::now);
                    if *self.unwanted.borrow() && since.elapsed() > END_PATIENCE {
                        let why = reason(&error);
                        tracing::error!(id = self.instance, error = why, "a container is given up");
                        return Exit::Signal(Signal::SIGKILL as i32);
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Removes a container, running or not, with the volumes that nobody else has. One that is gone already is fine.
pub(super) async fn remove(docker: &Docker, id: &str) -> Result<(), Error> {
    let options = RemoveContainerOptionsBuilder::default()
        .force(true)
        .v(true)
        .build();
    match docker.remove_container(id, Some(options)).await {
        // Somebody is doing it.
        Err(error) if !is_missing(&error) && !is_conflict(&error) => Err(error),
        _ => Ok(()),
    }
}

/// How it has ended, if it has.
fn exit_of(found: &ContainerInspectResponse) -> Option<Exit> {
    let state = found.state.as_ref()?;
    let lives = |state: &ContainerState| {
        let is = |flag: Option<bool>| flag.unwrap_or_default();
        is(state.running) || is(state.paused) || is(state.restarting)
    };
    if lives(state) {
        return None;
    }
    let exit = exit_by_code(state.exit_code.unwrap_or_default());
    let limit = found.host_config.as_ref().and_then(|host| host.memory);
    let limit = limit.and_then(|limit| u64::try_from(limit).ok());
    let killed = exit == Exit::Signal(Signal::SIGKILL as i32);
    let limit = limit.filter(|_| killed && state.oom_killed.unwrap_or_default());
    Some(limit.map_or(exit, |limit| Exit::OutOfMemory { limit }))
}

/// The end of a program by the one number that Docker has for it.
pub(super) fn exit_by_code(code: i64) -> Exit {
    let signal = i32::try_from(code - SIGNALLED).ok();
    let signal = signal.and_then(|number| Signal::try_from(number).ok());
    signal.map_or_else(
        || Exit::Code(i32::try_from(code).unwrap_or(i32::MAX)),
        |signal| Exit::Signal(signal as i32),
    )
}

#[cfg(test)]
mod tests {
    use bollard::models::HostConfig;

    use super::*;

    #[test]
    fn the_end_of_a_container_is_told_as_that_of_a_program() {
        let ended = |exit_code, oom_killed| ContainerInspectResponse {
            state: Some(ContainerState {
                exit_code: Some(exit_code),
                oom_killed: Some(oom_killed),
                ..ContainerState::default()
            }),
            host_config: Some(HostConfig {
                memory: Some(64),
                ..HostConfig::default()
            }),
            ..ContainerInspectResponse::default()
        };
        for (code, oom, exit) in [
            (0, false, Exit::Code(0)),
            (7, false, Exit::Code(7)),
            (127, false, Exit::Code(127)),
            (137, false, Exit::Signal(9)),
            (143, false, Exit::Signal(15)),
            (255, false, Exit::Code(255)),
            (137, true, Exit::OutOfMemory { limit: 64 }),
            // One of its processes; it went on.
            (0, true, Exit::Code(0)),
        ] {
            assert_eq!(exit_of(&ended(code, oom)), Some(exit), "{code} {oom}");
        }
        let mut running = ended(0, false);
        running.state.as_mut().unwrap().running = Some(true);
        assert_eq!(exit_of(&running), None);
        assert_eq!(exit_of(&ContainerInspectResponse::default()), None);
    }
}

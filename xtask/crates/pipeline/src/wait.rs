//! Following a deployment to its end: by events where the server sends them, else by asking.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};
use management_api::client::{ApiError, DeploymentEvents};
use management_api::types::{self, Deployment, TenantStatus};

use crate::control::{self, Control};
use crate::events::Event;
use crate::run::Run;

/// How long the first pause between two questions is; it grows to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How soon an interrupt is noticed.
const INTERRUPT_CHECK: Duration = Duration::from_millis(100);
/// The platform holds the deadline. Undoing a release that missed it takes until its requests have ended and the old
/// release serves again, which may have to start first.
const GRACE: Duration = Duration::from_mins(6);

/// A deployment that came to a good end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// Where it serves.
    pub url: Option<String>,
    /// How it ended, in words.
    pub words: String,
}

/// Follows a deployment to its end or to the time limit.
pub fn follow(
    run: &mut Run<'_>,
    control: &Control,
    number: Option<u64>,
    timeout: Duration,
) -> Result<Live, Failure> {
    match number {
        Some(number) if control.offers("events") => {
            follow_events(run, control, number, timeout + GRACE)
        }
        Some(number) if control.offers("history") => {
            poll(run, control, timeout + GRACE, |control| {
                let deployment = control.client.deployment(&control.tenant, number)?;
                Ok(Seen::of_deployment(deployment))
            })
        }
        _ => poll(run, control, timeout, |control| {
            let status = control.client.status(&control.tenant)?;
            Ok(Seen::of_status(status))
        }),
    }
}

/// What the platform says at one moment.
struct Seen {
    state: String,
    message: String,
    url: Option<String>,
    deployment: Option<Box<Deployment>>,
}

impl Seen {
    fn of_status(status: TenantStatus) -> Self {
        Self {
            state: status.status,
            message: status.message.unwrap_or_default(),
            url: status.app_url,
            deployment: None,
        }
    }

    fn of_deployment(deployment: Deployment) -> Self {
        Self {
            state: deployment.state.clone(),
            message: deployment
                .failure
                .as_ref()
                .map(|failure| failure.message.clone())
                .unwrap_or_default(),
            url: deployment.app_url.clone(),
            deployment: Some(Box::new(deployment)),
        }
    }
}

fn follow_events(
    run: &mut Run<'_>,
    control: &Control,
    number: u64,
    limit: Duration,
) -> Result<Live, Failure> {
    let deadline = Instant::now() + limit;
    let mut follower = Follower {
        number,
        last: 0,
        aborted: false,
    };
    let mut pause = FIRST_PAUSE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(too_late(limit));
        }
        let before = follower.last;
        let events = control
            .client
            .deployment_events(&control.tenant, number, follower.last, left);
        match events {
            Ok(events) => {
                if follower.drain(run, control, events)? {
                    return conclude_deployment(run, control, number);
                }
            }
            Err(error) if !error.is_transient() => {
                return Err(control::failure(Step::Wait, &error));
            }
            Err(_) => follower.heed_interrupts(run, control)?,
        }
        pause = if follower.last > before {
            FIRST_PAUSE
        } else {
            (pause * 2).min(LONGEST_PAUSE)
        };
        std::thread::sleep(pause.min(deadline.saturating_duration_since(Instant::now())));
    }
}

/// How far the events of a deployment have been seen, over broken streams.
struct Follower {
    number: u64,
    last: u64,
    aborted: bool,
}

impl Follower {
    /// Takes events until the stream ends; whether the deployment has come to its end. The stream
    /// is read by a thread of its own, so that an interrupt does not have to wait for an event.
    fn drain(
        &mut self,
        run: &mut Run<'_>,
        control: &Control,
        events: DeploymentEvents,
    ) -> Result<bool, Failure> {
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            for event in events {
                // A broken stream is taken up again after the last event that was seen.
                let Ok(event) = event else { return };
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        loop {
            match receiver.recv_timeout(INTERRUPT_CHECK) {
                Ok(event) => {
                    self.last = event.seq;
                    let end = types::is_final(&event.state);
                    let paused = event.state == "paused";
                    run.reporter.event(Event::State {
                        state: event.state,
                        message: event.message,
                    });
                    if paused {
                        let note = "go on: cargo xtask promote; undo it: cargo xtask abort";
                        run.reporter.event(Event::Note(note.to_owned()));
                    }
                    if end {
                        return Ok(true);
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(false),
            }
            self.heed_interrupts(run, control)?;
        }
    }

    /// The first interrupt undoes the deployment, the second leaves it to the platform.
    fn heed_interrupts(&mut self, run: &mut Run<'_>, control: &Control) -> Result<(), Failure> {
        match run.interrupts.count() {
            0 => Ok(()),
            1 if self.aborted => Ok(()),
            1 if control.offers("abort") => {
                self.aborted = true;
                let note = match control.client.abort(&control.tenant, self.number) {
                    Ok(()) => "interrupted: undoing the deployment; once more to leave it alone"
                        .to_owned(),
                    Err(error) => format!("interrupted, but it cannot be undone now: {error}"),
                };
                run.reporter.event(Event::Warning(note));
                Ok(())
            }
            _ => Err(detached(Some(self.number))),
        }
    }
}

fn conclude_deployment(run: &mut Run<'_>, control: &Control, number: u64) -> Result<Live, Failure> {
    let deployment = control
        .client
        .deployment(&control.tenant, number)
        .map_err(|e| control::failure(Step::Wait, &e))?;
    conclude(run, Seen::of_deployment(deployment))
}

fn poll(
    run: &mut Run<'_>,
    control: &Control,
    limit: Duration,
    ask: impl Fn(&Control) -> Result<Seen, ApiError>,
) -> Result<Live, Failure> {
    let deadline = Instant::now() + limit;
    let mut pause = FIRST_PAUSE;
    let mut shown = String::new();
    let mut silence: Option<ApiError>;
    loop {
        match ask(control) {
            Ok(seen) => {
                silence = None;
                if seen.state != shown {
                    shown.clone_from(&seen.state);
                    run.reporter.event(Event::State {
                        state: seen.state.clone(),
                        message: seen.message.clone(),
                    });
                }
                if types::is_final(&seen.state) {
                    return conclude(run, seen);
                }
            }
            Err(error) if !error.is_transient() => {
                return Err(control::failure(Step::Wait, &error));
            }
            Err(error) => silence = Some(error),
        }
        if run.interrupts.any() {
            return Err(detached(None));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(match silence {
                Some(error) => control::failure(Step::Wait, &error),
                None => too_late(limit),
            });
        }
        std::thread::sleep(pause.min(left));
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn conclude(run: &mut Run<'_>, seen: Seen) -> Result<Live, Failure> {
    if let Some(url) = &seen.url {
        run.outcome.url = Some(url.clone());
    }
    if types::is_good(&seen.state) {
        return Ok(Live {
            url: seen.url,
            words: seen.state,
        });
    }
    let failure = seen.deployment.as_ref().and_then(|d| d.failure.clone());
    if let Some(failure) = &failure {
        run.outcome.log_tail = failure
            .log_tail
            .iter()
            .map(|line| run.redactor.clean(line))
            .collect();
    }
    if let Some(failure) = failure
        .as_ref()
        .filter(|f| f.code == "release_command_failed")
    {
        return Err(command_failed(&failure.message));
    }
    let reason = failure.map_or(seen.message, |failure| failure.message);
    let reason = if reason.is_empty() {
        "the platform gave no reason".to_owned()
    } else {
        reason
    };
    Err(bad_end(&seen.state, &reason))
}

fn bad_end(state: &str, reason: &str) -> Failure {
    let (code, exit, details, resolution) = match state {
        "rolled_back" => (
            "release_rolled_back",
            Exit::RolledBack,
            format!("the release did not become healthy and was rolled back: {reason}"),
            "correct the application (`cargo xtask logs`) and deploy again; the release before serves",
        ),
        "needs_operator" => (
            "operator_needed",
            Exit::NeedsOperator,
            format!("the release failed and so did its rollback: {reason}"),
            "look at `cargo xtask status` and `cargo xtask logs`; when it is settled, say so with `cargo xtask abort`: until then nobody else deploys",
        ),
        "superseded" => (
            "superseded",
            Exit::Locked,
            format!("a later deployment took its place: {reason}"),
            "see `cargo xtask history`",
        ),
        _ => (
            "release_failed",
            Exit::Unverified,
            format!("the platform says `{state}`: {reason}"),
            "see `cargo xtask logs` and the platform's status, then deploy again or `cargo xtask rollback`",
        ),
    };
    Failure::new(Step::Wait, code, exit, details, resolution)
}

fn command_failed(reason: &str) -> Failure {
    Failure::new(
        Step::Wait,
        "release_command_failed",
        Exit::Migration,
        format!("{reason}; the release before serves, if there was one"),
        "correct what the command reports (`cargo xtask logs`), then deploy again",
    )
}

fn too_late(limit: Duration) -> Failure {
    Failure::new(
        Step::Wait,
        "wait_timeout",
        Exit::Unverified,
        format!(
            "the deployment did not come to an end within {} s",
            limit.as_secs()
        ),
        "see `cargo xtask status`; give it longer with --timeout, or `cargo xtask rollback`",
    )
}

fn detached(number: Option<u64>) -> Failure {
    let which = number.map_or_else(
        || "the deployment".to_owned(),
        |n| format!("deployment {n}"),
    );
    Failure::new(
        Step::Wait,
        "detached",
        Exit::Interrupted,
        format!("interrupted: {which} goes on without us, the platform finishes or undoes it"),
        "see `cargo xtask status`; undo it with `cargo xtask rollback`",
    )
}

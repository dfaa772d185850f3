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
        undone: false,
    };
    let mut pause = FIRST_PAUSE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(too_late(limit, control));
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
    /// Whether the first interrupt was heeded.
    aborted: bool,
    /// Whether the platform has agreed to undo it.
    undone: bool,
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
                        let note = "go on: cargo xtask promote; undo it: cargo xtask abort; without either it is undone when its time is over (--timeout)";
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

    /// The first interrupt undoes the deployment, the second leaves that to the platform.
    fn heed_interrupts(&mut self, run: &mut Run<'_>, control: &Control) -> Result<(), Failure> {
        let count = run.interrupts.count();
        if count > 0 && !self.aborted && control.offers("abort") {
            self.abort(run, control);
        }
        if count == 0 || count == 1 && self.aborted {
            return Ok(());
        }
        Err(detached(Some(self.number), control, self.undone))
    }

    fn abort(&mut self, run: &mut Run<'_>, control: &Control) {
        self.aborted = true;
        let note = match control.client.abort(&control.tenant, self.number) {
            Ok(()) => {
                self.undone = true;
                "interrupted: undoing the deployment; once more to wait no longer".to_owned()
            }
            Err(error) => format!("interrupted, but it cannot be undone now: {error}"),
        };
        run.reporter.event(Event::Warning(note));
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
            return Err(detached(None, control, false));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(match silence {
                Some(error) => control::failure(Step::Wait, &error),
                None => too_late(limit, control),
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
    Err(bad_end(&seen))
}

fn bad_end(seen: &Seen) -> Failure {
    let deployment = seen.deployment.as_deref();
    let failure = deployment.and_then(|deployment| deployment.failure.as_ref());
    let code = failure.map_or("", |failure| failure.code.as_str());
    let reason = failure.map_or(seen.message.as_str(), |failure| failure.message.as_str());
    let reason = if reason.is_empty() {
        "the platform gave no reason"
    } else {
        reason
    };
    if code == "release_command_failed" {
        return command_failed(reason);
    }
    let alone = deployment.is_some_and(|deployment| deployment.previous.is_none());
    let end = |code, exit, details, resolution: String| {
        Failure::new(Step::Wait, code, exit, details, resolution)
    };
    match seen.state.as_str() {
        "rolled_back" if code == "aborted" => end(
            "release_rolled_back",
            Exit::RolledBack,
            "somebody had the deployment undone before its end: the release before serves".to_owned(),
            AGAIN.to_owned(),
        ),
        "rolled_back" => end(
            "release_rolled_back",
            Exit::RolledBack,
            format!("the release failed and was undone: {reason}"),
            format!("{}; the release before serves", correct(code, deployment)),
        ),
        "needs_operator" => end(
            "operator_needed",
            Exit::NeedsOperator,
            format!("the release failed and so did its rollback: {reason}"),
            "look at `cargo xtask status` and `cargo xtask logs`; when it is settled, say so with `cargo xtask abort`: until then nobody else deploys".to_owned(),
        ),
        "superseded" => end(
            "superseded",
            Exit::Locked,
            format!("a later deployment took its place: {reason}"),
            "see `cargo xtask history`".to_owned(),
        ),
        "failed" if alone && code == "aborted" => end(
            "release_failed",
            Exit::Unverified,
            "somebody had the deployment undone before its end: nothing serves, as before".to_owned(),
            AGAIN.to_owned(),
        ),
        "failed" if alone => end(
            "release_failed",
            Exit::Unverified,
            format!("the release failed, and none was there to return to: {reason}"),
            format!("{}; nothing serves until then", correct(code, deployment)),
        ),
        state => end(
            "release_failed",
            Exit::Unverified,
            format!("the platform says `{state}`: {reason}"),
            "see `cargo xtask logs` and the platform's status, then deploy again or `cargo xtask rollback`".to_owned(),
        ),
    }
}

/// After what somebody wanted to end.
const AGAIN: &str = "deploy again when it is time: cargo xtask deploy";

/// What is to be corrected before the next try. Not every reason lies in the application.
fn correct(code: &str, deployment: Option<&Deployment>) -> String {
    const ELSEWHERE: [&str; 9] = [
        "image_not_found",
        "internal",
        "interrupted",
        "limits_not_enforced",
        "no_port",
        "port_taken",
        "secret_unreadable",
        "start_failed",
        "volumes_not_possible",
    ];
    if ELSEWHERE.contains(&code) {
        return "see to that reason, and deploy again".to_owned();
    }
    let only = deployment.map_or_else(String::new, |deployment| {
        format!(" --deployment {}", deployment.number)
    });
    let corrected = format!("correct the application (`cargo xtask logs{only}`)");
    if code == "deadline" {
        return format!("{corrected} or give it longer (--timeout), and deploy again");
    }
    format!("{corrected} and deploy again")
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

fn too_late(limit: Duration, control: &Control) -> Failure {
    Failure::new(
        Step::Wait,
        "wait_timeout",
        Exit::Unverified,
        format!(
            "the deployment did not come to an end within {} s",
            limit.as_secs()
        ),
        format!(
            "see `cargo xtask status`; give it longer with --timeout, or undo it: {}",
            undo(control)
        ),
    )
}

/// The command that undoes a deployment on its way. Platforms that know nothing of it take back a release only.
fn undo(control: &Control) -> &'static str {
    if control.offers("abort") {
        "cargo xtask abort"
    } else {
        "cargo xtask rollback"
    }
}

/// Somebody does not want to wait any longer.
fn detached(number: Option<u64>, control: &Control, aborted: bool) -> Failure {
    let which = number.map_or_else(
        || "the deployment".to_owned(),
        |n| format!("deployment {n}"),
    );
    let (details, resolution) = if aborted {
        (
            format!("interrupted: {which} is being undone, and nobody waits for it"),
            "see what came out: cargo xtask status".to_owned(),
        )
    } else {
        (
            format!("interrupted: {which} goes on without us, the platform finishes or undoes it"),
            format!("see `cargo xtask status`; undo it: {}", undo(control)),
        )
    };
    Failure::new(
        Step::Wait,
        "detached",
        Exit::Interrupted,
        details,
        resolution,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(state: &str, previous: Option<u64>, code: &str) -> Failure {
        let deployment: Deployment = serde_json::from_value(serde_json::json!({
            "number": 7, "tenant": "t", "kind": "deploy", "state": state, "image": "r/t:a", "digest": "sha256:0",
            "strategy": "rolling", "previous": previous, "live": false, "gone": false, "actor": "ada",
            "created_at": "2026-01-01T00:00:00Z", "failure": { "code": code, "message": "why" },
        }))
        .unwrap();
        bad_end(&Seen::of_deployment(deployment))
    }

    #[test]
    fn the_application_is_corrected_where_it_is_at_fault() {
        let exited = ended("rolled_back", Some(6), "exited");
        assert_eq!(exited.exit, Exit::RolledBack);
        assert_eq!(
            exited.resolution,
            "correct the application (`cargo xtask logs --deployment 7`) and deploy again; the release before serves"
        );
        for (code, words) in [
            ("aborted", "deploy again when it is time"),
            ("port_taken", "see to that reason"),
        ] {
            for (state, previous) in [("rolled_back", Some(6)), ("failed", None)] {
                let failure = ended(state, previous, code);
                assert!(failure.resolution.contains(words), "{failure:?}");
                assert!(!failure.resolution.contains("application"), "{failure:?}");
            }
        }
    }

    #[test]
    fn a_deployment_that_took_too_long_may_need_longer() {
        let failure = ended("rolled_back", Some(6), "deadline");
        assert!(failure.resolution.contains("--timeout"), "{failure:?}");
    }

    #[test]
    fn nobody_is_sent_back_where_there_is_nothing() {
        let first = ended("failed", None, "exited");
        assert_eq!(first.exit, Exit::Unverified);
        assert!(!first.resolution.contains("rollback"), "{first:?}");
        let later = ended("failed", Some(6), "exited");
        assert!(later.resolution.contains("rollback"), "{later:?}");
    }
}

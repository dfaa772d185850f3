//! How services are, asked again and again until it is known or time is up.

use std::time::{Duration, Instant};

use deploy_plan::aramb::{FlowError, FlowStep, Service, ServiceType};
use deploy_plan::config::redact_value;
use deploy_plan::exit::Exit;

use super::answers::{State, status};
use super::call::Call;
use super::{ANSWER, Cli};
use crate::aramb::plane::{Deployed, Flow};
use crate::interrupt::Interrupts;

/// The least that an answer may take, however little time is left: without one nothing is known.
const LAST_ANSWER: Duration = Duration::from_secs(5);
/// The longest pause between two questions.
const PAUSE: Duration = Duration::from_secs(5);

impl Cli {
    /// Until the deadline, or asked once.
    pub(super) fn wait_for(
        &self,
        flow: &Flow<'_>,
        position: usize,
        service: &Service,
        deadline: Option<Instant>,
    ) -> (Deployed, Option<FlowError>) {
        let slug = self.slugs.get(&service.name);
        let slug = slug.or(service.slug.as_ref()).unwrap_or(&service.name);
        let arguments = ["deploy", "status", "--service", slug, "--output", "json"];
        let mut pause = Duration::from_millis(250);
        let mut told = String::new();
        let mut deployed = Deployed {
            service: position,
            ..Deployed::default()
        };
        loop {
            let left = deadline.map_or(ANSWER, |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            let call = Call::new(flow.folder, &arguments, ANSWER.min(left.max(LAST_ANSWER)));
            let is_last = || deadline.is_none_or(|deadline| Instant::now() >= deadline);
            let said = self.ask(call, flow.interrupts);
            if flow.interrupts.any() {
                return (deployed, Some(interrupted_waiting(&service.name)));
            }
            match status(&said) {
                State::Healthy(outputs) => {
                    deployed.is_healthy = true;
                    deployed.outputs = outputs
                        .into_iter()
                        .map(|(name, value)| (name, shown(flow, &value)))
                        .collect();
                    return (deployed, None);
                }
                State::Failed(word, words) => {
                    let error = failed(service, &word, words);
                    return (
                        deployed,
                        Some(error.with(format!("Command: {}", call.shown()))),
                    );
                }
                State::OnItsWay(word) => {
                    if word != told && deadline.is_some() {
                        flow.say(format!("{}: {word}", service.name));
                    }
                    told = word;
                }
                State::Unknown(words) => {
                    if !flow.is_patient || is_last() {
                        deployed.is_unknown = true;
                        let error = unknown(service, words);
                        return (
                            deployed,
                            Some(error.with(format!("Command: {}", call.shown()))),
                        );
                    }
                }
            }
            if is_last() {
                let allowed = deadline.map(|_| flow.timeout);
                let error = overdue(service, allowed, &told);
                return (
                    deployed,
                    Some(error.with(format!("Command: {}", call.shown()))),
                );
            }
            rest(pause.min(left), flow.interrupts);
            pause = (pause * 2).min(PAUSE);
        }
    }
}

/// An address of a database may have its password in it, and all outputs are only ever shown.
fn shown(flow: &Flow<'_>, value: &str) -> String {
    redact_value("", &flow.redactor.clean(value))
}

/// Waits for the time to come for another question, or for the user to want out.
fn rest(time: Duration, interrupts: &Interrupts) {
    let end = Instant::now() + time;
    while Instant::now() < end && !interrupts.any() {
        std::thread::park_timeout(
            end.saturating_duration_since(Instant::now())
                .min(Duration::from_millis(100)),
        );
    }
}

/// What a service is called in messages.
fn kind_word(service: &Service) -> &'static str {
    match service.kind {
        ServiceType::Postgres | ServiceType::Redis | ServiceType::Mongodb => "Database",
        ServiceType::Frontend => "Frontend",
        _ => "Backend",
    }
}

fn failed(service: &Service, word: &str, words: Vec<String>) -> FlowError {
    let kind = kind_word(service);
    let message = format!("{kind} deployment failed with status: {word}");
    let error = FlowError::new(
        FlowStep::Return,
        "service_failed",
        Exit::Unverified,
        message,
    )
    .with(format!("Service {}", service.name));
    words.into_iter().fold(error, FlowError::with)
}

fn unknown(service: &Service, words: Vec<String>) -> FlowError {
    let message = format!("Could not get deployment status for {}", service.name);
    let error = FlowError::new(
        FlowStep::Return,
        "status_unknown",
        Exit::Unverified,
        message,
    );
    words.into_iter().fold(error, FlowError::with)
}

fn overdue(service: &Service, allowed: Option<Duration>, told: &str) -> FlowError {
    let kind = kind_word(service);
    let told = if told.is_empty() { "unknown" } else { told };
    let (message, why) = match allowed {
        Some(timeout) => (
            format!("{kind} deployment failed with status: {told}"),
            format!(
                "it was not healthy within {} s; --timeout allows more",
                timeout.as_secs()
            ),
        ),
        None => (format!("its status is {told}"), "wait for it".to_owned()),
    };
    FlowError::new(
        FlowStep::Return,
        "service_overdue",
        Exit::Unverified,
        message,
    )
    .with(format!("Service {}", service.name))
    .with(why)
}

fn interrupted_waiting(name: &str) -> FlowError {
    FlowError::new(
        FlowStep::Return,
        "interrupted",
        Exit::Interrupted,
        "Interrupted while the services were starting",
    )
    .with(format!("Service {name}"))
    .with("the control plane goes on without us: aramb deploy status")
}

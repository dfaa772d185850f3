//! The frame that every step runs in: begun and ended events, time, the record in the outcome, the
//! check for an interrupt.

use std::time::Instant;

use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};
use deploy_plan::report::StepRecord;

use crate::events::{Event, Reporter};
use crate::interrupt::Interrupts;
use crate::outcome::Outcome;
use crate::redact::Redactor;

/// What every step may use.
pub struct Run<'a> {
    /// Where events go.
    pub reporter: &'a dyn Reporter,
    /// What must pass no sink.
    pub redactor: &'a Redactor,
    /// Whether the user wants out.
    pub interrupts: &'a Interrupts,
    /// What has come out so far.
    pub outcome: Outcome,
}

impl<'a> Run<'a> {
    /// Nothing done yet.
    #[must_use]
    pub fn new(
        reporter: &'a dyn Reporter,
        redactor: &'a Redactor,
        interrupts: &'a Interrupts,
        environment: &str,
    ) -> Self {
        Self {
            reporter,
            redactor,
            interrupts,
            outcome: Outcome {
                environment: environment.to_owned(),
                ..Outcome::default()
            },
        }
    }

    /// Runs one step. Its closure returns what it made and what it did, in words. An interrupt
    /// keeps a step from beginning, but for the wait: what it follows has been asked for, so it
    /// undoes the deployment or leaves it to the platform, and says which.
    pub fn step<T>(
        &mut self,
        step: Step,
        act: impl FnOnce(&mut Self) -> Result<(T, String), Failure>,
    ) -> Result<T, Failure> {
        if step != Step::Wait {
            self.stop_if_interrupted(step)?;
        }
        self.reporter.event(Event::Started(step));
        let begun = Instant::now();
        let result = act(self);
        let seconds = begun.elapsed().as_secs_f64();
        let (status, summary) = match &result {
            Ok((_, summary)) => ("done", self.redactor.clean(summary)),
            Err(_) => ("failed", String::new()),
        };
        self.outcome.steps.push(StepRecord {
            name: step.name(),
            status,
            seconds: (seconds * 1000.0).round() / 1000.0,
            summary: summary.clone(),
        });
        match result {
            Ok((value, _)) => {
                self.reporter.event(Event::Done {
                    step,
                    summary,
                    seconds,
                });
                Ok(value)
            }
            Err(failure) => {
                self.reporter.event(Event::Failed(step, seconds));
                Err(self.redactor.clean_failure(failure))
            }
        }
    }

    /// Notes a step that was not needed.
    pub fn skip(&mut self, step: Step, why: &str) {
        self.outcome.skipped(step, why);
        self.reporter.event(Event::Skipped(step, why.to_owned()));
    }

    /// Between two steps nothing is half done: the place to heed an interrupt.
    pub fn stop_if_interrupted(&self, step: Step) -> Result<(), Failure> {
        if self.interrupts.any() {
            return Err(interrupted(step));
        }
        Ok(())
    }
}

/// The failure of a run that the user ended before anything was asked of the platform.
#[must_use]
pub fn interrupted(step: Step) -> Failure {
    Failure::new(
        step,
        "interrupted",
        Exit::Interrupted,
        "interrupted before the deployment was asked for: nothing has changed",
        "run the same command again; finished work is reused",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Silent;

    #[test]
    fn an_interrupt_keeps_a_step_from_beginning_but_never_hides_a_deployment() {
        let (redactor, interrupts) = (Redactor::default(), Interrupts::raised());
        let mut run = Run::new(&Silent, &redactor, &interrupts, "local");
        let push = run.step(Step::Push, |_| Ok(((), String::new())));
        assert_eq!(push.unwrap_err().code, "interrupted");
        let wait = run.step(Step::Wait, |_| Ok(("followed", String::new())));
        assert_eq!(wait.unwrap(), "followed");
        let steps: Vec<_> = run.outcome.steps.iter().map(|s| s.name).collect();
        assert_eq!(steps, ["wait"]);
    }
}

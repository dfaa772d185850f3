//! Progress as plain lines, for files, pipes and CI.

use std::sync::{Mutex, PoisonError};

use deploy_pipeline::events::{Event, LayerState, Reporter};

use super::{bytes, err};

/// One line an event; passing progress stays out.
#[derive(Default)]
pub(crate) struct Plain {
    groups: bool,
    /// The lines of one event stay together, whichever thread reports it.
    turn: Mutex<()>,
}

impl Plain {
    /// With every step in a group of its own, as GitHub Actions folds them.
    pub(crate) fn in_groups() -> Self {
        Self {
            groups: true,
            ..Self::default()
        }
    }

    fn text(&self, event: &Event) -> Option<String> {
        let text = match event {
            Event::Started(step) if self.groups => format!("::group::{}\n", step.name()),
            Event::Done {
                step,
                summary,
                seconds,
            } => {
                let end = if self.groups { "::endgroup::\n" } else { "" };
                format!(
                    "{end}ok      {:<9} {seconds:>7.2} s  {summary}\n",
                    step.name()
                )
            }
            Event::Failed(step, seconds) => {
                let end = if self.groups { "::endgroup::\n" } else { "" };
                format!("{end}failed  {:<9} {seconds:>7.2} s\n", step.name())
            }
            Event::Skipped(step, why) => format!("skipped {:<9} {why}\n", step.name()),
            Event::Output(text) | Event::Progress(text) | Event::LogLine(text) => {
                format!("{text}\n")
            }
            Event::State { state, message } => format!("        {state}: {message}\n"),
            Event::Layer {
                digest,
                state,
                size,
                ..
            } if *state != LayerState::Sending => {
                let size = bytes(*size);
                format!("        layer {digest}  {size:>9}  {}\n", state.word())
            }
            Event::Warning(text) if self.groups => format!("::warning::{text}\n"),
            Event::Warning(text) => format!("warning: {text}\n"),
            Event::Note(text) => format!("note: {}\n", super::same_target::text(text)),
            Event::Started(_) | Event::Built { .. } | Event::Layer { .. } => return None,
        };
        Some(text)
    }
}

impl Reporter for Plain {
    fn event(&self, event: Event) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = self.text(&event) {
            err(&text);
        }
    }
}

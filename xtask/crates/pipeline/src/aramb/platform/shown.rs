//! What is told of services, under the names that they have in the file.

use deploy_plan::aramb::translate::Names;
use deploy_plan::failure::Failure;

use crate::events::{Event, Reporter};

/// Calls services as the file does.
pub(super) struct Renaming<'a> {
    pub(super) sink: &'a dyn Reporter,
    pub(super) names: &'a Names,
}

impl Reporter for Renaming<'_> {
    fn event(&self, event: Event) {
        let shown = |text: String| self.names.shown(&text);
        self.sink.event(match event {
            Event::Output(text) => Event::Output(shown(text)),
            Event::Warning(text) => Event::Warning(shown(text)),
            Event::Note(text) => Event::Note(shown(text)),
            Event::State { state, message } => Event::State {
                state,
                message: shown(message),
            },
            other => other,
        });
    }
}

/// The failure in those words.
pub(super) fn failure(names: &Names, mut failure: Failure) -> Failure {
    failure.details = names.shown(&failure.details);
    failure.resolution = names.shown(&failure.resolution);
    failure
}

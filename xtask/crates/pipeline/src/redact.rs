//! The redactor: nothing that is known to be a secret passes a sink.

use std::sync::{Arc, PoisonError, RwLock};

use deploy_plan::config::{REDACTED, without_passwords};
use deploy_plan::failure::Failure;
use secrecy::{ExposeSecret, SecretString};

use crate::events::{Event, Reporter};

/// Shorter texts occur by accident; hiding them would only garble messages.
const SHORTEST: usize = 6;

/// Knows the secrets of this run and takes them out of texts. A clone knows and learns the same.
#[derive(Clone, Default)]
pub struct Redactor {
    secrets: Arc<RwLock<Vec<String>>>,
    on_learn: Option<OnLearn>,
}

type OnLearn = Arc<dyn Fn(&str) + Send + Sync>;

impl Redactor {
    /// A redactor that passes on what it learns, for CI systems that mask texts themselves.
    #[must_use]
    pub fn telling(on_learn: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self {
            on_learn: Some(Arc::new(on_learn)),
            ..Self::default()
        }
    }

    /// From now on the text passes no sink.
    pub fn learn(&self, secret: &SecretString) {
        self.learn_text(secret.expose_secret());
    }

    /// As [`Self::learn`], for a value that came as plain text.
    pub fn learn_text(&self, secret: &str) {
        // What a file or a variable ends with: in a line of an output it would never be found.
        let secret = secret.trim();
        if secret.len() < SHORTEST {
            return;
        }
        let mut secrets = self.secrets.write().unwrap_or_else(PoisonError::into_inner);
        if secrets.iter().all(|known| known != secret) {
            if let Some(tell) = &self.on_learn {
                tell(secret);
            }
            secrets.push(secret.to_owned());
            // A secret that contains another one must go first, or its rest would stay.
            secrets.sort_by_key(|text| std::cmp::Reverse(text.len()));
        }
    }

    /// The text without secrets: those that are known, and those that stand in addresses.
    #[must_use]
    pub fn clean(&self, text: &str) -> String {
        let secrets = self.secrets.read().unwrap_or_else(PoisonError::into_inner);
        let mut clean = text.to_owned();
        for secret in secrets.iter() {
            if clean.contains(secret.as_str()) {
                clean = clean.replace(secret.as_str(), REDACTED);
            }
        }
        without_passwords(&clean).into_owned()
    }

    /// The failure without secrets.
    #[must_use]
    pub fn clean_failure(&self, mut failure: Failure) -> Failure {
        failure.details = self.clean(&failure.details);
        failure.resolution = self.clean(&failure.resolution);
        failure
    }

    fn clean_event(&self, event: Event) -> Event {
        match event {
            Event::Done {
                step,
                summary,
                seconds,
            } => Event::Done {
                step,
                summary: self.clean(&summary),
                seconds,
            },
            Event::Skipped(step, why) => Event::Skipped(step, self.clean(&why)),
            Event::Output(text) => Event::Output(self.clean(&text)),
            Event::Progress(text) => Event::Progress(self.clean(&text)),
            Event::State { state, message } => Event::State {
                state: self.clean(&state),
                message: self.clean(&message),
            },
            Event::LogLine(text) => Event::LogLine(self.clean(&text)),
            Event::Warning(text) => Event::Warning(self.clean(&text)),
            Event::Note(text) => Event::Note(self.clean(&text)),
            other @ (Event::Started(_)
            | Event::Failed(..)
            | Event::Built { .. }
            | Event::Layer { .. }) => other,
        }
    }
}

/// A reporter behind the redactor.
pub struct Redacting<'a> {
    /// What it knows.
    pub redactor: &'a Redactor,
    /// Where clean events go.
    pub sink: &'a dyn Reporter,
}

impl Reporter for Redacting<'_> {
    fn event(&self, event: Event) {
        self.sink.event(self.redactor.clean_event(event));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_secret_goes_first() {
        let redactor = Redactor::default();
        redactor.learn_text("abcdef");
        redactor.learn_text("abcdef-and-more");
        redactor.learn_text("short");
        redactor.learn_text("ending in a line end\n");
        assert_eq!(redactor.clean("(ending in a line end)"), "([redacted])");
        assert_eq!(
            redactor.clean("x abcdef-and-more y abcdef short"),
            "x [redacted] y [redacted] short"
        );
        let address = "get https://ada:pw@registry.example/app";
        assert_eq!(
            redactor.clean(address),
            "get https://[redacted]@registry.example/app"
        );
    }
}

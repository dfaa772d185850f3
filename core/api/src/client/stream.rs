//! Streams of typed events over server-sent events.

use std::io::BufReader;

use super::ApiError;
use crate::events::EventReader;
use crate::types::{DeploymentEvent, LogLine};

type Opened = (String, ureq::BodyReader<'static>);

/// Events of one deployment, in order.
pub struct DeploymentEvents(Typed<DeploymentEvent>);

/// Lines of an application's log, in order.
pub struct LogLines(Typed<LogLine>);

struct Typed<T> {
    call: String,
    events: EventReader<BufReader<ureq::BodyReader<'static>>>,
    kind: std::marker::PhantomData<T>,
}

impl DeploymentEvents {
    pub(super) fn new(opened: Opened) -> Self {
        Self(Typed::new(opened))
    }
}

impl LogLines {
    pub(super) fn new(opened: Opened) -> Self {
        Self(Typed::new(opened))
    }
}

impl Iterator for DeploymentEvents {
    type Item = Result<DeploymentEvent, ApiError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

impl Iterator for LogLines {
    type Item = Result<LogLine, ApiError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

impl<T: serde::de::DeserializeOwned> Typed<T> {
    fn new((call, body): Opened) -> Self {
        Self {
            call,
            events: EventReader::new(BufReader::new(body)),
            kind: std::marker::PhantomData,
        }
    }

    fn next(&mut self) -> Option<Result<T, ApiError>> {
        let event = match self.events.next()? {
            Ok(event) => event,
            Err(source) => {
                return Some(Err(ApiError::Stream {
                    call: self.call.clone(),
                    source,
                }));
            }
        };
        Some(
            serde_json::from_str(&event.data).map_err(|e| ApiError::Malformed {
                call: self.call.clone(),
                why: e.to_string(),
                snippet: event.data.chars().take(500).collect(),
            }),
        )
    }
}

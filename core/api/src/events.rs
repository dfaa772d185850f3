//! Server-sent events: the reader of a stream, independent of where its bytes come from.
//!
//! Source: the HTML standard, section "Server-sent events".

use std::io::{self, BufRead, Read};

/// One event of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// The last `id` seen, for `Last-Event-ID`.
    pub id: Option<String>,
    /// The event's name; `message` when the stream names none.
    pub name: String,
    /// The `data` lines, joined by line feeds.
    pub data: String,
}

/// Reads events from bytes. Comments (heartbeats) are passed over.
pub struct EventReader<R> {
    lines: R,
    id: Option<String>,
}

/// No line of an event may be longer; a stream that sends one is broken or hostile.
const MAX_LINE: u64 = 1024 * 1024;

impl<R: BufRead> EventReader<R> {
    /// Reads from `source` until it ends.
    pub fn new(source: R) -> Self {
        Self {
            lines: source,
            id: None,
        }
    }

    /// The next event, or `None` at the end of the stream.
    fn read_event(&mut self) -> io::Result<Option<Event>> {
        let mut name = String::new();
        let mut data: Option<String> = None;
        loop {
            let Some(line) = self.read_line()? else {
                // An event that was not closed by an empty line is incomplete: drop it.
                return Ok(None);
            };
            if line.is_empty() {
                match data.take() {
                    Some(data) => return Ok(Some(self.event(name, data))),
                    None => name.clear(),
                }
                continue;
            }
            let (field, value) = match line.split_once(':') {
                Some((field, value)) => (field, value.strip_prefix(' ').unwrap_or(value)),
                None => (line.as_str(), ""),
            };
            match field {
                "data" => match &mut data {
                    Some(data) => {
                        data.push('\n');
                        data.push_str(value);
                    }
                    None => data = Some(value.to_owned()),
                },
                "event" => value.clone_into(&mut name),
                "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
                // A comment (empty field name) or a field of a later standard.
                _ => {}
            }
        }
    }

    fn event(&self, name: String, data: String) -> Event {
        Event {
            id: self.id.clone(),
            name: if name.is_empty() {
                "message".to_owned()
            } else {
                name
            },
            data,
        }
    }

    fn read_line(&mut self) -> io::Result<Option<String>> {
        let mut line = String::new();
        let read = self.lines.by_ref().take(MAX_LINE).read_line(&mut line)?;
        if read == 0 {
            return Ok(None);
        }
        if !line.ends_with('\n') && read as u64 == MAX_LINE {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a line of the event stream is longer than 1 MiB",
            ));
        }
        line.truncate(line.trim_end_matches(['\n', '\r']).len());
        Ok(Some(line))
    }
}

impl<R: BufRead> Iterator for EventReader<R> {
    type Item = io::Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read_event().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(text: &str) -> Vec<(Option<String>, String, String)> {
        EventReader::new(text.as_bytes())
            .map(|e| e.map(|e| (e.id, e.name, e.data)).unwrap())
            .collect()
    }

    #[test]
    fn fields_comments_and_line_ends() {
        assert_eq!(
            events(": hello\r\nid: 7\r\nevent: state\r\ndata: a\r\ndata:b\r\n\r\ndata\n\n"),
            [
                (Some("7".into()), "state".into(), "a\nb".into()),
                (Some("7".into()), "message".into(), String::new()),
            ]
        );
    }

    #[test]
    fn an_event_cut_off_by_the_end_is_dropped() {
        assert_eq!(
            events("data: whole\n\ndata: hal"),
            [(None, "message".into(), "whole".into())]
        );
    }

    #[test]
    fn an_endless_line_is_refused() {
        let text = "x".repeat(2 * 1024 * 1024);
        let error = EventReader::new(text.as_bytes())
            .next()
            .unwrap()
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}

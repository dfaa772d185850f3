//! The log of an instance: what its program writes, line by line, with the time, in a file that
//! does not grow without end.

mod capture;
mod file;
mod files;
mod lines;
mod numbered;
mod tail;

use chrono::{SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

pub(crate) use capture::Capture;
pub(crate) use file::LogFile;
pub use file::{KEPT as LOG_FILES_KEPT, MAX_BYTES as LOG_FILE_BYTES};
pub use files::{cut_log, log_of, open_log, remove_log};
pub(crate) use lines::Splitter;
pub use numbered::{add_to_log, last_number};
pub(crate) use tail::tail;

/// One line of the file. Also what other programs read: fields may be added, never renamed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// RFC 3339 in UTC with milliseconds: when the engine has read it.
    pub(crate) at: String,
    pub(crate) stream: Stream,
    /// Without the line feed. Not UTF-8 is replaced.
    #[serde(rename = "line")]
    pub(crate) text: String,
    /// Greater than those of all lines before it, where whoever has it first gives numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) number: Option<u64>,
    /// Which instance has written it, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) instance: Option<String>,
}

/// Where a line comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Line {
    /// A line that no program has written. There are two streams only, as readers of the log expect; this is what marks ours.
    pub(crate) fn of_engine(text: &str) -> Self {
        Self::now(Stream::Stderr, format!("[engine] {text}"))
    }

    pub(crate) fn now(stream: Stream, text: String) -> Self {
        Self {
            at: Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true),
            stream,
            text,
            number: None,
            instance: None,
        }
    }
}

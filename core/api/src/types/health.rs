//! How an instance proves that it works.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// *Ours*: how a release proves that it works. A request without any gets the server's own; what one leaves out is as said here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HealthCheck {
    /// What is asked. Only an instance that answers it well has traffic.
    #[serde(flatten)]
    pub probe: Probe,
    /// Milliseconds between two checks of a running instance.
    #[serde(default = "half_a_minute")]
    pub interval_ms: u64,
    /// Milliseconds that one check may take.
    #[serde(default = "five_seconds")]
    pub timeout_ms: u64,
    /// Milliseconds after the start in which failures do not count.
    #[serde(default = "a_minute")]
    pub start_period_ms: u64,
    /// Failures in a row that make an instance unhealthy.
    #[serde(default = "three_times")]
    pub retries: u32,
    /// Whether a running instance has to be started again. Without it, one that is unhealthy has to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness: Option<Liveness>,
}

/// *Ours*: how a running instance that cannot be helped any more is recognised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Liveness {
    /// What is asked.
    #[serde(flatten)]
    pub probe: Probe,
    /// Milliseconds between two checks.
    #[serde(default = "half_a_minute")]
    pub interval_ms: u64,
    /// Milliseconds that one check may take.
    #[serde(default = "five_seconds")]
    pub timeout_ms: u64,
    /// Failures in a row after which the instance is started again.
    #[serde(default = "three_times")]
    pub retries: u32,
}

fn half_a_minute() -> u64 {
    30_000
}

fn five_seconds() -> u64 {
    5_000
}

fn a_minute() -> u64 {
    60_000
}

fn three_times() -> u32 {
    3
}

/// *Ours*: one question to an instance, and which answer is a good one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Probe {
    /// How it is asked.
    #[serde(default, skip_serializing_if = "ProbeKind::is_http")]
    pub kind: ProbeKind,
    /// `http`: path of a `GET`.
    #[serde(default = "Probe::default_path")]
    pub path: String,
    /// `http`: the status of a good answer.
    #[serde(default = "Probe::default_status")]
    pub status: u16,
    /// `http`: text that the first 64 KiB of a good answer hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// `command`: what is run inside the instance; it has to end with 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            kind: ProbeKind::default(),
            path: Self::default_path(),
            status: Self::default_status(),
            body: None,
            command: Vec::new(),
        }
    }
}

impl Probe {
    fn default_path() -> String {
        "/".to_owned()
    }

    fn default_status() -> u16 {
        200
    }
}

/// How an instance is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProbeKind {
    /// A `GET` on the instance's port.
    #[default]
    Http,
    /// A connection to the instance's port.
    Tcp,
    /// A command inside the instance.
    Command,
    /// In a request: the command of the image's own check, at the image's own times where it has some. What becomes of
    /// the release has the command.
    Image,
    /// Nothing: it is well as long as its program runs, and has proved itself when that has run for the start period.
    Process,
}

impl ProbeKind {
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde passes a reference"
    )]
    fn is_http(&self) -> bool {
        *self == Self::Http
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_as_people_expect() {
        let text = r#"{"path": "/up", "liveness": {"kind": "tcp"}}"#;
        let check: HealthCheck = serde_json::from_str(text).unwrap();
        assert_eq!((check.interval_ms, check.timeout_ms), (30_000, 5_000));
        assert_eq!((check.start_period_ms, check.retries), (60_000, 3));
        let liveness = check.liveness.unwrap();
        assert_eq!((liveness.interval_ms, liveness.retries), (30_000, 3));
    }
}

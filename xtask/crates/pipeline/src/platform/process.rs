//! Processes that records tell of: whether they are still there.

use std::fs;
use std::time::{Duration, Instant};

use serde::Deserialize;

const LOOK: Duration = Duration::from_millis(20);

/// A process. A record outlives it, and its number may be another one's by now.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Process {
    pub(super) pid: i32,
    /// When it was started, as the kernel counts: tells it from a later one of the same number. Servers of before they said it
    /// have none.
    pub(super) started: Option<u64>,
}

impl Process {
    /// The one that has this number now.
    pub(super) fn of(pid: i32) -> Option<Self> {
        let started = Some(started(pid)?);
        Some(Self { pid, started })
    }

    pub(super) fn is_alive(&self) -> bool {
        let found = started(self.pid);
        found.is_some() && (self.started.is_none() || found == self.started)
    }

    /// Waits for its end.
    pub(super) fn ends_within(&self, limit: Duration) -> bool {
        let limit = Instant::now() + limit;
        while self.is_alive() {
            if Instant::now() > limit {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        true
    }
}

/// When the process of this number was started. One that has ended but was not waited for counts as ended: it may be our own
/// child.
fn started(pid: i32) -> Option<u64> {
    if pid <= 0 {
        return None;
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; the other fields, from the third on, follow the last one.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = fields.split_ascii_whitespace();
    let has_ended = matches!(fields.next()?, "Z" | "X");
    // `starttime`, field 22 of proc_pid_stat(5).
    let started = fields.nth(18)?.parse().ok()?;
    (!has_ended).then_some(started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_and_none_has_a_negative_number() {
        let own = i32::try_from(std::process::id()).unwrap();
        let is_alive = |pid, started| Process { pid, started }.is_alive();
        assert!(is_alive(own, None));
        assert!(!is_alive(own, Some(1)), "another process had this number");
        assert!(!is_alive(-1, None));
    }
}

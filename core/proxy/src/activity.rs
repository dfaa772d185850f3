//! When something last moved: lets a time-out run from the last byte instead of from the start.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The moment of the last sign of life of one request or tunnel.
#[derive(Debug)]
pub(crate) struct Activity {
    start: Instant,
    last_millis: AtomicU64,
}

impl Activity {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            last_millis: AtomicU64::new(0),
        }
    }

    pub(crate) fn touch(&self) {
        self.last_millis
            .store(millis(self.start.elapsed()), Ordering::Relaxed);
    }

    /// What is left of `limit` since the last sign of life; zero when it has passed.
    pub(crate) fn remaining(&self, limit: Duration) -> Duration {
        let last = Duration::from_millis(self.last_millis.load(Ordering::Relaxed));
        (last + limit).saturating_sub(self.start.elapsed())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

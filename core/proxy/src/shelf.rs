//! Connections that wait for their next request.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Unused connections of one kind to one instance.
#[derive(Debug)]
pub(crate) struct Shelf<L> {
    timeout: Duration,
    most: usize,
    idle: Mutex<Idle<L>>,
}

#[derive(Debug)]
struct Idle<L> {
    closed: bool,
    /// The longest unused first; taken from the back, so that a quiet time shrinks the pool.
    lines: VecDeque<(L, Instant)>,
}

impl<L> Shelf<L> {
    /// For at most `most` connections, each unused for at most `timeout`.
    pub(crate) fn new(most: usize, timeout: Duration) -> Self {
        Self {
            timeout,
            most,
            idle: Mutex::new(Idle {
                closed: false,
                lines: VecDeque::new(),
            }),
        }
    }

    /// One that `is_ready`; those that are not are dropped.
    pub(crate) fn take(&self, mut is_ready: impl FnMut(&mut L) -> bool) -> Option<L> {
        let mut idle = self.lock();
        while let Some((mut line, since)) = idle.lines.pop_back() {
            // An instance that has closed the connection meanwhile is noticed here.
            if since.elapsed() < self.timeout && is_ready(&mut line) {
                return Some(line);
            }
        }
        None
    }

    pub(crate) fn keep(&self, line: L) {
        let mut idle = self.lock();
        if !idle.closed && idle.lines.len() < self.most {
            idle.lines.push_back((line, Instant::now()));
        }
    }

    /// Drops the connections and keeps none from now on.
    pub(crate) fn close(&self) {
        let mut idle = self.lock();
        idle.closed = true;
        let unused = std::mem::take(&mut idle.lines);
        drop(idle);
        drop(unused);
    }

    /// Drops the connections that have been unused for too long.
    pub(crate) fn expire(&self) {
        let mut idle = self.lock();
        let fresh = |(_, since): &(L, Instant)| since.elapsed() < self.timeout;
        let expired = idle
            .lines
            .iter()
            .position(fresh)
            .unwrap_or(idle.lines.len());
        let unused: Vec<_> = idle.lines.drain(..expired).collect();
        drop(idle);
        drop(unused);
    }

    fn lock(&self) -> MutexGuard<'_, Idle<L>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Unused connections to one instance. Each of the threads that serve clients keeps those that it has used, and takes one of
//! another thread only when it has none.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::lanes;

/// Unused connections of one kind to one instance.
#[derive(Debug)]
pub(crate) struct Shelf<L> {
    timeout: Duration,
    most: usize,
    /// On all boards.
    count: AtomicUsize,
    /// One for each [`lanes::place`].
    boards: Box<[Board<L>]>,
}

/// Far enough apart for processors not to take each other's memory away.
#[derive(Debug)]
#[repr(align(128))]
struct Board<L>(Mutex<Idle<L>>);

#[derive(Debug)]
struct Idle<L> {
    closed: bool,
    /// The longest unused first; taken from the back, so that a quiet time shrinks the pool.
    lines: VecDeque<(L, Instant)>,
}

/// A connection that was unused.
#[derive(Debug)]
pub(crate) enum Found<L> {
    /// Used by this thread before.
    Own(L),
    /// Used by another one.
    Others(L),
}

impl<L> Shelf<L> {
    /// For at most `most` connections, each unused for at most `timeout`.
    pub(crate) fn new(most: usize, timeout: Duration) -> Self {
        let board = || {
            Board(Mutex::new(Idle {
                closed: false,
                lines: VecDeque::new(),
            }))
        };
        Self {
            timeout,
            most,
            count: AtomicUsize::new(0),
            boards: (0..lanes::places()).map(|_| board()).collect(),
        }
    }

    /// One that `is_ready`; those that are not are dropped.
    pub(crate) fn take(&self, mut is_ready: impl FnMut(&mut L) -> bool) -> Option<Found<L>> {
        let own = lanes::place();
        if let Some(line) = self.take_from(&self.boards[own], &mut is_ready) {
            return Some(Found::Own(line));
        }
        let (before, after) = (&self.boards[..own], &self.boards[own + 1..]);
        // Without a lock, and only a hint: whoever is told of none makes a connection.
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut others = after.iter().chain(before);
        others
            .find_map(|board| self.take_from(board, &mut is_ready))
            .map(Found::Others)
    }

    fn take_from(&self, board: &Board<L>, is_ready: &mut impl FnMut(&mut L) -> bool) -> Option<L> {
        let mut idle = board.lock();
        while let Some((mut line, since)) = idle.lines.pop_back() {
            self.count.fetch_sub(1, Ordering::Relaxed);
            // An instance that has closed the connection meanwhile is noticed here.
            if since.elapsed() < self.timeout && is_ready(&mut line) {
                return Some(line);
            }
        }
        None
    }

    pub(crate) fn keep(&self, line: L) {
        let mut idle = self.boards[lanes::place()].lock();
        if idle.closed {
            return;
        }
        if self.count.fetch_add(1, Ordering::Relaxed) < self.most {
            idle.lines.push_back((line, Instant::now()));
        } else {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Drops the connections and keeps none from now on.
    pub(crate) fn close(&self) {
        for board in &self.boards {
            let mut idle = board.lock();
            idle.closed = true;
            let unused = std::mem::take(&mut idle.lines);
            self.count.fetch_sub(unused.len(), Ordering::Relaxed);
            drop(idle);
            drop(unused);
        }
    }

    /// Drops the connections that have been unused for too long.
    pub(crate) fn expire(&self) {
        for board in &self.boards {
            let mut idle = board.lock();
            let fresh = |(_, since): &(L, Instant)| since.elapsed() < self.timeout;
            let expired = idle
                .lines
                .iter()
                .position(fresh)
                .unwrap_or(idle.lines.len());
            let unused: Vec<_> = idle.lines.drain(..expired).collect();
            self.count.fetch_sub(unused.len(), Ordering::Relaxed);
            drop(idle);
            drop(unused);
        }
    }
}

impl<L> Board<L> {
    fn lock(&self) -> MutexGuard<'_, Idle<L>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

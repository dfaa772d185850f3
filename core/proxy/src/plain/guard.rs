//! Waiting that ends with a time-out and with the proxy.
//!
//! A connection waits several times for each request, and nearly always for less than a millisecond. So neither the timer
//! nor the subscription to the proxy's phase is made anew for a wait, and neither is asked unless it may have something to
//! say: the timer runs on to where it was set, and looks then whether that is still the time.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::coop;
use tokio::time::{Instant, Sleep};

use crate::listener::{Phase, Stop};

/// Why a wait has ended without what was awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interrupt {
    Late,
    /// The proxy has come to the phase that ends this wait.
    Stop,
}

/// How long one wait may take, and which phase of the proxy ends it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Until {
    pub(super) limit: Option<Duration>,
    pub(super) phase: Phase,
}

impl Until {
    /// A wait in the middle of a request: only the very end of the proxy interrupts it.
    pub(super) fn within(limit: Duration) -> Self {
        Self {
            limit: Some(limit),
            phase: Phase::Closed,
        }
    }

    /// [`Until::within`] without a limit.
    pub(super) fn closed() -> Self {
        Self {
            limit: None,
            phase: Phase::Closed,
        }
    }
}

/// The timer and the subscription of one connection. All its waits are in one task.
pub(super) struct Guard {
    sleep: Pin<Box<Sleep>>,
    /// Whether the timer wakes this task.
    armed: bool,
    stop: Stop,
    phase: Phase,
    change: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Whether a change wakes this task.
    subscribed: bool,
}

impl fmt::Debug for Guard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Guard")
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

impl Guard {
    pub(super) fn new(stop: &Stop) -> Self {
        let mut stop = stop.clone();
        let phase = stop.now();
        Self {
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
            armed: false,
            change: Box::pin(stop.clone().changed()),
            stop,
            phase,
            subscribed: false,
        }
    }

    /// How far the proxy is on its way out.
    pub(super) fn phase(&mut self) -> Phase {
        if self.stop.has_changed() {
            self.phase = self.stop.now();
        }
        self.phase
    }

    /// What `attempt` comes to, unless it takes too long or the proxy ends. The limit runs from the first attempt.
    pub(super) async fn wait<T>(
        &mut self,
        until: Until,
        mut attempt: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Result<T, Interrupt> {
        let mut end = None;
        poll_fn(|context| {
            if let Poll::Ready(outcome) = attempt(context) {
                return Poll::Ready(Ok(outcome));
            }
            // Then it is for this task's turn being over that the attempt has not come further, and it is woken for that.
            if !coop::has_budget_remaining() {
                return Poll::Pending;
            }
            let end = until
                .limit
                .map(|limit| *end.get_or_insert_with(|| Instant::now() + limit));
            self.poll(until.phase, end, context).map(Err)
        })
        .await
    }

    fn poll(
        &mut self,
        phase: Phase,
        end: Option<Instant>,
        context: &mut Context<'_>,
    ) -> Poll<Interrupt> {
        if self.poll_phase(context) >= phase {
            return Poll::Ready(Interrupt::Stop);
        }
        match end {
            Some(end) => self.poll_time(end, context).map(|()| Interrupt::Late),
            None => Poll::Pending,
        }
    }

    fn poll_phase(&mut self, context: &mut Context<'_>) -> Phase {
        while !self.subscribed || self.stop.has_changed() {
            self.phase = self.stop.now();
            if self.phase == Phase::Closed {
                break;
            }
            self.subscribed = self.change.as_mut().poll(context).is_pending();
            if !self.subscribed {
                self.change = Box::pin(self.stop.clone().changed());
            }
        }
        self.phase
    }

    fn poll_time(&mut self, end: Instant, context: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        if now >= end {
            return Poll::Ready(());
        }
        let rings = self.sleep.deadline();
        if self.armed && now < rings && rings <= end {
            return Poll::Pending;
        }
        self.sleep.as_mut().reset(end);
        self.armed = self.sleep.as_mut().poll(context).is_pending();
        if self.armed {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }
}

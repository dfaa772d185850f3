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
            change: change(&stop),
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
            // Then it may be for this task's turn being over that the attempt has not come further, and neither the timer nor
            // the phase would be heard of now.
            if !coop::has_budget_remaining() {
                context.waker().wake_by_ref();
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
        // Only here is nothing on its way that could use the subscription up unseen: a later phase is seen before it is told.
        if self.subscribed && self.phase == Phase::Running && !self.stop.has_changed() {
            return self.phase;
        }
        loop {
            self.phase = self.stop.now();
            if self.phase == Phase::Closed || self.change.as_mut().poll(context).is_pending() {
                self.subscribed = true;
                return self.phase;
            }
            self.change = change(&self.stop);
        }
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

/// Told of in any turn of the task: a subscription that was put off would be none.
fn change(stop: &Stop) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(coop::unconstrained(stop.clone().changed()))
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;
    use tokio::task::JoinHandle;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(20);

    fn guard() -> (watch::Sender<Phase>, Guard) {
        let (phase, stop) = watch::channel(Phase::Running);
        (phase, Guard::new(&Stop::new(stop)))
    }

    fn never(_: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    /// Uses up the task's turn, and has nothing to wait for.
    fn exhaust(context: &mut Context<'_>) -> Poll<()> {
        while coop::has_budget_remaining() {
            if let Poll::Ready(progress) = coop::poll_proceed(context) {
                progress.made_progress();
            }
        }
        Poll::Pending
    }

    /// A wait in a task that nothing wakes but what the guard waits for.
    fn waiting(
        mut guard: Guard,
        until: Until,
        attempt: impl FnMut(&mut Context<'_>) -> Poll<()> + Send + 'static,
    ) -> JoinHandle<Result<(), Interrupt>> {
        tokio::spawn(async move { guard.wait(until, attempt).await })
    }

    async fn outcome(waiting: JoinHandle<Result<(), Interrupt>>) -> Result<(), Interrupt> {
        let ended = tokio::time::timeout(SOON, waiting).await;
        ended
            .expect("it does not wait without end")
            .expect("no panic")
    }

    #[tokio::test]
    async fn a_phase_is_noticed_after_one_that_was_asked_for() {
        let (phase, mut guard) = guard();
        let late = guard.wait(Until::within(SHORT), never).await;
        assert_eq!(late, Err(Interrupt::Late));
        phase.send(Phase::Finishing).expect("it is awaited");
        assert_eq!(guard.phase(), Phase::Finishing);
        let waiting = waiting(guard, Until::closed(), never);
        tokio::task::yield_now().await;
        phase.send(Phase::Closed).expect("it is awaited");
        assert_eq!(outcome(waiting).await, Err(Interrupt::Stop));
    }

    #[tokio::test]
    async fn a_wait_ends_though_the_task_has_had_its_turn() {
        let (phase, guarded) = guard();
        let mut is_first = true;
        let once = move |context: &mut Context<'_>| {
            if std::mem::take(&mut is_first) {
                return exhaust(context);
            }
            Poll::Pending
        };
        let waiting = waiting(guarded, Until::within(SHORT), once);
        assert_eq!(outcome(waiting).await, Err(Interrupt::Late));
        drop(phase);
    }
}

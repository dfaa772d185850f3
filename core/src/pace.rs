//! Work that many ask for and that is done for all of them: at once, and then not again before some time is over.
//!
//! Nobody's wish is lost. Whoever asks while a round is going on, or before the next one may begin, gets a round that begins after
//! that; all who ask until then share it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::MutexGuard;
use tokio::time::{Instant, sleep_until};

/// Sees to it that rounds come one after the other, each a while after the one before.
pub(crate) struct Pace {
    rest: Duration,
    next: Mutex<Next>,
    /// Held by whoever waits for the next round, or is in one.
    turn: tokio::sync::Mutex<()>,
}

struct Next {
    /// Before that it does not begin.
    not_before: Option<Instant>,
    /// Somebody waits for it already.
    is_asked_for: bool,
}

/// A round that goes on; it ends with this.
pub(crate) struct Round<'p> {
    pace: &'p Pace,
    _turn: MutexGuard<'p, ()>,
}

impl Pace {
    /// `rest` is the time from the end of a round to the beginning of the next one.
    pub(crate) fn new(rest: Duration) -> Self {
        Self {
            rest,
            next: Mutex::new(Next {
                not_before: None,
                is_asked_for: false,
            }),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Waits until a round may begin; `None`, and at once, where one is waited for that will do. Whoever gives up this wait has to be the
    /// last one: the round does not come then.
    pub(crate) async fn round(&self) -> Option<Round<'_>> {
        if std::mem::replace(&mut self.next().is_asked_for, true) {
            return None;
        }
        let turn = self.turn.lock().await;
        let not_before = self.next().not_before;
        if let Some(time) = not_before {
            sleep_until(time).await;
        }
        // From here on it may have looked already at what somebody changes.
        self.next().is_asked_for = false;
        Some(Round {
            pace: self,
            _turn: turn,
        })
    }

    fn next(&self) -> std::sync::MutexGuard<'_, Next> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        self.pace.next().not_before = Some(Instant::now() + self.pace.rest);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::task::JoinSet;

    use super::*;

    const REST: Duration = Duration::from_secs(30);

    /// Somebody changes something and asks; each round sees all that was changed before it began.
    #[derive(Default)]
    struct World {
        changes: AtomicU32,
        told: AtomicU32,
        rounds: AtomicU32,
    }

    async fn ask(pace: Arc<Pace>, world: Arc<World>, work: Duration) {
        world.changes.fetch_add(1, Ordering::Relaxed);
        if let Some(_round) = pace.round().await {
            let changes = world.changes.load(Ordering::Relaxed);
            tokio::time::sleep(work).await;
            world.told.fetch_max(changes, Ordering::Relaxed);
            world.rounds.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// `asked` ask, `apart` from each other, for work that takes so long. Says how many rounds there were.
    async fn rounds(asked: u32, apart: Duration, work: Duration) -> u32 {
        let (pace, world) = (Arc::new(Pace::new(REST)), Arc::new(World::default()));
        let mut all = JoinSet::new();
        for _ in 0..asked {
            all.spawn(ask(Arc::clone(&pace), Arc::clone(&world), work));
            tokio::time::sleep(apart).await;
        }
        all.join_all().await;
        assert_eq!(world.told.load(Ordering::Relaxed), asked, "a wish was lost");
        world.rounds.load(Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn rounds_do_not_grow_with_who_asks_and_no_wish_is_lost() {
        let (moment, second) = (Duration::from_millis(1), Duration::from_secs(1));
        assert_eq!(rounds(1, moment, moment).await, 1);
        // The first, and one for all others.
        assert_eq!(rounds(1000, moment, moment).await, 2);
        // Whoever asks while the first one goes on is not seen by it.
        assert_eq!(rounds(2, moment, second).await, 2);
        assert_eq!(rounds(1000, moment, 100 * second).await, 2);
        // Two minutes: at the beginning, and four times half a minute and a moment later.
        assert_eq!(rounds(120, second, moment).await, 5);
        // Who asks seldom does not wait.
        assert_eq!(rounds(3, 31 * second, moment).await, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_round_and_one_after_a_rest_begin_at_once() {
        let pace = Pace::new(REST);
        let begun = Instant::now();
        drop(pace.round().await);
        assert_eq!(begun.elapsed(), Duration::ZERO);
        drop(pace.round().await);
        assert_eq!(begun.elapsed(), REST);
        tokio::time::advance(2 * REST).await;
        drop(pace.round().await);
        assert_eq!(begun.elapsed(), 3 * REST);
    }
}

//! What was seen last of what an engine has of a tenant.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engines::orchestrator::Observed;
use engines::{EngineError, Orchestrator};
use tokio::time::Instant;

use crate::platform::Platform;
use crate::tenant::Tenant;

/// An engine that is started anew is not missed at once.
const MISSED: Duration = Duration::from_secs(5);

/// What was seen last.
#[derive(Default)]
pub(crate) struct Sight(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    observed: Option<Observed>,
    /// Whether there ever was an answer.
    answered: bool,
    /// Since when there is none, and why.
    silent: Option<(Instant, String)>,
}

impl Sight {
    pub(super) fn observed(&self) -> Option<Observed> {
        self.seen().observed.clone()
    }

    /// The last turn that the engine was seen to have.
    pub(super) fn turn(&self) -> u64 {
        let seen = self.seen();
        seen.observed.as_ref().map_or(0, |observed| observed.turn)
    }

    /// Why nothing is known of it any more.
    pub(super) fn missed(&self) -> Option<String> {
        let seen = self.seen();
        let (since, why) = seen.silent.as_ref()?;
        (!seen.answered || since.elapsed() >= MISSED).then(|| why.clone())
    }

    /// Takes note of an answer, or of none. How often instances were started again since the one before, and whether
    /// anything is another than it was.
    fn note(&self, answer: &Result<Option<Observed>, EngineError>) -> (u64, bool) {
        let mut seen = self.seen();
        match answer {
            Ok(observed) => {
                let again = seen.answered.then(|| restarts(observed.as_ref()));
                let again = again.map(|now| now.saturating_sub(restarts(seen.observed.as_ref())));
                let changed = seen.observed != *observed;
                seen.observed.clone_from(observed);
                seen.answered = true;
                seen.silent = None;
                (again.unwrap_or_default(), changed)
            }
            Err(error) => {
                let why = crate::chain(error);
                match &mut seen.silent {
                    Some((_, known)) => *known = why,
                    silent => *silent = Some((Instant::now(), why)),
                }
                (0, false)
            }
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn restarts(observed: Option<&Observed>) -> u64 {
    let services = observed.map(|observed| observed.services.values());
    services.into_iter().flatten().map(|one| one.restarts).sum()
}

/// Looks, and lets everybody know.
pub(super) async fn look(
    app: &Platform,
    tenant: &Tenant,
    engine: &dyn Orchestrator,
) -> Result<Option<Observed>, EngineError> {
    let answer = engine.observe(tenant.id.clone()).await;
    if let Some(sight) = &tenant.sight {
        let (again, changed) = sight.note(&answer);
        for _ in 0..again {
            app.metrics.count_restart(&tenant.id);
        }
        if changed {
            tenant.changed();
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use engines::orchestrator::Counted;

    use super::*;

    fn observed(turn: u64, restarts: u64) -> Observed {
        let app = Counted {
            deployment: 1,
            restarts,
            ..Counted::default()
        };
        Observed {
            turn,
            deployment: 1,
            serving: None,
            services: BTreeMap::from([("app".to_owned(), app)]),
            failed: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn restarts_are_counted_from_the_first_look_on_and_a_short_silence_is_none() {
        let sight = Sight::default();
        let silent = || {
            Err(EngineError::External {
                action: "look at a release",
                reason: "nobody is there".to_owned(),
            })
        };
        assert_eq!(sight.note(&silent()), (0, false));
        assert!(sight.missed().is_some(), "nothing is known of it");
        assert_eq!(sight.note(&Ok(Some(observed(3, 7)))), (0, true));
        assert_eq!(sight.note(&Ok(Some(observed(3, 7)))), (0, false));
        assert_eq!(sight.note(&silent()), (0, false));
        assert_eq!(sight.missed(), None);
        tokio::time::advance(MISSED).await;
        assert!(
            sight
                .missed()
                .is_some_and(|why| why.contains("nobody is there"))
        );
        assert_eq!(sight.note(&Ok(Some(observed(4, 9)))), (2, true));
        assert_eq!((sight.missed(), sight.turn()), (None, 4));
    }
}

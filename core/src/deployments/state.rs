//! The states of a deployment and the rules between them. Pure: it acts on nothing.
//!
//! The executor may only write what this module allows, and what happens to an unfinished
//! deployment after the server died is decided here, not where it is carried out.

use std::fmt;

/// State of one deployment. The words on the wire and in the database are those of [`as_str`].
///
/// [`as_str`]: State::as_str
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum State {
    /// Accepted; nothing was started.
    Requested,
    /// The release command has done its work; nothing of the release was started yet.
    Migrated,
    /// Image unpacked, new instance started.
    Provisioned,
    /// The new instance proved that it works; no traffic has moved.
    Healthy,
    /// Traffic moves to the new instances; not yet committed. Written again with each part that moves.
    Shifting,
    /// The traffic stays as it is until somebody says how to go on.
    Paused,
    /// The new release serves and is the live one. From here there is no way back but a rollback.
    Verified,
    /// The old instance finishes its requests.
    Draining,
    /// Done.
    Succeeded,
    /// Somebody asked to undo it.
    Aborting,
    /// The old release is being put back.
    RollingBack,
    /// Over: the release that served before serves still or again.
    RolledBack,
    /// Over: no release was serving before.
    Failed,
    /// The release that served before does not serve again. Nobody deploys here until somebody says that it is settled.
    NeedsOperator,
}

impl State {
    /// All of them, in the order of a deployment's life.
    pub(crate) const ALL: [Self; 14] = [
        Self::Requested,
        Self::Migrated,
        Self::Provisioned,
        Self::Healthy,
        Self::Shifting,
        Self::Paused,
        Self::Verified,
        Self::Draining,
        Self::Succeeded,
        Self::Aborting,
        Self::RollingBack,
        Self::RolledBack,
        Self::Failed,
        Self::NeedsOperator,
    ];

    /// The word on the wire and in the database.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Migrated => "migrated",
            Self::Provisioned => "provisioned",
            Self::Healthy => "healthy",
            Self::Shifting => "shifting",
            Self::Paused => "paused",
            Self::Verified => "verified",
            Self::Draining => "draining",
            Self::Succeeded => "succeeded",
            Self::Aborting => "aborting",
            Self::RollingBack => "rolling_back",
            Self::RolledBack => "rolled_back",
            Self::Failed => "failed",
            Self::NeedsOperator => "needs_operator",
        }
    }

    /// Reads [`as_str`](Self::as_str) back.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether nothing follows by itself.
    pub(crate) fn is_final(self) -> bool {
        matches!(
            self,
            Self::Succeeded | Self::RolledBack | Self::Failed | Self::NeedsOperator
        )
    }

    /// Whether others may deploy. The lock is kept where somebody has to look first.
    pub(crate) fn frees_the_tenant(self) -> bool {
        self.is_final() && self != Self::NeedsOperator
    }

    /// Whether the new release is the live one.
    pub(crate) fn is_committed(self) -> bool {
        matches!(self, Self::Verified | Self::Draining | Self::Succeeded)
    }

    /// Whether an abort can still be honoured.
    pub(crate) fn may_be_aborted(self) -> bool {
        self.may_become(Self::Aborting)
    }

    /// Whether somebody's word lets it go on.
    pub(crate) fn may_be_promoted(self) -> bool {
        matches!(self, Self::Shifting | Self::Paused)
    }

    /// Whether `next` may be written after `self`.
    pub(crate) fn may_become(self, next: Self) -> bool {
        match self {
            Self::Requested => matches!(
                next,
                Self::Migrated
                    | Self::Provisioned
                    | Self::Shifting
                    | Self::Aborting
                    | Self::RollingBack
            ),
            // Straight to the traffic: an engine that replaces instances by itself gives it to each that is ready.
            Self::Migrated => matches!(
                next,
                Self::Provisioned | Self::Shifting | Self::Aborting | Self::RollingBack
            ),
            Self::Provisioned => {
                matches!(next, Self::Healthy | Self::Aborting | Self::RollingBack)
            }
            Self::Healthy => matches!(next, Self::Shifting | Self::Aborting | Self::RollingBack),
            Self::Shifting => matches!(
                next,
                Self::Shifting | Self::Paused | Self::Verified | Self::Aborting | Self::RollingBack
            ),
            Self::Paused => {
                matches!(next, Self::Shifting | Self::Aborting | Self::RollingBack)
            }
            // Straight to the end: a recovery finds nothing left to drain.
            Self::Verified => matches!(next, Self::Draining | Self::Succeeded),
            Self::Draining => matches!(next, Self::Succeeded),
            Self::Aborting => matches!(next, Self::RollingBack),
            Self::RollingBack => {
                matches!(next, Self::RolledBack | Self::Failed | Self::NeedsOperator)
            }
            // By an operator's word.
            Self::NeedsOperator => matches!(next, Self::RolledBack),
            Self::Succeeded | Self::RolledBack | Self::Failed => false,
        }
    }

    /// The final state of a deployment that is undone.
    pub(crate) fn undone(another_release_is_live: bool) -> Self {
        if another_release_is_live {
            Self::RolledBack
        } else {
            Self::Failed
        }
    }

    /// The states to write, in order, when a server that starts finds a deployment in `self`. All
    /// instances died with the server that ran them, so there is nothing to adopt: before the
    /// commit the deployment is undone, after it only its end is missing.
    pub(crate) fn recovery(self, another_release_is_live: bool) -> Vec<Self> {
        let undone = Self::undone(another_release_is_live);
        match self {
            Self::Requested
            | Self::Migrated
            | Self::Provisioned
            | Self::Healthy
            | Self::Shifting
            | Self::Paused
            | Self::Aborting => vec![Self::RollingBack, undone],
            Self::RollingBack => vec![undone],
            Self::Verified | Self::Draining => vec![Self::Succeeded],
            Self::Succeeded | Self::RolledBack | Self::Failed | Self::NeedsOperator => Vec::new(),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::State::{
        Aborting, Draining, Failed, Healthy, Migrated, NeedsOperator, Paused, Provisioned,
        Requested, RolledBack, RollingBack, Shifting, Succeeded, Verified,
    };
    use super::*;

    /// Every allowed step, written a second time as a table: what is missing here is forbidden.
    const ALLOWED: &[(State, &[State])] = &[
        (
            Requested,
            &[Migrated, Provisioned, Shifting, Aborting, RollingBack],
        ),
        (Migrated, &[Provisioned, Shifting, Aborting, RollingBack]),
        (Provisioned, &[Healthy, Aborting, RollingBack]),
        (Healthy, &[Shifting, Aborting, RollingBack]),
        (
            Shifting,
            &[Shifting, Paused, Verified, Aborting, RollingBack],
        ),
        (Paused, &[Shifting, Aborting, RollingBack]),
        (Verified, &[Draining, Succeeded]),
        (Draining, &[Succeeded]),
        (Succeeded, &[]),
        (Aborting, &[RollingBack]),
        (RollingBack, &[RolledBack, Failed, NeedsOperator]),
        (RolledBack, &[]),
        (Failed, &[]),
        (NeedsOperator, &[RolledBack]),
    ];

    #[test]
    fn exactly_the_steps_of_the_table_are_allowed() {
        assert_eq!(ALLOWED.len(), State::ALL.len());
        for (from, allowed) in ALLOWED {
            for to in State::ALL {
                assert_eq!(from.may_become(to), allowed.contains(&to), "{from} -> {to}");
            }
        }
    }

    #[test]
    fn a_committed_deployment_is_never_undone() {
        for from in State::ALL.into_iter().filter(|s| s.is_committed()) {
            for to in [Aborting, RollingBack, RolledBack, Failed, NeedsOperator] {
                assert!(!from.may_become(to), "{from} -> {to}");
            }
            assert!(!from.may_be_aborted());
        }
    }

    #[test]
    fn recovery_takes_allowed_steps_to_a_final_state() {
        for from in State::ALL {
            for live in [true, false] {
                let steps = from.recovery(live);
                let end = steps.iter().fold(from, |at, next| {
                    assert!(at.may_become(*next), "{at} -> {next}");
                    *next
                });
                assert!(end.is_final(), "{from} ends in {end}");
                if !from.is_final() {
                    let expected = match (from.is_committed(), live) {
                        (true, _) => Succeeded,
                        (false, true) => RolledBack,
                        (false, false) => Failed,
                    };
                    assert_eq!(end, expected, "{from}, live {live}");
                }
            }
        }
    }

    #[test]
    fn finality_agrees_with_the_clients() {
        for state in State::ALL {
            assert_eq!(State::parse(state.as_str()), Some(state));
            assert_eq!(
                state.is_final(),
                management_api::types::is_final(state.as_str()),
                "{state}"
            );
        }
    }
}

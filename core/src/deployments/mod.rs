//! Deployments: what one is, which states it passes and what a request for one must say.
//!
//! Nothing here runs anything: the rollout does.

mod capsule;
mod healthcheck;
mod image;
mod request;
mod rollback;
mod state;

pub(crate) use capsule::Capsule;
#[cfg(test)]
pub(crate) use capsule::fixtures::capsule as capsule_fixture;
pub(crate) use healthcheck::from_image as health_check_of_image;
pub(crate) use image::{holds, resolve};
pub(crate) use request::{
    Refusal, RequestDefaults, capsule_of, check_health, check_tenant_id, strategy_of, timeout_of,
};
pub(crate) use rollback::{RollbackError, restored_release};
pub(crate) use state::State;

/// Why a deployment was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Of a release that was asked for by its image.
    Deploy,
    /// Of an older deployment's release.
    Rollback,
}

impl Kind {
    /// The word on the wire and in the database.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Rollback => "rollback",
        }
    }

    /// Reads [`as_str`](Self::as_str) back.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        [Self::Deploy, Self::Rollback]
            .into_iter()
            .find(|kind| kind.as_str() == word)
    }
}

/// In which order the new instance starts and the old one stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// New beside old, switch, drain the old one.
    Rolling,
    /// Old stopped first: for applications of which two must never run at once.
    Recreate,
}

impl Strategy {
    /// All of them.
    pub(crate) const ALL: [Self; 2] = [Self::Rolling, Self::Recreate];

    /// The word on the wire and in the database.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Rolling => "rolling",
            Self::Recreate => "recreate",
        }
    }

    /// Reads [`as_str`](Self::as_str) back.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|strategy| strategy.as_str() == word)
    }
}

//! Deployments: what one is, which states it passes and what a request for one must say.
//!
//! Nothing here runs anything: the rollout does.

mod capsule;
mod course;
mod group;
mod healthcheck;
mod image;
pub(crate) mod outputs;
mod request;
mod rollback;
pub(crate) mod run_config;
mod service;
mod state;

pub(crate) use capsule::Capsule;
#[cfg(test)]
pub(crate) use capsule::fixtures::capsule as capsule_fixture;
pub(crate) use course::{Course, Step, Thresholds, settle};
pub(crate) use group::{Found, check_group, group_of};
pub(crate) use healthcheck::{from_image as health_check_of_image, settle_health};
pub(crate) use image::{held, resolve};
pub(crate) use request::{
    Refusal, RequestDefaults, capsule_of, check_health, check_tenant_id, check_variable,
    release_command_of, strategy_of, timeout_of, with_secrets,
};
pub(crate) use rollback::{Restorable, RollbackError, restored_release};
#[cfg(test)]
pub(crate) use service::fixtures::service as service_fixture;
pub(crate) use service::{APP, Group, Service, public_url};
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

/// How a release takes the place of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// Some new instances beside the old ones, then as many old ones away, until all are new.
    Rolling,
    /// Old stopped first: for applications of which two must never run at once.
    Recreate,
    /// A whole new set beside the old one, and all of the traffic at once.
    BlueGreen,
    /// A little of the traffic, and more in steps.
    Canary,
}

impl Strategy {
    /// All of them.
    pub(crate) const ALL: [Self; 4] =
        [Self::Rolling, Self::Recreate, Self::BlueGreen, Self::Canary];

    /// The word on the wire and in the database.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Rolling => "rolling",
            Self::Recreate => "recreate",
            Self::BlueGreen => "blue-green",
            Self::Canary => "canary",
        }
    }

    /// Reads [`as_str`](Self::as_str) back; `_` counts as `-`.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        let word = word.replace('_', "-");
        Self::ALL
            .into_iter()
            .find(|strategy| strategy.as_str() == word)
    }
}

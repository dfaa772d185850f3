//! The release of a tenant, whoever keeps it running.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::live::Live;
use super::ordered::Ordered;
use crate::deployments::Service;
use crate::store::DeploymentRow;

/// How a release is: as the worst of its services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LiveState {
    /// Not all services have a healthy instance yet.
    Starting,
    /// All services have.
    Serving,
    /// A service has none; the last one ended, for this reason. Others will be started.
    Down(String),
    /// Nothing is started again of a service that has failed, or of any.
    Ended {
        /// Why the last one ended.
        why: String,
        /// Whether all have done their work.
        well: bool,
    },
}

/// How a service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    /// None of its instances is healthy yet.
    Starting,
    /// These are.
    Serving(Vec<String>),
    /// None is; the last one ended, for this reason. Others will be started.
    Down(String),
    /// None runs, and none is started again.
    Ended {
        /// Why the last one ended.
        why: String,
        /// Whether all have done their work.
        well: bool,
    },
}

/// A service of a release, as it is now.
pub(crate) struct ServiceNow {
    pub(crate) name: String,
    pub(crate) service: Service,
    /// The deployment that has started it.
    pub(crate) deployment: u64,
    pub(crate) condition: Condition,
}

/// A release, kept by this server or by an engine that replaces releases by itself.
#[derive(Clone)]
pub(crate) enum Release {
    Kept(Arc<Live>),
    Ordered(Arc<Ordered>),
}

impl Release {
    /// Its deployment.
    pub(crate) fn row(&self) -> &DeploymentRow {
        match self {
            Self::Kept(live) => &live.row,
            Self::Ordered(ordered) => &ordered.row,
        }
    }

    /// What this server keeps running, if it is that.
    pub(crate) fn kept(&self) -> Option<&Arc<Live>> {
        match self {
            Self::Kept(live) => Some(live),
            Self::Ordered(_) => None,
        }
    }

    /// The number of its deployment.
    pub(crate) fn number(&self) -> u64 {
        self.row().number
    }

    pub(crate) fn state(&self) -> LiveState {
        match self {
            Self::Kept(live) => live.state(),
            Self::Ordered(ordered) => ordered.state(),
        }
    }

    pub(crate) fn services(&self) -> Vec<ServiceNow> {
        match self {
            Self::Kept(live) => live.services_now(),
            Self::Ordered(ordered) => ordered.services_now(),
        }
    }

    /// Numbers of the deployments that have started what runs of it.
    pub(crate) fn deployments(&self) -> BTreeSet<u64> {
        match self {
            Self::Kept(live) => live.deployments(),
            Self::Ordered(ordered) => ordered.deployments(),
        }
    }
}

/// The worst of the services; which one it is, where there are several.
pub(super) fn worst(services: &[(&str, Condition)], is_single: bool) -> LiveState {
    let told = |name: &str, why: &String| {
        if is_single {
            why.clone()
        } else {
            format!("{name}: {why}")
        }
    };
    for (name, condition) in services {
        if let Condition::Down(why) = condition {
            return LiveState::Down(told(name, why));
        }
    }
    let mut done = None;
    for (name, condition) in services {
        match condition {
            Condition::Ended { why, well: false } => {
                let why = told(name, why);
                return LiveState::Ended { why, well: false };
            }
            Condition::Ended { why, well: true } => done = Some(told(name, why)),
            _ => {}
        }
    }
    let is = |wanted: fn(&Condition) -> bool| services.iter().any(|(_, is)| wanted(is));
    match done {
        _ if is(|condition| *condition == Condition::Starting) => LiveState::Starting,
        Some(why) if !is(|condition| matches!(condition, Condition::Serving(_))) => {
            LiveState::Ended { why, well: true }
        }
        _ => LiveState::Serving,
    }
}

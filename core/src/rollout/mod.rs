//! Rollouts: from a deployment that was accepted to one that serves or was undone.
//!
//! Nothing here decides which step may follow which: that is `deployments::State`.

mod analysis;
mod doors;
mod failure;
mod handover;
mod health;
mod instances;
mod kept;
mod live;
mod ordered;
mod probe;
mod recovery;
mod release;
mod restart;
mod run;
#[cfg(test)]
pub(crate) mod simulation;
mod strategies;
mod undo;
mod verify;
mod watching;

pub(crate) use doors::{internal as internal_url, public as public_url_of};
pub(crate) use instances::{Adopted, LeftRunning, bounds, volume};
pub(crate) use kept::{Kept, KeptState};
pub(crate) use live::Live;
pub(crate) use ordered::{
    Sight, forget, forget_all, keep as keep_orders, restore as restore_order,
};
pub(crate) use probe::{Probed, probe_with};
pub(crate) use recovery::{finish_interrupted, restore_live};
pub(crate) use release::{Condition, LiveState, Release, ServiceNow};
pub(crate) use run::{Unchanged, run};
pub(crate) use undo::settle;

//! Rollouts: from a deployment that was accepted to one that serves or was undone.
//!
//! Nothing here decides which step may follow which: that is `deployments::State`.

mod analysis;
mod failure;
mod health;
mod instances;
mod live;
mod probe;
mod recovery;
mod restart;
mod run;
#[cfg(test)]
mod simulation;
mod strategies;
mod undo;
mod watching;

pub(crate) use instances::{Adopted, LeftRunning, bounds};
pub(crate) use live::{Live, LiveState};
pub(crate) use probe::{Probed, probe_with};
pub(crate) use recovery::{finish_interrupted, restore_live};
pub(crate) use run::run;
pub(crate) use undo::settle;

//! Releases that an engine replaces by itself: it is told what a tenant is to run, and looked at.
//!
//! Nothing is decided here that the records do not say. Whatever a server has left half done, [`keep`] tells the engine what
//! the database has as the live release, with a turn of its own, and that brings it about.

mod keeper;
mod logs;
mod orders;
mod release;
mod rollout;
mod sight;
mod url;

pub(crate) use keeper::{forget, forget_all, keep, restore};
pub(crate) use release::Ordered;
pub(crate) use sight::Sight;

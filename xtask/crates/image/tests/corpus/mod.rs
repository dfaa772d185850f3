//! Dockerfiles that are built twice, by this crate and by a real engine.

mod grammar;
mod ignored;
mod modern;
mod refused;
mod same;

pub(crate) use grammar::GRAMMAR;
pub(crate) use ignored::{FILES, IGNORES};
pub(crate) use modern::MODERN;
pub(crate) use refused::{REFUSED, STRICTER};
pub(crate) use same::SAME;

//! The workspace guards itself: who may depend on whom, what every package states, what
//! dependencies may be, and that building one package finds everything that building all of them
//! has compiled.
//!
//! Reads `cargo metadata` and `cargo tree`; builds nothing.

mod dependencies;
mod features;
mod packages;
mod walls;
mod world;

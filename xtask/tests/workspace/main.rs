//! The workspace guards itself: who may depend on whom, what every package states, what
//! dependencies may be, that building one package finds everything that building all of them has
//! compiled, and that the guides say what the program does.
//!
//! Reads `cargo metadata` and `cargo tree`; builds nothing.

mod dependencies;
mod features;
mod guides;
mod packages;
mod walls;
mod world;

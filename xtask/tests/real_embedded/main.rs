//! The whole way from a clone to a live URL on this machine: the real tool, the real platform, a
//! small real project.

mod failing;
mod history;
mod itself;
mod load;
mod machine;
mod releases;
mod survival;

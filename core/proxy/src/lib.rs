//! The traffic proxy: one listener, one route, and an atomic switch between instances.
//!
//! A tenant keeps one address for its whole life while the instances behind it come and go. The
//! proxy holds that address. Whoever runs a rollout calls [`Proxy::switch`] and then waits on the
//! [`Retired`] route until the last request of the old instance has ended.
//!
//! The proxy knows nothing of deployments, health or images, stores nothing and decides nothing:
//! it never moves traffic by itself. It terminates no TLS and caches no answer.

mod activity;
mod answers;
mod body;
mod failure;
mod forward;
mod headers;
mod listener;
mod pool;
mod proxy;
mod route;
mod settings;
mod stats;
mod tunnel;

pub use answers::{Bucket, Classes, Histogram};
pub use proxy::Proxy;
pub use route::{Retired, Target};
pub use settings::{Forwarded, Settings};
pub use stats::Stats;

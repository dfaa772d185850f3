//! The traffic proxy: one listener, and a split of its requests by weight over several instances
//! that changes atomically.
//!
//! A tenant keeps one address for its whole life while the instances behind it come and go. The
//! proxy holds that address. Whoever runs a rollout calls [`Proxy::direct`] with the [`Share`]s that
//! are to hold from now on, waits on each [`Retired`] instance until its last request has ended, and
//! reads from [`Proxy::measures`] how the others do. Replacing instances one by one, all at once, or
//! for a few requests in a hundred at first are all sequences of that one call. Where requests of different hosts and
//! paths go different ways, it is [`Proxy::divide`] with a [`Group`] for each and [`Rule`]s that choose among them; what is
//! not HTTP is handed on by connections ([`Front::Tcp`]).
//!
//! What holds:
//!
//! - Among any `sum of weights / gcd` requests in a row each share gets exactly its weight's part,
//!   from the request after a change of weights on. A second attempt takes nobody's turn.
//! - Once [`Proxy::direct`] has returned, what a retired instance has in flight can only fall.
//! - Until an instance is in no share any more, no call closes or forgets anything of it.
//!
//! The proxy knows nothing of deployments, health or images, stores nothing and decides nothing:
//! it never moves traffic by itself. An instance that fails keeps its part, and the proxy only sends
//! what it can safely send again to another one; taking it out is for whoever reads the measures.
//! Nor does it keep a client with an instance: every request is divided anew. It terminates TLS
//! with what it is given, knows no certificate files, and caches no answer.
//!
//! How connections are accepted, and how long they are waited for, is here for the server's other listener too:
//! [`Door`], [`Idle`].

mod accept;
mod activity;
mod answers;
mod body;
mod failure;
mod forward;
mod headers;
mod idle;
mod listener;
mod measures;
mod plain;
mod pool;
mod proxy;
mod relay;
mod route;
mod rules;
mod settings;
mod shared;
mod shelf;
mod split;
mod stats;
mod table;
mod tunnel;

pub use accept::{Door, Guest, agree};
pub use answers::{BOUNDS, Bucket, Classes, Histogram};
pub use idle::{Answer, Idle, InFlight, Patience};
pub use listener::Front;
pub use measures::Measures;
pub use proxy::Proxy;
pub use route::{Retired, Target};
pub use rules::Rule;
pub use settings::{Forwarded, Settings};
pub use split::{Group, Share};
pub use stats::Stats;

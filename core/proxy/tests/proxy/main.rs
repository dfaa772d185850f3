//! The proxy between real clients and real instances, over TCP.

mod draining;
mod failures;
mod gateway;
mod http2;
mod measuring;
mod plain;
mod pooling;
mod routing;
mod sharing;
mod stopping;
mod streaming;
mod support;
mod switching;
mod tunnels;
mod waiting;

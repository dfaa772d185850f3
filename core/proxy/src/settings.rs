//! What may be tuned, with the reason for each default.

use std::time::Duration;

use crate::idle::Patience;

/// Limits and time-outs of one [`Proxy`](crate::Proxy).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a client may take to send the head of a request, and how long its connection may
    /// stay open between two requests. It ends connections that trickle a byte at a time.
    pub header_read_timeout: Duration,
    /// How long a client may take for the next part of an answer.
    pub take_timeout: Duration,
    /// How long a client may take to agree on TLS, where there is any.
    pub handshake_timeout: Duration,
    /// How long making a connection to the instance may take.
    pub connect_timeout: Duration,
    /// How long the instance may take from the last byte of the request to the head of its answer; and how long a request
    /// waits for an instance that is on its way.
    pub answer_timeout: Duration,
    /// How long an unused connection to the instance may still be used again. Shorter than the
    /// five seconds after which common application servers close theirs, so that a request is not
    /// sent into a connection that is just being closed.
    pub idle_timeout: Duration,
    /// How long a tunnel (WebSocket) may be silent in both directions.
    pub tunnel_idle_timeout: Duration,
    /// The largest head of a request or of an answer, in bytes; at least 8192.
    pub max_header_bytes: u32,
    /// The most header lines in one head.
    pub max_headers: usize,
    /// The most unused connections kept open to each instance: so many for plain requests, and so many for all others.
    pub max_idle_connections: usize,
    /// The most connections of clients at once; further ones wait.
    pub max_connections: usize,
    /// The most requests that wait at once for an instance that is on its way; further ones are answered 503.
    pub max_waiting: usize,
    /// The most requests at once on one HTTP/2 connection.
    pub max_concurrent_streams: u32,
    /// What happens to forwarding headers that the client itself has sent.
    pub forwarded: Forwarded,
}

/// What to do with `X-Forwarded-*` headers that arrive with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// Replace them: the client is the outside world and may claim anything.
    Replace,
    /// Believe and extend them: another proxy stands in front and has checked them.
    Append,
}

impl Settings {
    /// How long a connection is waited for.
    pub(crate) fn patience(&self) -> Patience {
        Patience {
            first: self.header_read_timeout,
            later: self.header_read_timeout,
            answer: self.take_timeout,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            header_read_timeout: Duration::from_secs(30),
            take_timeout: Duration::from_mins(1),
            handshake_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(2),
            answer_timeout: Duration::from_mins(1),
            idle_timeout: Duration::from_secs(4),
            tunnel_idle_timeout: Duration::from_hours(1),
            max_header_bytes: 64 * 1024,
            max_headers: 128,
            max_idle_connections: 256,
            max_connections: 8192,
            max_waiting: 1024,
            max_concurrent_streams: 256,
            forwarded: Forwarded::Replace,
        }
    }
}

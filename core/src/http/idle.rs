//! How long a connection may be open without a request. hyper's own time-out is for HTTP/1.1, and begins when it knows
//! which protocol is spoken, which takes a byte that a silent client never sends.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

/// The requests of one connection.
pub(super) struct Idle {
    state: Mutex<State>,
}

struct State {
    requests: usize,
    /// Since when there is none.
    since: Instant,
    greeted: bool,
}

impl Idle {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                requests: 0,
                since: Instant::now(),
                greeted: false,
            }),
        })
    }

    /// A request has come; it is there until the value is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> InFlight {
        let mut state = self.state();
        state.requests += 1;
        state.greeted = true;
        InFlight(Arc::clone(self))
    }

    /// Returns when there was no request for `first` from the beginning on, or for `later` between two.
    pub(super) async fn over(&self, first: Duration, later: Duration) {
        loop {
            let end = {
                let state = self.state();
                let limit = if state.greeted { later } else { first };
                match state.requests {
                    0 => state.since + limit,
                    _ => Instant::now() + limit,
                }
            };
            if end <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is not answered to the end yet.
pub(super) struct InFlight(Arc<Idle>);

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.requests -= 1;
        state.since = Instant::now();
    }
}

/// The body of an answer, with which its request ends.
pub(super) struct Answer {
    body: Body,
    _request: InFlight,
}

impl Answer {
    pub(super) fn new(body: Body, request: InFlight) -> Self {
        Self {
            body,
            _request: request,
        }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(50);
    const LATER: Duration = Duration::from_millis(200);

    #[tokio::test]
    async fn a_connection_is_over_when_nothing_has_come_for_long_enough() {
        let idle = Idle::new();
        let started = Instant::now();
        idle.over(FIRST, LATER).await;
        assert!(started.elapsed() >= FIRST);
        let request = idle.begin();
        let during = tokio::time::timeout(2 * LATER, idle.over(FIRST, LATER));
        assert!(during.await.is_err(), "there is a request");
        let ended = Instant::now();
        drop(request);
        idle.over(FIRST, LATER).await;
        assert!(ended.elapsed() >= LATER);
    }
}

//! How long a connection may be open without a request, and how long a client may take for the next part of an answer.
//! hyper's own time-out is for HTTP/1.1, and begins when it knows which protocol is spoken, which takes a byte that a
//! silent client never sends.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

/// An answer goes out in parts of at most so many bytes, each of which is progress, also over a slow line.
const PART: usize = 16 * 1024;

/// How long a connection is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For its first request.
    pub first: Duration,
    /// For another one.
    pub later: Duration,
    /// For it to take a part of an answer.
    pub answer: Duration,
}

/// The requests of one connection.
#[derive(Debug)]
pub struct Idle {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    requests: usize,
    /// Since when there is none.
    since: Instant,
    greeted: bool,
    /// How many there were.
    number: u64,
    /// The answers that wait for the client, since when.
    offered: HashMap<u64, Instant>,
}

impl Idle {
    /// Of a connection that was just made.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                requests: 0,
                since: Instant::now(),
                greeted: false,
                number: 0,
                offered: HashMap::new(),
            }),
        })
    }

    /// A request has come; it is there until the value is dropped.
    #[must_use = "the request is over when this is dropped"]
    pub fn begin(self: &Arc<Self>) -> InFlight {
        let mut state = self.state();
        state.requests += 1;
        state.greeted = true;
        state.number += 1;
        InFlight {
            number: state.number,
            idle: Arc::clone(self),
        }
    }

    /// Returns when there was nothing that anybody would wait for any longer.
    pub async fn over(&self, patience: Patience) {
        loop {
            let (end, now) = (self.state().end(patience), Instant::now());
            if end <= now {
                return;
            }
            // A request may come, and its answer wait, before this connection's own time is over.
            tokio::time::sleep_until(end.min(now + patience.answer)).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// When to look again; when it is over, if that has passed.
    fn end(&self, patience: Patience) -> Instant {
        if let Some(oldest) = self.offered.values().min() {
            return *oldest + patience.answer;
        }
        let limit = if self.greeted {
            patience.later
        } else {
            patience.first
        };
        match self.requests {
            0 => self.since + limit,
            _ => Instant::now() + limit.min(patience.answer),
        }
    }
}

/// A request that is not answered to the end yet.
#[derive(Debug)]
pub struct InFlight {
    number: u64,
    idle: Arc<Idle>,
}

impl InFlight {
    /// Something is there for the client to take.
    fn offer(&self) {
        let now = Instant::now();
        self.idle.state().offered.insert(self.number, now);
    }

    /// The client has taken all there is; more is being made.
    fn make(&self) {
        self.idle.state().offered.remove(&self.number);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut state = self.idle.state();
        state.offered.remove(&self.number);
        state.requests -= 1;
        state.since = Instant::now();
    }
}

/// The body of an answer, with which its request ends. hyper asks it for more when the client has taken what there
/// was: with HTTP/2, when there is room in the stream's window.
#[derive(Debug)]
pub struct Answer<B> {
    body: B,
    /// Of the last frame, what was not handed on yet.
    rest: Bytes,
    request: InFlight,
}

impl<B> Answer<B> {
    /// The body of the answer to this request.
    pub fn new(body: B, request: InFlight) -> Self {
        request.offer();
        Self {
            body,
            rest: Bytes::new(),
            request,
        }
    }

    fn part(&mut self) -> Frame<Bytes> {
        self.request.offer();
        Frame::data(self.rest.split_to(self.rest.len().min(PART)))
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Answer<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.part())));
        }
        let frame = match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Pending => {
                self.request.make();
                return Poll::Pending;
            }
            Poll::Ready(Some(Ok(frame))) => frame,
            ended @ Poll::Ready(_) => return ended,
        };
        match frame.into_data() {
            Ok(data) => {
                self.rest = data;
                Poll::Ready(Some(Ok(self.part())))
            }
            Err(trailers) => Poll::Ready(Some(Ok(trailers))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (body, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower() + rest);
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Full};

    use super::*;

    const PATIENCE: Patience = Patience {
        first: Duration::from_millis(50),
        later: Duration::from_millis(200),
        answer: Duration::from_millis(300),
    };

    /// A body of which nothing comes.
    struct Silent;

    impl Body for Silent {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            Poll::Pending
        }
    }

    async fn is_over(idle: &Idle) -> bool {
        let long = 3 * PATIENCE.answer;
        tokio::time::timeout(long, idle.over(PATIENCE))
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn a_connection_is_over_when_nothing_has_come_for_long_enough() {
        let idle = Idle::new();
        let started = Instant::now();
        idle.over(PATIENCE).await;
        assert!(started.elapsed() >= PATIENCE.first);
        let request = idle.begin();
        assert!(!is_over(&idle).await, "there is a request");
        let ended = Instant::now();
        drop(request);
        idle.over(PATIENCE).await;
        assert!(ended.elapsed() >= PATIENCE.later);
    }

    #[tokio::test]
    async fn a_connection_is_over_when_nobody_takes_what_is_there() {
        let content = Bytes::from(vec![7; 3 * PART + 1]);
        let idle = Idle::new();
        let mut answer = Answer::new(Full::new(content.clone()), idle.begin());
        let mut taken = Vec::new();
        while !answer.is_end_stream() {
            let left = answer.size_hint().exact().unwrap();
            assert_eq!(left + taken.len() as u64, content.len() as u64);
            let frame = answer.frame().await.unwrap().unwrap();
            let part = frame.into_data().unwrap();
            assert!(part.len() <= PART);
            taken.extend_from_slice(&part);
        }
        assert_eq!(taken, content);
        let mut stopped = Answer::new(Full::new(content), idle.begin());
        stopped.frame().await.unwrap().unwrap();
        let since = Instant::now();
        assert!(is_over(&idle).await, "nobody takes the next part");
        assert!(since.elapsed() >= PATIENCE.answer / 2);
    }

    #[tokio::test]
    async fn what_has_nothing_to_tell_may_take_its_time() {
        let idle = Idle::new();
        let mut answer = Answer::new(Silent, idle.begin());
        let asked = tokio::time::timeout(Duration::ZERO, answer.frame()).await;
        assert!(asked.is_err(), "it has nothing yet");
        assert!(!is_over(&idle).await);
    }
}
